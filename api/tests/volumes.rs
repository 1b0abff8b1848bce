//! Volumes against plain byte arrays, with clusters larger than their blocks; many threads; full disks; two processes.

#![allow(clippy::unwrap_used, reason = "tests")]

mod support;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use stillpoint_api::store::disk::Disk;
use stillpoint_api::store::disk::OpenMode;
use stillpoint_api::store::disk::sim::{CrashMode, Fault, SimDisk};
use stillpoint_api::store::geometry::{Compression, Geometry};
use stillpoint_api::store::id::Uid;
use stillpoint_api::store::index::memory::MemoryHome;
use stillpoint_api::store::object::local::{LocalObjects, Reserve};
use stillpoint_api::store::ops::diff::ExtentKind;
use stillpoint_api::store::ops::gc;
use stillpoint_api::store::progress::Progress;
use stillpoint_api::store::store::{Doors, Store};
use stillpoint_api::store::tuning::Tuning;
use stillpoint_api::store::volume::Depth;
use stillpoint_api::{Create, ErrorKind, Output, Result, System, Volume, VolumeSource, Volumes};
use support::{Dice, SeededWorld, for_seeds, rounds};

const BLOCK: u64 = 4096;
const GEOMETRY: Geometry = Geometry {
    cluster_bytes: 16384,
    frame_bytes: 65536,
    compression: Compression::Zstd(1),
};
const RESERVE: Reserve = Reserve {
    entry_files: 2,
    entry_bytes: 64 << 10,
    pack_files: 1,
    pack_bytes: 512 << 10,
};

/// A computer with a store.
struct Machine {
    disk: SimDisk,
    index: MemoryHome,
    world: Arc<SeededWorld>,
}

impl Machine {
    fn new(seed: u64) -> Self {
        let disk = SimDisk::new(seed);
        disk.create_folders(Path::new("/images")).unwrap();
        disk.sync_folder(Path::new("/")).unwrap();
        let world = SeededWorld::new(seed, "volumes");
        let folder: Arc<dyn Disk> = Arc::new(disk.clone());
        let objects = LocalObjects::create(folder, Path::new("/store"), RESERVE, [1; 16]).unwrap();
        let file = Store::create(&objects, &*world, GEOMETRY).unwrap();
        Self {
            disk,
            index: MemoryHome::new(file.id),
            world,
        }
    }

    fn open(&self) -> System {
        let folder: Arc<dyn Disk> = Arc::new(self.disk.clone());
        let objects = LocalObjects::open(folder, Path::new("/store"), RESERVE, [2; 16]).unwrap();
        let objects = Arc::new(objects);
        let doors = Doors {
            objects: objects.clone(),
            local: objects,
            index: Arc::new(self.index.clone()),
            world: self.world.clone(),
            say: Arc::new(|_| {}),
        };
        let tuning = Tuning {
            packs_in_flight: 0,
            ..Tuning::default()
        };
        System::with_tuning(doors, Arc::new(self.disk.clone()), tuning).unwrap()
    }

    fn crash(&self, mode: CrashMode) -> Self {
        Self {
            disk: self.disk.restart(mode),
            index: self.index.copy(),
            world: self.world.clone(),
        }
    }
}

fn progress() -> Progress {
    Progress::default()
}

fn snap(system: &System, volumes: &Volumes<'_>, name: &str, devices: &[String]) -> Result<()> {
    let create = Create {
        name: Some(name.into()),
        devices: devices.to_vec(),
        ..Create::default()
    };
    system
        .create_on(volumes, &create, None, &progress())
        .map(drop)
}

fn read(volume: &Volume<'_>) -> Vec<u8> {
    let mut bytes = vec![0; volume.size() as usize];
    volume.read_at(0, &mut bytes).unwrap();
    bytes
}

fn restored(system: &System, reference: &str) -> Vec<u8> {
    let mut out = Vec::new();
    system
        .export(reference, Output::Stream(&mut out), &progress())
        .unwrap();
    out
}

