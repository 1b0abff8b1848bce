//! Image formats in and out of stillpoint.
//!
//! ```text
//! format read_only locked    which format, and files that are only read
//! qcow2                      images with all their internal snapshots, by our own code
//! raw                        plain bytes
//! foreign                    all other formats, through programs of QEMU
//! take                       any image as a history that the engine takes in
//! stored                     what a store has as what writers take
//! ```
//!
//! Nothing here knows the store's operations: an image becomes a `stillpoint_store::history::History`.

mod foreign;
mod format;
mod locked;
pub mod qcow2;
mod raw;
mod read_only;
mod stored;
mod take;

pub use foreign::write_foreign;
pub use format::Format;
pub use stillpoint_store::{Error, ErrorKind, Result};
pub use stored::write_qcow2;
pub use take::{LeftOut, Opened, Options, Wanted, open};
