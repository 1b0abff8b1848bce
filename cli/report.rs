//! What the verbs report. The field names are the contract of `--json`: snake_case, `_bytes` are integers, times RFC 3339 in
//! UTC, what is unknown or does not apply is null. Names that are not UTF-8 have their odd bytes as `\xNN`. Fields may be added.

mod images;
mod server;
pub mod transfer;
mod volume;

pub use images::{
    Checksum, Exported, Imported, LeftOut, Planned, PlannedExport, PlannedExportState, PlannedState,
};
pub use server::{Mounted, Served};
pub use volume::VolumeChanged;

use crate::output::time::Time;
use serde::Serialize;

/// `init`.
#[derive(Debug, Clone, Serialize)]
pub struct Initialised {
    /// Folder of the store.
    pub store: String,
    /// Bytes of a cluster.
    pub cluster_bytes: u32,
    /// Bytes of a full frame.
    pub frame_bytes: u32,
    /// `none` or `zstd:N`.
    pub compression: String,
}

/// A device.
#[derive(Debug, Clone, Serialize)]
pub struct Device {
    /// Name.
    pub name: String,
    /// Random name, never reused.
    pub uid: String,
    /// Where its bytes live outside the store; null when nothing is attached.
    pub attachment: Option<Attachment>,
    /// Size of the head, else of the newest snapshot, else of the image; null where nothing can be asked.
    pub size_bytes: Option<u64>,
    /// Number of snapshots.
    pub snapshots: u64,
    /// A goto was interrupted: `goto --finish` or `goto --undo` comes first.
    pub goto_unfinished: bool,
    /// It is a volume: it lives in the store and can be written to.
    pub volume: bool,
}

/// An image file or block device that a device stands for.
#[derive(Debug, Clone, Serialize)]
pub struct Attachment {
    /// Its path.
    pub image: String,
    /// Its format.
    pub format: String,
    /// goto refuses to write it.
    pub read_only: bool,
}

/// `device list`.
#[derive(Debug, Clone, Serialize)]
pub struct Devices {
    /// In order of their names.
    pub devices: Vec<Device>,
}

/// `device add`, `attach`, `detach` and `remove`.
#[derive(Debug, Clone, Serialize)]
pub struct DeviceChanged {
    /// Name.
    pub device: String,
    /// `added`, `attached`, `detached` or `removed`.
    pub action: &'static str,
    /// Path of the image, where one was given.
    pub image: Option<String>,
}

/// `create`.
#[derive(Debug, Clone, Serialize)]
pub struct Created {
    /// Uid of the group that was made in one step.
    pub group: Option<String>,
    /// One a device.
    pub snapshots: Vec<CreatedSnapshot>,
    /// How long it took.
    pub seconds: f64,
}

/// What `create` or `import` did on one device.
#[derive(Debug, Clone, Serialize)]
pub struct CreatedSnapshot {
    /// Device.
    pub device: String,
    /// Short id.
    pub id: String,
    /// Name.
    pub name: String,
    /// Random name, never reused.
    pub uid: String,
    /// Size of the disk.
    pub size_bytes: u64,
    /// Bytes read from the image.
    pub read_bytes: u64,
    /// Of the disk, bytes that the store did not have.
    pub new_bytes: u64,
    /// Bytes that these take in packs, compressed.
    pub stored_bytes: u64,
    /// Its VM state; null on devices of the group that have none.
    pub vm_state: Option<CreatedVmState>,
}

/// VM state that `create` stored.
#[derive(Debug, Clone, Serialize)]
#[expect(clippy::struct_field_names, reason = "JSON fields name their unit")]
pub struct CreatedVmState {
    /// Its size.
    pub size_bytes: u64,
    /// Of it, bytes that the store did not have.
    pub new_bytes: u64,
    /// Bytes that these take in packs, compressed.
    pub stored_bytes: u64,
}

/// A snapshot.
#[derive(Debug, Clone, Serialize)]
pub struct Snapshot {
    /// Device.
    pub device: String,
    /// Short id.
    pub id: String,
    /// Name.
    pub name: String,
    /// Random name, never reused.
    pub uid: String,
    /// When it was made.
    pub date: Time,
    /// Size of the disk.
    pub size_bytes: u64,
    /// Size of the saved VM state; 0 without one.
    pub vm_state_bytes: u64,
    /// Time since boot of the VM, nanoseconds.
    pub vm_clock_nsec: u64,
    /// Instruction count, where the VM counted.
    pub icount: Option<u64>,
    /// Uid of the group it was made in.
    pub group: Option<String>,
    /// Uid of the snapshot that the device's contents came from.
    pub parent: Option<String>,
}

