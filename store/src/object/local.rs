//! The store in a folder: FORMAT.md, section 1.
//!
//! Objects appear whole or not at all: written under a name of `tmp/` that nobody else uses, synced, linked to their key
//! without replacing, and durable in name once their folder is synced. The order of the durable steps is the invariant
//! of this file; comments marked `ORDER:` say what each rests on.

mod lease;
mod reserve;

#[cfg(test)]
mod tests;

use super::{Objects, Purse, Put};
use crate::disk::{Disk, DiskFile, FileKind, OpenMode};
use crate::error::{Error, ErrorKind, Result};
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

pub use reserve::Reserve;

/// What a store's folder holds from the start.
const FOLDERS: [&str; 8] = [
    "log",
    "checkpoint",
    "packs",
    "sessions",
    "reserve",
    "tmp",
    "local",
    "local/notes",
];

/// Somebody may take our folder or temporary file away between two steps; this often in a row nobody does by accident.
const TRIES: u32 = 8;

/// Numbers temporary names of this process, whichever store they are for.
static TEMPORARY: AtomicU64 = AtomicU64::new(0);

/// See the module.
pub struct LocalObjects {
    disk: Arc<dyn Disk>,
    root: PathBuf,
    reserve: Reserve,
    /// Part of temporary names: two hosts or containers on one folder may have the same process ids.
    random: [u8; 16],
    read_only: bool,
    /// Set when a folder's sync failed: what it was to make durable may be lost although it can be seen.
    poisoned: AtomicBool,
    /// Folders whose own names are known to be durable.
    durable: Mutex<BTreeSet<String>>,
}

/// A file of `tmp/` that this process has locked, so that nobody sweeps it away.
struct Temporary {
    path: PathBuf,
    file: Box<dyn DiskFile>,
}

impl LocalObjects {
    /// Makes the folders of a new store in `root`, which is absent or empty, or holds what an interrupted `create` left.
    /// `random` is anything that another host or container would not have.
    pub fn create(
        disk: Arc<dyn Disk>,
        root: &Path,
        reserve: Reserve,
        random: [u8; 16],
    ) -> Result<Self> {
        check_vacant(disk.as_ref(), root)?;
        let missing: Vec<&Path> = root
            .ancestors()
            .take_while(|p| !exists(disk.as_ref(), p))
            .collect();
        for folder in FOLDERS {
            disk.create_folders(&root.join(folder))?;
        }
        // ORDER: from the inside out, so that a store which can be found after a crash is complete.
        disk.sync_folder(&root.join("local"))?;
        disk.sync_folder(root)?;
        for made in &missing {
            disk.sync_folder(above(made))?;
        }
        if missing.is_empty() {
            // An interrupted `create` may have made it; if not, the folder above need not be ours to sync.
            let _not_ours = disk.sync_folder(above(root));
        }
        let store = Self::open(disk, root, reserve, random)?;
        store.refill()?;
        Ok(store)
    }

    /// Opens a store's folder. That it is a store, and of which version, is for the caller to find out.
    pub fn open(
        disk: Arc<dyn Disk>,
        root: &Path,
        reserve: Reserve,
        random: [u8; 16],
    ) -> Result<Self> {
        if disk.kind(root).map_err(|e| no_store(e, root))? != FileKind::Folder {
            return Err(
                Error::invalid("opening the store", "it is not a folder").at(root.display())
            );
        }
        let read_only = !disk.is_writable(root);
        Ok(Self {
            disk,
            root: root.to_owned(),
            reserve,
            random,
            read_only,
            poisoned: AtomicBool::new(false),
            durable: Mutex::default(),
        })
    }

    /// The store's folder.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Removes temporary files whose writers have died; how many.
    pub fn sweep_tmp(&self) -> Result<usize> {
        self.sweep_folder("tmp")
    }

