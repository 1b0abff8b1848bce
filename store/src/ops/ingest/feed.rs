//! What is to be read of an input: its extents cut into runs of clusters, each with what the parent has there.

use super::{Input, RUN_BYTES};
use crate::disk::{DiskFile, Extent};
use crate::error::Result;
use crate::format::manifest::{Child, Node};
use crate::manifest::NodeSource;
use crate::manifest::walk::{Piece, Walker};
use std::collections::VecDeque;
use std::ops::Range;
use std::sync::Arc;

/// The next part of an input, in order.
pub enum Part {
    /// Clusters that the file has no data for.
    Hole {
        /// First cluster.
        first: u64,
        /// How many.
        count: u64,
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
    /// The parent's children there.
    pub parent: Parent,
}

/// What the parent has at a run. A run never spans two leaf nodes.
pub enum Parent {
    /// No parent, or past its end.
    None,
    /// All of one kind.
    Uniform(Child),
    /// A leaf and the position of the run's first cluster in it.
    Leaf(Arc<Node>, usize),
}

impl Parent {
    /// The parent's hash of the run's cluster `i`.
    pub fn is(&self, i: usize, hash: &Child) -> bool {
        match self {
            Self::None => false,
            Self::Uniform(child) => child == hash,
            Self::Leaf(node, at) => node.child(at + i) == *hash,
        }
    }
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
    extent: Option<Extent>,
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
        let extent = match self.extent.take().filter(|e| e.end > offset) {
            Some(known) => known,
            None => self.file.extent(offset)?,
        };
        // A cluster is a hole only where no byte of it is data; past the end of the file there is none.
        let end = extent.end.min(self.size);
        let whole = if end == self.size {
            self.clusters
        } else {
            end / self.cluster_bytes
        };
        let whole = whole.min(stop);
        self.extent = Some(extent);
        if !extent.data && whole > self.next {
            let first = std::mem::replace(&mut self.next, whole);
            return Ok(Some(Part::Hole {
                first,
                count: whole - first,
            }));
        }
        let data_end = if extent.data {
            end.div_ceil(self.cluster_bytes)
        } else {
            self.next + 1
        };
        let step = (RUN_BYTES / self.cluster_bytes).clamp(1, 256);
        let aligned = (self.next / step + 1) * step;
        let count = data_end.min(aligned).min(stop).max(self.next + 1) - self.next;
        let run = Run {
            first: self.next,
            count,
            parent: self.parent_at(self.next)?,
        };
        self.next += count;
        Ok(Some(Part::Run(run)))
    }

    fn parent_at(&mut self, cluster: u64) -> Result<Parent> {
        let Some(walker) = &mut self.parent else {
            return Ok(Parent::None);
        };
        while self.piece.as_ref().is_none_or(|p| p.end() <= cluster) {
            walker.seek(cluster);
            self.piece = walker.next().transpose()?;
            if self.piece.is_none() {
                self.parent = None;
                return Ok(Parent::None);
            }
        }
        Ok(match &self.piece {
            Some(Piece::Leaf { first, node, .. }) => {
                Parent::Leaf(node.clone(), (cluster - first) as usize)
            }
            // A uniform piece may end within the run: what is past it is then not found equal, which costs a look-up.
            Some(Piece::Uniform {
                first,
                count,
                child,
            }) if first + count > cluster => Parent::Uniform(*child),
            _ => Parent::None,
        })
    }
}