/// `list`.
#[derive(Debug, Clone, Serialize)]
pub struct Snapshots {
    /// In order of device and date.
    pub snapshots: Vec<Snapshot>,
}

/// `find`: the snapshot's copy on each device that has it.
#[derive(Debug, Clone, Serialize)]
pub struct Found {
    /// What was looked for.
    pub snapshot: String,
    /// Where it is.
    pub copies: Vec<Snapshot>,
    /// Attached devices that do not have it: goto without --device is refused.
    pub missing_on: Vec<String>,
}

/// `show`.
#[derive(Debug, Clone, Serialize)]
pub struct Details {
    /// The device.
    pub device: Device,
    /// The snapshot; null when the device's head was asked for.
    pub snapshot: Option<Snapshot>,
    /// Root hash of the manifest: names the whole content. Null for a head that was never stored.
    pub root: Option<String>,
    /// Bytes of the disk that are data.
    pub data_bytes: u64,
    /// Bytes that read as zeros and are allocated.
    pub zero_bytes: u64,
    /// Bytes that were never allocated.
    pub hole_bytes: u64,
    /// Free words for people and tools.
    pub labels: std::collections::BTreeMap<String, String>,
}

/// `diff`.
#[derive(Debug, Clone, Serialize)]
pub struct Diff {
    /// The snapshot compared with.
    pub from: String,
    /// The snapshot whose contents are described.
    pub to: String,
    /// Sum of the lengths.
    pub changed_bytes: u64,
    /// Where they differ, in order.
    pub extents: Vec<ChangedExtent>,
}

/// A run of clusters that differ.
#[derive(Debug, Clone, Serialize)]
pub struct ChangedExtent {
    /// First byte.
    pub start: u64,
    /// Bytes.
    pub length: u64,
    /// What stands there in `to`: `data`, `zero` or `hole`.
    pub kind: String,
}

/// `goto`, `goto --finish` and `goto --undo`.
#[derive(Debug, Clone, Serialize)]
pub struct Gone {
    /// `went`, `finished` or `undone`.
    pub action: &'static str,
    /// Where to; null for `--finish` and `--undo`.
    pub snapshot: Option<String>,
    /// What happened to each device.
    pub devices: Vec<GoneDevice>,
    /// How long it took.
    pub seconds: f64,
}

/// What goto did to one image.
#[derive(Debug, Clone, Serialize)]
pub struct GoneDevice {
    /// Device.
    pub device: String,
    /// Size of the disk now.
    pub size_bytes: u64,
    /// Bytes read to learn what differs.
    pub read_bytes: u64,
    /// Bytes written: only what differed.
    pub written_bytes: u64,
}

/// `delete`.
#[derive(Debug, Clone, Serialize)]
pub struct Deleted {
    /// Nothing was deleted, this is what would be.
    pub dry_run: bool,
    /// The snapshots.
    pub snapshots: Vec<DeletedSnapshot>,
    /// Devices without any snapshot now whose present contents lie in the store: they keep their bytes until
    /// `device remove`.
    pub kept_by_heads: Vec<String>,
    /// What `gc --all` would free more than it would anyway; null when it was not a dry run.
    pub reclaimable_bytes: Option<u64>,
}

/// A snapshot that is no more.
#[derive(Debug, Clone, Serialize)]
pub struct DeletedSnapshot {
    /// Device.
    pub device: String,
    /// Short id.
    pub id: String,
    /// Name.
    pub name: String,
}

/// `verify`.
#[derive(Debug, Clone, Serialize)]
pub struct Verified {
    /// Snapshots and heads that were checked.
    pub checked: u64,
    /// Clusters and nodes whose hash was computed again.
    pub objects: u64,
    /// Bytes read from packs.
    pub read_bytes: u64,
    /// Not read, since an earlier verify that was interrupted has.
    pub resumed_bytes: u64,
    /// All that is wrong; empty is good.
    pub damage: Vec<Damage>,
    /// How long it took.
    pub seconds: f64,
}

