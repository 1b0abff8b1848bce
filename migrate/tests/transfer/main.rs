//! Snapshots from store to store, in one process: every cut, every flipped byte, hostile streams, and pipes that delay.

#![allow(clippy::unwrap_used, reason = "tests")]

mod beside;
mod bundle;
mod host;
mod hostile;
mod many;
mod mutated;
mod sync;
