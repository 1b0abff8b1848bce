//! An overlay as it was left: by a crash, by a program that was killed, or in good order.

use super::map::{Map, Place};
use super::slots::Slots;
use super::sync::Tail;
use super::{Overlay, State, lock};
use crate::disk::{Disk, DiskFile, OpenMode};
use crate::error::{Error, Result};
use crate::format::overlay::{
    BLOCK_BYTES, HEADER_BYTES, HEADER_SLOTS, MapBlock, MapEntry, OverlayHeader, OverlayName, sum,
};
use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::AtomicBool;

const DOING: &str = "opening an overlay";

/// Batches are read one by one; what a hostile file claims costs no more than what it has.
struct Chain<'f> {
    file: &'f dyn DiskFile,
    slots: u32,
    tail: Tail,
}

/// Where a block of the map is expected.
#[derive(Clone, Copy)]
struct Point {
    number: u64,
    checksum: [u8; 16],
    next: u32,
}

/// A batch that is there to its end.
struct Batch {
    entries: Vec<MapEntry>,
    slots: Vec<u32>,
    end: Point,
}

impl Overlay {
    /// Opens one that must be `name`, and makes durable what is found. `Corrupt` where what was durable is not there whole.
    pub fn open(disk: &dyn Disk, path: &Path, name: OverlayName) -> Result<Self> {
        let file = disk.open(path, OpenMode::Write)?;
        Self::recover(file, path, name).map_err(|e| e.at(path.display()))
    }

    fn recover(file: Box<dyn DiskFile>, path: &Path, name: OverlayName) -> Result<Self> {
        let header = newest_header(&*file)?;
        if header.name != name {
            return Err(Error::corrupt(DOING, "its header is that of another"));
        }
        let slots = u32::try_from(file.len()? / BLOCK_BYTES as u64)
            .map_err(|_| Error::corrupt(DOING, "it is longer than one can be"))?;
        let mut chain = Chain {
            file: &*file,
            slots,
            tail: Tail::new(header),
        };
        let (map, was_durable) = chain.read()?;
        let is_followed = chain.is_followed()?;
        let tail = chain.tail;
        let used = used_slots(&map, &tail, slots)?;
        let overlay = Self {
            name,
            path: path.to_owned(),
            state: Mutex::new(State::new(map, Slots::new(slots, &used))),
            tail: Mutex::new(tail),
            growing: Mutex::new(()),
            poisoned: AtomicBool::new(false),
            sealed: AtomicBool::new(header.sealed),
            file,
        };
        if is_followed {
            // A batch that came to nothing. Its data may become whole again by what is written to the same slots; it shall not
            // come to life by that after somebody has read what there was without it.
            let next = lock(&overlay.tail).next;
            overlay.write_slot(next, &[0; BLOCK_BYTES])?;
        }
        if !was_durable || is_followed {
            // ORDER: before another batch is written, whose being there says that all before it are durable.
            overlay.file.sync_data()?;
            let mut tail = lock(&overlay.tail);
            overlay.mark(&mut tail, header.sealed)?;
            drop(tail);
        }
        Ok(overlay)
    }

    /// Whether the next overlay took over.
    pub fn is_sealed(&self) -> bool {
        lock(&self.tail).header.sealed
    }
}

fn newest_header(file: &dyn DiskFile) -> Result<OverlayHeader> {
    let read = |slot: u64| {
        let mut bytes = [0; HEADER_BYTES];
        let n = file.read_at(slot * BLOCK_BYTES as u64, &mut bytes)?;
        Ok(OverlayHeader::decode(&bytes[..n]))
    };
    let (a, b) = (read(0)?, read(1)?);
    let newest = match (a, b) {
        (Ok(a), Ok(b)) => Ok(if a.count > b.count { a } else { b }),
        (Ok(one), Err(_)) | (Err(_), Ok(one)) => Ok(one),
        (Err(why), Err(_)) => Err(why),
    };
    newest.map_err(|why| Error::corrupt(DOING, format!("its header cannot be read: {why}")))
}

