//! The one entry that a transfer ends with: devices, snapshots, heads, and what a mirror deletes.

use super::intake::DOING;
use super::message::Device;
use super::outcome::{Outcome, Taken};
use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;
use stillpoint_store::catalog::Catalog;
use stillpoint_store::format::entry::{Content, Op};
use stillpoint_store::format::snapshot::SnapshotRecord;
use stillpoint_store::id::{Hash, Uid};
use stillpoint_store::{Error, ErrorKind, Result};

pub(super) fn check_unmarked(in_goto: bool, name: &str) -> Result<()> {
    if !in_goto {
        return Ok(());
    }
    Err(
        Error::new(ErrorKind::Refused, format!("using device {name:?}"))
            .detail("a goto on it was cut off; its image is partly written")
            .hint("`still goto --finish` completes it, `still goto --undo` takes it back"),
    )
}

pub(super) fn check_free(catalog: &Catalog, device: &Device) -> Result<()> {
    if catalog.device_named(&device.name).is_none() {
        return Ok(());
    }
    let why = format!("there is another device {:?} here", device.name);
    let hint = format!("give it another name here with --as {}=NAME", device.name);
    Err(Error::new(ErrorKind::AlreadyExists, DOING)
        .detail(why)
        .hint(hint))
}

/// What the entry is to say, worked out for each state that it is tried on.
pub(super) struct Draft {
    pub mirror: bool,
    /// What was here when the transfer began.
    pub begun: Arc<Catalog>,
    pub devices: Vec<Device>,
    pub records: Vec<SnapshotRecord>,
    /// States that are whole here.
    pub whole: HashSet<Hash>,
}

impl Draft {
    pub fn ops(&mut self, catalog: &Catalog, outcome: &mut Outcome) -> Result<Vec<Op>> {
        let mut ops = Vec::new();
        for device in &self.devices {
            if let Some(known) = catalog.device(&device.uid) {
                check_unmarked(known.in_goto.is_some(), &known.name)?;
                continue;
            }
            check_free(catalog, device)?;
            ops.push(Op::PutDevice {
                uid: device.uid,
                name: device.name.clone(),
                attachment: None,
            });
        }
        let mut ids = Ids::new(catalog);
        for record in &self.records {
            if catalog.snapshot(&record.uid).is_some() {
                outcome.already += 1;
                continue;
            }
            let mut record = record.clone();
            let old = ids.assign(&mut record);
            outcome.snapshots.push(self.taken(&record, old));
            let known = catalog.device(&record.device);
            ops.push(Op::PutSnapshot {
                gotos_begun: known.map_or(0, |d| d.gotos_begun),
                record,
            });
        }
        let put: HashSet<Uid> = outcome.snapshots.iter().map(|s| s.uid).collect();
        ops.extend(
            self.devices
                .iter()
                .flat_map(|d| self.head(catalog, d, &put)),
        );
        if self.mirror {
            self.mirrored(catalog, &mut ops, outcome);
        }
        Ok(ops)
    }

    fn taken(&self, record: &SnapshotRecord, renumbered: Option<Vec<u8>>) -> Taken {
        let device = self.devices.iter().find(|d| d.uid == record.device);
        Taken {
            device: device.map(|d| d.name.clone()).unwrap_or_default(),
            uid: record.uid,
            id: record.id.clone(),
            name: record.name.clone(),
            renumbered,
        }
    }

