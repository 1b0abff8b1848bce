//! Views: the same bytes as the disk that was taken in, wherever one reads, while gc and others are at work, with an index
//! that lies or without one; and what they cost.

#![allow(clippy::unwrap_used, reason = "tests")]

mod support;

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Barrier, Mutex};
use stillpoint_api::store::disk::real::RealDisk;
use stillpoint_api::store::format::entry::PackKind;
use stillpoint_api::store::index::memory::{Fault, MemoryHome};
use stillpoint_api::store::object::Objects;
use stillpoint_api::store::object::memory::MemoryObjects;
use stillpoint_api::store::ops::diff::ExtentKind::{Data, Hole, Zero};
use stillpoint_api::store::ops::gc;
use stillpoint_api::store::progress::Progress;
use stillpoint_api::store::store::Store;
use stillpoint_api::store::tuning::Tuning;
use stillpoint_api::{Create, ErrorKind, Extent, Part, System, View};
use support::{C, Cell, Dice, GEOMETRY, Picture, SeededWorld, doors, for_seeds, rounds};

/// A store in memory with one device on a real disk; several systems are several processes on it.
struct Bench {
    folder: tempfile::TempDir,
    objects: MemoryObjects,
    index: MemoryHome,
    world: Arc<SeededWorld>,
    system: System,
}

fn tuning() -> Tuning {
    Tuning {
        pack_bytes: 60_000,
        gc_step_bytes: 1,
        ..Tuning::default()
    }
}

impl Bench {
    fn new(seed: u64) -> Self {
        let objects = MemoryObjects::new();
        let world = SeededWorld::new(seed, "views");
        Store::create(&objects, &*world, GEOMETRY).unwrap();
        let index = MemoryHome::default();
        let system = open(&objects, &index, &world);
        let folder = tempfile::tempdir().unwrap();
        Self {
            folder,
            objects,
            index,
            world,
            system,
        }
    }

    /// A snapshot of the device `d`, whose image is made to hold the picture.
    fn save(&self, name: &str, picture: &Picture) {
        let path = self.folder.path().join("d");
        picture.paint(&RealDisk, &path);
        if self.system.devices().unwrap().is_empty() {
            self.system.device_add("d", &path, "raw", false).unwrap();
        }
        let create = Create {
            name: Some(name.into()),
            ..Create::default()
        };
        self.system.create(&create, &Progress::default()).unwrap();
    }

    fn other_process(&self) -> System {
        open(&self.objects.fork_handle(), &self.index, &self.world)
    }

    fn packs(&self) -> Vec<(String, Vec<u8>)> {
        let all = self.objects.dump().into_iter();
        all.filter(|(key, _)| key.starts_with("packs/")).collect()
    }
}

fn open(objects: &MemoryObjects, index: &MemoryHome, world: &Arc<SeededWorld>) -> System {
    let doors = doors(objects, Arc::new(index.clone()), world.clone());
    System::with_tuning(doors, Arc::new(RealDisk), tuning()).unwrap()
}

fn collect(system: &System) {
    let all = gc::Options {
        all: true,
        ..gc::Options::default()
    };
    system.store().gc(all, &Progress::default()).unwrap();
}

/// Different clusters, so that a read of the wrong one is seen.
fn picture(dice: &mut Dice, cells: usize) -> Picture {
    let mut picture = Picture::random(dice, 250, cells..cells + 1);
    picture.len -= dice.below(C);
    picture
}

/// Reads at random and compares.
fn check(view: &View<'_>, bytes: &[u8], dice: &mut Dice, reads: usize) {
    for _ in 0..reads {
        let at = dice.below(bytes.len() + 3 * C);
        let most = if dice.one_in(4) { 20 * C } else { 600 };
        let len = dice.below(most);
        let mut buf = vec![0xEE; len];
        let n = view.read_at(at as u64, &mut buf).unwrap();
        let wanted = bytes.get(at..).unwrap_or_default();
        let wanted = &wanted[..len.min(wanted.len())];
        assert!(buf[..n] == *wanted, "{n} bytes at {at} of {len}");
    }
}

