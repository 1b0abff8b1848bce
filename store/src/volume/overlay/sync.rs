//! Flush: what changed in the map since the last batch is written as the next one, and one sync makes it and its data durable.

use super::{Overlay, lock};
use crate::error::{Error, ErrorKind, Result};
use crate::format::overlay::{
    BLOCK_BYTES, ENTRIES_MAX, HEADER_SLOTS, MapBlock, MapEntry, OverlayHeader,
};
use std::sync::atomic::Ordering;

/// A chain shorter than this is not worth replacing.
const CHAIN_MIN: usize = 64;
/// A chain is replaced when it is so many times as long as it need be.
const CHAIN_TIMES: usize = 3;

/// The end of the map's chain.
pub struct Tail {
    /// The header in force.
    pub header: OverlayHeader,
    /// Number of the last block; 0: there is none yet.
    pub number: u64,
    /// Checksum of the last block, or the seed.
    pub checksum: [u8; 16],
    /// Slot of the next block.
    pub next: u32,
    /// Slots of the chain's blocks.
    pub chain: Vec<u32>,
}

impl Tail {
    /// An empty chain.
    pub fn new(header: OverlayHeader) -> Self {
        Self {
            header,
            number: 0,
            checksum: header.seed,
            next: header.first,
            chain: Vec::new(),
        }
    }

    /// The blocks of the next batch with their slots; `spare` gives a slot for each block and one more.
    fn append(&mut self, entries: &[MapEntry], spare: &mut Vec<u32>) -> Vec<(u32, Vec<u8>)> {
        let parts = entries.len().div_ceil(ENTRIES_MAX).max(1);
        let mut out = Vec::with_capacity(parts);
        for i in 0..parts {
            let (from, to) = (i * ENTRIES_MAX, entries.len().min((i + 1) * ENTRIES_MAX));
            let Some(next) = spare.pop() else { break };
            let block = MapBlock {
                number: self.number + 1,
                next,
                ends_batch: i + 1 == parts,
                entries: entries[from..to].to_vec(),
            };
            let (bytes, checksum) = block.encode(&self.checksum);
            out.push((self.next, bytes));
            self.chain.push(self.next);
            (self.number, self.checksum, self.next) = (block.number, checksum, next);
        }
        out
    }
}

/// What a batch is made of.
struct Batch {
    entries: Vec<MapEntry>,
    retired: Vec<u32>,
    pool: Vec<u32>,
    changes: u64,
}

impl Overlay {
    /// Everything written so far is durable when this returns. Where it fails nothing more can be written: what is on
    /// the disk is not known.
    pub fn sync(&self) -> Result<()> {
        self.check_usable()?;
        let wanted = self.state().changes;
        let mut tail = lock(&self.tail);
        self.check_usable()?;
        let must_mark = self.sealed.load(Ordering::Acquire) && !tail.header.sealed;
        let done = self.state().durable >= wanted;
        if !done {
            let synced = match self.take_whole(&tail) {
                Some((entries, batch)) => self.replace(&mut tail, &entries, batch),
                None => self.append(&mut tail),
            };
            synced.inspect_err(|_| self.poison())?;
        }
        if must_mark {
            self.mark(&mut tail, true).inspect_err(|_| self.poison())?;
        }
        Ok(())
    }

    /// The same, and notes that all of the map is durable, so that no part of it can be lost unnoticed. At the end of its use.
    pub fn close(&self) -> Result<()> {
        self.sync()?;
        let mut tail = lock(&self.tail);
        if tail.header.durable == tail.number {
            return Ok(());
        }
        let sealed = tail.header.sealed;
        self.mark(&mut tail, sealed).inspect_err(|_| self.poison())
    }

    /// Notes that all of the map is durable, when it is, whether the overlay is sealed; durable on return.
    pub(super) fn mark(&self, tail: &mut Tail, sealed: bool) -> Result<()> {
        tail.header.sealed = sealed;
        tail.header.durable = tail.number;
        self.write_header(tail)?;
        self.file.sync_data()
    }

    pub(super) fn poison(&self) {
        self.poisoned.store(true, Ordering::Release);
    }

