//! A medium that fails: an error that says where, never wrong bytes, nothing acknowledged that a crash then loses.

use crate::bench::{Machine, alone, points, seed, small};
use crate::check::{check, restore_all};
use crate::steps::{Expect, Step, Trace, history, prepared, run};
use crate::watch::{Watch, Watched};
use std::error::Error as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use stillpoint_api::Result;
use stillpoint_api::store::disk::sim::{CrashMode, Fault, ReadFault, SimDisk};
use stillpoint_api::{Error, ErrorKind};

/// The text of an error and of all that caused it.
fn whole(e: &Error) -> String {
    let mut text = vec![e.to_string()];
    let mut next = e.source();
    while let Some(cause) = next {
        text.push(cause.to_string());
        next = cause.source();
    }
    text.join(": ")
}

/// Runs the steps with each of about `limit` calls failing, goes on with the same handle, and crashes.
fn failing_at_every_call(name: &str, limit: u64, before: &[Step], steps: &[Step]) {
    alone(|| {
        let (template, from) = prepared(seed(), small(), before);
        let machine = template.copy();
        assert!(
            run(&machine, &from, steps).failed.is_empty(),
            "{name} on a good disk"
        );
        let calls = machine.disk.calls();
        let mut poisoned = 0;
        for k in points(calls, limit) {
            let place = format!("{name}, call {k} of {calls} fails, seed {}", seed());
            let machine = template.copy();
            machine.disk.fail_call(k, Fault::Eio);
            let system = machine.open().unwrap();
            let mut trace = Trace::of(&from);
            for step in steps.iter().chain(&[Step::Create("after", &[])]) {
                trace.take(&machine, &system, step);
            }
            for (step, e) in &trace.failed {
                let text = whole(e);
                match e.kind() {
                    ErrorKind::Poisoned => poisoned += 1,
                    ErrorKind::Io => {
                        assert!(
                            text.contains("/store") || text.contains("/images"),
                            "{place}, {step:?}: {text}"
                        );
                    }
                    // What comes after a goto that could not be ended.
                    ErrorKind::Busy | ErrorKind::Refused | ErrorKind::NotFound => {}
                    _ => panic!("{place}: {step:?} fails with {e:?}"),
                }
            }
            drop(system);
            let allowed = trace.allowed().expect("guests do not fail here");
            for mode in [CrashMode::NothingUnsynced, CrashMode::AllUnsynced] {
                let after = machine.restart(mode, machine.index.copy());
                check(after, &allowed, k).unwrap_or_else(|e| panic!("{place}, then {mode:?}: {e}"));
            }
        }
        assert!(poisoned > 0, "{name}: no sync of a folder was met");
    });
}

#[test]
fn a_snapshot_with_a_call_that_fails() {
    failing_at_every_call("create", 60, &history(), &[Step::Create("four", &[])]);
}

#[test]
fn a_goto_with_a_call_that_fails() {
    failing_at_every_call("goto", 70, &history(), &[Step::Goto("one", &["a", "b"])]);
}

#[test]
fn deletes_and_gc_with_a_call_that_fails() {
    let steps = [
        Step::Delete("one", &[]),
        Step::Delete("two", &["a"]),
        Step::Gc { all: true },
    ];
    failing_at_every_call("gc", 60, &history(), &steps);
}

/// From its `at`th call on, some reads of the disk fail.
struct Misread {
    disk: SimDisk,
    fault: ReadFault,
    times: u64,
    at: u64,
    calls: AtomicU64,
}

impl Watch for Misread {
    fn before(&self, _: Option<&str>) -> Result<()> {
        if self.calls.fetch_add(1, Ordering::Relaxed) + 1 == self.at {
            self.disk.fail_reads("/", self.fault, self.times);
        }
        Ok(())
    }
}

