//! Walks a disk's clusters in order, or looks single ones up. Holds one path of nodes, however large the disk.

use crate::error::{Error, Result};
use crate::format::manifest::{Child, Node};
use crate::id::Hash;
use crate::limits::MANIFEST_FANOUT;
use crate::manifest::NodeSource;
use crate::manifest::tree::{Tree, span};
use std::sync::Arc;

/// What the walk gives.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Piece {
    /// Clusters that are all holes or all zeros. The next piece may go on with the same.
    Uniform {
        /// The first.
        first: u64,
        /// How many.
        count: u64,
        /// `Hole` or `Zero`.
        child: Child,
    },
    /// Up to 16 clusters of several kinds: child `i` of the node is cluster `first + i`.
    Leaf {
        /// Cluster of child 0.
        first: u64,
        /// The node.
        node: Arc<Node>,
        /// Clusters in it; fewer than 16 only at the end of the disk.
        count: u64,
    },
}

impl Piece {
    /// One past its last cluster.
    pub fn end(&self) -> u64 {
        match self {
            Self::Uniform { first, count, .. } | Self::Leaf { first, count, .. } => first + count,
        }
    }
}

/// The walk, an iterator. After an error it goes on behind what could not be read; `position` tells where.
pub struct Walker<'a> {
    tree: Tree<'a>,
    /// From the root down; each node with its first cluster. Never empty.
    path: Vec<(Arc<Node>, u64)>,
    at: u64,
}

impl<'a> Walker<'a> {
    /// Begins at cluster 0.
    pub fn new(nodes: &'a dyn NodeSource, root: Hash, clusters: u64) -> Result<Self> {
        let tree = Tree::open(nodes, root, clusters)?;
        let path = vec![(tree.root.clone(), 0)];
        Ok(Self { tree, path, at: 0 })
    }

    /// The cluster that the next piece begins with or, after `seek` into a leaf, holds.
    pub fn position(&self) -> u64 {
        self.at
    }

    /// Goes on with this cluster. A leaf is given whole, also where the cluster is in its middle.
    pub fn seek(&mut self, cluster: u64) {
        self.at = cluster.min(self.tree.clusters);
    }

    /// What a cluster is; nearby ones are found without reading again. The walk is not moved.
    pub fn lookup(&mut self, cluster: u64) -> Result<Child> {
        if cluster >= self.tree.clusters {
            let why = format!("cluster {cluster} of a disk of {}", self.tree.clusters);
            return Err(Error::invalid("looking a cluster up", why));
        }
        if let Some((_, _, child)) = self.descend(cluster)? {
            Ok(child)
        } else {
            let (node, first) = self.top();
            Ok(node.child((cluster - first) as usize))
        }
    }

    fn top(&self) -> (&Arc<Node>, u64) {
        let (node, first) = self.path.last().expect("the root stays");
        (node, *first)
    }

    /// Makes the path lead to `cluster`: to a leaf, or to the node with a uniform child there, which is returned with its
    /// place in the node and its kind.
    fn descend(&mut self, cluster: u64) -> Result<Option<(usize, u64, Child)>> {
        while self.path.len() > 1 {
            let (node, first) = self.top();
            if cluster >= first && cluster - first < span(node.level() + 1) {
                break;
            }
            self.path.pop();
        }
        loop {
            let (node, first) = self.top();
            let level = node.level();
            if level == 0 {
                return Ok(None);
            }
            let i = ((cluster - first) / span(level)) as usize;
            let child_first = first + i as u64 * span(level);
            match node.child(i) {
                Child::Hash(hash) => {
                    let child = self.tree.node(hash, level - 1, child_first)?;
                    self.path.push((child, child_first));
                }
                uniform => return Ok(Some((i, child_first, uniform))),
            }
        }
    }

    fn leaf(&mut self) -> Piece {
        let clusters = self.tree.clusters;
        let (node, first) = self.top();
        let (node, count) = (node.clone(), (clusters - first).min(MANIFEST_FANOUT as u64));
        if let Some(child) = node.uniform() {
            let (first, end) = (self.at, first + count);
            self.at = end;
            return Piece::Uniform {
                first,
                count: end - first,
                child,
            };
        }
        self.at = first + count;
        Piece::Leaf { first, node, count }
    }

    /// A uniform child and those like it that follow in the same node.
    fn uniform(&mut self, i: usize, child_first: u64, child: Child) -> Piece {
        let (node, _) = self.top();
        let alike = (i..MANIFEST_FANOUT)
            .take_while(|i| node.child(*i) == child)
            .count() as u64;
        let end = (child_first + alike * span(node.level())).min(self.tree.clusters);
        let first = self.at;
        self.at = end;
        Piece::Uniform {
            first,
            count: end - first,
            child,
        }
    }

    /// Where the child ends that could not be read: one of the last node on the path.
    fn skip(&mut self) {
        let (node, first) = self.top();
        let span = span(node.level());
        let end = first + ((self.at - first) / span + 1) * span;
        self.at = end.min(self.tree.clusters);
    }
}

