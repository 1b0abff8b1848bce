//! Whether what is on a disk is what may be there. Says what is wrong rather than panic, since some tests want to hear it.

use crate::bench::{CLUSTER, Machine};
use crate::steps::{Expect, Step, path_of};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Debug;
use stillpoint_api::store::format::entry::GotoResult;
use stillpoint_api::store::ops::gc;
use stillpoint_api::store::progress::Progress;
use stillpoint_api::{ErrorKind, Output, System};

type Found<T> = Result<T, String>;

pub fn ensure(good: bool, why: impl FnOnce() -> String) -> Found<()> {
    if good { Ok(()) } else { Err(why()) }
}

/// Names what was being done when an operation failed.
pub fn doing<T, E: Debug>(result: Result<T, E>, what: &str) -> Found<T> {
    result.map_err(|e| format!("{what}: {e:?}"))
}

/// What the catalog lists.
#[derive(Debug)]
struct Seen {
    attached: BTreeSet<String>,
    heads: BTreeSet<String>,
    marked: BTreeSet<String>,
    snapshots: BTreeSet<(String, String)>,
}

impl Seen {
    fn of(system: &System) -> Found<Self> {
        let devices = doing(system.devices(), "listing devices")?;
        let listed = doing(system.list(None), "listing snapshots")?;
        let with = |image: bool| {
            let chosen = devices.iter().filter(move |d| d.image.is_some() == image);
            chosen.map(|d| d.name.clone()).collect()
        };
        let snapshots: BTreeSet<_> = listed
            .iter()
            .map(|s| (s.device.clone(), s.name.clone()))
            .collect();
        ensure(snapshots.len() == listed.len(), || {
            "a snapshot is there twice".into()
        })?;
        Ok(Self {
            attached: with(true),
            heads: with(false),
            marked: devices
                .iter()
                .filter(|d| d.in_goto)
                .map(|d| d.name.clone())
                .collect(),
            snapshots,
        })
    }

    fn is(&self, expect: &Expect) -> bool {
        self.attached == expect.attached
            && self.heads.iter().eq(expect.heads.keys())
            && self.snapshots.iter().eq(expect.snapshots.keys())
    }
}

/// Checks everything, with whatever has to be recovered recovered; returns what turned out to be there. The machine is
/// used up.
pub fn check(machine: Machine, allowed: &[Expect], point: u64) -> Found<(Machine, Expect)> {
    let (machine, expect) = settle(machine, allowed, point)?;
    sound(&machine, &expect)?;
    works_on(&machine, &expect, point)?;
    Ok((machine, expect))
}

/// Finds out which of the allowed it is; ends a goto that was cut off.
pub fn settle(machine: Machine, allowed: &[Expect], point: u64) -> Found<(Machine, Expect)> {
    let system = doing(machine.open(), "opening the store")?;
    let seen = Seen::of(&system)?;
    let mut fitting: Vec<&Expect> = Vec::new();
    for expect in allowed.iter().filter(|e| seen.is(e)) {
        if !fitting.contains(&expect) {
            fitting.push(expect);
        }
    }
    ensure(!fitting.is_empty(), || {
        format!("the catalog is none that may be: {seen:?}")
    })?;
    restore_all(&system, fitting[0])?;
    drop(system);
    if !seen.marked.is_empty() {
        return resume(&machine, &fitting, &seen.marked, point);
    }
    let found = fitting.iter().find(|e| images_are(&machine, e).is_ok());
    if let Some(expect) = found {
        let expect = Expect::clone(expect);
        Ok((machine, expect))
    } else {
        let why = images_are(&machine, fitting[0]).err().unwrap_or_default();
        Err(format!("the images are none that may be, as: {why}"))
    }
}

fn images_are(machine: &Machine, expect: &Expect) -> Found<()> {
    for (name, wanted) in &expect.images {
        let found = doing(machine.read(&path_of(name)), "reading an image")?;
        ensure(found == **wanted, || {
            format!("image {name}: {}", difference(&found, wanted))
        })?;
    }
    Ok(())
}

