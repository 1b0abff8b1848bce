//! Image formats in and out of stillpoint, and whole stores from place to place.
//!
//! `wire` is what travels between stores: in one file with `bundle`, over a pipe with `sync`. `FORMAT.md` has the bytes.
//! `upgrade` leads a store from an older format to the present one.

pub mod bundle;
pub mod sync;
pub mod upgrade;
pub mod wire;

pub use stillpoint_store::{Error, ErrorKind, Result};
