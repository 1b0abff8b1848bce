//! A disk that is full: operations fail and leave nothing half done, and the reserve lets deletes and gc make room.

use crate::bench::{Machine, alone, points, seed, small};
use crate::check::{check, restore_all, settle};
use crate::steps::{Expect, Step, history, prepared, run};
use stillpoint_api::store::disk::sim::{CrashMode, Fault};
use stillpoint_api::store::ops::gc;
use stillpoint_api::store::progress::Progress;
use stillpoint_api::{Error, ErrorKind};

/// Runs the steps with each of about `limit` calls failing for want of space.
fn full_at_every_call(name: &str, limit: u64, before: &[Step], steps: &[Step]) {
    alone(|| {
        let (template, from) = prepared(seed(), small(), before);
        let machine = template.copy();
        assert!(
            run(&machine, &from, steps).failed.is_empty(),
            "{name} on a good disk"
        );
        let calls = machine.disk.calls();
        for k in points(calls, limit) {
            let place = format!("{name}, no space at call {k} of {calls}, seed {}", seed());
            let machine = template.copy();
            machine.disk.fail_call(k, Fault::Enospc);
            let trace = run(&machine, &from, steps);
            for (step, e) in &trace.failed {
                assert!(is_honest(e), "{place}: {step:?} fails with {e:?}");
            }
            let allowed = trace.allowed().expect("guests do not fail here");
            let settled = machine.copy();
            if trace
                .failed
                .iter()
                .any(|(_, e)| e.path().is_some_and(|p| p.starts_with("/images")))
            {
                let (_, found) =
                    settle(settled, &allowed, k).unwrap_or_else(|e| panic!("{place}: {e}"));
                assert!(found == trace.sure, "{place}: not rolled back");
                assert!(!is_marked(&machine), "{place}: left marked");
            }
            check(machine.copy(), &allowed, k).unwrap_or_else(|e| panic!("{place}: {e}"));
        }
    });
}

fn is_honest(e: &Error) -> bool {
    matches!(e.kind(), ErrorKind::NoSpace | ErrorKind::Poisoned)
}

fn is_marked(machine: &Machine) -> bool {
    let machine = machine.copy();
    machine
        .open()
        .unwrap()
        .devices()
        .unwrap()
        .iter()
        .any(|d| d.in_goto)
}

#[test]
fn a_snapshot_without_space_for_some_call() {
    full_at_every_call("create", 60, &history(), &[Step::Create("four", &[])]);
}

#[test]
fn a_goto_without_space_for_some_call() {
    full_at_every_call("goto", 100, &history(), &[Step::Goto("one", &["a", "b"])]);
}

#[test]
fn deletes_and_gc_without_space_for_some_call() {
    let steps = [
        Step::Delete("one", &[]),
        Step::Delete("two", &["a"]),
        Step::Gc { all: true },
    ];
    full_at_every_call("gc", 60, &history(), &steps);
}

#[test]
fn an_import_without_space_for_some_call() {
    let before = [&history()[..], &[Step::Image("golden", 9, 20 * 4096)]].concat();
    full_at_every_call(
        "import",
        40,
        &before,
        &[Step::Import("golden", "gold", "v1")],
    );
}

/// On a disk that is filled to the last byte before each step, the store opens, reads, deletes and collects; with space
/// again, all is well.
fn works_when_full(machine: &Machine, allowed: &[Expect], place: &str) {
    let place = |what: &str| format!("{place}: {what}");
    let fill = || machine.disk.set_space(0);
    fill();
    let system = machine
        .open()
        .unwrap_or_else(|e| panic!("{}: {e:?}", place("opening")));
    let listed = system.list(None).unwrap();
    let expect = allowed.iter().find(|e| e.snapshots.len() == listed.len());
    let mut expect = expect
        .unwrap_or_else(|| panic!("{}", place("half there")))
        .clone();
    for (key, bytes) in &expect.snapshots {
        fill();
        let snapshots = [(key.clone(), bytes.clone())].into();
        let one = Expect {
            snapshots,
            ..Expect::default()
        };
        restore_all(&system, &one).unwrap_or_else(|e| panic!("{}: {e}", place("reading")));
    }
    for step in [Step::Delete("one", &[]), Step::Delete("two", &["a"])] {
        fill();
        let done = step.run(machine, &system, &expect);
        done.unwrap_or_else(|e| panic!("{} {step:?}: {e:?}", place("on the full disk")));
        expect = expect.after(&step);
    }
    fill();
    let all = gc::Options {
        all: true,
        dry_run: false,
    };
    let done = system.store().gc(all, &Progress::default());
    let done = done.unwrap_or_else(|e| panic!("{}: {e:?}", place("gc on the full disk")));
    assert!(
        done.bytes_after < done.bytes_before,
        "{}: {done:?}",
        place("gc frees nothing")
    );
    drop(system);
    machine.disk.set_space(64 << 20);
    let machine = machine.copy();
    check(machine, &[expect], 0).unwrap_or_else(|e| panic!("{}: {e}", place("with space again")));
}

#[test]
fn whatever_space_is_left_the_store_stays_usable() {
    alone(|| {
        let (template, from) = prepared(seed(), small(), &history());
        for step in [Step::Create("four", &[]), Step::Goto("one", &[])] {
            let mut space = 0;
            loop {
                let place = format!("{step:?} with {space} bytes, seed {}", seed());
                let machine = template.copy();
                machine.disk.set_space(space);
                let trace = run(&machine, &from, std::slice::from_ref(&step));
                for (_, e) in &trace.failed {
                    assert!(is_honest(e), "{place}: {e:?}");
                    assert!(!is_marked(&machine), "{place}: left marked");
                }
                let done = trace.failed.is_empty();
                let allowed = trace.allowed().unwrap();
                works_when_full(&machine.copy(), &allowed, &place);
                if done {
                    break;
                }
                space += 8192;
            }
        }
    });
}

#[test]
fn a_gc_that_was_killed_leaves_room_for_the_next_on_a_full_disk() {
    let deletes = [Step::Delete("one", &[]), Step::Delete("two", &["a"])];
    let before = [&history()[..], &deletes].concat();
    alone(|| {
        let (template, from) = prepared(seed(), small(), &before);
        let collect = [Step::Gc { all: true }];
        let whole = template.copy();
        whole.disk.set_space(0);
        assert!(
            run(&whole, &from, &collect).failed.is_empty(),
            "uninterrupted"
        );
        let calls = whole.disk.calls();
        for k in points(calls, 80) {
            let place = format!("killed at call {k} of {calls}, seed {}", seed());
            let machine = template.copy();
            machine.disk.set_space(0);
            machine.disk.crash_at(k);
            run(&machine, &from, &collect);
            let machine = machine.restart(CrashMode::AllUnsynced, machine.index.copy());
            machine.disk.set_space(0);
            let trace = run(&machine, &from, &collect);
            assert!(trace.failed.is_empty(), "{place}: {:?}", trace.failed);
            machine.disk.set_space(64 << 20);
            check(machine, std::slice::from_ref(&from), k)
                .unwrap_or_else(|e| panic!("{place}: {e}"));
        }
    });
}
