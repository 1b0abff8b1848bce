//! Fills a pack in memory: frames in ingest order, then the table, then the trailer. Writing it out is the caller's.

use crate::codec::EncodedFrame;
use crate::format::block::room_after;
use crate::format::entry::{PackKind, PackRecord};
use crate::format::pack::{
    BLOCK_BYTES, Block, FrameRef, PackHeader, TRAILER_BYTES, Trailer, entry_number,
};
use crate::id::{Hash, PackName, Uid};
use crate::limits::PACK_BYTES_TARGET;

/// A pack that is being filled.
#[derive(Debug)]
pub struct PackBuilder {
    header: PackHeader,
    bytes: Vec<u8>,
    /// The last one still has room, perhaps.
    blocks: Vec<Block>,
    entries: Vec<(Hash, u32)>,
    frames: u32,
    decoded: u64,
    target: u32,
}

/// A pack ready to be put.
#[derive(Debug, Clone)]
pub struct SealedPack {
    /// Its name, and with it its key.
    pub name: PackName,
    /// What the log is to say of it.
    pub record: PackRecord,
    /// All its bytes.
    pub bytes: Vec<u8>,
    /// Every hash in it with its entry number, for the index.
    pub entries: Vec<(Hash, u32)>,
}

impl PackBuilder {
    /// An empty pack.
    pub fn new(store: Uid, name: PackName, kind: PackKind, cluster_bytes: u32) -> Self {
        let header = PackHeader {
            name,
            kind,
            cluster_bytes,
            store,
        };
        let mut buffer = Vec::new();
        buffer.reserve_exact(PACK_BYTES_TARGET as usize);
        buffer.extend_from_slice(&header.encode());
        let (blocks, entries) = (Vec::new(), Vec::new());
        Self {
            header,
            bytes: buffer,
            blocks,
            entries,
            frames: 0,
            decoded: 0,
            target: PACK_BYTES_TARGET,
        }
    }

    /// Full earlier than at `PACK_BYTES_TARGET`: for tests that want many packs.
    #[must_use]
    pub fn with_target(mut self, bytes: u32) -> Self {
        self.target = bytes.min(PACK_BYTES_TARGET);
        self
    }

    /// The pack's name.
    pub fn name(&self) -> PackName {
        self.header.name
    }

    /// True before the first frame; such a pack cannot be sealed.
    pub fn is_empty(&self) -> bool {
        self.frames == 0
    }

    /// Whether the pack, sealed with this frame in it, stays under its target. An empty pack takes any frame.
    pub fn room_for(&self, frame: &EncodedFrame) -> bool {
        let table = self.blocks_with(usize::from(frame.items)) * BLOCK_BYTES;
        let sealed = self.bytes.len() + frame.bytes.len() + table + TRAILER_BYTES;
        self.is_empty() || sealed <= self.target as usize
    }

    /// Adds a frame with the hashes of its items; returns them with their entry numbers.
    ///
    /// # Panics
    /// Without room for the frame, or with another number of hashes than it has items.
    pub fn push(&mut self, frame: &EncodedFrame, hashes: &[Hash]) -> &[(Hash, u32)] {
        assert!(self.room_for(frame), "the caller asked for room");
        assert_eq!(
            hashes.len(),
            usize::from(frame.items),
            "every item has its hash"
        );
        let at = FrameRef {
            offset: self.bytes.len() as u32,
            bytes: frame.bytes.len() as u32,
        };
        self.bytes.extend_from_slice(&frame.bytes);
        self.frames += 1;
        self.decoded += u64::from(frame.decoded);
        let before = self.entries.len();
        let mut first = 0;
        while first < hashes.len() {
            if self.blocks.last().is_none_or(|block| block.room() == 0) {
                self.blocks.push(Block::new(self.blocks.len() as u32));
            }
            let block = self.blocks.last_mut().expect("there is one with room now");
            let part = &hashes[first..hashes.len().min(first + block.room())];
            let slot = block.hashes().len();
            block.push(at, first as u16, part);
            let number = entry_number(block.number(), slot);
            self.entries.extend(part.iter().copied().zip(number..));
            first += part.len();
        }
        &self.entries[before..]
    }

