//! Images that somebody changes while they are being read.

use crate::support::restored;
use crate::{Bench, create, says, text};
use std::fs;
use std::io::{Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use stillpoint_api::store::disk::real::RealDisk;
use stillpoint_api::store::disk::{Disk, DiskFile, Extent, FileKind, OpenMode, Stamp};
use stillpoint_api::store::tuning::Tuning;
use stillpoint_api::{ErrorKind, Result};

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
                .unwrap();
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
                .unwrap();
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
