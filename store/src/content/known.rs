//! Manifest nodes that were read before, verified and decoded: every read of a disk passes the same few. A hash means one
//! node for ever, so nothing that is kept here gets old.

use crate::catalog::Catalog;
use crate::content::nodes::Nodes;
use crate::error::Result;
use crate::format::manifest::Node;
use crate::id::Hash;
use crate::manifest::NodeSource;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Most nodes in a half: with their map entries 700 bytes each, 17 MiB in both.
const HALF_MAX: usize = 12 << 10;

/// See the module. All calls may come from several threads.
pub struct KnownNodes<'a> {
    nodes: Nodes<'a>,
    known: Mutex<Halves>,
}

/// What is not asked for while the younger half fills goes with the older.
#[derive(Default)]
struct Halves {
    young: HashMap<Hash, Arc<Node>>,
    old: HashMap<Hash, Arc<Node>>,
}

impl<'a> KnownNodes<'a> {
    /// Knows none yet.
    pub fn new(nodes: Nodes<'a>) -> Self {
        Self {
            nodes,
            known: Mutex::default(),
        }
    }

    /// See [`Nodes::follow`].
    pub fn follow(&self, catalog: &Catalog) -> Result<()> {
        self.nodes.follow(catalog)
    }

    /// A source of those nodes alone that take no reading; `Busy` for others.
    pub fn in_memory(&self) -> InMemory<'_, 'a> {
        InMemory(self)
    }

    fn or_from(&self, hash: &Hash, source: &dyn NodeSource) -> Result<Arc<Node>> {
        let known = self.lock().get(hash);
        if let Some(node) = known {
            return Ok(node);
        }
        let node = source.node(hash)?;
        self.lock().put(*hash, node.clone());
        Ok(node)
    }

    fn lock(&self) -> MutexGuard<'_, Halves> {
        // Whole after each statement.
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl NodeSource for KnownNodes<'_> {
    fn node(&self, hash: &Hash) -> Result<Arc<Node>> {
        self.or_from(hash, &self.nodes)
    }
}

/// See [`KnownNodes::in_memory`].
pub struct InMemory<'n, 'a>(&'n KnownNodes<'a>);

impl NodeSource for InMemory<'_, '_> {
    fn node(&self, hash: &Hash) -> Result<Arc<Node>> {
        self.0.or_from(hash, &self.0.nodes.in_memory())
    }
}

impl Halves {
    fn get(&mut self, hash: &Hash) -> Option<Arc<Node>> {
        if let Some(node) = self.young.get(hash) {
            return Some(node.clone());
        }
        let node = self.old.remove(hash)?;
        self.put(*hash, node.clone());
        Some(node)
    }

    fn put(&mut self, hash: Hash, node: Arc<Node>) {
        if self.young.len() >= HALF_MAX {
            self.old = std::mem::take(&mut self.young);
        }
        self.young.insert(hash, node);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::manifest::{Child, NodeDraft};

    fn node(n: u64) -> (Hash, Arc<Node>) {
        let hash = Hash::of(&n.to_le_bytes());
        let mut draft = NodeDraft::new(0);
        draft.push(Child::Hash(hash), 1);
        draft.push(Child::Hole, 15);
        let node = draft.take();
        (Hash::of(&node.encode()), Arc::new(node))
    }

    #[test]
    fn what_is_asked_for_again_stays_and_the_rest_goes() {
        let mut halves = Halves::default();
        let (wanted, kept) = node(0);
        halves.put(wanted, kept.clone());
        for n in 1..=5 * HALF_MAX as u64 {
            let (hash, node) = node(n);
            halves.put(hash, node);
            if n % (HALF_MAX as u64 / 2) == 0 {
                assert_eq!(halves.get(&wanted), Some(kept.clone()), "after {n}");
            }
            assert!(halves.young.len() + halves.old.len() <= 2 * HALF_MAX);
        }
        assert_eq!(halves.get(&node(1).0), None);
    }
}
