//! The index on disk. The only file that names sled.
//!
//! sled is an alpha and may fail or panic: every call is caught, and after the first failure the index answers nothing but
//! errors, upon which it is thrown away.

use super::{ClusterIndex, Key, PLACES_MAX, Place, Places};
use crate::error::{Error, Result};
use crate::id::{PackName, PackNumber, SessionId, Uid};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};

/// Changes with anything that this file stores.
const VERSION: u32 = 1;
/// Keys of a leaf: what sled's own default type has.
const FANOUT: usize = 1024;
/// Keys inserted at a time.
const BATCH: usize = 16 << 10;
/// Bytes of a place: pack number and entry.
const PLACE_BYTES: usize = 8;

type Db = sled::Db<FANOUT>;
type Tree = sled::Tree<FANOUT>;

/// An open sled database.
pub struct SledIndex {
    /// sled's handles are not for sharing: each thread of the pool has its own.
    handles: Vec<Mutex<Handle>>,
    failed: AtomicBool,
}

struct Handle {
    db: Db,
    places: Tree,
    packs: Tree,
}

/// Why a database cannot be used and must be made anew.
pub enum Unusable {
    /// It is of another store, or of another version of this file.
    Foreign(String),
    /// sled cannot open it.
    Broken(String),
}

impl SledIndex {
    /// Opens or makes the database in `path` for one store.
    pub fn open(
        path: &Path,
        store: Uid,
        cache_bytes: usize,
    ) -> std::result::Result<Self, Unusable> {
        let open = || -> std::io::Result<(Db, Tree, Tree, Tree)> {
            // The level of zstd does little on hashes; the flusher only bounds what a crash forgets.
            let config = sled::Config::new()
                .path(path)
                .cache_capacity_bytes(cache_bytes)
                .zstd_compression_level(1)
                .flush_every_ms(Some(1000));
            let db: Db = config.open()?;
            let (meta, places, packs) = (
                db.open_tree("meta")?,
                db.open_tree("places")?,
                db.open_tree("packs")?,
            );
            Ok((db, meta, places, packs))
        };
        let (db, meta, places, packs) = caught(open).map_err(Unusable::Broken)?;
        let own = [&VERSION.to_le_bytes()[..], &store.0].concat();
        let there = caught(|| meta.get("store")).map_err(Unusable::Broken)?;
        match there {
            Some(there) if there.as_ref() == own => {}
            Some(_) => {
                return Err(Unusable::Foreign(
                    "it is of another store or version".into(),
                ));
            }
            None if caught(|| packs.is_empty()).map_err(Unusable::Broken)? => {
                caught(|| meta.insert("store", own.clone())).map_err(Unusable::Broken)?;
            }
            None => {
                return Err(Unusable::Foreign(
                    "it does not say which store it is of".into(),
                ));
            }
        }
        let handle = || {
            let (db, places, packs) = (db.clone(), places.clone(), packs.clone());
            Mutex::new(Handle { db, places, packs })
        };
        let handles = (0..rayon::current_num_threads().max(1))
            .map(|_| handle())
            .collect();
        Ok(Self {
            handles,
            failed: AtomicBool::new(false),
        })
    }

    fn call<T>(&self, call: impl FnOnce(&Handle) -> std::io::Result<T>) -> Result<T> {
        if self.failed.load(Ordering::Relaxed) {
            return Err(Error::corrupt("asking the index", "it failed before"));
        }
        let thread = rayon::current_thread_index().unwrap_or(0) % self.handles.len();
        let handle = self.handles[thread]
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        caught(|| call(&handle)).map_err(|why| {
            self.failed.store(true, Ordering::Relaxed);
            Error::corrupt("asking the index", why)
        })
    }
}

