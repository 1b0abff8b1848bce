//! Walks a pack's bytes frame by frame, for rescue. No table is needed, and where there is one it is used.
//!
//! A frame whose checksum fails is not thrown away: what is left of it is offered too, item by item, and only the hash
//! that somebody asks for decides what an item is worth. Where the table knows the frame it tells extent and items, else
//! the frame's own header does. Where neither helps, the walk goes on at the next magic whose frame has a good checksum.
//! That frame may be one that a guest wrote into its disk; it too gives no more than items, whose names are their hashes.

use crate::codec::{DecodedFrame, decode_frame, decode_remains, sum_of_lengths};
use crate::format::entry::PackKind;
use crate::format::pack::{
    BLOCK_BYTES, Block, FRAME_HEADER_BYTES, FRAME_MAGIC, FrameEncoding, FrameHeader, FrameRef,
    HEADER_BYTES, TRAILER_BYTES, Trailer,
};
use crate::id::PackName;
use crate::limits::PACK_BYTES_MAX;
use std::collections::{BTreeMap, VecDeque};

/// A frame, or what is left of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// Where it is; inside the pack's bytes.
    pub at: FrameRef,
    /// Its header; of a damaged one perhaps made up from the table.
    pub header: FrameHeader,
    /// Its items.
    pub frame: DecodedFrame,
}

/// What the walk meets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Scanned {
    /// A good frame.
    Frame(Found),
    /// Bytes that are no good frame.
    Damaged {
        /// From here.
        offset: u32,
        /// So many.
        bytes: u32,
    },
    /// What is left of a frame that begins in the damaged bytes told before, or of what looks like one.
    Remains(Found),
}

/// LIMIT: bytes hashed and decoded for magics that turned out to begin no good frame; a hostile pack can be full of them.
/// Two dozen times the largest pack is more than chance brings.
const FALSE_BYTES_MAX: u64 = 24 * PACK_BYTES_MAX as u64;

/// The walk: in order, every byte between header and table once.
#[derive(Debug)]
pub struct Scanner<'a> {
    bytes: &'a [u8],
    name: PackName,
    kind: PackKind,
    cluster_bytes: u32,
    at: usize,
    /// Where the frames end, where that is known.
    table: Option<usize>,
    /// Frames that readable blocks of the table tell of, with the items that they know, by offset.
    known: BTreeMap<u32, (FrameRef, u16)>,
    found: Option<Found>,
    /// Damaged frames of the last damage, not offered yet.
    suspects: VecDeque<(FrameRef, FrameHeader)>,
    /// Those of which only their own header tells do not overlap: what they cost is bounded by the pack.
    suspected_to: usize,
    false_bytes: u64,
}

impl<'a> Scanner<'a> {
    /// Begins after the header, whether or not that is good. Bytes beyond the largest pack are not looked at. With table
    /// and trailer both damaged, they count as damage after the last frame.
    pub fn new(bytes: &'a [u8], name: PackName, kind: PackKind, cluster_bytes: u32) -> Self {
        let bytes = &bytes[..bytes.len().min(PACK_BYTES_MAX as usize)];
        let table = find_table(bytes, &name);
        let known = table.map_or_else(BTreeMap::new, |at| known_frames(bytes, &name, at));
        Self {
            bytes,
            name,
            kind,
            cluster_bytes,
            at: HEADER_BYTES,
            table,
            known,
            found: None,
            suspects: VecDeque::new(),
            suspected_to: 0,
            false_bytes: 0,
        }
    }

    fn end(&self) -> usize {
        self.table.unwrap_or(self.bytes.len())
    }

    /// The frame at `at`, if a good one is there. Counts what was hashed in vain.
    fn frame_at(&mut self, at: usize) -> Option<Found> {
        let rest = &self.bytes[at..self.end()];
        let header = FrameHeader::decode(rest).ok()?;
        let bytes = rest.get(..header.stored_bytes(self.kind))?;
        let Ok(frame) = decode_frame(self.kind, self.cluster_bytes, bytes) else {
            self.false_bytes += bytes.len() as u64;
            return None;
        };
        let (offset, bytes) = (at as u32, bytes.len() as u32);
        let at = FrameRef { offset, bytes };
        Some(Found { at, header, frame })
    }

    /// Without a trailer, the table is known by its first block.
    fn is_table(&self) -> bool {
        let block = self.bytes.get(self.at..self.at + BLOCK_BYTES);
        self.table.is_none() && block.is_some_and(|b| Block::decode(&self.name, 0, b).is_ok())
    }