/// What the volumes are to hold: each has one that a flush has made sure, and those since.
#[derive(Default)]
struct Model {
    volumes: BTreeMap<String, Vec<Vec<u8>>>,
    snapshots: BTreeMap<(String, String), Vec<u8>>,
    made: u64,
}

impl Model {
    fn now(&self, name: &str) -> &Vec<u8> {
        self.volumes[name].last().unwrap()
    }

    fn settle(&mut self, name: &str) {
        let now = self.now(name).clone();
        self.volumes.insert(name.into(), vec![now]);
    }

    fn pick(&self, dice: &mut Dice) -> String {
        let names: Vec<&String> = self.volumes.keys().collect();
        (*dice.pick(&names)).clone()
    }
}

/// A guest's write, zeroing or discard of anything anywhere.
fn guest(dice: &mut Dice, volume: &Volume<'_>, model: &mut Model, name: &str) {
    let mut now = model.now(name).clone();
    let size = now.len();
    let from = dice.below(size);
    let most = *dice.pick(&[600, 4096, 20_000, 70_000]);
    let len = 1 + dice.below((size - from).min(most));
    let (from, to) = if dice.one_in(2) {
        let block = BLOCK as usize;
        (
            from / block * block,
            (from + len).next_multiple_of(block).min(size),
        )
    } else {
        (from, from + len)
    };
    let (offset, length) = (from as u64, (to - from) as u64);
    match dice.below(6) {
        0 => {
            volume.write_zeroes(offset, length, dice.one_in(2)).unwrap();
            now[from..to].fill(0);
        }
        1 => {
            volume.discard(offset, length).unwrap();
            let block = BLOCK as usize;
            let end = if to == size { size } else { to / block * block };
            let start = from.next_multiple_of(block);
            if start < end {
                now[start..end].fill(0);
            }
        }
        _ => {
            let fill: Vec<u8> = (0..to - from)
                .scan(dice.roll(), |n, _| {
                    *n = n.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                    Some((*n >> 56) as u8)
                })
                .collect();
            volume.write_at(offset, &fill).unwrap();
            now[from..to].copy_from_slice(&fill);
        }
    }
    model.volumes.get_mut(name).unwrap().push(now);
}

/// What the volume says of itself fits what it holds.
fn consistent(system: &System, volume: &Volume<'_>, wanted: &[u8], base: Option<(&str, &[u8])>) {
    assert!(read(volume) == wanted, "other bytes");
    // What was just read is in memory, as far as it is in the store.
    for (n, part) in wanted.chunks(10_000).enumerate() {
        let mut bytes = vec![0xEE; part.len()];
        let done = volume.read_cached(n as u64 * 10_000, &mut bytes).unwrap();
        assert!(!done || bytes == part, "other bytes from memory");
    }
    let mut at = 0;
    volume
        .extents(0, volume.size(), &mut |extent| {
            assert_eq!(extent.start, at, "extents follow each other");
            at += extent.length;
            let bytes = &wanted[extent.start as usize..at as usize];
            if extent.kind != ExtentKind::Data {
                assert!(bytes.iter().all(|b| *b == 0), "{extent:?} is not empty");
            }
            assert!(extent.depth != Depth::Nowhere || extent.kind == ExtentKind::Hole);
            true
        })
        .unwrap();
    assert_eq!(at, volume.size());
    let Some((reference, old)) = base else { return };
    let (content, _) = system.resolve(reference).unwrap();
    let mut at = 0;
    volume
        .changed_since(content, 0, volume.size(), &mut |run, changed| {
            assert_eq!(run.start, at);
            at = run.end;
            let (from, to) = (run.start as usize, run.end as usize);
            let zeros = vec![0; to - from];
            let was = old.get(from..to.min(old.len())).unwrap_or_default();
            let same = wanted[from..from + was.len()] == *was
                && wanted[from + was.len()..to] == zeros[was.len()..];
            assert!(changed || same, "{run:?} has changed");
            true
        })
        .unwrap();
    assert_eq!(at, volume.size());
}

