//! One overlay: a file with blocks of a disk, and the map that says which.
//!
//! Nothing in force is overwritten: each write goes to slots that nobody needs, and then the map, in memory, names them. A flush
//! writes what changed in the map since the last one, and one sync makes the data and that durable together: the
//! map's entries have the checksums of their data, so that a batch without its data is told from one that is whole.
//!
//! ORDER: a slot is used again only when the batch that took it out of force is durable, or when no batch ever named it. So the
//! batches that a crash leaves name slots that still hold what they did.

mod map;
mod recover;
mod slots;
mod sync;
#[cfg(test)]
mod tests;

pub use map::{Held, Map, Piece, Place, What, union};

use crate::disk::{Disk, DiskFile, OpenMode};
use crate::error::{Error, ErrorKind, Result};
use crate::format::overlay::{
    BLOCK_BYTES, ENTRIES_MAX, Empty, HEADER_SLOTS, MapEntry, OverlayHeader, OverlayName, sum,
};
use slots::Slots;
use std::collections::BTreeSet;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use sync::Tail;

/// What an overlay's name ends with while it is being made.
pub const PART: &str = "new";

/// Slots that the file grows by at least and, of a large file, at most: 1 and 64 MiB.
const GROW_MIN: u32 = 256;
const GROW_MAX: u32 = 16 << 10;

/// See the module. All calls may come from several threads.
pub struct Overlay {
    name: OverlayName,
    path: PathBuf,
    file: Box<dyn DiskFile>,
    state: Mutex<State>,
    /// Held while a batch is written and synced.
    tail: Mutex<Tail>,
    /// Held while the file grows.
    growing: Mutex<()>,
    /// A write of the map, or a sync, failed: what is on the disk is not known.
    poisoned: AtomicBool,
    /// The next overlay is there, and takes the writes.
    sealed: AtomicBool,
}

struct State {
    map: Map,
    slots: Slots,
    /// Blocks of data whose place no batch has named yet.
    fresh: BTreeSet<u64>,
    /// What became empty since the last batch, in order.
    emptied: Vec<MapEntry>,
    /// Slots that batches have named and that are in force no more; free once the next batch is durable.
    retired: Vec<u32>,
    /// Slots for map blocks: enough for all entries that a batch would have now.
    pool: Vec<u32>,
    /// Blocks that are being written.
    in_flight: u64,
    /// Counted up with each change of the map, and what it was when the last durable batch was taken.
    changes: u64,
    durable: u64,
}

impl State {
    /// Blocks of the map that a batch with so many more entries needs.
    fn map_blocks(&self, more: u64) -> usize {
        let entries = self.fresh.len() as u64 + self.emptied.len() as u64 + self.in_flight + more;
        (entries as usize).div_ceil(ENTRIES_MAX) + 1
    }

    /// Slots for so many blocks of data, and for the map to say so. `None`: the file must grow.
    fn take(&mut self, blocks: u32, entries: u64) -> Option<Vec<Range<u32>>> {
        while self.pool.len() < self.map_blocks(entries) {
            self.pool.extend(self.slots.take(1)?.into_iter().flatten());
        }
        let runs = if blocks == 0 {
            Vec::new()
        } else {
            self.slots.take(blocks)?
        };
        self.in_flight += entries;
        Some(runs)
    }

    /// A place is in force no more.
    fn retire(&mut self, block: u64, place: Place) {
        // What no batch has named, no crash brings back.
        if self.fresh.remove(&block) {
            self.slots.give(place.slot);
        } else {
            self.retired.push(place.slot);
        }
    }

    fn put(&mut self, block: u64, place: Place) {
        if let Some(old) = self.map.put_data(block, place) {
            self.retire(block, old);
        }
        self.fresh.insert(block);
    }
}

/// A block and what the overlay said of it when it was read: a write that rests on it takes effect only while that holds.
pub type Seen = (u64, Option<Held>);

impl Overlay {
    /// Makes an empty one. It has its name when its contents are durable; the name is durable after a sync of the folder.
    pub fn create(disk: &dyn Disk, path: &Path, name: OverlayName, seed: [u8; 16]) -> Result<Self> {
        let part = path.with_extension(PART);
        disk.remove(&part)?;
        let file = disk.open(&part, OpenMode::CreateNew)?;
        let header = OverlayHeader {
            name,
            sealed: false,
            count: 1,
            seed,
            durable: 0,
            first: HEADER_SLOTS,
        };
        file.allocate(u64::from(HEADER_SLOTS + 1) * BLOCK_BYTES as u64)?;
        for (slot, count) in [(1, 1), (0, 2)] {
            let header = OverlayHeader { count, ..header };
            file.write_at(slot * BLOCK_BYTES as u64, &header.encode())?;
        }
        file.sync_data()?;
        disk.rename(&part, path)?;
        let header = OverlayHeader { count: 2, ..header };
        let used = BTreeSet::from([HEADER_SLOTS]);
        Ok(Self {
            name,
            path: path.to_owned(),
            file,
            state: Mutex::new(State::new(
                Map::default(),
                Slots::new(HEADER_SLOTS + 1, &used),
            )),
            tail: Mutex::new(Tail::new(header)),
            growing: Mutex::new(()),
            poisoned: AtomicBool::new(false),
            sealed: AtomicBool::new(false),
        })
    }

