//! What exists: the log folded up to a sequence. A value: applying an entry gives the next one, or says why it does not
//! count. Copies are cheap, so that plans can be tried and readers keep what they saw.

mod apply;
mod rules;
#[cfg(test)]
mod tests;

pub use apply::Invalid;
pub use rules::Rules;

use crate::format::entry::{
    Attachment, Content, GotoRecord, PackRecord, SessionKind, VolumeRecord,
};
use crate::format::snapshot::SnapshotRecord;
use crate::id::{Hash, PackName, PackNumber, Sequence, SessionId, Uid};
use crate::limits::{DISK_BYTES_MAX, SEQUENCE_MAX};
use rpds::RedBlackTreeMapSync as Map;
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use std::sync::Arc;

/// The folded state. Its stored form, a checkpoint's payload, is these fields in this order; maps are in the order of
/// their keys, so that equal states are equal bytes.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Catalog {
    seq: Sequence,
    tip: Tip,
    sessions: Map<SessionId, Arc<SessionState>>,
    packs: Map<PackName, Arc<PackState>>,
    next_pack: u32,
    devices: Map<Uid, Arc<DeviceState>>,
    snapshots: Map<Uid, Arc<SnapshotState>>,
    next_snapshot: u64,
    gotos: Map<Uid, Arc<GotoRecord>>,
    /// Derived from `packs`.
    #[serde(skip)]
    numbers: Map<PackNumber, PackName>,
}

/// Checksum of the last entry; all zeros before the first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
struct Tip(Hash);

impl Default for Tip {
    fn default() -> Self {
        Self(Hash([0; 32]))
    }
}

/// A session that is open.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SessionState {
    /// What it is for.
    pub kind: SessionKind,
    /// Host and process.
    pub label: String,
    /// Counter of its last entry.
    pub counter: u64,
    /// Claimed packs.
    pub packs: BTreeSet<PackName>,
    /// Claimed roots.
    pub roots: BTreeSet<Hash>,
}

/// A pack that is live.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PackState {
    /// Its short name, never reused.
    pub number: PackNumber,
    /// Its name.
    pub name: PackName,
    /// What the log says of it.
    pub record: PackRecord,
    /// The last entry that named, pinned or kept it.
    pub last_named: Sequence,
}

/// A device.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeviceState {
    /// Its uid.
    pub uid: Uid,
    /// Its name; no two have the same.
    pub name: String,
    /// Its image, if it stands for one.
    pub attachment: Option<Attachment>,
    /// Its present contents, if they are in the store.
    pub head: Option<Content>,
    /// The snapshot that its present contents come from.
    pub base: Option<Uid>,
    /// Above every id that is a number and was ever given, as far as numbers go: the next native one.
    pub next_id: u64,
    /// How many gotos were begun on it.
    pub gotos_begun: u64,
    /// The goto that it is in.
    pub in_goto: Option<Uid>,
    /// That it is a volume.
    pub volume: Option<VolumeRecord>,
}

impl DeviceState {
    /// Whether a volume's size is one, and its head no larger.
    fn is_possible(&self) -> bool {
        let head = self.head.map_or(0, |h| h.size);
        let fits = |v: &VolumeRecord| head <= v.size && v.size <= DISK_BYTES_MAX;
        self.volume.as_ref().is_none_or(fits)
    }
}

/// A snapshot.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SnapshotState {
    /// Place in the order of creation.
    pub order: u64,
    /// The record.
    pub record: SnapshotRecord,
}

impl Catalog {
    /// The last entry folded.
    pub fn seq(&self) -> Sequence {
        self.seq
    }

    /// Its checksum.
    pub fn tip(&self) -> Hash {
        self.tip.0
    }

    /// A session, if it is open.
    pub fn session(&self, id: &SessionId) -> Option<&Arc<SessionState>> {
        self.sessions.get(id)
    }

    /// All open sessions.
    pub fn sessions(&self) -> impl Iterator<Item = (&SessionId, &Arc<SessionState>)> {
        self.sessions.iter()
    }

    /// Whether the session has been and is no more; false for one that may yet open.
    pub fn has_ended(&self, id: &SessionId) -> bool {
        id.opened_at <= self.seq && self.session(id).is_none()
    }

    /// All live packs, by name.
    pub fn packs(&self) -> impl Iterator<Item = &Arc<PackState>> {
        self.packs.values()
    }

    /// A pack, if it is live.
    pub fn pack(&self, name: &PackName) -> Option<&Arc<PackState>> {
        self.packs.get(name)
    }

    /// A pack by its number, if it is live.
    pub fn pack_numbered(&self, number: PackNumber) -> Option<&Arc<PackState>> {
        self.packs.get(self.numbers.get(&number)?)
    }

    /// All devices, by uid.
    pub fn devices(&self) -> impl Iterator<Item = &Arc<DeviceState>> {
        self.devices.values()
    }

    /// A device.
    pub fn device(&self, uid: &Uid) -> Option<&Arc<DeviceState>> {
        self.devices.get(uid)
    }

