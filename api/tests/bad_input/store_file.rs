//! What is no store, or one that this program does not know.

use crate::support::GEOMETRY;
use crate::{Bench, says, text};
use std::fs;
use stillpoint_api::{ErrorKind, OpenOptions, System};

#[test]
fn a_store_of_a_newer_format_is_refused_by_name() {
    let bench = Bench::new();
    let file = bench.store().join("store.json");
    let newer = fs::read_to_string(&file)
        .unwrap()
        .replace("\"version\": 1", "\"version\": 2")
        .replace("\"version\":1", "\"version\":2");
    fs::write(&file, newer).unwrap();
    let e = says(
        bench.try_open(),
        ErrorKind::Unsupported,
        &["store.json", "format version 2", "up to 1"],
    );
    assert_eq!(e.what_next(), Some("use a newer version of this program"));
}

#[test]
fn a_store_file_that_is_none_is_damaged_or_is_missing_is_told_apart() {
    let bench = Bench::new();
    let file = bench.store().join("store.json");
    let good = fs::read_to_string(&file).unwrap();
    fs::write(&file, "[general]").unwrap();
    says(
        bench.try_open(),
        ErrorKind::Corrupt,
        &["store.json", "not a stillpoint store"],
    );
    fs::write(&file, "").unwrap();
    says(
        bench.try_open(),
        ErrorKind::Corrupt,
        &["store.json", "not a stillpoint store"],
    );
    fs::write(&file, good.replace("8192", "4096")).unwrap();
    says(
        bench.try_open(),
        ErrorKind::Corrupt,
        &["store.json", "checksum does not fit"],
    );
    fs::write(&file, vec![b' '; 70_000]).unwrap();
    says(
        bench.try_open(),
        ErrorKind::LimitExceeded,
        &["store.json", "70000 bytes"],
    );
    fs::remove_file(&file).unwrap();
    says(
        bench.try_open(),
        ErrorKind::NotFound,
        &["store.json", "there is no store here"],
    );
    fs::write(&file, good).unwrap();
    bench.open();
}

#[test]
fn a_store_where_there_is_none_is_not_found() {
    let bench = Bench::new();
    let options = OpenOptions::default;
    let nowhere = bench.path("nowhere");
    says(
        System::open(&nowhere, options()),
        ErrorKind::NotFound,
        &[text(&nowhere), "no such folder"],
    );
    fs::write(&nowhere, "a file").unwrap();
    says(
        System::open(&nowhere, options()),
        ErrorKind::InvalidInput,
        &[text(&nowhere), "not a folder"],
    );
    says(
        System::init(&bench.store(), GEOMETRY),
        ErrorKind::AlreadyExists,
        &["there is a store already"],
    );
    let full = bench.path("full");
    fs::create_dir(&full).unwrap();
    fs::write(full.join("letter"), "x").unwrap();
    says(
        System::init(&full, GEOMETRY),
        ErrorKind::AlreadyExists,
        &["not empty", "letter"],
    );
}