pub fn difference(found: &[u8], wanted: &[u8]) -> String {
    let at = found.iter().zip(wanted).position(|(a, b)| a != b);
    format!(
        "{} bytes for {}, other bytes from {at:?} on",
        found.len(),
        wanted.len()
    )
}

/// Every snapshot and head, bit for bit.
pub fn restore_all(system: &System, expect: &Expect) -> Found<()> {
    let snapshots = expect
        .snapshots
        .iter()
        .map(|((d, s), bytes)| (format!("{d}@{s}"), bytes));
    let heads = expect.heads.iter().map(|(d, bytes)| (d.clone(), bytes));
    for (reference, wanted) in snapshots.chain(heads) {
        let mut found = Vec::new();
        let out = Output::Stream(&mut found);
        let restored = system.export(&reference, out, &Progress::default());
        doing(restored, &format!("restoring {reference}"))?;
        ensure(found == **wanted, || {
            format!("{reference}: {}", difference(&found, wanted))
        })?;
    }
    Ok(())
}

/// A goto that was cut off is finished on one copy of the machine and undone on another.
fn resume(
    machine: &Machine,
    fitting: &[&Expect],
    marked: &BTreeSet<String>,
    point: u64,
) -> Found<(Machine, Expect)> {
    let [old, new] = fitting else {
        return Err("a device is marked, without any goto".into());
    };
    ensure(*marked == gone_to(old, new, marked), || {
        format!("{marked:?} are marked")
    })?;
    for name in old.images.keys() {
        let found = doing(machine.read(&path_of(name)), "reading an image")?;
        let both: Vec<&[u8]> = vec![&old.images[name], &new.images[name]];
        untouched(&found, &both).map_err(|e| format!("image {name}, half written: {e}"))?;
    }
    let mut kept = None;
    for (to, wanted) in [(GotoResult::Done, new), (GotoResult::Undone, old)] {
        let copy = machine.copy();
        let system = doing(copy.open(), "opening with a goto cut off")?;
        for name in marked {
            let create = Step::Create("refused", &[]).run(&copy, &system, wanted);
            let refused = create.is_err_and(|e| e.kind() == ErrorKind::Refused);
            ensure(refused, || {
                format!("device {name} is marked, and still used")
            })?;
        }
        let resumed = system.goto_resume(to, &Progress::default());
        doing(resumed, &format!("taking up a goto, to be {to:?}"))?;
        let seen = Seen::of(&system)?;
        ensure(seen.marked.is_empty() && seen.is(wanted), || {
            format!("after {to:?}: {seen:?}")
        })?;
        images_are(&copy, wanted).map_err(|e| format!("after {to:?}: {e}"))?;
        let again = system.goto_resume(to, &Progress::default());
        ensure(
            again.is_err_and(|e| e.kind() == ErrorKind::NotFound),
            || "it ends twice".into(),
        )?;
        drop(system);
        if kept.is_none() || point.is_multiple_of(2) {
            kept = Some((copy, Expect::clone(wanted)));
        }
    }
    kept.ok_or_else(|| "nothing was taken up".into())
}

/// The marked devices whose images may be in between; one whose contents are the same either way may be marked too.
fn gone_to(old: &Expect, new: &Expect, marked: &BTreeSet<String>) -> BTreeSet<String> {
    let differs = |d: &&String| old.images[*d] != new.images[*d] || marked.contains(*d);
    old.attached.iter().filter(differs).cloned().collect()
}

/// Where all contents that a file may have agree, it has that.
fn untouched(found: &[u8], contents: &[&[u8]]) -> Found<()> {
    ensure(contents.iter().any(|c| c.len() == found.len()), || {
        "it has another size".into()
    })?;
    let piece = |bytes: &[u8], i: usize| {
        let end = bytes.len().min((i + 1) * CLUSTER);
        bytes.get(i * CLUSTER..end).unwrap_or_default().to_vec()
    };
    for i in 0..found.len().div_ceil(CLUSTER) {
        let there = piece(found, i);
        let all: Vec<_> = contents.iter().map(|c| piece(c, i)).collect();
        let common = all.iter().all(|c| *c == all[0]);
        ensure(!common || there == all[0], || {
            format!("cluster {i} was not to be touched")
        })?;
    }
    Ok(())
}

