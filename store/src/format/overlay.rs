//! An overlay's header and map: FORMAT.md, "Overlays". Bytes <-> structs.
//!
//! ```text
//! slot 0 | slot 1 | slot 2 ...
//! header | header | map blocks and blocks of the disk, in any order
//!
//! map block:  checksum of the one before ++ own bytes | number | next | entries
//!             +--> seed in the header       +--------------------> slot of the next map block
//! ```

use super::codec::DecodeError;
use crate::id::Uid;

/// Bytes of a slot, and of a block of the disk.
pub const BLOCK_BYTES: usize = 4096;
/// Bytes of a header.
pub const HEADER_BYTES: usize = 128;
/// Slots of the two headers.
pub const HEADER_SLOTS: u32 = 2;
/// Entries of a map block at most.
pub const ENTRIES_MAX: usize = (BLOCK_BYTES - HEAD_BYTES) / ENTRY_BYTES;
/// Blocks of a disk at most: of the largest one.
const BLOCKS_MAX: u64 = 1 << 51;

/// Headers written to an overlay at most: counting them never ends before a disk does.
const COUNT_MAX: u64 = u64::MAX / 2;

const MAGIC: &[u8; 8] = b"STILLOVL";
const VERSION: u32 = 1;
const SEALED: u32 = 1;
const ENDS_BATCH: u8 = 1;
/// Bytes of a map block before its entries.
const HEAD_BYTES: usize = 32;
const ENTRY_BYTES: usize = 24;

/// Whose overlay it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OverlayName {
    /// The store.
    pub store: Uid,
    /// The volume.
    pub volume: Uid,
    /// `local/id` of the host that has it.
    pub host: Uid,
    /// Generation of the volume.
    pub generation: u64,
    /// Number in the generation, from 1.
    pub n: u64,
}

/// A header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OverlayHeader {
    /// Whose it is.
    pub name: OverlayName,
    /// The next overlay takes the writes.
    pub sealed: bool,
    /// Counted up with each header written.
    pub count: u64,
    /// Random: what the map's first block follows.
    pub seed: [u8; 16],
    /// Map blocks that are known to be durable, with their data.
    pub durable: u64,
    /// Slot of the first map block.
    pub first: u32,
}

/// Bytes of the disk that are not data.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Empty {
    /// Nothing there.
    Hole,
    /// Zeros that were written.
    Zero,
}

/// What the map says of some blocks of the disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MapEntry {
    /// One block is in a slot.
    Data {
        /// The block of the disk.
        block: u64,
        /// The slot.
        slot: u32,
        /// Its checksum.
        sum: u64,
    },
    /// Blocks from `first` on are empty.
    Empty {
        /// The first.
        first: u64,
        /// How many, one at least.
        count: u64,
        /// How.
        kind: Empty,
    },
}

/// A block of the map.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MapBlock {
    /// Place in the chain, from 1.
    pub number: u64,
    /// Slot of the next block.
    pub next: u32,
    /// The last of a batch.
    pub ends_batch: bool,
    /// In order; `ENTRIES_MAX` at most.
    pub entries: Vec<MapEntry>,
}

/// The checksum of a block of the disk.
pub fn sum(block: &[u8]) -> u64 {
    u64::from_le_bytes(first(blake3::hash(block).as_bytes()))
}

fn first<const N: usize>(bytes: &[u8]) -> [u8; N] {
    let mut out = [0; N];
    out.copy_from_slice(&bytes[..N]);
    out
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(first(&bytes[at..]))
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(first(&bytes[at..]))
}

fn wrong<T>(why: impl Into<String>) -> Result<T, DecodeError> {
    Err(DecodeError(why.into()))
}

impl OverlayHeader {
    /// The stored form.
    pub fn encode(&self) -> [u8; HEADER_BYTES] {
        let mut out = [0; HEADER_BYTES];
        let name = &self.name;
        out[..8].copy_from_slice(MAGIC);
        out[8..12].copy_from_slice(&VERSION.to_le_bytes());
        out[12..16].copy_from_slice(&(if self.sealed { SEALED } else { 0 }).to_le_bytes());
        out[16..32].copy_from_slice(&name.store.0);
        out[32..48].copy_from_slice(&name.volume.0);
        out[48..64].copy_from_slice(&name.host.0);
        out[64..72].copy_from_slice(&name.generation.to_le_bytes());
        out[72..80].copy_from_slice(&name.n.to_le_bytes());
        out[80..88].copy_from_slice(&self.count.to_le_bytes());
        out[88..104].copy_from_slice(&self.seed);
        out[104..112].copy_from_slice(&self.durable.to_le_bytes());
        out[112..116].copy_from_slice(&self.first.to_le_bytes());
        let sum = sum(&out[..120]);
        out[120..].copy_from_slice(&sum.to_le_bytes());
        out
    }

