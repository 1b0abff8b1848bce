//! What a store can do, one verb a file, each with its options and its outcome.

pub mod diff;
pub mod gc;
pub mod give;
pub mod goto;
mod held;
pub mod ingest;
pub mod rebuild;
mod repack;
pub mod rescue;
pub mod restore;
mod sink;
pub mod stats;
pub mod verify;
pub mod view;
