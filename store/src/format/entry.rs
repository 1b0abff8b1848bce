//! What a log entry holds: the ops, and the records in them. See FORMAT.md, "Log entry".

use crate::format::snapshot::SnapshotRecord;
use crate::id::{Hash, PackName, Sequence, SessionId, Uid};
use crate::limits::DISK_BYTES_MAX;
use serde::{Deserialize, Serialize};

/// One commit: takes effect whole or not at all.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// Who commits. Open before this entry, or opened by its first op.
    pub session: SessionId,
    /// Counted up by the session from 1; an entry whose counter is not newer than the last one folded is ignored.
    pub counter: u64,
    /// Sequence that the ops were planned on.
    pub base: Sequence,
    /// Validated one by one, each on the state after the one before.
    pub ops: Vec<Op>,
}

/// One change of the catalog. New variants go to the end: the number of a variant is stored.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Op {
    /// Opens the entry's session. Valid only where `session.opened_at` is the entry's own sequence.
    Open {
        /// What it is for.
        kind: SessionKind,
        /// Host and process, for people.
        label: String,
    },
    /// Ends the entry's session; its pins go.
    Close,
    /// Ends another session, whose lock the expirer holds. Ending an ended session is no error.
    Expire {
        /// The one to end.
        session: SessionId,
    },
    /// Makes packs of this session live. They are durable already.
    Publish {
        /// The packs.
        packs: Vec<PackRecord>,
    },
    /// Names what the entry's new roots rest on: packs that were hit, roots that were compared with. Valid only while
    /// every pack is live and every root reachable.
    Rely {
        /// Packs of other sessions whose clusters were found there.
        packs: Vec<PackName>,
        /// Manifest roots whose clusters were taken over unchanged.
        roots: Vec<Hash>,
    },
    /// Claims packs and roots until the session ends or unpins them. Valid like `Rely`.
    Pin {
        /// Packs.
        packs: Vec<PackName>,
        /// Roots.
        roots: Vec<Hash>,
    },
    /// Gives claims back. What is not claimed is ignored.
    Unpin {
        /// Packs.
        packs: Vec<PackName>,
        /// Roots.
        roots: Vec<Hash>,
    },
    /// Adds a snapshot and makes it its device's base, unless that is a volume. Valid only while the device exists, is
    /// not in a goto, and has begun exactly `gotos_begun` gotos: a goto in between means that the image read was another.
    PutSnapshot {
        /// The snapshot.
        record: SnapshotRecord,
        /// The device's count of begun gotos when its image was locked.
        gotos_begun: u64,
    },
    /// Removes a snapshot. Valid only while it exists.
    DeleteSnapshot {
        /// The snapshot.
        uid: Uid,
    },
    /// Adds a device or changes its name and attachment. Valid only while no other device has the name.
    PutDevice {
        /// The device.
        uid: Uid,
        /// Its name.
        name: String,
        /// Its image, if any.
        attachment: Option<Attachment>,
    },
    /// Removes a device without snapshots that is not in a goto; its head goes.
    RemoveDevice {
        /// The device.
        uid: Uid,
    },
    /// Sets or removes a device's head: the present contents of an unattached device that is no volume.
    PutHead {
        /// The device.
        uid: Uid,
        /// The contents.
        head: Option<Content>,
        /// The snapshot that these contents come from.
        base: Option<Uid>,
    },
    /// Replaces packs: `new` become live, `dropped` stop to be. Valid only while all dropped and kept packs are live, no
    /// dropped one is pinned or of an open session, and no entry after `base` names, pins or keeps one.
    Compact {
        /// Sequence that was marked at; a retry keeps it.
        base: Sequence,
        /// Packs of this session with what the dropped ones still held.
        new: Vec<PackRecord>,
        /// Packs that stop to be live.
        dropped: Vec<PackName>,
        /// Packs whose copies justify the drops.
        kept: Vec<PackName>,
    },
    /// Marks devices as being written; both contents of each stay reachable until the end, whatever becomes of the
    /// session. Valid only while no device is in another goto and every target root is reachable.
    GotoBegin {
        /// The record.
        record: GotoRecord,
    },
    /// Ends a goto, once.
    GotoEnd {
        /// The record's uid.
        uid: Uid,
        /// What the images hold now.
        result: GotoResult,
    },
    /// Makes a device a volume, moves one on, or ends its being one. Valid only for a device without an image, and while its
    /// chain is where `expect` says, which never goes back.
    PutVolume {
        /// The device.
        uid: Uid,
        /// Where its chain is; `None`: it is no volume yet.
        expect: Option<ChainPoint>,
        /// What it is from now on.
        volume: Option<VolumeRecord>,
        /// What lies below its overlays; without it there are holes.
        head: Option<Content>,
        /// The snapshot that the head comes from.
        base: Option<Uid>,
        /// What speaks for the head.
        origin: HeadOrigin,
    },
}