    /// Notes what may be left of frames in the damage at `self.at`; returns where the damage ends.
    fn skip_damage(&mut self) -> usize {
        if let Some((at, items)) = self.known.get(&(self.at as u32)).copied() {
            let end = (at.end() as usize).min(self.end());
            self.suspects.push_back((at, self.header_of(at, items)));
            return end;
        }
        self.resync()
    }

    /// The header of a frame that the table knows: its own where that fits, else one made up.
    fn header_of(&self, at: FrameRef, items: u16) -> FrameHeader {
        let bytes = &self.bytes[at.offset as usize..self.end()];
        let own = FrameHeader::decode(bytes).ok();
        let fits = |h: &FrameHeader| {
            // Where a block of the table is lost it knows fewer items.
            h.stored_bytes(self.kind) == at.bytes as usize && h.items >= items
        };
        own.filter(fits).unwrap_or_else(|| {
            let body_at = FRAME_HEADER_BYTES + lengths_bytes(self.kind, items);
            let encoded = (at.bytes as usize).saturating_sub(body_at) as u32;
            let decoded = match self.kind {
                PackKind::Clusters => self.cluster_bytes.saturating_mul(u32::from(items)),
                PackKind::Nodes => {
                    sum_of_lengths(bytes.get(FRAME_HEADER_BYTES..body_at).unwrap_or_default())
                }
            };
            let encoding = if encoded == decoded {
                FrameEncoding::Raw
            } else {
                FrameEncoding::Zstd
            };
            FrameHeader {
                encoding,
                items,
                encoded,
                decoded,
                checksum: [0; 8],
            }
        })
    }

    /// Looks for the next good frame after damage at `self.at`, no further than to the next one that the table knows;
    /// returns where the damage ends.
    fn resync(&mut self) -> usize {
        let mut from = self.at + 1;
        let next_known = self.known.range(from as u32..).next();
        let limit = next_known.map_or(self.end(), |(at, _)| (*at as usize).min(self.end()));
        self.suspect(self.at, limit);
        while self.false_bytes <= FALSE_BYTES_MAX {
            let rest = self.bytes.get(from..limit).unwrap_or_default();
            let Some(next) = rest.windows(4).position(|w| w == FRAME_MAGIC) else {
                break;
            };
            let at = from + next;
            self.found = self.frame_at(at);
            // What reaches into a frame of the table is none of this pack's.
            self.found.take_if(|found| found.at.end() as usize > limit);
            if self.found.is_some() {
                return at;
            }
            self.suspect(at, limit);
            from = at + 1;
        }
        limit
    }

    /// Notes what may be left of a frame whose own header is all that tells of it. Its end may be missing.
    fn suspect(&mut self, at: usize, limit: usize) {
        let rest = &self.bytes[at..limit];
        let Ok(header) = FrameHeader::decode(rest) else {
            return;
        };
        let bytes = header.stored_bytes(self.kind).min(rest.len());
        let no_item = FRAME_HEADER_BYTES + lengths_bytes(self.kind, header.items) >= bytes;
        if at < self.suspected_to || no_item || self.false_bytes > FALSE_BYTES_MAX {
            return;
        }
        self.suspected_to = at + bytes;
        self.false_bytes += u64::from(header.decoded);
        let (offset, bytes) = (at as u32, bytes as u32);
        self.suspects
            .push_back((FrameRef { offset, bytes }, header));
    }

    /// What is left of the next suspect that anything is left of.
    fn remains(&mut self) -> Option<Found> {
        while let Some((mut at, header)) = self.suspects.pop_front() {
            let bytes = &self.bytes[at.offset as usize..self.end()];
            let bytes = &bytes[..bytes.len().min(at.bytes as usize)];
            at.bytes = bytes.len() as u32;
            if let Some(frame) = decode_remains(self.kind, self.cluster_bytes, &header, bytes) {
                return Some(Found { at, header, frame });
            }
        }
        None
    }
}

impl Iterator for Scanner<'_> {
    type Item = Scanned;

    fn next(&mut self) -> Option<Scanned> {
        if let Some(remains) = self.remains() {
            return Some(Scanned::Remains(remains));
        }
        if self.at >= self.end() {
            return None;
        }
        if let Some(found) = self.found.take().or_else(|| self.frame_at(self.at)) {
            self.at = found.at.end() as usize;
            return Some(Scanned::Frame(found));
        }
        if self.is_table() {
            self.at = self.bytes.len();
            return None;
        }
        let (from, to) = (self.at, self.skip_damage());
        self.at = to;
        Some(Scanned::Damaged {
            offset: from as u32,
            bytes: (to - from) as u32,
        })
    }
}

