//! Random sequences of everything that a store can do, against a model that is nothing but a map of pictures. After each
//! step the store lists, restores and measures as the model says.

#![allow(clippy::unwrap_used, reason = "tests")]

mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use stillpoint_api::store::disk::Disk;
use stillpoint_api::store::disk::OpenMode;
use stillpoint_api::store::disk::real::RealDisk;
use stillpoint_api::store::format::entry::{Op, SessionKind};
use stillpoint_api::store::id::Uid;
use stillpoint_api::store::index::memory::{Fault, MemoryHome};
use stillpoint_api::store::object::Purse;
use stillpoint_api::store::object::memory::MemoryObjects;
use stillpoint_api::store::ops::diff::{ChangedExtent, ExtentKind};
use stillpoint_api::store::ops::gc;
use stillpoint_api::store::progress::Progress;
use stillpoint_api::store::store::Store;
use stillpoint_api::store::tuning::Tuning;
use stillpoint_api::{Create, ErrorKind, Import, Output, Result, System};
use support::{
    C, Cell, Dice, GEOMETRY, Picture, SeededWorld, cell, doors, for_seeds, restored, rounds,
};

const ALPHABET: u8 = 20;
const STEPS: usize = 40;

#[derive(Debug, Clone, Default)]
struct Device {
    /// Has an image, which holds this.
    image: Option<Picture>,
    /// Has contents in the store.
    head: Option<Picture>,
    base: Option<Uid>,
    next_id: u64,
}

#[derive(Debug, Clone)]
struct Snapshot {
    uid: Uid,
    id: u64,
    device: String,
    name: String,
    picture: Picture,
    parent: Option<Uid>,
}

/// What the store is to be, and the store.
struct Bench {
    folder: tempfile::TempDir,
    dice: Dice,
    objects: MemoryObjects,
    index: MemoryHome,
    old_index: MemoryHome,
    world: Arc<SeededWorld>,
    tuning: Tuning,
    system: System,
    devices: BTreeMap<String, Device>,
    /// In the order in which they were made.
    snapshots: Vec<Snapshot>,
}

impl Bench {
    fn new(seed: u64) -> Self {
        let mut dice = Dice::new(seed);
        let objects = MemoryObjects::new();
        let world = SeededWorld::new(seed, "model");
        Store::create(&objects, &*world, GEOMETRY).unwrap();
        let mut tuning = Tuning {
            pack_bytes: *dice.pick(&[1, 9_000, 60_000, 32 << 20]),
            packs_in_flight: dice.below(2),
            publish_every: 1 + dice.below(8),
            gc_step_bytes: *dice.pick(&[1, 50_000, 1 << 30]),
            ..Tuning::default()
        };
        tuning.log.checkpoint_every = *dice.pick(&[3, 8, 256]);
        tuning.log.entries_kept = *dice.pick(&[2, 1000]);
        let index = MemoryHome::default();
        let system = open(&objects, &index, &world, tuning);
        Self {
            folder: tempfile::tempdir().unwrap(),
            dice,
            objects,
            old_index: index.copy(),
            index,
            world,
            tuning,
            system,
            devices: BTreeMap::new(),
            snapshots: Vec::new(),
        }
    }

    fn reopen(&mut self) {
        self.system = open(&self.objects, &self.index, &self.world, self.tuning);
    }

    fn path(&self, device: &str) -> PathBuf {
        self.folder.path().join(device)
    }

    fn name(&mut self) -> String {
        format!("n{}", self.dice.below(6))
    }

    fn device(&mut self) -> String {
        format!("d{}", self.dice.below(4))
    }

    /// No device, one, or two: what a command line may name.
    fn some_devices(&mut self) -> Vec<String> {
        (0..self.dice.below(3)).map(|_| self.device()).collect()
    }

    fn has(&self, device: &str, name: &str) -> Option<&Snapshot> {
        self.snapshots
            .iter()
            .find(|s| s.device == device && s.name == name)
    }

    /// The devices that a verb works on, without repeats; `None` where one is unknown.
    fn chosen(&self, named: &[String], default: impl Fn(&Device) -> bool) -> Option<Vec<String>> {
        if named.is_empty() {
            let all = self.devices.iter().filter(|(_, d)| default(d));
            return Some(all.map(|(name, _)| name.clone()).collect());
        }
        let mut seen = Vec::new();
        for name in named {
            self.devices.get(name)?;
            if !seen.contains(name) {
                seen.push(name.clone());
            }
        }
        Some(seen)
    }

