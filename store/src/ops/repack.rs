//! Clusters from here and there put together in full frames, several frames at a time on all threads.

use crate::codec::{EncodedFrame, encode_frame};
use crate::error::Result;
use crate::format::entry::PackKind;
use crate::geometry::Geometry;
use crate::id::Hash;
use rayon::prelude::*;

/// Frames that are compressed at a time: 8 MiB of the usual size, 32 MiB of the largest.
const FRAMES: usize = 8;

/// Takes a frame and the hashes of its items.
pub type FrameOut<'a> = &'a mut dyn FnMut(EncodedFrame, &[Hash]) -> Result<()>;

/// Clusters that wait for their frame to be full.
pub struct Repacker {
    geometry: Geometry,
    hashes: Vec<Hash>,
    bytes: Vec<u8>,
}

impl Repacker {
    /// For frames of a store of that geometry.
    pub fn new(geometry: Geometry) -> Self {
        Self {
            geometry,
            hashes: Vec::new(),
            bytes: Vec::new(),
        }
    }

    /// Adds a cluster, whose bytes were checked against its hash.
    pub fn push(&mut self, hash: Hash, cluster: &[u8], out: FrameOut<'_>) -> Result<()> {
        self.hashes.push(hash);
        self.bytes.extend_from_slice(cluster);
        if self.hashes.len() == self.geometry.clusters_per_frame() * FRAMES {
            return self.end(out);
        }
        Ok(())
    }

    /// Gives out what waits; the last frame may be short.
    pub fn end(&mut self, out: FrameOut<'_>) -> Result<()> {
        let (per_frame, size) = (
            self.geometry.clusters_per_frame(),
            self.geometry.cluster_bytes as usize,
        );
        let compression = self.geometry.compression;
        let frames: Vec<EncodedFrame> = self
            .bytes
            .par_chunks(per_frame * size)
            .map(|frame| {
                let items: Vec<&[u8]> = frame.chunks_exact(size).collect();
                encode_frame(PackKind::Clusters, &items, compression)
            })
            .collect();
        for (frame, hashes) in frames.into_iter().zip(self.hashes.chunks(per_frame)) {
            out(frame, hashes)?;
        }
        self.hashes.clear();
        self.bytes.clear();
        Ok(())
    }
}
