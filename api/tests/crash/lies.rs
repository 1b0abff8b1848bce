//! A sync that is left out is noticed: with each kind of it a lie, some crash loses what was acknowledged.

use crate::bench::{alone, points, seed, small};
use crate::check::check;
use crate::steps::{Step, history, prepared, run_on};
use crate::watch::{Watch, Watched};
use std::sync::Arc;
use stillpoint_api::Result;
use stillpoint_api::store::disk::sim::{CrashMode, Lie, SimDisk};
use stillpoint_api::store::log::Options;
use stillpoint_api::store::tuning::Tuning;

/// What is not synced.
enum Left {
    /// Contents of objects whose key begins so.
    Contents(&'static str),
    /// Names in folders.
    Names(&'static str),
    /// Contents of images.
    Images,
}

/// All objects are written in `tmp/`: only the key tells what is being written.
struct Liar {
    disk: SimDisk,
    prefix: &'static str,
}

impl Watch for Liar {
    fn before(&self, put: Option<&str>) -> Result<()> {
        if !self.prefix.is_empty() && put.is_some_and(|key| key.starts_with(self.prefix)) {
            self.disk.lie(Lie::FileSync, "/store/tmp");
        }
        Ok(())
    }

    fn after_put(&self) {
        if !self.prefix.is_empty() {
            self.disk.stop_lying();
        }
    }
}

/// Whether any crash loses anything.
fn loses(left: &Left, tuning: Tuning, before: &[Step], steps: &[Step]) -> bool {
    alone(|| {
        let (template, from) = prepared(seed(), tuning, before);
        let visit = |k: u64| {
            let machine = template.copy();
            machine.disk.crash_at(k);
            let prefix = match left {
                Left::Contents(prefix) => prefix,
                Left::Names(_) | Left::Images => "",
            };
            match left {
                Left::Names(folder) => machine.disk.lie(Lie::FolderSync, folder),
                Left::Images => machine.disk.lie(Lie::FileSync, "/images"),
                Left::Contents(_) => {}
            }
            let watch = Liar {
                disk: machine.disk.clone(),
                prefix,
            };
            let store = Arc::new(Watched {
                folder: machine.objects().unwrap(),
                watch,
            });
            let system = machine.open_over(store.clone(), store).unwrap();
            let trace = run_on(&system, &machine, &from, steps);
            drop(system);
            let calls = machine.disk.calls();
            let lost = trace.allowed().is_some_and(|allowed| {
                [CrashMode::NothingUnsynced, CrashMode::NamesBeforeData]
                    .into_iter()
                    .any(|mode| {
                        check(machine.restart(mode, machine.index.copy()), &allowed, k).is_err()
                    })
            });
            (lost, calls)
        };
        let (lost, calls) = visit(u64::MAX);
        lost || points(calls, 60).into_iter().any(|k| visit(k).0)
    })
}

fn is_noticed(left: &Left, tuning: Tuning, before: &[Step], steps: &[Step]) {
    assert!(
        loses(left, tuning, before, steps),
        "nothing is lost without this sync"
    );
}

const MORE: [Step; 1] = [Step::Create("four", &[])];

#[test]
fn without_lies_nothing_is_lost() {
    let honest = Left::Contents("nothing");
    assert!(
        !loses(&honest, small(), &history(), &MORE),
        "the tests below would prove nothing"
    );
}

#[test]
fn contents_of_packs_are_synced() {
    is_noticed(&Left::Contents("packs/"), small(), &history(), &MORE);
}

#[test]
fn names_of_packs_are_synced() {
    is_noticed(&Left::Names("/store/packs"), small(), &history(), &MORE);
}

#[test]
fn contents_of_entries_are_synced() {
    is_noticed(&Left::Contents("log/"), small(), &history(), &MORE);
}

#[test]
fn names_of_entries_are_synced() {
    is_noticed(&Left::Names("/store/log"), small(), &history(), &MORE);
}

#[test]
fn images_are_synced() {
    is_noticed(
        &Left::Images,
        small(),
        &history(),
        &[Step::Goto("one", &[])],
    );
}

/// Checkpoints that come so often that the log is trimmed under them.
fn checkpointing() -> (Tuning, Vec<Step>) {
    let log = Options {
        checkpoint_every: 2,
        entries_kept: 1,
        ..Options::default()
    };
    let steps = [
        MORE[0].clone(),
        Step::Delete("one", &[]),
        Step::Delete("two", &[]),
        Step::Gc { all: true },
    ];
    (Tuning { log, ..small() }, steps.to_vec())
}

#[test]
fn contents_of_checkpoints_are_synced() {
    let (tuning, steps) = checkpointing();
    is_noticed(&Left::Contents("checkpoint/"), tuning, &history(), &steps);
}

#[test]
fn names_of_checkpoints_are_synced() {
    let (tuning, steps) = checkpointing();
    is_noticed(
        &Left::Names("/store/checkpoint"),
        tuning,
        &history(),
        &steps,
    );
}