    fn add_snapshot(&mut self, device: &str, name: &str, uid: Uid, picture: Picture) {
        let d = self.devices.get_mut(device).unwrap();
        let snapshot = Snapshot {
            uid,
            id: d.next_id,
            device: device.into(),
            name: name.into(),
            picture,
            parent: d.base,
        };
        d.next_id += 1;
        d.base = Some(uid);
        self.snapshots.push(snapshot);
    }

    fn remove_snapshots(&mut self, gone: &BTreeSet<Uid>) {
        self.snapshots.retain(|s| !gone.contains(&s.uid));
        for d in self.devices.values_mut() {
            d.base = d.base.filter(|b| !gone.contains(b));
        }
    }

    fn step(&mut self) -> String {
        match self.dice.below(24) {
            0 | 1 => self.device_add(),
            2 => self.device_remove(),
            3..=6 => self.scribble(),
            7..=10 => self.create(),
            11 | 12 => self.goto(),
            13 | 14 => self.delete(),
            15 => self.import(),
            16 => self.export(),
            17 => self.diff(),
            18 => self.find(),
            19 => self.gc(),
            20 => self.measure(),
            21 => self.turn_index(),
            22 => {
                self.reopen();
                "reopen".into()
            }
            _ => {
                let report = self.system.store().verify(&Progress::default()).unwrap();
                assert!(report.is_good(), "{report:?}");
                "verify".into()
            }
        }
    }

    fn device_add(&mut self) -> String {
        let name = self.device();
        let picture = Picture::random(&mut self.dice, ALPHABET, 1..40);
        if !self.devices.contains_key(&name) {
            let path = self.path(&name);
            fs::remove_file(&path).unwrap_or_default();
            picture.paint(&RealDisk, &path);
        }
        let done = self
            .system
            .device_add(&name, &self.path(&name), "raw", false);
        let expected = self.devices.get(&name).map(|_| {
            // Of one that has no image there is no file.
            if self.path(&name).exists() {
                ErrorKind::AlreadyExists
            } else {
                ErrorKind::NotFound
            }
        });
        if expect(&done, expected) {
            let device = Device {
                image: Some(picture),
                next_id: 1,
                ..Device::default()
            };
            self.devices.insert(name.clone(), device);
        }
        format!("add {name}")
    }

    fn device_remove(&mut self) -> String {
        let name = self.device();
        let done = self.system.device_remove(&name);
        let expected = match self.devices.get(&name) {
            None => Some(ErrorKind::NotFound),
            Some(_) if self.snapshots.iter().any(|s| s.device == name) => Some(ErrorKind::Refused),
            Some(_) => None,
        };
        if expect(&done, expected) {
            self.devices.remove(&name);
            fs::remove_file(self.path(&name)).unwrap_or_default();
        }
        format!("remove {name}")
    }

    /// Writes data and zeros, punches holes, cuts and extends.
    fn scribble(&mut self) -> String {
        let name = self.device();
        let path = self.path(&name);
        let dice = &mut self.dice;
        let Some(picture) = self.devices.get_mut(&name).and_then(|d| d.image.as_mut()) else {
            return format!("no image {name}");
        };
        let file = RealDisk.open(&path, OpenMode::Write).unwrap();
        for _ in 0..=dice.below(6) {
            if dice.one_in(8) {
                resize(picture, dice.below(40 * C));
                file.set_len(picture.len as u64).unwrap();
                continue;
            }
            if picture.cells.is_empty() {
                continue;
            }
            let at = dice.below(picture.cells.len());
            picture.cells[at] = cell(dice, ALPHABET);
            let (from, to) = (at * C, picture.len.min((at + 1) * C));
            match picture.cells[at] {
                Cell::Hole => file.punch(from as u64, to as u64).unwrap(),
                written => {
                    let bytes = Picture {
                        cells: vec![written],
                        len: to - from,
                    }
                    .bytes();
                    file.write_at(from as u64, &bytes).unwrap();
                }
            }
        }
        // Where a file is cut and extended again, what the last cell held beyond the cut is gone: see `resize`.
        assert_eq!(fs::read(&path).unwrap(), picture.bytes());
        format!("scribble {name}")
    }

