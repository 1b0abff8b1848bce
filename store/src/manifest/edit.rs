//! Changes a manifest: makes new nodes only on the paths that change. The result is the tree that building the changed
//! disk from scratch gives.

use crate::error::{Error, Result};
use crate::format::manifest::{Child, NodeDraft};
use crate::id::Hash;
use crate::limits::MANIFEST_FANOUT;
use crate::manifest::tree::{Open, Part, Tree, check_clusters, span};
use crate::manifest::{NodeSink, NodeSource, Run, height};

const DOING: &str = "editing a manifest";

/// Applies `changes`, which are in order, do not overlap and lie within the new size. What a disk grows by is holes
/// unless a change says otherwise. Returns the new root; the sink gets the nodes that are new, children before parents.
pub fn edit(
    nodes: &dyn NodeSource,
    root: Hash,
    clusters_old: u64,
    clusters_new: u64,
    changes: impl Iterator<Item = Run>,
    sink: &mut NodeSink<'_>,
) -> Result<Hash> {
    check_clusters(clusters_new)?;
    let tree = Tree::open(nodes, root, clusters_old)?;
    let level = height(clusters_new) + 1;
    let whole = first_part(&tree, level)?;
    // What is left of the old tree past the new end becomes holes.
    let past = Run {
        first: clusters_new,
        count: span(level) - clusters_new,
        child: Child::Hole,
    };
    let past = (clusters_new < clusters_old && past.count > 0).then_some(past);
    let changes = Changes::new(changes, clusters_new, past)?;
    let mut editor = Editor {
        tree: &tree,
        changes,
        sink,
    };
    match editor.child(level, 0, whole)? {
        Child::Hash(root) => Ok(root),
        uniform => root_of(uniform, level - 1, root, sink),
    }
}

/// The old tree as one child of a node of `level`; of a higher tree, its first part of that size.
fn first_part(tree: &Tree<'_>, level: u8) -> Result<Part> {
    let mut above = level.max(tree.height + 1);
    let mut part = tree.whole(above);
    while above > level {
        above -= 1;
        let open = tree.look(part, above, 0)?;
        part = tree.part(&open, above, 0);
    }
    Ok(part)
}

/// The root of a disk that is all holes or all zeros.
fn root_of(uniform: Child, level: u8, old: Hash, sink: &mut NodeSink<'_>) -> Result<Hash> {
    let mut draft = NodeDraft::new(level);
    draft.push(uniform, MANIFEST_FANOUT);
    let bytes = draft.take().encode();
    let root = Hash::of(&bytes);
    if root != old {
        sink(root, bytes)?;
    }
    Ok(root)
}

/// The changes still to be made, each checked before it is used.
struct Changes<I> {
    source: I,
    /// What is left of the change at hand.
    next: Option<Run>,
    /// Where the change at hand ends, and the next may begin.
    end: u64,
    clusters: u64,
    /// Comes after all others.
    last: Option<Run>,
}

impl<I: Iterator<Item = Run>> Changes<I> {
    fn new(source: I, clusters: u64, last: Option<Run>) -> Result<Self> {
        let mut changes = Self {
            source,
            next: None,
            end: 0,
            clusters,
            last,
        };
        changes.load()?;
        Ok(changes)
    }

    fn load(&mut self) -> Result<()> {
        self.next = match self.source.find(|run| run.count > 0) {
            None => self.last.take(),
            Some(run) => {
                let fits = run.count <= self.clusters && run.first <= self.clusters - run.count;
                if !fits || run.first < self.end || (run.count > 1 && !run.child.is_uniform()) {
                    let Run { first, count, .. } = run;
                    let why = format!("{count} clusters at {first} of {}", self.clusters);
                    return Err(Error::invalid(DOING, format!("a change cannot be: {why}")));
                }
                self.end = run.first + run.count;
                Some(run)
            }
        };
        Ok(())
    }

    /// The change that begins before `end`.
    fn before(&self, end: u64) -> Option<Run> {
        self.next.filter(|run| run.first < end)
    }

    /// The change at hand is made up to `end`.
    fn made(&mut self, run: Run, end: u64) -> Result<()> {
        let count = run.first + run.count - end;
        if count == 0 {
            return self.load();
        }
        self.next = Some(Run {
            first: end,
            count,
            child: run.child,
        });
        Ok(())
    }
}

struct Editor<'a, 't, 's, I> {
    tree: &'a Tree<'t>,
    changes: Changes<I>,
    sink: &'a mut NodeSink<'s>,
}

