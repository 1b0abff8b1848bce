//! Image formats in and out of stillpoint, and whole stores from place to place.
//!
//! ```text
//! format read_only locked    which format, and files that are only read
//! qcow2                      images with all their internal snapshots, by our own code
//! raw                        plain bytes
//! foreign                    all other formats, through programs of QEMU
//! take                       any image as a history that the engine takes in
//! stored                     what a store has as what writers take
//! wire                       what travels between stores; `FORMAT.md` has the bytes
//! bundle sync                in one file, over a pipe
//! upgrade                    from an older format of a store to the present one
//! ```
//!
//! An image becomes a `stillpoint_store::history::History`.

pub mod bundle;
mod foreign;
mod format;
mod locked;
pub mod qcow2;
mod raw;
mod read_only;
mod stored;
pub mod sync;
mod take;
pub mod upgrade;
pub mod wire;

pub use foreign::write_foreign;
pub use format::Format;
pub use stillpoint_store::{Error, ErrorKind, Result};
pub use stored::write_qcow2;
pub use take::{LeftOut, Opened, Options, Wanted, open};
