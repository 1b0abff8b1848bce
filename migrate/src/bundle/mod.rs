//! Snapshots in one file: written and read in one pass. See FORMAT.md 3.
//!
//! A bundle builds on contents that the receiver is known to have (`--since`), leaves out what a summary of the receiver's
//! clusters lists (`--for`), or is whole. A summary may be wrong about one cluster in some millions: a receiver stores nothing
//! for good before it has seen that every cluster is there, and can say exactly which are not.

mod filter;
mod read;
mod summary;
mod write;

pub use read::{Receive, Received, receive};
pub use summary::{Summarized, Summary, write_need, write_summary};
pub use write::{Send, Sent, send};
