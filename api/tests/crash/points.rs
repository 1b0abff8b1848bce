//! A crash at every mutating call of a workload, in every mode.

use crate::bench::{Machine, alone, points, seed, small};
use crate::check::check;
use crate::steps::{Expect, Step, history, prepared, run};
use stillpoint_api::store::disk::sim::CrashMode;
use stillpoint_api::store::index::IndexHome;
use stillpoint_api::store::index::memory::{Fault, MemoryHome};
use stillpoint_api::store::log::Options;
use stillpoint_api::store::tuning::Tuning;

/// The index after a crash, by turns: kept, wiped, as it was before, and wrong.
fn index_after(turn: u64, before: &MemoryHome, at: &MemoryHome) -> (MemoryHome, &'static str) {
    match turn % 4 {
        0 => (at.copy(), "kept"),
        1 => {
            let wiped = at.copy();
            wiped.clear().unwrap();
            (wiped, "wiped")
        }
        2 => (before.copy(), "rolled back"),
        _ => {
            let wrong = at.copy();
            wrong.set_fault(Fault::WrongPlaces);
            (wrong, "lying")
        }
    }
}

/// Crashes at about `limit` points of `steps`, all of them if there are no more.
fn crash_everywhere(name: &str, limit: u64, tuning: Tuning, before: &[Step], steps: &[Step]) {
    alone(|| {
        let (template, from) = prepared(seed(), tuning, before);
        let calls = count(name, &template, &from, steps);
        let mut visited = 0;
        for (n, k) in (0..).zip(points(calls, limit)) {
            let machine = template.copy();
            machine.disk.crash_at(k);
            let trace = run(&machine, &from, steps);
            assert!(
                machine.disk.has_crashed(),
                "{name}: call {k} of {calls} is never made"
            );
            let Some(allowed) = trace.allowed() else {
                continue;
            };
            // Each point meets the index in every state, and over the points each mode meets all of them.
            for (m, mode) in (0..).zip(CrashMode::ALL) {
                let (index, how) = index_after(n + m, &template.index, &machine.index);
                let checked = check(machine.restart(mode, index), &allowed, n);
                let at = trace.failed.first().map(|(step, _)| step);
                let seed = seed();
                if let Err(e) = checked {
                    panic!(
                        "{name}, call {k} of {calls} in {at:?}, {mode:?}, index {how}, seed {seed}: {e}"
                    );
                }
                visited += 1;
            }
        }
        assert!(visited > 0, "{name}: no point was visited");
    });
}

/// Mutating calls of the steps on a disk that does not crash.
fn count(name: &str, template: &Machine, from: &Expect, steps: &[Step]) -> u64 {
    let machine = template.copy();
    let trace = run(&machine, from, steps);
    assert!(
        trace.failed.is_empty(),
        "{name} on a good disk: {:?}",
        trace.failed
    );
    let calls = machine.disk.calls();
    check(machine, &[trace.sure], 0).unwrap_or_else(|e| panic!("{name} on a good disk: {e}"));
    calls
}

const ONE: [Step; 2] = [Step::Image("a", 1, 30 * 4096 + 100), Step::Add("a")];

const THREE: [Step; 6] = [
    Step::Image("a", 1, 24 * 4096),
    Step::Image("b", 2, 20 * 4096 + 1),
    Step::Image("c", 3, 24 * 4096 - 1),
    Step::Add("a"),
    Step::Add("b"),
    Step::Add("c"),
];

#[test]
fn a_snapshot_and_the_next() {
    let steps = [
        Step::Create("one", &[]),
        Step::Guest("a", 5),
        Step::Create("two", &[]),
        Step::Create("same", &[]),
    ];
    crash_everywhere("create", 80, small(), &ONE, &steps);
}

#[test]
fn a_group_of_three() {
    let steps = [
        Step::Create("all", &[]),
        Step::Guest("b", 3),
        Step::Create("more", &["b", "c"]),
    ];
    crash_everywhere("group", 80, small(), &THREE, &steps);
}

#[test]
fn going_to_a_snapshot_on_one_device() {
    let before = [&ONE[..], &[Step::Create("one", &[]), Step::Guest("a", 4)]].concat();
    let steps = [Step::Goto("one", &[])];
    crash_everywhere("goto", 80, small(), &before, &steps);
}

#[test]
fn going_to_a_snapshot_on_two_devices() {
    let more = [
        Step::Create("one", &[]),
        Step::Guest("a", 3),
        Step::Guest("b", 4),
        Step::Create("two", &[]),
    ];
    let before = [&THREE[..], &more, &[Step::Guest("a", 5)]].concat();
    let steps = [
        Step::Goto("one", &["a", "b"]),
        Step::Goto("two", &["a", "b"]),
    ];
    crash_everywhere("group goto", 80, small(), &before, &steps);
}

#[test]
fn deleting_on_one_and_on_all_devices() {
    let steps = [
        Step::Delete("two", &["b"]),
        Step::Delete("one", &[]),
        Step::Delete("three", &[]),
    ];
    crash_everywhere("delete", 80, small(), &history(), &steps);
}

#[test]
fn collecting_what_deletes_left() {
    let steps = [
        Step::Delete("one", &[]),
        Step::Gc { all: false },
        Step::Delete("two", &["a"]),
        Step::Gc { all: true },
    ];
    crash_everywhere("gc", 80, small(), &history(), &steps);
}

#[test]
fn collecting_when_everything_has_gone() {
    let mut before = history();
    before.extend([
        Step::Delete("two", &[]),
        Step::Delete("three", &[]),
        Step::Delete("one", &[]),
    ]);
    crash_everywhere("gc of all", 80, small(), &before, &[Step::Gc { all: true }]);
}

#[test]
fn checkpoints_and_the_trimming_of_the_log() {
    let log = Options {
        checkpoint_every: 3,
        entries_kept: 2,
        ..Options::default()
    };
    let tuning = Tuning { log, ..small() };
    let before = [&ONE[..], &[Step::Create("one", &[])]].concat();
    let steps = [
        Step::Guest("a", 5),
        Step::Create("two", &[]),
        Step::Create("three", &[]),
        Step::Delete("one", &[]),
        Step::Delete("two", &[]),
        Step::Gc { all: true },
    ];
    crash_everywhere("checkpoint", 80, tuning, &before, &steps);
}

#[test]
fn an_image_taken_in() {
    let mut before = history();
    before.push(Step::Image("golden", 9, 30 * 4096));
    let steps = [
        Step::Import("golden", "gold", "v1"),
        Step::Guest("golden", 5),
        Step::Import("golden", "gold", "v2"),
    ];
    crash_everywhere("import", 80, small(), &before, &steps);
}

#[test]
fn devices_that_come_and_go() {
    let before = [Step::Image("a", 1, 9000), Step::Image("b", 2, 9000)];
    let steps = [
        Step::Add("a"),
        Step::Add("b"),
        Step::Remove("a"),
        Step::Add("a"),
        Step::Remove("b"),
    ];
    crash_everywhere("devices", 80, small(), &before, &steps);
}