    /// The header, if `bytes` are one.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        if bytes.len() != HEADER_BYTES || bytes[..8] != *MAGIC {
            return wrong("it is no overlay's header");
        }
        let version = u32_at(bytes, 8);
        if version != VERSION {
            return wrong(format!("it is of version {version}, this program knows 1"));
        }
        if u64_at(bytes, 120) != sum(&bytes[..120]) {
            return wrong("its checksum is wrong");
        }
        let flags = u32_at(bytes, 12);
        if flags & !SEALED != 0 || u32_at(bytes, 116) != 0 {
            return wrong("it has flags that nobody knows");
        }
        let count = u64_at(bytes, 80);
        if count > COUNT_MAX {
            return wrong("nobody has written so many headers");
        }
        Ok(Self {
            name: OverlayName {
                store: Uid(first(&bytes[16..])),
                volume: Uid(first(&bytes[32..])),
                host: Uid(first(&bytes[48..])),
                generation: u64_at(bytes, 64),
                n: u64_at(bytes, 72),
            },
            sealed: flags & SEALED != 0,
            count,
            seed: first(&bytes[88..]),
            durable: u64_at(bytes, 104),
            first: u32_at(bytes, 112),
        })
    }
}

impl MapEntry {
    fn put(&self, out: &mut Vec<u8>) {
        let (block, value, slot, kind) = match *self {
            Self::Data { block, slot, sum } => (block, sum, slot, 2u32),
            Self::Empty { first, count, kind } => {
                let kind = match kind {
                    Empty::Hole => 0,
                    Empty::Zero => 1,
                };
                (first, count, 0, kind)
            }
        };
        out.extend_from_slice(&block.to_le_bytes());
        out.extend_from_slice(&value.to_le_bytes());
        out.extend_from_slice(&slot.to_le_bytes());
        out.extend_from_slice(&kind.to_le_bytes());
    }

    fn get(bytes: &[u8]) -> Result<Self, DecodeError> {
        let (block, value) = (u64_at(bytes, 0), u64_at(bytes, 8));
        let (slot, kind) = (u32_at(bytes, 16), u32_at(bytes, 20));
        if block >= BLOCKS_MAX {
            return wrong(format!("no disk has a block {block}"));
        }
        let kind = match kind {
            2 if slot >= HEADER_SLOTS => {
                return Ok(Self::Data {
                    block,
                    slot,
                    sum: value,
                });
            }
            0 => Empty::Hole,
            1 => Empty::Zero,
            _ => return wrong("an entry of its map is of no kind"),
        };
        if slot != 0 || value == 0 || value > BLOCKS_MAX - block {
            return wrong("an entry of its map has no such length");
        }
        Ok(Self::Empty {
            first: block,
            count: value,
            kind,
        })
    }
}

impl MapBlock {
    /// The stored form of a block that follows the one with the checksum `previous`, and its own checksum.
    ///
    /// # Panics
    /// With more than `ENTRIES_MAX` entries.
    pub fn encode(&self, previous: &[u8; 16]) -> (Vec<u8>, [u8; 16]) {
        assert!(self.entries.len() <= ENTRIES_MAX, "a map block is full");
        let mut out = vec![0; 16];
        out.reserve(BLOCK_BYTES - 16);
        out.extend_from_slice(&self.number.to_le_bytes());
        out.extend_from_slice(&self.next.to_le_bytes());
        out.extend_from_slice(&(self.entries.len() as u16).to_le_bytes());
        out.extend_from_slice(&[if self.ends_batch { ENDS_BATCH } else { 0 }, 0]);
        self.entries.iter().for_each(|entry| entry.put(&mut out));
        out.resize(BLOCK_BYTES, 0);
        let checksum = checksum(previous, &out);
        out[..16].copy_from_slice(&checksum);
        (out, checksum)
    }

