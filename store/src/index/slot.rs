//! Where indexes live: eight slots in the store's `local` folder, one a process, each under a lock file.
//!
//! Nothing in the folder is trusted: what is not a sound index of this store is removed, and nothing is removed that
//! lies outside (links are removed, never followed).

use super::paged::SledIndex;
use super::{ClusterIndex, IndexHome, Key, Opened, Places};
use crate::error::{Error, Result};
use crate::id::{PackName, PackNumber, Uid};
use rustix::fs::{FlockOperation, Mode, OFlags};
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

/// Processes that can have an index at the same time.
pub const SLOTS: usize = 8;
/// What an index may use when nothing is said.
pub const CACHE_BYTES: usize = 64 << 20;

/// The slots of a store.
#[derive(Debug, Clone)]
pub struct LocalSlots {
    root: PathBuf,
    store: Uid,
    cache_bytes: usize,
}

/// An index and the lock of its slot. Fields drop in this order.
struct Slotted {
    index: SledIndex,
    _lock: SlotLock,
}

struct SlotLock(File);

impl Drop for SlotLock {
    /// Closing is not enough: a child that was forked and has not yet executed keeps the lock with its copy of the file.
    fn drop(&mut self) {
        rustix::fs::flock(&self.0, FlockOperation::Unlock).ok();
    }
}

impl LocalSlots {
    /// Slots in `root`, which is made when the first index is opened.
    pub fn new(root: &Path, store: Uid, cache_bytes: usize) -> Self {
        Self {
            root: root.to_owned(),
            store,
            cache_bytes,
        }
    }

    fn folder(&self, n: usize) -> PathBuf {
        self.root.join(format!("index-{n}"))
    }

    /// The slot's lock; `None` when somebody has it or no lock file can be made.
    fn lock(&self, n: usize) -> Option<SlotLock> {
        let path = self.root.join(format!("index-{n}.lock"));
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let flags = flags | OFlags::NONBLOCK;
        let file = File::from(rustix::fs::open(&path, flags, Mode::from(0o644)).ok()?);
        rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive).ok()?;
        Some(SlotLock(file))
    }

    /// Opens slot `n`, whose lock is held; anew if it is unfit, then with the reason.
    fn open_slot(&self, n: usize) -> Result<(SledIndex, Option<String>)> {
        let folder = self.folder(n);
        let open = || SledIndex::open(&folder, self.store, self.cache_bytes);
        let anew = |why: String| {
            remove(&folder)?;
            let index = open().map_err(|e| match e {
                super::paged::Unfit::Broken(e) => e,
                other => Error::corrupt("making an index", other.to_string()),
            })?;
            Ok((index, Some(format!("the index {why} and is being rebuilt"))))
        };
        match fs::symlink_metadata(&folder) {
            Ok(data) if !data.is_dir() => anew("was not a folder".to_owned()),
            _ => match open() {
                Ok(index) => Ok((index, None)),
                Err(unfit) => anew(unfit.to_string()),
            },
        }
    }
}

/// Removes whatever the path names itself; nothing there is fine.
fn remove(path: &Path) -> Result<()> {
    let removed = match fs::symlink_metadata(path) {
        Ok(data) if data.is_dir() => fs::remove_dir_all(path),
        Ok(_) => fs::remove_file(path),
        Err(e) => Err(e),
    };
    match removed {
        Err(e) if e.kind() != io::ErrorKind::NotFound => {
            Err(Error::io("removing the index", e).at(path.display()))
        }
        _ => Ok(()),
    }
}

impl IndexHome for LocalSlots {
    fn open(&self) -> Result<Option<Opened>> {
        // A folder that cannot be made has no lock files either.
        fs::create_dir_all(&self.root).ok();
        let exists = |n: &usize| self.folder(*n).is_dir();
        let (old, new): (Vec<_>, Vec<_>) = (0..SLOTS).partition(exists);
        for n in old.into_iter().chain(new) {
            let Some(lock) = self.lock(n) else { continue };
            if let Ok((index, reason)) = self.open_slot(n) {
                return Ok(Some((Box::new(Slotted { index, _lock: lock }), reason)));
            }
        }
        Ok(None)
    }

    fn clear(&self) -> Result<()> {
        for n in 0..SLOTS {
            if fs::symlink_metadata(self.folder(n)).is_ok()
                && let Some(_lock) = self.lock(n)
            {
                remove(&self.folder(n))?;
            }
        }
        Ok(())
    }
}

impl ClusterIndex for Slotted {
    fn lookup(&self, key: &Key) -> Result<Places> {
        self.index.lookup(key)
    }
    fn insert_pack(
        &self,
        number: PackNumber,
        name: &PackName,
        places: &[(Key, u32)],
    ) -> Result<()> {
        self.index.insert_pack(number, name, places)
    }
    fn expect_many(&self, many: bool) {
        self.index.expect_many(many);
    }
    fn packs(&self) -> Result<Vec<(PackNumber, PackName)>> {
        self.index.packs()
    }
    fn forget_pack(&self, number: PackNumber) -> Result<()> {
        self.index.forget_pack(number)
    }
    fn len(&self) -> Result<u64> {
        self.index.len()
    }
    fn flush(&self) -> Result<()> {
        self.index.flush()
    }
}

#[cfg(test)]
mod tests;