/// Steps with one program, which has its volumes open.
fn session(dice: &mut Dice, machine: &Machine, model: &mut Model) {
    let system = machine.open();
    let volumes = system.volumes().unwrap();
    for _ in 0..dice.below(25) {
        if model.volumes.is_empty() || dice.one_in(12) {
            make(dice, &system, &volumes, model);
            continue;
        }
        let name = model.pick(dice);
        let uid = system.volume_named(&name).unwrap();
        let volume = volumes.volume(&uid).unwrap();
        match dice.below(16) {
            0..=6 => guest(dice, &volume, model, &name),
            7 | 8 => {
                volume.flush().unwrap();
                model.settle(&name);
            }
            9 | 10 => {
                let other = model.pick(dice);
                model.made += 1;
                let snapshot = format!("s{}", model.made);
                snap(&system, &volumes, &snapshot, &[name.clone(), other.clone()]).unwrap();
                for d in [name, other] {
                    model.settle(&d);
                    let bytes = model.now(&d).clone();
                    model.snapshots.insert((d, snapshot.clone()), bytes);
                }
            }
            11 => {
                let of: Vec<_> = model
                    .snapshots
                    .keys()
                    .filter(|(d, _)| *d == name)
                    .cloned()
                    .collect();
                if of.is_empty() {
                    continue;
                }
                let key = dice.pick(&of).clone();
                system
                    .goto_on(&volumes, &key.1, &[name.clone()], &progress())
                    .unwrap();
                let bytes = model.snapshots[&key].clone();
                model.volumes.insert(name, vec![bytes]);
            }
            12 => {
                let size = 1 + dice.below(300_000);
                let shrinks = (size as u64) < volume.size();
                volumes.resize(&uid, size as u64, &progress()).unwrap();
                let all = model.volumes.get_mut(&name).unwrap();
                all.iter_mut().for_each(|b| b.resize(size, 0));
                if shrinks {
                    model.settle(&name);
                }
            }
            13 => {
                volumes.absorb(&[uid], &progress()).unwrap();
                model.settle(&name);
            }
            14 => drop(system.store().gc(
                gc::Options {
                    all: true,
                    dry_run: false,
                },
                &progress(),
            )),
            _ => {
                let mut of = model.snapshots.iter().filter(|((d, _), _)| *d == name);
                let base = of.next_back();
                let reference = base.map(|((d, s), bytes)| (format!("{d}@{s}"), bytes));
                let base = reference
                    .as_ref()
                    .map(|(r, bytes)| (r.as_str(), bytes.as_slice()));
                consistent(&system, &volume, model.now(&name), base);
            }
        }
    }
    for name in model.volumes.keys() {
        let volume = volumes.volume(&system.volume_named(name).unwrap()).unwrap();
        assert!(
            read(&volume) == *model.now(name),
            "{name} holds other bytes"
        );
    }
}

fn make(dice: &mut Dice, system: &System, volumes: &Volumes<'_>, model: &mut Model) {
    model.made += 1;
    let name = format!("v{}", model.made);
    let from = model.snapshots.keys().next_back().cloned();
    let (source, bytes) = match from {
        Some((d, s)) if dice.one_in(2) => {
            let bytes = model.snapshots[&(d.clone(), s.clone())].clone();
            (Some(format!("{d}@{s}")), bytes)
        }
        _ => (None, vec![0; 1 + dice.below(250_000)]),
    };
    let source = source
        .as_deref()
        .map_or(VolumeSource::Empty(bytes.len() as u64), VolumeSource::From);
    system
        .volume_create_on(volumes, &name, source, &progress())
        .unwrap();
    model.volumes.insert(name, vec![bytes]);
}

