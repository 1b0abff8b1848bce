//! Builds a manifest from clusters in order. Runs of holes and zeros cost the same however long they are.

use crate::error::{Error, Result};
use crate::format::manifest::{Child, NodeDraft};
use crate::id::Hash;
use crate::limits::{MANIFEST_FANOUT, MANIFEST_FANOUT_BITS};
use crate::manifest::tree::{check_clusters, span};
use crate::manifest::{NodeSink, height};

const DOING: &str = "building a manifest";

/// Takes the clusters of a disk in order and gives its nodes to a sink, children before parents.
#[derive(Debug)]
pub struct Builder {
    clusters: u64,
    /// Clusters pushed.
    at: u64,
    /// One a level; all but the last have room.
    drafts: Vec<NodeDraft>,
}

impl Builder {
    /// A builder for a disk of so many clusters; more than 2^52 are refused by the first push.
    pub fn new(clusters: u64) -> Self {
        let drafts = (0..=height(clusters)).map(NodeDraft::new).collect();
        Self {
            clusters,
            at: 0,
            drafts,
        }
    }

    /// Clusters pushed so far.
    pub fn position(&self) -> u64 {
        self.at
    }

    /// Adds `count` clusters; of those with a hash one at a time.
    pub fn push(&mut self, child: Child, count: u64, sink: &mut NodeSink<'_>) -> Result<()> {
        check_clusters(self.clusters)?;
        if !child.is_uniform() && count != 1 {
            return Err(Error::invalid(DOING, "a run of clusters with one hash"));
        }
        if count > self.clusters - self.at {
            let why = format!("{count} clusters at {} of {}", self.at, self.clusters);
            return Err(Error::invalid(DOING, why));
        }
        self.fill(child, count, sink)
    }

    /// Ends the disk, which must be complete; returns the root.
    pub fn finish(mut self, sink: &mut NodeSink<'_>) -> Result<Hash> {
        check_clusters(self.clusters)?;
        if self.at != self.clusters {
            let why = format!(
                "{} clusters of {} are missing",
                self.clusters - self.at,
                self.clusters
            );
            return Err(Error::invalid(DOING, why));
        }
        let top = self.drafts.len() - 1;
        let past = span(top as u8) * MANIFEST_FANOUT as u64 - self.clusters;
        self.fill(Child::Hole, past, sink)?;
        let bytes = self.drafts[top].take().encode();
        let root = Hash::of(&bytes);
        sink(root, bytes)?;
        Ok(root)
    }

    fn fill(&mut self, child: Child, mut count: u64, sink: &mut NodeSink<'_>) -> Result<()> {
        while count > 0 {
            // The highest level on which a child begins here and ends within the run.
            let aligned = self.at.trailing_zeros() / MANIFEST_FANOUT_BITS;
            let fits = count.ilog2() / MANIFEST_FANOUT_BITS;
            let level = aligned.min(fits).min(self.drafts.len() as u32 - 1) as usize;
            let draft = &mut self.drafts[level];
            let room = (MANIFEST_FANOUT - draft.len()) as u64;
            let children = room.min(count / span(level as u8));
            draft.push(child, children as usize);
            self.at += children * span(level as u8);
            count -= children * span(level as u8);
            self.carry(level, sink)?;
        }
        Ok(())
    }

    /// Full nodes become children of the level above; the root waits for `finish`.
    fn carry(&mut self, mut level: usize, sink: &mut NodeSink<'_>) -> Result<()> {
        while level + 1 < self.drafts.len() && self.drafts[level].is_full() {
            let child = stored(&mut self.drafts[level], sink)?;
            level += 1;
            self.drafts[level].push(child, 1);
        }
        Ok(())
    }
}

