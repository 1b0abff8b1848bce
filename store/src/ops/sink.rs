//! Verified clusters into a file.

use crate::content::fetch::Sink;
use crate::disk::DiskFile;
use crate::error::{Error, ErrorKind, Result};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

/// Bytes written between two syncs in the background.
const SYNC_BYTES: u64 = 128 << 20;
/// Zeros written at a time.
static ZEROS: [u8; 256 << 10] = [0; 256 << 10];

/// Writes clusters to their places; what is past the end of the disk is cut off.
pub(crate) struct FileSink<'a> {
    file: &'a dyn DiskFile,
    cluster_bytes: u64,
    len: u64,
    written: AtomicU64,
    wake: SyncSender<()>,
}

impl<'a> FileSink<'a> {
    /// Lets `work` write to the file, and makes all of it durable. A large file is synced while it is being written, so
    /// that the disk is busy before the end. Returns what `work` returned and the bytes that the sink took.
    pub(crate) fn with<R>(
        file: &'a dyn DiskFile,
        cluster_bytes: u64,
        len: u64,
        work: impl FnOnce(&Self) -> Result<R>,
    ) -> Result<(R, u64)> {
        let (wake, woken) = sync_channel(1);
        let sink = Self {
            file,
            cluster_bytes,
            len,
            written: AtomicU64::new(0),
            wake,
        };
        std::thread::scope(|scope| {
            let syncer = scope.spawn(move || sync_when_woken(file, &woken));
            let done = work(&sink);
            let written = sink.written.load(Ordering::Relaxed);
            drop(sink);
            let synced = syncer.join().map_err(|_| died())?;
            // The system tells a failed write to one sync only: that of the syncer counts as much as the last, and more than
            // what ended the work, since it may be gone on with what is there.
            synced?;
            if !matches!(&done, Err(e) if e.kind() != ErrorKind::Cancelled) {
                file.sync()?;
            }
            Ok((done?, written))
        })
    }

    /// Writes zeros over a range of bytes.
    pub(crate) fn put_zeros(&self, mut from: u64, to: u64) -> Result<()> {
        while from < to {
            let step = (to - from).min(ZEROS.len() as u64);
            self.write(from, &ZEROS[..step as usize])?;
            from += step;
        }
        Ok(())
    }

    fn write(&self, offset: u64, bytes: &[u8]) -> Result<()> {
        self.file.write_at(offset, bytes)?;
        let n = bytes.len() as u64;
        let before = self.written.fetch_add(n, Ordering::Relaxed);
        if before / SYNC_BYTES != (before + n) / SYNC_BYTES {
            // Full: a sync is asked for already.
            let _asked = self.wake.try_send(());
        }
        Ok(())
    }
}

impl Sink for FileSink<'_> {
    fn put(&self, cluster: u64, bytes: &[u8]) -> Result<()> {
        let offset = cluster * self.cluster_bytes;
        let there = (self.len - offset).min(bytes.len() as u64) as usize;
        self.write(offset, &bytes[..there])
    }
}

/// Until nobody is left who could wake it.
fn sync_when_woken(file: &dyn DiskFile, woken: &Receiver<()>) -> Result<()> {
    woken.iter().try_for_each(|()| file.sync())
}

fn died() -> Error {
    Error::new(ErrorKind::Io, "syncing a file").detail("the thread that does it died")
}
