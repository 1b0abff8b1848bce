//! Image formats in and out of stillpoint.
//!
//! `qcow2` reads and writes images with all their internal snapshots, and knows nothing of the store's operations.

pub mod qcow2;

pub use stillpoint_store::{Error, ErrorKind, Result};
