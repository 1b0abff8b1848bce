//! The one file that names sled: numbered buckets of bytes and notes of packs, every call fenced.
//!
//! What sled 1.0.0-alpha.124 does that callers must not feel, and what is done about it:
//! - its flusher thread aborts the process on any error: it is not started, `flush` is called instead;
//! - rayon aborts when a job that sled spawned panics: sled writes on a pool of its own that catches it;
//! - after a failed flush the next one waits for ever, and dropping a tree flushes: after a failure all is leaked;
//! - what was written is never evicted from its cache: the database is closed and opened again now and then;
//! - files that do not fit together make it spin: only a sealed folder is opened, see `seal`.

use super::{seal, words};
use crate::error::{Error, Result};
use sled::{Config, Db, Tree};
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::sync::{Mutex, MutexGuard, PoisonError, RwLock};
use std::time::{Duration, Instant};

/// Buckets of a page. A page is what is read for one lookup, so few.
const FANOUT: usize = 8;
/// Trees are not `Sync`: so many threads read at once without waiting for each other.
const READERS: usize = 16;
/// How long sled's log compactor is waited for before the folder is sealed.
const SETTLE: Duration = Duration::from_millis(200);

/// One opened database.
struct Open {
    base: Mutex<Base>,
    readers: Vec<Mutex<Tree<FANOUT>>>,
}

struct Base {
    db: Db<FANOUT>,
    meta: Tree<FANOUT>,
    packs: Tree<FANOUT>,
    places: Tree<FANOUT>,
}

/// A fenced sled database. After the first failure every call fails.
pub(super) struct Pages {
    folder: PathBuf,
    cache_bytes: usize,
    pool: rayon::ThreadPool,
    open: RwLock<Option<Open>>,
    failed: AtomicBool,
    /// Bytes put since the last flush, and since it was opened.
    dirty: AtomicU64,
    written: AtomicU64,
}

/// A key and its value.
pub(super) type Pair = (Vec<u8>, Vec<u8>);

impl Pages {
    /// Opens the database in `folder`, made if there is none; one that is there must be sealed.
    pub(super) fn open(folder: &Path, cache_bytes: usize) -> Result<Self> {
        if folder.symlink_metadata().is_ok() {
            if !seal::holds(folder) {
                return Err(Error::corrupt(
                    "opening the index",
                    "it was not closed or was changed",
                )
                .at(folder.display()));
            }
            seal::lift(folder).map_err(|e| Error::io("opening the index", e))?;
        }
        // Two threads: opening blocks one until the other has done what it spawned.
        let pool = rayon::ThreadPoolBuilder::new()
            .num_threads(2)
            .thread_name(|n| format!("index-{n}"))
            .panic_handler(|_| ())
            .build()
            .map_err(|e| Error::io("starting the index's threads", io::Error::other(e)))?;
        let pages = Self {
            folder: folder.to_owned(),
            cache_bytes,
            pool,
            open: RwLock::new(None),
            failed: AtomicBool::new(false),
            dirty: AtomicU64::new(0),
            written: AtomicU64::new(0),
        };
        pages.start()?;
        pages.seal()?;
        Ok(pages)
    }

    fn start(&self) -> Result<()> {
        let opened = self.on_pool("opening the index", || {
            open_at(&self.folder, self.cache_bytes)
        });
        *self.open.write().unwrap_or_else(PoisonError::into_inner) = Some(opened?);
        self.written.store(0, Relaxed);
        Ok(())
    }

    /// Seals the folder, so that it may be opened again if this process is killed from here on.
    pub(super) fn seal(&self) -> Result<()> {
        let begun = Instant::now();
        while compacting(&self.folder) && begun.elapsed() < SETTLE {
            std::thread::sleep(Duration::from_millis(2));
        }
        seal::put(&self.folder).map_err(|e| self.fail(Error::io("sealing the index", e)))
    }

    /// Calls `read` with the bytes of a bucket; none is empty.
    pub(super) fn bucket<R>(&self, number: u16, read: impl FnOnce(&[u8]) -> R) -> Result<R> {
        self.with("reading the index", |open| {
            let bytes = lock(&open.readers[reader()]).get(number.to_be_bytes())?;
            Ok(read(bytes.as_deref().unwrap_or_default()))
        })
    }

    /// Replaces buckets, all or none of them.
    pub(super) fn put_buckets(&self, buckets: Vec<(u16, Vec<u8>)>) -> Result<()> {
        let bytes: usize = buckets.iter().map(|b| b.1.len() + 64).sum();
        self.dirty.fetch_add(bytes as u64, Relaxed);
        self.written.fetch_add(bytes as u64, Relaxed);
        self.with("writing the index", |open| {
            let mut batch = sled::Batch::default();
            for (number, bytes) in buckets {
                batch.insert(number.to_be_bytes(), bytes);
            }
            lock(&open.base).places.apply_batch(batch)
        })
    }

    /// A value kept beside the buckets.
    pub(super) fn meta(&self, key: &str) -> Result<Option<Vec<u8>>> {
        self.with("reading the index", |open| {
            Ok(lock(&open.base).meta.get(key)?.map(|v| v.to_vec()))
        })
    }

    /// Puts such a value.
    pub(super) fn put_meta(&self, key: &str, value: &[u8]) -> Result<()> {
        self.with("writing the index", |open| {
            lock(&open.base).meta.insert(key, value).map(drop)
        })
    }

    /// All notes of packs.
    pub(super) fn packs(&self) -> Result<Vec<Pair>> {
        // An iterator flushes when it is dropped, so not on the caller's thread.
        self.on_open("reading the index", |open| {
            let pair = |p: io::Result<(sled::InlineArray, sled::InlineArray)>| {
                p.map(|(k, v)| (k.to_vec(), v.to_vec()))
            };
            lock(&open.base).packs.iter().map(pair).collect()
        })
    }

