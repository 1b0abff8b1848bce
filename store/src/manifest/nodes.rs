//! Every node below a root once, for gc: what was visited for one root is not visited again for the next.

use crate::error::{Error, Result};
use crate::format::manifest::Node;
use crate::id::Hash;
use crate::manifest::NodeSource;
use std::collections::HashSet;
use std::hash::BuildHasher;

/// Calls `f` for each node below and with `root` that is not in `visited`, parents before children, and adds it.
pub fn each_node<S: BuildHasher>(
    nodes: &dyn NodeSource,
    root: Hash,
    visited: &mut HashSet<Hash, S>,
    f: &mut dyn FnMut(&Hash, &Node) -> Result<()>,
) -> Result<()> {
    each_readable_node(nodes, root, visited, f, &mut |_, e| Err(e))
}

/// The same, with `lost` called for each node that cannot be read. While it returns `Ok`, the walk goes on beside it.
pub fn each_readable_node<S: BuildHasher>(
    nodes: &dyn NodeSource,
    root: Hash,
    visited: &mut HashSet<Hash, S>,
    f: &mut dyn FnMut(&Hash, &Node) -> Result<()>,
    lost: Lost<'_>,
) -> Result<()> {
    if visited.contains(&root) {
        return Ok(());
    }
    match nodes.node(&root) {
        Ok(node) => visit(nodes, root, &node, visited, f, lost),
        Err(e) => lost(&root, e),
    }
}

/// Told of a node that cannot be read, and why.
pub type Lost<'a> = &'a mut dyn FnMut(&Hash, Error) -> Result<()>;

/// Recursion ends with the levels, each of which is one below its parent's.
fn visit<S: BuildHasher>(
    nodes: &dyn NodeSource,
    hash: Hash,
    node: &Node,
    visited: &mut HashSet<Hash, S>,
    f: &mut dyn FnMut(&Hash, &Node) -> Result<()>,
    lost: Lost<'_>,
) -> Result<()> {
    // Only after all below it was visited may others rely on it.
    f(&hash, node)?;
    if let Some(level) = node.level().checked_sub(1) {
        for child in node.hashes() {
            if visited.contains(child) {
                continue;
            }
            let below = match nodes.node(child) {
                Ok(below) => below,
                Err(e) => {
                    lost(child, e)?;
                    continue;
                }
            };
            if below.level() != level {
                let why = format!("it is of level {} where {level} belongs", below.level());
                let doing = "reading a manifest";
                lost(
                    child,
                    Error::corrupt(doing, why).at(format!("node {child}")),
                )?;
                continue;
            }
            visit(nodes, *child, &below, visited, f, lost)?;
        }
    }
    visited.insert(hash);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::manifest::{Child, NodeDraft};
    use crate::manifest::Run;
    use crate::manifest::laws::{build, hash};
    use crate::manifest::memory::MemoryNodes;

    #[test]
    fn shared_nodes_are_visited_once_over_all_roots() {
        let nodes = MemoryNodes::default();
        let run = |first, n| Run {
            first,
            count: 1,
            child: hash(n),
        };
        let roots = [
            build(&nodes, 100_000, &[run(0, 1), run(70_000, 2)]),
            build(&nodes, 100_000, &[run(0, 1), run(70_000, 3)]),
            build(&nodes, 100_000, &[run(0, 1), run(70_000, 2)]),
        ];
        let (mut visited, mut told) = (HashSet::new(), Vec::new());
        for root in roots {
            each_node(&nodes, root, &mut visited, &mut |hash, node| {
                assert_eq!(Hash::of(&node.encode()), *hash);
                told.push(*hash);
                Ok(())
            })
            .unwrap();
        }
        assert_eq!((told.len(), visited.len(), nodes.len()), (14, 14, 14));
        assert!(told.iter().all(|hash| visited.contains(hash)));
    }

    #[test]
    fn a_node_is_not_visited_before_all_below_it_is() {
        let nodes = MemoryNodes::default();
        let root = build(
            &nodes,
            100_000,
            &[Run {
                first: 70_000,
                count: 1,
                child: hash(1),
            }],
        );
        let Child::Hash(below) = nodes.node(&root).unwrap().child(1) else {
            panic!()
        };
        nodes.remove(&below);
        let mut visited = HashSet::new();
        assert!(each_node(&nodes, root, &mut visited, &mut |_, _| Ok(())).is_err());
        assert!(visited.is_empty(), "a second try must fail too");
    }

    #[test]
    fn a_node_of_the_wrong_level_ends_the_visit() {
        let nodes = MemoryNodes::default();
        let leaf = build(
            &nodes,
            5,
            &[Run {
                first: 0,
                count: 1,
                child: hash(1),
            }],
        );
        let mut draft = NodeDraft::new(2);
        draft.push(Child::Hash(leaf), 1);
        let bytes = draft.take().encode();
        let root = Hash::of(&bytes);
        nodes.insert(root, &bytes).unwrap();
        let error = each_node(&nodes, root, &mut HashSet::new(), &mut |_, _| Ok(())).unwrap_err();
        assert_eq!(error.kind(), crate::ErrorKind::Corrupt);
    }
}
