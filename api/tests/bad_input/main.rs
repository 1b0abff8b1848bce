//! Bad input of every kind, on a real folder with real files. Each is refused, or survived, with words that say what is
//! wrong and where.

#![allow(clippy::unwrap_used, reason = "tests")]

mod changing;
mod folder;
mod images;
mod log;
mod names;
mod packs;
mod store_file;
#[path = "../support/mod.rs"]
mod support;

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use stillpoint_api::store::disk::Disk;
use stillpoint_api::store::disk::real::RealDisk;
use stillpoint_api::store::disk::sim::SimDisk;
use stillpoint_api::store::index::memory::MemoryHome;
use stillpoint_api::store::object::local::{LocalObjects, Reserve};
use stillpoint_api::store::progress::Progress;
use stillpoint_api::store::store::{Doors, Store};
use stillpoint_api::store::tuning::Tuning;
use stillpoint_api::{Create, Error, ErrorKind, OpenOptions, Result, System};
use support::{GEOMETRY, SeededWorld, letter};

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
        text = format!("{text}: {cause}");
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
