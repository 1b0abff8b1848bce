//! One disk's tree as walk, diff and edit see it: parts that may be looked into, and nodes checked as they are read.

use crate::error::{Error, Result};
use crate::format::manifest::{Child, Node};
use crate::id::Hash;
use crate::limits::{MANIFEST_FANOUT, MANIFEST_FANOUT_BITS, MANIFEST_LEVELS_MAX};
use crate::manifest::{NodeSource, height};
use std::sync::Arc;

/// Largest number of clusters: what a root of the highest level covers.
const CLUSTERS_MAX: u64 = 1 << (MANIFEST_FANOUT_BITS * MANIFEST_LEVELS_MAX as u32);

/// A tree of a disk.
pub(super) struct Tree<'a> {
    nodes: &'a dyn NodeSource,
    pub(super) root_hash: Hash,
    pub(super) root: Arc<Node>,
    pub(super) clusters: u64,
    pub(super) height: u8,
}

/// A subtree of a tree, or of a higher one that the tree is the first part of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Part {
    /// What a node says of its child.
    Child(Child),
    /// Begins with the whole tree, and holes follow: above the root of a lower tree.
    Above,
}

/// A part that can be asked for its own parts.
pub(super) enum Open {
    Uniform(Child),
    Node(Arc<Node>),
    Above,
}

impl<'a> Tree<'a> {
    pub(super) fn open(nodes: &'a dyn NodeSource, root_hash: Hash, clusters: u64) -> Result<Self> {
        check_clusters(clusters)?;
        let root = nodes.node(&root_hash)?;
        let tree = Self {
            nodes,
            root_hash,
            root,
            clusters,
            height: height(clusters),
        };
        tree.check(&tree.root, root_hash, tree.height, 0)?;
        Ok(tree)
    }

    /// All clusters as one child of a node of `level`, which is above the root.
    pub(super) fn whole(&self, level: u8) -> Part {
        if level > self.height + 1 {
            return Part::Above;
        }
        Part::Child(self.root.uniform().unwrap_or(Child::Hash(self.root_hash)))
    }

    /// Looks into a part that is a node of `level`, or would be one, and begins with cluster `first`.
    pub(super) fn look(&self, part: Part, level: u8, first: u64) -> Result<Open> {
        match part {
            Part::Above => Ok(Open::Above),
            Part::Child(Child::Hash(hash)) => self.node(hash, level, first).map(Open::Node),
            Part::Child(uniform) => Ok(Open::Uniform(uniform)),
        }
    }

    /// Part `i` of what was looked into on `level`.
    pub(super) fn part(&self, open: &Open, level: u8, i: usize) -> Part {
        match open {
            Open::Uniform(child) => Part::Child(*child),
            Open::Node(node) => Part::Child(node.child(i)),
            Open::Above if i == 0 => self.whole(level),
            Open::Above => Part::Child(Child::Hole),
        }
    }

    /// Reads a node that is expected at `level` and `first`.
    pub(super) fn node(&self, hash: Hash, level: u8, first: u64) -> Result<Arc<Node>> {
        if hash == self.root_hash && level == self.height {
            return Ok(self.root.clone());
        }
        let node = self.nodes.node(&hash)?;
        self.check(&node, hash, level, first)?;
        if node.uniform().is_some() {
            return Err(bad_node(
                hash,
                "all its children are of one kind, so it should not be",
            ));
        }
        Ok(node)
    }

    fn check(&self, node: &Node, hash: Hash, level: u8, first: u64) -> Result<()> {
        if node.level() != level {
            let why = format!("it is of level {} where {level} belongs", node.level());
            return Err(bad_node(hash, why));
        }
        let span = span(level);
        if self.clusters.saturating_sub(first) >= span * MANIFEST_FANOUT as u64 {
            return Ok(());
        }
        for (child, first) in node.children().zip((first..).step_by(span as usize)) {
            let past = first >= self.clusters && child != Child::Hole;
            let over = child == Child::Zero && first + span > self.clusters;
            if past || over {
                return Err(bad_node(hash, "it has more clusters than the disk"));
            }
        }
        Ok(())
    }
}

/// Refuses a root that is not of a disk of so many clusters. What is below is believed: reads the nodes at the end alone.
pub fn check_size(nodes: &dyn NodeSource, root: Hash, clusters: u64) -> Result<()> {
    let tree = Tree::open(nodes, root, clusters)?;
    let (mut node, mut first) = (tree.root.clone(), 0);
    let last = clusters.saturating_sub(1);
    for level in (1..=tree.height).rev() {
        let i = (last - first) / span(level);
        let Child::Hash(hash) = node.child(i as usize) else {
            return Ok(());
        };
        first += i * span(level);
        node = tree.node(hash, level - 1, first)?;
    }
    Ok(())
}

/// Clusters of one child of a node of `level`.
pub(super) fn span(level: u8) -> u64 {
    1 << (MANIFEST_FANOUT_BITS * u32::from(level))
}

/// Refuses disks that no tree can be made for.
pub(super) fn check_clusters(clusters: u64) -> Result<()> {
    if clusters <= CLUSTERS_MAX {
        return Ok(());
    }
    Err(Error::invalid(
        "opening a manifest",
        format!("{clusters} clusters are too many"),
    ))
}

fn bad_node(hash: Hash, why: impl Into<String>) -> Error {
    Error::corrupt("reading a manifest", why).at(format!("node {hash}"))
}
