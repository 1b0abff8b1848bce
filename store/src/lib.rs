//! The engine of stillpoint: disk images in, verified snapshots out, nothing lost.
//!
//! `FORMAT.md` says what is stored, `DESIGN.md` why. Modules import only downwards:
//!
//! ```text
//! error id geometry limits progress world        vocabulary, pure
//! format                                         bytes <-> structs, no I/O
//! disk  object  index  image                     the doors to the outside
//! catalog  log                                   what exists
//! codec  pack  manifest  content                 clusters and where they are
//! ops                                            one verb a file
//! store                                          the face
//! ```

pub mod catalog;
pub mod codec;
pub mod content;
pub mod disk;
pub mod error;
pub mod format;
pub mod geometry;
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
pub mod world;

pub use error::{Error, ErrorKind, Result};
