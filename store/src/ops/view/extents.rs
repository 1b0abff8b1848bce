//! What is allocated where, from the manifest alone.

use crate::error::Result;
use crate::format::manifest::{Child, Node};
use crate::manifest::walk::{Piece, Walker};
use crate::ops::diff::ExtentKind;
use std::ops::Range;
use std::sync::Arc;

/// A run of bytes of one kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Extent {
    /// First byte.
    pub start: u64,
    /// Bytes.
    pub length: u64,
    /// What they are, in whole clusters: data may be zeros in part.
    pub kind: ExtentKind,
}

/// Extents in order, an iterator. It ends with the first error.
pub struct Extents<'v> {
    walker: Walker<'v>,
    cluster_bytes: u64,
    range: Range<u64>,
    /// The leaf that was met last, with its first cluster and how many are in it.
    leaf: Option<(Arc<Node>, u64, u64)>,
}

impl<'v> Extents<'v> {
    pub(super) fn new(walker: Walker<'v>, range: Range<u64>, cluster_bytes: u64) -> Self {
        Self {
            walker,
            cluster_bytes,
            range,
            leaf: None,
        }
    }

    /// The kind of a cluster, and one past the last that is known to be of it.
    fn run_at(&mut self, cluster: u64) -> Result<(ExtentKind, u64)> {
        loop {
            if let Some((node, first, count)) = &self.leaf
                && (*first..first + count).contains(&cluster)
            {
                let child = node.child((cluster - first) as usize);
                return Ok((kind_of(child), cluster + 1));
            }
            self.walker.seek(cluster);
            match self.walker.next().transpose()? {
                Some(Piece::Leaf { first, node, count }) => self.leaf = Some((node, first, count)),
                Some(Piece::Uniform {
                    first,
                    count,
                    child,
                }) => return Ok((kind_of(child), first + count)),
                // Past the end of a disk are holes.
                None => return Ok((ExtentKind::Hole, u64::MAX)),
            }
        }
    }

    fn extent(&mut self) -> Result<Extent> {
        let size = self.cluster_bytes;
        let start = self.range.start;
        let (kind, mut to) = self.run_at(start / size)?;
        while to.saturating_mul(size) < self.range.end {
            let (next, end) = self.run_at(to)?;
            if next != kind {
                break;
            }
            to = end;
        }
        let end = to.saturating_mul(size).min(self.range.end);
        self.range.start = end;
        Ok(Extent {
            start,
            length: end - start,
            kind,
        })
    }
}

impl Iterator for Extents<'_> {
    type Item = Result<Extent>;

    fn next(&mut self) -> Option<Result<Extent>> {
        if self.range.is_empty() {
            return None;
        }
        let extent = self.extent();
        if extent.is_err() {
            self.range.start = self.range.end;
        }
        Some(extent)
    }
}

fn kind_of(child: Child) -> ExtentKind {
    match child {
        Child::Hash(_) => ExtentKind::Data,
        Child::Zero => ExtentKind::Zero,
        Child::Hole => ExtentKind::Hole,
    }
}
