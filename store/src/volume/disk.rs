//! An open volume, and what a guest does to it.

use super::changed::Differences;
use super::layers::{Below, Layers};
use super::open::Shared;
use super::overlay::Overlay;
use super::turn::Turns;
use crate::disk::DiskFile;
use crate::error::{Error, ErrorKind, Result};
use crate::format::entry::{Content, VolumeRecord};
use crate::format::overlay::{BLOCK_BYTES, Empty};
use crate::id::Uid;
use crate::store::may_be_dropped;
use std::ops::Range;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

const BLOCK: u64 = BLOCK_BYTES as u64;
/// Runs that were made empty and not synced: so many at most, and those of the writes under way.
const UNSYNCED_MAX: usize = 1 << 16;
/// Bytes of zeros that are written where a range ends within a block.
static ZEROS: [u8; BLOCK_BYTES] = [0; BLOCK_BYTES];

/// See the module. All calls may come from several threads; what is acknowledged is seen by every later read, and durable after
/// the next `flush`.
pub struct Volume<'a> {
    pub(super) shared: Arc<Shared<'a>>,
    device: Uid,
    pub(super) turns: Turns,
    gate: RwLock<()>,
    layers: RwLock<Arc<Layers<'a>>>,
    chain: Mutex<Chain>,
    pub(super) differences: Mutex<Option<Differences>>,
    /// It was removed, handed over, or it is not known where it is.
    ended: AtomicBool,
    /// The lock that keeps other processes away.
    _lock: Box<dyn DiskFile>,
}

/// Where the chain of overlays is. Changed by whoever has the volume's turn.
pub struct Chain {
    /// As the log has it.
    pub record: VolumeRecord,
    /// An overlay made beforehand, which takes the writes next.
    pub spare: Option<Arc<Overlay>>,
}

impl<'a> Volume<'a> {
    pub(super) fn new(
        shared: Arc<Shared<'a>>,
        device: Uid,
        layers: Layers<'a>,
        record: VolumeRecord,
        lock: Box<dyn DiskFile>,
    ) -> Self {
        Self {
            shared,
            device,
            turns: Turns::default(),
            gate: RwLock::new(()),
            layers: RwLock::new(Arc::new(layers)),
            chain: Mutex::new(Chain {
                record,
                spare: None,
            }),
            differences: Mutex::default(),
            ended: AtomicBool::new(false),
            _lock: lock,
        }
    }

    /// The device.
    pub fn device(&self) -> Uid {
        self.device
    }

    /// Bytes. Changed by resizing and by going to a snapshot.
    pub fn size(&self) -> u64 {
        self.layers().size
    }

    /// What lies in the store, below the overlays; `None`: nothing.
    pub fn content(&self) -> Option<Content> {
        self.layers().content()
    }

