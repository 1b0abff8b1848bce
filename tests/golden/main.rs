//! The format of stores, held fast: a store of real files that every later version must read, and the bytes of each
//! structure as `store/FORMAT.md` draws them, put together here by hand.
//!
//! `STILL_REGENERATE_FIXTURES=1 cargo test --test golden` writes the files anew. That is allowed only because 0.1.0 is not
//! tagged: from then on `tests/fixtures` never changes, and this sentence and the code behind it go.

#![expect(
    clippy::unwrap_used,
    reason = "a test says what went wrong by its panic"
)]

mod bytes;
mod generate;
mod transfers;
mod versions;

use generate::{STORED, a, b, generate};
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use stillpoint_api::store::disk::real::RealDisk;
use stillpoint_api::store::disk::{Disk, DiskFile, FileKind, OpenMode};
use stillpoint_api::store::format::envelope::{self, EnvelopeKind};
use stillpoint_api::store::index::memory::MemoryHome;
use stillpoint_api::store::object::local::{LocalObjects, Reserve};
use stillpoint_api::store::progress::Progress;
use stillpoint_api::store::store::{Doors, read_store_file};
use stillpoint_api::{Error, ErrorKind, Output, Result, System};

/// The golden store.
pub fn fixture() -> PathBuf {
    static ONCE: std::sync::Once = std::sync::Once::new();
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/v1");
    ONCE.call_once(|| {
        if std::env::var_os("STILL_REGENERATE_FIXTURES").is_some() {
            let _there_may_be_none = fs::remove_dir_all(&folder);
            generate(&folder);
        }
    });
    folder
}

/// All files below a folder, by their paths in it.
pub fn files(folder: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut all = BTreeMap::new();
    let mut folders = vec![folder.to_path_buf()];
    while let Some(at) = folders.pop() {
        for entry in fs::read_dir(&at).expect("the folder is there") {
            let path = entry.expect("it can be listed").path();
            if path.is_dir() {
                folders.push(path);
                continue;
            }
            let name = path.strip_prefix(folder).expect("it is below");
            let bytes = fs::read(&path).expect("it can be read");
            all.insert(name.display().to_string(), bytes);
        }
    }
    all
}

/// A disk that refuses every change.
struct ReadOnlyDisk;

fn refused<T>(path: &Path) -> Result<T> {
    Err(Error::new(ErrorKind::ReadOnly, "changing a fixture").at(path.display()))
}

impl Disk for ReadOnlyDisk {
    fn open(&self, path: &Path, mode: OpenMode) -> Result<Box<dyn DiskFile>> {
        if mode.writes() {
            return refused(path);
        }
        RealDisk.open(path, mode)
    }
    fn kind(&self, path: &Path) -> Result<FileKind> {
        RealDisk.kind(path)
    }
    fn create_folders(&self, path: &Path) -> Result<()> {
        refused(path)
    }
    fn link(&self, from: &Path, _: &Path) -> Result<bool> {
        refused(from)
    }
    fn rename(&self, from: &Path, _: &Path) -> Result<()> {
        refused(from)
    }
    fn remove(&self, path: &Path) -> Result<()> {
        refused(path)
    }
    fn remove_folder(&self, path: &Path) -> Result<()> {
        refused(path)
    }
    fn list(&self, path: &Path) -> Result<Vec<String>> {
        RealDisk.list(path)
    }
    fn sync_folder(&self, path: &Path) -> Result<()> {
        refused(path)
    }
    fn is_writable(&self, _: &Path) -> bool {
        false
    }
    fn canonical(&self, path: &Path) -> Result<PathBuf> {
        RealDisk.canonical(path)
    }
}

/// The store in a folder that nobody may write, without an index.
pub fn open(folder: &Path) -> Result<System> {
    let disk: Arc<dyn Disk> = Arc::new(ReadOnlyDisk);
    let objects = LocalObjects::open(disk.clone(), folder, Reserve::default(), [0; 16])?;
    let objects = Arc::new(objects);
    let file = read_store_file(&*objects)?;
    let doors = Doors {
        objects: objects.clone(),
        local: objects,
        index: Arc::new(MemoryHome::new(file.id)),
        world: Arc::new(generate::CountingWorld::new()),
        say: Arc::new(|_| {}),
    };
    System::with(doors, disk)
}