/// What must not change when a recovery is done again.
#[derive(Debug, PartialEq)]
struct State {
    packs: Vec<String>,
    listed: BTreeMap<(String, String), String>,
    devices: Vec<(String, Option<String>)>,
}

impl State {
    fn of(machine: &Machine, system: &System) -> Found<Self> {
        let listed = doing(system.list(None), "listing snapshots")?;
        let devices = doing(system.devices(), "listing devices")?;
        Ok(Self {
            packs: machine.paths("/store/packs/"),
            listed: listed
                .iter()
                .map(|s| ((s.device.clone(), s.id.clone()), format!("{s:?}")))
                .collect(),
            devices: devices.into_iter().map(|d| (d.name, d.base)).collect(),
        })
    }
}

/// Verify and gc are content, everything restores before and after, and a second recovery finds nothing to do.
pub fn sound(machine: &Machine, expect: &Expect) -> Found<()> {
    let progress = Progress::default();
    let all = gc::Options {
        all: true,
        dry_run: false,
    };
    let system = doing(machine.open(), "opening again")?;
    // A session whose opening was lost counts as ended once the log has come past it: then its packs can go.
    for _ in 0..2 {
        drop(doing(system.store().pin(&[]), "moving the log on")?);
    }
    let report = doing(system.store().verify(&progress), "verifying")?;
    ensure(report.is_good(), || {
        format!("verify finds damage: {report:?}")
    })?;
    doing(system.store().gc(all, &progress), "gc --all")?;
    restore_all(&system, expect).map_err(|e| format!("after gc: {e}"))?;
    let report = doing(system.store().verify(&progress), "verifying after gc")?;
    ensure(report.is_good(), || {
        format!("verify finds damage after gc: {report:?}")
    })?;
    let once = State::of(machine, &system)?;
    drop(system);

    let system = doing(machine.open(), "opening a third time")?;
    let done = doing(system.store().gc(all, &progress), "gc --all again")?;
    let idle = [
        done.dead_packs,
        done.rewritten_packs,
        done.orphans,
        done.expired,
    ] == [0; 4];
    ensure(idle, || format!("the second gc finds work: {done:?}"))?;
    let twice = State::of(machine, &system)?;
    ensure(once == twice, || format!("{once:?} became {twice:?}"))?;
    let live: BTreeSet<String> = system
        .store()
        .catalog()
        .packs()
        .map(|p| format!("/store/{}", p.name.key()))
        .collect();
    ensure(twice.packs.iter().eq(&live), || {
        format!("files {:?}, live {live:?}", twice.packs)
    })?;
    for folder in ["/store/tmp/", "/store/sessions/"] {
        let left = machine.paths(folder);
        ensure(left.is_empty(), || format!("left behind: {left:?}"))?;
    }
    images_are(machine, expect)
}

/// Life goes on: snapshots are made, gone to and deleted.
fn works_on(machine: &Machine, expect: &Expect, point: u64) -> Found<()> {
    if expect.attached.is_empty() || !point.is_multiple_of(3) {
        return Ok(());
    }
    let system = doing(machine.open(), "opening to go on")?;
    let mut now = expect.clone();
    let image = expect.attached.iter().next().map_or("", |d| {
        ["a", "b", "c"].into_iter().find(|n| n == d).unwrap_or("a")
    });
    let steps = [
        Step::Create("later", &[]),
        Step::Guest(image, 77),
        Step::Goto("later", &[]),
        Step::Delete("later", &[]),
    ];
    for step in &steps {
        doing(
            step.run(machine, &system, &now),
            &format!("going on with {step:?}"),
        )?;
        now = now.after(step);
        images_are(machine, &now)?;
        restore_all(&system, &now).map_err(|e| format!("going on after {step:?}: {e}"))?;
    }
    Ok(())
}
