//! What differs between two disks: reads only nodes that are not shared.

use crate::error::Result;
use crate::format::manifest::Child;
use crate::id::Hash;
use crate::limits::MANIFEST_FANOUT;
use crate::manifest::NodeSource;
use crate::manifest::tree::{Part, Tree, span};
use std::ops::Range;

/// Clusters that differ. More than one only where both sides are uniform.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Change {
    /// The first.
    pub first: u64,
    /// How many.
    pub count: u64,
    /// What they are in the first disk; past its end a hole.
    pub old: Child,
    /// What they are in the second disk; past its end a hole.
    pub new: Child,
}

/// A disk to compare.
#[derive(Clone, Copy)]
pub struct Side<'a> {
    /// Where its nodes are.
    pub nodes: &'a dyn NodeSource,
    /// Its root.
    pub root: Hash,
    /// Its size in clusters.
    pub clusters: u64,
}

/// Tells `f` what differs, in order, from disk a to disk b. The disks may be of different sizes.
pub fn diff(
    nodes_a: &dyn NodeSource,
    root_a: Hash,
    clusters_a: u64,
    nodes_b: &dyn NodeSource,
    root_b: Hash,
    clusters_b: u64,
    f: &mut dyn FnMut(Change) -> Result<()>,
) -> Result<()> {
    let side = |nodes, root, clusters| Side {
        nodes,
        root,
        clusters,
    };
    let a = side(nodes_a, root_a, clusters_a);
    let b = side(nodes_b, root_b, clusters_b);
    diff_within(a, b, 0..u64::MAX, f)
}

/// The same of a range of clusters; nodes outside of it are not read. A change that reaches out of it is told whole.
pub fn diff_within(
    a: Side<'_>,
    b: Side<'_>,
    range: Range<u64>,
    f: &mut dyn FnMut(Change) -> Result<()>,
) -> Result<()> {
    let clusters = a.clusters.max(b.clusters);
    let a = Tree::open(a.nodes, a.root, a.clusters)?;
    let b = Tree::open(b.nodes, b.root, b.clusters)?;
    let level = a.height.max(b.height) + 1;
    let whole = (a.whole(level), b.whole(level));
    let mut merge = Merge { pending: None, f };
    let mut both = Both {
        clusters,
        range,
        a,
        b,
        merge: &mut merge,
    };
    both.compare(level, 0, whole)?;
    merge.flush()
}

struct Both<'a, 'm, 'f> {
    a: Tree<'a>,
    b: Tree<'a>,
    clusters: u64,
    range: Range<u64>,
    merge: &'m mut Merge<'f>,
}

impl Both<'_, '_, '_> {
    /// Compares a child of a node of `level` on both sides; `Above` is only ever one of them, the lower tree. Recursion
    /// ends with the levels.
    fn compare(&mut self, level: u8, first: u64, parts: (Part, Part)) -> Result<()> {
        if first >= self.range.end || first + span(level) <= self.range.start {
            return Ok(());
        }
        match parts {
            (a, b) if a == b => return Ok(()),
            (Part::Child(old), Part::Child(new))
                if level == 0 || (old.is_uniform() && new.is_uniform()) =>
            {
                let count = span(level).min(self.clusters.saturating_sub(first));
                return self.merge.push(Change {
                    first,
                    count,
                    old,
                    new,
                });
            }
            _ => {}
        }
        let below = level - 1;
        let open = (
            self.a.look(parts.0, below, first)?,
            self.b.look(parts.1, below, first)?,
        );
        for (i, first) in (0..MANIFEST_FANOUT).zip((first..).step_by(span(below) as usize)) {
            let parts = (
                self.a.part(&open.0, below, i),
                self.b.part(&open.1, below, i),
            );
            self.compare(below, first, parts)?;
        }
        Ok(())
    }
}

/// Joins changes that go on alike.
struct Merge<'f> {
    pending: Option<Change>,
    f: &'f mut dyn FnMut(Change) -> Result<()>,
}

impl Merge<'_> {
    fn push(&mut self, change: Change) -> Result<()> {
        if let Some(last) = &mut self.pending
            && last.first + last.count == change.first
            && (last.old, last.new) == (change.old, change.new)
            && change.old.is_uniform()
            && change.new.is_uniform()
        {
            last.count += change.count;
            return Ok(());
        }
        self.flush()?;
        self.pending = Some(change);
        Ok(())
    }

    fn flush(&mut self) -> Result<()> {
        self.pending
            .take()
            .map_or(Ok(()), |change| (self.f)(change))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::manifest::Run;
    use crate::manifest::laws::{build, changes, hash};
    use crate::manifest::memory::MemoryNodes;

    #[test]
    fn equal_disks_are_compared_without_reading_below_the_roots() {
        let nodes = MemoryNodes::default();
        let root = build(
            &nodes,
            1 << 40,
            &[Run {
                first: 1 << 39,
                count: 1,
                child: hash(1),
            }],
        );
        assert!(changes(&nodes, root, 1 << 40, root, 1 << 40).is_empty());
        assert_eq!(nodes.reads(), 2);
    }

    #[test]
    fn uniform_runs_come_as_one_change_however_long() {
        let nodes = MemoryNodes::default();
        let holes = build(&nodes, 1 << 51, &[]);
        let zeros = Run {
            first: 3,
            count: (1 << 51) - 5,
            child: Child::Zero,
        };
        let zeros_root = build(&nodes, 1 << 51, &[zeros]);
        let wanted = Change {
            first: 3,
            count: zeros.count,
            old: Child::Hole,
            new: Child::Zero,
        };
        assert_eq!(
            changes(&nodes, holes, 1 << 51, zeros_root, 1 << 51),
            [wanted]
        );
    }

    #[test]
    fn what_is_past_the_end_of_one_disk_compares_as_holes() {
        let nodes = MemoryNodes::default();
        let small = build(
            &nodes,
            10,
            &[Run {
                first: 9,
                count: 1,
                child: hash(9),
            }],
        );
        let runs = [
            Run {
                first: 9,
                count: 1,
                child: hash(9),
            },
            Run {
                first: 70_000,
                count: 1,
                child: hash(1),
            },
        ];
        let large = build(&nodes, 100_000, &runs);
        let grown = Change {
            first: 70_000,
            count: 1,
            old: Child::Hole,
            new: hash(1),
        };
        assert_eq!(changes(&nodes, small, 10, large, 100_000), [grown]);
        let shrunk = Change {
            first: 70_000,
            count: 1,
            old: hash(1),
            new: Child::Hole,
        };
        assert_eq!(changes(&nodes, large, 100_000, small, 10), [shrunk]);
    }

    #[test]
    fn an_error_of_the_caller_ends_the_comparison() {
        let nodes = MemoryNodes::default();
        let a = build(&nodes, 600, &[]);
        let runs: Vec<Run> = (0..600)
            .map(|n| Run {
                first: n,
                count: 1,
                child: hash(n),
            })
            .collect();
        let b = build(&nodes, 600, &runs);
        let mut told = 0;
        let stopped = diff(&nodes, a, 600, &nodes, b, 600, &mut |_| {
            told += 1;
            Err(crate::Error::new(crate::ErrorKind::Cancelled, "stopped"))
        });
        assert_eq!(
            (stopped.unwrap_err().kind(), told),
            (crate::ErrorKind::Cancelled, 1)
        );
    }
}
