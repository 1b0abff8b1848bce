//! The nodes of the parents that an operation relies on. What was read of them need not be stored again, nor its pack
//! named.

use crate::error::Result;
use crate::format::manifest::Node;
use crate::id::Hash;
use crate::manifest::NodeSource;
use std::collections::HashSet;
use std::sync::{Arc, Mutex, PoisonError};

/// Hashes in each of the two halves of the memory: what was read last is emitted again next, so a few megabytes do.
const HALF: usize = 1 << 15;

/// Reads nodes and remembers which, the latest at least.
///
/// INVARIANT: it is asked only for nodes below roots that the writer relies on. The entry that the writer commits is valid
/// only while those roots are reachable, and what is below a reachable root is live: so such a node, read and verified
/// here, is stored as far as that entry is concerned, in whichever pack.
pub struct ParentNodes<'a> {
    nodes: Arc<dyn NodeSource + 'a>,
    read: Mutex<Halves>,
}

#[derive(Default)]
struct Halves {
    new: HashSet<Hash>,
    old: HashSet<Hash>,
}

impl<'a> ParentNodes<'a> {
    /// Nothing read yet.
    pub fn new(nodes: Arc<dyn NodeSource + 'a>) -> Self {
        let read = Mutex::default();
        Self { nodes, read }
    }

    /// True of a node that was read lately. One that was forgotten is looked up like all others.
    pub fn has_read(&self, hash: &Hash) -> bool {
        let read = self.read.lock().unwrap_or_else(PoisonError::into_inner);
        read.new.contains(hash) || read.old.contains(hash)
    }

    /// Nothing is relied on any more.
    pub fn forget(&self) {
        *self.read.lock().unwrap_or_else(PoisonError::into_inner) = Halves::default();
    }
}

impl NodeSource for ParentNodes<'_> {
    fn node(&self, hash: &Hash) -> Result<Arc<Node>> {
        let node = self.nodes.node(hash)?;
        let mut read = self.read.lock().unwrap_or_else(PoisonError::into_inner);
        if read.new.len() == HALF {
            read.old = std::mem::take(&mut read.new);
        }
        read.new.insert(*hash);
        Ok(node)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::manifest::laws::{build, hash};
    use crate::manifest::memory::MemoryNodes;
    use crate::manifest::walk::Walker;
    use crate::manifest::{Child, Run};

    fn leaves(nodes: &MemoryNodes, count: u64) -> Hash {
        let runs: Vec<Run> = (0..count)
            .map(|n| Run {
                first: n * 16,
                count: 1,
                child: hash(n),
            })
            .collect();
        build(nodes, count * 16, &runs)
    }

    #[test]
    fn what_was_read_of_a_parent_is_remembered_until_nothing_is_relied_on() {
        let nodes = Arc::new(MemoryNodes::default());
        let root = leaves(&nodes, 2);
        let Child::Hash(second) = nodes.node(&root).unwrap().child(1) else {
            panic!()
        };
        let parents = ParentNodes::new(nodes);
        assert!(!parents.has_read(&root));
        let mut walker = Walker::new(&parents, root, 32).unwrap();
        assert!(walker.next().unwrap().is_ok());
        assert!(parents.has_read(&root));
        assert!(!parents.has_read(&second), "it was not read yet");
        assert!(walker.next().unwrap().is_ok());
        assert!(parents.has_read(&second));
        parents.forget();
        assert!(!parents.has_read(&root) && !parents.has_read(&second));
    }

    #[test]
    fn a_node_that_cannot_be_read_is_not_remembered() {
        let parents = ParentNodes::new(Arc::new(MemoryNodes::default()));
        assert!(parents.node(&Hash([1; 32])).is_err());
        assert!(!parents.has_read(&Hash([1; 32])));
    }

    #[test]
    fn a_long_walk_forgets_its_beginning_and_keeps_its_end() {
        let nodes = Arc::new(MemoryNodes::default());
        let count = 3 * HALF as u64;
        let root = leaves(&nodes, count);
        let parents = ParentNodes::new(nodes);
        let walker = Walker::new(&parents, root, count * 16).unwrap();
        assert!(walker.flatten().count() > 2 * HALF);
        let kept = parents.read.lock().unwrap();
        assert!(kept.new.len() <= HALF && kept.old.len() == HALF);
        assert!(!kept.new.contains(&root) && !kept.old.contains(&root));
    }
}