/// Stored bytes that are not what was stored.
#[derive(Debug, Clone, Serialize)]
pub struct Damage {
    /// Where they lie in the store, or `D@SNAP` or `D` where no copy is left that could be pointed at.
    pub place: String,
    /// Byte offset in it, where known.
    pub offset: Option<u64>,
    /// What is wrong.
    pub why: String,
    /// Which parts of which disks it touches.
    pub touches: Vec<Touched>,
}

/// Part of a disk that damage touches.
#[derive(Debug, Clone, Serialize)]
pub struct Touched {
    /// `D@SNAP`, or `D` for a head.
    pub target: String,
    /// `disk` or `vm_state`.
    pub part: &'static str,
    /// First byte.
    pub start: u64,
    /// Bytes.
    pub length: u64,
}

/// `gc`.
#[derive(Debug, Clone, Serialize)]
pub struct Collected {
    /// Nothing was removed, this is the plan.
    pub dry_run: bool,
    /// Packs without anything alive.
    pub packs_dropped: u64,
    /// Packs whose living frames were copied together.
    pub packs_rewritten: u64,
    /// Bytes copied for that.
    pub copied_bytes: u64,
    /// Bytes given back to the file system.
    pub freed_bytes: u64,
    /// Dead bytes that remain, mixed with living ones.
    pub dead_bytes: u64,
    /// Bytes that only readers and writers at work keep.
    pub pinned_bytes: u64,
    /// Bytes of all packs now.
    pub stored_bytes: u64,
    /// How long it took.
    pub seconds: f64,
}

/// `stats`.
#[derive(Debug, Clone, Serialize)]
pub struct Stats {
    /// Number of devices.
    pub devices: u64,
    /// Number of snapshots.
    pub snapshots: u64,
    /// Number of packs.
    pub packs: u64,
    /// Different clusters stored.
    pub clusters: u64,
    /// Sum of the sizes of all snapshots' disks.
    pub size_bytes: u64,
    /// Sum of what is data in all snapshots, as if each were stored alone.
    pub data_bytes: u64,
    /// Bytes of the different clusters before compression.
    pub unique_bytes: u64,
    /// Bytes of all packs.
    pub stored_bytes: u64,
    /// Of these, bytes that nothing needs.
    pub dead_bytes: u64,
    /// The snapshots that were asked about.
    pub targets: Vec<TargetStats>,
    /// What `gc --all` would free more than it would anyway if all of these snapshots were deleted; null when none were
    /// named.
    pub freed_if_deleted_bytes: Option<u64>,
}

/// `stats` of one snapshot.
#[derive(Debug, Clone, Serialize)]
pub struct TargetStats {
    /// `D@SNAP`, or `D` for a head.
    pub target: String,
    /// Size of the disk.
    pub size_bytes: u64,
    /// Of these, bytes that are data.
    pub data_bytes: u64,
    /// What `gc --all` would free more than it would anyway if it alone were deleted; null for a head.
    pub freed_if_deleted_bytes: Option<u64>,
}

/// `rebuild-index`.
#[derive(Debug, Clone, Serialize)]
pub struct Rebuilt {
    /// Packs whose tables were read.
    pub packs: u64,
    /// Clusters found in them.
    pub clusters: u64,
    /// How long it took.
    pub seconds: f64,
}

/// `rescue`.
#[derive(Debug, Clone, Serialize)]
pub struct Rescued {
    /// What was saved, in part or whole, by device and date.
    pub images: Vec<RescuedImage>,
    /// Parts of the store that could not be read, in words.
    pub unreadable: Vec<String>,
    /// How long it took.
    pub seconds: f64,
}

/// A snapshot that was written out as a raw image.
#[derive(Debug, Clone, Serialize)]
pub struct RescuedImage {
    /// Device, as far as it is known.
    pub device: String,
    /// Name of the snapshot.
    pub snapshot: String,
    /// `disk` or `vm_state`.
    pub part: &'static str,
    /// The image, which is there if `written`.
    pub file: String,
    /// Size of the disk.
    pub size_bytes: u64,
    /// Bytes that could not be found and are zeros in the image.
    pub missing_bytes: u64,
    /// The image is there. Where it is not, `unreadable` has a line that says why.
    pub written: bool,
    /// The log, as far as it can be read, does not list it: it was deleted, or the entry that made it is lost.
    pub unlisted: bool,
}

