//! Images in: read, zero-checked and hashed in parallel, compared with the parent and the index, new clusters compressed
//! in parallel and appended to packs in disk order, the manifest built on the way.
//!
//! ```text
//! feed (extents, parent) -> scan (read, zero, hash; parallel) -> decide (known or new; serial)
//!   -> encode (frames; parallel, together with the scan of the next batch) -> append (packs, in order)
//! ```
//!
//! Several inputs share one stream of batches, so that a group costs what one disk with all its bytes would.

mod after;
mod changed;
mod commit;
mod decide;
mod feed;
mod parents;
mod scan;
mod take;
mod writer;

pub(crate) use scan::is_zero;
pub use take::{Arrived, Taker};
pub(crate) use writer::NODE_FRAME_BYTES;
pub use writer::{Writer, record_copy};

use crate::disk::DiskFile;
use crate::error::{Error, ErrorKind, Result};
use crate::format::entry::Content;
use crate::limits::DISK_BYTES_MAX;
use crate::manifest::build::Builder;
use crate::progress::Progress;
use crate::store::may_be_dropped;
use decide::{Disk, Manifest};
use feed::Feed;
use scan::Batch;
use std::ops::Range;

/// Bytes read before the next decision: a batch.
const BATCH_BYTES: usize = 12 << 20;
/// Bytes that one task reads and hashes.
const RUN_BYTES: u64 = 256 << 10;
/// Bytes that one of several inputs gives to a batch before the next one's turn.
const TURN_BYTES: u64 = 1 << 20;

/// Before it is counted in clusters: whatever says how many bytes there are, no file has more.
fn check_size(size: u64) -> Result<()> {
    if size <= DISK_BYTES_MAX {
        return Ok(());
    }
    let why =
        format!("{size} bytes are more than the {DISK_BYTES_MAX} that a disk or VM state can have");
    Err(Error::new(ErrorKind::LimitExceeded, "taking contents in").detail(why))
}

/// A disk to take in.
#[derive(Clone, Copy)]
pub struct Input<'a> {
    /// Its bytes.
    pub file: &'a dyn DiskFile,
    /// How many of them.
    pub size: u64,
    /// Contents that it probably shares much with.
    pub parent: Option<Content>,
    /// Byte ranges outside of which the parent is trusted, sorted and disjoint; `None` reads everything.
    pub changed: Option<&'a [Range<u64>]>,
}

/// What became of an input.
#[derive(Debug, Clone, Copy)]
pub struct Ingested {
    /// Its contents.
    pub content: Content,
    /// What it cost.
    pub counts: Counts,
}

/// Bytes of an input by what became of them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    /// Read from the image.
    pub read: u64,
    /// Holes and zeros.
    pub empty: u64,
    /// Found stored: in the parent, by the index, or earlier in this operation.
    pub known: u64,
    /// New, before compression.
    pub new: u64,
    /// Bytes that the new clusters take in packs.
    pub stored: u64,
    /// True when change hints were given and an audit found them wrong, so that everything was read.
    pub audit_failed: bool,
}

