//! Copying what is live out of packs: whole frames as they stand, the live clusters of others put together in new frames.

use super::mark::Marks;
use crate::catalog::PackState;
use crate::codec::{EncodedFrame, decode_frame, encode_frame, frame_check};
use crate::error::{Error, Result};
use crate::format::entry::PackKind;
use crate::format::pack::FRAME_ITEMS_MAX;
use crate::geometry::Geometry;
use crate::id::{Hash, PackName, Uid};
use crate::object::Objects;
use crate::ops::ingest::{NODE_FRAME_BYTES, Writer};
use crate::pack::reader::{located, read_frame};
use crate::pack::table::Table;
use crate::pack::writer::PackBuilder;
use crate::progress::Progress;

/// Takes frames: a writer, or a counter that tells what a writer would write.
pub trait Out {
    /// The next frame and the hashes of its items.
    fn frame(&mut self, kind: PackKind, frame: &EncodedFrame, hashes: &[Hash]) -> Result<()>;
}

impl Out for Writer<'_> {
    fn frame(&mut self, kind: PackKind, frame: &EncodedFrame, hashes: &[Hash]) -> Result<()> {
        self.store_encoded(kind, frame, hashes)
    }
}

/// Counts the bytes of the packs that a writer would write.
pub struct Counter {
    store: Uid,
    cluster_bytes: u32,
    pack_bytes: u32,
    packs: [Option<PackBuilder>; 2],
    /// Bytes of the packs that are full.
    pub bytes: u64,
}

impl Counter {
    /// For a store of this name.
    pub fn new(store: Uid, cluster_bytes: u32, pack_bytes: u32) -> Self {
        Self {
            store,
            cluster_bytes,
            pack_bytes,
            packs: [None, None],
            bytes: 0,
        }
    }

    /// Ends the packs at hand, as a writer does at the end of a step.
    pub fn end(&mut self) {
        let sealed = self
            .packs
            .iter_mut()
            .filter_map(Option::take)
            .map(PackBuilder::seal);
        self.bytes += sealed.map(|p| u64::from(p.record.size)).sum::<u64>();
    }
}

impl Out for Counter {
    fn frame(&mut self, kind: PackKind, frame: &EncodedFrame, hashes: &[Hash]) -> Result<()> {
        let slot = &mut self.packs[usize::from(kind == PackKind::Nodes)];
        if let Some(full) = slot.take_if(|pack| !pack.room_for(frame)) {
            self.bytes += u64::from(full.seal().record.size);
        }
        let name = PackName {
            session: crate::id::SessionId {
                opened_at: 0,
                nonce: 0,
            },
            n: 0,
        };
        let empty = || {
            PackBuilder::new(self.store, name, kind, self.cluster_bytes)
                .with_target(self.pack_bytes)
        };
        slot.get_or_insert_with(empty).push(frame, hashes);
        Ok(())
    }
}

/// Copies the live parts of packs, one kind at a time.
pub struct Rewriter<'a> {
    objects: &'a dyn Objects,
    geometry: Geometry,
    kind: PackKind,
    items: Vec<u8>,
    lengths: Vec<usize>,
    hashes: Vec<Hash>,
}

impl<'a> Rewriter<'a> {
    /// Nothing copied yet.
    pub fn new(objects: &'a dyn Objects, geometry: Geometry, kind: PackKind) -> Self {
        Self {
            objects,
            geometry,
            kind,
            items: Vec::new(),
            lengths: Vec::new(),
            hashes: Vec::new(),
        }
    }

    /// Copies the live entries of a pack of the rewriter's kind. Every byte is checked on the way.
    pub fn copy(
        &mut self,
        pack: &PackState,
        marks: &Marks,
        out: &mut dyn Out,
        progress: &Progress,
    ) -> Result<()> {
        let Some(marks) = marks.packs.get(&pack.number).filter(|m| m.live_entries > 0) else {
            return Ok(());
        };
        let table = Table::read(self.objects, pack.name, &pack.record)?;
        for frame in table.frames() {
            progress.check()?;
            let hashes: Vec<Hash> = frame.entries().map(|(_, hash, _)| *hash).collect();
            let wanted: Vec<bool> = frame.entries().map(|(n, ..)| marks.is_live(n)).collect();
            if !wanted.contains(&true) {
                continue;
            }
            let bytes = read_frame(self.objects, pack.name, frame.at)?;
            self.copy_frame(bytes, &hashes, &wanted, out)
                .map_err(|e| located(e, self.objects, pack.name, frame.at))?;
        }
        Ok(())
    }

    fn copy_frame(
        &mut self,
        bytes: Vec<u8>,
        hashes: &[Hash],
        wanted: &[bool],
        out: &mut dyn Out,
    ) -> Result<()> {
        if !wanted.contains(&false) {
            let header = frame_check(&bytes)?;
            let (items, decoded) = (header.items, header.decoded);
            return out.frame(
                self.kind,
                &EncodedFrame {
                    bytes,
                    items,
                    decoded,
                },
                hashes,
            );
        }
        let frame = decode_frame(self.kind, self.geometry.cluster_bytes, &bytes)?;
        for (i, hash) in hashes.iter().enumerate().filter(|(i, _)| wanted[*i]) {
            let item = frame
                .item(i)
                .filter(|b| Hash::of(b) == *hash)
                .ok_or_else(|| {
                    Error::corrupt(
                        "copying a frame",
                        format!("item {i} does not have its hash"),
                    )
                })?;
            self.items.extend_from_slice(item);
            self.lengths.push(item.len());
            self.hashes.push(*hash);
            if self.is_full() {
                self.end(out)?;
            }
        }
        Ok(())
    }

    fn is_full(&self) -> bool {
        match self.kind {
            PackKind::Clusters => self.hashes.len() == self.geometry.clusters_per_frame(),
            PackKind::Nodes => {
                self.items.len() >= NODE_FRAME_BYTES || self.hashes.len() == FRAME_ITEMS_MAX
            }
        }
    }

    /// Writes the frame at hand, full or not.
    pub fn end(&mut self, out: &mut dyn Out) -> Result<()> {
        if self.hashes.is_empty() {
            return Ok(());
        }
        let mut rest = self.items.as_slice();
        let items: Vec<&[u8]> = self
            .lengths
            .iter()
            .map(|n| {
                let (item, after) = rest.split_at(*n);
                rest = after;
                item
            })
            .collect();
        let frame = encode_frame(self.kind, &items, self.geometry.compression);
        out.frame(self.kind, &frame, &self.hashes)?;
        self.items.clear();
        self.lengths.clear();
        self.hashes.clear();
        Ok(())
    }
}
