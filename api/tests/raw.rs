//! Snapshots byte for byte: what QEMU could name is stored, chosen by uid, and never guessed at by the native verbs.

#![expect(
    clippy::unwrap_used,
    reason = "a test says what went wrong by its panic"
)]

mod support;

use std::fs;
use std::path::PathBuf;
use std::sync::Arc;
use stillpoint_api::store::id::Uid;
use stillpoint_api::store::progress::Progress;
use stillpoint_api::store::world::Moment;
use stillpoint_api::{
    Create, CreateRaw, Error, ErrorKind, OpenOptions, OwnedView, RawSnapshot, Result, System,
};
use support::{Dice, GEOMETRY};

const DATE: Moment = Moment {
    sec: 5_000_000_000,
    nsec: 7,
};

const EQUAL: &str =
    "their ids and names are equal: `still qemu-img snapshot -d NAME a` deletes the first one";

struct Home {
    folder: tempfile::TempDir,
    system: System,
}

impl Home {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        System::init(&folder.path().join("store"), GEOMETRY).unwrap();
        let system = System::open(&folder.path().join("store"), OpenOptions::default()).unwrap();
        let home = Self { folder, system };
        for device in ["a", "b"] {
            fs::write(home.image(device), vec![1; 40_000]).unwrap();
            home.system
                .device_add(device, &home.image(device), "raw", false)
                .unwrap();
        }
        home
    }

    fn image(&self, device: &str) -> PathBuf {
        self.folder.path().join(format!("{device}.raw"))
    }

    fn create(&self, name: &[u8], id: &[u8]) -> Result<RawSnapshot> {
        self.create_with(name, &mut |_| Ok(id.to_vec()))
    }

    fn create_with(
        &self,
        name: &[u8],
        id: &mut dyn FnMut(&[RawSnapshot]) -> Result<Vec<u8>>,
    ) -> Result<RawSnapshot> {
        let create = CreateRaw {
            device: "a",
            uid: None,
            name,
            date: DATE,
            vm_clock_nsec: u64::MAX,
            icount: Some(0),
            vm_state: None,
        };
        self.system.create_raw(&create, id, &Progress::default())
    }

    fn list(&self) -> Vec<RawSnapshot> {
        self.system.list_raw("a").unwrap()
    }
}

#[test]
fn names_and_ids_may_be_equal_empty_and_of_any_bytes() {
    let home = Home::new();
    for name in [&b"x"[..], b"x", b"", b"\xff/@", &[b'n'; 255]] {
        let made = home.create(name, b"1").unwrap();
        assert_eq!(
            (made.date, made.vm_clock_nsec, made.icount),
            (DATE, u64::MAX, Some(0))
        );
        assert_eq!(home.list().last(), Some(&made));
    }
    assert_eq!(home.list().len(), 5);
    assert!(home.list().iter().all(|s| s.id == b"1"));
    // The native verbs ask which.
    let progress = Progress::default();
    let two = home.system.goto("x", &["a".into()], &progress).unwrap_err();
    assert_eq!(two.kind(), ErrorKind::InvalidInput);
    assert!(two.what_next().is_some());
}

#[test]
fn native_ids_stay_unique_after_the_last_number_there_is() {
    let home = Home::new();
    home.create(b"odd", u64::MAX.to_string().as_bytes())
        .unwrap();
    home.create(b"two", b"2").unwrap();
    let native = |name: &str| {
        let create = Create {
            name: Some(name.into()),
            devices: vec!["a".into()],
            ..Create::default()
        };
        let made = home.system.create(&create, &Progress::default());
        made.unwrap().devices[0].id.clone()
    };
    assert_eq!(["n1", "n2", "n3"].map(native), ["1", "3", "4"]);
}

#[test]
fn among_equal_ones_the_way_to_mean_one_is_said() {
    let home = Home::new();
    let hint = |selector: &str| {
        let reference = format!("a@{selector}");
        let e = home.system.resolve(&reference).unwrap_err();
        e.what_next().unwrap().to_owned()
    };
    home.create(b"x", b"1").unwrap();
    home.create(b"y", b"1").unwrap();
    assert_eq!(
        hint("id:1"),
        "choose by id and name, as in id:1,name:y",
        "what is offered means one"
    );
    home.create(b"y", b"3").unwrap();
    assert_eq!(hint("y"), "choose by id, as in id:3");
    home.create(b"y", b"3").unwrap();
    assert_eq!(hint("id:3"), EQUAL);
    home.create(b"\xff", b"4").unwrap();
    home.create(b"\xff", b"4").unwrap();
    assert_eq!(hint("id:4"), EQUAL);
}

