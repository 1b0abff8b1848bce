//! Disks that are open: a view for each contents, however many clients look at it, and one cache for all.

use crate::ahead::{Ahead, Fetch};
use crate::gate::Gate;
use crate::metrics::Page;
use crate::volumes::OpenVolumes;
use std::collections::HashMap;
use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use stillpoint_api::{Reader, System, View};
use stillpoint_store::Result;
use stillpoint_store::format::entry::Content;
use stillpoint_store::id::Hash;
use stillpoint_store::volume::{Below, Volume, Volumes};

/// Bytes of decoded frames that are kept for all disks, where nothing else is said.
pub const CACHE_BYTES: usize = 256 << 20;
/// Most that is read ahead for one reader.
const WINDOW: u64 = 4 << 20;
/// Less is not worth it: a frame.
const WINDOW_MIN: u64 = 1 << 20;
/// Threads that read ahead.
const AHEAD: usize = 2;

/// What disks were asked for, since the start.
#[derive(Debug, Default)]
pub struct Counts {
    /// Reads done.
    pub reads: AtomicU64,
    /// Bytes of them.
    pub read_bytes: AtomicU64,
    /// Reads that failed.
    pub read_errors: AtomicU64,
    /// Bytes that were to be read ahead.
    pub ahead_bytes: AtomicU64,
}

/// See the module.
pub struct Shelf {
    system: &'static System,
    reader: Arc<Reader<'static>>,
    open: Mutex<HashMap<(Hash, u64), Weak<Disk>>>,
    gate: Arc<Gate>,
    counts: Arc<Counts>,
    cache_bytes: usize,
    ahead: Ahead,
    volumes: OpenVolumes,
}

/// A disk that is open. What it shows is pinned while it lives: gc leaves it alone and says so.
pub struct Disk {
    view: View<'static>,
    gate: Arc<Gate>,
    counts: Arc<Counts>,
}

impl Shelf {
    /// Over a store, with a budget for decoded frames in bytes. Opens the index.
    pub fn new(system: &'static System, cache_bytes: usize) -> Result<Self> {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let reader = system.store().reader(cache_bytes)?;
        Ok(Self {
            system,
            volumes: OpenVolumes::new(Volumes::open(system.store(), Some(reader.clone()))?),
            reader,
            open: Mutex::default(),
            gate: Arc::new(Gate::new((4 * cores).clamp(8, 64))),
            counts: Arc::default(),
            cache_bytes,
            ahead: Ahead::new(AHEAD),
        })
    }

    /// The volumes.
    pub fn volumes(&self) -> &OpenVolumes {
        &self.volumes
    }

