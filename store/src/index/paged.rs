//! The index in a folder: new places gather in memory and are merged into buckets on sled in large sorted batches.
//!
//! Invariant: a pack is noted on sled only after all its places are there, so that a crash forgets packs and never
//! claims one whose places are missing. Memory is bounded by the cache size: half of it each for pages read, pages
//! written and places that wait; `expect_many` lets four times as many wait.

use super::bucket::{self, BUCKETS, ENTRY_END};
use super::filter::Filter;
use super::sled::Pages;
use super::{ClusterIndex, Key, Place, Places};
use crate::error::{Error, Result};
use crate::id::{PackName, PackNumber, SessionId, Uid};
use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::path::Path;
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering::Relaxed};
use std::sync::{Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

/// Changes whenever the bytes on sled do.
pub(super) const VERSION: u32 = 1;
/// Memory of a waiting place, its share of the table's free slots included.
const WAITING_BYTES: usize = 40;
/// By this much more may wait while many packs follow each other: whatever waits is merged into all buckets, so the fewer
/// times the better.
const MANY: usize = 4;
/// Second places of waiting keys are searched one by one, so few.
const MORE_MAX: usize = 1024;
/// Buckets that one batch replaces.
const BATCH: usize = 256;
/// Bytes put between flushes: sled holds them in memory until then.
const DIRTY_BYTES_MAX: u64 = 16 << 20;
/// So many lookups of absent keys had to read buckets before a filter is worth reading all of them once.
const ABSENT_MAX: u32 = 4096;

/// Why an index could not be used as it was.
#[derive(Debug)]
pub enum Unfit {
    /// It was made by another version.
    Version,
    /// It is of another store.
    Store,
    /// It is damaged, or cannot be written.
    Broken(Error),
}

impl fmt::Display for Unfit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Version => f.write_str("was of another version"),
            Self::Store => f.write_str("was of another store"),
            Self::Broken(e) => write!(f, "was damaged ({e})"),
        }
    }
}

impl From<Error> for Unfit {
    fn from(error: Error) -> Self {
        Self::Broken(error)
    }
}

/// An index on sled.
pub struct SledIndex {
    pages: Pages,
    /// Packs noted, on sled or waiting. Places of others are not told.
    packs: RwLock<BTreeMap<PackNumber, PackName>>,
    waiting: RwLock<Waiting>,
    /// How many places wait at most; `usual_max` but for times of plenty.
    waiting_max: AtomicUsize,
    usual_max: usize,
    /// Once it exists it knows every key on sled and waiting.
    filter: RwLock<Option<Filter>>,
    absent: AtomicU32,
    /// Held by whoever changes any of it.
    writer: Mutex<()>,
}

#[derive(Default)]
struct Waiting {
    places: HashMap<Key, Place>,
    /// Further places of keys that are in `places`.
    more: Vec<(Key, Place)>,
    packs: Vec<PackNumber>,
    /// What a drain is writing, sorted; found here until it is all on sled.
    draining: Vec<(Key, Place)>,
}

impl Waiting {
    fn len(&self) -> usize {
        self.places.len() + self.more.len()
    }

    fn add(&mut self, key: Key, place: Place) {
        if let Some(known) = self.places.insert(key, place)
            && known != place
        {
            self.more.push((key, known));
        }
    }

    /// What is known of a key, oldest first.
    fn find(&self, key: &Key, found: &mut Places) {
        let from = self.draining.partition_point(|d| d.0 < *key);
        let draining = self.draining[from..].iter().take_while(|d| d.0 == *key);
        draining.for_each(|d| found.add(d.1));
        if let Some(newest) = self.places.get(key) {
            self.more
                .iter()
                .filter(|m| m.0 == *key)
                .for_each(|m| found.add(m.1));
            found.add(*newest);
        }
    }

    /// Turns what waits into what is drained; the table's memory is free before sled needs some.
    fn start_draining(&mut self) -> Vec<PackNumber> {
        self.draining = std::mem::take(&mut self.more);
        self.draining.extend(std::mem::take(&mut self.places));
        self.draining.sort_unstable();
        std::mem::take(&mut self.packs)
    }
}

fn read<T>(lock: &RwLock<T>) -> RwLockReadGuard<'_, T> {
    lock.read().unwrap_or_else(PoisonError::into_inner)
}

fn write<T>(lock: &RwLock<T>) -> RwLockWriteGuard<'_, T> {
    lock.write().unwrap_or_else(PoisonError::into_inner)
}

