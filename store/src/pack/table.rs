//! Reads a pack's table: which hashes are in it, and in which frames. A table that is read whole is proved whole; a
//! block that is read alone proves its own entries.

use crate::error::{Error, Result};
use crate::format::entry::PackRecord;
use crate::format::pack::{
    BLOCK_BYTES, BLOCK_STRIDE, Block, FRAME_HEADER_BYTES, FRAME_ITEMS_MAX, FrameRef, HEADER_BYTES,
    TRAILER_BYTES, Trailer,
};
use crate::id::{Hash, PackName};
use crate::limits::PACK_BYTES_MAX;
use crate::object::{Objects, get_exact};

const DOING: &str = "reading a pack's table";

/// The table of a pack, or what is left of it.
#[derive(Debug, Clone)]
pub struct Table {
    name: PackName,
    /// In order; some may be missing after `read_lenient`.
    blocks: Vec<Block>,
}

/// A block that could not be read.
#[derive(Debug)]
pub struct BadBlock {
    /// Which.
    pub number: u32,
    /// Where it stands in the pack.
    pub offset: u64,
    /// What is wrong with it.
    pub error: Error,
}

/// A frame with all its entries that the table has, however many blocks they stand in.
#[derive(Debug, Clone, Copy)]
pub struct TableFrame<'a> {
    /// Where the frame is.
    pub at: FrameRef,
    blocks: &'a [Block],
    /// Its place among the frames of the first block.
    index: usize,
}

impl Table {
    /// Reads and proves the whole table of the pack that `record` speaks of.
    pub fn read(objects: &dyn Objects, name: PackName, record: &PackRecord) -> Result<Self> {
        let key = name.key();
        let offset = table_offset(objects, name, record)?;
        let mut bytes = vec![0; (u64::from(record.size) - offset) as usize];
        get_exact(objects, &key, offset, &mut bytes)?;
        let (blocks, trailer) = bytes.split_at(record.blocks as usize * BLOCK_BYTES);
        let trailer_offset = u64::from(record.size) - TRAILER_BYTES as u64;
        let trailer = Trailer::decode(&name, trailer)
            .map_err(|e| e.at(objects.describe(&key)).offset(trailer_offset))?;
        let (blocks, mut bad) = decode_blocks(objects, name, offset, blocks);
        if let Some(first) = bad.drain(..).next() {
            return Err(first.error);
        }
        let table = Self { name, blocks };
        table
            .check(&trailer, record, offset)
            .map_err(|why| corrupt(objects, name, why).offset(offset))?;
        Ok(table)
    }

    /// Reads what is left of a damaged table: the good blocks, and a list of the others. The log's record stands in for
    /// the trailer. Fails only where nothing can be read at all.
    pub fn read_lenient(
        objects: &dyn Objects,
        name: PackName,
        record: &PackRecord,
    ) -> Result<(Self, Vec<BadBlock>)> {
        let offset = table_offset(objects, name, record)?;
        // What a shortened object does not give stays zero, which is no block.
        let mut bytes = vec![0; record.blocks as usize * BLOCK_BYTES];
        objects.get(&name.key(), offset, &mut bytes)?;
        let (blocks, bad) = decode_blocks(objects, name, offset, &bytes);
        Ok((Self { name, blocks }, bad))
    }

    /// The pack.
    pub fn name(&self) -> PackName {
        self.name
    }

    /// Its blocks in order.
    pub fn blocks(&self) -> &[Block] {
        &self.blocks
    }

    /// A block by its number.
    pub fn block(&self, number: u32) -> Option<&Block> {
        let place = self
            .blocks
            .binary_search_by_key(&number, Block::number)
            .ok()?;
        self.blocks.get(place)
    }

    /// An entry by its number: hash, frame, item of the frame.
    pub fn entry(&self, number: u32) -> Option<(&Hash, FrameRef, u16)> {
        self.block(number / BLOCK_STRIDE)?
            .entry((number % BLOCK_STRIDE) as usize)
    }