    /// The store.
    pub fn system(&self) -> &'static System {
        self.system
    }

    /// What there is to be known, for Prometheus.
    pub fn metrics(&self, page: &mut Page) {
        let counts = &self.counts;
        let of = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        page.counter("reads_total", "Reads of disks.", of(&counts.reads));
        let help = "Bytes read of disks.";
        page.counter("read_bytes_total", help, of(&counts.read_bytes));
        let help = "Reads of disks that failed.";
        page.counter("read_errors_total", help, of(&counts.read_errors));
        let help = "Bytes that were to be read ahead.";
        page.counter("read_ahead_bytes_total", help, of(&counts.ahead_bytes));
        let help = "Different disks that are open.";
        page.gauge("open_disks", help, self.open_disks() as f64);
        let help = "Bytes of decoded frames in memory.";
        page.gauge("cache_bytes", help, self.cached_bytes() as f64);
        let help = "Most bytes of decoded frames in memory.";
        page.gauge("cache_limit_bytes", help, self.cache_bytes as f64);
        self.volumes.metrics(page);
        let Ok(catalog) = self.system.store().refresh() else {
            return;
        };
        let count = catalog.devices().count();
        page.gauge("devices", "Devices of the store.", count as f64);
        let count = catalog.snapshots().count();
        page.gauge("snapshots", "Snapshots of the store.", count as f64);
        let bytes = stillpoint_store::ops::gc::total_bytes(&catalog);
        page.gauge("stored_bytes", "Bytes of the store's packs.", bytes as f64);
    }

    /// What disks were asked for.
    pub fn counts(&self) -> &Counts {
        &self.counts
    }

    /// Contents that are open now.
    pub fn open_disks(&self) -> usize {
        self.lock()
            .values()
            .filter(|w| w.strong_count() > 0)
            .count()
    }

    /// Bytes of decoded frames that are kept now.
    pub fn cached_bytes(&self) -> usize {
        self.reader.cached_bytes()
    }

    /// Opens contents that a snapshot or head names now, and pins them.
    pub fn open(&self, content: Content) -> Result<Arc<Disk>> {
        let key = (content.root, content.size);
        let there = self.lock().get(&key).and_then(Weak::upgrade);
        if let Some(disk) = there {
            return Ok(disk);
        }
        // Not under the lock, since it writes to the log. Of two that come at once one pin is given back.
        let disk = Arc::new(Disk {
            view: self.reader.view(content)?,
            gate: self.gate.clone(),
            counts: self.counts.clone(),
        });
        let mut open = self.lock();
        if let Some(other) = open.get(&key).and_then(Weak::upgrade) {
            return Ok(other);
        }
        open.retain(|_, disk| disk.strong_count() > 0);
        open.insert(key, Arc::downgrade(&disk));
        Ok(disk)
    }

    /// Bytes that may be read ahead for one reader now: the cache must hold them for all until they are read.
    pub fn window(&self) -> u64 {
        let share = self.cache_bytes as u64 / (4 * self.open_disks().max(1) as u64);
        if share < WINDOW_MIN {
            return 0;
        }
        share.min(WINDOW)
    }

    /// Fills `buf` from a volume; as many at a time as read disks.
    pub fn read_volume(&self, volume: &Volume<'_>, offset: u64, buf: &mut [u8]) -> Result<()> {
        let _pass = self.gate.enter();
        let read = volume.read_at(offset, buf);
        self.counts.reads.fetch_add(1, Ordering::Relaxed);
        let (bytes, errors) = match read {
            Ok(()) => (buf.len() as u64, 0),
            Err(_) => (0, 1),
        };
        self.counts.read_bytes.fetch_add(bytes, Ordering::Relaxed);
        self.counts.read_errors.fetch_add(errors, Ordering::Relaxed);
        read
    }

    /// The same if everything for it is in memory.
    pub fn read_volume_now(
        &self,
        volume: &Volume<'_>,
        offset: u64,
        buf: &mut [u8],
    ) -> Result<bool> {
        let done = volume.read_cached(offset, buf)?;
        if done {
            self.counts.reads.fetch_add(1, Ordering::Relaxed);
            let bytes = buf.len() as u64;
            self.counts.read_bytes.fetch_add(bytes, Ordering::Relaxed);
        }
        Ok(done)
    }

    /// A range of a disk will be read soon.
    pub fn expect(&self, disk: &Arc<Disk>, range: Range<u64>) {
        self.expect_of(disk.clone(), disk.view.size(), range);
    }

    /// The same of a volume, as far as the store has it.
    pub fn expect_of_volume(&self, volume: &Volume<'static>, range: Range<u64>) {
        if let Some(below) = volume.below() {
            let size = below.size();
            let gate = self.gate.clone();
            self.expect_of(Arc::new(VolumeAhead { below, gate }), size, range);
        }
    }

    fn expect_of(&self, disk: Arc<dyn Fetch>, size: u64, range: Range<u64>) {
        let range = range.start..range.end.min(size);
        let bytes = range.end.saturating_sub(range.start);
        self.counts.ahead_bytes.fetch_add(bytes, Ordering::Relaxed);
        self.ahead.expect(disk, range);
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<(Hash, u64), Weak<Disk>>> {
        // Whole after each statement.
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Disk {
    /// The view, for what takes no reading of clusters.
    pub fn view(&self) -> &View<'static> {
        &self.view
    }

    /// Fills `buf` with verified bytes; what lies behind the end is zeros.
    pub fn read(&self, offset: u64, buf: &mut [u8]) -> Result<()> {
        let _pass = self.gate.enter();
        let read = self.view.read_at(offset, buf);
        let n = read.inspect_err(|_| {
            self.counts.read_errors.fetch_add(1, Ordering::Relaxed);
        })?;
        buf[n..].fill(0);
        self.count(buf.len());
        Ok(())
    }

    /// Fills `buf` if everything for it is in memory.
    pub fn read_now(&self, offset: u64, buf: &mut [u8]) -> Result<bool> {
        let done = self.view.read_cached(offset, buf)?;
        if done {
            self.count(buf.len());
        }
        Ok(done)
    }

    fn count(&self, bytes: usize) {
        self.counts.reads.fetch_add(1, Ordering::Relaxed);
        let bytes = bytes as u64;
        self.counts.read_bytes.fetch_add(bytes, Ordering::Relaxed);
    }
}

/// What a volume has in the store.
struct VolumeAhead {
    below: Below<'static>,
    gate: Arc<Gate>,
}

impl Fetch for Disk {
    fn fetch(&self, range: Range<u64>) {
        in_pieces(&self.gate, range, |from, length| {
            self.view.prefetch(from, length)
        });
    }
}

impl Fetch for VolumeAhead {
    fn fetch(&self, range: Range<u64>) {
        in_pieces(&self.gate, range, |from, length| {
            self.below.prefetch(from, length)
        });
    }
}

/// In pieces, so that readers come in between.
fn in_pieces(gate: &Gate, range: Range<u64>, prefetch: impl Fn(u64, u64) -> Result<()>) {
    for from in range.clone().step_by(WINDOW_MIN as usize) {
        let _pass = gate.enter();
        let to = range.end.min(from + WINDOW_MIN);
        if prefetch(from, to - from).is_err() {
            return;
        }
    }
}