    /// What lies there, for who reads ahead.
    pub fn below(&self) -> Option<Below<'a>> {
        self.layers().below()
    }

    /// Bytes of data in overlays, which the store does not have yet.
    pub fn overlay_bytes(&self) -> u64 {
        let layers = self.layers();
        layers.overlays.iter().map(|o| o.data_bytes()).sum()
    }

    /// The same with what takes memory and no bytes: of runs that were made empty each counts as a block.
    pub fn overlay_load(&self) -> u64 {
        let layers = self.layers();
        layers.overlays.iter().map(|o| o.entries() * BLOCK).sum()
    }

    /// Fills `buf` from a range within the volume.
    pub fn read_at(&self, offset: u64, buf: &mut [u8]) -> Result<()> {
        let mut layers = self.layers();
        loop {
            self.checked(&layers, offset, buf.len() as u64)?;
            let failed = match layers.read(offset, buf) {
                Ok(()) => return Ok(()),
                Err(e) => e,
            };
            // Contents that are the head no more may be collected while they are read.
            let now = self.layers();
            if !may_be_dropped(&failed) || Arc::ptr_eq(&now, &layers) {
                return Err(failed.of(format!("volume {}", self.device)));
            }
            layers = now;
        }
    }

    /// Fills `buf` from a range within the volume if everything for it is in memory; `false` otherwise, and then `buf`
    /// means nothing.
    pub fn read_cached(&self, offset: u64, buf: &mut [u8]) -> Result<bool> {
        let layers = self.layers();
        self.checked(&layers, offset, buf.len() as u64)?;
        match layers.read_cached(offset, buf) {
            // The head may have become another meanwhile: `read_at` finds out.
            Err(e) if may_be_dropped(&e) => Ok(false),
            read => read,
        }
    }

    /// Writes a range within the volume. `NoSpace` leaves the volume as it was.
    pub fn write_at(&self, offset: u64, data: &[u8]) -> Result<()> {
        let _passing = self.pass()?;
        self.checked(&self.layers(), offset, data.len() as u64)?;
        self.put(offset, data)
    }

    /// Makes a range within the volume zeros: as a hole with `may_unmap`.
    pub fn write_zeroes(&self, offset: u64, len: u64, may_unmap: bool) -> Result<()> {
        let passing = self.pass()?;
        let layers = self.layers();
        let range = self.checked(&layers, offset, len)?;
        let kind = if may_unmap { Empty::Hole } else { Empty::Zero };
        let whole = whole_blocks(&range, layers.size);
        if whole.start >= whole.end {
            return self.put_zeros(range);
        }
        self.put_zeros(range.start..whole.start * BLOCK)?;
        layers
            .top()
            .write_empty(whole.start, whole.end - whole.start, kind)?;
        self.put_zeros((whole.end * BLOCK).min(range.end)..range.end)?;
        drop(passing);
        self.relieve(&layers)
    }

    /// The contents of a range within the volume are of no use any more: whole blocks of it become holes.
    pub fn discard(&self, offset: u64, len: u64) -> Result<()> {
        let passing = self.pass()?;
        let layers = self.layers();
        let range = self.checked(&layers, offset, len)?;
        let whole = whole_blocks(&range, layers.size);
        if whole.start >= whole.end {
            return Ok(());
        }
        layers
            .top()
            .write_empty(whole.start, whole.end - whole.start, Empty::Hole)?;
        drop(passing);
        self.relieve(&layers)
    }

    /// What was made empty is remembered until it is synced. A guest that never flushes is made to.
    fn relieve(&self, layers: &Layers<'_>) -> Result<()> {
        if layers.top().unsynced_empty() < UNSYNCED_MAX {
            return Ok(());
        }
        self.flush()
    }

    /// Writes bytes within the volume, by whoever has passed the gate.
    fn put(&self, offset: u64, data: &[u8]) -> Result<()> {
        let mut layers = self.layers();
        loop {
            let failed = match write(&layers, offset, data) {
                Ok(()) => return Ok(()),
                Err(e) => e,
            };
            // What a block held besides is read, perhaps of a head that is none any more. The overlay on top stays.
            let now = self.layers();
            if !may_be_dropped(&failed) || Arc::ptr_eq(&now, &layers) {
                return Err(failed);
            }
            layers = now;
        }
    }

    fn put_zeros(&self, range: Range<u64>) -> Result<()> {
        let mut at = range.start;
        while at < range.end {
            let n = (BLOCK - at % BLOCK).min(range.end - at);
            self.put(at, &ZEROS[..n as usize])?;
            at += n;
        }
        Ok(())
    }

    /// Everything acknowledged before survives a crash when this returns: every overlay is synced that no durable entry has
    /// absorbed. `Poisoned` after a sync that failed.
    pub fn flush(&self) -> Result<()> {
        self.check_not_ended()?;
        // The oldest first, so that a chain on the disk never skips what it needs.
        let layers = self.layers();
        layers.overlays.iter().rev().try_for_each(|o| o.sync())
    }

    /// What is read now.
    pub(super) fn layers(&self) -> Arc<Layers<'a>> {
        self.layers
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// What is read from now on.
    pub(super) fn set_layers(&self, layers: Layers<'a>) {
        *self.layers.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(layers);
    }

    pub(super) fn chain(&self) -> MutexGuard<'_, Chain> {
        self.chain.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Nothing is in flight, and nothing is acknowledged, while the result lives.
    pub(super) fn shut(&self) -> RwLockWriteGuard<'_, ()> {
        self.gate.write().unwrap_or_else(PoisonError::into_inner)
    }

    fn pass(&self) -> Result<RwLockReadGuard<'_, ()>> {
        let passing = self.gate.read().unwrap_or_else(PoisonError::into_inner);
        self.check_not_ended()?;
        Ok(passing)
    }

    /// Nothing more is written.
    pub(super) fn end(&self) {
        self.ended.store(true, Ordering::Release);
    }

    pub(super) fn check_not_ended(&self) -> Result<()> {
        if self.ended.load(Ordering::Acquire) {
            return Err(Error::new(ErrorKind::Poisoned, "writing to a volume")
                .at(self.device)
                .detail("it was removed, moved, or what became of a change of it is unclear")
                .hint("open it again"));
        }
        Ok(())
    }

    /// The range, if it lies within the disk.
    pub(super) fn checked(&self, layers: &Layers<'_>, offset: u64, len: u64) -> Result<Range<u64>> {
        match offset.checked_add(len) {
            Some(end) if end <= layers.size => Ok(offset..end),
            _ => {
                let why = format!("{len} bytes from there on, of {}", layers.size);
                Err(Error::invalid("reading or writing a volume", why)
                    .at(self.device)
                    .offset(offset))
            }
        }
    }
}