#[test]
fn any_read_is_what_was_taken_in() {
    for_seeds(rounds(8, 20), |seed| {
        let bench = Bench::new(seed);
        let mut dice = Dice::new(seed);
        let one = picture(&mut dice, 300);
        bench.save("one", &one);
        let mut two = one.clone();
        two.scribble(&mut dice, 250);
        bench.save("two", &two);
        // From here on nobody needs the image.
        std::fs::remove_file(bench.folder.path().join("d")).unwrap();
        for (name, picture) in [("d@one", &one), ("d@id:2,name:two", &two)] {
            let view = bench.system.view(name, Part::Disk).unwrap();
            assert_eq!(view.size(), picture.len as u64);
            check(&view, &picture.bytes(), &mut dice, 200);
        }
    });
}

#[test]
fn an_index_that_fails_lies_or_forgets_changes_no_byte() {
    let faults = [
        Fault::WrongPlaces,
        Fault::StalePlaces,
        Fault::Forget,
        Fault::Empty,
        Fault::FailAfter(3),
        Fault::PanicAfter(3),
    ];
    for fault in faults {
        let bench = Bench::new(7);
        let mut dice = Dice::new(7);
        let one = picture(&mut dice, 300);
        bench.save("one", &one);
        let system = bench.other_process();
        let view = system.view("d@one", Part::Disk).unwrap();
        bench.index.set_fault(fault);
        check(&view, &one.bytes(), &mut dice, 100);
        // Also where it is opened like that.
        check(
            &bench.other_process().view("d@one", Part::Disk).unwrap(),
            &one.bytes(),
            &mut dice,
            100,
        );
    }
}

#[test]
fn a_view_keeps_what_it_shows_while_others_delete_collect_and_store() {
    for_seeds(rounds(2, 20), |seed| {
        let bench = Bench::new(seed);
        let mut dice = Dice::new(seed);
        // Half of the clusters of every frame die with `all`, so that gc moves the others.
        let mut one = Picture {
            cells: (0..240).map(Cell::Letter).collect(),
            len: 240 * C,
        };
        bench.save("all", &one);
        one.cells
            .iter_mut()
            .step_by(2)
            .for_each(|c| *c = Cell::Hole);
        bench.save("one", &one);
        let reading = bench.other_process();
        // So small that what gc moves is read again from where it is then.
        let content = reading.content_of("d@one", Part::Disk).unwrap();
        let view = reading.store().view(content, 4 * C).unwrap();
        let bytes = one.bytes();
        check(&view, &bytes, &mut dice, 50);
        let before = bench.packs();
        let done = AtomicBool::new(false);
        std::thread::scope(|scope| {
            for n in 0..2 {
                let (mut dice, view, bytes, done) = (Dice::new(seed + n), &view, &bytes, &done);
                scope.spawn(move || {
                    while !done.load(Ordering::Relaxed) {
                        check(view, bytes, &mut dice, 3);
                        std::thread::yield_now();
                    }
                });
            }
            let progress = Progress::default();
            for gone in ["all", "one"] {
                bench.system.delete(gone, &[], false, &progress).unwrap();
                collect(&bench.system);
            }
            done.store(true, Ordering::Relaxed);
        });
        let after = bench.packs();
        let kept = before.iter().filter(|pack| after.contains(pack)).count();
        assert!(
            kept < before.len() / 2,
            "gc moved little: {kept} packs stayed"
        );
        check(&view, &bytes, &mut dice, 50);
        drop(view);
        collect(&bench.system);
        assert!(bench.packs().is_empty(), "the pin stayed");
    });
}

/// Objects that count the bytes read from packs.
fn counted(objects: &MemoryObjects) -> (MemoryObjects, Arc<AtomicU64>) {
    let calls = Arc::new(AtomicU64::new(0));
    let counter = calls.clone();
    let gate = move |call: &str, key: &str| {
        if call == "get" && key.starts_with("packs/") {
            counter.fetch_add(1, Ordering::Relaxed);
        }
        Ok(())
    };
    let objects = objects.fork_handle().with_gate(Arc::new(gate));
    (objects, calls)
}

