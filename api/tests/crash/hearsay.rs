//! A process that is killed between writing an entry and making it durable; another sees the entry and acts on it; then
//! the machine crashes. What the other did must not outlive what it was done for.

use crate::bench::{Machine, alone, points, seed, small};
use crate::check::check;
use crate::hook::Interruption;
use crate::steps::{Expect, Step, history, prepared, run};
use crate::watch::{Watch, Watched};
use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use stillpoint_api::store::disk::Disk;
use stillpoint_api::store::disk::sim::CrashMode;
use stillpoint_api::store::ops::gc;
use stillpoint_api::store::progress::Progress;
use stillpoint_api::{Error, ErrorKind, Result};

/// Ends its process as soon as the `at`th entry is written: no call gets through after that.
struct Killed {
    at: u64,
    entries: AtomicU64,
    dead: AtomicBool,
}

impl Watch for Killed {
    fn before(&self, put: Option<&str>) -> Result<()> {
        if self.entries.load(Relaxed) >= self.at {
            self.dead.store(true, Relaxed);
            return Err(Error::new(ErrorKind::Io, "calling the store").detail("killed"));
        }
        if put.is_some_and(|key| key.starts_with("log/")) {
            self.entries.fetch_add(1, Relaxed);
        }
        Ok(())
    }
}

fn collect(machine: &Machine, store: Arc<Watched<impl Watch + 'static>>) -> Result<()> {
    let options = gc::Options {
        all: true,
        dry_run: false,
    };
    let system = machine.open_over(store.clone(), store)?;
    system.store().gc(options, &Progress::default()).map(drop)
}

/// Lets another come before the `at`th call, and ends its own process before it writes anything after that.
struct Interrupted {
    other: Interruption,
    at: u64,
}

impl Watch for Interrupted {
    fn before(&self, put: Option<&str>) -> Result<()> {
        if put.is_some() && self.other.calls() >= self.at {
            return Err(Error::new(ErrorKind::Io, "calling the store").detail("killed"));
        }
        self.other.before(put)
    }
}

const DELETED: [Step; 2] = [Step::Delete("one", &[]), Step::Delete("two", &["a"])];

/// A gc that has nothing to do. Before its `at`th call something is deleted, another gc is killed at its `entry`th entry,
/// and then it is killed itself before it writes again. Returns the calls of the one and the entries of the other.
fn two_gcs(machine: &Arc<Machine>, from: &Expect, at: u64, entry: u64) -> (u64, u64) {
    let other = Arc::new(Watched {
        folder: machine.objects().unwrap(),
        watch: Killed {
            at: entry,
            entries: AtomicU64::new(0),
            dead: AtomicBool::new(false),
        },
    });
    let (there, store) = (machine.clone(), other.clone());
    let from = from.clone();
    let hook = move || {
        assert!(run(&there, &from, &DELETED).failed.is_empty());
        let done = collect(&there, store.clone());
        assert!(done.is_ok() || store.watch.dead.load(Relaxed), "{done:?}");
    };
    let first = Arc::new(Watched {
        folder: machine.objects().unwrap(),
        watch: Interrupted {
            other: Interruption::before(at, Box::new(hook)),
            at,
        },
    });
    let done = collect(machine, first.clone());
    let calls = first.watch.other.calls();
    assert!(done.is_ok() || calls >= at, "on a good disk: {done:?}");
    first.watch.other.forget();
    (calls, other.watch.entries.load(Relaxed))
}

#[test]
fn gc_sweeps_nothing_on_the_word_of_an_entry_that_a_crash_can_take_back() {
    alone(|| {
        let (template, from) = prepared(seed(), small(), &history());
        let after = run(&template.copy(), &from, &DELETED).sure;
        let (calls, _) = two_gcs(&Arc::new(template.copy()), &from, u64::MAX, u64::MAX);
        let (_, entries) = two_gcs(&Arc::new(template.copy()), &from, 1, u64::MAX);
        for at in points(calls, u64::MAX) {
            for entry in 1..=entries {
                let machine = Arc::new(template.copy());
                two_gcs(&machine, &from, at, entry);
                // That the bytes are gone is what survives by chance.
                let packs = machine.paths("/store/packs/");
                let folders: BTreeSet<_> = packs.iter().map(|p| Path::new(p).parent()).collect();
                for folder in folders.into_iter().flatten() {
                    machine.disk.sync_folder(folder).unwrap();
                }
                let left = machine.restart(CrashMode::NothingUnsynced, machine.index.copy());
                check(left, std::slice::from_ref(&after), at).unwrap_or_else(|e| {
                    panic!("before call {at} of {calls}, entry {entry} of {entries}: {e}")
                });
            }
        }
    });
}