impl Drop for Volume<'_> {
    fn drop(&mut self) {
        if self.ended.load(Ordering::Acquire) {
            return;
        }
        // Without it the next one to open finds everything all the same, but for what damage hides.
        for overlay in &self.layers().overlays {
            overlay.close().unwrap_or_default();
        }
    }
}

impl std::fmt::Debug for Volume<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Volume")
            .field("device", &self.device)
            .finish_non_exhaustive()
    }
}

/// Blocks that lie in the range as a whole; the last one of the disk may be shorter.
fn whole_blocks(range: &Range<u64>, size: u64) -> Range<u64> {
    let end = if range.end == size {
        size.div_ceil(BLOCK)
    } else {
        range.end / BLOCK
    };
    range.start.div_ceil(BLOCK)..end
}

/// Blocks that are written in part are read first. Whoever writes one of them meanwhile makes that void, and it is done again.
fn write(layers: &Layers<'_>, offset: u64, data: &[u8]) -> Result<()> {
    if data.is_empty() {
        return Ok(());
    }
    let (first, skip) = (offset / BLOCK, (offset % BLOCK) as usize);
    if skip == 0 && data.len().is_multiple_of(BLOCK_BYTES) {
        return layers.top().write(first, data, &[]).map(drop);
    }
    let end = skip + data.len();
    let mut whole = vec![0; end.next_multiple_of(BLOCK_BYTES)];
    let last = whole.len() / BLOCK_BYTES - 1;
    let partial = [
        (skip > 0).then_some(0),
        (end < whole.len() && (last > 0 || skip == 0)).then_some(last),
    ];
    loop {
        let mut seen = Vec::with_capacity(2);
        for i in partial.into_iter().flatten() {
            let block = first + i as u64;
            seen.push((block, layers.top().get(block)));
            let into = &mut whole[i * BLOCK_BYTES..(i + 1) * BLOCK_BYTES];
            // What is past the end of the disk is zeros in every layer.
            layers.read(block * BLOCK, into)?;
        }
        whole[skip..end].copy_from_slice(data);
        if layers.top().write(first, &whole, &seen)? {
            return Ok(());
        }
    }
}