#[test]
fn a_cold_read_asks_for_one_block_and_one_frame_and_a_warm_one_for_nothing() {
    let bench = Bench::new(3);
    let cells = (0..250).map(Cell::Letter).collect();
    let whole = Picture {
        cells,
        len: 250 * C,
    };
    bench.save("one", &whole);
    let packs = bench.packs().len() as u64;
    assert!(packs > 8, "{packs}");
    let (objects, gets) = counted(&bench.objects);
    let system = open(&objects, &bench.index, &bench.world);
    let view = system.view("d@one", Part::Disk).unwrap();
    let wanted = whole.bytes();
    let read = |at: usize| {
        let before = gets.load(Ordering::Relaxed);
        let mut buf = [0; C];
        view.read_at((at * C) as u64, &mut buf).unwrap();
        assert!(buf == wanted[at * C..][..C]);
        gets.load(Ordering::Relaxed) - before
    };
    // Manifest nodes are found on the way: of 250 clusters there are two levels in a frame or two.
    read(100);
    let cold: u64 = [10, 60, 140, 200, 240].into_iter().map(read).sum();
    assert!(cold <= 5 * 2 + 2, "{cold} reads for 5 clusters");
    let warm: u64 = [10, 60, 140, 200, 240].into_iter().map(read).sum();
    assert_eq!(warm, 0);
}

#[test]
fn a_disk_is_read_from_its_own_packs_however_many_there_are() {
    let bench = Bench::new(9);
    let picture = |n: u8| Picture {
        cells: (0..4).map(|i| Cell::Letter(n * 4 + i)).collect(),
        len: 4 * C,
    };
    for n in 0..40 {
        bench.save(&format!("s{n}"), &picture(n));
    }
    assert!(bench.packs().len() >= 80, "clusters and nodes of each");
    let touched: Arc<Mutex<BTreeSet<String>>> = Arc::default();
    let noted = touched.clone();
    let gate = move |call: &str, key: &str| {
        if call == "get" && key.starts_with("packs/") {
            noted.lock().unwrap().insert(key.to_owned());
        }
        Ok(())
    };
    let objects = bench.objects.fork_handle().with_gate(Arc::new(gate));
    let system = open(&objects, &bench.index, &bench.world);
    // Brings the index in step.
    system.view("d@s30", Part::Disk).unwrap();
    touched.lock().unwrap().clear();
    let view = system.view("d@s3", Part::Disk).unwrap();
    let mut bytes = vec![0; 4 * C];
    view.read_at(0, &mut bytes).unwrap();
    assert!(bytes == picture(3).bytes());
    let packs = std::mem::take(&mut *touched.lock().unwrap());
    assert!(packs.len() <= 2, "{packs:?} were read");
    // Of what another process makes later too.
    let reader = system.store().reader(1 << 20).unwrap();
    bench.save("new", &picture(50));
    touched.lock().unwrap().clear();
    let content = system.content_of("d@new", Part::Disk).unwrap();
    let view = reader.view(content).unwrap();
    view.read_at(0, &mut bytes).unwrap();
    assert!(bytes == picture(50).bytes());
    let packs = std::mem::take(&mut *touched.lock().unwrap());
    assert!(packs.len() <= 4, "{packs:?} were read");
}

#[test]
fn many_readers_that_begin_at_once_find_every_node() {
    let bench = Bench::new(11);
    let mut picture = Picture {
        cells: (0..200).map(Cell::Letter).collect(),
        len: 200 * C,
    };
    // Each snapshot brings one leaf of the manifest in a pack of its own.
    for n in 0..12 {
        picture.cells[n * 16] = Cell::Letter(220 + n as u8);
        bench.save(&format!("s{n}"), &picture);
    }
    let wanted = picture.bytes();
    for _ in 0..rounds(60, 20) {
        let system = open(&bench.objects, &bench.index, &bench.world);
        let view = system.view("d@s11", Part::Disk).unwrap();
        let all_there = Barrier::new(8);
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    all_there.wait();
                    let mut bytes = vec![0; 200 * C];
                    view.read_at(0, &mut bytes).unwrap();
                    assert!(bytes == wanted);
                });
            }
        });
    }
}

