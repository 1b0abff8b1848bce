//! Walks a pack's bytes frame by frame without its table: for rescue and verify.
//!
//! After damage the walk goes on at the next magic whose frame has a good checksum. That frame may be one that a guest
//! wrote into its disk; it gives no more than its items, whose names are their hashes, so it cannot be mistaken.

use crate::codec::{DecodedFrame, decode_frame};
use crate::format::entry::PackKind;
use crate::format::pack::{
    BLOCK_BYTES, Block, FRAME_MAGIC, FrameHeader, FrameRef, HEADER_BYTES, TRAILER_BYTES, Trailer,
};
use crate::id::PackName;
use crate::limits::PACK_BYTES_MAX;

/// What the walk meets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Scanned {
    /// A good frame.
    Frame {
        /// Where it is.
        at: FrameRef,
        /// Its items.
        frame: DecodedFrame,
    },
    /// Bytes that are no frame.
    Damaged {
        /// From here.
        offset: u32,
        /// So many.
        bytes: u32,
    },
}

/// LIMIT: bytes hashed for magics that turned out to begin no frame; a hostile pack can be full of them. Two dozen times
/// the largest pack is more than chance brings.
const FALSE_BYTES_MAX: u64 = 24 * PACK_BYTES_MAX as u64;

/// The walk: in order, every byte between header and table once.
#[derive(Debug)]
pub struct Scanner<'a> {
    bytes: &'a [u8],
    name: PackName,
    kind: PackKind,
    cluster_bytes: u32,
    at: usize,
    /// Where the frames end; known where the trailer is good.
    table: Option<usize>,
    found: Option<(FrameRef, DecodedFrame)>,
    false_bytes: u64,
}

impl<'a> Scanner<'a> {
    /// Begins after the header, whether or not that is good. Bytes beyond the largest pack are not looked at. With table
    /// and trailer both damaged, they count as damage after the last frame.
    pub fn new(bytes: &'a [u8], name: PackName, kind: PackKind, cluster_bytes: u32) -> Self {
        let bytes = &bytes[..bytes.len().min(PACK_BYTES_MAX as usize)];
        let trailer = bytes
            .len()
            .checked_sub(TRAILER_BYTES)
            .map(|at| &bytes[at..]);
        let trailer = trailer.and_then(|b| Trailer::decode(&name, b).ok());
        let table = trailer
            .filter(|t| t.pack_bytes() == bytes.len() as u64)
            .map(|t| t.table_offset as usize);
        let (at, found) = (HEADER_BYTES, None);
        Self {
            bytes,
            name,
            kind,
            cluster_bytes,
            at,
            table,
            found,
            false_bytes: 0,
        }
    }

    fn end(&self) -> usize {
        self.table.unwrap_or(self.bytes.len())
    }

    /// The frame at `at`, if a good one is there. Counts what was hashed in vain.
    fn frame_at(&mut self, at: usize) -> Option<(FrameRef, DecodedFrame)> {
        let rest = &self.bytes[at..self.end()];
        let header = FrameHeader::decode(rest).ok()?;
        let bytes = rest.get(..header.stored_bytes(self.kind))?;
        let decoded = decode_frame(self.kind, self.cluster_bytes, bytes).ok();
        if decoded.is_none() {
            self.false_bytes += bytes.len() as u64;
        }
        Some((
            FrameRef {
                offset: at as u32,
                bytes: bytes.len() as u32,
            },
            decoded?,
        ))
    }

    /// Without a trailer, the table is known by its first block.
    fn is_table(&self) -> bool {
        let block = self.bytes.get(self.at..self.at + BLOCK_BYTES);
        self.table.is_none() && block.is_some_and(|b| Block::decode(&self.name, 0, b).is_ok())
    }

    /// Looks for the next good frame after damage at `self.at`; returns where the damage ends.
    fn resync(&mut self) -> usize {
        let mut from = self.at + 1;
        while self.false_bytes <= FALSE_BYTES_MAX {
            let rest = self.bytes.get(from..self.end()).unwrap_or_default();
            let Some(next) = rest.windows(4).position(|w| w == FRAME_MAGIC) else {
                break;
            };
            self.found = self.frame_at(from + next);
            if self.found.is_some() {
                return from + next;
            }
            from += next + 1;
        }
        self.end()
    }
}

