//! What the verbs report that carry snapshots from store to store.

use serde::Serialize;

/// A snapshot that was carried.
#[derive(Debug, Clone, Serialize)]
pub struct Carried {
    /// Device, by its name in the store that this is about.
    pub device: String,
    /// Short id there.
    pub id: String,
    /// Name.
    pub name: String,
    /// Random name, the same in all stores; null where it is not told.
    pub uid: Option<String>,
    /// The id that it had, where that was taken there; else null.
    pub id_before: Option<String>,
}

/// `send`.
#[derive(Debug, Clone, Serialize)]
pub struct Sent {
    /// The snapshots in the bundle.
    pub snapshots: Vec<Carried>,
    /// Clusters in it.
    pub clusters: u64,
    /// Bytes that these take, compressed.
    pub cluster_bytes: u64,
    /// Bytes of the bundle.
    pub bundle_bytes: u64,
    /// How long it took.
    pub seconds: f64,
}

/// `receive`.
#[derive(Debug, Clone, Serialize)]
pub struct Received {
    /// Snapshots that are there now and were not before.
    pub snapshots: Vec<Carried>,
    /// Snapshots of the bundle that were there already.
    pub already: u64,
    /// Clusters that the store lacked.
    pub clusters: u64,
    /// Bytes that these take in packs, compressed.
    pub stored_bytes: u64,
    /// How long it took.
    pub seconds: f64,
}

/// `summary`.
#[derive(Debug, Clone, Serialize)]
pub struct Summarized {
    /// Clusters that the store has.
    pub clusters: u64,
    /// Bytes of the summary.
    pub summary_bytes: u64,
}

/// `sync`.
#[derive(Debug, Clone, Serialize)]
pub struct Synced {
    /// Where from.
    pub source: String,
    /// Where to.
    pub destination: String,
    /// Nothing was sent: this is what would be.
    pub dry_run: bool,
    /// Snapshots that are there now and were not before.
    pub snapshots: Vec<Carried>,
    /// Snapshots that were there already.
    pub already: u64,
    /// Snapshots that were deleted there.
    pub deleted: Vec<Carried>,
    /// Clusters that were lacking.
    pub clusters: u64,
    /// Bytes that these take in packs, compressed; 0 in a dry run.
    pub stored_bytes: u64,
    /// Bytes from the source to the destination.
    pub sent_bytes: u64,
    /// Bytes from the destination to the source.
    pub asked_bytes: u64,
    /// Messages that had to wait for one another: what latency is multiplied with.
    pub hops: u64,
    /// How long it took.
    pub seconds: f64,
}

/// `upgrade`.
#[derive(Debug, Clone, Serialize)]
pub struct Upgraded {
    /// Version of the store's format before.
    pub from: u64,
    /// Version now.
    pub to: u64,
    /// What was done, or would be.
    pub steps: Vec<String>,
}
