//! What another store sends, on its way in: clusters in frames, each named by the hash of what it decodes to, and
//! manifests as changes of contents that are here. Nothing counts before `commit`, and what was stored until something
//! failed is found again by the next try.

use super::writer::Writer;
use crate::catalog::Catalog;
use crate::codec::{DecodedFrame, EncodedFrame, decode_frame};
use crate::error::{Error, ErrorKind, Result};
use crate::format::entry::{Content, Op, PackKind, SessionKind};
use crate::format::manifest::{Child, Node};
use crate::format::snapshot::SnapshotRecord;
use crate::geometry::Compression;
use crate::id::{Hash, PackName};
use crate::index::{Places, key_of};
use crate::log::invalid;
use crate::manifest::build::Builder;
use crate::manifest::edit::edit;
use crate::manifest::{NodeSource, Run, check_size};
use crate::object::Purse;
use crate::ops::repack::Repacker;
use crate::store::Store;
use rayon::prelude::*;
use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Nodes kept in memory until their packs are published: 40 MiB.
const YOUNG_MAX: usize = 1 << 16;
/// LIMIT: hashes that a taker who only counts remembers, 8 bytes each: 64 GiB of clusters of 8 KiB.
const COUNTED_MAX: usize = 8 << 20;

/// A frame that arrived, decoded; its items are what their hashes say.
pub struct Arrived {
    encoded: EncodedFrame,
    frame: DecodedFrame,
    zstd: bool,
    hashes: Vec<Hash>,
}

impl Arrived {
    /// Decodes a frame of clusters of `cluster_bytes` and hashes its items.
    pub fn read(cluster_bytes: u32, bytes: Vec<u8>) -> Result<Self> {
        let frame = decode_frame(PackKind::Clusters, cluster_bytes, &bytes)?;
        let size = cluster_bytes as usize;
        let hashes: Vec<Hash> = frame.data().par_chunks_exact(size).map(Hash::of).collect();
        let encoded = EncodedFrame {
            items: hashes.len() as u16,
            decoded: frame.data().len() as u32,
            bytes,
        };
        // The fifth byte of a frame says how it is encoded.
        let zstd = encoded.bytes.get(4) == Some(&1);
        Ok(Self {
            encoded,
            frame,
            zstd,
            hashes,
        })
    }

    /// Clusters in it.
    pub fn clusters(&self) -> u64 {
        self.hashes.len() as u64
    }
}

/// Nodes stored by this taker and not published yet.
#[derive(Default)]
struct Young(Mutex<HashMap<Hash, Arc<Node>>>);

impl Young {
    fn lock(&self) -> MutexGuard<'_, HashMap<Hash, Arc<Node>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Young nodes before those of roots that are relied on.
struct Known<'y, 'a> {
    young: &'y Young,
    older: Arc<dyn NodeSource + 'a>,
}

impl NodeSource for Known<'_, '_> {
    fn node(&self, hash: &Hash) -> Result<Arc<Node>> {
        let young = self.young.lock().get(hash).cloned();
        young.map_or_else(|| self.older.node(hash), Ok)
    }
}

/// Takes in; see the module. Its packs are spared by gc while it is at work, and what it found here is pinned by `hold`.
pub struct Taker<'a> {
    writer: Writer<'a>,
    young: Young,
    held: BTreeSet<PackName>,
    awaited: HashSet<Hash>,
    /// The first bytes of what was counted.
    counted: HashSet<[u8; 8]>,
    repacker: Repacker,
    stored: u64,
}

impl<'a> Taker<'a> {
    /// Nothing is written before something arrives that the store lacks.
    pub fn new(store: &'a Store) -> Result<Self> {
        Ok(Self {
            writer: Writer::new(store, SessionKind::Writer, Purse::Free)?,
            young: Young::default(),
            held: BTreeSet::new(),
            awaited: HashSet::new(),
            counted: HashSet::new(),
            repacker: Repacker::new(store.geometry()),
            stored: 0,
        })
    }

    /// Bytes of the frames stored so far.
    pub fn stored_bytes(&self) -> u64 {
        self.stored
    }

    /// Contents with this root, which are reachable, are counted on.
    pub fn rely_on(&mut self, root: Hash) {
        self.writer.rely_on_root(Some(root));
    }

    /// From now on what is relied on stays until the end, also where somebody deletes it.
    pub fn claim(&mut self) -> Result<()> {
        if self.writer.relied.roots.is_empty() {
            return Ok(());
        }
        self.writer.claim()
    }

