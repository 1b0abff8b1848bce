//! One block of a pack's table: proves its entries alone, in one small read. See FORMAT.md 7, "Table".
//!
//! A block that decodes is consistent in itself: frames adjacent and inside a pack, items in order, counts that add up.

use crate::error::{Error, Result};
use crate::format::pack::{
    FRAME_ITEMS_MAX, FrameRef, array_at, checksum, exactly, seal_of, u32_at,
};
use crate::id::{Hash, PackName};

/// Bytes of a block.
pub const BLOCK_BYTES: usize = 4096;
/// Entry numbers set aside for a block; it never holds as many.
pub const BLOCK_STRIDE: u32 = 128;

const HEAD_BYTES: usize = 24;
const FRAME_BYTES: usize = 12;
const HASH_BYTES: usize = 32;
const ENTRIES_MAX: usize = 127;

/// A frame, or the part of it whose items stand in this block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BlockFrame {
    /// Where the frame is.
    pub at: FrameRef,
    /// The item of the frame that comes first here.
    pub first: u16,
    /// Items here.
    pub count: u16,
}

/// A block of a table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Block {
    number: u32,
    frames: Vec<BlockFrame>,
    hashes: Vec<Hash>,
}

/// Number of an entry: where its block and its place in it are told from.
pub fn entry_number(block: u32, slot: usize) -> u32 {
    block * BLOCK_STRIDE + slot as u32
}

impl Block {
    /// An empty block to be filled.
    pub fn new(number: u32) -> Self {
        Self {
            number,
            frames: Vec::new(),
            hashes: Vec::new(),
        }
    }

    /// Which block of the table it is.
    pub fn number(&self) -> u32 {
        self.number
    }

    /// Its frames in order.
    pub fn frames(&self) -> &[BlockFrame] {
        &self.frames
    }

    /// Hashes of its entries in order.
    pub fn hashes(&self) -> &[Hash] {
        &self.hashes
    }

    /// Items of one more frame that still fit.
    pub fn room(&self) -> usize {
        room_after(self.frames.len(), self.hashes.len())
    }

    /// Adds items of one frame.
    ///
    /// # Panics
    /// With no items, or more than there is room for.
    pub fn push(&mut self, at: FrameRef, first: u16, hashes: &[Hash]) {
        assert!(
            !hashes.is_empty() && hashes.len() <= self.room(),
            "the caller asked for room"
        );
        self.frames.push(BlockFrame {
            at,
            first,
            count: hashes.len() as u16,
        });
        self.hashes.extend_from_slice(hashes);
    }

    /// The entry at `slot`: its hash, its frame and its item in that frame.
    pub fn entry(&self, slot: usize) -> Option<(&Hash, FrameRef, u16)> {
        let hash = self.hashes.get(slot)?;
        let mut before = 0;
        for frame in &self.frames {
            let count = usize::from(frame.count);
            if slot < before + count {
                return Some((hash, frame.at, frame.first + (slot - before) as u16));
            }
            before += count;
        }
        None
    }