impl Iterator for Scanner<'_> {
    type Item = Scanned;

    fn next(&mut self) -> Option<Scanned> {
        if self.at >= self.end() {
            return None;
        }
        if let Some((at, frame)) = self.found.take().or_else(|| self.frame_at(self.at)) {
            self.at = at.end() as usize;
            return Some(Scanned::Frame { at, frame });
        }
        if self.is_table() {
            self.at = self.bytes.len();
            return None;
        }
        let (from, to) = (self.at, self.resync());
        self.at = to;
        Some(Scanned::Damaged {
            offset: from as u32,
            bytes: (to - from) as u32,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::pack::frame_checksum;
    use crate::pack::shelf::{C, Shelf, cluster, frame, name, pack};
    use crate::pack::table::Table;
    use crate::pack::writer::SealedPack;
    use proptest::prelude::*;

    fn scan(bytes: &[u8]) -> Vec<Scanned> {
        Scanner::new(bytes, name(0), PackKind::Clusters, C).collect()
    }

    fn places(pack: &SealedPack) -> Vec<FrameRef> {
        let table = Table::read(&Shelf::of(pack), pack.name, &pack.record).unwrap();
        table.frames().map(|f| f.at).collect()
    }

    fn frames(scanned: &[Scanned]) -> Vec<FrameRef> {
        let frame = |s: &Scanned| match s {
            Scanned::Frame { at, .. } => Some(*at),
            Scanned::Damaged { .. } => None,
        };
        scanned.iter().filter_map(frame).collect()
    }

    #[test]
    fn every_frame_is_found_without_the_table() {
        let pack = pack(0, &[2, 7, 1]);
        let scanned = scan(&pack.bytes);
        assert_eq!(frames(&scanned), places(&pack));
        assert_eq!(scanned.len(), 3);
        let items = scanned.iter().map(|s| match s {
            Scanned::Frame { frame, .. } => frame.iter().map(<[u8]>::to_vec).collect::<Vec<_>>(),
            Scanned::Damaged { .. } => Vec::new(),
        });
        assert!(items.flatten().eq((0..10).map(cluster)));
    }

    #[test]
    fn without_a_trailer_the_walk_ends_where_the_table_begins() {
        let mut pack = pack(0, &[2, 7, 1]);
        let places = places(&pack);
        *pack.bytes.last_mut().unwrap() ^= 1;
        let scanned = scan(&pack.bytes);
        assert_eq!((frames(&scanned), scanned.len()), (places.clone(), 3));
        pack.bytes.truncate(places[2].end() as usize);
        assert_eq!(frames(&scan(&pack.bytes)), places);
    }

    #[test]
    fn the_walk_goes_on_after_damage_and_tells_its_extent() {
        let mut pack = pack(0, &[2, 7, 1]);
        let places = places(&pack);
        let middle = places[1];
        pack.bytes[middle.offset as usize + 300] ^= 4;
        let damage = Scanned::Damaged {
            offset: middle.offset,
            bytes: middle.bytes,
        };
        let scanned = scan(&pack.bytes);
        assert_eq!(scanned[1], damage);
        assert_eq!(frames(&scanned), [places[0], places[2]]);

        // Nothing but rubble to the end.
        pack.bytes[middle.offset as usize..].fill(0xee);
        let bytes = pack.bytes.len() as u32 - middle.offset;
        assert_eq!(
            scan(&pack.bytes)[1..],
            [Scanned::Damaged {
                offset: middle.offset,
                bytes
            }]
        );
    }

    #[test]
    fn a_pack_full_of_false_magics_ends() {
        // Each says that it is as long as a frame can be, so that each costs a hash of that.
        let (mut frame, _) = frame(1..2);
        frame.bytes[6..8].copy_from_slice(&1024u16.to_le_bytes());
        frame.bytes[8..12].copy_from_slice(&(4u32 << 20).to_le_bytes());
        frame.bytes[12..16].copy_from_slice(&(4u32 << 20).to_le_bytes());
        assert_ne!(
            frame_checksum(&frame.bytes, &frame.bytes[24..]),
            frame.bytes[16..24]
        );
        let bytes = frame.bytes[..24].repeat((5 << 20) / 24);
        let scanned = scan(&bytes);
        let whole = Scanned::Damaged {
            offset: 64,
            bytes: bytes.len() as u32 - 64,
        };
        assert_eq!(scanned, [whole]);
    }

    #[test]
    fn what_is_shorter_than_a_header_has_no_frames() {
        let pack = pack(0, &[1]);
        for cut in [0, 1, 63, 64] {
            assert!(scan(&pack.bytes[..cut]).is_empty());
        }
        let cut = scan(&pack.bytes[..80]);
        assert_eq!(
            cut,
            [Scanned::Damaged {
                offset: 64,
                bytes: 16
            }]
        );
    }

    proptest! {
        #[test]
        fn one_flipped_bit_costs_one_frame_at_most_and_every_byte_is_told_once(
            at: prop::sample::Index, bit in 0u8..8,
        ) {
            let mut pack = pack(0, &[1, 3, 1]);
            let places = places(&pack);
            let table = places[2].end();
            let at = at.index(pack.bytes.len());
            pack.bytes[at] ^= 1 << bit;
            let scanned = scan(&pack.bytes);
            prop_assert!(frames(&scanned).len() >= 2);
            let mut end = 64;
            for s in &scanned {
                let (offset, bytes) = match s {
                    Scanned::Frame { at, .. } => (at.offset, at.bytes),
                    Scanned::Damaged { offset, bytes } => (*offset, *bytes),
                };
                prop_assert_eq!(offset, end);
                end += bytes;
            }
            prop_assert_eq!(end, table);
        }

        #[test]
        fn arbitrary_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            scan(&bytes);
        }
    }
}
