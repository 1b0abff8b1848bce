//! A folder that cannot be written, and one that two use.

use crate::support::{C, Cell, Picture, letter, restored};
use crate::{Bench, create, doors, says, simulated};
use std::fs;
use std::path::Path;
use std::sync::Arc;
use stillpoint_api::store::object::local::{LocalObjects, Reserve};
use stillpoint_api::store::ops::gc;
use stillpoint_api::store::progress::Progress;
use stillpoint_api::{ErrorKind, System};

#[test]
fn a_store_that_cannot_be_written_is_read() {
    let (system, disk) = simulated();
    let picture = Picture {
        cells: vec![Cell::Letter(1), Cell::Hole, Cell::Letter(2)],
        len: 3 * C,
    };
    picture.paint(&disk, Path::new("/d.raw"));
    system
        .device_add("d", Path::new("/d.raw"), "raw", false)
        .unwrap();
    create(&system, "s").unwrap();
    disk.set_read_only(true);
    let reserve = Reserve::default();
    let objects = LocalObjects::open(
        Arc::new(disk.clone()),
        Path::new("/store"),
        reserve,
        [2; 16],
    )
    .unwrap();
    let system = System::with(doors(objects), Arc::new(disk)).unwrap();
    let progress = Progress::default();
    assert_eq!(system.list(None).unwrap().len(), 1);
    assert_eq!(restored(&system, "d@s").unwrap(), picture.bytes());
    assert!(system.diff("d@s", "d@s").unwrap().is_empty());
    assert!(system.store().verify(&progress).unwrap().is_good());
    assert_eq!(system.store().totals(&progress).unwrap().snapshots, 1);
    let kind = ErrorKind::ReadOnly;
    says(create(&system, "t"), kind, &["/store", "cannot be written"]);
    says(
        system.delete("s", &[], false, &progress),
        kind,
        &["/store", "cannot be written"],
    );
    says(
        system.store().gc(gc::Options::default(), &progress),
        kind,
        &["/store", "cannot be written"],
    );
    says(
        system.device_remove("d"),
        kind,
        &["\"d\""].map(|_| "cannot be written"),
    );
    says(system.goto("s", &[], &progress), kind, &["read-only"]);
}

#[test]
fn two_processes_on_one_store_see_each_other() {
    let bench = Bench::with_two();
    let (a, b) = (bench.open(), bench.open());
    create(&a, "by-a").unwrap();
    says(create(&b, "by-a"), ErrorKind::AlreadyExists, &["\"by-a\""]);
    create(&b, "by-b").unwrap();
    let names = |s: &System| {
        s.list(None)
            .unwrap()
            .into_iter()
            .map(|s| s.name)
            .collect::<Vec<_>>()
    };
    assert_eq!(names(&a), ["one", "two", "by-a", "by-b"]);
    assert_eq!(names(&a), names(&b));
    a.delete("two", &[], false, &Progress::default()).unwrap();
    b.delete("by-a", &[], false, &Progress::default()).unwrap();
    a.delete("by-b", &[], false, &Progress::default()).unwrap();
    let all = gc::Options {
        all: true,
        dry_run: false,
    };
    let freed = b.store().gc(all, &Progress::default()).unwrap();
    assert!(freed.bytes_after < freed.bytes_before);
    let bytes: Vec<u8> = (0..6).flat_map(letter).collect();
    assert_eq!(
        restored(&a, "d@one").unwrap(),
        bytes,
        "what it knew of packs is out of date"
    );
    let goto = a.goto("one", &[], &Progress::default()).unwrap();
    assert_eq!(goto.devices[0].snapshot, "one");
    assert_eq!(fs::read(bench.path("d.raw")).unwrap(), bytes);
    create(&b, "three").unwrap();
    assert_eq!(restored(&a, "d@three").unwrap(), bytes);
    assert!(a.store().verify(&Progress::default()).unwrap().is_good());
}
