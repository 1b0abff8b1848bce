//! A store's folder on the simulated disk as one process has it: with gates around its calls, and locks that it can lose while
//! it goes on.

use super::SeededWorld;
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use stillpoint_api::Result;
use stillpoint_api::store::disk::Disk;
use stillpoint_api::store::disk::sim::SimDisk;
use stillpoint_api::store::id::SessionId;
use stillpoint_api::store::object::local::{LocalObjects, Reserve};
use stillpoint_api::store::object::memory::Gate;
use stillpoint_api::store::object::{Lease, Local, Objects, Purse, Put};
use stillpoint_api::store::store::Store;
use stillpoint_api::store::world::World;

const STORE: &str = "/store";
const RESERVE: Reserve = Reserve {
    entry_files: 2,
    entry_bytes: 64 << 10,
    pack_files: 2,
    pack_bytes: 256 << 10,
};

/// Session locks of one process.
type Held = Arc<Mutex<BTreeMap<u64, Box<dyn Lease>>>>;

/// One process on the folder.
pub struct Folder {
    disk: SimDisk,
    objects: LocalObjects,
    gates: Option<(Gate, Gate)>,
    held: Held,
    leases: AtomicU64,
}

/// Makes an empty store on the disk.
pub fn create(disk: &SimDisk, world: &SeededWorld) -> Result<()> {
    let folder: Arc<dyn Disk> = Arc::new(disk.clone());
    let objects = LocalObjects::create(folder, Path::new(STORE), RESERVE, world.random())?;
    Store::create(&objects, world, super::GEOMETRY)?;
    Ok(())
}

impl Folder {
    /// A process, told from others by its number. The first gate is asked before each call, and where it fails, the call does
    /// not happen; the second after each that succeeded, and where it fails, the answer is lost.
    pub fn open(disk: &SimDisk, number: u64, gates: Option<(Gate, Gate)>) -> Result<Self> {
        let mut random = [0; 16];
        random[..8].copy_from_slice(&number.to_le_bytes());
        let folder: Arc<dyn Disk> = Arc::new(disk.clone());
        Ok(Self {
            disk: disk.clone(),
            objects: LocalObjects::open(folder, Path::new(STORE), RESERVE, random)?,
            gates,
            held: Held::default(),
            leases: AtomicU64::new(0),
        })
    }

    /// Releases its locks, as the death of a process does. It may go on all the same.
    pub fn kill(&self) {
        held(&self.held).clear();
    }

    /// Keys of all objects below a folder.
    pub fn keys(&self, below: &str) -> Vec<String> {
        let inside = |path: &Path| path.strip_prefix(STORE).ok()?.to_str().map(str::to_owned);
        let paths = self.disk.snapshot_paths();
        let keys = paths.iter().filter_map(|path| inside(path));
        keys.filter(|key| key.starts_with(below)).collect()
    }

    fn call<T>(&self, call: &str, key: &str, work: impl FnOnce() -> Result<T>) -> Result<T> {
        let Some((before, after)) = &self.gates else {
            return work();
        };
        before(call, key)?;
        let done = work()?;
        after(call, key)?;
        Ok(done)
    }
}

impl Objects for Folder {
    fn get(&self, key: &str, offset: u64, buf: &mut [u8]) -> Result<usize> {
        self.call("get", key, || self.objects.get(key, offset, buf))
    }

    fn size(&self, key: &str) -> Result<u64> {
        self.call("size", key, || self.objects.size(key))
    }

    fn put_new(&self, key: &str, parts: &[&[u8]], purse: Purse) -> Result<Put> {
        self.call("put_new", key, || self.objects.put_new(key, parts, purse))
    }

    fn list_after(&self, folder: &str, after: &str) -> Result<Vec<String>> {
        self.call("list_after", folder, || {
            self.objects.list_after(folder, after)
        })
    }

    fn list_folders(&self, folder: &str) -> Result<Vec<String>> {
        self.call("list_folders", folder, || self.objects.list_folders(folder))
    }

    fn delete(&self, key: &str) -> Result<()> {
        self.call("delete", key, || self.objects.delete(key))
    }

    fn sync(&self, folder: &str) -> Result<()> {
        self.call("sync", folder, || self.objects.sync(folder))
    }

    fn refill(&self) -> Result<()> {
        self.call("refill", "", || self.objects.refill())
    }

    fn is_read_only(&self) -> bool {
        self.objects.is_read_only()
    }

    fn describe(&self, key: &str) -> String {
        self.objects.describe(key)
    }
}

impl Local for Folder {
    fn hold(&self, session: SessionId) -> Result<Option<Box<dyn Lease>>> {
        let lease = self.call("hold", &session.to_string(), || self.objects.hold(session))?;
        Ok(lease.map(|lease| {
            let number = self.leases.fetch_add(1, Ordering::Relaxed);
            held(&self.held).insert(number, lease);
            let held = self.held.clone();
            Box::new(Token { number, held }) as Box<dyn Lease>
        }))
    }

    fn forget(&self, session: SessionId) -> Result<()> {
        self.call("forget", &session.to_string(), || {
            self.objects.forget(session)
        })
    }

    fn sweep(&self) -> Result<usize> {
        self.call("sweep", "", || self.objects.sweep())
    }

    fn note(&self, name: &str) -> Option<Vec<u8>> {
        let note = self.call("note", name, || Ok(self.objects.note(name)));
        note.ok().flatten()
    }

    fn put_note(&self, name: &str, bytes: &[u8]) -> Result<()> {
        self.call("put_note", name, || self.objects.put_note(name, bytes))
    }
}

/// What a process that lost its locks still takes for one.
struct Token {
    number: u64,
    held: Held,
}

impl Lease for Token {}

impl Drop for Token {
    fn drop(&mut self) {
        held(&self.held).remove(&self.number);
    }
}

fn held(held: &Held) -> MutexGuard<'_, BTreeMap<u64, Box<dyn Lease>>> {
    held.lock().unwrap_or_else(PoisonError::into_inner)
}
