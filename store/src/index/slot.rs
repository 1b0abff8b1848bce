//! Where sled indexes live: up to eight folders beside each other, one a process, each guarded by a lock file.

use super::sled::{SledIndex, Unusable};
use super::{ClusterIndex, IndexHome, Key, Places};
use crate::error::{Error, ErrorKind, Result};
use crate::id::{PackName, PackNumber, Uid};
use rustix::fs::{FlockOperation, flock};
use std::fs::File;
use std::path::{Path, PathBuf};

/// Processes that can have an index at the same time; others answer without.
const SLOTS: usize = 8;

/// The slots of one store on this host.
pub struct LocalSlots {
    folder: PathBuf,
    store: Uid,
    cache_bytes: usize,
}

impl LocalSlots {
    /// In `folder`, the store's `local/`.
    pub fn new(folder: &Path, store: Uid, cache_bytes: usize) -> Self {
        Self {
            folder: folder.to_owned(),
            store,
            cache_bytes,
        }
    }

    fn slot(&self, n: usize) -> PathBuf {
        self.folder.join(format!("index-{n}"))
    }

    /// Takes a slot's lock without waiting.
    fn lock(&self, n: usize) -> Result<Option<File>> {
        let path = self.folder.join(format!("index-{n}.lock"));
        let failed = |e| Error::io("locking an index", e).at(path.display());
        let open = File::options()
            .create(true)
            .truncate(false)
            .write(true)
            .open(&path);
        let file = match open {
            Ok(file) => file,
            Err(e)
                if matches!(
                    e.kind(),
                    std::io::ErrorKind::PermissionDenied | std::io::ErrorKind::ReadOnlyFilesystem
                ) =>
            {
                return Ok(None);
            }
            Err(e) => return Err(failed(e)),
        };
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(Some(file)),
            Err(e) if e == rustix::io::Errno::WOULDBLOCK => Ok(None),
            Err(e) => Err(failed(e.into())),
        }
    }

    /// Removes what stands in the slot, whatever it is. A link is removed, not followed.
    fn remove(&self, n: usize) -> Result<()> {
        let path = self.slot(n);
        let failed = |e| Error::io("removing an index", e).at(path.display());
        match std::fs::symlink_metadata(&path) {
            Ok(meta) if meta.is_dir() => std::fs::remove_dir_all(&path).map_err(failed),
            Ok(_) => std::fs::remove_file(&path).map_err(failed),
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(()),
            Err(e) => Err(failed(e)),
        }
    }

    fn open_slot(&self, n: usize) -> Result<(SledIndex, Option<String>)> {
        let path = self.slot(n);
        let linked = std::fs::symlink_metadata(&path).is_ok_and(|m| m.is_symlink());
        let why = match (linked, SledIndex::open(&path, self.store, self.cache_bytes)) {
            (false, Ok(index)) => return Ok((index, None)),
            (true, _) => "a link stood in its place".into(),
            (_, Err(Unusable::Foreign(why) | Unusable::Broken(why))) => why,
        };
        self.remove(n)?;
        match SledIndex::open(&path, self.store, self.cache_bytes) {
            Ok(index) => Ok((index, Some(why))),
            Err(Unusable::Foreign(why) | Unusable::Broken(why)) => {
                Err(Error::new(ErrorKind::Io, "making an index")
                    .at(path.display())
                    .detail(why))
            }
        }
    }
}

/// An index and the lock of its slot.
struct Locked {
    // ORDER: fields drop in this order; the lock outlives the database.
    index: SledIndex,
    _lock: File,
}

impl IndexHome for LocalSlots {
    fn open(&self) -> Result<Option<(Box<dyn ClusterIndex>, Option<String>)>> {
        if !self.folder.is_dir() {
            return Ok(None);
        }
        for n in 0..SLOTS {
            let Some(lock) = self.lock(n)? else { continue };
            let (index, why) = self.open_slot(n)?;
            return Ok(Some((Box::new(Locked { index, _lock: lock }), why)));
        }
        Ok(None)
    }

    fn clear(&self) -> Result<()> {
        for n in 0..SLOTS {
            if self.slot(n).symlink_metadata().is_ok()
                && let Some(_lock) = self.lock(n)?
            {
                self.remove(n)?;
            }
        }
        Ok(())
    }
}

impl ClusterIndex for Locked {
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