#[test]
fn random_sequences_do_what_a_byte_array_does() {
    for_seeds(rounds(25, 20), |seed| {
        let mut dice = Dice::new(seed);
        let mut machine = Machine::new(seed);
        let mut model = Model::default();
        for _ in 0..5 {
            session(&mut dice, &machine, &mut model);
            if dice.one_in(2) {
                // The program ended well: volumes were flushed when they were closed.
                model
                    .volumes
                    .keys()
                    .cloned()
                    .collect::<Vec<_>>()
                    .iter()
                    .for_each(|n| model.settle(n));
            }
            let mode = *dice.pick(&CrashMode::ALL);
            machine = machine.crash(mode);
            let system = machine.open();
            for ((d, s), bytes) in &model.snapshots {
                assert!(restored(&system, &format!("{d}@{s}")) == *bytes, "{d}@{s}");
            }
            let volumes = system.volumes().unwrap();
            for (name, may) in &mut model.volumes {
                let volume = volumes.volume(&system.volume_named(name).unwrap()).unwrap();
                let found = read(&volume);
                assert!(may.contains(&found), "{name} after {mode:?}");
                *may = vec![found];
            }
        }
    });
}

#[test]
fn a_group_snapshot_never_has_the_later_write_without_the_earlier() {
    let machine = Machine::new(7);
    let system = machine.open();
    let volumes = system.volumes().unwrap();
    let uids: Vec<Uid> = ["a", "b"]
        .iter()
        .map(|name| {
            let source = VolumeSource::Empty(64 * BLOCK);
            let made = system.volume_create_on(&volumes, name, source, &progress());
            made.unwrap().uid
        })
        .collect();
    let open: Vec<_> = uids
        .iter()
        .map(|uid| volumes.volume(uid).unwrap())
        .collect();
    let stop = AtomicBool::new(false);
    let written = AtomicU64::new(0);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut n = 1u64;
            while !stop.load(Ordering::Relaxed) {
                // Each number goes to one of them, once the one before was acknowledged by the other.
                let at = n / 2 % 64 * BLOCK;
                open[(n % 2) as usize]
                    .write_at(at, &n.to_le_bytes())
                    .unwrap();
                written.store(n, Ordering::Relaxed);
                n += 1;
            }
        });
        let mut seen = 0;
        for round in 0..60 {
            while written.load(Ordering::Relaxed) == seen {
                std::thread::yield_now();
            }
            seen = written.load(Ordering::Relaxed);
            let names = ["a".to_owned(), "b".to_owned()];
            snap(&system, &volumes, &format!("s{round}"), &names).unwrap();
        }
        stop.store(true, Ordering::Relaxed);
    });
    let highest = |reference: &str| {
        let bytes = restored(&system, reference);
        let numbers = bytes
            .chunks(BLOCK as usize)
            .map(|block| u64::from_le_bytes(block[..8].try_into().unwrap()));
        numbers.max().unwrap()
    };
    for round in 0..60 {
        let (even, odd) = (
            highest(&format!("a@s{round}")),
            highest(&format!("b@s{round}")),
        );
        assert_eq!(even.abs_diff(odd), 1, "round {round}: {even} and {odd}");
    }
    assert!(highest("a@s59") > 60, "the writer went on all the time");
}

#[test]
fn writers_of_parts_of_one_block_lose_nothing_to_each_other() {
    let machine = Machine::new(8);
    let system = machine.open();
    let volumes = system.volumes().unwrap();
    let made = system.volume_create_on(&volumes, "a", VolumeSource::Empty(2 * BLOCK), &progress());
    let uid = made.unwrap().uid;
    let volume = volumes.volume(&uid).unwrap();
    std::thread::scope(|scope| {
        for part in 0..8u64 {
            let volume = &volume;
            scope.spawn(move || {
                for round in 0..200u8 {
                    volume.write_at(part * 1000, &[round; 1000]).unwrap();
                    let mut back = [0; 1000];
                    volume.read_at(part * 1000, &mut back).unwrap();
                    assert_eq!(back, [round; 1000], "part {part}");
                }
            });
        }
        for round in 0..20 {
            snap(&system, &volumes, &format!("s{round}"), &["a".to_owned()]).unwrap();
        }
    });
    assert!(read(&volume)[..8000].iter().all(|b| *b == 199));
}

