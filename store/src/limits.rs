//! Every bound of the format and of memory, with its reason. Checked before anything is allocated.

/// Smallest cluster: a file system block.
pub const CLUSTER_BYTES_MIN: u32 = 4 << 10;
/// Largest cluster: beyond it deduplication finds nothing.
pub const CLUSTER_BYTES_MAX: u32 = 1 << 20;
/// Largest frame before compression: what one small read may cost.
pub const FRAME_BYTES_MAX: u32 = 4 << 20;
/// Largest pack with everything in it: one PUT of an object store, and offsets fit in a u32.
pub const PACK_BYTES_MAX: u32 = 64 << 20;
/// A pack is sealed before it grows over this.
pub const PACK_BYTES_TARGET: u32 = 24 << 20;
/// Largest disk: 8 EiB less one cluster, so that offsets fit in an i64.
pub const DISK_BYTES_MAX: u64 = (1 << 63) - (1 << 20);
/// No log gets there; a checkpoint that says more is forged.
pub const SEQUENCE_MAX: u64 = 1 << 62;
/// Largest log entry: a compact of all packs of a large store fits.
pub const ENTRY_BYTES_MAX: u64 = 64 << 20;
/// Largest checkpoint.
pub const CHECKPOINT_BYTES_MAX: u64 = 4 << 30;
/// Bytes of a snapshot's id at most (QEMU: `char id_str[128]`).
pub const SNAPSHOT_ID_BYTES_MAX: usize = 127;
/// Bytes of a snapshot's or device's name at most (QEMU: `char name[256]`).
pub const NAME_BYTES_MAX: usize = 255;
/// Bytes of unknown extra data at most.
pub const EXTRA_BYTES_MAX: usize = 1024;
/// Children of a manifest node, as a power of two: few, so that a node that changes costs little beside its cluster.
pub const MANIFEST_FANOUT_BITS: u32 = 4;
/// Children of a manifest node.
pub const MANIFEST_FANOUT: usize = 1 << MANIFEST_FANOUT_BITS;
/// Levels of a manifest: 16^13 clusters of 4 KiB are over 8 EiB.
pub const MANIFEST_LEVELS_MAX: u8 = 13;
/// Entries between checkpoints.
pub const CHECKPOINT_EVERY: u64 = 256;
/// Entries that are kept however old the checkpoints are.
pub const ENTRIES_KEPT: u64 = 1000;
/// Bytes of a path in an attachment.
pub const PATH_BYTES_MAX: usize = 4096;
/// Bytes of all labels of a snapshot or session.
pub const LABEL_BYTES_MAX: usize = 4096;