    /// A snapshot that is put becomes the base of its device, which is what a change map is believed to be relative to: what
    /// the device holds here did not change by it, so the base that it had is put back. A device that is new here has what
    /// it has at the sender; one that mirrors the sender's too, if it stands for no image. Of a volume only its own head
    /// says what it comes from.
    fn head(&self, catalog: &Catalog, device: &Device, put: &HashSet<Uid>) -> Vec<Op> {
        let known = catalog.device(&device.uid);
        if known.is_some_and(|d| d.volume.is_some()) {
            return Vec::new();
        }
        let follows = known.is_none_or(|d| self.mirror && d.attachment.is_none());
        let there = |base: &Uid| put.contains(base) || catalog.snapshot(base).is_some();
        let theirs = device
            .head
            .filter(|(c, _)| follows && self.whole.contains(&c.root));
        let (head, base) = match (theirs, known) {
            (Some((content, base)), _) => (Some(content), base.filter(there)),
            (None, Some(known)) => (known.head, known.base),
            (None, None) => (None, None),
        };
        let own = |r: &&SnapshotRecord| r.device == device.uid && put.contains(&r.uid);
        let touched = known.is_none_or(|d| (d.head, d.base) != (head, base))
            || self.records.iter().any(|r| own(&r));
        if !touched {
            return Vec::new();
        }
        let uid = device.uid;
        let op = Op::PutHead { uid, head, base };
        // A head can only be put on what something holds in that state: a snapshot that the same entry takes away again.
        let held = |root: &Hash| {
            let mut new = self.records.iter().filter(|r| put.contains(&r.uid));
            catalog.reachable(root) || new.any(|r| r.roots().any(|held| held == *root))
        };
        let Some(content) = head.filter(|head| !held(&head.root)) else {
            return vec![op];
        };
        let passing = Op::PutSnapshot {
            record: passing(device, content),
            gotos_begun: known.map_or(0, |d| d.gotos_begun),
        };
        let uid = passing_uid(device);
        vec![passing, op, Op::DeleteSnapshot { uid }]
    }

    /// Only what was here when the transfer began: what came since was made here, or brought by another that began later, and
    /// the sender's list may be older than it.
    fn mirrored(&self, catalog: &Catalog, ops: &mut Vec<Op>, outcome: &mut Outcome) {
        for device in &self.devices {
            let theirs: HashSet<&Uid> = device.snapshots.iter().collect();
            for snapshot in catalog.snapshots_of(&device.uid) {
                let uid = snapshot.record.uid;
                if !theirs.contains(&uid) && self.begun.snapshot(&uid).is_some() {
                    ops.push(Op::DeleteSnapshot { uid });
                    outcome.deleted.push(self.taken(&snapshot.record, None));
                }
            }
        }
    }
}

/// A name that no other entry uses: of the device and what it is for.
fn passing_uid(device: &Device) -> Uid {
    let hash = Hash::of(&[&device.uid.0[..], b"passing"].concat());
    let mut uid = [0; 16];
    uid.copy_from_slice(&hash.0[..16]);
    Uid(uid)
}

/// A snapshot that is there within one entry.
fn passing(device: &Device, content: Content) -> SnapshotRecord {
    SnapshotRecord {
        uid: passing_uid(device),
        device: device.uid,
        id: Vec::new(),
        name: Vec::new(),
        date_sec: 0,
        date_nsec: 0,
        vm_clock_nsec: 0,
        icount: None,
        vm_state: None,
        content,
        group: None,
        parent: None,
        extra: Vec::new(),
        labels: BTreeMap::new(),
    }
}

/// The ids of the snapshots of each device: a snapshot keeps its id unless another of its device has it here.
struct Ids<'c> {
    catalog: &'c Catalog,
    devices: BTreeMap<Uid, (HashSet<Vec<u8>>, u64)>,
}

impl<'c> Ids<'c> {
    fn new(catalog: &'c Catalog) -> Self {
        let devices = BTreeMap::new();
        Self { catalog, devices }
    }

    /// Gives the record another id where its own is taken, and returns that.
    fn assign(&mut self, record: &mut SnapshotRecord) -> Option<Vec<u8>> {
        let catalog = self.catalog;
        let (taken, next) = self.devices.entry(record.device).or_insert_with(|| {
            let all = catalog.snapshots_of(&record.device);
            let ids = all.iter().map(|s| s.record.id.clone()).collect();
            let next = catalog.device(&record.device).map_or(1, |d| d.next_id);
            (ids, next)
        });
        let mut old = None;
        if taken.contains(&record.id) {
            while taken.contains(next.to_string().as_bytes()) {
                // There are more numbers than snapshots.
                *next = next.checked_add(1).unwrap_or(1);
            }
            old = Some(std::mem::replace(
                &mut record.id,
                next.to_string().into_bytes(),
            ));
        }
        taken.insert(record.id.clone());
        old
    }
}