    /// The block, if `bytes` are the one that follows `previous` with this number; and its checksum. `None`: they are not,
    /// which is how a chain ends. An error: they are, and make no sense.
    pub fn decode(
        bytes: &[u8],
        previous: &[u8; 16],
        number: u64,
    ) -> Result<Option<(Self, [u8; 16])>, DecodeError> {
        if bytes.len() != BLOCK_BYTES || u64_at(bytes, 16) != number {
            return Ok(None);
        }
        let checksum = checksum(previous, bytes);
        if bytes[..16] != checksum {
            return Ok(None);
        }
        let count = usize::from(u16::from_le_bytes(first(&bytes[28..])));
        let (flags, zero) = (bytes[30], bytes[31]);
        let end = HEAD_BYTES + count * ENTRY_BYTES;
        if count > ENTRIES_MAX || flags & !ENDS_BATCH != 0 || zero != 0 {
            return wrong("a block of its map has no such form");
        }
        if bytes[end..].iter().any(|b| *b != 0) {
            return wrong("a block of its map is longer than it says");
        }
        let entries = bytes[HEAD_BYTES..end].chunks_exact(ENTRY_BYTES);
        let block = Self {
            number,
            next: u32_at(bytes, 24),
            ends_batch: flags & ENDS_BATCH != 0,
            entries: entries.map(MapEntry::get).collect::<Result<_, _>>()?,
        };
        Ok(Some((block, checksum)))
    }
}

fn checksum(previous: &[u8; 16], block: &[u8]) -> [u8; 16] {
    let mut hasher = blake3::Hasher::new();
    hasher.update(previous).update(&block[16..]);
    first(hasher.finalize().as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn header() -> OverlayHeader {
        OverlayHeader {
            name: OverlayName {
                store: Uid([1; 16]),
                volume: Uid([2; 16]),
                host: Uid([3; 16]),
                generation: 4,
                n: 5,
            },
            sealed: true,
            count: 6,
            seed: [7; 16],
            durable: 8,
            first: 9,
        }
    }

    fn block() -> MapBlock {
        MapBlock {
            number: 3,
            next: 77,
            ends_batch: true,
            entries: vec![
                MapEntry::Empty {
                    first: 10,
                    count: 1 << 40,
                    kind: Empty::Hole,
                },
                MapEntry::Data {
                    block: 11,
                    slot: 2,
                    sum: 99,
                },
                MapEntry::Empty {
                    first: 0,
                    count: 1,
                    kind: Empty::Zero,
                },
            ],
        }
    }

    #[test]
    fn a_header_comes_back_and_every_flipped_bit_is_noticed() {
        let bytes = header().encode();
        assert_eq!(OverlayHeader::decode(&bytes).unwrap(), header());
        for bit in 0..HEADER_BYTES * 8 {
            let mut bytes = bytes;
            bytes[bit / 8] ^= 1 << (bit % 8);
            assert!(OverlayHeader::decode(&bytes).is_err(), "bit {bit}");
        }
    }

    #[test]
    fn a_map_block_follows_one_other_only() {
        let (bytes, checksum) = block().encode(&[5; 16]);
        let read = MapBlock::decode(&bytes, &[5; 16], 3).unwrap();
        assert_eq!(read, Some((block(), checksum)));
        assert_eq!(MapBlock::decode(&bytes, &[6; 16], 3).unwrap(), None);
        assert_eq!(MapBlock::decode(&bytes, &[5; 16], 4).unwrap(), None);
        for bit in (0..BLOCK_BYTES * 8).step_by(5) {
            let mut bytes = bytes.clone();
            bytes[bit / 8] ^= 1 << (bit % 8);
            let read = MapBlock::decode(&bytes, &[5; 16], 3).unwrap();
            assert_eq!(read, None, "bit {bit}");
        }
    }

    #[test]
    fn a_full_map_block_fits_and_what_is_impossible_is_refused() {
        let entry = block().entries[1];
        let full = MapBlock {
            entries: vec![entry; ENTRIES_MAX],
            ..block()
        };
        let (bytes, _) = full.encode(&[0; 16]);
        assert_eq!(bytes.len(), BLOCK_BYTES);
        assert!(MapBlock::decode(&bytes, &[0; 16], 3).unwrap().is_some());
        let data = |block, slot| MapEntry::Data {
            block,
            slot,
            sum: 0,
        };
        let hole = |first, count| MapEntry::Empty {
            first,
            count,
            kind: Empty::Hole,
        };
        for entry in [
            data(0, 1),
            data(BLOCKS_MAX, 2),
            hole(0, 0),
            hole(1, BLOCKS_MAX),
            hole(BLOCKS_MAX, 1),
        ] {
            let entries = vec![entry];
            let (bytes, _) = MapBlock { entries, ..block() }.encode(&[0; 16]);
            assert!(MapBlock::decode(&bytes, &[0; 16], 3).is_err(), "{entry:?}");
        }
    }

    proptest! {
        #[test]
        fn any_bytes_give_an_answer(bytes in prop::collection::vec(any::<u8>(), 0..5000)) {
            OverlayHeader::decode(&bytes).map(drop).unwrap_or_default();
            MapBlock::decode(&bytes, &[0; 16], 1).map(drop).unwrap_or_default();
        }
    }
}