#[test]
fn a_full_disk_is_told_and_leaves_the_volume_as_it_was() {
    let machine = Machine::new(9);
    let system = machine.open();
    let volumes = system.volumes().unwrap();
    let size = 4096 * BLOCK;
    let made = system.volume_create_on(&volumes, "a", VolumeSource::Empty(size), &progress());
    let volume = volumes.volume(&made.unwrap().uid).unwrap();
    volume.write_at(0, &vec![7; 100_000]).unwrap();
    machine.disk.set_space(2 << 20);
    let mut plain = vec![0; size as usize];
    plain[..100_000].fill(7);
    let mut refused = None;
    for n in 0..4000u64 {
        let at = 100 * BLOCK + n * 2000;
        match volume.write_at(at, &[9; 2000]) {
            Ok(()) => plain[at as usize..at as usize + 2000].fill(9),
            Err(e) => {
                refused = Some(e.kind());
                break;
            }
        }
    }
    assert_eq!(refused, Some(ErrorKind::NoSpace));
    volume.flush().unwrap();
    assert!(read(&volume) == plain);
    machine.disk.set_space(1 << 30);
    volume.write_at(5, &[1; 10]).unwrap();
    plain[5..15].fill(1);
    snap(&system, &volumes, "s", &["a".to_owned()]).unwrap();
    assert!(restored(&system, "a@s") == plain);
}

#[test]
fn trims_that_are_never_flushed_do_not_pile_up_in_memory() {
    // A few are lost with a crash, as they may be; of very many the first are durable.
    for (trims, left) in [(64, 7), (65 << 10, 0)] {
        let machine = Machine::new(10);
        let system = machine.open();
        let volumes = system.volumes().unwrap();
        let size = 64 * BLOCK;
        let made = system.volume_create_on(&volumes, "a", VolumeSource::Empty(size), &progress());
        let volume = volumes.volume(&made.unwrap().uid).unwrap();
        volume.write_at(0, &vec![7; size as usize]).unwrap();
        volume.flush().unwrap();
        (0..trims).for_each(|n| volume.discard(n % 64 * BLOCK, BLOCK).unwrap());
        let system = machine.crash(CrashMode::NothingUnsynced).open();
        let volumes = system.volumes().unwrap();
        let volume = volumes.volume(&system.volume_named("a").unwrap()).unwrap();
        assert!(read(&volume).iter().all(|b| *b == left), "{trims} trims");
    }
}

#[test]
fn what_costs_memory_is_counted_also_where_it_is_empty() {
    let machine = Machine::new(10);
    let system = machine.open();
    let volumes = system.volumes().unwrap();
    let size = 1 << 30;
    let made = system.volume_create_on(&volumes, "a", VolumeSource::Empty(size), &progress());
    let volume = volumes.volume(&made.unwrap().uid).unwrap();
    (0..100).for_each(|n| volume.discard(2 * n * BLOCK, BLOCK).unwrap());
    assert_eq!(volume.overlay_bytes(), 0);
    assert_eq!(volume.overlay_cost(), 100 * BLOCK);
    volumes.absorb(&[volume.device()], &progress()).unwrap();
    assert_eq!(volume.overlay_cost(), 0);
}