    /// A device by its name.
    pub fn device_named(&self, name: &str) -> Option<&Arc<DeviceState>> {
        self.devices().find(|d| d.name == name)
    }

    /// All snapshots, in no order that means anything.
    pub fn snapshots(&self) -> impl Iterator<Item = &Arc<SnapshotState>> {
        self.snapshots.values()
    }

    /// A device's snapshots in the order of their creation.
    pub fn snapshots_of(&self, device: &Uid) -> Vec<&Arc<SnapshotState>> {
        let mut of: Vec<_> = self
            .snapshots()
            .filter(|s| s.record.device == *device)
            .collect();
        of.sort_by_key(|s| s.order);
        of
    }

    /// Numbers for the device's next native snapshot ids, in the order in which they are to be given: those from
    /// `next_id` on; where an odd id has brought that to its end, the smallest that no snapshot has. `foreign` are ids that
    /// the same entry brings.
    pub fn free_ids(&self, device: &Uid, foreign: &[u64]) -> impl Iterator<Item = u64> {
        let above = foreign.iter().max().map_or(1, |n| n.saturating_add(1));
        let next = self.device(device).map_or(1, |d| d.next_id).max(above);
        let there = self.snapshots_of(device).into_iter();
        let mut taken: BTreeSet<u64> = there.filter_map(|s| s.record.id_number()).collect();
        taken.extend(foreign);
        let all = (next..=u64::MAX).chain(1..next);
        all.filter(move |n| !taken.contains(n))
    }

    /// A snapshot.
    pub fn snapshot(&self, uid: &Uid) -> Option<&Arc<SnapshotState>> {
        self.snapshots.get(uid)
    }

    /// Gotos under way.
    pub fn gotos(&self) -> impl Iterator<Item = &Arc<GotoRecord>> {
        self.gotos.values()
    }

    /// Every root that must be kept: of snapshots, heads, pins, and both of each goto; each once.
    pub fn roots(&self) -> Vec<Hash> {
        self.roots_without(&|_| false)
    }

    /// The same as if the snapshots that `without` names were not there.
    pub fn roots_without(&self, without: &dyn Fn(&Uid) -> bool) -> Vec<Hash> {
        let mut roots = self.lasting_roots(without);
        roots.extend(self.sessions.values().flat_map(|s| s.roots.iter().copied()));
        roots.into_iter().collect()
    }

    /// Every root that must be kept when all sessions have ended.
    pub fn roots_without_pins(&self) -> BTreeSet<Hash> {
        self.lasting_roots(&|_| false)
    }

    fn lasting_roots(&self, without: &dyn Fn(&Uid) -> bool) -> BTreeSet<Hash> {
        let snapshots = self.snapshots().filter(|s| !without(&s.record.uid));
        let mut roots: BTreeSet<Hash> = snapshots.flat_map(|s| s.record.roots()).collect();
        roots.extend(self.devices().filter_map(|d| d.head.map(|h| h.root)));
        roots.extend(
            self.gotos()
                .flat_map(|g| &g.devices)
                .flat_map(|d| [d.undo.root, d.target.root]),
        );
        roots
    }

    /// Whether something keeps this root.
    pub fn reachable(&self, root: &Hash) -> bool {
        self.snapshots()
            .any(|s| s.record.roots().any(|r| r == *root))
            || self
                .devices()
                .any(|d| d.head.is_some_and(|h| h.root == *root))
            || self.sessions.values().any(|s| s.roots.contains(root))
            || self
                .gotos()
                .flat_map(|g| &g.devices)
                .any(|d| d.undo.root == *root || d.target.root == *root)
    }

    /// Whether a session claims the pack.
    pub fn pinned(&self, name: &PackName) -> bool {
        self.sessions.values().any(|s| s.packs.contains(name))
    }

    /// As if the entries up to this one had been folded and did nothing: for `rescue` beyond a gap.
    pub(crate) fn skip_to(mut self, seq: Sequence) -> Self {
        self.seq = self.seq.max(seq);
        self
    }

    /// Whether every record and all contents are such as ops may have.
    fn is_possible(&self) -> bool {
        let heads = self.devices().filter_map(|d| d.head);
        let gotos = self.gotos().flat_map(|g| &g.devices);
        let mut contents = heads.chain(gotos.flat_map(|d| [d.undo, d.target]));
        contents.all(|c| c.is_possible())
            && self.devices().all(|d| d.is_possible())
            && self.snapshots().all(|s| s.record.check().is_ok())
    }

    /// What serde left out; refuses a checkpoint whose packs contradict each other, or that no log can lead to.
    pub(crate) fn complete(mut self) -> Option<Self> {
        if !self.is_possible() || self.seq > SEQUENCE_MAX {
            return None;
        }
        for pack in self.packs.clone().values() {
            let taken = self.numbers.contains_key(&pack.number) || pack.number.0 >= self.next_pack;
            if taken || self.packs.get(&pack.name) != Some(pack) {
                return None;
            }
            self.numbers.insert_mut(pack.number, pack.name);
        }
        Some(self)
    }
}