#[test]
fn holes_and_zeros_are_told_and_read_without_a_pack_of_clusters() {
    let bench = Bench::new(4);
    let mut cells = vec![Cell::Hole; 300];
    cells[40..90].fill(Cell::Zero);
    cells[90..93].copy_from_slice(&[Cell::Letter(1), Cell::Letter(2), Cell::Zero]);
    cells[299] = Cell::Letter(3);
    let odd = Picture {
        cells,
        len: 300 * C - 1000,
    };
    bench.save("one", &odd);
    let view = bench.system.view("d@one", Part::Disk).unwrap();
    let told = |from: usize, len: usize| -> Vec<Extent> {
        let extents = view.extents(from as u64, len as u64).unwrap();
        extents.map(Result::unwrap).collect()
    };
    let extent = |start: usize, end: usize, kind| Extent {
        start: start as u64,
        length: (end - start) as u64,
        kind,
    };
    let all = [
        extent(0, 40 * C, Hole),
        extent(40 * C, 90 * C, Zero),
        extent(90 * C, 92 * C, Data),
        extent(92 * C, 93 * C, Zero),
        extent(93 * C, 299 * C, Hole),
        extent(299 * C, 300 * C - 1000, Data),
    ];
    assert_eq!(told(0, usize::MAX), all);
    assert_eq!(
        told(91 * C + 7, 10),
        [extent(91 * C + 7, 91 * C + 17, Data)]
    );
    let middle = [
        extent(80 * C + 1, 90 * C, Zero),
        extent(90 * C, 90 * C + 1, Data),
    ];
    assert_eq!(told(80 * C + 1, 10 * C), middle);
    assert_eq!(told(300 * C, 5), []);

    // Nothing but nodes is left to be read.
    let catalog = bench.system.store().catalog();
    for pack in catalog
        .packs()
        .filter(|p| p.record.kind == PackKind::Clusters)
    {
        bench.objects.set_at_rest(&pack.name.key(), None);
    }
    let mut buf = vec![1; 90 * C];
    assert_eq!(view.read_at(0, &mut buf).unwrap(), 90 * C);
    assert!(buf.iter().all(|b| *b == 0));
    assert!(view.read_at(90 * C as u64, &mut buf).is_err());
}

#[test]
fn a_damaged_cluster_is_an_error_and_its_neighbours_are_not() {
    let bench = Bench::new(5);
    let cells = (0..250).map(Cell::Letter).collect();
    let whole = Picture {
        cells,
        len: 250 * C,
    };
    bench.save("one", &whole);
    let content = bench.system.content_of("d@one", Part::Disk).unwrap();
    let view = bench.system.store().view(content, 0).unwrap();
    let wanted = whole.bytes();
    let good = bench.packs();
    let (key, bytes) = good.iter().max_by_key(|(_, b)| b.len()).unwrap();
    // All that is not its table, which ends it.
    for at in (100..bytes.len() - 5000).step_by(4999) {
        let mut bad = bytes.clone();
        bad[at] ^= 1;
        bench.objects.set_at_rest(key, Some(bad));
        let mut failed = 0;
        for at in 0..250 {
            let mut buf = vec![0; C];
            match view.read_at((at * C) as u64, &mut buf) {
                Ok(_) => assert!(buf == wanted[at * C..][..C]),
                Err(e) => {
                    assert_eq!(e.kind(), ErrorKind::Corrupt, "{e}");
                    assert_eq!(e.path(), Some(&*bench.objects.describe(key)));
                    failed += 1;
                }
            }
        }
        assert!(
            (1..=2).contains(&failed),
            "a frame has two clusters: {failed}"
        );
    }
    // It was the cable.
    bench.objects.set_at_rest(key, Some(bytes.clone()));
    check(&view, &wanted, &mut Dice::new(5), 300);
}

#[test]
fn what_is_deleted_cannot_be_viewed() {
    let bench = Bench::new(6);
    bench.save("one", &picture(&mut Dice::new(6), 50));
    let content = bench.system.content_of("d@one", Part::Disk).unwrap();
    let gone = bench.system.content_of("d@one", Part::VmState).unwrap_err();
    assert_eq!(gone.kind(), ErrorKind::NotFound);
    let progress = Progress::default();
    bench.system.delete("one", &[], false, &progress).unwrap();
    collect(&bench.system);
    let gone = bench.system.view("d@one", Part::Disk).unwrap_err();
    assert_eq!(gone.kind(), ErrorKind::NotFound);
    assert!(bench.system.store().view(content, 1 << 20).is_err());
}