    /// Removes the files of a folder that nobody has locked.
    fn sweep_folder(&self, folder: &str) -> Result<usize> {
        self.check_writable("sweeping", folder)?;
        let mut swept = 0;
        for name in self.disk.list(&self.root.join(folder))? {
            let path = self.root.join(folder).join(name);
            if !matches!(self.disk.kind(&path), Ok(FileKind::File)) {
                continue;
            }
            let file = match self.disk.open(&path, OpenMode::Read) {
                Err(e) if e.kind() == ErrorKind::NotFound => continue,
                file => file?,
            };
            // Whoever still writes has the lock, or finds it taken and starts over under another name.
            // That this is still the file of that name: another sweeper may have been here in between.
            if file.try_lock()? && file.is_still_named()? {
                self.disk.remove(&path)?;
                swept += 1;
            }
        }
        Ok(swept)
    }

    fn path(&self, key: &str) -> Result<PathBuf> {
        check_key(key)?;
        Ok(self.root.join(key))
    }

    fn check_writable(&self, doing: &'static str, key: &str) -> Result<()> {
        if self.read_only {
            return Err(Error::new(ErrorKind::ReadOnly, doing)
                .at(self.describe(key))
                .detail("the store cannot be written by this user")
                .hint("mount it writable, or get write permission for its folder"));
        }
        if self.poisoned.load(Ordering::Acquire) {
            return Err(Error::new(ErrorKind::Poisoned, doing)
                .at(self.describe(key))
                .detail("an earlier sync of this store failed")
                .hint("look at the disk, then start again; what was acknowledged is safe"));
        }
        Ok(())
    }

    fn temporary_name(&self) -> PathBuf {
        let n = TEMPORARY.fetch_add(1, Ordering::Relaxed);
        let random = u128::from_le_bytes(self.random);
        self.root
            .join("tmp")
            .join(format!("{}-{n}-{random:032x}", std::process::id()))
    }

    /// A new file of `tmp/`; `None`: somebody swept it away at once.
    fn temporary(&self) -> Result<Option<Temporary>> {
        let path = self.temporary_name();
        let file = match self.disk.open(&path, OpenMode::CreateNew) {
            Err(e) if e.kind() == ErrorKind::NotFound => {
                self.disk.create_folders(&self.root.join("tmp"))?;
                self.disk.open(&path, OpenMode::CreateNew)?
            }
            file => file?,
        };
        Ok(file.try_lock()?.then_some(Temporary { path, file }))
    }

    /// Writes and syncs the parts; on failure the file is gone, as far as that can be done.
    fn fill(&self, to: &Temporary, parts: &[&[u8]]) -> Result<()> {
        let written = write_parts(to.file.as_ref(), parts).and_then(|()| to.file.sync());
        if written.is_err() {
            self.drop_temporary(to);
        }
        written
    }

    /// Best effort: what stays is swept later.
    fn drop_temporary(&self, temporary: &Temporary) {
        let _swept_later = self.disk.remove(&temporary.path);
    }

    /// A synced file of `tmp/` with these bytes; `None`: somebody swept it away.
    fn written(&self, parts: &[&[u8]], purse: Purse) -> Result<Option<Temporary>> {
        let free = match self.temporary() {
            Ok(Some(file)) => self.fill(&file, parts).map(|()| Some(file)),
            other => other,
        };
        match free {
            Err(e) if e.kind() == ErrorKind::NoSpace && purse == Purse::Reserve => {
                self.written_in_reserve(parts, e)
            }
            done => done,
        }
    }

    /// Gives the temporary file its key. `None`: the file or the key's folder has gone meanwhile.
    fn name(&self, from: &Temporary, key: &Path, purse: Purse) -> Result<Option<Put>> {
        let mut link = self.disk.link(&from.path, key);
        if is_no_space(&link) && purse == Purse::Reserve && self.sacrifice(1) {
            link = self.disk.link(&from.path, key);
        }
        match link {
            Ok(true) => Ok(Some(Put::Created)),
            Ok(false) => Ok(Some(Put::Exists)),
            Err(e) if e.kind() == ErrorKind::NotFound => Ok(None),
            Err(e) => Err(e),
        }
    }