impl Writer<'_> {
    /// Takes the inputs in. Their clusters are in packs of this writer, or of packs and roots that it relies on, when
    /// this returns; `finish` makes that hold for good.
    pub fn ingest(&mut self, inputs: &[Input<'_>], progress: &Progress) -> Result<Vec<Ingested>> {
        self.ingest_known(inputs, &|_| false, progress)
    }

    /// The same, where the change hints of the inputs that `known` says are not hints: nothing outside of them is read.
    pub fn ingest_known(
        &mut self,
        inputs: &[Input<'_>],
        known: &dyn Fn(usize) -> bool,
        progress: &Progress,
    ) -> Result<Vec<Ingested>> {
        let relied = self.relied();
        let mut inputs = inputs.to_vec();
        loop {
            match self.try_ingest(&inputs, known, progress) {
                Err(e) if may_be_dropped(&e) && self.has_lost_parents(&mut inputs)? => {
                    self.start_over(relied.clone())?;
                }
                done => return done,
            }
        }
    }

    /// Whether a parent that was deleted meanwhile can be why it failed; such inputs then have none.
    fn has_lost_parents(&self, inputs: &mut [Input<'_>]) -> Result<bool> {
        let catalog = self.refreshed()?;
        let mut lost = false;
        for input in inputs {
            let gone = input.parent.take_if(|p| !catalog.reachable(&p.root));
            lost |= gone.is_some();
        }
        Ok(lost)
    }

    fn try_ingest(
        &mut self,
        inputs: &[Input<'_>],
        known: &dyn Fn(usize) -> bool,
        progress: &Progress,
    ) -> Result<Vec<Ingested>> {
        let nodes = self.parent_nodes();
        let size = u64::from(self.geometry().cluster_bytes);
        let mut feeds = Vec::with_capacity(inputs.len());
        let mut disks = Vec::with_capacity(inputs.len());
        let mut audits = Vec::with_capacity(inputs.len());
        for (i, input) in inputs.iter().enumerate() {
            check_size(input.size)?;
            // Before the first of its nodes is read: see `ParentNodes`.
            self.rely_on_root(input.parent.map(|p| p.root));
            let clusters = input.size.div_ceil(size);
            let hinted = match input.parent.zip(input.changed) {
                Some((parent, changed)) => {
                    let ranges = changed::ranges(input, parent, changed, size);
                    let random = self.random();
                    let held = known(i)
                        || changed::audit(input, parent, &ranges, &*nodes, size, random, progress)?;
                    held.then_some((parent, ranges))
                }
                None => None,
            };
            audits.push(input.changed.is_some() && input.parent.is_some() && hinted.is_none());
            let (manifest, ranges) = match hinted {
                Some((parent, ranges)) => {
                    let clusters = (parent.size.div_ceil(size), clusters);
                    (
                        Manifest::Edited {
                            parent,
                            clusters,
                            changes: Vec::new(),
                        },
                        ranges,
                    )
                }
                None => (
                    Manifest::Built(Builder::new(clusters)),
                    std::iter::once(0..clusters).collect(),
                ),
            };
            let bytes = ranges.iter().map(|r| (r.end - r.start) * size).sum();
            Progress::add(&progress.bytes_total, bytes);
            feeds.push(Feed::new(input, &*nodes, size as u32, ranges)?);
            disks.push(Disk::new(disks.len(), manifest));
        }
        self.run(&mut feeds, &mut disks, progress)?;
        let mut out = Vec::with_capacity(inputs.len());
        for ((input, disk), audit_failed) in inputs.iter().zip(disks).zip(audits) {
            let (root, mut counts) = disk.finish(self)?;
            counts.audit_failed = audit_failed;
            out.push(Ingested {
                content: Content {
                    root,
                    size: input.size,
                },
                counts,
            });
        }
        Ok(out)
    }

    /// The pipeline: while a batch is compressed, the next one is read and hashed.
    fn run(
        &mut self,
        feeds: &mut [Feed<'_>],
        disks: &mut [Disk],
        progress: &Progress,
    ) -> Result<()> {
        let mut spare = vec![Batch::default(), Batch::default()];
        let mut ahead = self.scanned(spare.pop().unwrap_or_default(), feeds, progress)?;
        while let Some(batch) = ahead {
            progress.check()?;
            let mut jobs = Vec::new();
            self.decide(&batch, disks, &mut jobs, progress)?;
            let encoder = self.encoder();
            let fill = spare.pop().unwrap_or_default();
            let this: &Self = self;
            let (frames, next) = rayon::join(
                || encoder.encode(&batch, jobs),
                || this.scanned(fill, feeds, progress),
            );
            self.append(frames, disks, progress)?;
            spare.push(batch);
            ahead = next?;
        }
        let rest = disks.iter_mut().filter_map(Disk::take_partial).collect();
        let frames = self.encoder().encode(&Batch::default(), rest);
        self.append(frames, disks, progress)
    }

    fn scanned(
        &self,
        mut batch: Batch,
        feeds: &mut [Feed<'_>],
        progress: &Progress,
    ) -> Result<Option<Batch>> {
        batch.fill(feeds, self.geometry().cluster_bytes)?;
        if batch.is_empty() {
            return Ok(None);
        }
        batch.scan(feeds, self.distrusted(), self.index(), progress)?;
        // The index is opened for the first cluster that the parent does not have: an image that did not change costs none.
        if self.index().is_closed() && batch.has_others() {
            self.open_index()?;
            batch.look_up(self.index());
        }
        Ok(Some(batch))
    }
}
