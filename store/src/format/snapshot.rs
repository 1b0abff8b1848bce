//! The snapshot record: carries from day one all that any later part needs. See FORMAT.md, "Snapshot record".

use crate::error::{Error, Result};
use crate::format::entry::Content;
use crate::id::{Hash, Uid};
use crate::limits::{EXTRA_BYTES_MAX, LABEL_BYTES_MAX, NAME_BYTES_MAX, SNAPSHOT_ID_BYTES_MAX};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// A snapshot of one device. What may be duplicated or odd in QEMU may be so here; uniqueness and syntax are rules of
/// the native `create`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SnapshotRecord {
    /// Random name, never reused.
    pub uid: Uid,
    /// The device.
    pub device: Uid,
    /// Short id, 127 bytes at most. Natively a decimal number, see `Catalog::free_ids`.
    pub id: Vec<u8>,
    /// User chosen name, 255 bytes at most.
    pub name: Vec<u8>,
    /// UTC, seconds since 1970.
    pub date_sec: u64,
    /// Nanoseconds of that second, below 10^9.
    pub date_nsec: u32,
    /// VM clock relative to boot, nanoseconds.
    pub vm_clock_nsec: u64,
    /// Instruction count, where the VM ran in icount mode.
    pub icount: Option<u64>,
    /// Saved VM state, stored like a disk: its manifest root and length in bytes.
    pub vm_state: Option<Content>,
    /// The disk.
    pub content: Content,
    /// The operation that made it together with others.
    pub group: Option<Uid>,
    /// The snapshot that the device's contents came from.
    pub parent: Option<Uid>,
    /// Unknown extra data of an imported snapshot, 1024 bytes at most.
    pub extra: Vec<u8>,
    /// Free words for people and tools.
    pub labels: BTreeMap<String, String>,
}

impl SnapshotRecord {
    /// Refuses what the format does not allow.
    pub fn check(&self) -> Result<()> {
        let labels: usize = self.labels.iter().map(|(k, v)| k.len() + v.len()).sum();
        let limits = [
            ("id", self.id.len(), SNAPSHOT_ID_BYTES_MAX),
            ("name", self.name.len(), NAME_BYTES_MAX),
            ("extra data", self.extra.len(), EXTRA_BYTES_MAX),
            ("labels", labels, LABEL_BYTES_MAX),
        ];
        for (what, len, max) in limits {
            if len > max {
                let why = format!("the {what} has {len} bytes, {max} are allowed");
                return Err(Error::invalid("checking a snapshot record", why));
            }
        }
        if !self.content.is_possible() || self.vm_state.is_some_and(|s| !s.is_possible()) {
            let why = "no disk is so large";
            return Err(Error::invalid("checking a snapshot record", why));
        }
        if self.date_nsec >= 1_000_000_000 {
            return Err(Error::invalid(
                "checking a snapshot record",
                "nanoseconds of a second and more",
            ));
        }
        Ok(())
    }

    /// The id, if it is a number that native ids could be.
    pub fn id_number(&self) -> Option<u64> {
        std::str::from_utf8(&self.id).ok()?.parse().ok()
    }

    /// Roots that the snapshot keeps reachable.
    pub fn roots(&self) -> impl Iterator<Item = Hash> + '_ {
        std::iter::once(self.content.root).chain(self.vm_state.map(|s| s.root))
    }
}
