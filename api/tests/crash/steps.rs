//! What a workload does, and what must be true afterwards.

use crate::bench::{Machine, painted, repainted};
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;
use stillpoint_api::store::ops::gc;
use stillpoint_api::store::progress::Progress;
use stillpoint_api::store::tuning::Tuning;
use stillpoint_api::{Create, Error, Import, Result, System};

type Bytes = Arc<Vec<u8>>;

/// One step; names of devices are names of their images too.
#[derive(Debug, Clone)]
pub enum Step {
    Add(&'static str),
    Remove(&'static str),
    /// A snapshot on these devices, or on all.
    Create(&'static str, &'static [&'static str]),
    Goto(&'static str, &'static [&'static str]),
    Delete(&'static str, &'static [&'static str]),
    Gc {
        all: bool,
    },
    /// Of an image into a device of another name.
    Import(&'static str, &'static str, &'static str),
    /// The guest writes to its image; no point to crash at.
    Guest(&'static str, u64),
    /// A new image of so many bytes.
    Image(&'static str, u64, usize),
}

/// What there is.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Expect {
    /// Devices that have an image.
    pub attached: BTreeSet<String>,
    /// Devices that have none, and what they hold.
    pub heads: BTreeMap<String, Bytes>,
    pub snapshots: BTreeMap<(String, String), Bytes>,
    pub images: BTreeMap<String, Bytes>,
}

pub fn path_of(image: &str) -> String {
    format!("/images/{image}")
}

fn names(devices: &[&str]) -> Vec<String> {
    devices.iter().map(ToString::to_string).collect()
}

impl Step {
    pub fn run(&self, machine: &Machine, system: &System, before: &Expect) -> Result<()> {
        let progress = Progress::default();
        match *self {
            Self::Add(d) => system.device_add(d, Path::new(&path_of(d)), "raw", false),
            Self::Remove(d) => system.device_remove(d),
            Self::Create(name, devices) => {
                let create = Create {
                    name: Some(name.into()),
                    devices: names(devices),
                    changed: None,
                    ..Create::default()
                };
                system.create(&create, &progress).map(drop)
            }
            Self::Goto(name, devices) => system.goto(name, &names(devices), &progress).map(drop),
            Self::Delete(name, devices) => system
                .delete(name, &names(devices), false, &progress)
                .map(drop),
            Self::Gc { all } => system
                .store()
                .gc(
                    gc::Options {
                        all,
                        dry_run: false,
                    },
                    &progress,
                )
                .map(drop),
            Self::Import(image, device, name) => {
                let image = path_of(image);
                let import = Import {
                    image: Path::new(&image),
                    device,
                    name: Some(name),
                };
                system.import(&import, &progress).map(drop)
            }
            Self::Guest(image, _) | Self::Image(image, ..) => {
                machine.write(&path_of(image), &before.after(self).images[image])
            }
        }
    }

    pub fn is_guest(&self) -> bool {
        matches!(self, Self::Guest(..) | Self::Image(..))
    }
}

impl Expect {
    /// What there is once the step is done.
    pub fn after(&self, step: &Step) -> Self {
        self.after_step_of(step, self)
    }

    /// The same for a step that began when there was `begun`.
    pub fn after_step_of(&self, step: &Step, begun: &Self) -> Self {
        let mut next = self.clone();
        let key = |d: &str, name: &str| (d.to_owned(), name.to_owned());
        let all = |devices: &[&str]| match devices {
            [] => self.attached.iter().cloned().collect(),
            some => names(some),
        };
        match *step {
            Step::Add(d) => drop(next.attached.insert(d.into())),
            Step::Remove(d) => drop(next.attached.remove(d)),
            Step::Create(name, devices) => {
                for d in all(devices) {
                    next.snapshots
                        .insert(key(&d, name), self.images[&d].clone());
                }
            }
            Step::Goto(name, devices) => {
                for d in all(devices) {
                    next.images
                        .insert(d.clone(), begun.snapshots[&key(&d, name)].clone());
                }
            }
            Step::Delete(name, []) => next.snapshots.retain(|(_, n), _| n != name),
            Step::Delete(name, devices) => {
                next.snapshots
                    .retain(|(d, n), _| n != name || !devices.contains(&d.as_str()));
            }
            Step::Gc { .. } => {}
            Step::Import(image, device, name) => {
                next.heads.insert(device.into(), self.images[image].clone());
                next.snapshots
                    .insert(key(device, name), self.images[image].clone());
            }
            Step::Guest(image, seed) => {
                let new = repainted(&self.images[image], seed);
                next.images.insert(image.into(), Arc::new(new));
            }
            Step::Image(image, seed, bytes) => {
                next.images
                    .insert(image.into(), Arc::new(painted(seed, bytes)));
            }
        }
        next
    }
}

/// How far a workload came.
pub struct Trace {
    /// What was acknowledged.
    pub sure: Expect,
    /// The steps that failed, and how.
    pub failed: Vec<(Step, Error)>,
}

impl Trace {
    pub fn of(from: &Expect) -> Self {
        Self {
            sure: from.clone(),
            failed: Vec::new(),
        }
    }

    /// Takes a step; false when it fails.
    pub fn take(&mut self, machine: &Machine, system: &System, step: &Step) -> bool {
        match step.run(machine, system, &self.sure) {
            Ok(()) => {
                self.sure = self.sure.after(step);
                true
            }
            Err(e) => {
                self.failed.push((step.clone(), e));
                false
            }
        }
    }

    /// What may be there now: each step that failed was done, or was not. `None` where a guest was cut off.
    pub fn allowed(&self) -> Option<Vec<Expect>> {
        let mut allowed = vec![self.sure.clone()];
        for (step, _) in &self.failed {
            if step.is_guest() {
                return None;
            }
            let done: Vec<Expect> = allowed.iter().map(|e| e.after(step)).collect();
            allowed.extend(done);
        }
        Some(allowed)
    }
}

/// Runs the steps until one fails.
pub fn run(machine: &Machine, from: &Expect, steps: &[Step]) -> Trace {
    let system = match machine.open() {
        Ok(system) => system,
        Err(e) => panic!("a store that was left well opens: {e:?}"),
    };
    run_on(&system, machine, from, steps)
}

/// The same on a store that is open.
pub fn run_on(system: &System, machine: &Machine, from: &Expect, steps: &[Step]) -> Trace {
    let mut trace = Trace::of(from);
    let _all_done = steps.iter().all(|step| trace.take(machine, system, step));
    trace
}

/// A machine after these steps, none of which may fail.
pub fn prepared(seed: u64, tuning: Tuning, steps: &[Step]) -> (Machine, Expect) {
    let machine = Machine::new(seed, tuning);
    let trace = run(&machine, &Expect::default(), steps);
    assert!(
        trace.failed.is_empty(),
        "on a good disk: {:?}",
        trace.failed
    );
    (machine, trace.sure)
}

/// Three devices with two snapshots each and one with three; the later ones hold much that is not shared.
pub fn history() -> Vec<Step> {
    vec![
        Step::Image("a", 1, 24 * 4096),
        Step::Image("b", 2, 20 * 4096 + 1),
        Step::Image("c", 3, 24 * 4096 - 1),
        Step::Add("a"),
        Step::Add("b"),
        Step::Add("c"),
        Step::Create("one", &[]),
        Step::Guest("a", 3),
        Step::Guest("b", 4),
        Step::Create("two", &[]),
        Step::Guest("a", 5),
        Step::Create("three", &["a"]),
        Step::Guest("a", 8),
        Step::Guest("b", 7),
    ]
}
