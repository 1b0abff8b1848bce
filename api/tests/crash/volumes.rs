//! Volumes on a disk that crashes: what was flushed is there, what was not may be, snapshots are whole, and heads too.

use crate::bench::{Dice, Machine, alone, painted, points, seed, small};
use crate::check::{difference, doing, ensure};
use std::collections::BTreeMap;
use std::ops::Range;
use std::path::Path;
use stillpoint_api::store::disk::sim::{CrashMode, Lie};
use stillpoint_api::store::ops::gc;
use stillpoint_api::store::progress::Progress;
use stillpoint_api::{Create, Error, Output, Result, System, VolumeSource, Volumes};

pub type Bytes = Vec<u8>;
pub type Found<T> = std::result::Result<T, String>;

pub const BLOCK: u64 = 4096;

/// One step, through volumes that stay open from step to step.
#[derive(Debug, Clone)]
pub enum Step {
    Empty(&'static str, u64),
    Clone(&'static str, &'static str),
    /// What a guest does, by a seed.
    Guest(&'static str, u64),
    Flush(&'static str),
    Snap(&'static str, &'static [&'static str]),
    Goto(&'static str, &'static [&'static str]),
    Resize(&'static str, u64),
    Remove(&'static str),
    HandOver(&'static str),
    Delete(&'static str),
    Gc,
    /// The program ends and begins again.
    Restart,
}

/// What a guest does to a disk of `size` bytes.
#[derive(Debug)]
enum Act {
    Write(u64, Bytes),
    Zero(Range<u64>, bool),
    Discard(Range<u64>),
}

fn acts(seed: u64, size: u64) -> Vec<Act> {
    let mut dice = Dice(seed);
    let count = 2 + dice.below(4);
    (0..count)
        .map(|n| {
            let from = dice.below(size);
            let to = from + 1 + dice.below((size - from).min(5 * BLOCK));
            let aligned = from / BLOCK * BLOCK..(to.next_multiple_of(BLOCK)).min(size);
            let range = if dice.below(2) == 0 {
                from..to
            } else {
                aligned
            };
            match dice.below(6) {
                0 => Act::Zero(range, dice.below(2) == 0),
                1 => Act::Discard(range),
                _ => {
                    let bytes = painted(seed * 100 + n, (range.end - range.start) as usize);
                    Act::Write(range.start, bytes)
                }
            }
        })
        .collect()
}

fn act_on(disk: &mut Bytes, act: &Act) {
    let size = disk.len() as u64;
    let mut fill = |range: Range<u64>, bytes: &[u8]| {
        disk[range.start as usize..range.end as usize].copy_from_slice(bytes);
    };
    match act {
        Act::Write(at, bytes) => fill(*at..*at + bytes.len() as u64, bytes),
        Act::Zero(range, _) => fill(range.clone(), &vec![0; (range.end - range.start) as usize]),
        Act::Discard(range) => {
            let from = range.start.next_multiple_of(BLOCK);
            let to = if range.end == size {
                size
            } else {
                range.end / BLOCK * BLOCK
            };
            if from < to {
                fill(from..to, &vec![0; (to - from) as usize]);
            }
        }
    }
}

/// What there is. Of each volume all that it may hold after a crash; the last is what it holds now.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Expect {
    pub volumes: BTreeMap<String, Vec<Bytes>>,
    snapshots: BTreeMap<(String, String), Bytes>,
}

impl Expect {
    fn now(&self, volume: &str) -> &Bytes {
        self.volumes[volume].last().unwrap()
    }

    fn settle(&mut self, volume: &str) {
        let now = self.now(volume).clone();
        self.volumes.insert(volume.into(), vec![now]);
    }

    fn names(&self, devices: &[&str]) -> Vec<String> {
        match devices {
            [] => self.volumes.keys().cloned().collect(),
            some => some.iter().map(ToString::to_string).collect(),
        }
    }

    pub fn after(&self, step: &Step) -> Self {
        let mut next = self.clone();
        let key = |d: &str, s: &str| (d.to_owned(), s.to_owned());
        match *step {
            Step::Empty(name, size) => {
                let empty = vec![0; size as usize];
                next.volumes.insert(name.into(), vec![empty]);
            }
            Step::Clone(name, from) => {
                let bytes = if let Some((d, s)) = from.split_once('@') {
                    self.snapshots[&key(d, s)].clone()
                } else {
                    next.settle(from);
                    self.now(from).clone()
                };
                next.volumes.insert(name.into(), vec![bytes]);
            }
            Step::Guest(name, seed) => {
                let all = next.volumes.get_mut(name).unwrap();
                let mut now = all.last().unwrap().clone();
                let size = now.len() as u64;
                for act in acts(seed, size) {
                    act_on(&mut now, &act);
                    all.push(now.clone());
                }
            }
            Step::Flush(name) | Step::HandOver(name) => next.settle(name),
            Step::Snap(snap, devices) => {
                for d in self.names(devices) {
                    next.snapshots.insert(key(&d, snap), self.now(&d).clone());
                    next.settle(&d);
                }
            }
            Step::Goto(snap, devices) => {
                for d in self.names(devices) {
                    let bytes = self.snapshots[&key(&d, snap)].clone();
                    next.volumes.insert(d, vec![bytes]);
                }
            }
            Step::Resize(name, size) => {
                let all = next.volumes.get_mut(name).unwrap();
                let shrinks = (size as usize) < all[0].len();
                all.iter_mut().for_each(|b| b.resize(size as usize, 0));
                if shrinks {
                    next.settle(name);
                }
            }
            Step::Remove(name) => drop(next.volumes.remove(name)),
            Step::Delete(snap) => next.snapshots.retain(|(_, s), _| s != snap),
            Step::Gc => {}
            Step::Restart => self.volumes.keys().for_each(|v| next.settle(v)),
        }
        next
    }
}

pub fn uid(system: &System, name: &str) -> Result<stillpoint_api::store::id::Uid> {
    system.volume_named(name)
}

pub fn guest(volumes: &Volumes<'_>, system: &System, name: &str, seed: u64) -> Result<()> {
    let volume = volumes.volume(&uid(system, name)?)?;
    for act in acts(seed, volume.size()) {
        match act {
            Act::Write(at, bytes) => volume.write_at(at, &bytes)?,
            Act::Zero(r, unmap) => volume.write_zeroes(r.start, r.end - r.start, unmap)?,
            Act::Discard(r) => volume.discard(r.start, r.end - r.start)?,
        }
    }
    Ok(())
}

pub fn take(system: &System, volumes: &Volumes<'_>, step: &Step) -> Result<()> {
    let progress = Progress::default();
    let names = |devices: &[&str]| devices.iter().map(ToString::to_string).collect::<Vec<_>>();
    match *step {
        Step::Empty(name, size) => system
            .volume_create_on(volumes, name, VolumeSource::Empty(size), &progress)
            .map(drop),
        Step::Clone(name, from) => system
            .volume_create_on(volumes, name, VolumeSource::From(from), &progress)
            .map(drop),
        Step::Guest(name, seed) => guest(volumes, system, name, seed),
        Step::Flush(name) => volumes.volume(&uid(system, name)?)?.flush(),
        Step::Snap(snap, devices) => {
            let create = Create {
                name: Some(snap.into()),
                devices: names(devices),
                ..Create::default()
            };
            system
                .create_on(volumes, &create, None, &progress)
                .map(drop)
        }
        Step::Goto(snap, devices) => system
            .goto_on(volumes, snap, &names(devices), &progress)
            .map(drop),
        Step::Resize(name, size) => volumes.resize(&uid(system, name)?, size, &progress),
        Step::Remove(name) => volumes.remove(&uid(system, name)?),
        Step::HandOver(name) => volumes.hand_over(&uid(system, name)?, &progress),
        Step::Delete(snap) => system.delete(snap, &[], false, &progress).map(drop),
        Step::Gc => system
            .store()
            .gc(
                gc::Options {
                    all: true,
                    dry_run: false,
                },
                &progress,
            )
            .map(drop),
        Step::Restart => Ok(()),
    }
}

/// How far the steps came: what was acknowledged, and the step that failed.
pub struct Trace {
    pub sure: Expect,
    pub failed: Option<(Step, Error)>,
}

impl Trace {
    fn allowed(&self) -> Vec<Expect> {
        let failed = self.failed.iter().map(|(step, _)| self.sure.after(step));
        let mut allowed: Vec<Expect> = failed.collect();
        // What a guest was cut off at it may have done in part.
        if !matches!(self.failed, Some((Step::Guest(..), _))) {
            allowed.push(self.sure.clone());
        }
        allowed
    }
}

pub fn run(machine: &Machine, from: &Expect, steps: &[Step]) -> Trace {
    let mut sure = from.clone();
    for part in steps.split(|step| matches!(step, Step::Restart)) {
        let failed = |step: &Step, e| Some((step.clone(), e));
        let system = match machine.open() {
            Ok(system) => system,
            Err(e) => {
                return Trace {
                    sure,
                    failed: failed(&Step::Restart, e),
                };
            }
        };
        let volumes = system.volumes().unwrap();
        for step in part {
            if let Err(e) = take(&system, &volumes, step) {
                return Trace {
                    sure,
                    failed: failed(step, e),
                };
            }
            sure = sure.after(step);
        }
        drop(volumes);
        if machine.disk.has_crashed() {
            // The end of a program, which closes its volumes, is no step of its own.
            break;
        }
        sure = sure.after(&Step::Restart);
    }
    Trace { sure, failed: None }
}

pub fn read_all(volumes: &Volumes<'_>, system: &System, name: &str) -> Result<Bytes> {
    let volume = volumes.volume(&uid(system, name)?)?;
    let mut bytes = vec![0; volume.size() as usize];
    volume.read_at(0, &mut bytes)?;
    Ok(bytes)
}

fn snapshot(system: &System, reference: &str) -> Result<Bytes> {
    let mut out = Vec::new();
    system.export(reference, Output::Stream(&mut out), &Progress::default())?;
    Ok(out)
}

/// What is there, if it is what `expect` says: its volumes then hold what was found.
fn matches(system: &System, expect: &Expect) -> Found<Expect> {
    let volumes = doing(system.volumes(), "opening volumes")?;
    matches_on(system, &volumes, expect)
}

/// The same through volumes that are open.
pub fn matches_on(system: &System, volumes: &Volumes<'_>, expect: &Expect) -> Found<Expect> {
    let devices = doing(system.devices(), "listing devices")?;
    let there: Vec<String> = devices
        .iter()
        .filter(|d| d.volume)
        .map(|d| d.name.clone())
        .collect();
    ensure(there.iter().eq(expect.volumes.keys()), || {
        format!("volumes {there:?}")
    })?;
    let listed = doing(system.list(None), "listing snapshots")?;
    let mut all: Vec<_> = listed.into_iter().map(|s| (s.device, s.name)).collect();
    all.sort();
    ensure(all.iter().eq(expect.snapshots.keys()), || {
        format!("snapshots {all:?}")
    })?;
    for ((d, s), wanted) in &expect.snapshots {
        let found = doing(snapshot(system, &format!("{d}@{s}")), "restoring")?;
        ensure(found == *wanted, || {
            format!("{d}@{s}: {}", difference(&found, wanted))
        })?;
    }
    let mut found = expect.clone();
    for (name, may) in &expect.volumes {
        let bytes = doing(read_all(volumes, system, name), &format!("reading {name}"))?;
        ensure(may.contains(&bytes), || {
            format!("{name}: {}", difference(&bytes, may.last().unwrap()))
        })?;
        found.volumes.insert(name.clone(), vec![bytes]);
    }
    Ok(found)
}

/// It is one of those allowed, and works on.
pub fn check(machine: &Machine, allowed: &[Expect]) -> Found<()> {
    let system = doing(machine.open(), "opening the store")?;
    let mut why = String::new();
    let found = allowed
        .iter()
        .find_map(|e| matches(&system, e).map_err(|e| why = e).ok());
    let Some(found) = found else { return Err(why) };
    let report = doing(system.store().verify(&Progress::default()), "verifying")?;
    ensure(report.is_good(), || {
        format!("verify finds damage: {report:?}")
    })?;
    drop(system);
    let mut more = Vec::new();
    let known = ["a", "b", "c"]
        .into_iter()
        .filter(|v| found.volumes.contains_key(*v));
    for name in known {
        more.extend([
            Step::Guest(name, 99),
            Step::Flush(name),
            Step::Guest(name, 98),
        ]);
    }
    if !found.volumes.is_empty() {
        more.extend([Step::Snap("later", &[]), Step::Gc, Step::Restart]);
    }
    let trace = run(machine, &found, &more);
    if let Some((step, e)) = trace.failed {
        return Err(format!("going on with {step:?}: {e:?}"));
    }
    let system = doing(machine.open(), "opening again")?;
    matches(&system, &trace.sure)
        .map(drop)
        .map_err(|e| format!("going on: {e}"))
}

/// Crashes at about `limit` calls of the steps, in every mode.
fn crash_everywhere(limit: u64, before: &[Step], steps: &[Step]) {
    alone(|| {
        let template = Machine::new(seed(), small());
        let from = run(&template, &Expect::default(), before);
        assert!(from.failed.is_none(), "{:?}", from.failed);
        let whole = template.copy();
        let trace = run(&whole, &from.sure, steps);
        assert!(trace.failed.is_none(), "{:?}", trace.failed);
        let calls = whole.disk.calls();
        check(&whole, &[trace.sure]).unwrap();
        for k in points(calls, limit) {
            let machine = template.copy();
            machine.disk.crash_at(k);
            let trace = run(&machine, &from.sure, steps);
            let allowed = trace.allowed();
            let at = trace.failed.as_ref().map(|(step, _)| step.clone());
            for mode in CrashMode::ALL {
                let after = machine.restart(mode, machine.index.copy());
                if let Err(e) = check(&after, &allowed) {
                    panic!(
                        "call {k} of {calls} in {at:?}, {mode:?}, seed {}: {e}",
                        seed()
                    );
                }
            }
        }
    });
}

pub const TWO: [Step; 6] = [
    Step::Empty("a", 12 * BLOCK + 700),
    Step::Empty("b", 9 * BLOCK),
    Step::Guest("a", 1),
    Step::Guest("b", 2),
    Step::Snap("one", &[]),
    Step::Guest("a", 3),
];

#[test]
fn volumes_that_are_made_written_and_flushed() {
    let steps = [
        Step::Empty("a", 12 * BLOCK + 700),
        Step::Guest("a", 1),
        Step::Flush("a"),
        Step::Guest("a", 2),
        Step::Guest("a", 3),
        Step::Flush("a"),
        Step::Restart,
        Step::Guest("a", 4),
        Step::Flush("a"),
    ];
    crash_everywhere(80, &[], &steps);
}

#[test]
fn a_group_of_volumes_is_snapshotted_while_it_is_written() {
    let steps = [
        Step::Guest("b", 5),
        Step::Flush("a"),
        Step::Snap("two", &[]),
        Step::Guest("a", 6),
        Step::Flush("a"),
        Step::Snap("three", &["a"]),
        Step::Snap("four", &[]),
    ];
    crash_everywhere(80, &TWO, &steps);
}

#[test]
fn volumes_go_to_a_snapshot() {
    let steps = [
        Step::Flush("a"),
        Step::Goto("one", &["a", "b"]),
        Step::Guest("a", 7),
        Step::Flush("a"),
        Step::Goto("one", &["a"]),
        Step::Guest("a", 8),
        Step::Flush("a"),
    ];
    crash_everywhere(80, &TWO, &steps);
}

#[test]
fn volumes_grow_and_shrink() {
    let steps = [
        Step::Resize("a", 20 * BLOCK),
        Step::Guest("a", 7),
        Step::Flush("a"),
        Step::Resize("a", 5 * BLOCK + 100),
        Step::Guest("a", 8),
        Step::Resize("a", 8 * BLOCK),
        Step::Snap("two", &["a"]),
    ];
    crash_everywhere(80, &TWO, &steps);
}

#[test]
fn volumes_are_cloned_moved_and_removed() {
    let steps = [
        Step::Clone("c", "a@one"),
        Step::Guest("c", 9),
        Step::Flush("c"),
        Step::Remove("b"),
        Step::Clone("b2", "a"),
        Step::HandOver("c"),
        Step::Guest("c", 10),
        Step::Delete("one"),
        Step::Gc,
        Step::Remove("c"),
    ];
    crash_everywhere(80, &TWO, &steps);
}

#[test]
fn what_is_left_of_a_volume_that_was_cut_off_is_removed_by_the_next_one() {
    alone(|| {
        let template = Machine::new(seed(), small());
        let trace = run(&template, &Expect::default(), &TWO[..1]);
        let before = template.disk.calls();
        let whole = template.copy();
        let first = whole.disk.calls();
        run(&whole, &trace.sure, &TWO[1..2]);
        let calls = whole.disk.calls() - first;
        assert!(calls > 5 && before > 0);
        for k in 1..=calls {
            let machine = template.copy();
            machine.disk.crash_at(k);
            run(&machine, &trace.sure, &TWO[1..2]);
            let after = machine.restart(CrashMode::AllUnsynced, machine.index.copy());
            let system = after.open().unwrap();
            let source = VolumeSource::Empty(BLOCK);
            let made = system.volume_create("c", source, &Progress::default());
            made.unwrap();
            let volumes = system.devices().unwrap().len();
            let locks = after.paths("/store/local/volumes/");
            let folders = locks.iter().filter(|p| p.ends_with("lock")).count();
            assert_eq!(folders, volumes, "call {k}: {locks:?}");
        }
    });
}

/// Whether some crash loses what was flushed, with this sync left out.
fn loses(lie: Lie, prefix: &str) -> bool {
    let steps = [
        Step::Guest("a", 5),
        Step::Flush("a"),
        Step::Snap("two", &[]),
        Step::Guest("a", 6),
        Step::Flush("a"),
        Step::Goto("one", &["b"]),
    ];
    alone(|| {
        let template = Machine::new(seed(), small());
        let from = run(&template, &Expect::default(), &TWO);
        let visit = |k: u64| {
            let machine = template.copy();
            machine.disk.crash_at(k);
            machine.disk.lie(lie, prefix);
            let trace = run(&machine, &from.sure, &steps);
            let calls = machine.disk.calls();
            let modes = [CrashMode::NothingUnsynced, CrashMode::NamesBeforeData];
            let lost = modes.into_iter().any(|mode| {
                let after = machine.restart(mode, machine.index.copy());
                check(&after, &trace.allowed()).is_err()
            });
            (lost, calls)
        };
        let (lost, calls) = visit(u64::MAX);
        lost || points(calls, 60).into_iter().any(|k| visit(k).0)
    })
}

#[test]
fn contents_and_names_of_overlays_are_synced() {
    assert!(
        !loses(Lie::FileSync, "/nowhere"),
        "what follows would prove nothing"
    );
    assert!(loses(Lie::FileSync, "/store/local/volumes"));
    assert!(loses(Lie::FolderSync, "/store/local/volumes"));
}

#[test]
fn a_volume_is_refused_where_its_overlays_are_not() {
    alone(|| {
        let machine = Machine::new(seed(), small());
        let trace = run(&machine, &Expect::default(), &TWO);
        assert!(trace.failed.is_none());
        let overlays: Vec<String> = machine
            .paths("/store/local/volumes/")
            .into_iter()
            .filter(|path| !path.ends_with("lock"))
            .collect();
        for path in &overlays {
            let copy = machine.copy();
            copy.disk.remove_at_rest(Path::new(path));
            let system = copy.open().unwrap();
            let volumes = system.volumes().unwrap();
            let opened: Vec<_> = ["a", "b"]
                .iter()
                .map(|name| volumes.volume(&uid(&system, name).unwrap()).map(drop))
                .collect();
            let refused = |r: &Result<()>| {
                r.as_ref()
                    .is_err_and(|e| e.kind() == stillpoint_api::ErrorKind::Refused)
            };
            assert_eq!(opened.iter().filter(|r| refused(r)).count(), 1, "{path}");
        }
        let copy = machine.copy();
        copy.disk.remove_at_rest(Path::new("/store/local/id"));
        let system = copy.open().unwrap();
        let a = uid(&system, "a").unwrap();
        let refused = system.volumes().unwrap().volume(&a).map(drop).unwrap_err();
        assert_eq!(refused.kind(), stillpoint_api::ErrorKind::Refused);
        system.volume_take("a").unwrap();
        let volumes = system.volumes().unwrap();
        let found = read_all(&volumes, &system, "a").unwrap();
        let one = &trace.sure.snapshots[&("a".to_owned(), "one".to_owned())];
        assert_eq!(found, *one, "as it was in the store");
    });
}