/// A call of the disk fails once, whichever, while a group is snapshotted or goes back: what is written and flushed afterwards,
/// where that is acknowledged, survives a crash.
fn nothing_flushed_is_lost_after_a_fault_in(change: &dyn Fn(&System, &Volumes<'_>) -> Result<()>) {
    let mut failed = 0;
    for k in 1.. {
        let machine = Machine::new(11);
        let system = machine.open();
        let volumes = system.volumes().unwrap();
        let names = ["a".to_owned(), "b".to_owned()];
        for name in &names {
            let source = VolumeSource::Empty(8 * BLOCK);
            let made = system.volume_create_on(&volumes, name, source, &progress());
            let volume = volumes.volume(&made.unwrap().uid).unwrap();
            volume.write_at(0, &[1; 100]).unwrap();
        }
        snap(&system, &volumes, "one", &names).unwrap();
        for name in &names {
            let volume = volumes.volume(&system.volume_named(name).unwrap());
            volume.unwrap().write_at(BLOCK, &[2; 5000]).unwrap();
        }
        let before = machine.disk.calls();
        machine.disk.fail_call(before + k, Fault::Eio);
        let done = change(&system, &volumes);
        failed += u64::from(done.is_err());
        if machine.disk.calls() < before + k {
            assert!(failed > 0, "nothing failed in {k} calls");
            return;
        }
        let mut kept = Vec::new();
        for name in &names {
            let uid = system.volume_named(name).unwrap();
            let written = volumes.volume(&uid).and_then(|volume| {
                volume.write_at(3 * BLOCK + 7, &[3; 100])?;
                volume.flush()?;
                Ok(read(&volume))
            });
            kept.push(written);
        }
        drop(volumes);
        drop(system);
        let system = machine.crash(CrashMode::NothingUnsynced).open();
        let volumes = system.volumes().unwrap();
        for (name, kept) in names.iter().zip(kept) {
            let volume = volumes.volume(&system.volume_named(name).unwrap()).unwrap();
            if let Ok(kept) = kept {
                assert!(read(&volume) == kept, "{name}, call {k}, {done:?}");
            }
        }
    }
}

#[test]
fn a_fault_in_a_goto_of_a_group_loses_no_later_write() {
    nothing_flushed_is_lost_after_a_fault_in(&|system, volumes| {
        system
            .goto_on(volumes, "one", &["a".into(), "b".into()], &progress())
            .map(drop)
    });
}

#[test]
fn a_fault_in_a_snapshot_of_a_group_loses_no_later_write() {
    nothing_flushed_is_lost_after_a_fault_in(&|system, volumes| {
        snap(system, volumes, "two", &["a".into(), "b".into()])
    });
}

#[test]
fn a_fault_while_a_volume_is_handed_over_loses_no_later_write() {
    nothing_flushed_is_lost_after_a_fault_in(&|system, volumes| {
        volumes.hand_over(&system.volume_named("a")?, &progress())
    });
}

#[test]
fn a_rotten_block_of_an_overlay_is_told_and_the_rest_is_read() {
    let machine = Machine::new(13);
    let system = machine.open();
    let volumes = system.volumes().unwrap();
    let size = 8 * BLOCK;
    let made = system.volume_create_on(&volumes, "a", VolumeSource::Empty(size), &progress());
    let volume = volumes.volume(&made.unwrap().uid).unwrap();
    volume.write_at(0, &[0xAB; BLOCK as usize]).unwrap();
    volume.write_at(BLOCK, &[0xCD; BLOCK as usize]).unwrap();
    let mut paths = machine.disk.snapshot_paths().into_iter();
    let path = paths.find(|path| path.ends_with("1-1")).unwrap();
    let file = machine.disk.open(&path, OpenMode::Read).unwrap();
    let mut block = vec![0; BLOCK as usize];
    let rotten = (0..file.len().unwrap() / BLOCK).find(|slot| {
        file.read_at(slot * BLOCK, &mut block).unwrap();
        block.iter().all(|b| *b == 0xAB)
    });
    machine.disk.flip_bit(&path, rotten.unwrap() * BLOCK + 9, 3);
    let failed = volume.read_at(0, &mut block).unwrap_err();
    assert_eq!(failed.kind(), ErrorKind::Corrupt);
    volume.read_at(BLOCK, &mut block).unwrap();
    assert!(block.iter().all(|b| *b == 0xCD));
    let taken = snap(&system, &volumes, "s", &["a".to_owned()]).unwrap_err();
    assert_eq!(
        taken.kind(),
        ErrorKind::Corrupt,
        "nothing unverified is stored"
    );
    volume.write_at(0, &[1; BLOCK as usize]).unwrap();
    snap(&system, &volumes, "s", &["a".to_owned()]).unwrap();
    assert_eq!(restored(&system, "a@s")[..4096], [1; 4096]);
}

#[test]
fn gc_and_deletes_of_another_program_take_nothing_from_a_volume_in_use() {
    let machine = Machine::new(12);
    let (system, other) = (machine.open(), machine.open());
    let volumes = system.volumes().unwrap();
    let size = 60 * BLOCK;
    let made = system.volume_create_on(&volumes, "a", VolumeSource::Empty(size), &progress());
    let volume = volumes.volume(&made.unwrap().uid).unwrap();
    let stop = AtomicBool::new(false);
    let mut model = Model::default();
    model
        .volumes
        .insert("a".into(), vec![vec![0; size as usize]]);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let all = gc::Options {
                all: true,
                dry_run: false,
            };
            while !stop.load(Ordering::Relaxed) {
                for old in other.list(Some("a")).unwrap() {
                    // Somebody else's snapshot is made, or gone to, at the same time.
                    let deleted = other.delete(&old.name, &[], false, &progress());
                    deleted.map(drop).unwrap_or_default();
                }
                match other.store().gc(all, &progress()) {
                    Err(e) if e.kind() != ErrorKind::Busy => panic!("{e:?}"),
                    _ => {}
                }
            }
        });
        let mut dice = Dice::new(12);
        for round in 0..60 {
            for _ in 0..4 {
                guest(&mut dice, &volume, &mut model, "a");
            }
            if round % 2 == 0 {
                snap(&system, &volumes, &format!("s{round}"), &["a".to_owned()]).unwrap();
            } else {
                volumes.absorb(&[volume.device()], &progress()).unwrap();
            }
            assert!(read(&volume) == *model.now("a"), "round {round}");
            model.settle("a");
        }
        stop.store(true, Ordering::Relaxed);
    });
    drop(volume);
    drop(volumes);
    let volumes = system.volumes().unwrap();
    let again = volumes.volume(&system.volume_named("a").unwrap()).unwrap();
    assert!(read(&again) == *model.now("a"));
    assert!(system.store().verify(&progress()).unwrap().is_good());
}

