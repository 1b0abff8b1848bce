//! Damaged packs.

use crate::support::{letter, restored};
use crate::{Bench, edit, flip, says, swap, text};
use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use stillpoint_api::store::ops::gc;
use stillpoint_api::store::progress::Progress;
use stillpoint_api::{ErrorKind, Import, Output};

/// Every copy of a cluster is gone: the snapshots say so, with their extents; nothing wrong comes out; gc touches nothing.
fn damaged_packs_are_told(harm: impl FnOnce(&[PathBuf]), words: &str) {
    let bench = Bench::with_two();
    let packs = bench.packs();
    let before = bench.packs().len();
    harm(&packs);
    let system = bench.open();
    let report = system.store().verify(&Progress::default()).unwrap();
    assert!(!report.is_good());
    let keys: Vec<&str> = report.bad_packs.iter().map(|p| p.key.as_str()).collect();
    assert!(keys.contains(&text(&packs[0])), "{keys:?}");
    let told: Vec<&str> = report
        .bad_packs
        .iter()
        .flat_map(|p| &p.errors)
        .map(|(_, why)| why.as_str())
        .collect();
    assert!(told.iter().any(|why| why.contains(words)), "{told:?}");
    assert!(!report.bad_snapshots.is_empty());
    for bad in &report.bad_snapshots {
        assert!(!bad.extents.is_empty());
        let name = system
            .list(None)
            .unwrap()
            .into_iter()
            .find(|s| s.uid == bad.uid)
            .unwrap()
            .name;
        let path = bench.path("out.raw");
        let exported = system.export(
            &format!("d@{name}"),
            Output::File(&path),
            &Progress::default(),
        );
        says(exported, ErrorKind::Corrupt, &["cannot be read", "at byte"]);
        assert!(!path.exists(), "an export that failed left a file");
    }
    let collected = system.store().gc(
        gc::Options {
            all: true,
            dry_run: false,
        },
        &Progress::default(),
    );
    if let Err(e) = &collected {
        assert_eq!(e.kind(), ErrorKind::Corrupt, "{e:?}");
        assert!(
            e.to_string().contains("nothing was removed") || e.to_string().contains("frame"),
            "{e:?}"
        );
    }
    assert!(bench.packs().len() + 1 >= before);
}

#[test]
fn a_truncated_pack_is_told() {
    damaged_packs_are_told(|packs| edit(&packs[0], |b| b.truncate(5000)), "5000 bytes");
}

#[test]
fn an_empty_pack_is_told() {
    damaged_packs_are_told(|packs| fs::write(&packs[0], "").unwrap(), "");
}

#[test]
fn a_flipped_bit_in_a_frame_is_told() {
    damaged_packs_are_told(|packs| flip(&packs[0], 64 + 500), "checksum");
}

#[test]
fn a_missing_pack_is_told() {
    damaged_packs_are_told(|packs| fs::remove_file(&packs[0]).unwrap(), "");
}

#[test]
fn two_exchanged_packs_are_told() {
    damaged_packs_are_told(|packs| swap(&packs[0], &packs[1]), "");
}

#[test]
fn a_flipped_bit_anywhere_in_a_pack_is_found_and_nothing_wrong_comes_out() {
    let bench = Bench::with_two();
    let good: BTreeMap<&str, Vec<u8>> = [("one", 0..6), ("two", 6..12u8)]
        .map(|(name, letters)| (name, letters.flat_map(letter).collect()))
        .into();
    for pack in bench.packs() {
        let size = fs::metadata(&pack).unwrap().len() as usize;
        let table = size - 64 - 4096;
        for at in [
            3,
            20,
            60,
            64,
            80,
            90,
            table - 1,
            table,
            table + 24,
            table + 60,
            table + 4000,
            size - 64,
            size - 20,
            size - 1,
        ] {
            flip(&pack, at);
            let system = bench.open();
            let report = system.store().verify(&Progress::default()).unwrap();
            assert!(!report.is_good(), "byte {at} of {}", pack.display());
            assert_eq!(report.bad_packs.len(), 1);
            assert_eq!(report.bad_packs[0].key, text(&pack));
            for (name, bytes) in &good {
                match restored(&system, &format!("d@{name}")) {
                    Ok(read) => assert!(read == *bytes, "byte {at}: {name} came out wrong"),
                    Err(e) => assert_eq!(e.kind(), ErrorKind::Corrupt, "byte {at}: {e:?}"),
                }
            }
            flip(&pack, at);
        }
    }
    assert!(
        bench
            .open()
            .store()
            .verify(&Progress::default())
            .unwrap()
            .is_good()
    );
}

#[test]
fn gc_removes_nothing_while_something_reachable_is_missing() {
    let bench = Bench::with_two();
    let packs = bench.packs();
    bench
        .open()
        .delete("two", &[], false, &Progress::default())
        .unwrap();
    let missing = packs.iter().find(|p| {
        let away = p.with_extension("away");
        fs::rename(p, &away).unwrap();
        let hurts = restored(&bench.open(), "d@one").is_err();
        fs::rename(&away, p).unwrap();
        hurts
    });
    fs::remove_file(missing.unwrap()).unwrap();
    let left = bench.packs();
    let done = bench.open().store().gc(
        gc::Options {
            all: true,
            dry_run: false,
        },
        &Progress::default(),
    );
    let e = says(done, ErrorKind::Corrupt, &["nothing was removed"]);
    assert!(e.what_next().unwrap().contains("verify"));
    assert_eq!(bench.packs(), left);
}

#[test]
fn what_a_damaged_pack_lost_is_stored_again_from_an_image_that_has_it() {
    let bench = Bench::with_two();
    bench
        .packs()
        .iter()
        .for_each(|p| fs::remove_file(p).unwrap());
    let system = bench.open();
    let bytes = bench.image("d.raw", 0..6);
    let import = Import {
        image: &bench.path("d.raw"),
        device: "saved",
        name: Some("s"),
    };
    system.import(&import, &Progress::default()).unwrap();
    assert_eq!(restored(&system, "saved").unwrap(), bytes);
    assert_eq!(
        restored(&system, "d@one").unwrap(),
        bytes,
        "its clusters and nodes are the same"
    );
}