/// `qemu-img snapshot` with `--json`.
#[derive(Debug, Clone, Serialize)]
pub struct ImgSnapshots {
    /// The release that it behaved as.
    pub qemu_version: String,
    /// Device.
    pub device: String,
    /// `list`, `apply`, `create`, `delete` or `none`.
    pub action: &'static str,
    /// Its argument.
    pub snapshot: Option<String>,
    /// The list, where that is the action; null where it could not be had, which the release does not call a failure.
    pub snapshots: Option<Vec<ImgSnapshot>>,
    /// Why there is none, in words, the innermost last.
    pub causes: Vec<String>,
}

/// A snapshot, in the fields of QMP's `SnapshotInfo`.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct ImgSnapshot {
    /// Id.
    pub id: String,
    /// Name; others may have the same.
    pub name: String,
    /// Bytes of VM state.
    pub vm_state_size: u64,
    /// UTC, seconds since 1970.
    pub date_sec: u32,
    /// Nanoseconds of that second.
    pub date_nsec: u32,
    /// VM clock, whole seconds.
    pub vm_clock_sec: u64,
    /// Nanoseconds of its last second.
    pub vm_clock_nsec: u64,
    /// Instruction count; absent where there is none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub icount: Option<u64>,
}

/// `qemu-img snapshot` with `--json` that failed: an error like any other.
#[derive(Debug, Clone, Serialize)]
pub struct ImgFailed {
    error: ImgError,
}

#[derive(Debug, Clone, Serialize)]
struct ImgError {
    kind: &'static str,
    message: String,
    causes: Vec<String>,
    hint: Option<String>,
}

impl ImgFailed {
    /// With what the release said, what the store said, and what to do next.
    pub fn new(message: &str, causes: Vec<String>, hint: Option<&str>) -> Self {
        Self {
            error: ImgError {
                kind: "qemu_img",
                message: message.into(),
                causes,
                hint: hint.map(Into::into),
            },
        }
    }
}

/// `eras`.
#[derive(Debug, Clone, Serialize)]
#[expect(
    clippy::struct_field_names,
    reason = "the name in JSON is what it is called"
)]
pub struct Eras {
    /// The default release.
    pub default: String,
    /// The eras, oldest first.
    pub eras: Vec<Era>,
    /// The axes.
    pub axes: Vec<EraAxis>,
}

/// A range of releases.
#[derive(Debug, Clone, Serialize)]
pub struct Era {
    /// Its name.
    pub key: &'static str,
    /// Its first release.
    pub first: String,
    /// Its last release.
    pub last: String,
    /// What starts with it.
    pub starts: &'static str,
}

/// One way in which releases differ.
#[derive(Debug, Clone, Serialize)]
pub struct EraAxis {
    /// Its name.
    pub name: &'static str,
    /// What it decides.
    pub about: &'static str,
    /// Its values, oldest first.
    pub steps: Vec<EraStep>,
    /// Why nothing here behaves by it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub not_imitated: Option<&'static str>,
}

/// From a release on, an axis has this value.
#[derive(Debug, Clone, Serialize)]
pub struct EraStep {
    /// The release.
    pub from: String,
    /// The value in words.
    pub value: &'static str,
}

/// `eras A`.
#[derive(Debug, Clone, Serialize)]
pub struct ErasOf {
    /// The release.
    pub release: String,
    /// Its era.
    pub era: &'static str,
    /// Every axis.
    pub axes: Vec<EraValue>,
    /// For people.
    #[serde(skip)]
    pub text: String,
}

/// An axis at one release.
#[derive(Debug, Clone, Serialize)]
pub struct EraValue {
    /// Its name.
    pub name: &'static str,
    /// The value in words.
    pub value: &'static str,
    /// Why nothing here behaves by it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub not_imitated: Option<&'static str>,
}

/// `eras A B`.
#[derive(Debug, Clone, Serialize)]
pub struct ErasBetween {
    /// The two.
    pub releases: [String; 2],
    /// The axes that differ.
    pub axes: Vec<EraChange>,
    /// For people.
    #[serde(skip)]
    pub text: String,
}

/// An axis that differs.
#[derive(Debug, Clone, Serialize)]
pub struct EraChange {
    /// Its name.
    pub name: &'static str,
    /// What it decides.
    pub about: &'static str,
    /// Its values in words, in the order of the releases.
    pub values: [&'static str; 2],
    /// Why nothing here behaves by it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub not_imitated: Option<&'static str>,
}