impl<I: Iterator<Item = Run>> Editor<'_, '_, '_, I> {
    /// What a child of a node of `level` becomes. Recursion ends with the levels.
    fn child(&mut self, level: u8, first: u64, part: Part) -> Result<Child> {
        let end = first + span(level);
        match (self.changes.before(end), part) {
            (None, Part::Child(child)) => return Ok(child),
            (Some(run), _) if run.first == first && run.first + run.count >= end => {
                self.changes.made(run, end)?;
                return Ok(run.child);
            }
            // On level 0 one of the above holds: a change that begins before the end of a cluster covers it.
            _ => {}
        }
        let below = level - 1;
        let open = self.tree.look(part, below, first)?;
        let mut draft = NodeDraft::new(below);
        for (i, first) in (0..MANIFEST_FANOUT).zip((first..).step_by(span(below) as usize)) {
            let part = self.tree.part(&open, below, i);
            draft.push(self.child(below, first, part)?, 1);
        }
        let node = draft.take();
        if let Some(uniform) = node.uniform() {
            return Ok(uniform);
        }
        if let (Open::Node(old), Part::Child(child)) = (&open, part)
            && **old == node
        {
            return Ok(child);
        }
        let bytes = node.encode();
        let hash = Hash::of(&bytes);
        (self.sink)(hash, bytes)?;
        Ok(Child::Hash(hash))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::manifest::laws::{build, hash};
    use crate::manifest::memory::MemoryNodes;

    fn edited(
        nodes: &MemoryNodes,
        root: Hash,
        clusters: (u64, u64),
        changes: &[Run],
    ) -> Result<(Hash, usize)> {
        let mut new = 0;
        let root = edit(
            nodes,
            root,
            clusters.0,
            clusters.1,
            changes.iter().copied(),
            &mut |hash, bytes| {
                new += 1;
                nodes.insert(hash, &bytes)
            },
        )?;
        Ok((root, new))
    }

    #[test]
    fn one_changed_cluster_of_a_huge_disk_costs_its_path() {
        let nodes = MemoryNodes::default();
        let run = |first, n| Run {
            first,
            count: 1,
            child: hash(n),
        };
        let size = 1 << 51;
        let root = build(&nodes, size, &[run(7, 1), run(1 << 50, 2)]);
        let reads = nodes.reads();
        let (changed, new) = edited(&nodes, root, (size, size), &[run(1 << 50, 3)]).unwrap();
        assert_eq!(changed, build(&nodes, size, &[run(7, 1), run(1 << 50, 3)]));
        assert_eq!((new, nodes.reads() - reads), (13, 13));
    }

    #[test]
    fn what_changes_nothing_makes_no_node() {
        let nodes = MemoryNodes::default();
        let run = Run {
            first: 300,
            count: 1,
            child: hash(1),
        };
        let zeros = Run {
            first: 0,
            count: 16,
            child: Child::Zero,
        };
        for (size, runs) in [(1000, &[zeros, run][..]), (1000, &[]), (16, &[zeros])] {
            let root = build(&nodes, size, runs);
            for again in [
                runs,
                &[],
                &[Run {
                    first: 5,
                    count: 0,
                    child: hash(1),
                }],
            ] {
                assert_eq!(
                    edited(&nodes, root, (size, size), again).unwrap(),
                    (root, 0)
                );
            }
        }
    }

    #[test]
    fn a_grown_disk_keeps_its_old_tree_as_its_first_part() {
        let nodes = MemoryNodes::default();
        let runs = [Run {
            first: 9,
            count: 1,
            child: hash(9),
        }];
        let small = build(&nodes, 10, &runs);
        let (grown, new) = edited(&nodes, small, (10, 1 << 40), &[]).unwrap();
        assert_eq!((grown, new), (build(&nodes, 1 << 40, &runs), 9));
        assert_eq!(
            edited(&nodes, grown, (1 << 40, 10), &[]).unwrap(),
            (small, 0)
        );
    }

    #[test]
    fn changes_that_cannot_be_are_refused() {
        let nodes = MemoryNodes::default();
        let root = build(&nodes, 1000, &[]);
        let run = |first, count, child| Run {
            first,
            count,
            child,
        };
        let cases = [
            vec![run(1000, 1, Child::Zero)],
            vec![run(999, 2, Child::Zero)],
            vec![run(u64::MAX, 2, Child::Zero)],
            vec![run(1, u64::MAX, Child::Zero)],
            vec![run(5, 2, hash(1))],
            vec![run(5, 2, Child::Zero), run(6, 1, Child::Hole)],
            vec![run(5, 1, Child::Zero), run(4, 1, Child::Hole)],
            vec![run(5, 1, Child::Zero), run(5, 1, Child::Zero)],
        ];
        for changes in cases {
            let error = edited(&nodes, root, (1000, 1000), &changes).unwrap_err();
            assert_eq!(error.kind(), crate::ErrorKind::InvalidInput, "{changes:?}");
        }
        assert!(edited(&nodes, root, (1000, 500), &[run(600, 1, Child::Zero)]).is_err());
        assert!(edited(&nodes, root, (1000, u64::MAX), &[]).is_err());
    }
}
