//! The disks of a store to the outside: every snapshot read-only over NBD and as a file.
//!
//! ```text
//! label                what disks are called outside
//! menu                 what there is to serve, from the catalog
//! gate ahead shelf     disks that are open: shared views, one cache, reading ahead
//! volumes keeper       volumes that are open, who writes to them, and that they do not grow beside the store
//! nbd                  the menu as NBD exports
//! mount                the menu as files
//! listen accept        addresses to listen on, and those who come
//! qmp                  the control socket
//! metrics              numbers for Prometheus
//! descriptors          that clients do not take the store's
//! ```
//!
//! A server lives as long as its process, and its parts lend each other the store over threads that nobody can name the end
//! of, so the store is borrowed for good: `Box::leak` it.

mod accept;
mod ahead;
mod descriptors;
mod gate;
mod keeper;
mod label;
pub mod listen;
mod menu;
pub mod metrics;
pub mod mount;
pub mod nbd;
pub mod qmp;
mod shelf;
mod volumes;

pub use accept::Accepting;
pub use descriptors::connections_at_most;
pub use keeper::Keeper;
pub use label::{escape, unescape};
pub use shelf::{CACHE_BYTES, Counts, Shelf};
pub use volumes::OpenVolumes;
