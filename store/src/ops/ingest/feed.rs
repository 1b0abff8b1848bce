//! What is to be read of an input: its extents cut into runs of clusters, each with what the parent has there.

use super::{Input, RUN_BYTES};
use crate::disk::{DiskFile, Extent};
use crate::error::Result;
use crate::format::manifest::Child;
use crate::manifest::NodeSource;
use crate::manifest::walk::{Piece, Walker};
use std::collections::VecDeque;
use std::ops::Range;

/// The next part of an input, in order.
pub enum Part {
    /// Clusters that need no reading.
    Empty {
        /// First cluster.
        first: u64,
        /// How many.
        count: u64,
        /// Holes, which the file has no data for, or zeros, where it says so.
        child: Child,
    },
    /// Clusters to read.
    Run(Run),
}

/// A few clusters that one task reads.
pub struct Run {
    /// First cluster.
    pub first: u64,
    /// How many.
    pub count: u64,
    /// The parent's children there; shorter where the parent ends.
    pub parent: Vec<Child>,
}

/// Cuts one input.
pub struct Feed<'a> {
    /// The bytes.
    pub file: &'a dyn DiskFile,
    /// How many.
    pub size: u64,
    cluster_bytes: u64,
    next: u64,
    clusters: u64,
    /// Clusters still to visit; the first range has begun at `next`.
    ranges: VecDeque<Range<u64>>,
    /// The extent at hand, and what its clusters are where that is known.
    extent: Option<(Extent, Option<Child>)>,
    parent: Option<Walker<'a>>,
    piece: Option<Piece>,
}

impl<'a> Feed<'a> {
    /// Of the clusters in `ranges`, sorted and disjoint.
    pub fn new(
        input: &Input<'a>,
        nodes: &'a dyn NodeSource,
        cluster_bytes: u32,
        ranges: Vec<Range<u64>>,
    ) -> Result<Self> {
        let size = u64::from(cluster_bytes);
        let parent = match input.parent {
            Some(p) => Some(Walker::new(nodes, p.root, p.size.div_ceil(size))?),
            None => None,
        };
        let clusters = input.size.div_ceil(size);
        Ok(Self {
            file: input.file,
            size: input.size,
            cluster_bytes: size,
            next: 0,
            clusters,
            ranges: ranges.into(),
            extent: None,
            parent,
            piece: None,
        })
    }

    /// The next part; `None` at the end.
    pub fn next(&mut self) -> Result<Option<Part>> {
        while self.ranges.front().is_some_and(|r| r.end <= self.next) {
            self.ranges.pop_front();
        }
        let Some(range) = self.ranges.front() else {
            return Ok(None);
        };
        self.next = self.next.max(range.start);
        let stop = range.end.min(self.clusters);
        let offset = self.next * self.cluster_bytes;
        let (extent, known) = match self.extent.take().filter(|(e, _)| e.end > offset) {
            Some(known) => known,
            None => self.extent_at(offset)?,
        };
        // A cluster is a hole only where no byte of it is data; past the end of the file there is none.
        let end = extent.end.min(self.size);
        let whole = if end == self.size {
            self.clusters
        } else {
            end / self.cluster_bytes
        };
        let whole = whole.min(stop);
        self.extent = Some((extent, known));
        if let Some(child) = known.filter(|_| whole > self.next) {
            let first = std::mem::replace(&mut self.next, whole);
            return Ok(Some(Part::Empty {
                first,
                count: whole - first,
                child,
            }));
        }
        let data_end = if known.is_none() {
            end.div_ceil(self.cluster_bytes)
        } else {
            self.next + 1
        };
        let step = (RUN_BYTES / self.cluster_bytes).max(1);
        let aligned = (self.next / step + 1) * step;
        let count = data_end.min(aligned).min(stop).max(self.next + 1) - self.next;
        let run = Run {
            first: self.next,
            count,
            parent: self.parent_at(self.next, count)?,
        };
        self.next += count;
        Ok(Some(Part::Run(run)))
    }

    /// The extent at a byte, and what its clusters are where that is known.
    fn extent_at(&self, offset: u64) -> Result<(Extent, Option<Child>)> {
        let extent = self.file.extent(offset)?;
        let known = if !extent.data {
            Some(Child::Hole)
        } else if self.file.is_zeros(&extent)? {
            Some(Child::Zero)
        } else {
            None
        };
        Ok((extent, known))
    }

    /// The parent's children at `first .. first + count`, of as many leaves as that takes.
    fn parent_at(&mut self, first: u64, count: u64) -> Result<Vec<Child>> {
        let mut children = Vec::new();
        let Some(walker) = &mut self.parent else {
            return Ok(children);
        };
        let (mut at, end) = (first, first + count);
        while at < end {
            if self.piece.as_ref().is_none_or(|p| p.end() <= at) {
                walker.seek(at);
                self.piece = walker.next().transpose()?;
            }
            let Some(piece) = &self.piece else {
                self.parent = None;
                break;
            };
            let stop = piece.end().min(end);
            match piece {
                Piece::Leaf { first, node, .. } => {
                    children.extend((at - first..stop - first).map(|i| node.child(i as usize)));
                }
                Piece::Uniform { child, .. } => {
                    children.resize(children.len() + (stop - at) as usize, *child);
                }
            }
            at = stop;
        }
        Ok(children)
    }
}
