//! Two writers on one store: the operations of one run in the middle of an operation of the other.

use crate::bench::{Machine, alone, points, points_of_pairs, seed, small};
use crate::check::check;
use crate::steps::{Expect, Step, history, prepared};
use crate::watch::{Watch, Watched};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use stillpoint_api::store::disk::sim::CrashMode;
use stillpoint_api::{ErrorKind, Result};

pub type Hook = Box<dyn FnOnce() + Send>;

/// Lets somebody else come before the `at`th call.
pub struct Interruption {
    calls: AtomicU64,
    at: u64,
    hook: Mutex<Option<Hook>>,
}

impl Interruption {
    pub fn before(at: u64, hook: Hook) -> Self {
        Self {
            calls: AtomicU64::new(0),
            at,
            hook: Mutex::new(Some(hook)),
        }
    }

    pub fn calls(&self) -> u64 {
        self.calls.load(Ordering::Relaxed)
    }

    /// Where the call was never made the hook goes, and with it its hold on the machine.
    pub fn forget(&self) {
        self.hook.lock().unwrap().take();
    }
}

impl Watch for Interruption {
    fn before(&self, _: Option<&str>) -> Result<()> {
        if self.calls.fetch_add(1, Ordering::Relaxed) + 1 == self.at {
            let hook = self.hook.lock().unwrap().take();
            hook.into_iter().for_each(|hook| hook());
        }
        Ok(())
    }
}

/// What was done so far, by either, in the order of their acknowledgements.
struct Ledger {
    sure: Expect,
    /// With what there was when they began.
    pending: Vec<(Step, Expect)>,
    /// Errors on a disk that works.
    refused: Vec<(Step, ErrorKind, String)>,
}

/// What a run of two writers left.
struct Ran {
    ledger: Ledger,
    /// Calls of the first writer to its store.
    calls: u64,
}

impl Ran {
    /// Each pending step was done or was not.
    fn allowed(&self) -> Vec<Expect> {
        let mut allowed = vec![self.ledger.sure.clone()];
        for (step, begun) in &self.ledger.pending {
            let done: Vec<Expect> = allowed
                .iter()
                .map(|e| e.after_step_of(step, begun))
                .collect();
            allowed.extend(done);
        }
        allowed
    }
}

/// Notes what became of a step that began when there was `begun`.
fn note(machine: &Machine, ledger: &Mutex<Ledger>, step: &Step, begun: &Expect, done: Result<()>) {
    let mut ledger = ledger.lock().unwrap();
    match done {
        Ok(()) => ledger.sure = ledger.sure.after_step_of(step, begun),
        Err(_) if machine.disk.has_crashed() => ledger.pending.push((step.clone(), begun.clone())),
        Err(e) => ledger
            .refused
            .push((step.clone(), e.kind(), format!("{e:?}"))),
    }
}

/// `first` with all of `others` before its `at`th call. The machine may be set to crash.
fn two(machine: Machine, from: &Expect, first: &Step, others: &[Step], at: u64) -> (Machine, Ran) {
    let machine = Arc::new(machine);
    let ledger = Ledger {
        sure: from.clone(),
        pending: Vec::new(),
        refused: Vec::new(),
    };
    let ledger = Arc::new(Mutex::new(ledger));
    let (other_machine, other_ledger, steps) = (machine.clone(), ledger.clone(), others.to_vec());
    let hook: Hook = Box::new(move || {
        let Ok(system) = other_machine.open() else {
            assert!(other_machine.disk.has_crashed(), "a store in use opens");
            return;
        };
        for step in &steps {
            let before = other_ledger.lock().unwrap().sure.clone();
            let done = step.run(&other_machine, &system, &before);
            note(&other_machine, &other_ledger, step, &before, done);
        }
    });
    let store = Arc::new(Watched {
        folder: machine.objects().unwrap(),
        watch: Interruption::before(at, hook),
    });
    let done = machine
        .open_over(store.clone(), store.clone())
        .and_then(|system| first.run(&machine, &system, from));
    note(&machine, &ledger, first, from, done);
    let calls = store.watch.calls();
    store.watch.forget();
    let machine = Arc::into_inner(machine).expect("everybody else has ended");
    let ledger = Arc::into_inner(ledger)
        .expect("everybody else has ended")
        .into_inner()
        .unwrap();
    (machine, Ran { ledger, calls })
}

/// Others between any two calls, and for some of these places a crash at many points.
fn meet(name: &str, before: &[Step], first: &Step, others: &[Step], excused: &[ErrorKind]) {
    alone(|| {
        let (template, from) = prepared(seed(), small(), before);
        let (_, ran) = two(template.copy(), &from, first, others, u64::MAX);
        assert!(
            ran.ledger.refused.is_empty(),
            "{name}: {:?}",
            ran.ledger.refused
        );
        for at in points(ran.calls, 60) {
            let (machine, ran) = two(template.copy(), &from, first, others, at);
            let place = format!("{name}, others before call {at}, seed {}", seed());
            for (step, kind, why) in &ran.ledger.refused {
                assert!(excused.contains(kind), "{place}: {step:?} failed: {why}");
            }
            check(machine, &ran.allowed(), at).unwrap_or_else(|e| panic!("{place}: {e}"));
        }
        for at in points_of_pairs(ran.calls, 5, 20) {
            let (machine, _) = two(template.copy(), &from, first, others, at);
            let calls = machine.disk.calls();
            for k in points_of_pairs(calls, 12, 60) {
                let machine = template.copy();
                machine.disk.crash_at(k);
                let (machine, ran) = two(machine, &from, first, others, at);
                let allowed = ran.allowed();
                for mode in CrashMode::ALL {
                    let after = machine.restart(mode, machine.index.copy());
                    let place = format!("{name}, others before call {at}, crash at {k} of {calls}");
                    check(after, &allowed, k)
                        .unwrap_or_else(|e| panic!("{place}, {mode:?}, seed {}: {e}", seed()));
                }
            }
        }
    });
}

const CLEAR: [Step; 3] = [
    Step::Delete("one", &[]),
    Step::Delete("two", &[]),
    Step::Gc { all: true },
];

#[test]
fn a_snapshot_is_made_while_all_that_it_shares_is_deleted_and_collected() {
    meet(
        "create and gc",
        &history(),
        &Step::Create("four", &[]),
        &CLEAR,
        &[],
    );
}

#[test]
fn gc_meets_a_snapshot_that_takes_up_what_it_was_to_drop() {
    let before = [
        &history()[..],
        &[Step::Goto("one", &[]), Step::Delete("one", &[])],
    ]
    .concat();
    let others = [Step::Create("four", &[])];
    meet(
        "gc and create",
        &before,
        &Step::Gc { all: true },
        &others,
        &[],
    );
}

#[test]
fn two_gcs_meet() {
    let before = [&history()[..], &[Step::Delete("one", &[])]].concat();
    let others = [Step::Delete("two", &["a"]), Step::Gc { all: true }];
    meet("gc and gc", &before, &Step::Gc { all: true }, &others, &[]);
}

#[test]
fn going_to_a_snapshot_that_is_being_deleted() {
    let excused = [ErrorKind::Busy, ErrorKind::Refused, ErrorKind::NotFound];
    meet(
        "goto and gc",
        &history(),
        &Step::Goto("one", &[]),
        &CLEAR,
        &excused,
    );
}

#[test]
fn two_snapshots_are_made_at_once() {
    let others = [Step::Create("five", &["b"]), Step::Create("six", &["a"])];
    meet(
        "create and create",
        &history(),
        &Step::Create("four", &[]),
        &others,
        &[],
    );
}