/// A volume as the log knows it. Its contents are the device's head and, over it, the overlays of `generation` with numbers
/// above `absorbed`, in order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct VolumeRecord {
    /// Counted up whenever what is in overlays is given up.
    pub generation: u64,
    /// Overlays of this generation up to this number are in the head.
    pub absorbed: u64,
    /// Bytes of the disk; the head has as many at most, and what it lacks is a hole.
    pub size: u64,
    /// The `local/id` of the host that has the overlays; `None`: there are none, any host may take it.
    pub host: Option<Uid>,
}

impl VolumeRecord {
    /// Where its chain is.
    pub fn point(&self) -> ChainPoint {
        ChainPoint {
            generation: self.generation,
            absorbed: self.absorbed,
        }
    }
}

/// How far a volume's overlays are in its head.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct ChainPoint {
    /// See `VolumeRecord`.
    pub generation: u64,
    /// See `VolumeRecord`.
    pub absorbed: u64,
}

/// What speaks for a head that is put.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum HeadOrigin {
    /// Something that exists has its root: valid only while the root is reachable.
    Existing,
    /// The entry's session has stored it, as the contents of a snapshot: the entry's `Publish` and `Rely` speak for it.
    Stored,
}

/// What a session is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum SessionKind {
    /// Adds snapshots, devices, heads.
    Writer,
    /// Pins what it reads.
    Reader,
    /// Compacts.
    Gc,
}

/// A pack as the log knows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct PackRecord {
    /// Number within its session.
    pub n: u32,
    /// What it holds.
    pub kind: PackKind,
    /// BLAKE3 of all its bytes.
    pub hash: Hash,
    /// Bytes.
    pub size: u32,
    /// Entries in its table.
    pub entries: u32,
    /// Blocks of its table, which begins `blocks * 4096 + 64` bytes before the end.
    pub blocks: u32,
}

/// What a pack holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum PackKind {
    /// Clusters of disks and VM states.
    Clusters,
    /// Manifest nodes and copies of snapshot records.
    Nodes,
}

/// A disk's whole content.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Content {
    /// Manifest root.
    pub root: Hash,
    /// Bytes of the disk.
    pub size: u64,
}

impl Content {
    /// False for a size that no disk has: offsets in it would not be numbers.
    pub fn is_possible(&self) -> bool {
        self.size <= DISK_BYTES_MAX
    }
}

/// The image that a device stands for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attachment {
    /// Absolute path, as bytes.
    pub path: Vec<u8>,
    /// Image format; `raw` for now.
    pub format: String,
    /// goto refuses to write it.
    pub read_only: bool,
}

/// A goto under way.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GotoRecord {
    /// Random name.
    pub uid: Uid,
    /// The devices, all written or all rolled back.
    pub devices: Vec<GotoDevice>,
}

/// One device of a goto.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct GotoDevice {
    /// The device.
    pub device: Uid,
    /// What the image held before.
    pub undo: Content,
    /// The device's base before.
    pub undo_base: Option<Uid>,
    /// What it is to hold.
    pub target: Content,
    /// The snapshot that is.
    pub snapshot: Uid,
}

/// How a goto ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum GotoResult {
    /// All images hold their target.
    Done,
    /// All images hold what they held before.
    Undone,
}
