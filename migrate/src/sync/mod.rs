//! Two stores exchange what one of them lacks, over a pipe. See FORMAT.md 4.
//!
//! ```text
//! receiver                                  sender
//! have (uids, roots), ready          ->
//!                                    <-     plan, bases, devices, snapshots
//!                                    <-     content, edits ... without waiting, some windows ahead
//! want (a bit a cluster) ...         ->
//!                                    <-     frames, window end ...
//!                                    <-     end
//! done                               ->
//! ```
//!
//! Whatever the number of clusters, five messages wait for one another: latency is paid five times, and then once more for
//! so many windows as may be under way.

mod give;
mod take;

pub use give::{Give, give};
pub use take::{Take, take};

use crate::wire::Outcome;

/// Windows that may be under way: told, and not all of their frames sent. At clusters of 8 KiB that is 8 GiB of changed
/// clusters; their hashes take 32 MiB at the sender.
pub const WINDOWS_UNDER_WAY: usize = 16;

/// What a sync did, as either side knows it.
#[derive(Debug, Clone)]
pub struct Report {
    /// What became of the receiving store, or would have.
    pub outcome: Outcome,
    /// Bytes of the stream from sender to receiver.
    pub sent_bytes: u64,
    /// Bytes of the stream from receiver to sender.
    pub asked_bytes: u64,
    /// Messages that had to come one after the other: what latency is multiplied with.
    pub hops: u16,
}