#[test]
fn what_the_format_does_not_hold_is_refused_and_leaves_nothing() {
    let home = Home::new();
    assert!(home.create(&[b'n'; 256], b"1").is_err());
    assert!(home.create(b"n", &[b'1'; 128]).is_err());
    let refused = home.create_with(b"n", &mut |_| Err(Error::invalid("choosing", "no")));
    assert_eq!(refused.unwrap_err().to_string(), "choosing: no");
    assert_eq!(home.list(), []);
}

#[test]
fn the_id_is_chosen_from_what_is_there_when_it_counts() {
    let home = Home::new();
    let other = System::open(&home.folder.path().join("store"), OpenOptions::default()).unwrap();
    let mut asked = Vec::new();
    let made = home.create_with(b"mine", &mut |all| {
        asked.push(all.len());
        if asked.len() == 2 {
            // Between the plan and the entry somebody else is faster.
            let mut id = |all: &[RawSnapshot]| Ok((all.len() + 1).to_string().into_bytes());
            let create = CreateRaw {
                device: "a",
                uid: None,
                name: b"theirs",
                date: DATE,
                vm_clock_nsec: 0,
                icount: None,
                vm_state: None,
            };
            other
                .create_raw(&create, &mut id, &Progress::default())
                .unwrap();
        }
        Ok((all.len() + 1).to_string().into_bytes())
    });
    assert_eq!(made.unwrap().id, b"2", "asked with {asked:?}");
    let ids: Vec<Vec<u8>> = home.list().into_iter().map(|s| s.id).collect();
    assert_eq!(ids, [b"1", b"2"]);
}

#[test]
fn by_uid_the_very_snapshot_is_gone_to_and_deleted_and_no_other() {
    let home = Home::new();
    let progress = Progress::default();
    let first = home.create(b"x", b"1").unwrap();
    fs::write(home.image("a"), vec![2; 50_000]).unwrap();
    let second = home.create(b"x", b"1").unwrap();
    home.system.goto_uid("a", first.uid, &progress).unwrap();
    assert!(fs::read(home.image("a")).unwrap() == vec![1; 40_000]);
    home.system.goto_uid("a", second.uid, &progress).unwrap();
    assert!(fs::read(home.image("a")).unwrap() == vec![2; 50_000]);
    let kind = |e: Result<_>| e.err().map(|e: Error| e.kind());
    let wrong = home.system.goto_uid("b", first.uid, &progress).map(drop);
    assert_eq!(kind(wrong), Some(ErrorKind::NotFound), "another device's");
    home.system.delete_uid(first.uid).unwrap();
    assert_eq!(
        kind(home.system.delete_uid(first.uid)),
        Some(ErrorKind::NotFound)
    );
    assert_eq!(
        kind(home.system.delete_uid(Uid([0; 16]))),
        Some(ErrorKind::NotFound)
    );
    assert_eq!(home.list(), [second]);
}

#[test]
fn any_range_of_a_snapshot_reads_as_it_was() {
    let home = Home::new();
    let mut dice = Dice::new(3);
    let mut bytes: Vec<u8> = (0..300_001).map(|_| dice.roll() as u8).collect();
    bytes[50_000..120_000].fill(0);
    fs::write(home.image("a"), &bytes).unwrap();
    let made = home.create(b"x", b"1").unwrap();
    fs::write(home.image("a"), b"gone").unwrap();
    let view = OwnedView::open(&Arc::new(home.system), made.content).unwrap();
    for _ in 0..200 {
        let (at, len) = (dice.below(310_000), dice.below(90_000));
        let mut read = vec![0xee; len];
        view.read(at as u64, &mut read).unwrap();
        let mut expected = bytes.get(at..).unwrap_or_default().to_vec();
        expected.resize(len, 0);
        assert!(read == expected, "{len} bytes at {at}");
    }
}