    /// All entries in order: number, hash, frame, item of the frame.
    pub fn entries(&self) -> impl Iterator<Item = (u32, &Hash, FrameRef, u16)> + '_ {
        self.blocks.iter().flat_map(Block::entries)
    }

    /// All frames in order.
    pub fn frames(&self) -> impl Iterator<Item = TableFrame<'_>> + '_ {
        (0..self.blocks.len()).flat_map(move |b| {
            let before = b
                .checked_sub(1)
                .and_then(|b| self.blocks[b].frames().last());
            let frames = self.blocks[b].frames().iter().enumerate();
            // What goes on from the block before has been told with it.
            let fresh = frames.filter(move |(_, f)| before.is_none_or(|before| before.at != f.at));
            fresh.map(move |(index, f)| TableFrame {
                at: f.at,
                blocks: &self.blocks[b..],
                index,
            })
        })
    }

    /// Whether the blocks make up one pack without gaps, as the trailer and the log have it.
    fn check(
        &self,
        trailer: &Trailer,
        record: &PackRecord,
        offset: u64,
    ) -> std::result::Result<(), String> {
        if u64::from(trailer.table_offset) != offset
            || (trailer.blocks, trailer.entries) != (record.blocks, record.entries)
        {
            return Err("the trailer is not the one that the log speaks of".into());
        }
        let (mut end, mut frames, mut entries) = (HEADER_BYTES as u32, 0, 0);
        let mut last: Option<FrameRef> = None;
        let mut items = 0;
        for frame in self.blocks.iter().flat_map(Block::frames) {
            if last != Some(frame.at) {
                if frame.at.offset != end {
                    return Err(format!("no frame begins at {end}"));
                }
                (last, end, items) = (Some(frame.at), frame.at.end(), 0);
                frames += 1;
            }
            if usize::from(frame.first) != items {
                return Err(format!(
                    "items of the frame at {} are missing",
                    frame.at.offset
                ));
            }
            items += usize::from(frame.count);
            if items > FRAME_ITEMS_MAX {
                return Err(format!(
                    "the frame at {} has too many items",
                    frame.at.offset
                ));
            }
            entries += u32::from(frame.count);
        }
        if u64::from(end) != offset || (frames, entries) != (trailer.frames, trailer.entries) {
            return Err("it ends before the frames do".into());
        }
        Ok(())
    }
}

