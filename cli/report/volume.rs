//! What `still volume` reports.

use serde::Serialize;

/// `volume create`, `resize`, `move` and `remove`.
#[derive(Debug, Clone, Serialize)]
pub struct VolumeChanged {
    /// Name.
    pub volume: String,
    /// `created`, `resized`, `handed over`, `took`, `removed`, or `removed all but snapshots of`.
    pub action: &'static str,
    /// Uid of a new one.
    pub uid: Option<String>,
    /// Its size, where that was given or is new.
    pub size_bytes: Option<u64>,
    /// What a new one was made from.
    pub from: Option<String>,
}