    /// What changed since the last batch, and slots for all of it: as many as there ever were entries.
    fn take_batch(&self) -> Result<Batch> {
        let mut state = self.state();
        let mut entries = std::mem::take(&mut state.emptied);
        let fresh = std::mem::take(&mut state.fresh);
        entries.extend(
            fresh
                .into_iter()
                .filter_map(|block| match state.map.get(block) {
                    Some(super::Held::Data(place)) => Some(MapEntry::Data {
                        block,
                        slot: place.slot,
                        sum: place.sum,
                    }),
                    _ => None,
                }),
        );
        let needed = entries.len().div_ceil(ENTRIES_MAX).max(1);
        let Some(keep) = state.pool.len().checked_sub(needed) else {
            return Err(no_room());
        };
        Ok(Batch {
            entries,
            retired: std::mem::take(&mut state.retired),
            pool: state.pool.split_off(keep),
            changes: state.changes,
        })
    }

    fn append(&self, tail: &mut Tail) -> Result<()> {
        let mut batch = self.take_batch()?;
        // What was synced before is known to be durable now.
        let known = tail.number;
        for (slot, bytes) in tail.append(&batch.entries, &mut batch.pool) {
            self.write_slot(slot, &bytes)?;
        }
        if tail.header.durable < known {
            tail.header.durable = known;
            self.write_header(tail)?;
        }
        // ORDER: one sync for the data, the batch that names them, and nothing that the next batch will rest on.
        self.file.sync_data()?;
        self.synced(&batch, &[]);
        Ok(())
    }

    /// All of the map as one batch, where the chain is much longer than that and there is room for both.
    fn take_whole(&self, tail: &Tail) -> Option<(Vec<MapEntry>, Batch)> {
        let mut state = self.state();
        let needed = state.map.len().div_ceil(ENTRIES_MAX).max(1) + 1;
        if tail.chain.len() < CHAIN_MIN.max(needed * CHAIN_TIMES) {
            return None;
        }
        let slots = state.slots.take(needed as u32)?;
        state.fresh.clear();
        state.emptied.clear();
        let batch = Batch {
            entries: Vec::new(),
            retired: std::mem::take(&mut state.retired),
            pool: slots.into_iter().flatten().collect(),
            changes: state.changes,
        };
        Some((state.map.entries(), batch))
    }

    /// ORDER: data and the new chain, sync; the header that names it, sync; then the old chain's slots are free.
    fn replace(&self, tail: &mut Tail, entries: &[MapEntry], mut batch: Batch) -> Result<()> {
        let Some(first) = batch.pool.pop() else {
            return Err(no_room());
        };
        let mut header = tail.header;
        header.first = first;
        header.seed = tail.checksum;
        let mut new = Tail::new(header);
        for (slot, bytes) in new.append(entries, &mut batch.pool) {
            self.write_slot(slot, &bytes)?;
        }
        self.file.sync_data()?;
        let sealed = new.header.sealed;
        self.mark(&mut new, sealed)?;
        let old = std::mem::replace(tail, new);
        let unused = [old.next];
        self.synced(&batch, &[&old.chain, &unused[..]].concat());
        Ok(())
    }

    fn synced(&self, batch: &Batch, more: &[u32]) {
        let mut state = self.state();
        let free = batch.retired.iter().chain(&batch.pool).chain(more);
        free.for_each(|slot| state.slots.give(*slot));
        state.durable = batch.changes;
    }

    fn write_header(&self, tail: &mut Tail) -> Result<()> {
        tail.header.count += 1;
        let slot = tail.header.count % u64::from(HEADER_SLOTS);
        self.file
            .write_at(slot * BLOCK_BYTES as u64, &tail.header.encode())
    }

    pub(super) fn write_slot(&self, slot: u32, bytes: &[u8]) -> Result<()> {
        self.file
            .write_at(u64::from(slot) * BLOCK_BYTES as u64, bytes)
    }
}

/// Room is made before a write takes effect, so that this is never seen.
fn no_room() -> Error {
    Error::new(ErrorKind::NoSpace, "syncing an overlay").detail("it has no room for its map")
}