/// The step, or the restoring of everything, with reads that fail from a call on; how many calls there were, and what
/// else failed.
fn misread(machine: &Machine, from: &Expect, step: Option<&Step>, watch: Misread) -> (u64, Trace) {
    let disk = machine.disk.clone();
    let store = Arc::new(Watched {
        folder: machine.objects().unwrap(),
        watch,
    });
    let mut trace = Trace::of(from);
    match (machine.open_over(store.clone(), store.clone()), step) {
        (Ok(system), Some(step)) => {
            trace.take(machine, &system, step);
        }
        (Ok(system), None) => {
            if let Err(e) = restore_all(&system, from) {
                let failed = e.contains("restoring") && !e.contains("other bytes");
                assert!(failed, "wrong bytes: {e}");
            }
        }
        (Err(e), _) => trace.failed.extend(step.map(|step| (step.clone(), e))),
    }
    // What is left of the fault is not for what comes.
    disk.heal_reads();
    (store.watch.calls.load(Ordering::Relaxed), trace)
}

fn failing_reads(name: &str, step: Option<&Step>) {
    alone(|| {
        let (template, from) = prepared(seed(), small(), &history());
        let watch = |disk: &SimDisk, at, fault, times| Misread {
            disk: disk.clone(),
            fault,
            times,
            at,
            calls: AtomicU64::new(0),
        };
        let machine = template.copy();
        let (calls, trace) = misread(
            &machine,
            &from,
            step,
            watch(&machine.disk, u64::MAX, ReadFault::Eio, 0),
        );
        assert!(
            trace.failed.is_empty(),
            "{name} on a good disk: {:?}",
            trace.failed
        );
        for at in points(calls, 40) {
            for (fault, times) in [
                (ReadFault::Eio, 1),
                (ReadFault::Short, 1),
                (ReadFault::Eio, 50),
                (ReadFault::Short, 50),
            ] {
                let place = format!(
                    "{name}, {times} {fault:?} from call {at} of {calls}, seed {}",
                    seed()
                );
                let machine = template.copy();
                let (_, trace) = misread(
                    &machine,
                    &from,
                    step,
                    watch(&machine.disk, at, fault, times),
                );
                let allowed = trace.allowed().unwrap();
                check(machine.copy(), &allowed, at).unwrap_or_else(|e| panic!("{place}: {e}"));
            }
        }
    });
}

#[test]
fn restoring_with_reads_that_fail() {
    failing_reads("restore", None);
}

#[test]
fn a_snapshot_with_reads_that_fail() {
    failing_reads("create", Some(&Step::Create("four", &[])));
}

#[test]
fn a_goto_with_reads_that_fail() {
    failing_reads("goto", Some(&Step::Goto("one", &["a", "b"])));
}

#[test]
fn gc_with_reads_that_fail() {
    failing_reads("gc", Some(&Step::Gc { all: true }));
}

/// A handle that could not make names durable writes no more; a new one does.
#[test]
fn a_handle_is_poisoned_by_a_failed_sync_of_a_folder_and_a_new_one_is_not() {
    alone(|| {
        let (template, from) = prepared(seed(), small(), &history());
        let machine = template.copy();
        run(&machine, &from, &[Step::Delete("one", &[])]);
        let calls = machine.disk.calls();
        let mut met = 0;
        for k in 1..=calls {
            let machine = template.copy();
            machine.disk.fail_call(k, Fault::Eio);
            let system = machine.open().unwrap();
            let first = Step::Delete("one", &[]).run(&machine, &system, &from);
            let second = Step::Create("four", &[]).run(&machine, &system, &from);
            if first.as_ref().is_ok_and(|()| second.is_ok()) {
                continue;
            }
            let named = first
                .as_ref()
                .is_err_and(|e| whole(e).contains("syncing the folder"));
            if named {
                met += 1;
                let refused = second.unwrap_err();
                assert_eq!(refused.kind(), ErrorKind::Poisoned, "call {k}: {refused:?}");
                assert!(refused.what_next().is_some(), "call {k}: {refused:?}");
                drop(system);
                let fresh = machine.open().unwrap();
                Step::Create("four", &[])
                    .run(&machine, &fresh, &from)
                    .unwrap();
            }
        }
        assert!(met > 0, "no sync of a folder was met in {calls} calls");
    });
}