    /// What made it fail: where something that is relied on was deleted meanwhile, that.
    pub fn explain(&self, error: Error) -> Error {
        if error.kind() != ErrorKind::Corrupt {
            return error;
        }
        match self.writer.refreshed() {
            Ok(now) if self.writer.relied.roots.iter().any(|r| !now.reachable(r)) => busy(error),
            _ => error,
        }
    }

    /// True for each hash that the store lacks and that was not asked for before: it is asked for now.
    pub fn ask(&mut self, hashes: &[Hash]) -> Result<Vec<bool>> {
        let places = self.look_up(hashes)?;
        let mut lacking = Vec::with_capacity(hashes.len());
        for (hash, places) in hashes.iter().zip(places) {
            let lacks = !self.writer.is_stored(hash, &places)?;
            if lacks {
                self.awaited.insert(*hash);
            }
            lacking.push(lacks);
        }
        Ok(lacking)
    }

    /// True for each hash that the store lacks and that was not counted before: nothing is asked for. Where more lacks than
    /// is remembered, what comes more than once may be counted more than once.
    pub fn count(&mut self, hashes: &[Hash]) -> Result<Vec<bool>> {
        let places = self.look_up(hashes)?;
        let mut lacking = Vec::with_capacity(hashes.len());
        for (hash, places) in hashes.iter().zip(places) {
            let lacks = !self.writer.is_stored(hash, &places)?;
            // Nobody is going to store it.
            self.writer.fresh.remove(hash);
            let mut first = [0; 8];
            first.copy_from_slice(&hash.0[..8]);
            let again = if self.counted.len() < COUNTED_MAX {
                lacks && !self.counted.insert(first)
            } else {
                self.counted.contains(&first)
            };
            lacking.push(lacks && !again);
        }
        Ok(lacking)
    }

    /// Refuses contents with a size that is not one of their root's, which is relied on or was made here: nobody could read
    /// them.
    pub fn check_size(&self, content: Content) -> Result<()> {
        let known = Known {
            young: &self.young,
            older: self.writer.parent_nodes(),
        };
        let clusters = self.writer.geometry().clusters(content.size);
        check_size(&known, content.root, clusters)
    }

    /// Of what was asked for, what has not arrived.
    pub fn awaited(&self) -> usize {
        self.awaited.len()
    }

    /// The hashes that neither the store nor what has arrived holds.
    pub fn missing(&mut self, hashes: &[Hash]) -> Result<Vec<Hash>> {
        let places = self.look_up(hashes)?;
        let mut missing = Vec::new();
        for (hash, places) in hashes.iter().zip(places) {
            if !self.writer.is_stored(hash, &places)? {
                // Nobody is going to store it.
                self.writer.fresh.remove(hash);
                missing.push(*hash);
            }
        }
        Ok(missing)
    }

    fn look_up(&mut self, hashes: &[Hash]) -> Result<Vec<Places>> {
        let index = self.writer.index();
        if index.is_closed() && !hashes.is_empty() {
            self.writer.open_index()?;
        }
        Ok(hashes
            .par_iter()
            .map(|h| index.lookup(&key_of(h)))
            .collect())
    }

    /// Stores what was asked for and drops the rest; returns how many clusters were kept.
    pub fn answer(&mut self, frame: Arrived) -> Result<u64> {
        let kept: Vec<bool> = frame
            .hashes
            .iter()
            .map(|h| self.awaited.remove(h))
            .collect();
        self.store(frame, &kept)
    }

    /// Stores what the store lacks; returns how many clusters were kept.
    pub fn offer(&mut self, frame: Arrived) -> Result<u64> {
        let places = self.look_up(&frame.hashes)?;
        let mut kept = Vec::with_capacity(places.len());
        for (hash, places) in frame.hashes.iter().zip(places) {
            kept.push(!self.writer.is_stored(hash, &places)?);
        }
        self.store(frame, &kept)
    }

    /// As it stands, where it is as this store would make it; else cluster by cluster.
    fn store(&mut self, frame: Arrived, kept: &[bool]) -> Result<u64> {
        let geometry = self.writer.geometry();
        let (items, full) = (frame.hashes.len(), geometry.clusters_per_frame());
        let as_ours = match geometry.compression {
            Compression::Zstd(_) => true,
            Compression::None => !frame.zstd,
        };
        let (writer, stored) = (&mut self.writer, &mut self.stored);
        let mut out = |frame: EncodedFrame, hashes: &[Hash]| {
            *stored += frame.bytes.len() as u64;
            writer.store_encoded(PackKind::Clusters, &frame, hashes)
        };
        let count = kept.iter().filter(|kept| **kept).count();
        // Short frames are put together: each snapshot would leave one else, and small frames compress less.
        if count == items && as_ours && items <= full && items * 2 > full {
            out(frame.encoded, &frame.hashes)?;
            return Ok(count as u64);
        }
        for (i, hash) in frame.hashes.iter().enumerate().filter(|(i, _)| kept[*i]) {
            let item = frame.frame.item(i).unwrap_or_default();
            self.repacker.push(*hash, item, &mut out)?;
        }
        Ok(count as u64)
    }