    fn create(&mut self) -> String {
        let (name, named) = (self.name(), self.some_devices());
        let create = Create {
            name: Some(name.clone()),
            devices: named.clone(),
            changed: None,
            ..Create::default()
        };
        let done = self.system.create(&create, &Progress::default());
        let chosen = self.chosen(&named, |d| d.image.is_some());
        let expected = match &chosen {
            None => Some(ErrorKind::NotFound),
            Some(all) if all.is_empty() => Some(ErrorKind::NotFound),
            Some(all) if all.iter().any(|d| self.has(d, &name).is_some()) => {
                Some(ErrorKind::AlreadyExists)
            }
            Some(_) => None,
        };
        if expect(&done, expected) {
            let made = done.unwrap().devices;
            for d in chosen.unwrap() {
                let device = &self.devices[&d];
                let picture = device.image.clone().or(device.head.clone()).unwrap();
                let uid = made.iter().find(|m| m.device == d).unwrap().uid;
                self.add_snapshot(&d, &name, uid, picture);
            }
        }
        format!("create {name} on {named:?}")
    }

    fn goto(&mut self) -> String {
        let (name, named) = (self.name(), self.some_devices());
        let done = self.system.goto(&name, &named, &Progress::default());
        let chosen = self.chosen(&named, |d| d.image.is_some());
        let all = chosen.clone().unwrap_or_default();
        let attached = all
            .iter()
            .filter(|d| self.devices[*d].image.is_some())
            .count();
        let expected = if all.is_empty() || all.iter().any(|d| self.has(d, &name).is_none()) {
            Some(ErrorKind::NotFound)
        } else if attached > 0 && attached < all.len() {
            Some(ErrorKind::InvalidInput)
        } else {
            None
        };
        if expect(&done, expected) {
            for d in all {
                let (uid, picture) = {
                    let snapshot = self.has(&d, &name).unwrap();
                    (snapshot.uid, snapshot.picture.clone())
                };
                let path = self.path(&d);
                let device = self.devices.get_mut(&d).unwrap();
                device.base = Some(uid);
                if device.image.is_some() {
                    assert_eq!(fs::read(&path).unwrap(), picture.bytes(), "{d} at {name}");
                    check_map(&path, &picture);
                    device.image = Some(picture);
                } else {
                    device.head = Some(picture);
                }
            }
        }
        format!("goto {name} on {named:?}")
    }

    fn delete(&mut self) -> String {
        let (name, named) = (self.name(), self.some_devices());
        let done = self
            .system
            .delete(&name, &named, false, &Progress::default());
        let chosen = self.chosen(&named, |_| true);
        let found: BTreeSet<Uid> = chosen
            .iter()
            .flatten()
            .filter_map(|d| self.has(d, &name))
            .map(|s| s.uid)
            .collect();
        let missing =
            !named.is_empty() && found.len() < chosen.as_ref().map_or(usize::MAX, Vec::len);
        let expected = (missing || found.is_empty()).then_some(ErrorKind::NotFound);
        if expect(&done, expected) {
            self.remove_snapshots(&found);
        }
        format!("delete {name} on {named:?}")
    }

    fn import(&mut self) -> String {
        let (device, name) = (self.device(), self.name());
        let mut picture = Picture::random(&mut self.dice, ALPHABET, 1..40);
        if self.dice.one_in(2) {
            resize(&mut picture, self.dice.below(30 * C));
        }
        let path = self.path("import");
        fs::remove_file(&path).unwrap_or_default();
        picture.paint(&RealDisk, &path);
        let import = Import {
            image: &path,
            device: &device,
            name: Some(&name),
        };
        let done = self.system.import(&import, &Progress::default());
        let attached = self.devices.get(&device).is_some_and(|d| d.image.is_some());
        let taken = attached || self.has(&device, &name).is_some();
        if expect(&done, taken.then_some(ErrorKind::AlreadyExists)) {
            let fresh = Device {
                next_id: 1,
                ..Device::default()
            };
            self.devices.entry(device.clone()).or_insert(fresh).head = Some(picture.clone());
            let uid = done.unwrap().devices[0].uid;
            self.add_snapshot(&device, &name, uid, picture);
        }
        format!("import {device}@{name}")
    }

    fn export(&mut self) -> String {
        let Some(s) = self.any_snapshot() else {
            return "nothing to export".into();
        };
        let path = self.path("exported");
        let reference = format!("{}@id:{}", s.device, s.id);
        self.system
            .export(&reference, Output::File(&path), &Progress::default())
            .unwrap();
        assert_eq!(fs::read(&path).unwrap(), s.picture.bytes());
        check_map(&path, &s.picture);
        fs::remove_file(&path).unwrap();
        format!("export {reference}")
    }

    fn any_snapshot(&mut self) -> Option<Snapshot> {
        let n = self.snapshots.len();
        (n > 0).then(|| self.snapshots[self.dice.below(n)].clone())
    }

