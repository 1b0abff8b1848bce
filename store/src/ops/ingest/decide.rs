//! Known or new: the serial step between hashing and compressing, and the manifest that it builds.

use super::feed::Part;
use super::scan::{Batch, Seen};
use super::writer::Writer;
use super::{Counts, scan::Scanned};
use crate::codec::{EncodedFrame, FrameCodec};
use crate::error::Result;
use crate::format::entry::{Content, PackKind};
use crate::format::manifest::Child;
use crate::geometry::Geometry;
use crate::id::Hash;
use crate::manifest::Run;
use crate::manifest::build::Builder;
use crate::manifest::edit::edit;
use crate::progress::Progress;
use rayon::prelude::*;

/// New clusters of one input that are to become a frame: some kept from earlier batches, the rest in the batch at hand.
#[derive(Default)]
pub struct Job {
    input: usize,
    hashes: Vec<Hash>,
    kept: Vec<u8>,
    offsets: Vec<usize>,
}

/// A compressed frame and what is in it.
pub struct Frame {
    /// The input that its clusters are of.
    pub input: usize,
    /// The bytes.
    pub encoded: EncodedFrame,
    /// A hash an item.
    pub hashes: Vec<Hash>,
}

/// An input on its way in: its manifest so far, and its frame that is not full.
pub struct Disk {
    manifest: Manifest,
    partial: Job,
    counts: Counts,
}

/// How an input's manifest comes about.
pub enum Manifest {
    /// From its first cluster to its last.
    Built(Builder),
    /// From the parent's, with what was read instead.
    Edited {
        /// The parent.
        parent: Content,
        /// Clusters of the parent and of the input.
        clusters: (u64, u64),
        /// In order.
        changes: Vec<Run>,
    },
}

impl Disk {
    /// Nothing seen yet of input number `input`.
    pub fn new(input: usize, manifest: Manifest) -> Self {
        let partial = Job {
            input,
            ..Job::default()
        };
        Self {
            manifest,
            partial,
            counts: Counts::default(),
        }
    }

    fn add(&mut self, first: u64, count: u64, child: Child, writer: &mut Writer<'_>) -> Result<()> {
        match &mut self.manifest {
            Manifest::Built(builder) => builder.push(child, count, &mut |hash, bytes| {
                writer.store_node(hash, bytes)
            }),
            Manifest::Edited { changes, .. } => {
                changes.push(Run {
                    first,
                    count,
                    child,
                });
                Ok(())
            }
        }
    }

    /// The frame that is not full, if there is one.
    pub fn take_partial(&mut self) -> Option<Job> {
        Some(self.partial.take()).filter(|job| !job.hashes.is_empty())
    }

    /// The root of the manifest, its nodes stored.
    pub fn finish(self, writer: &mut Writer<'_>) -> Result<(Hash, Counts)> {
        let nodes = writer.parent_nodes();
        let mut sink = |hash, bytes| writer.store_node(hash, bytes);
        let root = match self.manifest {
            Manifest::Built(builder) => builder.finish(&mut sink)?,
            Manifest::Edited {
                parent,
                clusters: (old, new),
                changes,
            } => edit(
                &*nodes,
                parent.root,
                old,
                new,
                changes.into_iter(),
                &mut sink,
            )?,
        };
        Ok((root, self.counts))
    }
}

impl Writer<'_> {
    /// Adds the batch to the manifests; new clusters become jobs, the last of each input waiting to be filled.
    pub(super) fn decide(
        &mut self,
        batch: &Batch,
        disks: &mut [Disk],
        jobs: &mut Vec<Job>,
        progress: &Progress,
    ) -> Result<()> {
        for part in &batch.parts {
            self.decide_part(batch, part, &mut disks[part.input], jobs, progress)?;
        }
        for disk in disks {
            disk.partial.keep(batch);
        }
        Ok(())
    }

    fn decide_part(
        &mut self,
        batch: &Batch,
        part: &Scanned,
        disk: &mut Disk,
        jobs: &mut Vec<Job>,
        progress: &Progress,
    ) -> Result<()> {
        let size = u64::from(self.geometry().cluster_bytes);
        let first = match &part.part {
            Part::Run(run) => run.first,
            Part::Empty {
                first,
                count,
                child,
            } => {
                Self::count_empty(disk, count * size, progress);
                return disk.add(*first, *count, *child, self);
            }
        };
        let (mut known, mut empty) = (0, 0);
        for (i, seen) in part.seen.iter().enumerate() {
            disk.counts.read += size;
            let child = match seen {
                Seen::Zero => {
                    empty += size;
                    Child::Zero
                }
                Seen::Parent(hash) => {
                    known += size;
                    Child::Hash(*hash)
                }
                Seen::Other(hash, places) => {
                    if self.is_stored(hash, places)? {
                        known += size;
                    } else {
                        disk.counts.new += size;
                        disk.partial.hashes.push(*hash);
                        disk.partial.offsets.push(batch.offset(part, i));
                        if disk.partial.hashes.len() == self.geometry().clusters_per_frame() {
                            jobs.push(disk.partial.take());
                        }
                    }
                    Child::Hash(*hash)
                }
            };
            disk.add(first + i as u64, 1, child, self)?;
        }
        disk.counts.known += known;
        disk.counts.empty += empty;
        Progress::add(&progress.bytes_known, known);
        Progress::add(&progress.bytes_empty, empty);
        Ok(())
    }

    fn count_empty(disk: &mut Disk, bytes: u64, progress: &Progress) {
        disk.counts.empty += bytes;
        Progress::add(&progress.bytes_done, bytes);
        Progress::add(&progress.bytes_empty, bytes);
    }

    pub(super) fn append(
        &mut self,
        frames: Vec<Frame>,
        disks: &mut [Disk],
        progress: &Progress,
    ) -> Result<()> {
        for frame in frames {
            let bytes = frame.encoded.bytes.len() as u64;
            disks[frame.input].counts.stored += bytes;
            Progress::add(&progress.bytes_stored, bytes);
            self.store_frame(frame)?;
        }
        Ok(())
    }
}

impl Job {
    /// This one, the next one of the same input beginning.
    fn take(&mut self) -> Self {
        let next = Self {
            input: self.input,
            ..Self::default()
        };
        std::mem::replace(self, next)
    }

    /// Copies what lies in the batch's buffer, which will be used again.
    fn keep(&mut self, batch: &Batch) {
        for at in self.offsets.drain(..) {
            self.kept.extend_from_slice(batch.cluster(at));
        }
    }
}

/// Compresses jobs in parallel, in order.
pub struct Encoder<'a> {
    pub(super) geometry: Geometry,
    pub(super) codec: &'a FrameCodec,
}

impl Encoder<'_> {
    /// A frame a job.
    pub fn encode(&self, batch: &Batch, jobs: Vec<Job>) -> Vec<Frame> {
        let size = self.geometry.cluster_bytes as usize;
        jobs.into_par_iter()
            .map(|job| {
                let kept = job.kept.chunks_exact(size);
                let items: Vec<&[u8]> = kept
                    .chain(job.offsets.iter().map(|at| batch.cluster(*at)))
                    .collect();
                let encoded = self.codec.encode_frame(PackKind::Clusters, &items);
                Frame {
                    input: job.input,
                    encoded,
                    hashes: job.hashes,
                }
            })
            .collect()
    }
}
