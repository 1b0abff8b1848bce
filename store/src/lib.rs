//! The engine of stillpoint: disk images in, verified snapshots out, nothing lost.
//!
//! `FORMAT.md` says what is stored, `DESIGN.md` why. A module imports only those above it, or to the left of it:
//!
//! ```text
//! error id limits geometry progress world        vocabulary, pure
//! format                                         bytes <-> structs, no I/O
//! disk object index image history                the doors to the outside
//! catalog log                                    what exists
//! codec pack manifest content                    clusters and where they are
//! tuning store                                   a store that is open
//! ops                                            what it can do: one verb a file
//! volume                                         disks that are written to
//! ```

pub mod catalog;
pub mod codec;
pub mod content;
pub mod disk;
pub mod error;
pub mod format;
pub mod geometry;
pub mod history;
pub mod id;
pub mod image;
pub mod index;
pub mod limits;
pub mod log;
pub mod manifest;
pub mod object;
pub mod ops;
pub mod pack;
pub mod progress;
pub mod store;
pub mod tuning;
pub mod volume;
pub mod world;

pub use error::{Error, ErrorKind, Result};
