//! Manifests: Merkle trees from cluster number to hole, zero or hash. What two disks share, their trees share, so that
//! walking, comparing and editing cost what differs. See FORMAT.md 8.
//!
//! A disk of n clusters has one tree and so one root hash: what is all hole or all zero has no node of its own (the root
//! has), and past the end are holes. Every node that is read is checked for that.

pub mod build;
pub mod diff;
pub mod edit;
#[cfg(any(test, feature = "testing"))]
pub mod memory;
pub mod nodes;
mod tree;
pub mod walk;

#[cfg(test)]
pub(crate) mod laws;

use crate::error::Result;
use crate::format::manifest::Node;
use crate::id::Hash;
use crate::limits::MANIFEST_LEVELS_MAX;
use std::sync::Arc;

pub use crate::format::manifest::Child;
pub use tree::check_size;

/// Where nodes are read from. Whoever implements it has verified the node against its hash.
pub trait NodeSource: Send + Sync {
    /// The node of that hash.
    fn node(&self, hash: &Hash) -> Result<Arc<Node>>;
}

/// Takes the nodes that come into being, children before parents: the hash and the bytes. Equal nodes at different
/// places come as often as there are places.
pub type NodeSink<'a> = dyn FnMut(Hash, Vec<u8>) -> Result<()> + 'a;

/// Adjacent clusters of one kind. More than one only of holes and zeros.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Run {
    /// The first cluster.
    pub first: u64,
    /// How many.
    pub count: u64,
    /// What they are.
    pub child: Child,
}

/// Level of the root of a disk of so many clusters: the smallest whose node covers them all.
pub fn height(clusters: u64) -> u8 {
    let mut level = 0;
    while level + 1 < MANIFEST_LEVELS_MAX && clusters > tree::span(level + 1) {
        level += 1;
    }
    level
}
