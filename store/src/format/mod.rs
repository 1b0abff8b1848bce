//! Bytes <-> structs, each with its picture in FORMAT.md. No I/O.

pub mod block;
pub mod codec;
pub mod entry;
pub mod envelope;
pub mod manifest;
pub mod overlay;
pub mod pack;
pub mod snapshot;
pub mod store;
