//! Laws of manifests: building, walking, comparing and editing agree with each other and with a plain list of clusters.

use crate::id::Hash;
use crate::manifest::build::Builder;
use crate::manifest::diff::{Change, diff};
use crate::manifest::edit::edit;
use crate::manifest::memory::MemoryNodes;
use crate::manifest::walk::{Piece, Walker};
use crate::manifest::{Child, Run, check_size};
use proptest::prelude::*;

/// Cluster `n` of many.
pub(crate) fn hash(n: u64) -> Child {
    Child::Hash(Hash::of(&n.to_le_bytes()))
}

/// A disk with these runs, in order, and holes between them.
pub(crate) fn build(nodes: &MemoryNodes, clusters: u64, runs: &[Run]) -> Hash {
    let mut sink = |hash, bytes: Vec<u8>| nodes.insert(hash, &bytes);
    let mut builder = Builder::new(clusters);
    for run in runs {
        builder
            .push(Child::Hole, run.first - builder.position(), &mut sink)
            .unwrap();
        builder.push(run.child, run.count, &mut sink).unwrap();
    }
    builder
        .push(Child::Hole, clusters - builder.position(), &mut sink)
        .unwrap();
    builder.finish(&mut sink).unwrap()
}

/// All that differs between two disks.
pub(crate) fn changes(
    nodes: &MemoryNodes,
    a: Hash,
    size_a: u64,
    b: Hash,
    size_b: u64,
) -> Vec<Change> {
    let mut found = Vec::new();
    let mut tell = |change| {
        found.push(change);
        Ok(())
    };
    diff(nodes, a, size_a, nodes, b, size_b, &mut tell).unwrap();
    found
}

/// Every cluster of a disk, one after the other.
type Plain = Vec<Child>;

fn runs_of(plain: &Plain) -> Vec<Run> {
    let mut runs: Vec<Run> = Vec::new();
    for (first, child) in (0..).zip(plain) {
        match runs.last_mut() {
            Some(last) if last.child == *child && child.is_uniform() => last.count += 1,
            _ => runs.push(Run {
                first,
                count: 1,
                child: *child,
            }),
        }
    }
    runs
}

fn walked(nodes: &MemoryNodes, root: Hash, clusters: u64) -> Plain {
    let mut plain = Vec::new();
    for piece in Walker::new(nodes, root, clusters).unwrap() {
        match piece.unwrap() {
            Piece::Uniform {
                first,
                count,
                child,
            } => {
                assert_eq!(first, plain.len() as u64);
                plain.resize(plain.len() + count as usize, child);
            }
            Piece::Leaf { first, node, count } => {
                assert_eq!(first, plain.len() as u64);
                plain.extend(node.children().take(count as usize));
            }
        }
    }
    plain
}

/// Sizes around every place where a tree changes its shape.
fn size() -> impl Strategy<Value = usize> {
    prop_oneof![
        0usize..3,
        14usize..19,
        250usize..260,
        500usize..800,
        4090usize..4100,
        65_530usize..65_545,
        131_000usize..131_100
    ]
}

/// What is written onto a disk: where, how much, what.
type Writes = Vec<(prop::sample::Index, usize, u8)>;

fn writes() -> impl Strategy<Value = Writes> {
    let length = prop_oneof![
        1usize..40,
        200usize..600,
        65_000usize..66_000,
        Just(200_000)
    ];
    prop::collection::vec((any::<prop::sample::Index>(), length, 0u8..5), 0..8)
}

fn write(plain: &mut Plain, writes: &Writes) {
    for (at, length, what) in writes {
        if plain.is_empty() {
            return;
        }
        // Most runs begin at the end of a node's clusters or next to it.
        let at = at.index(plain.len());
        let at = if at % 3 == 0 {
            at
        } else {
            (at & !0xf) + at % 2
        }
        .min(plain.len() - 1);
        let length = if *what > 1 { *length % 600 } else { *length };
        let end = plain.len().min(at + length);
        for (n, cluster) in (at as u64..).zip(&mut plain[at..end]) {
            *cluster = match what {
                0 => Child::Hole,
                1 => Child::Zero,
                2 => hash(0),
                _ => hash(n % 1000 + u64::from(*what)),
            };
        }
    }
}