impl Chain<'_> {
    /// The map, and whether all of it was known to be durable. Leaves the tail behind the last batch in force.
    fn read(&mut self) -> Result<(Map, bool)> {
        let mut map = Map::default();
        let durable = self.tail.header.durable;
        let mut ahead = self.batch(Point {
            number: 0,
            checksum: self.tail.checksum,
            next: self.tail.next,
        })?;
        while let Some(batch) = ahead {
            ahead = self.batch(batch.end)?;
            // A batch follows another only when that one is durable.
            let proved = batch.end.number <= durable || ahead.is_some();
            if !proved && !self.has_all(&batch.entries)? {
                break;
            }
            batch
                .entries
                .iter()
                .for_each(|entry| apply(&mut map, entry));
            self.tail.chain.extend(batch.slots);
            let Point {
                number,
                checksum,
                next,
            } = batch.end;
            (self.tail.number, self.tail.checksum, self.tail.next) = (number, checksum, next);
        }
        if self.tail.number < durable {
            let why = format!(
                "only {} of {durable} blocks of its map are there, the rest is damaged",
                self.tail.number
            );
            return Err(Error::corrupt(DOING, why));
        }
        Ok((map, self.tail.number == durable))
    }

    /// Whether something lies behind the last batch in force that could be the next.
    fn is_followed(&self) -> Result<bool> {
        let end = Point {
            number: self.tail.number,
            checksum: self.tail.checksum,
            next: self.tail.next,
        };
        Ok(self.block(end)?.is_some())
    }

    /// The next batch, if it is there to its end.
    fn batch(&self, from: Point) -> Result<Option<Batch>> {
        let mut batch = Batch {
            entries: Vec::new(),
            slots: Vec::new(),
            end: from,
        };
        loop {
            let at = batch.end;
            let Some((block, checksum)) = self.block(at)? else {
                return Ok(None);
            };
            batch.slots.push(at.next);
            batch.end = Point {
                number: block.number,
                checksum,
                next: block.next,
            };
            batch.entries.extend(block.entries);
            if block.ends_batch {
                return Ok(Some(batch));
            }
        }
    }

    fn block(&self, at: Point) -> Result<Option<(MapBlock, [u8; 16])>> {
        let mut bytes = vec![0; BLOCK_BYTES];
        if at.next < HEADER_SLOTS || !self.read_slot(at.next, &mut bytes)? {
            return Ok(None);
        }
        MapBlock::decode(&bytes, &at.checksum, at.number + 1)
            .map_err(|why| Error::corrupt(DOING, why.to_string()))
    }

    fn read_slot(&self, slot: u32, into: &mut [u8]) -> Result<bool> {
        let n = self
            .file
            .read_at(u64::from(slot) * BLOCK_BYTES as u64, into)?;
        Ok(slot < self.slots && n == into.len())
    }

    /// Whether every block of data that the entries name is what they say.
    fn has_all(&self, entries: &[MapEntry]) -> Result<bool> {
        let mut bytes = vec![0; BLOCK_BYTES];
        for entry in entries {
            if let MapEntry::Data {
                slot, sum: wanted, ..
            } = entry
                && !(self.read_slot(*slot, &mut bytes)? && sum(&bytes) == *wanted)
            {
                return Ok(false);
            }
        }
        Ok(true)
    }
}

fn apply(map: &mut Map, entry: &MapEntry) {
    match *entry {
        MapEntry::Data { block, slot, sum } => drop(map.put_data(block, Place { slot, sum })),
        MapEntry::Empty { first, count, kind } => {
            map.put_empty(first, count, kind, &mut |_, _| {});
        }
    }
}

/// Slots that are taken; an error where two need the same, or one is not there.
fn used_slots(map: &Map, tail: &Tail, slots: u32) -> Result<BTreeSet<u32>> {
    let mut used = BTreeSet::new();
    let chain = tail.chain.iter().copied();
    for slot in chain.chain(std::iter::once(tail.next)).chain(map.slots()) {
        if slot < HEADER_SLOTS || !used.insert(slot) {
            return Err(Error::corrupt(DOING, format!("slot {slot} is used twice")));
        }
        if slot >= slots {
            return Err(Error::corrupt(
                DOING,
                format!("slot {slot} is past its end"),
            ));
        }
    }
    Ok(used)
}