#[test]
fn views_of_one_reader_share_what_was_decoded() {
    let bench = Bench::new(8);
    let cells = (0..250).map(Cell::Letter).collect();
    let whole = Picture {
        cells,
        len: 250 * C,
    };
    bench.save("one", &whole);
    bench.save("two", &whole);
    let (objects, gets) = counted(&bench.objects);
    let system = open(&objects, &bench.index, &bench.world);
    let reader = system.store().reader(4 << 20).unwrap();
    let view = |name: &str| {
        let content = system.content_of(name, Part::Disk).unwrap();
        reader.view(content).unwrap()
    };
    let mut buf = vec![0; 250 * C];
    view("d@one").read_at(0, &mut buf).unwrap();
    let before = gets.load(Ordering::Relaxed);
    view("d@two").read_at(0, &mut buf).unwrap();
    assert!(buf == whole.bytes());
    assert_eq!(gets.load(Ordering::Relaxed), before);
}

#[test]
fn what_is_in_memory_is_read_without_waiting_and_nothing_else_is() {
    for_seeds(rounds(4, 20), |seed| {
        let bench = Bench::new(seed);
        let mut dice = Dice::new(seed);
        let one = picture(&mut dice, 300);
        bench.save("one", &one);
        let (system, bytes) = (bench.other_process(), one.bytes());
        let content = system.content_of("d@one", Part::Disk).unwrap();
        let view = system.store().view(content, 64 << 20).unwrap();
        let cell = one.cells.iter().position(|c| matches!(c, Cell::Letter(_)));
        let at = cell.unwrap() * C;
        let mut buf = vec![0xEE; C.min(bytes.len() - at)];
        assert!(
            !view.read_cached(at as u64, &mut buf).unwrap(),
            "nothing was read yet"
        );
        // Nor does it load anything.
        assert!(!view.read_cached(at as u64, &mut buf).unwrap());
        view.prefetch(at as u64, 1).unwrap();
        assert!(view.read_cached(at as u64, &mut buf).unwrap());
        assert!(buf == bytes[at..at + buf.len()]);
        view.prefetch(0, u64::MAX).unwrap();
        for _ in 0..100 {
            let at = dice.below(bytes.len() + C);
            let mut buf = vec![0xEE; dice.below(9 * C)];
            assert!(view.read_cached(at as u64, &mut buf).unwrap());
            let mut wanted = bytes.get(at..).unwrap_or_default().to_vec();
            wanted.resize(buf.len(), 0);
            assert!(buf == wanted, "{} bytes at {at}", buf.len());
        }
    });
}

#[test]
fn what_changed_in_a_range_is_what_differs_there() {
    for_seeds(rounds(6, 40), |seed| {
        let bench = Bench::new(seed);
        let mut dice = Dice::new(seed);
        let one = picture(&mut dice, 300);
        bench.save("one", &one);
        let mut two = one.clone();
        two.scribble(&mut dice, 250);
        if dice.one_in(2) {
            two.len += 40 * C;
            two.cells.resize(two.len.div_ceil(C), Cell::Hole);
        }
        bench.save("two", &two);
        let system = &bench.system;
        let whole = system.diff("d@one", "d@two").unwrap();
        let base = system.content_of("d@one", Part::Disk).unwrap();
        let view = system.view("d@two", Part::Disk).unwrap();
        let differs = |at: usize| {
            let at = at as u64;
            whole
                .iter()
                .any(|e| (e.start..e.start + e.length).contains(&at))
        };
        for _ in 0..30 {
            let (at, len) = (dice.below(two.len), 1 + dice.below(two.len));
            let told = view.changed_since(base, at as u64, len as u64).unwrap();
            let end = (at + len).min(two.len);
            for cluster in at / C..end.div_ceil(C) {
                let byte = cluster * C;
                let found = |at: usize| {
                    let at = at as u64;
                    told.iter()
                        .any(|e| (e.start..e.start + e.length).contains(&at))
                };
                assert_eq!(
                    found(byte),
                    differs(byte),
                    "cluster {cluster} in {at}+{len}"
                );
            }
            let (from, to) = (at as u64 / C as u64, end.div_ceil(C) as u64);
            for e in &told {
                assert!(e.start >= from * C as u64 && e.start + e.length <= to * C as u64);
            }
        }
    });
}