    fn diff(&mut self) -> String {
        let (Some(a), Some(b)) = (self.any_snapshot(), self.any_snapshot()) else {
            return "nothing to diff".into();
        };
        let names = [&a, &b].map(|s| format!("{}@{}", s.device, s.name));
        let found = self.system.diff(&names[0], &names[1]).unwrap();
        assert_eq!(found, differences(&a.picture, &b.picture), "{names:?}");
        format!("diff {names:?}")
    }

    fn find(&mut self) -> String {
        let name = self.name();
        let found = self.system.find(&name, &[]);
        let mut expected: Vec<_> = self
            .snapshots
            .iter()
            .filter(|s| s.name == name)
            .map(|s| s.device.clone())
            .collect();
        expected.sort();
        if expect(&found, expected.is_empty().then_some(ErrorKind::NotFound)) {
            let found: Vec<_> = found.unwrap().into_iter().map(|s| s.device).collect();
            assert_eq!(found, expected);
        }
        format!("find {name}")
    }

    fn gc(&mut self) -> String {
        let all = self.dice.one_in(2);
        let done = self
            .system
            .store()
            .gc(
                gc::Options {
                    all,
                    dry_run: false,
                },
                &Progress::default(),
            )
            .unwrap();
        assert_eq!(done.bytes_spared, 0);
        let again = gc::Options { all, dry_run: true };
        let left = self.system.store().gc(again, &Progress::default()).unwrap();
        assert_eq!(
            (left.dead_packs, left.rewritten_packs),
            (0, 0),
            "a second gc finds nothing to do"
        );
        format!("gc {all}")
    }

    /// What a set of snapshots alone holds is what `gc --all` frees when it goes.
    fn measure(&mut self) -> String {
        let views = self.system.list(None).unwrap();
        let victims: Vec<_> = views.into_iter().filter(|_| self.dice.one_in(3)).collect();
        let uids: BTreeSet<_> = victims.iter().map(|v| v.uid).collect();
        let progress = Progress::default();
        let held = self.system.store().held_by(&uids, &progress).unwrap();
        let plan = &mut |_: &_| {
            Ok(uids
                .iter()
                .map(|uid| Op::DeleteSnapshot { uid: *uid })
                .collect())
        };
        self.system
            .store()
            .commit(SessionKind::Writer, Purse::Free, plan)
            .unwrap();
        self.remove_snapshots(&uids);
        let all = gc::Options {
            all: true,
            dry_run: false,
        };
        let done = self.system.store().gc(all, &progress).unwrap();
        assert_eq!(
            done.bytes_before - done.bytes_after,
            held.would_free,
            "{held:?} {done:?}"
        );
        let totals = self.system.store().totals(&progress).unwrap();
        assert_eq!(totals.stored_bytes, done.bytes_after);
        assert_eq!(totals.snapshots, self.snapshots.len() as u64);
        let cells = self.snapshots.iter().flat_map(|s| &s.picture.cells);
        let data = cells.filter(|c| matches!(c, Cell::Letter(_))).count() * C;
        assert_eq!(totals.data_bytes, data as u64);
        format!("measure {}", victims.len())
    }

    fn turn_index(&mut self) -> String {
        match self.dice.below(5) {
            0 => {
                self.index.set_fault(Fault::None);
                self.system
                    .store()
                    .rebuild_index(&Progress::default())
                    .unwrap();
                "rebuild index".into()
            }
            1 => {
                self.index = MemoryHome::default();
                self.reopen();
                "wipe index".into()
            }
            2 => {
                self.index.roll_back(&self.old_index);
                "roll index back".into()
            }
            3 => {
                let calls = self.dice.below(30) as u64;
                let fault = *self.dice.pick(&[
                    Fault::None,
                    Fault::WrongPlaces,
                    Fault::StalePlaces,
                    Fault::Forget,
                    Fault::Empty,
                    Fault::FailAfter(calls),
                    Fault::PanicAfter(calls),
                ]);
                self.index.set_fault(fault);
                format!("index {fault:?}")
            }
            _ => {
                self.old_index = self.index.copy();
                "keep index".into()
            }
        }
    }