fn disk(size: usize, first: &Writes) -> Plain {
    let mut plain = vec![Child::Hole; size];
    write(&mut plain, first);
    plain
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn walking_gives_what_was_built(size in size(), first in writes()) {
        let (nodes, plain) = (MemoryNodes::default(), disk(size, &first));
        let root = build(&nodes, size as u64, &runs_of(&plain));
        prop_assert!(walked(&nodes, root, size as u64) == plain);
        let mut walker = Walker::new(&nodes, root, size as u64).unwrap();
        for i in (0..size).step_by(size / 50 + 1).chain((0..size).rev().step_by(size / 30 + 1)) {
            prop_assert_eq!(walker.lookup(i as u64).unwrap(), plain[i]);
        }
    }

    #[test]
    fn one_disk_has_one_root_however_its_runs_are_cut(
        size in size(), first in writes(), cut in 1u64..700,
    ) {
        let (nodes, plain) = (MemoryNodes::default(), disk(size, &first));
        let runs = runs_of(&plain);
        let pieces: Vec<Run> = runs.iter().flat_map(|run| {
            (0..run.count).step_by(cut as usize).map(|at| {
                Run { first: run.first + at, count: cut.min(run.count - at), child: run.child }
            })
        }).collect();
        let root = build(&nodes, size as u64, &runs);
        prop_assert_eq!(build(&nodes, size as u64, &pieces), root);
    }

    #[test]
    fn editing_gives_the_root_that_building_gives(
        sizes in (size(), size()), same: bool, first in writes(), second in writes(),
    ) {
        let (old_size, new_size) = if same { (sizes.0, sizes.0) } else { sizes };
        let (nodes, old) = (MemoryNodes::default(), disk(old_size, &first));
        let mut new = old.clone();
        new.resize(new_size, Child::Hole);
        let before = new.clone();
        write(&mut new, &second);
        let wanted = build(&MemoryNodes::default(), new_size as u64, &runs_of(&new));

        let root = build(&nodes, old_size as u64, &runs_of(&old));
        let edits = runs_of(&new).into_iter().filter(|run| {
            let range = run.first as usize..(run.first + run.count) as usize;
            new[range.clone()] != before[range]
        });
        let mut sink = |hash, bytes: Vec<u8>| nodes.insert(hash, &bytes);
        let (old_size, new_size) = (old_size as u64, new_size as u64);
        let edited = edit(&nodes, root, old_size, new_size, edits, &mut sink).unwrap();
        prop_assert_eq!(edited, wanted);
        prop_assert!(walked(&nodes, edited, new_size) == new, "all nodes are there");
    }

    #[test]
    fn the_difference_applied_to_one_disk_gives_the_other(
        sizes in (size(), size()), same: bool, first in writes(), second in writes(),
    ) {
        let (size_a, size_b) = if same { (sizes.0, sizes.0) } else { sizes };
        let (nodes, a) = (MemoryNodes::default(), disk(size_a, &first));
        let mut b = a.clone();
        b.resize(size_b, Child::Hole);
        write(&mut b, &second);
        let root_a = build(&nodes, size_a as u64, &runs_of(&a));
        let root_b = build(&nodes, size_b as u64, &runs_of(&b));

        let found = changes(&nodes, root_a, size_a as u64, root_b, size_b as u64);
        let at = |plain: &Plain, i: u64| plain.get(i as usize).copied().unwrap_or(Child::Hole);
        let mut told = 0;
        for change in &found {
            prop_assert!(change.first >= told && change.count > 0);
            told = change.first + change.count;
            for i in change.first..told {
                prop_assert!((change.old, change.new) == (at(&a, i), at(&b, i)));
            }
        }
        let differ = (0..size_a.max(size_b) as u64).filter(|i| at(&a, *i) != at(&b, *i)).count();
        prop_assert_eq!(found.iter().map(|c| c.count).sum::<u64>(), differ as u64);

        let edits = found.iter().filter(|c| c.first < size_b as u64).map(|c| Run {
            first: c.first,
            count: c.count.min(size_b as u64 - c.first),
            child: c.new,
        });
        let mut sink = |hash, bytes: Vec<u8>| nodes.insert(hash, &bytes);
        let applied =
            edit(&nodes, root_a, size_a as u64, size_b as u64, edits, &mut sink).unwrap();
        prop_assert_eq!(applied, root_b);
    }
}

#[test]
fn a_root_fits_the_sizes_that_have_the_same_tree_and_no_others() {
    let sizes = [0, 1, 5, 15, 16, 17, 40, 255, 256, 257, 1000, 4096, 4097];
    let at = |first, count, child| Run {
        first,
        count,
        child,
    };
    for runs in [
        vec![],
        vec![at(0, 5, Child::Zero)],
        vec![at(3, 1, hash(1))],
        vec![at(0, 256, Child::Zero)],
        vec![at(3, 1, hash(1)), at(250, 6, Child::Zero)],
        vec![at(900, 100, Child::Zero)],
        vec![at(900, 1, hash(2))],
    ] {
        let end = runs.last().map_or(0, |r| r.first + r.count);
        let nodes = MemoryNodes::default();
        let fitting = sizes.iter().filter(|size| **size >= end);
        let roots: Vec<(u64, Hash)> = fitting.map(|n| (*n, build(&nodes, *n, &runs))).collect();
        for (_, root) in &roots {
            for size in sizes {
                let same = roots.contains(&(size, *root));
                let fits = check_size(&nodes, *root, size).is_ok();
                assert_eq!(fits, same, "{runs:?}: {size}");
            }
        }
    }
}
