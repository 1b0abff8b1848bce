//! Volumes that are open, and who writes to them: what would pull the disk from under a writer is refused, and while it goes on
//! nobody becomes one.

use crate::metrics::Page;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use stillpoint_store::id::Uid;
use stillpoint_store::volume::{Volume, Volumes};
use stillpoint_store::{Error, ErrorKind, Result};
use tracing::{error, info};

/// See the module.
pub struct OpenVolumes {
    volumes: Volumes<'static>,
    uses: Mutex<BTreeMap<Uid, Use>>,
    counts: Counts,
}

/// How a volume is used.
#[derive(Debug, Default)]
struct Use {
    name: String,
    writers: usize,
    /// Somebody changes more than its contents: no writer may come.
    claimed: bool,
}

/// What volumes were asked for, since the start.
#[derive(Debug, Default)]
pub struct Counts {
    writes: AtomicU64,
    write_bytes: AtomicU64,
    flushes: AtomicU64,
    errors: AtomicU64,
}

/// A client that writes to a volume, until it is dropped.
pub struct Writer {
    owner: Arc<crate::shelf::Shelf>,
    device: Uid,
    volume: Arc<Volume<'static>>,
}

/// Keeps writers away from volumes until it is dropped.
pub struct Claim<'a> {
    owner: &'a OpenVolumes,
    devices: Vec<Uid>,
}

impl OpenVolumes {
    /// None open yet.
    pub fn new(volumes: Volumes<'static>) -> Self {
        Self {
            volumes,
            uses: Mutex::default(),
            counts: Counts::default(),
        }
    }

    /// For the operations that work on open volumes.
    pub fn all(&self) -> &Volumes<'static> {
        &self.volumes
    }

    /// What they were asked for.
    pub fn counts(&self) -> &Counts {
        &self.counts
    }

    /// Waits for nothing: `Busy` where a client writes to one of the volumes, or somebody else has claimed it. With `force`
    /// writers stay; who asks for that answers for it.
    pub fn claim(&self, devices: &[Uid], force: bool) -> Result<Claim<'_>> {
        let mut uses = self.lock();
        let devices: BTreeSet<Uid> = devices.iter().copied().collect();
        for device in &devices {
            let Some(used) = uses.get(device) else {
                continue;
            };
            if used.claimed || (used.writers > 0 && !force) {
                return Err(busy(used));
            }
        }
        for device in &devices {
            uses.entry(*device).or_default().claimed = true;
        }
        Ok(Claim {
            owner: self,
            devices: devices.into_iter().collect(),
        })
    }

    /// A volume that is no more, or is no longer of this process.
    pub fn forget(&self, device: &Uid) {
        self.volumes.close(device);
        if let Some(used) = self.lock().get_mut(device) {
            used.name.clear();
        }
    }

    /// Volumes that are open.
    fn used(&self) -> Vec<(Uid, String, usize)> {
        let uses = self.lock();
        let used = uses.iter().filter(|(_, u)| !u.name.is_empty());
        used.map(|(uid, u)| (*uid, u.name.clone(), u.writers))
            .collect()
    }

    /// Volumes, with their names, of which more than `most` bytes are not in the store, or as much in runs that are empty.
    pub fn larger_than(&self, most: u64) -> Vec<(Uid, String)> {
        let large = |device: &Uid| {
            let volume = self.volumes.volume(device);
            volume.is_ok_and(|volume| volume.overlay_load() > most)
        };
        let used = self.used().into_iter();
        used.filter(|(device, ..)| large(device))
            .map(|(device, name, _)| (device, name))
            .collect()
    }

    /// Makes everything durable that was written, and lets go of the volumes.
    pub fn close(&self) {
        for (device, name, _) in self.used() {
            match self.volumes.volume(&device).and_then(|v| v.flush()) {
                Ok(()) => info!(volume = name, "flushed"),
                Err(e) => error!(volume = name, error = %e, "could not be flushed"),
            }
            self.volumes.close(&device);
        }
    }

    /// What there is to be known, for Prometheus.
    pub fn metrics(&self, page: &mut Page) {
        let of = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let counts = &self.counts;
        page.counter("writes_total", "Writes to volumes.", of(&counts.writes));
        let help = "Bytes written to volumes.";
        page.counter("write_bytes_total", help, of(&counts.write_bytes));
        page.counter("flushes_total", "Flushes of volumes.", of(&counts.flushes));
        let help = "Writes and flushes of volumes that failed.";
        page.counter("write_errors_total", help, of(&counts.errors));
        let used = self.used();
        for (_, name, writers) in &used {
            let help = "Clients that have the volume open.";
            page.gauge_of("volume_clients", help, ("volume", name), *writers as f64);
        }
        for (device, name, _) in &used {
            if let Ok(volume) = self.volumes.volume(device) {
                let bytes = volume.overlay_bytes() as f64;
                let help = "Bytes that were written and are not in the store yet.";
                page.gauge_of("volume_overlay_bytes", help, ("volume", name), bytes);
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<Uid, Use>> {
        // Flags and counts, whole when the guard goes.
        self.uses.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Counts {
    /// Notes a write, or something like it.
    pub fn wrote<T>(&self, bytes: u64, done: &Result<T>) {
        self.writes.fetch_add(1, Ordering::Relaxed);
        self.write_bytes.fetch_add(bytes, Ordering::Relaxed);
        self.errors
            .fetch_add(u64::from(done.is_err()), Ordering::Relaxed);
    }

    /// Notes a flush.
    pub fn flushed<T>(&self, done: &Result<T>) {
        self.flushes.fetch_add(1, Ordering::Relaxed);
        self.errors
            .fetch_add(u64::from(done.is_err()), Ordering::Relaxed);
    }
}

impl Writer {
    /// Opens a volume for a client. `Busy` while somebody has claimed it, or another process has it open.
    pub fn new(owner: Arc<crate::shelf::Shelf>, device: Uid, name: &str) -> Result<Self> {
        let volumes = owner.volumes();
        {
            let mut uses = volumes.lock();
            let used = uses.entry(device).or_default();
            if used.claimed {
                return Err(busy(used));
            }
            name.clone_into(&mut used.name);
            used.writers += 1;
        }
        // Counted before it is opened: nobody claims it in between.
        match volumes.volumes.volume(&device) {
            Ok(volume) => Ok(Self {
                owner,
                device,
                volume,
            }),
            Err(e) => {
                volumes.leave(&device);
                Err(e)
            }
        }
    }

    /// The volume.
    pub fn volume(&self) -> &Volume<'static> {
        &self.volume
    }
}

impl OpenVolumes {
    fn leave(&self, device: &Uid) {
        if let Some(used) = self.lock().get_mut(device) {
            used.writers -= 1;
        }
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.owner.volumes().leave(&self.device);
    }
}

impl Drop for Claim<'_> {
    fn drop(&mut self) {
        let mut uses = self.owner.lock();
        for device in &self.devices {
            if let Some(used) = uses.get_mut(device) {
                used.claimed = false;
            }
        }
    }
}

fn busy(used: &Use) -> Error {
    let (why, hint) = if used.claimed {
        (
            "it is being changed as a whole",
            "try again when that is done",
        )
    } else {
        ("clients have it open for writing", "disconnect them first")
    };
    Error::new(ErrorKind::Busy, format!("using volume {:?}", used.name))
        .detail(why)
        .hint(hint)
}
