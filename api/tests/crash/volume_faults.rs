//! Volumes on a medium that fails: a group is changed as a whole or not at all, whoever has it open goes on with what there is,
//! and nothing acknowledged is lost by a later crash.

use crate::bench::{Machine, alone, points, seed, small};
use crate::volumes::{BLOCK, Expect, Step, TWO, check, matches_on, read_all, run, take};
use stillpoint_api::store::disk::sim::{CrashMode, Fault};
use stillpoint_api::{System, Volumes};

/// What there may be after a step that failed: what those who have the volumes open find.
fn found(
    system: &System,
    volumes: &Volumes<'_>,
    step: &Step,
    sure: &Expect,
) -> Result<Expect, String> {
    let mut done = sure.after(step);
    if let Step::Guest(name, _) = step {
        // It may have been cut off within one of its acts.
        let now = read_all(volumes, system, name).map_err(|e| format!("{e:?}"))?;
        done.volumes.get_mut(*name).unwrap().push(now);
        return Ok(done);
    }
    let mut why = String::new();
    for allowed in [sure.clone(), done] {
        match matches_on(system, volumes, &allowed) {
            Ok(_) => return Ok(allowed),
            Err(e) => why = format!("{why}; {e}"),
        }
    }
    Err(why)
}

/// Whatever the log says in the end, what a guest was told is flushed is there.
fn go_on_writing(system: &System, volumes: &Volumes<'_>, before: &mut Expect, after: &mut Expect) {
    for name in ["a", "b"] {
        for step in [Step::Guest(name, 77), Step::Flush(name)] {
            if take(system, volumes, &step).is_err() {
                break;
            }
            for may in [&mut *before, &mut *after] {
                if may.volumes.contains_key(name) {
                    *may = may.after(&step);
                }
            }
        }
    }
}

/// Runs the steps with each of about `limit` calls failing, goes on with the same volumes, and crashes. How many steps failed.
fn failing_at_every_call(limit: u64, fault: Fault, steps: &[Step]) -> u64 {
    alone(|| {
        let template = Machine::new(seed(), small());
        let from = run(&template, &Expect::default(), &TWO);
        let whole = template.copy();
        let trace = run(&whole, &from.sure, steps);
        assert!(trace.failed.is_none(), "{:?}", trace.failed);
        let calls = whole.disk.calls();
        let mut failures = 0;
        for k in points(calls, limit) {
            let mut place = format!("call {k} of {calls} fails with {fault:?}, seed {}", seed());
            let machine = template.copy();
            let system = machine.open().unwrap();
            machine.disk.fail_call(k, fault);
            let volumes = system.volumes().unwrap();
            let (mut sure, mut allowed) = (from.sure.clone(), Vec::new());
            for step in steps {
                match take(&system, &volumes, step) {
                    Ok(()) => {
                        sure = sure.after(step);
                        // What was acknowledged later stands on it.
                        allowed.clear();
                    }
                    Err(e) => {
                        failures += 1;
                        place = format!("{place}, {step:?}: {e:?}");
                        match found(&system, &volumes, step, &sure) {
                            Ok(found) => {
                                // The entry is seen, and is gone after a crash: nobody was told that it is durable.
                                if found != sure
                                    && format!("{e:?}").contains("syncing the folder /store/log")
                                {
                                    allowed.push(sure);
                                }
                                sure = found;
                            }
                            // A folder of the store was not synced: nobody knows, and only guests go on.
                            Err(why) if why.contains("an earlier sync of this store failed") => {
                                allowed.push(sure.after(step));
                                go_on_writing(&system, &volumes, &mut sure, &mut allowed[0]);
                                break;
                            }
                            Err(why) => panic!("{place}: {why}"),
                        }
                    }
                }
            }
            allowed.push(sure);
            for mode in [CrashMode::NothingUnsynced, CrashMode::AllUnsynced] {
                let after = machine.restart(mode, machine.index.copy());
                check(&after, &allowed).unwrap_or_else(|e| panic!("{place}, then {mode:?}: {e}"));
            }
        }
        failures
    })
}

fn both(limit: u64, steps: &[Step]) {
    for fault in [Fault::Eio, Fault::Enospc] {
        assert!(failing_at_every_call(limit, fault, steps) > 0, "{fault:?}");
    }
}

#[test]
fn a_snapshot_of_volumes_with_a_call_that_fails() {
    let steps = [
        Step::Flush("a"),
        Step::Snap("two", &[]),
        Step::Guest("a", 6),
        Step::Guest("b", 7),
        Step::Flush("a"),
        Step::Flush("b"),
        Step::Snap("three", &[]),
        Step::Guest("b", 8),
        Step::Flush("b"),
    ];
    both(60, &steps);
}

#[test]
fn a_goto_of_volumes_with_a_call_that_fails() {
    let steps = [
        Step::Guest("b", 5),
        Step::Goto("one", &["a", "b"]),
        Step::Guest("a", 6),
        Step::Guest("b", 7),
        Step::Flush("a"),
        Step::Flush("b"),
    ];
    both(60, &steps);
}

#[test]
fn a_resize_of_a_volume_with_a_call_that_fails() {
    let steps = [
        Step::Resize("a", 20 * BLOCK),
        Step::Guest("a", 7),
        Step::Flush("a"),
        Step::Resize("a", 5 * BLOCK + 100),
        Step::Guest("a", 8),
        Step::Flush("a"),
    ];
    both(60, &steps);
}

#[test]
fn a_volume_moved_or_removed_with_a_call_that_fails() {
    let steps = [
        Step::Guest("a", 5),
        Step::HandOver("a"),
        Step::Guest("a", 6),
        Step::Flush("a"),
        Step::Delete("one"),
        Step::Remove("b"),
    ];
    both(60, &steps);
}
