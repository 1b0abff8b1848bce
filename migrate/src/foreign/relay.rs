//! A view of a store as an NBD export. The server's threads live as long as they like and the view does not, so that reads go
//! over a channel to threads that do no more than the view lives.

use std::sync::mpsc::{Receiver, Sender, channel, sync_channel};
use std::sync::{Mutex, PoisonError};
use stillpoint_nbd::codec::{Extents, allocation};
use stillpoint_nbd::{BASE_ALLOCATION, Errno, Export, ExportInfo, Failure};
use stillpoint_store::ops::diff::ExtentKind;
use stillpoint_store::ops::view::View;

type Answered<T> = std::sync::mpsc::SyncSender<Result<T, Failure>>;

/// Something that is wanted of the view.
pub(super) enum Wanted {
    Bytes(u64, usize, Answered<Vec<u8>>),
    Extents(u64, u64, Answered<Vec<(u64, u64)>>),
}

/// See the module.
pub(super) struct Relay {
    size: u64,
    wanted: Mutex<Sender<Wanted>>,
}

/// Where the requests come out. It ends when the relay is gone.
pub(super) type Requests = Mutex<Receiver<Wanted>>;

/// A relay for a disk of so many bytes, and its other end.
pub(super) fn relay(size: u64) -> (Relay, Requests) {
    let (wanted, requests) = channel();
    let wanted = Mutex::new(wanted);
    (Relay { size, wanted }, Mutex::new(requests))
}

/// Answers until nobody can ask any more. Several threads may.
pub(super) fn answer(view: &View<'_>, requests: &Requests) {
    loop {
        let next = requests
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .recv();
        // Whoever asked may have gone; then nobody misses the answer.
        let _gone = match next {
            Err(_) => return,
            Ok(Wanted::Bytes(at, len, to)) => to.send(bytes(view, at, len)).is_err(),
            Ok(Wanted::Extents(at, len, to)) => to.send(extents(view, at, len)).is_err(),
        };
    }
}

fn failure(e: &stillpoint_store::Error) -> Failure {
    Failure::new(Errno::Io, e.to_string())
}

fn bytes(view: &View<'_>, at: u64, len: usize) -> Result<Vec<u8>, Failure> {
    let mut bytes = vec![0; len];
    view.read_at(at, &mut bytes).map_err(|e| failure(&e))?;
    Ok(bytes)
}

/// Lengths and flags.
fn extents(view: &View<'_>, at: u64, len: u64) -> Result<Vec<(u64, u64)>, Failure> {
    /// Enough for a while: what is left is asked for again.
    const MOST: usize = 4096;
    let all = view.extents(at, len).map_err(|e| failure(&e))?;
    let flags = |kind| match kind {
        ExtentKind::Data => 0,
        ExtentKind::Zero => allocation::ZERO,
        ExtentKind::Hole => allocation::ZERO | allocation::HOLE,
    };
    all.take(MOST)
        .map(|e| {
            e.map(|e| (e.length, flags(e.kind)))
                .map_err(|e| failure(&e))
        })
        .collect()
}

impl Relay {
    fn ask<T>(&self, make: impl FnOnce(Answered<T>) -> Wanted) -> Result<T, Failure> {
        let (to, answered) = sync_channel(1);
        let sent = {
            let wanted = self.wanted.lock().unwrap_or_else(PoisonError::into_inner);
            wanted.send(make(to))
        };
        sent.map_err(|_| Failure::from(Errno::Shutdown))?;
        answered
            .recv()
            .map_err(|_| Failure::from(Errno::Shutdown))?
    }
}

impl Export for Relay {
    fn info(&self) -> ExportInfo {
        ExportInfo::read_only(self.size)
    }

    fn read(&self, buf: &mut [u8], offset: u64) -> Result<(), Failure> {
        let bytes = self.ask(|to| Wanted::Bytes(offset, buf.len(), to))?;
        buf.copy_from_slice(&bytes);
        Ok(())
    }

    fn block_status(
        &self,
        context: &str,
        offset: u64,
        len: u64,
        extents: &mut Extents,
    ) -> Result<(), Failure> {
        if context != BASE_ALLOCATION {
            return Err(Errno::Inval.into());
        }
        let found = self.ask(|to| Wanted::Extents(offset, len, to))?;
        for (length, flags) in found {
            if !extents.push(length, flags) {
                break;
            }
        }
        Ok(())
    }
}