    fn check(&mut self) {
        let listed = self.system.list(None).unwrap();
        let mut expected = self.snapshots.clone();
        expected.sort_by(|a, b| a.device.cmp(&b.device));
        let expected: Vec<_> = expected
            .into_iter()
            .map(|s| {
                let is_base = self.devices[&s.device].base == Some(s.uid);
                (
                    s.device,
                    s.name,
                    s.id.to_string(),
                    s.picture.len as u64,
                    s.parent,
                    is_base,
                )
            })
            .collect();
        let listed: Vec<_> = listed
            .into_iter()
            .map(|v| (v.device, v.name, v.id, v.size, v.parent, v.is_base))
            .collect();
        assert_eq!(listed, expected);
        let devices: Vec<_> = self
            .system
            .devices()
            .unwrap()
            .into_iter()
            .map(|d| d.name)
            .collect();
        assert!(devices.iter().eq(self.devices.keys()), "{devices:?}");
        if let Some(s) = self.any_snapshot() {
            self.check_contents(&format!("{}@{}", s.device, s.name), &s.picture);
        }
        for (name, device) in &self.devices {
            if let Some(head) = &device.head {
                self.check_contents(name, head);
            }
        }
    }

    fn check_contents(&self, reference: &str, picture: &Picture) {
        let bytes = restored(&self.system, reference).unwrap();
        assert!(bytes == picture.bytes(), "{reference} is not what it was");
    }

    fn check_all(&mut self) {
        for s in &self.snapshots {
            self.check_contents(&format!("{}@id:{}", s.device, s.id), &s.picture);
        }
        let report = self.system.store().verify(&Progress::default()).unwrap();
        assert!(report.is_good(), "{report:?}");
    }
}

fn open(
    objects: &MemoryObjects,
    index: &MemoryHome,
    world: &Arc<SeededWorld>,
    tuning: Tuning,
) -> System {
    let doors = doors(objects, Arc::new(index.clone()), world.clone());
    System::with_tuning(doors, Arc::new(RealDisk), tuning).unwrap()
}

/// True where it succeeded; success and the kind of failure must be as the model says.
fn expect<T>(done: &Result<T>, expected: Option<ErrorKind>) -> bool {
    match done {
        Ok(_) => assert_eq!(None, expected),
        Err(e) => assert_eq!(Some(e.kind()), expected, "{e:?}"),
    }
    done.is_ok()
}

/// Cuts or extends by a hole. A last cell that is only partly there becomes, when the file grows, a cell of which the rest
/// is zeros: no cell of the alphabet, so lengths are chosen such that this shows nothing.
fn resize(picture: &mut Picture, len: usize) {
    let whole = picture.len.is_multiple_of(C);
    let len = if len > picture.len && !whole {
        // Within the last cell nothing but zeros can be added.
        match picture.cells.last() {
            Some(Cell::Letter(_)) => picture.len,
            _ => len,
        }
    } else {
        len
    };
    picture.cells.resize(len.div_ceil(C), Cell::Hole);
    picture.len = len;
}

/// Which clusters of a file are data is what the picture says.
fn check_map(path: &Path, picture: &Picture) {
    let file = RealDisk.open(path, OpenMode::Read).unwrap();
    for (i, cell) in picture.cells.iter().enumerate() {
        let data = file.extent((i * C) as u64).unwrap().data;
        assert_eq!(
            data,
            *cell != Cell::Hole,
            "cell {i} of {} in {picture:?}",
            path.display()
        );
    }
}

fn differences(a: &Picture, b: &Picture) -> Vec<ChangedExtent> {
    let at = |p: &Picture, i: usize| {
        let cell = p.cells.get(i).copied().unwrap_or(Cell::Hole);
        let there = if matches!(cell, Cell::Letter(_)) {
            C.min(p.len - i * C)
        } else {
            0
        };
        (cell, there)
    };
    let end = a.len.max(b.len);
    let mut extents: Vec<ChangedExtent> = Vec::new();
    for i in 0..end.div_ceil(C) {
        let (old, new) = (at(a, i), at(b, i));
        if old == new {
            continue;
        }
        let kind = match new.0 {
            Cell::Letter(_) => ExtentKind::Data,
            Cell::Zero => ExtentKind::Zero,
            Cell::Hole => ExtentKind::Hole,
        };
        let (start, length) = ((i * C) as u64, C.min(end - i * C) as u64);
        match extents.last_mut() {
            Some(last) if last.kind == kind && last.start + last.length == start => {
                last.length += length;
            }
            _ => extents.push(ChangedExtent {
                start,
                length,
                kind,
            }),
        }
    }
    extents
}

#[test]
fn a_store_is_a_map_of_pictures() {
    for_seeds(rounds(100, 20), |seed| {
        let mut bench = Bench::new(seed);
        for n in 0..STEPS {
            let what = bench.step();
            if std::env::var_os("STILL_SEED").is_some() {
                eprintln!("{n}: {what}");
            }
            bench.check();
        }
        bench.check_all();
    });
}