#[test]
fn the_golden_store_lists_what_it_always_did() {
    let system = open(&fixture()).unwrap();
    let devices: Vec<String> = system
        .devices()
        .unwrap()
        .into_iter()
        .map(|d| {
            format!(
                "{} {:?} {} of {:?}",
                d.name,
                d.image.unwrap(),
                d.read_only,
                d.base.unwrap()
            )
        })
        .collect();
    assert_eq!(devices, DEVICES);
    let snapshots: Vec<String> = system
        .list(None)
        .unwrap()
        .into_iter()
        .map(|s| {
            let date = format!("{}.{}", s.date.sec, s.date.nsec);
            format!(
                "{}@{} {} {date} {} {} {}",
                s.device, s.name, s.id, s.size, s.uid, s.root
            )
        })
        .collect();
    assert_eq!(snapshots, SNAPSHOTS);
}

#[test]
fn the_golden_store_gives_every_disk_back_and_is_good() {
    let system = open(&fixture()).unwrap();
    for (reference, disk) in [("a@one", a(1)), ("a@three", a(3)), ("b@one", b())] {
        let mut out = Vec::new();
        let written = system.export(reference, Output::Stream(&mut out), &Progress::default());
        written.unwrap();
        assert!(out == disk, "{reference} is another disk");
    }
    let report = system.store().verify(&Progress::default()).unwrap();
    assert!(report.is_good(), "{report:?}");
}

#[test]
fn the_log_is_a_chain_from_the_first_entry_and_each_checkpoint_is_tied_to_it() {
    let files = files(&fixture());
    let mut previous = vec![stillpoint_api::store::id::Hash([0; 32])];
    for (key, bytes) in files.iter().filter(|(key, _)| key.starts_with("log/")) {
        let entry = envelope::open(EnvelopeKind::Entry, bytes).unwrap();
        assert_eq!(*key, format!("log/{:020}", entry.sequence));
        assert_eq!(entry.sequence, previous.len() as u64);
        assert_eq!(Some(&entry.previous), previous.last());
        previous.push(entry.checksum);
    }
    let mut checkpoints = 0;
    for (key, bytes) in files
        .iter()
        .filter(|(key, _)| key.starts_with("checkpoint/"))
    {
        let checkpoint = envelope::open(EnvelopeKind::Checkpoint, bytes).unwrap();
        assert_eq!(*key, format!("checkpoint/{:020}", checkpoint.sequence));
        assert_eq!(checkpoint.previous, previous[checkpoint.sequence as usize]);
        checkpoints += 1;
    }
    assert!(
        checkpoints > 0 && previous.len() > 8,
        "the fixture has too little"
    );
}

#[test]
fn the_fixture_holds_the_format_and_nothing_else() {
    let files = files(&fixture());
    for name in files.keys() {
        assert!(STORED.iter().any(|part| name.starts_with(part)), "{name}");
    }
    let bytes: usize = files.values().map(Vec::len).sum();
    assert!(
        bytes < 200 << 10,
        "{bytes} bytes are too many for a repository"
    );
}

#[test]
fn today_the_same_operations_write_the_same_bytes() {
    let folder = tempfile::tempdir().unwrap();
    generate(&folder.path().join("store"));
    let (now, then) = (files(&folder.path().join("store")), files(&fixture()));
    let names = |files: &BTreeMap<String, Vec<u8>>| files.keys().cloned().collect::<Vec<_>>();
    assert_eq!(names(&now), names(&then));
    for (name, bytes) in &now {
        assert!(
            *bytes == then[name],
            "{name} is written otherwise than before. If only zstd changed, that is no change of the format"
        );
    }
}

const DEVICES: [&str; 2] = [
    "a \"/images/a.raw\" false of \"one\"",
    "b \"/images/b.raw\" true of \"one\"",
];
const SNAPSHOTS: [&str; 3] = [
    "a@one 1 1700000006.5 163963 783b517cbdee46b786ef6dc496839892 \
     3700f3adf134f505a6642df4d9c73166e3589863e09421426a8456bbe61265d1",
    "a@three 3 1700000015.5 163963 740d761252119f86ebe14960ecef26d9 \
     d7be07e13d747bdf869869d11760ddb912f24a7aaba5cc93609c1e4ec03d1a1b",
    "b@one 1 1700000006.5 5242880 b8955078e2c8ea364d1c09298fa47e92 \
     4fa11235863b3ae9e17cff97c45be8aed1784430593b900da4239aadeeb227fe",
];
