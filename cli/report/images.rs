//! What is said of images that come in and go out.

use super::CreatedSnapshot;
use serde::Serialize;

/// `import`.
#[derive(Debug, Clone, Serialize)]
pub struct Imported {
    /// Device.
    pub device: String,
    /// Format of the image.
    pub format: String,
    /// Snapshots that were made, oldest first.
    pub snapshots: Vec<CreatedSnapshot>,
    /// Size of the disk that the device holds now.
    pub head_bytes: u64,
    /// Bytes in packs that it took, apart from a snapshot of it.
    pub head_stored_bytes: u64,
    /// What the image has and the store does not.
    pub left_out: Vec<LeftOut>,
    /// True when everything was read back and was the same.
    pub verified: bool,
    /// One a state, the present one last, if they were asked for.
    pub checksums: Vec<Checksum>,
    /// How long it took.
    pub seconds: f64,
}

/// BLAKE3 of what a state holds.
#[derive(Debug, Clone, Serialize)]
pub struct Checksum {
    /// Name of the snapshot, or what else the state is.
    pub state: String,
    /// Of its disk, as `b3sum` has it of a raw image.
    pub blake3: String,
    /// Of its VM state.
    pub vm_state_blake3: Option<String>,
}

/// What was not carried over.
#[derive(Debug, Clone, Serialize)]
pub struct LeftOut {
    /// What.
    pub what: String,
    /// Which, and why.
    pub why: String,
}

/// `import --dry-run`.
#[derive(Debug, Clone, Serialize)]
pub struct Planned {
    /// Device.
    pub device: String,
    /// Format of the image.
    pub format: String,
    /// States of the image, oldest first; the present one is the last.
    pub states: Vec<PlannedState>,
    /// Bytes that would be read, each once.
    pub read_bytes: u64,
    /// What the image has and the store would not.
    pub left_out: Vec<LeftOut>,
}

/// A state of an image.
#[derive(Debug, Clone, Serialize)]
pub struct PlannedState {
    /// Name of the snapshot; null for the present state without --name.
    pub snapshot: Option<String>,
    /// Size of its disk.
    pub size_bytes: u64,
    /// Of it, data that is not the same in the state that it comes from.
    pub read_bytes: u64,
    /// Size of its VM state.
    pub vm_state_bytes: u64,
}

/// `export`.
#[derive(Debug, Clone, Serialize)]
pub struct Exported {
    /// Device or snapshot.
    pub target: String,
    /// `disk` or `vm_state`.
    pub part: &'static str,
    /// File that was written.
    pub file: String,
    /// Its format.
    pub format: String,
    /// Names of the snapshots that are in the image itself.
    pub snapshots: Vec<String>,
    /// Size of the disk.
    pub size_bytes: u64,
    /// Bytes written; holes are not.
    pub written_bytes: u64,
    /// Bytes that an export that was cut off had written.
    pub kept_bytes: u64,
    /// True when the file was read back and was the same.
    pub verified: bool,
    /// One a state, the exported one last, if they were asked for.
    pub checksums: Vec<Checksum>,
    /// What the store has and the image does not.
    pub left_out: Vec<LeftOut>,
    /// How long it took.
    pub seconds: f64,
}

/// `export --dry-run`.
#[derive(Debug, Clone, Serialize)]
pub struct PlannedExport {
    /// Device or snapshot.
    pub target: String,
    /// Format of the image.
    pub format: String,
    /// States that would be in it; the exported one is the last.
    pub states: Vec<PlannedExportState>,
    /// Bytes of data and VM state, before compression.
    pub data_bytes: u64,
    /// What the store has and the image would not.
    pub left_out: Vec<LeftOut>,
}

/// A state that would go out.
#[derive(Debug, Clone, Serialize)]
pub struct PlannedExportState {
    /// Name of the snapshot, or the target.
    pub name: String,
    /// Size of its disk.
    pub size_bytes: u64,
    /// Of it, data that is not the same in the state before.
    pub data_bytes: u64,
    /// Size of its VM state.
    pub vm_state_bytes: u64,
}