    /// Whose it is.
    pub fn name(&self) -> OverlayName {
        self.name
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// What it says of a block.
    pub fn get(&self, block: u64) -> Option<Held> {
        self.state().map.get(block)
    }

    /// What it says of a run of blocks, in order and without gaps.
    pub fn pieces(&self, first: u64, count: u64, each: &mut dyn FnMut(Piece)) {
        self.state().map.pieces(first, count, each);
    }

    /// All blocks that it says something of, as sorted disjoint runs.
    pub fn held(&self) -> Vec<Range<u64>> {
        self.state().map.held()
    }

    /// Whether it says nothing at all.
    pub fn is_empty(&self) -> bool {
        self.state().map.is_empty()
    }

    /// Bytes of data in force.
    pub fn data_bytes(&self) -> u64 {
        self.state().map.data_blocks() * BLOCK_BYTES as u64
    }

    /// Entries of its map: what it takes in memory.
    pub fn entries(&self) -> u64 {
        self.state().map.len() as u64
    }

    /// Blocks that were made empty, run by run, since the last sync: each is remembered until the next one.
    pub fn unsynced_empty(&self) -> usize {
        self.state().emptied.len()
    }

    /// The next overlay takes the writes from now on; durable with the next sync.
    pub fn seal(&self) {
        self.sealed.store(true, Ordering::Release);
    }

    /// Reads blocks from a slot on, unverified. False: the file ends before.
    pub fn read_slots(&self, slot: u32, into: &mut [u8]) -> Result<bool> {
        let n = self
            .file
            .read_at(u64::from(slot) * BLOCK_BYTES as u64, into)?;
        Ok(n == into.len())
    }

    /// Writes whole blocks of the disk from `first` on. Takes effect whole, or not at all: with an error, or, then false,
    /// where what was `seen` holds no more. Not durable before `sync`.
    pub fn write(&self, first: u64, data: &[u8], seen: &[Seen]) -> Result<bool> {
        self.check_usable()?;
        let blocks = (data.len() / BLOCK_BYTES) as u32;
        let runs = self.take(blocks, u64::from(blocks))?;
        let written = self.write_runs(&runs, data);
        let slots = || runs.iter().cloned().flatten();
        let sums: Vec<u64> = match written {
            Ok(()) => data.chunks_exact(BLOCK_BYTES).map(sum).collect(),
            Err(_) => Vec::new(),
        };
        let mut state = self.state();
        state.in_flight -= u64::from(blocks);
        let stale = seen
            .iter()
            .any(|(block, held)| state.map.get(*block) != *held);
        if written.is_err() || stale {
            slots().for_each(|slot| state.slots.give(slot));
            return written.map(|()| false);
        }
        for ((block, slot), sum) in (first..).zip(slots()).zip(sums) {
            state.put(block, Place { slot, sum });
        }
        state.changes += 1;
        Ok(true)
    }

    /// Makes blocks empty. Not durable before `sync`.
    pub fn write_empty(&self, first: u64, count: u64, kind: Empty) -> Result<()> {
        self.check_usable()?;
        if count == 0 {
            return Ok(());
        }
        self.take(0, 1)?;
        let mut state = self.state();
        let mut gone = Vec::new();
        state.in_flight -= 1;
        state
            .map
            .put_empty(first, count, kind, &mut |block, place| {
                gone.push((block, place));
            });
        for (block, place) in gone {
            state.retire(block, place);
        }
        state.emptied.push(MapEntry::Empty { first, count, kind });
        state.changes += 1;
        Ok(())
    }

    fn write_runs(&self, runs: &[Range<u32>], data: &[u8]) -> Result<()> {
        let mut rest = data;
        for run in runs {
            let (part, others) = rest.split_at((run.end - run.start) as usize * BLOCK_BYTES);
            self.file
                .write_at(u64::from(run.start) * BLOCK_BYTES as u64, part)?;
            rest = others;
        }
        Ok(())
    }

    /// Slots for data and for the map to name them, so that a later flush meets no full disk.
    fn take(&self, blocks: u32, entries: u64) -> Result<Vec<Range<u32>>> {
        loop {
            let had = {
                let mut state = self.state();
                if let Some(runs) = state.take(blocks, entries) {
                    return Ok(runs);
                }
                state.slots.end()
            };
            self.grow(had, blocks)?;
        }
    }

    /// The file gets room for so many blocks more than the `had` slots that it had, unless somebody else has made it.
    fn grow(&self, had: u32, blocks: u32) -> Result<()> {
        let _alone = lock(&self.growing);
        if self.state().slots.end() > had {
            return Ok(());
        }
        let step = (had / 16)
            .clamp(GROW_MIN, GROW_MAX)
            .max(blocks.saturating_mul(2));
        let end = had.checked_add(step).ok_or_else(|| {
            Error::new(ErrorKind::LimitExceeded, "writing to an overlay")
                .at(self.path.display())
                .detail("it cannot grow any more")
                .hint("a snapshot of the volume begins a new one")
        })?;
        self.file
            .allocate(u64::from(end) * BLOCK_BYTES as u64)
            .map_err(|e| e.at(self.path.display()))?;
        self.state().slots.grown(end);
        Ok(())
    }

    fn check_usable(&self) -> Result<()> {
        if self.poisoned.load(Ordering::Acquire) {
            return Err(Error::new(ErrorKind::Poisoned, "writing to an overlay")
                .at(self.path.display())
                .detail("an earlier write or sync of it failed")
                .hint("mend the disk, then open the volume again: what was flushed is there"));
        }
        Ok(())
    }

    /// Nothing is changed but by pushing and popping, so that a panic leaves what was true before or after.
    fn state(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }
}

impl State {
    fn new(map: Map, slots: Slots) -> Self {
        Self {
            map,
            slots,
            fresh: BTreeSet::new(),
            emptied: Vec::new(),
            retired: Vec::new(),
            pool: Vec::new(),
            in_flight: 0,
            changes: 0,
            durable: 0,
        }
    }
}

impl std::fmt::Debug for Overlay {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Overlay")
            .field("path", &self.path)
            .finish_non_exhaustive()
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