    /// Notes a pack. ORDER: after its buckets were put; sled keeps the order of its writes.
    pub(super) fn put_pack(&self, key: [u8; 4], value: &[u8]) -> Result<()> {
        self.with("writing the index", |open| {
            lock(&open.base).packs.insert(key, value).map(drop)
        })
    }

    /// Removes a note.
    pub(super) fn remove_pack(&self, key: [u8; 4]) -> Result<()> {
        self.with("writing the index", |open| {
            lock(&open.base).packs.remove(key).map(drop)
        })
    }

    /// Bytes put since the last flush.
    pub(super) fn dirty_bytes(&self) -> u64 {
        self.dirty.load(Relaxed)
    }

    /// Makes what was put durable; when more was written than the cache may hold, opens the database anew.
    pub(super) fn flush(&self) -> Result<()> {
        self.on_open("flushing the index", |open| {
            lock(&open.base).db.flush().map(drop)
        })?;
        self.dirty.store(0, Relaxed);
        if self.written.load(Relaxed) > self.cache_bytes as u64 {
            self.stop()?;
            self.start()?;
        }
        Ok(())
    }

    /// Removes the seal. ORDER: before the first put after `seal`.
    pub(super) fn unseal(&self) -> Result<()> {
        seal::lift(&self.folder).map_err(|e| self.fail(Error::io("opening the index's seal", e)))
    }

    /// Drops the handles; all was flushed.
    fn stop(&self) -> Result<()> {
        self.on_open("closing the index", |open| {
            lock(&open.base).db.flush().map(drop)
        })?;
        let open = self
            .open
            .write()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        self.on_pool("closing the index", move || {
            drop(open);
            Ok(())
        })
    }

    fn on_open<R: Send>(
        &self,
        doing: &'static str,
        call: impl FnOnce(&Open) -> io::Result<R> + Send,
    ) -> Result<R> {
        self.on_pool(doing, || {
            match &*self.open.read().unwrap_or_else(PoisonError::into_inner) {
                Some(open) => call(open),
                None => Err(io::Error::other("it is closed")),
            }
        })
    }

    /// Runs `call` on a thread of the pool. Waiting does not take up other jobs of the caller's pool meanwhile: they
    /// might wait for what this call holds.
    fn on_pool<R: Send>(
        &self,
        doing: &'static str,
        call: impl FnOnce() -> io::Result<R> + Send,
    ) -> Result<R> {
        let mut result = None;
        self.pool.in_place_scope(|scope| {
            scope.spawn(|_| result = Some(self.fenced(doing, call)));
        });
        result.unwrap_or_else(|| Err(self.fail(Error::corrupt(doing, "its thread died"))))
    }

    fn with<R>(&self, doing: &'static str, call: impl FnOnce(&Open) -> io::Result<R>) -> Result<R> {
        let open = self.open.read().unwrap_or_else(PoisonError::into_inner);
        self.fenced(doing, || match &*open {
            Some(open) => call(open),
            None => Err(io::Error::other("it is closed")),
        })
    }

    fn fenced<R>(&self, doing: &'static str, call: impl FnOnce() -> io::Result<R>) -> Result<R> {
        if self.failed.load(Relaxed) {
            return Err(Error::corrupt(doing, "the index has failed before"));
        }
        match catch_unwind(AssertUnwindSafe(call)) {
            Ok(Ok(value)) => Ok(value),
            Ok(Err(e)) => Err(self.fail(Error::io(doing, e).at(self.folder.display()))),
            Err(panic) => {
                let why = format!("sled panicked: {}", words(panic.as_ref()));
                Err(self.fail(Error::corrupt(doing, why).at(self.folder.display())))
            }
        }
    }

    fn fail(&self, error: Error) -> Error {
        self.failed.store(true, Relaxed);
        error
    }
}

impl Drop for Pages {
    fn drop(&mut self) {
        if self.stop().is_ok() && self.seal().is_ok() {
            return;
        }
        let open = self
            .open
            .get_mut()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        // Dropping a tree flushes, and a flush after a failed one never returns.
        std::mem::forget(open);
    }
}

fn open_at(folder: &Path, cache_bytes: usize) -> io::Result<Open> {
    // Records are hash bytes, which do not compress: the level only decides what trying costs.
    let db: Db<FANOUT> = Config::new()
        .path(folder)
        .cache_capacity_bytes(cache_bytes)
        .flush_every_ms(None)
        .zstd_compression_level(-5)
        .open()?;
    let places = db.open_tree("places")?;
    let readers = (0..READERS).map(|_| Mutex::new(places.clone())).collect();
    let (meta, packs) = (db.open_tree("meta")?, db.open_tree("packs")?);
    Ok(Open {
        base: Mutex::new(Base {
            db,
            meta,
            packs,
            places,
        }),
        readers,
    })
}

/// True while sled's compactor has a log left to fold or a snapshot half written.
fn compacting(folder: &Path) -> bool {
    let Ok(entries) = folder.join("metadata").read_dir() else {
        return false;
    };
    let names: Vec<_> = entries
        .flatten()
        .map(|e| e.file_name().to_string_lossy().into_owned())
        .collect();
    let of = |start: &str| names.iter().filter(|n| n.starts_with(start)).count();
    of("log") > 1 || of("snapshot") > 1
}

/// A reader for this thread: threads count up, so that few share one.
fn reader() -> usize {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    thread_local!(static MINE: usize = NEXT.fetch_add(1, Relaxed) % READERS);
    MINE.with(|n| *n)
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
