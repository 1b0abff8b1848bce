//! Looks after volumes while they are served: what was written to one goes into the store when there is much of it, so that
//! neither its files nor the memory for their maps grow without end. Guests write on meanwhile.

use crate::nbd::chain;
use crate::shelf::Shelf;
use std::sync::Arc;
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use stillpoint_store::id::Uid;
use stillpoint_store::progress::Progress;
use stillpoint_store::{ErrorKind, Result};
use tracing::{info, warn};

/// Between two looks.
const INTERVAL: Duration = Duration::from_secs(1);
/// Between two tries where one failed.
const AFTER_FAILURE: Duration = Duration::from_mins(1);

/// Stops when it is dropped; what it is storing is given up.
pub struct Keeper {
    stop: Option<Sender<()>>,
    progress: Arc<Progress>,
    thread: Option<JoinHandle<()>>,
}

impl Keeper {
    /// Stores what a volume has beside the store once that is more than `most` bytes.
    pub fn start(shelf: Arc<Shelf>, most: u64) -> std::io::Result<Self> {
        let (stop, stopped) = channel();
        let progress = Arc::new(Progress::default());
        let counters = progress.clone();
        let named = std::thread::Builder::new().name("volumes".to_owned());
        let thread = named.spawn(move || {
            let mut not_before = Instant::now();
            while let Err(RecvTimeoutError::Timeout) = stopped.recv_timeout(INTERVAL) {
                if Instant::now() < not_before {
                    continue;
                }
                if look(&shelf, most, &counters).is_err() {
                    not_before = Instant::now() + AFTER_FAILURE;
                }
            }
        })?;
        Ok(Self {
            stop: Some(stop),
            progress,
            thread: Some(thread),
        })
    }
}

/// One volume that cannot be stored keeps no other from it. The last error.
fn look(shelf: &Shelf, most: u64, progress: &Progress) -> Result<()> {
    let mut done = Ok(());
    for (device, name) in shelf.volumes().larger_than(most) {
        let since = Instant::now();
        match store(shelf, device, progress) {
            Ok(()) => {
                let seconds = since.elapsed().as_secs_f64();
                info!(volume = name, seconds, "stored what was written");
            }
            Err(e) if e.kind() == ErrorKind::Cancelled => return Err(e),
            Err(e) => {
                warn!(volume = name, error = %chain(&e), "storing what was written failed");
                done = Err(e);
            }
        }
    }
    done
}

fn store(shelf: &Shelf, device: Uid, progress: &Progress) -> Result<()> {
    let stored = shelf.volumes().all().absorb(&[device], progress);
    stored.map(|_| ())
}

impl Drop for Keeper {
    fn drop(&mut self) {
        self.stop.take();
        self.progress.stop();
        if let Some(thread) = self.thread.take() {
            // If it panicked it looks after nothing any more, which is all that is wanted.
            let _ = thread.join();
        }
    }
}
