//! Nodes in memory, for tests.

use crate::error::{Error, ErrorKind, Result};
use crate::format::manifest::Node;
use crate::id::Hash;
use crate::manifest::NodeSource;
use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

/// Nodes by their hashes.
#[derive(Debug, Default)]
pub struct MemoryNodes {
    nodes: Mutex<HashMap<Hash, Arc<Node>>>,
    reads: AtomicU64,
}

impl MemoryNodes {
    /// Adds a node; fit to be a sink. Refuses what is no node or not of that hash.
    pub fn insert(&self, hash: Hash, bytes: &[u8]) -> Result<()> {
        if Hash::of(bytes) != hash {
            return Err(Error::invalid("adding a node", "its hash is another"));
        }
        let node = Arc::new(Node::decode(bytes)?);
        self.nodes
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(hash, node);
        Ok(())
    }

    /// Forgets a node; true if it was there.
    pub fn remove(&self, hash: &Hash) -> bool {
        self.nodes
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .remove(hash)
            .is_some()
    }

    /// How many nodes there are.
    pub fn len(&self) -> usize {
        self.nodes
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .len()
    }

    /// True without a node.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// How many nodes were asked for so far.
    pub fn reads(&self) -> u64 {
        self.reads.load(Ordering::Relaxed)
    }
}

impl NodeSource for MemoryNodes {
    fn node(&self, hash: &Hash) -> Result<Arc<Node>> {
        self.reads.fetch_add(1, Ordering::Relaxed);
        let nodes = self.nodes.lock().unwrap_or_else(PoisonError::into_inner);
        let missing = || Error::new(ErrorKind::Corrupt, "reading a manifest node");
        nodes
            .get(hash)
            .cloned()
            .ok_or_else(|| missing().detail(format!("{hash} is missing")))
    }
}