/// The result of a call, panics and errors both as text.
fn caught<T>(call: impl FnOnce() -> std::io::Result<T>) -> std::result::Result<T, String> {
    match catch_unwind(AssertUnwindSafe(call)) {
        Ok(result) => result.map_err(|e| e.to_string()),
        Err(panic) => {
            let text = panic.downcast_ref::<&str>().map(ToString::to_string);
            let text = text.or_else(|| panic.downcast_ref::<String>().cloned());
            Err(format!("sled panicked: {}", text.unwrap_or_default()))
        }
    }
}

fn decode_places(bytes: &[u8]) -> Places {
    let mut places = Places::default();
    for place in bytes.chunks_exact(PLACE_BYTES).take(PLACES_MAX) {
        let number =
            |at: usize| u32::from_le_bytes(place[at..at + 4].try_into().expect("four of eight"));
        places.add(Place {
            pack: PackNumber(number(0)),
            entry: number(4),
        });
    }
    places
}

fn encode_places(places: &Places) -> Vec<u8> {
    places
        .iter()
        .flat_map(|p| [p.pack.0.to_le_bytes(), p.entry.to_le_bytes()])
        .flatten()
        .collect()
}

fn encode_name(name: &PackName) -> [u8; 20] {
    let mut bytes = [0; 20];
    bytes[..8].copy_from_slice(&name.session.opened_at.to_le_bytes());
    bytes[8..16].copy_from_slice(&name.session.nonce.to_le_bytes());
    bytes[16..].copy_from_slice(&name.n.to_le_bytes());
    bytes
}

fn decode_name(bytes: &[u8]) -> Option<PackName> {
    let bytes: &[u8; 20] = bytes.try_into().ok()?;
    let number =
        |at: usize| u64::from_le_bytes(bytes[at..at + 8].try_into().expect("eight of twenty"));
    let n = u32::from_le_bytes(bytes[16..].try_into().expect("four of twenty"));
    Some(PackName {
        session: SessionId {
            opened_at: number(0),
            nonce: number(8),
        },
        n,
    })
}

impl ClusterIndex for SledIndex {
    fn lookup(&self, key: &Key) -> Result<Places> {
        let found = self.call(|h| h.places.get(key))?;
        Ok(found.map(|bytes| decode_places(&bytes)).unwrap_or_default())
    }

    /// ORDER: the places are in, and flushed, before the pack is noted, so that a crash can only forget a pack.
    fn insert_pack(
        &self,
        number: PackNumber,
        name: &PackName,
        places: &[(Key, u32)],
    ) -> Result<()> {
        for part in places.chunks(BATCH) {
            self.call(|h| {
                let mut batch = sled::Batch::default();
                for (key, entry) in part {
                    let mut all = match h.places.get(key)? {
                        Some(bytes) => decode_places(&bytes),
                        None => Places::default(),
                    };
                    all.add(Place {
                        pack: number,
                        entry: *entry,
                    });
                    batch.insert(key, encode_places(&all));
                }
                h.places.apply_batch(batch)
            })?;
        }
        self.call(|h| {
            h.places.flush()?;
            h.packs
                .insert(number.0.to_be_bytes(), &encode_name(name))
                .map(|_| ())
        })
    }

    fn packs(&self) -> Result<Vec<(PackNumber, PackName)>> {
        self.call(|h| {
            let mut packs = Vec::new();
            for item in &h.packs {
                let (key, value) = item?;
                let number = <[u8; 4]>::try_from(key.as_ref()).map(u32::from_be_bytes);
                let (Ok(number), Some(name)) = (number, decode_name(&value)) else {
                    return Err(std::io::Error::other("a pack's note is malformed"));
                };
                packs.push((PackNumber(number), name));
            }
            Ok(packs)
        })
    }

    fn forget_pack(&self, number: PackNumber) -> Result<()> {
        self.call(|h| h.packs.remove(number.0.to_be_bytes()).map(|_| ()))
    }

    fn len(&self) -> Result<u64> {
        self.call(|h| Ok(h.places.len() as u64))
    }

    fn flush(&self) -> Result<()> {
        self.call(|h| h.db.flush().map(|_| ()))
    }
}
