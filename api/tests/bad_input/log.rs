//! Damaged entries and checkpoints.

use crate::support::restored;
use crate::{Bench, create, edit, flip, says, swap, text};
use std::fs;
use std::sync::Arc;
use stillpoint_api::store::disk::real::RealDisk;
use stillpoint_api::store::ops::gc;
use stillpoint_api::store::progress::Progress;
use stillpoint_api::store::tuning::Tuning;
use stillpoint_api::{ErrorKind, Import};

#[test]
fn a_damaged_entry_is_named_and_stops_writers() {
    let bench = Bench::with_two();
    let entries = bench.files("log");
    let entry = entries[1].clone();
    let good = fs::read(&entry).unwrap();
    let harms: [(&str, &dyn Fn()); 5] = [
        ("checksum does not fit", &|| flip(&entry, good.len() - 3)),
        ("declares", &|| edit(&entry, |b| b.truncate(b.len() - 5))),
        ("too few", &|| fs::write(&entry, "").unwrap()),
        ("it is entry 3", &|| {
            assert!(fs::copy(&entries[2], &entry).is_ok());
        }),
        ("entry 2 is missing", &|| fs::remove_file(&entry).unwrap()),
    ];
    for (why, harm) in harms {
        let open = bench.open();
        harm();
        let e = says(
            bench.try_open(),
            ErrorKind::Corrupt,
            &["log", text(&entry), why],
        );
        assert!(e.what_next().unwrap().contains("rescue"), "{e:?}");
        // Who has folded it already goes on; it does not look back.
        create(&open, &format!("after {why:?}").replace(' ', "-")).unwrap();
        drop(open);
        fs::write(&entry, &good).unwrap();
    }
    assert_eq!(bench.open().list(None).unwrap().len(), 7);
}

#[test]
fn an_entry_that_is_damaged_before_it_is_folded_stops_a_writer_at_work() {
    let bench = Bench::with_two();
    let (early, other) = (bench.open(), bench.open());
    create(&other, "three").unwrap();
    let last = bench.files("log").pop().unwrap();
    flip(&last, 100);
    says(
        create(&early, "four"),
        ErrorKind::Corrupt,
        &[text(&last), "checksum does not fit"],
    );
    says(early.list(None), ErrorKind::Corrupt, &[text(&last)]);
}

#[test]
fn two_exchanged_entries_are_found() {
    let bench = Bench::with_two();
    let entries = bench.files("log");
    swap(&entries[0], &entries[1]);
    says(
        bench.try_open(),
        ErrorKind::Corrupt,
        &[text(&entries[0]), "it is entry 2"],
    );
}

#[test]
fn what_is_no_entry_at_all_is_left_alone() {
    let bench = Bench::with_two();
    fs::write(bench.store().join("log/notes.txt"), "x").unwrap();
    fs::write(bench.store().join("packs/notes.txt"), "x").unwrap();
    fs::create_dir(bench.store().join("packs/mine")).unwrap();
    let system = bench.open();
    create(&system, "three").unwrap();
    system
        .store()
        .gc(
            gc::Options {
                all: true,
                dry_run: false,
            },
            &Progress::default(),
        )
        .unwrap();
    assert!(bench.store().join("packs/notes.txt").exists());
    assert!(bench.store().join("packs/mine").exists());
}

/// A store whose older entries are only in checkpoints.
fn checkpointed() -> (Bench, Tuning) {
    let bench = Bench::new();
    let mut tuning = Tuning::default();
    (tuning.log.checkpoint_every, tuning.log.entries_kept) = (4, 2);
    let system = bench.open_on(Arc::new(RealDisk), tuning).unwrap();
    for n in 0..6 {
        let bytes = format!("i{n}.raw");
        bench.image(&bytes, n..n + 2);
        let import = Import {
            image: &bench.path(&bytes),
            device: &format!("i{n}"),
            name: Some("s"),
        };
        system.import(&import, &Progress::default()).unwrap();
    }
    assert_eq!(bench.files("checkpoint").len(), 2);
    (bench, tuning)
}

#[test]
fn a_damaged_checkpoint_is_made_up_for_by_the_one_before_it() {
    let (bench, _) = checkpointed();
    let newest = bench.files("checkpoint").pop().unwrap();
    let good = fs::read(&newest).unwrap();
    let harms: [&dyn Fn(); 4] = [
        &|| flip(&newest, 200),
        &|| edit(&newest, |b| b.truncate(50)),
        &|| fs::write(&newest, "").unwrap(),
        &|| fs::remove_file(&newest).unwrap(),
    ];
    for harm in harms {
        harm();
        let system = bench.open();
        assert_eq!(system.list(None).unwrap().len(), 6);
        assert_eq!(
            restored(&system, "i3").unwrap(),
            fs::read(bench.path("i3.raw")).unwrap()
        );
        fs::write(&newest, &good).unwrap();
    }
}

#[test]
fn where_all_checkpoints_are_damaged_the_loss_is_told() {
    let (bench, _) = checkpointed();
    let both = bench.files("checkpoint");
    both.iter().for_each(|path| flip(path, 200));
    says(
        bench.try_open(),
        ErrorKind::Corrupt,
        &["checkpoint", text(&both[1]), "checksum does not fit"],
    );
    both.iter().for_each(|path| flip(path, 200));
    swap(&both[0], &both[1]);
    says(
        bench.try_open(),
        ErrorKind::Corrupt,
        &[text(&both[1]), "it is that of entry"],
    );
    both.iter().for_each(|path| fs::remove_file(path).unwrap());
    says(
        bench.try_open(),
        ErrorKind::Corrupt,
        &["entry 1 is missing", "log"],
    );
}