#[test]
fn a_volume_is_of_one_program_at_a_time() {
    let machine = Machine::new(10);
    let (one, two) = (machine.open(), machine.open());
    let (first, second) = (one.volumes().unwrap(), two.volumes().unwrap());
    let made = one.volume_create_on(&first, "a", VolumeSource::Empty(BLOCK), &progress());
    let uid = made.unwrap().uid;
    let held = first.volume(&uid).unwrap();
    assert_eq!(second.volume(&uid).unwrap_err().kind(), ErrorKind::Busy);
    let busy = two.create(&Create::default(), &progress()).unwrap_err();
    assert_eq!(busy.kind(), ErrorKind::Busy);
    held.write_at(0, b"x").unwrap();
    first.close(&uid);
    drop(held);
    let mut byte = [0];
    second.volume(&uid).unwrap().read_at(0, &mut byte).unwrap();
    assert_eq!(&byte, b"x");
}

#[test]
fn a_group_has_images_and_volumes_and_what_is_no_volume_is_told_apart() {
    let machine = Machine::new(11);
    let image = Path::new("/images/i.raw");
    let file = machine.disk.open(image, OpenMode::CreateNew).unwrap();
    file.write_at(0, &[3; 9000]).unwrap();
    file.sync().unwrap();
    drop(file);
    let system = machine.open();
    system.device_add("i", image, "raw", false).unwrap();
    let made = system.volume_create("v", VolumeSource::Empty(9000), &progress());
    let volumes = system.volumes().unwrap();
    let volume = volumes.volume(&made.unwrap().uid).unwrap();
    volume.write_at(10, b"hello").unwrap();
    snap(&system, &volumes, "both", &[]).unwrap();
    drop(volume);
    drop(volumes);
    assert_eq!(restored(&system, "i@both"), [3; 9000]);
    assert_eq!(restored(&system, "v@both")[10..15], *b"hello");

    let refused = |r: Result<()>| r.unwrap_err().kind();
    assert_eq!(refused(system.device_remove("v")), ErrorKind::Refused);
    let attached = system.device_attach("v", image, "raw", false);
    assert_eq!(refused(attached), ErrorKind::Refused);
    let resized = system.volume_resize("i", 5, &progress());
    assert_eq!(refused(resized), ErrorKind::InvalidInput);
    assert!(!system.volume_remove("v").unwrap(), "its snapshot stays");
    assert_eq!(restored(&system, "v@both")[10..15], *b"hello");
}