    /// All entries in order: number, hash, frame, item.
    pub fn entries(&self) -> impl Iterator<Item = (u32, &Hash, FrameRef, u16)> + '_ {
        let places = self
            .frames
            .iter()
            .flat_map(|f| (0..f.count).map(move |i| (f.at, f.first + i)));
        let hashes = self.hashes.iter().enumerate();
        hashes
            .zip(places)
            .map(|((slot, hash), (at, item))| (entry_number(self.number, slot), hash, at, item))
    }

    /// The bytes, sealed with the pack's name.
    pub fn encode(&self, name: &PackName) -> [u8; BLOCK_BYTES] {
        let mut out = [0; BLOCK_BYTES];
        out[16..20].copy_from_slice(&self.number.to_le_bytes());
        out[20..22].copy_from_slice(&(self.frames.len() as u16).to_le_bytes());
        out[22..24].copy_from_slice(&(self.hashes.len() as u16).to_le_bytes());
        let (frames, hashes) = out[HEAD_BYTES..].split_at_mut(self.frames.len() * FRAME_BYTES);
        for (bytes, frame) in frames.chunks_exact_mut(FRAME_BYTES).zip(&self.frames) {
            bytes[..4].copy_from_slice(&frame.at.offset.to_le_bytes());
            bytes[4..8].copy_from_slice(&frame.at.bytes.to_le_bytes());
            bytes[8..10].copy_from_slice(&frame.first.to_le_bytes());
            bytes[10..].copy_from_slice(&frame.count.to_le_bytes());
        }
        for (bytes, hash) in hashes.chunks_exact_mut(HASH_BYTES).zip(&self.hashes) {
            bytes.copy_from_slice(&hash.0);
        }
        let sum = checksum(&[&out[16..], &seal_of(name)]);
        out[..16].copy_from_slice(&sum[..16]);
        out
    }

    /// Reads block `number` of the pack `name`.
    pub fn decode(name: &PackName, number: u32, bytes: &[u8]) -> Result<Self> {
        let block = Self::decode_any(name, bytes)?;
        if block.number != number {
            return Err(bad_block("it is another block of this pack"));
        }
        Ok(block)
    }

    /// Reads a block of the pack `name`, whichever it is.
    pub fn decode_any(name: &PackName, bytes: &[u8]) -> Result<Self> {
        let bytes: &[u8; BLOCK_BYTES] = exactly(bytes, bad_block)?;
        let sum = checksum(&[&bytes[16..], &seal_of(name)]);
        if bytes[..16] != sum[..16] {
            return Err(bad_block("the checksum does not fit"));
        }
        let frames = usize::from(u16::from_le_bytes(array_at(bytes, 20)));
        let entries = usize::from(u16::from_le_bytes(array_at(bytes, 22)));
        let used = HEAD_BYTES + frames * FRAME_BYTES + entries * HASH_BYTES;
        if frames == 0 || frames > entries || entries > ENTRIES_MAX || used > BLOCK_BYTES {
            return Err(bad_block("its counts cannot be"));
        }
        if bytes[used..].iter().any(|b| *b != 0) {
            return Err(bad_block("what follows its entries is not zero"));
        }
        let (frame_bytes, hash_bytes) = bytes[HEAD_BYTES..used].split_at(frames * FRAME_BYTES);
        let block = Self {
            number: u32_at(bytes, 16),
            frames: frame_bytes
                .chunks_exact(FRAME_BYTES)
                .map(decode_frame)
                .collect(),
            hashes: hash_bytes
                .chunks_exact(HASH_BYTES)
                .map(|b| Hash(array_at(b, 0)))
                .collect(),
        };
        block.check()?;
        Ok(block)
    }

    fn check(&self) -> Result<()> {
        let mut entries = 0;
        for (i, frame) in self.frames.iter().enumerate() {
            frame.at.check()?;
            let items = usize::from(frame.first) + usize::from(frame.count);
            if frame.count == 0 || items > FRAME_ITEMS_MAX || (i > 0 && frame.first > 0) {
                return Err(bad_block("the items of a frame cannot be"));
            }
            if i > 0 && frame.at.offset != self.frames[i - 1].at.end() {
                return Err(bad_block("its frames are not adjacent"));
            }
            entries += usize::from(frame.count);
        }
        if entries == self.hashes.len() {
            return Ok(());
        }
        Err(bad_block("its frames have other items than it has entries"))
    }
}

/// Items of one more frame that fit into a block with so many frames and entries.
pub(crate) fn room_after(frames: usize, entries: usize) -> usize {
    let used = HEAD_BYTES + (frames + 1) * FRAME_BYTES + entries * HASH_BYTES;
    (BLOCK_BYTES.saturating_sub(used) / HASH_BYTES).min(ENTRIES_MAX - entries)
}

fn decode_frame(bytes: &[u8]) -> BlockFrame {
    BlockFrame {
        at: FrameRef {
            offset: u32_at(bytes, 0),
            bytes: u32_at(bytes, 4),
        },
        first: u16::from_le_bytes(array_at(bytes, 8)),
        count: u16::from_le_bytes(array_at(bytes, 10)),
    }
}