    /// Makes the folder of a key. Its name becomes durable in `sync`, before any name in it is promised.
    fn make_folder(&self, folder: &Path, purse: Purse) -> Result<()> {
        if exists(self.disk.as_ref(), folder) {
            return Ok(());
        }
        let mut made = self.disk.create_folders(folder);
        if is_no_space(&made) && purse == Purse::Reserve && self.sacrifice(1) {
            made = self.disk.create_folders(folder);
        }
        made
    }

    fn durable(&self) -> std::sync::MutexGuard<'_, BTreeSet<String>> {
        self.durable.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Syncs one folder; false: it is not there.
    fn sync_one(&self, folder: &str) -> Result<bool> {
        match self.disk.sync_folder(&self.root.join(folder)) {
            Ok(()) => Ok(true),
            Err(e) if e.kind() == ErrorKind::NotFound => Ok(false),
            Err(e) => {
                // Names that were to become durable may be lost although they can be seen, and the next sync would
                // report success: whatever the cause was, this handle can promise nothing any more.
                self.poisoned.store(true, Ordering::Release);
                Err(e)
            }
        }
    }
}

impl Objects for LocalObjects {
    fn get(&self, key: &str, offset: u64, buf: &mut [u8]) -> Result<usize> {
        self.disk
            .open(&self.path(key)?, OpenMode::Read)?
            .read_at(offset, buf)
    }

    fn size(&self, key: &str) -> Result<u64> {
        self.disk.open(&self.path(key)?, OpenMode::Read)?.len()
    }

    fn put_new(&self, key: &str, parts: &[&[u8]], purse: Purse) -> Result<Put> {
        let path = self.path(key)?;
        self.check_writable("writing", key)?;
        for _ in 0..TRIES {
            if exists(self.disk.as_ref(), &path) {
                return Ok(Put::Exists);
            }
            self.make_folder(above(&path), purse)?;
            // ORDER: contents are durable before the key exists, so that no crash shows a key with less.
            let Some(temporary) = self.written(parts, purse)? else {
                continue;
            };
            let named = self.name(&temporary, &path, purse);
            self.drop_temporary(&temporary);
            if let Some(put) = named? {
                return Ok(put);
            }
        }
        Err(Error::new(ErrorKind::Busy, "writing")
            .at(self.describe(key))
            .detail("temporary files are being removed as fast as they are written"))
    }

    fn list_after(&self, folder: &str, after: &str) -> Result<Vec<String>> {
        let mut names = self.disk.list(&self.folder_path(folder)?)?;
        // What cannot be a key was put there by somebody else.
        names.retain(|name| name.as_str() > after && is_key_part(name));
        Ok(names)
    }

    fn list_folders(&self, folder: &str) -> Result<Vec<String>> {
        let path = self.folder_path(folder)?;
        let mut names = self.disk.list(&path)?;
        names.retain(|name| {
            is_key_part(name) && matches!(self.disk.kind(&path.join(name)), Ok(FileKind::Folder))
        });
        Ok(names)
    }

    fn delete(&self, key: &str) -> Result<()> {
        let path = self.path(key)?;
        self.check_writable("removing", key)?;
        self.disk.remove(&path)?;
        if let Some((folder, _)) = key
            .rsplit_once('/')
            .filter(|(folder, _)| folder.contains('/'))
        {
            // A session's folder goes with its last pack.
            self.durable().remove(folder);
            let _others_are_there = self.disk.remove_folder(above(&path));
        }
        Ok(())
    }