fn lengths_bytes(kind: PackKind, items: u16) -> usize {
    match kind {
        PackKind::Clusters => 0,
        PackKind::Nodes => 4 * usize::from(items),
    }
}

/// Where the table begins: by the trailer, or by the table's last block, which knows its number.
fn find_table(bytes: &[u8], name: &PackName) -> Option<usize> {
    let trailer_at = bytes.len().checked_sub(TRAILER_BYTES)?;
    if let Ok(trailer) = Trailer::decode(name, &bytes[trailer_at..]) {
        let whole = trailer.pack_bytes() == bytes.len() as u64;
        return whole.then_some(trailer.table_offset as usize);
    }
    let last_at = trailer_at.checked_sub(BLOCK_BYTES)?;
    let last = Block::decode_any(name, &bytes[last_at..trailer_at]).ok()?;
    let at = last_at.checked_sub(BLOCK_BYTES.checked_mul(last.number() as usize)?)?;
    (at >= HEADER_BYTES).then_some(at)
}

/// What the readable blocks of the table tell of frames that begin before it.
fn known_frames(bytes: &[u8], name: &PackName, table: usize) -> BTreeMap<u32, (FrameRef, u16)> {
    let mut known = BTreeMap::new();
    let end = bytes.len().saturating_sub(TRAILER_BYTES).max(table);
    for (number, block) in (0..).zip(bytes[table..end].chunks_exact(BLOCK_BYTES)) {
        let Ok(block) = Block::decode(name, number, block) else {
            continue;
        };
        for frame in block.frames() {
            if (frame.at.offset as usize) < table {
                let items = frame.first + frame.count;
                let known = known.entry(frame.at.offset).or_insert((frame.at, items));
                known.1 = known.1.max(items);
            }
        }
    }
    known
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec::encode_frame;
    use crate::format::pack::frame_checksum;
    use crate::geometry::Compression;
    use crate::id::Hash;
    use crate::pack::shelf::{C, STORE, Shelf, cluster, frame, name, pack};
    use crate::pack::table::Table;
    use crate::pack::writer::{PackBuilder, SealedPack};
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
            Scanned::Frame(found) => Some(found.at),
            Scanned::Damaged { .. } | Scanned::Remains(_) => None,
        };
        scanned.iter().filter_map(frame).collect()
    }

    /// Without what is left of damaged frames.
    fn walk(bytes: &[u8]) -> Vec<Scanned> {
        let mut scanned = scan(bytes);
        scanned.retain(|s| !matches!(s, Scanned::Remains(_)));
        scanned
    }

    /// Clusters 0 to `n` that come out, of good frames or bad.
    fn clusters(scanned: &[Scanned], n: u32) -> Vec<u32> {
        let hashes: Vec<Hash> = scanned
            .iter()
            .filter_map(|s| match s {
                Scanned::Frame(found) | Scanned::Remains(found) => Some(found),
                Scanned::Damaged { .. } => None,
            })
            .flat_map(|found| found.frame.iter().map(Hash::of))
            .collect();
        (0..n)
            .filter(|n| hashes.contains(&Hash::of(&cluster(*n))))
            .collect()
    }

    #[test]
    fn every_frame_is_found_without_the_table() {
        let pack = pack(0, &[2, 7, 1]);
        let scanned = scan(&pack.bytes);
        assert_eq!(frames(&scanned), places(&pack));
        assert_eq!(scanned.len(), 3);
        let items = scanned.iter().map(|s| match s {
            Scanned::Frame(found) => found.frame.iter().map(<[u8]>::to_vec).collect::<Vec<_>>(),
            _ => Vec::new(),
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
        let scanned = walk(&pack.bytes);
        assert_eq!(scanned[1], damage);
        assert_eq!(frames(&scanned), [places[0], places[2]]);

        // Nothing but rubble to the end.
        pack.bytes[middle.offset as usize..].fill(0xee);
        let bytes = pack.bytes.len() as u32 - middle.offset;
        assert_eq!(
            walk(&pack.bytes)[1..],
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
        let scanned = walk(&bytes);
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

    /// A pack of frames that are not compressed.
    fn raw_pack(frames: &[std::ops::Range<u32>]) -> SealedPack {
        let mut builder = PackBuilder::new(STORE, name(0), PackKind::Clusters, C);
        for frame in frames {
            let clusters: Vec<Vec<u8>> = frame.clone().map(cluster).collect();
            let items: Vec<&[u8]> = clusters.iter().map(|c| &c[..]).collect();
            let hashes: Vec<Hash> = items.iter().map(|i| Hash::of(i)).collect();
            let frame = encode_frame(PackKind::Clusters, &items, Compression::None);
            builder.push(&frame, &hashes);
        }
        builder.seal()
    }

    /// Flips single bits in a range of the pack; each time so many clusters at most may be lost.
    fn flip_each(pack: &SealedPack, range: impl Iterator<Item = usize>, all: u32, may_lose: usize) {
        for at in range {
            let mut bytes = pack.bytes.clone();
            bytes[at] ^= 1 << (at % 8);
            let left = clusters(&scan(&bytes), all);
            assert!(left.len() + may_lose >= all as usize, "byte {at}: {left:?}");
        }
    }

    #[test]
    fn a_flipped_bit_of_header_frame_header_table_or_trailer_costs_nothing() {
        let pack = pack(0, &[2, 4, 1]);
        let places = places(&pack);
        let frame_headers = places.iter().flat_map(|at| {
            let at = at.offset as usize;
            at..at + FRAME_HEADER_BYTES
        });
        flip_each(&pack, (0..HEADER_BYTES).chain(frame_headers), 7, 0);
        let table = places[2].end() as usize;
        flip_each(&pack, table..table + 400, 7, 0);
        flip_each(
            &pack,
            pack.bytes.len() - TRAILER_BYTES..pack.bytes.len(),
            7,
            0,
        );
    }

    #[test]
    fn a_flipped_bit_of_a_raw_frame_costs_one_cluster_with_the_table_or_without() {
        let mut pack = raw_pack(&[0..2, 2..4]);
        let [first, second] = places(&pack)[..] else {
            panic!()
        };
        let body = first.offset as usize + FRAME_HEADER_BYTES..first.end() as usize;
        flip_each(&pack, body.clone().step_by(97), 4, 1);
        // Both frames are hit, and no table tells where they are.
        pack.bytes[second.offset as usize + 5000] ^= 1;
        pack.bytes.truncate(second.end() as usize);
        flip_each(&pack, body.step_by(97), 4, 2);
    }

    #[test]
    fn of_a_frame_whose_end_is_missing_the_beginning_comes_out() {
        let mut pack = raw_pack(&[0..2, 2..5]);
        let last = places(&pack)[1];
        pack.bytes.truncate(last.end() as usize - 100);
        assert_eq!(clusters(&scan(&pack.bytes), 5), [0, 1, 2, 3]);
    }

    #[test]
    fn a_frame_within_a_damaged_one_does_not_hide_the_next() {
        // A guest wrote what looks like a frame, and reaches into the frame behind.
        let (mut planted, _) = frame(90..91);
        let next = frame(1..2).0;
        planted.bytes.truncate(FRAME_HEADER_BYTES);
        let mut data = cluster(0);
        let room = data.len() - FRAME_HEADER_BYTES;
        let reach = |n: usize| u32::try_from(n).unwrap().to_le_bytes();
        planted.bytes[8..12].copy_from_slice(&reach(C as usize));
        planted.bytes[4] = 0;
        let cut = C as usize - 10;
        let sum = frame_checksum(&planted.bytes, &[&data[..10], &next.bytes[..cut]].concat());
        planted.bytes[16..24].copy_from_slice(&sum);
        let tail = [&planted.bytes[..], &data[..10]].concat();
        data[room - 10..].copy_from_slice(&tail);
        let hash = Hash::of(&data);
        let outer = encode_frame(PackKind::Clusters, &[&data], Compression::None);
        let mut builder = PackBuilder::new(STORE, name(0), PackKind::Clusters, C);
        builder.push(&outer, &[hash]);
        builder.push(&next, &[Hash::of(&cluster(1))]);
        let mut pack = builder.seal();
        assert_eq!(clusters(&scan(&pack.bytes), 2), [1]);
        pack.bytes[200] ^= 1;
        assert_eq!(clusters(&scan(&pack.bytes), 2), [1]);
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
                    Scanned::Frame(found) => (found.at.offset, found.at.bytes),
                    Scanned::Damaged { offset, bytes } => (*offset, *bytes),
                    Scanned::Remains(_) => continue,
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
