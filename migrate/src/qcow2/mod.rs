//! qcow2 by our own code: images with their internal snapshots in and out.
//!
//! ```text
//! bytes geometry entry codec        vocabulary, pure
//! header snapshot bitmap            structures of a file
//! decoded l1 layer state map        one open file, one state of it, where its bytes are
//! gate chain                        which other files may be opened, and the chain of them
//! write                             images out
//! copy                              an image as what the writer takes
//! disk history                      its states as what the engine takes in
//! ```
//!
//! Every byte of an image is untrusted: offsets, lengths and counts are checked against the file and against limits
//! before anything is allocated or followed, so that time and memory are bounded by the size of the file.

mod bitmap;
mod bytes;
mod chain;
mod codec;
mod copy;
mod decoded;
mod disk;
mod entry;
mod gate;
mod geometry;
mod header;
mod history;
mod l1;
mod layer;
mod map;
mod snapshot;
mod state;
pub mod write;

pub use bitmap::Bitmap;
pub use chain::{ChainMap, ChainMapped, Image, Link};
pub use codec::Compression;
pub use copy::Copy;
pub use entry::Kind;
pub(crate) use gate::Role;
pub use gate::{CHAIN_DEPTH_MAX, Gate};
pub use geometry::Geometry;
pub use header::{Encryption, Extent, Header, UnknownExtension};
pub(crate) use history::name_of_file;
pub use history::{ChainMode, Past};
pub(crate) use layer::read_any_header;
pub use layer::{Layer, TableCacheBytes};
pub use map::{Map, Mapped};
pub use snapshot::Snapshot;
pub use state::{Changes, State, VmStateReader};