    fn sync(&self, folder: &str) -> Result<()> {
        self.folder_path(folder)?;
        self.check_writable("syncing", folder)?;
        let mut at = folder;
        let mut there = self.sync_one(at)?;
        // ORDER: a folder's names are worth what its own name is, which lies in the folder above. Where the folder has gone,
        // that is where its going becomes durable.
        while !(at.is_empty() || there && self.durable().contains(at)) {
            let up = at.rsplit_once('/').map_or("", |(up, _)| up);
            let up_there = self.sync_one(up)?;
            if there {
                self.durable().insert(at.to_owned());
            }
            (at, there) = (up, up_there);
        }
        Ok(())
    }

    fn refill(&self) -> Result<()> {
        self.check_writable("refilling", "reserve")?;
        self.refill_reserve()
    }

    fn is_read_only(&self) -> bool {
        self.read_only
    }

    fn describe(&self, key: &str) -> String {
        self.root.join(key).display().to_string()
    }
}

impl LocalObjects {
    fn folder_path(&self, folder: &str) -> Result<PathBuf> {
        if folder.is_empty() {
            Ok(self.root.clone())
        } else {
            self.path(folder)
        }
    }
}

fn write_parts(file: &dyn DiskFile, parts: &[&[u8]]) -> Result<()> {
    let mut at = 0;
    for part in parts.iter().filter(|part| !part.is_empty()) {
        file.write_at(at, part)?;
        at += part.len() as u64;
    }
    Ok(())
}

fn is_no_space<T>(result: &Result<T>) -> bool {
    matches!(result, Err(e) if e.kind() == ErrorKind::NoSpace)
}

fn exists(disk: &dyn Disk, path: &Path) -> bool {
    path.as_os_str().is_empty() || disk.kind(path).is_ok()
}

/// The folder that a path lies in.
fn above(path: &Path) -> &Path {
    match path.parent() {
        Some(above) if !above.as_os_str().is_empty() => above,
        Some(_) => Path::new("."),
        None => Path::new("/"),
    }
}

fn is_key_part(part: &str) -> bool {
    let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'.' || b == b'-';
    !part.is_empty() && part != "." && part != ".." && part.bytes().all(plain)
}

/// Keys never lead out of the store, whoever made them up.
fn check_key(key: &str) -> Result<()> {
    if key.split('/').all(is_key_part) {
        return Ok(());
    }
    Err(Error::invalid(
        "naming an object",
        format!("{key:?} is not a key"),
    ))
}

fn no_store(error: Error, root: &Path) -> Error {
    if error.kind() != ErrorKind::NotFound {
        return error;
    }
    Error::new(ErrorKind::NotFound, "opening the store")
        .at(root.display())
        .detail("there is no such folder")
        .hint("name the store's folder, or make a new store with `still init`")
}

/// Refuses a folder that holds anything but the beginnings of a store.
fn check_vacant(disk: &dyn Disk, root: &Path) -> Result<()> {
    let refuse = |kind, why: &str| {
        let error = Error::new(kind, "making a store in").at(root.display());
        Err(error
            .detail(why)
            .hint("choose a path where nothing is yet, or an empty folder"))
    };
    match disk.kind(root) {
        Err(e) if e.kind() == ErrorKind::NotFound => return Ok(()),
        Ok(FileKind::Folder) => {}
        Ok(_) => return refuse(ErrorKind::InvalidInput, "it is not a folder"),
        Err(e) => return Err(e),
    }
    let names = disk.list(root)?;
    if names.iter().any(|name| name == "store.json") {
        return refuse(ErrorKind::AlreadyExists, "there is a store already");
    }
    let foreign = |name: &&String| !FOLDERS.contains(&name.as_str()) && *name != "lost+found";
    if let Some(name) = names.iter().find(foreign) {
        return refuse(
            ErrorKind::AlreadyExists,
            &format!("it is not empty: {name} is there"),
        );
    }
    for folder in ["log", "checkpoint", "packs"] {
        if !disk.list(&root.join(folder))?.is_empty() {
            let why = "there is a store without its store.json, perhaps damaged";
            return refuse(ErrorKind::AlreadyExists, why);
        }
    }
    Ok(())
}
