//! An L1 table in memory: only the parts of it that have entries. A table may have 32 MiB and an image 65536 of them, nearly all
//! holes: neither memory nor time may be more than what they take in the file.

use super::bytes::{be64s, read_table};
use super::entry::OFFSET_MASK;
use super::header::Extent;
use stillpoint_store::Result;
use stillpoint_store::disk::DiskFile;

/// Entries of a part: a block of a file system.
const PART: u64 = 512;
const PART_BYTES: u64 = PART * 8;
/// Bytes that are read at a time.
const READ_BYTES: u64 = 1 << 20;

/// See the module. Offsets are without flags; 0: no table.
#[derive(Debug, Default)]
pub(super) struct L1 {
    /// In order. The first slot of each is a multiple of `PART`.
    parts: Vec<(u64, Box<[u64]>)>,
}

impl L1 {
    /// Reads a table; holes of the file are not read.
    pub fn read(
        file: &dyn DiskFile,
        file_len: u64,
        at: Extent,
        doing: &'static str,
    ) -> Result<Self> {
        let mut table = Self::default();
        let bytes = at.count * 8;
        let mut done = 0;
        while done < bytes {
            let found = file.extent(at.offset + done)?;
            let end = found.end.saturating_sub(at.offset);
            let hole = end / PART_BYTES * PART_BYTES;
            if !found.data && (end >= bytes || hole > done) {
                done = if end >= bytes { bytes } else { hole };
                continue;
            }
            // At least a part, also where the file became shorter.
            let end = end.next_multiple_of(PART_BYTES).max(done + PART_BYTES);
            let len = (end - done).min(READ_BYTES).min(bytes - done);
            let read = read_table(file, file_len, at.offset + done, len, doing)?;
            table.push(done / 8, &read);
            done += len;
        }
        Ok(table)
    }

    /// Appends entries from `slot` on.
    fn push(&mut self, slot: u64, bytes: &[u8]) {
        let parts = bytes.chunks(PART_BYTES as usize);
        for (slot, part) in (slot..).step_by(PART as usize).zip(parts) {
            let part: Box<[u64]> = be64s(part).map(|entry| entry & OFFSET_MASK).collect();
            if part.iter().any(|entry| *entry != 0) {
                self.parts.push((slot, part));
            }
        }
    }

    /// The offset of an L2 table.
    pub fn get(&self, slot: u64) -> u64 {
        let n = self.parts.partition_point(|(first, _)| *first <= slot);
        let part = n.checked_sub(1).and_then(|n| self.parts.get(n));
        let entry = part.and_then(|(first, part)| part.get((slot - first) as usize));
        entry.copied().unwrap_or(0)
    }

    /// The first slot from `slot` on that has a table.
    pub fn next_used(&self, slot: u64) -> Option<u64> {
        self.used_from(slot).next().map(|(slot, _)| slot)
    }

    /// Slots with a table, and its offset.
    pub fn used(&self) -> impl Iterator<Item = (u64, u64)> + '_ {
        self.used_from(0)
    }

    fn used_from(&self, slot: u64) -> impl Iterator<Item = (u64, u64)> + '_ {
        let n = self
            .parts
            .partition_point(|(first, _)| first + PART <= slot);
        let entries = self.parts[n..].iter();
        let entries = entries.flat_map(move |(first, part)| {
            let skip = slot.saturating_sub(*first);
            (*first..).zip(part.iter().copied()).skip(skip as usize)
        });
        entries.filter(|(_, offset)| *offset != 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;
    use stillpoint_store::disk::sim::SimDisk;
    use stillpoint_store::disk::{Disk, OpenMode};

    #[test]
    fn a_table_is_what_stands_in_the_file() {
        let disk = SimDisk::new(1);
        let file = disk.open(Path::new("/a"), OpenMode::CreateNew).unwrap();
        let count = 300_000;
        file.set_len(512 + count * 8).unwrap();
        let used: [u64; 6] = [0, 511, 512, 1000, 131_072, count - 1];
        for slot in used {
            let entry = 1 << 63 | (slot + 1) << 9;
            file.write_at(512 + slot * 8, &entry.to_be_bytes()).unwrap();
        }
        let len = file.len().unwrap();
        let at = Extent { offset: 512, count };
        let l1 = L1::read(&*file, len, at, "reading").unwrap();
        assert!(l1.used().eq(used.map(|slot| (slot, (slot + 1) << 9))));
        assert!(l1.parts.len() <= 6);
        for (slot, next) in [(0, 0), (1, 511), (512, 512), (1001, 131_072)] {
            assert_eq!(l1.next_used(slot), Some(next));
        }
        assert_eq!(l1.next_used(count), None);
        assert_eq!((l1.get(1000), l1.get(999)), (1001 << 9, 0));
        assert_eq!(l1.get(count), 0);
        assert!(L1::read(&*file, len - 1, at, "reading").is_err());
    }
}