    /// Contents that are all holes.
    pub fn empty(&mut self, size: u64) -> Result<Content> {
        let clusters = self.writer.geometry().clusters(size);
        let mut sink = sink(&mut self.writer, &self.young);
        let mut builder = Builder::new(clusters);
        builder.push(Child::Hole, clusters, &mut sink)?;
        let root = builder.finish(&mut sink)?;
        Ok(Content { root, size })
    }

    /// Contents of `size` that are `base` but for `changes`, which are in order. `base` was made here or is relied on, and
    /// so is every cluster that a change names: the caller has seen to that.
    pub fn edit(
        &mut self,
        base: Content,
        size: u64,
        changes: impl Iterator<Item = Run>,
    ) -> Result<Content> {
        let geometry = self.writer.geometry();
        let (old, new) = (geometry.clusters(base.size), geometry.clusters(size));
        let known = Known {
            young: &self.young,
            older: self.writer.parent_nodes(),
        };
        let root = {
            let mut sink = sink(&mut self.writer, &self.young);
            edit(&known, base.root, old, new, changes, &mut sink)?
        };
        if self.young.lock().len() > YOUNG_MAX {
            // ORDER: published before they are forgotten here, so that the next edit finds them.
            self.writer.flush()?;
            self.writer.publish()?;
            self.young.lock().clear();
        }
        Ok(Content { root, size })
    }

    /// Claims what was found here and is counted on, so that gc keeps it until the end, and publishes the packs that are
    /// durable, so that a crash loses little.
    pub fn hold(&mut self) -> Result<()> {
        self.writer.publish()?;
        let new: Vec<PackName> = self
            .writer
            .relied
            .packs
            .difference(&self.held)
            .copied()
            .collect();
        if new.is_empty() {
            return Ok(());
        }
        self.held.extend(&new);
        self.writer.pin_packs(new).map_err(gone)
    }

    /// One durable entry: what was stored, and the ops of `plan`, which is asked for each state that the entry is tried on.
    /// Copies of `records` go beside the nodes.
    pub fn commit(
        &mut self,
        records: &[SnapshotRecord],
        plan: &mut dyn FnMut(&Catalog) -> Result<Vec<Op>>,
    ) -> Result<Arc<Catalog>> {
        if !self.awaited.is_empty() {
            let why = format!(
                "{} clusters that were asked for did not come",
                self.awaited.len()
            );
            return Err(Error::corrupt("receiving", why));
        }
        self.end_frames()?;
        for record in records {
            self.writer.store_record(record)?;
        }
        self.writer.finish(plan).map_err(gone)
    }

    fn end_frames(&mut self) -> Result<()> {
        let (writer, stored) = (&mut self.writer, &mut self.stored);
        self.repacker.end(&mut |frame, hashes| {
            *stored += frame.bytes.len() as u64;
            writer.store_encoded(PackKind::Clusters, &frame, hashes)
        })
    }

    /// Gives up; what arrived is published, so that the next try finds it unless a gc comes first.
    pub fn keep(mut self) -> Result<()> {
        self.end()
    }

    /// There was nothing to put: publishes what arrived all the same, and closes the session.
    pub fn end(&mut self) -> Result<()> {
        self.end_frames()?;
        self.writer.flush()?;
        self.writer.close()
    }

    /// Gives up and leaves nothing.
    pub fn discard(self) -> Result<()> {
        self.writer.discard()
    }
}

/// Stores a node and keeps it in reach.
fn sink<'w, 'a>(
    writer: &'w mut Writer<'a>,
    young: &'w Young,
) -> impl FnMut(Hash, Vec<u8>) -> Result<()> + use<'w, 'a> {
    move |hash, bytes| {
        young.lock().insert(hash, Arc::new(Node::decode(&bytes)?));
        writer.store_node(hash, bytes)
    }
}

/// Of an entry that was not valid: what was counted on went meanwhile, and a stream cannot be read again.
fn gone(error: Error) -> Error {
    use crate::catalog::Invalid::{PackNotLive, RootNotReachable};
    match invalid(&error) {
        Some(PackNotLive(_) | RootNotReachable(_)) => busy(error),
        _ => error,
    }
}

fn busy(error: Error) -> Error {
    Error::new(ErrorKind::Busy, "receiving")
        .detail("something that was here was deleted meanwhile")
        .source(error)
        .hint("do it again: what has arrived is kept")
}
