//! How far an operation is, and whether it should stop: plain counters that the caller may watch from another thread.

use crate::error::{Error, ErrorKind, Result};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// Shared between an operation and whoever watches it.
#[derive(Debug, Default)]
pub struct Progress {
    /// Bytes that the operation is about; grows while it is being found out.
    pub bytes_total: AtomicU64,
    /// Bytes dealt with.
    pub bytes_done: AtomicU64,
    /// Of these, bytes that were found stored already (parent, index).
    pub bytes_known: AtomicU64,
    /// Of these, holes and zeros.
    pub bytes_empty: AtomicU64,
    /// Bytes added to packs, compressed.
    pub bytes_stored: AtomicU64,
    stop: AtomicBool,
}

impl Progress {
    /// Asks the operation to stop at the next good place.
    pub fn stop(&self) {
        self.stop.store(true, Ordering::Relaxed);
    }

    /// `Cancelled` once somebody asked to stop.
    pub fn check(&self) -> Result<()> {
        if self.stop.load(Ordering::Relaxed) {
            return Err(Error::new(ErrorKind::Cancelled, "stopped as asked"));
        }
        Ok(())
    }

    /// Adds to a counter.
    pub fn add(counter: &AtomicU64, bytes: u64) {
        counter.fetch_add(bytes, Ordering::Relaxed);
    }
}
