//! Names that are empty, long, taken, unknown or strange.

use crate::support::{C, letter, restored};
use crate::{Bench, create, says, text};
use std::collections::BTreeMap;
use stillpoint_api::store::format::entry::{Op, SessionKind};
use stillpoint_api::store::format::snapshot::SnapshotRecord;
use stillpoint_api::store::object::Purse;
use stillpoint_api::store::progress::Progress;
use stillpoint_api::{ErrorKind, Import, Output, Result, System};

#[test]
fn names_that_could_be_mistaken_are_refused() {
    let bench = Bench::with_two();
    let system = bench.open();
    bench.image("e.raw", 0..1);
    let image = bench.path("e.raw");
    let long = "x".repeat(256);
    for (name, words) in [
        ("", "empty"),
        (long.as_str(), "256 bytes"),
        ("a@b", "'@'"),
        ("a\nb", "not allowed"),
        ("a/b", "'/'"),
    ] {
        let kind = ErrorKind::InvalidInput;
        says(
            system.device_add(name, &image, "raw", false),
            kind,
            &["device name", words],
        );
        says(create(&system, name), kind, &["snapshot name", words]);
        let import = Import {
            image: &image,
            device: name,
            name: None,
        };
        says(
            system.import(&import, &Progress::default()),
            kind,
            &["device name", words],
        );
        let import = Import {
            image: &image,
            device: "e",
            name: Some(name),
        };
        says(
            system.import(&import, &Progress::default()),
            kind,
            &["snapshot name", words],
        );
    }
    assert_eq!(system.list(None).unwrap().len(), 2);
    let longest = "y".repeat(255);
    create(&system, &longest).unwrap();
    assert_eq!(
        restored(&system, &format!("d@{longest}")).unwrap().len(),
        6 * C
    );
}

#[test]
fn taken_and_unknown_names_are_told_apart() {
    let bench = Bench::with_two();
    let system = bench.open();
    let progress = Progress::default();
    let e = says(
        create(&system, "one"),
        ErrorKind::AlreadyExists,
        &["\"one\"", "\"d\""],
    );
    assert!(e.what_next().is_some());
    let none = ErrorKind::NotFound;
    says(restored(&system, "e@one"), none, &["device \"e\""]);
    says(restored(&system, "d@three"), none, &["\"three\"", "\"d\""]);
    says(restored(&system, "d@id:9"), none, &["id:9"]);
    says(system.goto("three", &[], &progress), none, &["\"three\""]);
    says(
        system.delete("three", &[], false, &progress),
        none,
        &["\"three\""],
    );
    says(system.find("three", &[]), none, &["\"three\""]);
    says(system.diff("d@one", "d@three"), none, &["\"three\""]);
    says(system.device_remove("e"), none, &["\"e\""]);
    says(system.list(Some("e")), none, &["\"e\""]);
    says(
        system.device_remove("d"),
        ErrorKind::Refused,
        &["\"d\"", "2 snapshots"],
    );
    says(
        restored(&system, "d"),
        ErrorKind::InvalidInput,
        &["\"d\"", "its image"],
    );
    says(
        restored(&system, "@one"),
        ErrorKind::InvalidInput,
        &["names no device"],
    );
    says(
        restored(&system, "d@"),
        ErrorKind::InvalidInput,
        &["names nothing"],
    );
    let taken = bench.path("d.raw");
    let exported = system.export("d@one", Output::File(&taken), &progress);
    says(
        exported,
        ErrorKind::AlreadyExists,
        &[text(&taken), "something already"],
    );
    let nowhere = bench.path("nowhere/out.raw");
    says(
        system.export("d@one", Output::File(&nowhere), &progress),
        none,
        &[text(&bench.path("nowhere"))],
    );
}

/// As a migration may bring it.
fn odd(system: &System, id: &[u8], name: &[u8]) -> Result<()> {
    let (device, content, uid) = {
        let catalog = system.store().catalog();
        let first = catalog.snapshots().min_by_key(|s| s.order).unwrap();
        (
            first.record.device,
            first.record.content,
            system.store().new_uid(),
        )
    };
    let record = SnapshotRecord {
        uid,
        device,
        id: id.into(),
        name: name.into(),
        date_sec: 0,
        date_nsec: 0,
        vm_clock_nsec: 0,
        icount: None,
        vm_state: None,
        content,
        group: None,
        parent: None,
        extra: vec![1, 2, 3],
        labels: BTreeMap::new(),
    };
    let put = Op::PutSnapshot {
        record,
        gotos_begun: 0,
    };
    system
        .store()
        .commit(SessionKind::Writer, Purse::Free, &mut |_| {
            Ok(vec![put.clone()])
        })
}

#[test]
fn odd_names_in_the_log_are_listed_and_restored() {
    let bench = Bench::with_two();
    let system = bench.open();
    let bytes: Vec<u8> = (0..6).flat_map(letter).collect();
    let names: [&[u8]; 7] = [
        b"a@b",
        b"a\nb",
        b"\xff\xfe",
        b"",
        b"twice",
        b"twice",
        &[b'z'; 255],
    ];
    for (n, name) in names.iter().enumerate() {
        odd(&system, format!("odd{n}").as_bytes(), name).unwrap();
    }
    let listed: Vec<String> = system
        .list(Some("d"))
        .unwrap()
        .into_iter()
        .map(|s| s.name)
        .collect();
    assert_eq!(&listed[2..6], ["a@b", "a\nb", "\\xff\\xfe", ""]);
    for n in 0..names.len() {
        assert_eq!(restored(&system, &format!("d@id:odd{n}")).unwrap(), bytes);
    }
    assert_eq!(restored(&system, "d@a@b").unwrap(), bytes);
    assert_eq!(restored(&system, "d@a\nb").unwrap(), bytes);
    let e = says(
        restored(&system, "d@twice"),
        ErrorKind::InvalidInput,
        &["\"twice\"", "several"],
    );
    assert!(e.what_next().unwrap().contains("id:odd5"), "{e:?}");
    says(
        system.delete("twice", &[], false, &Progress::default()),
        ErrorKind::InvalidInput,
        &["several"],
    );
    system
        .delete("id:odd4", &[], false, &Progress::default())
        .unwrap();
    assert_eq!(restored(&system, "d@twice").unwrap(), bytes);
    // Native ids go on counting beside ids that are no numbers.
    assert_eq!(create(&system, "three").unwrap().devices[0].id, "3");
    drop(system);
    assert_eq!(bench.open().list(None).unwrap().len(), 9);
}

#[test]
fn what_the_format_cannot_hold_is_refused() {
    let bench = Bench::with_two();
    let system = bench.open();
    says(
        odd(&system, b"1", &[b'x'; 256]),
        ErrorKind::InvalidInput,
        &["name has 256 bytes"],
    );
    says(
        odd(&system, &[b'1'; 128], b"x"),
        ErrorKind::InvalidInput,
        &["id has 128 bytes"],
    );
    assert_eq!(system.list(None).unwrap().len(), 2);
}