fn bad_block(why: &str) -> Error {
    Error::corrupt("reading a block of a pack's table", why)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::SessionId;
    use proptest::prelude::*;

    fn name() -> PackName {
        PackName {
            session: SessionId {
                opened_at: 3,
                nonce: 4,
            },
            n: 5,
        }
    }

    fn hash(n: usize) -> Hash {
        Hash::of(&(n as u64).to_le_bytes())
    }

    /// Frames of these item counts, the first one begun in the block before, as many as fit.
    fn filled(number: u32, counts: &[usize]) -> Block {
        let mut block = Block::new(number);
        let (mut offset, mut n) = (64, 0);
        for count in counts {
            let count = (*count).min(block.room());
            if count == 0 {
                break;
            }
            let hashes: Vec<Hash> = (n..n + count).map(hash).collect();
            let first = if n == 0 { 7 } else { 0 };
            block.push(FrameRef { offset, bytes: 100 }, first, &hashes);
            n += count;
            offset += 100;
        }
        block
    }

    #[test]
    fn a_full_block_of_one_frame_has_126_entries_and_one_of_single_items_92() {
        let one = filled(0, &[1000]);
        assert_eq!((one.hashes().len(), one.room()), (126, 0));
        let singles = filled(0, &[1; 200]);
        assert_eq!((singles.hashes().len(), singles.room()), (92, 0));
        for block in [one, singles] {
            assert_eq!(
                Block::decode(&name(), 0, &block.encode(&name())).unwrap(),
                block
            );
        }
    }

    #[test]
    fn a_flipped_bit_anywhere_is_found() {
        let good = filled(2, &[3, 1, 40]).encode(&name());
        for bit in 0..BLOCK_BYTES * 8 {
            let mut bad = good;
            bad[bit / 8] ^= 1 << (bit % 8);
            assert!(Block::decode(&name(), 2, &bad).is_err(), "bit {bit}");
        }
    }

    #[test]
    fn a_block_of_another_pack_or_place_does_not_pass() {
        let bytes = filled(2, &[3]).encode(&name());
        assert!(Block::decode(&name(), 2, &bytes).is_ok());
        assert!(Block::decode(&name(), 3, &bytes).is_err());
        let other = PackName { n: 6, ..name() };
        assert!(Block::decode(&other, 2, &bytes).is_err());
    }

    #[test]
    fn a_forged_block_that_contradicts_itself_is_refused() {
        let frame = |offset, first, count| BlockFrame {
            at: FrameRef { offset, bytes: 100 },
            first,
            count,
        };
        let cases: [(Vec<BlockFrame>, usize); 9] = [
            (vec![], 0),
            (vec![], 1),
            (vec![frame(64, 0, 2)], 1),
            (vec![frame(64, 0, 1)], 2),
            (vec![frame(64, 0, 0), frame(164, 0, 2)], 2),
            (vec![frame(64, 0, 1), frame(165, 0, 1)], 2),
            (vec![frame(64, 0, 1), frame(164, 1, 1)], 2),
            (vec![frame(64, 1024, 1)], 1),
            (vec![frame(10, 0, 1)], 1),
        ];
        for (frames, entries) in cases {
            let hashes = (0..entries).map(hash).collect();
            let bad = Block {
                number: 0,
                frames,
                hashes,
            };
            assert!(
                Block::decode(&name(), 0, &bad.encode(&name())).is_err(),
                "{bad:?}"
            );
        }
        let mut bytes = filled(0, &[3]).encode(&name());
        bytes[4095] = 1;
        let sum = checksum(&[&bytes[16..], &seal_of(&name())]);
        bytes[..16].copy_from_slice(&sum[..16]);
        assert!(Block::decode(&name(), 0, &bytes).is_err(), "padding");
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_back(
            number in 0u32..9, counts in prop::collection::vec(1usize..50, 1..100),
        ) {
            let block = filled(number, &counts);
            let read = Block::decode(&name(), number, &block.encode(&name())).unwrap();
            prop_assert_eq!(&read, &block);
            for (slot, (n, hash, at, item)) in read.entries().enumerate() {
                prop_assert_eq!(n, number * 128 + slot as u32);
                prop_assert_eq!(read.entry(slot), Some((hash, at, item)));
            }
            prop_assert_eq!(read.entries().count(), read.hashes().len());
            prop_assert!(read.entry(read.hashes().len()).is_none());
        }

        #[test]
        fn arbitrary_bytes_under_a_good_checksum_never_panic(
            head in prop::collection::vec(any::<u8>(), 200), frames in 0u16..5, entries in 0u16..5,
        ) {
            let mut bytes = [0; BLOCK_BYTES];
            bytes[16..216].copy_from_slice(&head);
            bytes[16..20].fill(0);
            bytes[20..22].copy_from_slice(&frames.to_le_bytes());
            bytes[22..24].copy_from_slice(&entries.to_le_bytes());
            let sum = checksum(&[&bytes[16..], &seal_of(&name())]);
            bytes[..16].copy_from_slice(&sum[..16]);
            let _ = Block::decode(&name(), 0, &bytes);
        }
    }
}