/// What a full draft is to its parent; gives the node to the sink if it needs one.
fn stored(draft: &mut NodeDraft, sink: &mut NodeSink<'_>) -> Result<Child> {
    let node = draft.take();
    if let Some(child) = node.uniform() {
        return Ok(child);
    }
    let bytes = node.encode();
    let hash = Hash::of(&bytes);
    sink(hash, bytes)?;
    Ok(Child::Hash(hash))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::manifest::Run;
    use crate::manifest::laws::{build, hash};
    use crate::manifest::memory::MemoryNodes;
    use crate::manifest::walk::{Piece, Walker};

    #[test]
    fn heights_grow_where_the_format_says() {
        let wanted = [
            (0, 0),
            (1, 0),
            (16, 0),
            (17, 1),
            (256, 1),
            (257, 2),
            (65536, 3),
            (65537, 4),
            (1 << 51, 12),
        ];
        for (clusters, level) in wanted {
            assert_eq!(height(clusters), level, "{clusters}");
        }
        assert_eq!(height(u64::MAX), 12);
    }

    #[test]
    fn an_empty_disk_has_a_root_of_holes() {
        let nodes = MemoryNodes::default();
        let root = build(&nodes, 0, &[]);
        assert_eq!(nodes.len(), 1);
        assert_eq!(Walker::new(&nodes, root, 0).unwrap().count(), 0);
    }

    #[test]
    fn the_largest_sparse_disks_need_a_few_nodes() {
        // 1 TiB and 8 EiB of 4 KiB clusters.
        for clusters in [1u64 << 28, 1 << 51, (1 << 51) - 1, 1 << 52] {
            for child in [Child::Hole, Child::Zero] {
                let nodes = MemoryNodes::default();
                let root = build(
                    &nodes,
                    clusters,
                    &[Run {
                        first: 0,
                        count: clusters,
                        child,
                    }],
                );
                assert!(nodes.len() <= 13);
                let mut told = 0;
                for piece in Walker::new(&nodes, root, clusters).unwrap() {
                    match piece.unwrap() {
                        Piece::Uniform {
                            first,
                            count,
                            child: found,
                        } => {
                            assert_eq!((first, found), (told, child));
                            told += count;
                        }
                        Piece::Leaf { first, node, count } => {
                            assert_eq!(first, told);
                            assert!((0..count).all(|i| node.child(i as usize) == child));
                            told += count;
                        }
                    }
                }
                assert_eq!(told, clusters);
            }
        }
    }

    #[test]
    fn one_cluster_in_a_huge_disk_costs_its_path() {
        let (clusters, at) = (1u64 << 51, 0x5_5555_5555_5555);
        let nodes = MemoryNodes::default();
        let root = build(
            &nodes,
            clusters,
            &[Run {
                first: at,
                count: 1,
                child: hash(1),
            }],
        );
        assert_eq!(nodes.len(), 13);
        let mut walker = Walker::new(&nodes, root, clusters).unwrap();
        assert_eq!(walker.lookup(at).unwrap(), hash(1));
        assert_eq!(walker.lookup(at + 1).unwrap(), Child::Hole);
    }

    #[test]
    fn wrong_counts_are_refused() {
        let mut sink = |_, _| Ok(());
        let mut builder = Builder::new(300);
        assert!(builder.push(hash(1), 2, &mut sink).is_err());
        assert!(builder.push(Child::Hole, 301, &mut sink).is_err());
        builder.push(Child::Hole, 299, &mut sink).unwrap();
        assert!(builder.push(Child::Zero, 2, &mut sink).is_err());
        assert_eq!(builder.position(), 299);
        assert!(builder.finish(&mut sink).is_err());
        assert!(
            Builder::new(u64::MAX)
                .push(Child::Hole, 1, &mut sink)
                .is_err()
        );
    }

    #[test]
    fn children_come_before_their_parents_and_an_error_of_the_sink_gets_out() {
        let nodes = MemoryNodes::default();
        let mut builder = Builder::new(70_000);
        let mut sink = |hash, bytes: Vec<u8>| {
            let node = crate::format::manifest::Node::decode(&bytes)?;
            if node.level() > 0 {
                node.hashes()
                    .iter()
                    .for_each(|h| assert!(nodes.remove(h), "once"));
            }
            nodes.insert(hash, &bytes)
        };
        for n in 0..70_000 {
            builder.push(hash(n), 1, &mut sink).unwrap();
        }
        builder.finish(&mut sink).unwrap();
        assert_eq!(nodes.len(), 1, "only the root has no parent");

        let mut full = |_, _| Err(Error::new(crate::ErrorKind::NoSpace, "putting"));
        let builder = Builder::new(0);
        assert_eq!(
            builder.finish(&mut full).unwrap_err().kind(),
            crate::ErrorKind::NoSpace
        );
    }
}
