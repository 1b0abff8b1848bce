//! Bad input of every kind, on a real folder with real files. Each is refused, or survived, with words that say what is
//! wrong and where.

#![allow(clippy::unwrap_used, reason = "tests")]

mod support;

use std::collections::BTreeMap;
use std::fs;
use std::io::{Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Mutex};
use stillpoint_api::store::disk::real::RealDisk;
use stillpoint_api::store::disk::sim::SimDisk;
use stillpoint_api::store::disk::{Disk, DiskFile, Extent, FileKind, OpenMode, Stamp};
use stillpoint_api::store::format::entry::{Op, SessionKind};
use stillpoint_api::store::format::snapshot::SnapshotRecord;
use stillpoint_api::store::index::memory::MemoryHome;
use stillpoint_api::store::object::Purse;
use stillpoint_api::store::object::local::{LocalObjects, Reserve};
use stillpoint_api::store::ops::gc;
use stillpoint_api::store::progress::Progress;
use stillpoint_api::store::store::{Doors, Store};
use stillpoint_api::store::tuning::Tuning;
use stillpoint_api::{Create, Error, ErrorKind, Import, OpenOptions, Output, Result, System};
use support::{C, Cell, GEOMETRY, Picture, SeededWorld, letter, restored};

/// A store in a temporary folder, with images beside it.
struct Bench {
    folder: tempfile::TempDir,
}

impl Bench {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        System::init(&folder.path().join("store"), GEOMETRY).unwrap();
        Self { folder }
    }

    /// With device `d` and its snapshots `one` and `two`, which share nothing.
    fn with_two() -> Self {
        let bench = Self::new();
        let system = bench.open();
        bench.image("d.raw", 0..6);
        system
            .device_add("d", &bench.path("d.raw"), "raw", false)
            .unwrap();
        create(&system, "one").unwrap();
        bench.image("d.raw", 6..12);
        create(&system, "two").unwrap();
        bench
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn store(&self) -> PathBuf {
        self.path("store")
    }

    /// An image of these letters.
    fn image(&self, name: &str, letters: std::ops::Range<u8>) -> Vec<u8> {
        let bytes: Vec<u8> = letters.flat_map(letter).collect();
        fs::write(self.path(name), &bytes).unwrap();
        bytes
    }

    fn try_open(&self) -> Result<System> {
        System::open(&self.store(), OpenOptions::default())
    }

    fn open(&self) -> System {
        self.try_open().unwrap()
    }

    /// The store over another disk, or with other sizes.
    fn open_on(&self, disk: Arc<dyn Disk>, tuning: Tuning) -> Result<System> {
        let objects = LocalObjects::open(
            Arc::new(RealDisk),
            &self.store(),
            Reserve::default(),
            [7; 16],
        )?;
        System::with_tuning(doors(objects), disk, tuning)
    }

    fn files(&self, folder: &str) -> Vec<PathBuf> {
        files_in(&self.store().join(folder))
    }

    /// All packs, the largest first: it holds clusters.
    fn packs(&self) -> Vec<PathBuf> {
        let mut packs: Vec<PathBuf> = self
            .files("packs")
            .iter()
            .flat_map(|p| files_in(p))
            .collect();
        packs.sort_by_key(|p| std::cmp::Reverse(fs::metadata(p).unwrap().len()));
        packs
    }
}

fn files_in(folder: &Path) -> Vec<PathBuf> {
    let mut all: Vec<PathBuf> = fs::read_dir(folder)
        .unwrap()
        .map(|e| e.unwrap().path())
        .collect();
    all.sort();
    all
}

fn doors(objects: LocalObjects) -> Doors {
    let objects = Arc::new(objects);
    Doors {
        objects: objects.clone(),
        local: objects,
        index: Arc::new(MemoryHome::default()),
        world: SeededWorld::new(1, "bad input"),
        say: Arc::new(|_| {}),
    }
}

fn create(system: &System, name: &str) -> Result<stillpoint_api::Created> {
    let create = Create {
        name: Some(name.into()),
        ..Create::default()
    };
    system.create(&create, &Progress::default())
}

/// The error is of this kind and its text has all these parts.
fn says<T>(result: Result<T>, kind: ErrorKind, parts: &[&str]) -> Error {
    let Err(e) = result else {
        panic!("nothing was refused; expected {parts:?}")
    };
    assert_eq!(e.kind(), kind, "{e:?}");
    let mut text = e.to_string();
    let mut source = std::error::Error::source(&e);
    while let Some(cause) = source {
        text += &format!(": {cause}");
        source = cause.source();
    }
    for part in parts {
        assert!(text.contains(part), "{part:?} is not in {text:?}");
    }
    e
}

