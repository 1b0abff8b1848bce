//! Ctrl-C and SIGTERM: the first asks the operation to stop at the next good place, the second ends the process. Both
//! are safe, since what was not acknowledged is absent after any crash; the first is tidier. What serves has more to lose: what
//! guests wrote and did not flush. It ends by itself, and signals after the first do not hurry it; `timeout` sends two at once.

use crate::exit::Exit;
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;
use std::io::IsTerminal;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, channel};
use stillpoint_store::progress::Progress;

/// Somebody ends the process in good order himself.
static AWAITED: AtomicBool = AtomicBool::new(false);

/// The numbers of the signals that ask to stop, as they come. From now on none of them ends the process.
pub fn on_stop() -> std::io::Result<Receiver<i32>> {
    AWAITED.store(true, Ordering::SeqCst);
    let mut signals = Signals::new([SIGINT, SIGTERM])?;
    let (send, receive) = channel();
    let pass_on = move || {
        for signal in signals.forever() {
            // Nobody listens any more: the operation is over.
            if send.send(signal).is_err() {
                return;
            }
        }
    };
    let named = std::thread::Builder::new().name("stop".into());
    named.spawn(pass_on).map(|_| receive)
}

/// Handles the signals on a thread of their own for as long as the process lives.
pub fn watch(progress: Arc<Progress>) -> std::io::Result<()> {
    let mut signals = Signals::new([SIGINT, SIGTERM])?;
    let handle = move || {
        for (nth, _) in signals.forever().enumerate() {
            if AWAITED.load(Ordering::SeqCst) {
                continue;
            }
            if nth > 0 {
                std::process::exit(Exit::Cancelled.code().into());
            }
            progress.stop();
            if std::io::stderr().is_terminal() {
                eprintln!("\nstill: stopping; once more ends it at once");
            }
        }
    };
    std::thread::Builder::new()
        .name("signals".into())
        .spawn(handle)
        .map(drop)
}