impl SledIndex {
    /// Opens the index of `store` in `folder`, made if there is none. `cache_bytes` bounds its memory, see the module.
    pub fn open(folder: &Path, store: Uid, cache_bytes: usize) -> std::result::Result<Self, Unfit> {
        Self::open_version(folder, store, cache_bytes, VERSION)
    }

    pub(super) fn open_version(
        folder: &Path,
        store: Uid,
        cache_bytes: usize,
        version: u32,
    ) -> std::result::Result<Self, Unfit> {
        let pages = Pages::open(folder, cache_bytes / 2)?;
        match (pages.meta("version")?, pages.meta("store")?) {
            (None, None) => {
                pages.unseal()?;
                pages.put_meta("version", &version.to_le_bytes())?;
                pages.put_meta("store", &store.0)?;
                pages.flush()?;
                pages.seal()?;
            }
            (Some(found), _) if found[..] != version.to_le_bytes() => return Err(Unfit::Version),
            (Some(_), Some(found)) if found[..] == store.0 => {}
            _ => return Err(Unfit::Store),
        }
        let packs = pages
            .packs()?
            .iter()
            .map(decode_note)
            .collect::<Result<_>>()?;
        let usual = (cache_bytes / 2 / WAITING_BYTES).max(1024);
        Ok(Self {
            pages,
            packs: RwLock::new(packs),
            waiting: RwLock::default(),
            waiting_max: AtomicUsize::new(usual),
            usual_max: usual,
            filter: RwLock::new(None),
            absent: AtomicU32::new(0),
            writer: Mutex::new(()),
        })
    }

    fn writer(&self) -> MutexGuard<'_, ()> {
        self.writer.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Merges what waits into the buckets, in their order, then notes the packs.
    fn drain(&self, _writer: &MutexGuard<'_, ()>) -> Result<()> {
        if read(&self.waiting).packs.is_empty() {
            return Ok(());
        }
        let packs = write(&self.waiting).start_draining();
        self.pages.unseal()?;
        self.drain_places()?;
        // ORDER: notes after the places that they promise.
        for number in packs {
            let name = read(&self.packs).get(&number).copied();
            if let Some(name) = name {
                self.pages
                    .put_pack(number.0.to_be_bytes(), &encode_name(&name))?;
            }
        }
        write(&self.waiting).draining = Vec::new();
        self.pages.flush()?;
        self.pages.seal()
    }

    fn drain_places(&self) -> Result<()> {
        // Nobody but the writer changes it; lookups read it too.
        let waiting = read(&self.waiting);
        let fresh = &waiting.draining;
        let groups: Vec<&[(Key, Place)]> = fresh
            .chunk_by(|a, b| bucket::number_of(&a.0) == bucket::number_of(&b.0))
            .collect();
        for batch in groups.chunks(BATCH) {
            let merged: Result<Vec<_>> = batch.iter().map(|group| self.merged(group)).collect();
            self.pages.put_buckets(merged?)?;
            if self.pages.dirty_bytes() > DIRTY_BYTES_MAX {
                self.pages.flush()?;
            }
        }
        Ok(())
    }

    fn merged(&self, group: &[(Key, Place)]) -> Result<(u16, Vec<u8>)> {
        let number = bucket::number_of(&group[0].0);
        let packs = read(&self.packs);
        let live = |p: Place| packs.contains_key(&p.pack);
        let bytes = self
            .pages
            .bucket(number, |old| bucket::merge(old, group, live))??;
        Ok((number, bytes))
    }

    /// Reads all keys once into a filter. Whoever finds the writer busy leaves it to a later lookup.
    fn build_filter(&self) -> Result<()> {
        let Ok(_writer) = self.writer.try_lock() else {
            return Ok(());
        };
        if read(&self.filter).is_some() {
            return Ok(());
        }
        // Keys spread evenly, so a few buckets tell how many there are.
        let sample = 0..64;
        let mut records = 0;
        for number in sample.clone() {
            records += self.pages.bucket(number, bucket::len)??;
        }
        let expected = records * (BUCKETS as usize / sample.len());
        let mut filter = Filter::new(expected + expected / 2);
        for number in 0..=u16::MAX {
            let add = |bytes: &[u8]| bucket::keys(number, bytes, |key| filter.insert(key));
            self.pages.bucket(number, add)??;
        }
        read(&self.waiting)
            .places
            .keys()
            .for_each(|key| filter.insert(key));
        *write(&self.filter) = Some(filter);
        Ok(())
    }
}