fn edit(path: &Path, change: impl FnOnce(&mut Vec<u8>)) {
    let mut bytes = fs::read(path).unwrap();
    change(&mut bytes);
    fs::write(path, bytes).unwrap();
}

fn flip(path: &Path, at: usize) {
    edit(path, |bytes| bytes[at] ^= 0x10);
}

fn swap(a: &Path, b: &Path) {
    let bytes = fs::read(a).unwrap();
    fs::copy(b, a).unwrap();
    fs::write(b, bytes).unwrap();
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

// store.json

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

// The log

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
            assert!(fs::copy(&entries[2], &entry).is_ok())
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

// Packs

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

// Images

fn takes(bench: &Bench, system: &System, image: &Path) {
    let device = image.file_stem().unwrap().to_str().unwrap();
    system.device_add(device, image, "raw", false).unwrap();
    let one = Create {
        name: Some("s".into()),
        devices: vec![device.into()],
        changed: None,
    };
    system.create(&one, &Progress::default()).unwrap();
    let out = bench.path("out.raw");
    system
        .export(
            &format!("{device}@s"),
            Output::File(&out),
            &Progress::default(),
        )
        .unwrap();
    assert_eq!(
        fs::read(&out).unwrap(),
        fs::read(image).unwrap(),
        "{device}"
    );
    fs::remove_file(out).unwrap();
}

#[test]
fn images_of_any_length_are_taken() {
    let bench = Bench::new();
    let system = bench.open();
    for len in [
        0,
        1,
        511,
        512,
        513,
        C - 1,
        C,
        C + 1,
        256 * C,
        256 * C + 1,
        300 * C - 7,
    ] {
        let image = bench.path(&format!("of-{len}.raw"));
        let bytes: Vec<u8> = (0..=255).cycle().flat_map(letter).take(len).collect();
        fs::write(&image, bytes).unwrap();
        takes(&bench, &system, &image);
    }
    assert!(
        system
            .store()
            .verify(&Progress::default())
            .unwrap()
            .is_good()
    );
}

/// A few bytes in a sea of holes: what they cost is what they are.
fn check_vast(system: &System, disk: &dyn Disk, image: &Path, out: &Path, len: u64) {
    let places = [0, 3 << 40, len - 9];
    let file = disk.open(image, OpenMode::Write).unwrap();
    file.set_len(len).unwrap();
    for at in places {
        file.write_at(at, b"in a sea").unwrap();
    }
    drop(file);
    let import = Import {
        image,
        device: "vast",
        name: Some("s"),
    };
    let made = system.import(&import, &Progress::default()).unwrap();
    assert_eq!(made.devices[0].content.size, len);
    assert!(
        made.devices[0].counts.read <= 16 * 65_536,
        "holes were read: {:?}",
        made.devices[0].counts
    );
    system
        .export("vast", Output::File(out), &Progress::default())
        .unwrap();
    let file = disk.open(out, OpenMode::Read).unwrap();
    assert_eq!(file.len().unwrap(), len);
    for at in places {
        let mut bytes = [0; 8];
        file.read_at(at, &mut bytes).unwrap();
        assert_eq!(&bytes, b"in a sea");
    }
    let hole = file.extent(1 << 40).unwrap();
    assert!(!hole.data && hole.end > 2 << 40, "{hole:?}");
    assert!(
        system
            .store()
            .totals(&Progress::default())
            .unwrap()
            .stored_bytes
            < 100_000
    );
}

#[test]
fn sparse_images_of_many_terabytes_cost_what_is_in_them() {
    let bench = Bench::new();
    let system = bench.open();
    let image = bench.path("vast.raw");
    let file = fs::File::create(&image).unwrap();
    let len = (9 << 40) + 12_345;
    if let Err(e) = file.set_len(len) {
        eprintln!(
            "SKIPPED: the file system of {} has no such large files: {e}",
            image.display()
        );
        return;
    }
    check_vast(&system, &RealDisk, &image, &bench.path("out.raw"), len);
}

#[test]
fn sixteen_terabytes_of_holes_are_nothing_on_any_disk() {
    let (system, disk) = simulated();
    let (image, out) = (Path::new("/vast.raw"), Path::new("/out.raw"));
    drop(disk.open(image, OpenMode::CreateNew).unwrap());
    check_vast(&system, &disk, image, out, 16 << 40);
}

#[test]
fn what_is_no_image_is_refused() {
    let bench = Bench::new();
    let system = bench.open();
    let fifo = bench.path("fifo");
    assert!(
        Command::new("mkfifo")
            .arg(&fifo)
            .status()
            .unwrap()
            .success()
    );
    let folder = bench.path("folder");
    fs::create_dir(&folder).unwrap();
    let link = bench.path("link");
    std::os::unix::fs::symlink("nowhere", &link).unwrap();
    let cases: [(&Path, ErrorKind, &str); 5] = [
        (&fifo, ErrorKind::InvalidInput, "a FIFO"),
        (&folder, ErrorKind::InvalidInput, "a folder"),
        (
            Path::new("/dev/null"),
            ErrorKind::InvalidInput,
            "a character device",
        ),
        (&link, ErrorKind::NotFound, "no such file"),
        (&bench.path("none"), ErrorKind::NotFound, "no such file"),
    ];
    for (path, kind, words) in cases {
        says(
            system.device_add("d", path, "raw", false),
            kind,
            &[text(path), words],
        );
        let import = Import {
            image: path,
            device: "d",
            name: None,
        };
        says(
            system.import(&import, &Progress::default()),
            kind,
            &[text(path), words],
        );
    }
    assert!(system.devices().unwrap().is_empty());
}

#[test]
fn an_image_that_cannot_be_read_is_told() {
    use std::os::unix::fs::PermissionsExt;
    let bench = Bench::new();
    bench.image("d.raw", 0..2);
    let image = bench.path("d.raw");
    fs::set_permissions(&image, fs::Permissions::from_mode(0)).unwrap();
    if fs::File::open(&image).is_ok() {
        eprintln!("SKIPPED: this user may read every file");
        return;
    }
    let added = bench.open().device_add("d", &image, "raw", false);
    says(added, ErrorKind::Io, &[text(&image), "may not read it"]);
}

#[test]
fn an_image_is_attached_once() {
    let bench = Bench::with_two();
    let system = bench.open();
    let image = bench.path("d.raw");
    says(
        system.device_add("e", &image, "raw", false),
        ErrorKind::AlreadyExists,
        &["\"e\"", "that of device \"d\""],
    );
    let link = bench.path("link.raw");
    std::os::unix::fs::symlink(&image, &link).unwrap();
    says(
        system.device_add("e", &link, "raw", false),
        ErrorKind::AlreadyExists,
        &["that of device \"d\""],
    );
    bench.image("e.raw", 0..1);
    says(
        system.device_add("d", &bench.path("e.raw"), "raw", false),
        ErrorKind::AlreadyExists,
        &["\"d\""],
    );
    says(
        system.device_add("e", &bench.path("e.raw"), "vhdx", false),
        ErrorKind::Unsupported,
        &["\"vhdx\""],
    );
    system
        .device_add("e", &bench.path("e.raw"), "raw", true)
        .unwrap();
    let one = Create {
        name: Some("s".into()),
        devices: vec!["e".into()],
        changed: None,
    };
    system.create(&one, &Progress::default()).unwrap();
    let went = system.goto("s", &["e".into()], &Progress::default());
    says(went, ErrorKind::ReadOnly, &["\"e\"", "read-only"]);
}

/// A real disk on which something happens once, in the middle of a read of a file that was opened through it.
struct Meddled(Meddler);

type Meddler = Arc<Mutex<Option<Box<dyn FnOnce() + Send>>>>;

struct MeddledFile(Box<dyn DiskFile>, Meddler);

impl DiskFile for MeddledFile {
    fn read_at(&self, offset: u64, buf: &mut [u8]) -> Result<usize> {
        if let Some(act) = self.1.lock().unwrap().take() {
            act();
        }
        self.0.read_at(offset, buf)
    }
    fn len(&self) -> Result<u64> {
        self.0.len()
    }
    fn write_at(&self, offset: u64, data: &[u8]) -> Result<()> {
        self.0.write_at(offset, data)
    }
    fn set_len(&self, len: u64) -> Result<()> {
        self.0.set_len(len)
    }
    fn punch(&self, start: u64, end: u64) -> Result<()> {
        self.0.punch(start, end)
    }
    fn allocate(&self, len: u64) -> Result<()> {
        self.0.allocate(len)
    }
    fn extent(&self, offset: u64) -> Result<Extent> {
        self.0.extent(offset)
    }
    fn sync(&self) -> Result<()> {
        self.0.sync()
    }
    fn stamp(&self) -> Result<Stamp> {
        self.0.stamp()
    }
    fn try_lock(&self) -> Result<bool> {
        self.0.try_lock()
    }
    fn try_lock_shared(&self) -> Result<bool> {
        self.0.try_lock_shared()
    }
    fn is_still_named(&self) -> Result<bool> {
        self.0.is_still_named()
    }
    fn as_real(&self) -> Option<&fs::File> {
        self.0.as_real()
    }
}

impl Disk for Meddled {
    fn open(&self, path: &Path, mode: OpenMode) -> Result<Box<dyn DiskFile>> {
        Ok(Box::new(MeddledFile(
            RealDisk.open(path, mode)?,
            self.0.clone(),
        )))
    }
    fn kind(&self, path: &Path) -> Result<FileKind> {
        RealDisk.kind(path)
    }
    fn create_folders(&self, path: &Path) -> Result<()> {
        RealDisk.create_folders(path)
    }
    fn link(&self, from: &Path, to: &Path) -> Result<bool> {
        RealDisk.link(from, to)
    }
    fn rename(&self, from: &Path, to: &Path) -> Result<()> {
        RealDisk.rename(from, to)
    }
    fn remove(&self, path: &Path) -> Result<()> {
        RealDisk.remove(path)
    }
    fn remove_folder(&self, path: &Path) -> Result<()> {
        RealDisk.remove_folder(path)
    }
    fn list(&self, path: &Path) -> Result<Vec<String>> {
        RealDisk.list(path)
    }
    fn sync_folder(&self, path: &Path) -> Result<()> {
        RealDisk.sync_folder(path)
    }
    fn is_writable(&self, folder: &Path) -> bool {
        RealDisk.is_writable(folder)
    }
    fn canonical(&self, path: &Path) -> Result<PathBuf> {
        RealDisk.canonical(path)
    }
}

/// Makes a snapshot while this happens to its image: it must fail, say why, and leave nothing.
fn meddled(act: impl FnOnce(&Path) + Send + 'static, words: &str) {
    let bench = Bench::new();
    bench.image("d.raw", 0..12);
    let image = bench.path("d.raw");
    let meddler: Meddler = Arc::default();
    let system = bench
        .open_on(Arc::new(Meddled(meddler.clone())), Tuning::default())
        .unwrap();
    system.device_add("d", &image, "raw", false).unwrap();
    let path = image.clone();
    *meddler.lock().unwrap() = Some(Box::new(move || act(&path)));
    says(
        create(&system, "s"),
        ErrorKind::Busy,
        &[text(&image), words],
    );
    assert!(meddler.lock().unwrap().is_none(), "it did not happen");
    assert!(system.list(None).unwrap().is_empty());
    assert_eq!(system.store().refresh().unwrap().sessions().count(), 0);
    if image.exists() {
        create(&system, "s").unwrap();
        assert_eq!(restored(&system, "d@s").unwrap(), fs::read(&image).unwrap());
    }
}

#[test]
fn an_image_that_shrinks_while_it_is_read_is_told() {
    meddled(
        |image| {
            fs::File::options()
                .write(true)
                .open(image)
                .unwrap()
                .set_len(5000)
                .unwrap()
        },
        "changed",
    );
}

#[test]
fn an_image_that_grows_while_it_is_read_is_told() {
    meddled(
        |image| {
            fs::File::options()
                .append(true)
                .open(image)
                .unwrap()
                .write_all(b"more")
                .unwrap()
        },
        "changed",
    );
}

#[test]
fn an_image_that_changes_while_it_is_read_is_told() {
    let write = |image: &Path| {
        let mut file = fs::File::options().write(true).open(image).unwrap();
        file.seek(SeekFrom::Start(20_000)).unwrap();
        file.write_all(b"changed").unwrap();
    };
    meddled(write, "changed");
}

#[test]
fn an_image_that_vanishes_while_it_is_read_is_told() {
    meddled(|image| fs::remove_file(image).unwrap(), "changed");
}

#[test]
fn an_image_that_is_replaced_while_it_is_read_is_told() {
    let replace = |image: &Path| {
        let other = image.with_extension("new");
        fs::copy(image, &other).unwrap();
        fs::rename(other, image).unwrap();
    };
    meddled(replace, "changed");
}

// Names

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
        ErrorKind::Busy,
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
    assert_eq!(&listed[2..6], ["a@b", "a\nb", "\u{fffd}\u{fffd}", ""]);
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
        ErrorKind::Busy,
        &["name has 256 bytes"],
    );
    says(
        odd(&system, &[b'1'; 128], b"x"),
        ErrorKind::Busy,
        &["id has 128 bytes"],
    );
    assert_eq!(system.list(None).unwrap().len(), 2);
}

// The folder

fn simulated() -> (System, SimDisk) {
    let disk = SimDisk::new(1);
    let reserve = Reserve {
        entry_files: 1,
        entry_bytes: 4096,
        pack_files: 1,
        pack_bytes: 4096,
    };
    let root = Path::new("/store");
    let objects = LocalObjects::create(Arc::new(disk.clone()), root, reserve, [1; 16]).unwrap();
    Store::create(&objects, &*SeededWorld::new(1, "init"), GEOMETRY).unwrap();
    let system = System::with(doors(objects), Arc::new(disk.clone())).unwrap();
    (system, disk)
}

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
