//! A control socket that speaks QMP: the commands of a QEMU release as far as they have a meaning for a store, and
//! `x-stillpoint-` commands for the rest. `docs/QMP.md` has all of them.
//!
//! ```text
//! framer message arguments error     bytes <-> messages
//! clients                            who is connected, and hears of events
//! monitor                            what commands work on
//! commands                           one family a file, and the table of all
//! jobs                               what goes on in the background
//! server session                     sockets, and one client's conversation
//! ```

mod arguments;
mod clients;
mod commands;
mod error;
mod framer;
mod jobs;
mod message;
mod monitor;
mod server;
mod session;

pub use commands::names as command_names;
pub use error::kind_named;
pub use monitor::Monitor;
pub use server::Server;

use std::sync::{Mutex, MutexGuard, PoisonError};

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // What is locked in this module is maps and numbers, whole after each statement.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What hostile bytes can reach without a store: framing and parsing. For the fuzzer.
pub fn swallow(bytes: &[u8]) {
    let mut framer = framer::Framer::default();
    for byte in bytes {
        match framer.push(*byte) {
            Ok(Some(message)) => drop(message::parse(&message)),
            Ok(None) => {}
            Err(_) => return,
        }
    }
}