impl ClusterIndex for SledIndex {
    fn lookup(&self, key: &Key) -> Result<Places> {
        let filtered = match &*read(&self.filter) {
            Some(filter) if !filter.may_hold(key) => return Ok(Places::default()),
            filter => filter.is_some(),
        };
        // Waiting first: what is drained in between is then found in both, not in neither.
        let mut waiting = Places::default();
        read(&self.waiting).find(key, &mut waiting);
        let mut found = self
            .pages
            .bucket(bucket::number_of(key), |b| bucket::find(b, key))??;
        waiting.iter().for_each(|place| found.add(place));
        let packs = read(&self.packs);
        let any = found.retain(|p| packs.contains_key(&p.pack));
        drop(packs);
        if !any && !filtered && self.absent.fetch_add(1, Relaxed) >= ABSENT_MAX {
            self.build_filter()?;
        }
        Ok(found)
    }

    fn insert_pack(
        &self,
        number: PackNumber,
        name: &PackName,
        places: &[(Key, u32)],
    ) -> Result<()> {
        if let Some((_, entry)) = places.iter().find(|p| p.1 >= ENTRY_END) {
            let why = format!("{number:?} cannot have an entry {entry}");
            return Err(Error::invalid("adding to the index", why));
        }
        let writer = self.writer();
        if let Some(filter) = &mut *write(&self.filter) {
            for (key, _) in places {
                filter.insert(key);
            }
        }
        write(&self.packs).insert(number, *name);
        let full = {
            let mut waiting = write(&self.waiting);
            for (key, entry) in places {
                waiting.add(
                    *key,
                    Place {
                        pack: number,
                        entry: *entry,
                    },
                );
            }
            waiting.packs.push(number);
            waiting.len() >= self.waiting_max.load(Relaxed) || waiting.more.len() >= MORE_MAX
        };
        if full { self.drain(&writer) } else { Ok(()) }
    }

    fn expect_many(&self, many: bool) {
        let times = if many { MANY } else { 1 };
        self.waiting_max.store(self.usual_max * times, Relaxed);
    }

    fn packs(&self) -> Result<Vec<(PackNumber, PackName)>> {
        Ok(read(&self.packs)
            .iter()
            .map(|(number, name)| (*number, *name))
            .collect())
    }

    fn forget_pack(&self, number: PackNumber) -> Result<()> {
        let _writer = self.writer();
        write(&self.packs).remove(&number);
        self.pages.unseal()?;
        self.pages.remove_pack(number.0.to_be_bytes())
    }

    fn len(&self) -> Result<u64> {
        let writer = self.writer();
        self.drain(&writer)?;
        let packs = read(&self.packs);
        let mut keys = 0;
        for number in 0..=u16::MAX {
            let live = |p: Place| packs.contains_key(&p.pack);
            let count = |bytes: &[u8]| bucket::count_keys(bytes, live);
            keys += self.pages.bucket(number, count)??;
        }
        Ok(keys)
    }

    fn flush(&self) -> Result<()> {
        let writer = self.writer();
        self.drain(&writer)?;
        self.pages.flush()?;
        self.pages.seal()
    }
}

impl Drop for SledIndex {
    fn drop(&mut self) {
        let writer = self.writer.lock().unwrap_or_else(PoisonError::into_inner);
        // What cannot be written is forgotten; the pack tables still have it.
        self.drain(&writer).ok();
    }
}

fn encode_name(name: &PackName) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(20);
    bytes.extend_from_slice(&name.session.opened_at.to_le_bytes());
    bytes.extend_from_slice(&name.session.nonce.to_le_bytes());
    bytes.extend_from_slice(&name.n.to_le_bytes());
    bytes
}

fn decode_note((key, value): &(Vec<u8>, Vec<u8>)) -> Result<(PackNumber, PackName)> {
    let odd = || Error::corrupt("reading the index", "a pack's note has an odd length");
    let number = <[u8; 4]>::try_from(&key[..]).map_err(|_| odd())?;
    let value = <[u8; 20]>::try_from(&value[..]).map_err(|_| odd())?;
    let word = |at: usize| {
        let mut bytes = [0; 8];
        bytes.copy_from_slice(&value[at..at + 8]);
        u64::from_le_bytes(bytes)
    };
    let n = u32::from_le_bytes([value[16], value[17], value[18], value[19]]);
    let session = SessionId {
        opened_at: word(0),
        nonce: word(8),
    };
    Ok((
        PackNumber(u32::from_be_bytes(number)),
        PackName { session, n },
    ))
}
