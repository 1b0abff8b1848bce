//! The formats that QEMU reads and writes for us: through a private qemu-nbd and our NBD client in, through our NBD server and
//! qemu-img out.
//!
//! Programs are given descriptions in JSON that were made here, with whole paths in them: no name out of an image, and none
//! that a user gave, is ever read as an option or a protocol.

mod disk;
mod extents;
mod layers;
mod program;
mod read;
mod relay;
mod write;

pub(crate) use read::{open, open_backing};
pub use write::write_foreign;