impl<'a> TableFrame<'a> {
    /// Its entries in order: number, hash, item of the frame.
    pub fn entries(&self) -> impl Iterator<Item = (u32, &'a Hash, u16)> + use<'a> {
        let (at, index) = (self.at, self.index);
        let parts = self.blocks.iter().enumerate().map(move |(i, block)| {
            let index = if i == 0 { index } else { 0 };
            let before = block.frames()[..index]
                .iter()
                .map(|f| usize::from(f.count))
                .sum();
            (block, block.frames()[index], before)
        });
        parts
            .take_while(move |(_, part, _)| part.at == at)
            .flat_map(|(block, part, before): (_, _, usize)| {
                let hashes = block
                    .hashes()
                    .iter()
                    .skip(before)
                    .take(usize::from(part.count));
                let first = crate::format::pack::entry_number(block.number(), before);
                hashes
                    .zip((first..).zip(part.first..))
                    .map(|(hash, (number, item))| (number, hash, item))
            })
    }
}

/// Reads and proves one block of the table.
pub fn read_block(
    objects: &dyn Objects,
    name: PackName,
    record: &PackRecord,
    block: u32,
) -> Result<Block> {
    if block >= record.blocks {
        let why = format!("there is no block {block}, the table has {}", record.blocks);
        return Err(corrupt(objects, name, why));
    }
    let offset = table_offset(objects, name, record)? + u64::from(block) * BLOCK_BYTES as u64;
    let mut bytes = [0; BLOCK_BYTES];
    get_exact(objects, &name.key(), offset, &mut bytes)?;
    Block::decode(&name, block, &bytes)
        .map_err(|e| e.at(objects.describe(&name.key())).offset(offset))
}

/// Where the table begins by the log's record, which may lie too.
fn table_offset(objects: &dyn Objects, name: PackName, record: &PackRecord) -> Result<u64> {
    let table = u64::from(record.blocks) * BLOCK_BYTES as u64 + TRAILER_BYTES as u64;
    let least = (HEADER_BYTES + FRAME_HEADER_BYTES) as u64 + table;
    // LIMIT: what is allocated for a table is bounded by the size of a pack.
    if record.blocks == 0 || record.size > PACK_BYTES_MAX || u64::from(record.size) < least {
        let why = format!(
            "{} bytes with {} table blocks cannot be",
            record.size, record.blocks
        );
        return Err(corrupt(objects, name, why));
    }
    Ok(u64::from(record.size) - table)
}

fn decode_blocks(
    objects: &dyn Objects,
    name: PackName,
    offset: u64,
    bytes: &[u8],
) -> (Vec<Block>, Vec<BadBlock>) {
    let (mut good, mut bad) = (Vec::with_capacity(bytes.len() / BLOCK_BYTES), Vec::new());
    for (number, bytes) in (0..).zip(bytes.chunks_exact(BLOCK_BYTES)) {
        let offset = offset + u64::from(number) * BLOCK_BYTES as u64;
        match Block::decode(&name, number, bytes) {
            Ok(block) => good.push(block),
            Err(error) => {
                let error = error.at(objects.describe(&name.key())).offset(offset);
                bad.push(BadBlock {
                    number,
                    offset,
                    error,
                });
            }
        }
    }
    (good, bad)
}

fn corrupt(objects: &dyn Objects, name: PackName, why: String) -> Error {
    Error::corrupt(DOING, why).at(objects.describe(&name.key()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::ErrorKind;
    use crate::pack::shelf::{Shelf, cluster, name, pack};
    use crate::pack::writer::SealedPack;
    use proptest::prelude::*;

    fn damaged(pack: &SealedPack, from_end: usize) -> Shelf {
        let mut bad = pack.clone();
        let at = bad.bytes.len() - from_end;
        bad.bytes[at] ^= 1;
        Shelf::of(&bad)
    }

    #[test]
    fn frames_and_entries_come_back_in_the_order_they_were_pushed() {
        let counts = [3, 200, 1, 130, 1];
        let pack = pack(0, &counts);
        let table = Table::read(&Shelf::of(&pack), pack.name, &pack.record).unwrap();
        assert!(
            table
                .entries()
                .map(|(n, hash, ..)| (*hash, n))
                .eq(pack.entries.iter().copied())
        );
        let mut entries = pack.entries.iter();
        let mut frames = table.frames();
        for count in counts {
            let frame = frames.next().unwrap();
            let mut items = 0;
            for (number, hash, item) in frame.entries() {
                assert_eq!(entries.next(), Some(&(*hash, number)));
                assert_eq!(u32::from(item), items);
                assert_eq!(table.entry(number), Some((hash, frame.at, item)));
                items += 1;
            }
            assert_eq!(items, count);
        }
        assert!(frames.next().is_none() && entries.next().is_none());
        assert!(table.entry(127).is_none() && table.entry(u32::MAX).is_none());
    }

    #[test]
    fn a_block_read_alone_is_the_block_of_the_table() {
        let pack = pack(0, &[300]);
        let shelf = Shelf::of(&pack);
        let table = Table::read(&shelf, pack.name, &pack.record).unwrap();
        for block in table.blocks() {
            let alone = read_block(&shelf, pack.name, &pack.record, block.number()).unwrap();
            assert_eq!(&alone, block);
        }
        let beyond = read_block(&shelf, pack.name, &pack.record, 3).unwrap_err();
        assert_eq!(beyond.kind(), ErrorKind::Corrupt);
    }

    #[test]
    fn a_bad_block_names_pack_and_offset_and_the_others_remain() {
        let pack = pack(0, &[100, 300]);
        let shelf = damaged(&pack, TRAILER_BYTES + 2 * BLOCK_BYTES + 7);
        let error = Table::read(&shelf, pack.name, &pack.record).unwrap_err();
        let offset = pack.bytes.len() - TRAILER_BYTES - 3 * BLOCK_BYTES;
        assert_eq!(error.kind(), ErrorKind::Corrupt);
        assert_eq!(error.path(), Some(&*format!("shelf/{}", pack.name)));
        assert!(
            error.to_string().contains(&format!("at byte {offset}")),
            "{error}"
        );

        let (table, bad) = Table::read_lenient(&shelf, pack.name, &pack.record).unwrap();
        assert_eq!(
            (bad.len(), bad[0].number, bad[0].offset),
            (1, 1, offset as u64)
        );
        let left: Vec<_> = pack
            .entries
            .iter()
            .filter(|(_, n)| n / 128 != 1)
            .copied()
            .collect();
        assert!(table.entries().map(|(n, hash, ..)| (*hash, n)).eq(left));
        assert_eq!(
            table.frames().count(),
            2,
            "what is left of the second frame is one"
        );
        assert!(table.block(1).is_none() && table.block(2).is_some());
        let told: usize = table.frames().map(|f| f.entries().count()).sum();
        assert_eq!(told, table.entries().count());
    }

    #[test]
    fn a_shortened_pack_keeps_the_blocks_that_are_there() {
        let mut pack = pack(0, &[300]);
        pack.bytes
            .truncate(pack.bytes.len() - TRAILER_BYTES - BLOCK_BYTES - 100);
        let shelf = Shelf::of(&pack);
        assert!(Table::read(&shelf, pack.name, &pack.record).is_err());
        let (table, bad) = Table::read_lenient(&shelf, pack.name, &pack.record).unwrap();
        assert_eq!((table.blocks().len(), bad.len()), (1, 2));
    }

    #[test]
    fn a_pack_that_is_gone_is_not_found_rather_than_corrupt() {
        let pack = pack(0, &[3]);
        let shelf = Shelf::default();
        let read = Table::read(&shelf, pack.name, &pack.record);
        assert_eq!(read.unwrap_err().kind(), ErrorKind::NotFound);
        let lenient = Table::read_lenient(&shelf, pack.name, &pack.record);
        assert_eq!(lenient.unwrap_err().kind(), ErrorKind::NotFound);
        let block = read_block(&shelf, pack.name, &pack.record, 0);
        assert_eq!(block.unwrap_err().kind(), ErrorKind::NotFound);
    }

    #[test]
    fn the_table_of_another_pack_does_not_pass() {
        let mut pack = pack(0, &[3]);
        pack.name = name(1);
        assert!(Table::read(&Shelf::of(&pack), pack.name, &pack.record).is_err());
    }

    #[test]
    fn a_record_that_lies_is_refused_before_anything_is_allocated() {
        let pack = pack(0, &[300]);
        let shelf = Shelf::of(&pack);
        let good = pack.record;
        let lies = [
            PackRecord { blocks: 0, ..good },
            PackRecord { blocks: 2, ..good },
            PackRecord {
                blocks: u32::MAX,
                ..good
            },
            PackRecord {
                size: u32::MAX,
                blocks: 1 << 19,
                ..good
            },
            PackRecord { size: 100, ..good },
            PackRecord {
                entries: 299,
                ..good
            },
        ];
        for lie in lies {
            assert!(Table::read(&shelf, pack.name, &lie).is_err(), "{lie:?}");
        }
    }

    proptest! {
        #[test]
        fn any_flipped_bit_of_table_or_trailer_is_found(
            counts in prop::collection::vec(1u32..40, 1..8), at: prop::sample::Index, bit in 0u8..8,
        ) {
            let mut pack = pack(0, &counts);
            let table = pack.record.blocks as usize * BLOCK_BYTES + TRAILER_BYTES;
            let at = pack.bytes.len() - 1 - at.index(table);
            pack.bytes[at] ^= 1 << bit;
            prop_assert!(Table::read(&Shelf::of(&pack), pack.name, &pack.record).is_err());
        }
    }

    #[test]
    fn hashes_are_those_of_the_clusters() {
        let pack = pack(0, &[2]);
        assert_eq!(
            pack.entries,
            [(Hash::of(&cluster(0)), 0), (Hash::of(&cluster(1)), 1)]
        );
    }
}
