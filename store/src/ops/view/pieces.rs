//! What a disk is made of, cluster by cluster, and single clusters by their hash: for whoever writes formats that share
//! clusters as the store does.

use super::{Reader, View, Wish};
use crate::error::Result;
use crate::format::manifest::Child;
use crate::id::Hash;
use crate::manifest::walk::{Piece, Walker};
use std::collections::VecDeque;

/// Adjacent clusters of one kind; of data always one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ClusterRun {
    /// First byte.
    pub start: u64,
    /// Bytes; fewer than whole clusters only at the end.
    pub length: u64,
    /// What they are.
    pub child: Child,
}

/// Runs in order and without gaps, an iterator. It ends with the first error.
pub struct ClusterRuns<'v> {
    walker: Option<Walker<'v>>,
    cluster_bytes: u64,
    size: u64,
    ready: VecDeque<ClusterRun>,
}

impl View<'_> {
    /// The contents from the first byte to the last. Reads manifest nodes as it goes, no clusters.
    pub fn cluster_runs(&self) -> Result<ClusterRuns<'_>> {
        Ok(ClusterRuns {
            walker: Some(self.walker().map_err(|e| self.explained(e))?),
            cluster_bytes: self.cluster_bytes(),
            size: self.size(),
            ready: VecDeque::new(),
        })
    }
}

impl Reader<'_> {
    /// Gives the verified bytes of a cluster of a view that lives to `take`. `more` says how many clusters will be wanted next
    /// that were probably stored right behind it.
    pub fn read_cluster(&self, hash: Hash, more: usize, take: &mut dyn FnMut(&[u8])) -> Result<()> {
        let wish = Wish {
            hash,
            more,
            around: &|| Ok(Vec::new()),
        };
        self.clusters.read(wish, take)
    }
}

impl ClusterRuns<'_> {
    fn push(&mut self, first: u64, count: u64, child: Child) {
        let start = first * self.cluster_bytes;
        let length = (count * self.cluster_bytes).min(self.size - start);
        self.ready.push_back(ClusterRun {
            start,
            length,
            child,
        });
    }
}

impl Iterator for ClusterRuns<'_> {
    type Item = Result<ClusterRun>;

    fn next(&mut self) -> Option<Self::Item> {
        while self.ready.is_empty() {
            match self.walker.as_mut()?.next() {
                None => self.walker = None,
                Some(Err(e)) => {
                    self.walker = None;
                    return Some(Err(e));
                }
                Some(Ok(Piece::Uniform {
                    first,
                    count,
                    child,
                })) => self.push(first, count, child),
                Some(Ok(Piece::Leaf { first, node, count })) => {
                    (0..count).for_each(|i| self.push(first + i, 1, node.child(i as usize)));
                }
            }
        }
        self.ready.pop_front().map(Ok)
    }
}