impl Iterator for Walker<'_> {
    type Item = Result<Piece>;

    fn next(&mut self) -> Option<Result<Piece>> {
        if self.at >= self.tree.clusters {
            return None;
        }
        match self.descend(self.at) {
            Ok(None) => Some(Ok(self.leaf())),
            Ok(Some((i, first, child))) => Some(Ok(self.uniform(i, first, child))),
            Err(error) => {
                self.skip();
                Some(Err(error))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::ErrorKind;
    use crate::format::manifest::NodeDraft;
    use crate::manifest::Run;
    use crate::manifest::laws::{build, hash};
    use crate::manifest::memory::MemoryNodes;

    fn put(nodes: &MemoryNodes, level: u8, children: &[(Child, usize)]) -> Hash {
        let mut draft = NodeDraft::new(level);
        for (child, count) in children {
            draft.push(*child, *count);
        }
        let bytes = draft.take().encode();
        nodes.insert(Hash::of(&bytes), &bytes).unwrap();
        Hash::of(&bytes)
    }

    fn first_error(nodes: &MemoryNodes, root: Hash, clusters: u64) -> Option<Error> {
        match Walker::new(nodes, root, clusters) {
            Err(error) => Some(error),
            Ok(mut walker) => walker.find_map(Result::err),
        }
    }

    #[test]
    fn a_walk_may_begin_anywhere_and_go_back() {
        let nodes = MemoryNodes::default();
        let runs = [Run {
            first: 70_000,
            count: 1,
            child: hash(1),
        }];
        let root = build(&nodes, 200_000, &runs);
        let mut walker = Walker::new(&nodes, root, 200_000).unwrap();
        walker.seek(70_001);
        let leaf = |piece: Option<Result<Piece>>| match piece {
            Some(Ok(Piece::Leaf { first, count, .. })) => (first, count),
            other => panic!("{other:?}"),
        };
        assert_eq!(leaf(walker.next()), (70_000, 16));
        walker.seek(10);
        let wanted = Piece::Uniform {
            first: 10,
            count: 65_526,
            child: Child::Hole,
        };
        assert_eq!(walker.next().unwrap().unwrap(), wanted);
        walker.seek(199_999);
        let wanted = Piece::Uniform {
            first: 199_999,
            count: 1,
            child: Child::Hole,
        };
        assert_eq!(walker.next().unwrap().unwrap(), wanted);
        assert!(walker.next().is_none());
        walker.seek(u64::MAX);
        assert!(walker.next().is_none());
        assert_eq!(
            walker.lookup(200_000).unwrap_err().kind(),
            ErrorKind::InvalidInput
        );
    }

    #[test]
    fn neighbours_are_looked_up_without_reading_again() {
        let nodes = MemoryNodes::default();
        let runs = [(5, 1), (6, 2)].map(|(first, n)| Run {
            first,
            count: 1,
            child: hash(n),
        });
        let root = build(&nodes, 100_000, &runs);
        let mut walker = Walker::new(&nodes, root, 100_000).unwrap();
        assert_eq!(walker.lookup(5).unwrap(), hash(1));
        let reads = nodes.reads();
        assert_eq!(walker.lookup(6).unwrap(), hash(2));
        assert_eq!(walker.lookup(15).unwrap(), Child::Hole);
        assert_eq!(nodes.reads(), reads);
    }

    #[test]
    fn after_a_missing_node_the_walk_goes_on_behind_it() {
        let nodes = MemoryNodes::default();
        let runs: Vec<Run> = (0..4)
            .map(|n| Run {
                first: n * 16,
                count: 1,
                child: hash(n),
            })
            .collect();
        let root = build(&nodes, 100, &runs);
        let Child::Hash(second) = nodes.node(&root).unwrap().child(1) else {
            panic!()
        };
        nodes.remove(&second);
        let mut walker = Walker::new(&nodes, root, 100).unwrap();
        assert!(walker.next().unwrap().is_ok());
        assert_eq!(walker.position(), 16);
        assert_eq!(
            walker.next().unwrap().unwrap_err().kind(),
            ErrorKind::Corrupt
        );
        assert_eq!(walker.position(), 32);
        assert_eq!(walker.by_ref().flatten().count(), 3);
    }

    #[test]
    fn a_tree_that_is_not_the_disks_is_corrupt() {
        let nodes = MemoryNodes::default();
        let leaf = put(&nodes, 0, &[(hash(1), 1)]);
        let holes = put(&nodes, 0, &[]);
        let over = put(&nodes, 0, &[(hash(1), 1), (Child::Zero, 15)]);
        let nested = put(&nodes, 1, &[(Child::Hash(leaf), 1)]);
        let cases = [
            ("a root of another level", leaf, 100),
            ("a root of another level", nested, 10),
            (
                "a child of another level",
                put(&nodes, 2, &[(Child::Hash(leaf), 1)]),
                1000,
            ),
            (
                "a node of itself",
                put(&nodes, 1, &[(Child::Hash(nested), 1)]),
                100,
            ),
            (
                "a uniform child",
                put(&nodes, 1, &[(Child::Hash(holes), 1)]),
                100,
            ),
            ("clusters past the end", over, 15),
            (
                "zeros past the end",
                put(&nodes, 1, &[(Child::Zero, 2)]),
                20,
            ),
            (
                "nodes past the end",
                put(&nodes, 1, &[(Child::Hole, 2), (Child::Hash(leaf), 1)]),
                32,
            ),
            ("a missing root", Hash([7; 32]), 10),
        ];
        for (what, root, clusters) in cases {
            let error = first_error(&nodes, root, clusters).expect(what);
            assert_eq!(error.kind(), ErrorKind::Corrupt, "{what}");
        }
        assert!(first_error(&nodes, over, 16).is_none());
        assert!(first_error(&nodes, holes, 0).is_none());
        let error = first_error(&nodes, holes, u64::MAX).unwrap();
        assert_eq!(error.kind(), ErrorKind::InvalidInput);
    }
}