    /// Ends the pack with its table and trailer. Hashes it on all threads of the pool that this runs in.
    ///
    /// # Panics
    /// Without a frame: an empty pack is never put.
    pub fn seal(mut self) -> SealedPack {
        assert!(!self.is_empty(), "an empty pack is never put");
        let name = self.header.name;
        let (entries, blocks) = (self.entries.len() as u32, self.blocks.len() as u32);
        let trailer = Trailer {
            table_offset: self.bytes.len() as u32,
            blocks,
            entries,
            frames: self.frames,
            decoded: self.decoded,
        };
        for block in &self.blocks {
            self.bytes.extend_from_slice(&block.encode(&name));
        }
        self.bytes.extend_from_slice(&trailer.encode(&name));
        let hash = Hash(
            *blake3::Hasher::new()
                .update_rayon(&self.bytes)
                .finalize()
                .as_bytes(),
        );
        let (n, kind, size) = (name.n, self.header.kind, self.bytes.len() as u32);
        let record = PackRecord {
            n,
            kind,
            hash,
            size,
            entries,
            blocks,
        };
        SealedPack {
            name,
            record,
            bytes: self.bytes,
            entries: self.entries,
        }
    }

    /// Blocks that the table has once so many more items of one frame are in it.
    fn blocks_with(&self, items: usize) -> usize {
        let mut blocks = self.blocks.len();
        let mut left = items.saturating_sub(self.blocks.last().map_or(0, Block::room));
        while left > 0 {
            left = left.saturating_sub(room_after(0, 0));
            blocks += 1;
        }
        blocks
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec::encode_frame;
    use crate::geometry::Compression;
    use crate::limits::FRAME_BYTES_MAX;
    use crate::pack::shelf::{C, STORE, frame, name, pack};

    #[test]
    fn a_pack_is_header_frames_table_and_trailer() {
        let sealed = pack(4, &[3, 200, 1]);
        let record = sealed.record;
        assert_eq!(record.hash, Hash::of(&sealed.bytes));
        assert_eq!((record.n, record.entries, record.blocks), (4, 204, 2));
        assert_eq!(record.size as usize, sealed.bytes.len());
        let header = PackHeader::decode(&sealed.bytes[..64]).unwrap();
        let wanted = PackHeader {
            name: name(4),
            kind: PackKind::Clusters,
            cluster_bytes: C,
            store: STORE,
        };
        assert_eq!(header, wanted);
        let trailer = Trailer::decode(
            &name(4),
            &sealed.bytes[sealed.bytes.len() - TRAILER_BYTES..],
        )
        .unwrap();
        assert_eq!(trailer.pack_bytes(), u64::from(record.size));
        assert_eq!((trailer.frames, trailer.decoded), (3, 204 * u64::from(C)));
    }

    #[test]
    fn entry_numbers_tell_block_and_slot() {
        let mut builder = PackBuilder::new(STORE, name(0), PackKind::Clusters, C);
        let (first, hashes) = frame(0..3);
        let entries: Vec<u32> = builder.push(&first, &hashes).iter().map(|e| e.1).collect();
        assert_eq!(entries, [0, 1, 2]);
        let (second, hashes) = frame(3..203);
        let entries = builder.push(&second, &hashes).to_vec();
        // 126 items of two frames fill a block; numbers go on with the next block's.
        let numbers: Vec<u32> = (3..126).chain(128..205).collect();
        assert!(entries.iter().map(|e| e.1).eq(numbers));
        assert!(entries.iter().map(|e| e.0).eq(hashes));
    }

    #[test]
    fn a_pack_filled_while_there_is_room_ends_just_under_its_target() {
        let cluster = vec![0xa5; FRAME_BYTES_MAX as usize / 64];
        let items = vec![&cluster[..]; 16];
        let frame = encode_frame(PackKind::Clusters, &items, Compression::None);
        let hashes = [Hash([1; 32]); 16];
        let size = cluster.len() as u32;
        let mut builder = PackBuilder::new(STORE, name(0), PackKind::Clusters, size);
        assert!(builder.is_empty());
        while builder.room_for(&frame) {
            builder.push(&frame, &hashes);
        }
        let sealed = builder.seal();
        assert!(sealed.record.size <= PACK_BYTES_TARGET);
        assert!(sealed.record.size as usize + frame.bytes.len() > PACK_BYTES_TARGET as usize);
        assert!(
            sealed.bytes.capacity() <= PACK_BYTES_TARGET as usize,
            "never grown"
        );
    }

    #[test]
    fn the_size_promised_by_room_for_is_the_size_that_comes_out() {
        for counts in [
            &[1, 1][..],
            &[92; 3],
            &[124, 1, 1],
            &[126, 126],
            &[1000, 3, 127],
        ] {
            let mut builder = PackBuilder::new(STORE, name(0), PackKind::Clusters, C);
            let mut promised = 0;
            for count in counts {
                let (frame, hashes) = frame(0..*count);
                promised = builder.blocks_with(usize::from(frame.items));
                builder.push(&frame, &hashes);
            }
            assert_eq!(
                builder.seal().record.blocks as usize,
                promised,
                "{counts:?}"
            );
        }
    }
}
