//! An entry on a state: validated op by op, each on the state after the one before; whole or not at all.

use super::{Catalog, DeviceState, PackState, Rules, SessionState, SnapshotState, Tip};
use crate::format::entry::{
    ChainPoint, Content, Entry, GotoRecord, GotoResult, HeadOrigin, Op, PackRecord, SessionKind,
    VolumeRecord,
};
use crate::format::snapshot::SnapshotRecord;
use crate::id::{Hash, PackName, PackNumber, Sequence, SessionId, Uid};
use crate::limits::{LABEL_BYTES_MAX, NAME_BYTES_MAX, PACK_BYTES_MAX, PATH_BYTES_MAX};
use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;

/// Why an entry has no effect in a state.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(missing_docs, reason = "the texts below say it")]
pub enum Invalid {
    SessionNotOpen(SessionId),
    OpenedElsewhere,
    StaleCounter,
    RootNotReachable(Hash),
    PackNotLive(PackName),
    PackExists(PackName),
    PackPinned(PackName),
    PackOfOpenSession(PackName),
    PackNamedSince(PackName),
    DeviceUnknown(Uid),
    DeviceInGoto(Uid),
    GotoSince(Uid),
    NameTaken(String),
    HasSnapshots(Uid),
    SnapshotUnknown(Uid),
    SnapshotExists(Uid),
    GotoUnknown(Uid),
    GotoExists(Uid),
    IsVolume(Uid),
    HasImage(Uid),
    VolumeMoved(Uid),
    Malformed(String),
}

impl fmt::Display for Invalid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::SessionNotOpen(id) => write!(f, "session {id} is not open"),
            Self::OpenedElsewhere => f.write_str("the session belongs to another sequence"),
            Self::StaleCounter => f.write_str("the entry has been counted before"),
            Self::RootNotReachable(root) => write!(f, "nothing keeps the manifest {root} any more"),
            Self::PackNotLive(name) => write!(f, "{name} is not live"),
            Self::PackExists(name) => write!(f, "{name} is live already"),
            Self::PackPinned(name) => write!(f, "{name} is pinned"),
            Self::PackOfOpenSession(name) => write!(f, "{name} is of a session that is open"),
            Self::PackNamedSince(name) => write!(f, "{name} was named since it was looked at"),
            Self::DeviceUnknown(uid) => write!(f, "there is no device {uid}"),
            Self::DeviceInGoto(_) => f.write_str("the device is in a goto that was not ended"),
            Self::GotoSince(_) => f.write_str("the device went to a snapshot meanwhile"),
            Self::NameTaken(name) => write!(f, "there is a device {name:?} already"),
            Self::HasSnapshots(_) => f.write_str("the device has snapshots"),
            Self::SnapshotUnknown(_) => f.write_str("there is no such snapshot"),
            Self::SnapshotExists(_) => f.write_str("the snapshot exists already"),
            Self::GotoUnknown(_) => f.write_str("the goto has ended"),
            Self::GotoExists(_) => f.write_str("the goto has begun already"),
            Self::IsVolume(_) => f.write_str("the device is a volume"),
            Self::HasImage(_) => f.write_str("the device stands for an image"),
            Self::VolumeMoved(_) => f.write_str("the volume was changed meanwhile"),
            Self::Malformed(why) => f.write_str(why),
        }
    }
}

impl std::error::Error for Invalid {}

type Valid = Result<(), Invalid>;

impl Catalog {
    /// The state after the entry at the next sequence, and whether the entry counts in it. One that does not has no
    /// effect but to take its place.
    pub fn apply(&self, checksum: Hash, entry: &Entry, rules: Rules) -> (Self, Valid) {
        let mut next = self.clone();
        let valid = next.run(entry, rules);
        if valid.is_err() {
            next = self.clone();
        }
        next.seq = self.seq + 1;
        next.tip = Tip(checksum);
        (next, valid)
    }

    /// Applies all ops; on an error the state is half changed and of no use.
    fn run(&mut self, entry: &Entry, rules: Rules) -> Valid {
        let seq = self.seq + 1;
        let mut opened = false;
        match self.sessions.get(&entry.session) {
            Some(session) if entry.counter <= session.counter && rules.counter_newer => {
                return Err(Invalid::StaleCounter);
            }
            Some(_) => {}
            None => {
                // The id says where its session was opened: here, or it has ended.
                if !matches!(entry.ops.first(), Some(Op::Open { .. })) && rules.session_open {
                    return Err(Invalid::SessionNotOpen(entry.session));
                }
                opened = true;
            }
        }
        if opened && entry.session.opened_at != seq && rules.counter_newer && rules.session_open {
            return Err(Invalid::OpenedElsewhere);
        }
        for op in &entry.ops {
            self.op(entry.session, seq, op, rules)?;
        }
        if let Some(session) = self.sessions.get(&entry.session) {
            let mut session = SessionState::clone(session);
            session.counter = entry.counter;
            self.sessions.insert_mut(entry.session, Arc::new(session));
        }
        Ok(())
    }

    fn op(&mut self, own: SessionId, seq: Sequence, op: &Op, rules: Rules) -> Valid {
        let free = matches!(
            op,
            Op::Open { .. } | Op::DeleteSnapshot { .. } | Op::Expire { .. } | Op::GotoEnd { .. }
        );
        if !free && rules.session_open && self.session(&own).is_none() {
            return Err(Invalid::SessionNotOpen(own));
        }
        match op {
            Op::Open { kind, label } => self.open(own, *kind, label),
            Op::Close => {
                self.sessions.remove_mut(&own);
                Ok(())
            }
            Op::Expire { session } => {
                self.sessions.remove_mut(session);
                Ok(())
            }
            Op::Publish { packs } => packs.iter().try_for_each(|p| self.publish(own, *p)),
            Op::Rely { packs, roots } => self.rely(seq, packs, roots, rules),
            Op::Pin { packs, roots } => {
                self.rely(seq, packs, roots, rules)?;
                self.pin(own, |session| {
                    session.packs.extend(packs);
                    session.roots.extend(roots);
                })
            }
            Op::Unpin { packs, roots } => self.pin(own, |session| {
                session.packs.retain(|p| !packs.contains(p));
                session.roots.retain(|r| !roots.contains(r));
            }),
            Op::PutSnapshot {
                record,
                gotos_begun,
            } => self.put_snapshot(record, *gotos_begun, rules),
            Op::DeleteSnapshot { uid } => self.delete_snapshot(uid),
            Op::PutDevice {
                uid,
                name,
                attachment,
            } => {
                check_device(name, attachment.as_ref())?;
                if self.device_named(name).is_some_and(|d| d.uid != *uid) {
                    return Err(Invalid::NameTaken(name.clone()));
                }
                let mut device = self
                    .devices
                    .get(uid)
                    .map_or_else(|| new_device(*uid), |d| DeviceState::clone(d));
                if device.in_goto.is_some() {
                    return Err(Invalid::DeviceInGoto(*uid));
                }
                if device.volume.is_some() && attachment.is_some() {
                    return Err(Invalid::IsVolume(*uid));
                }
                device.name.clone_from(name);
                device.attachment.clone_from(attachment);
                self.devices.insert_mut(*uid, Arc::new(device));
                Ok(())
            }
            Op::RemoveDevice { uid } => self.remove_device(uid),
            Op::PutHead { uid, head, base } => {
                check_contents(head.iter())?;
                self.check_reachable(head.as_ref(), rules)?;
                if self.device(uid).is_some_and(|d| d.volume.is_some()) {
                    return Err(Invalid::IsVolume(*uid));
                }
                self.change_device(uid, |device| {
                    device.head = *head;
                    device.base = *base;
                })
            }
            Op::Compact {
                base,
                new,
                dropped,
                kept,
            } => self.compact(own, seq, (*base, new), (dropped, kept), rules),
            Op::GotoBegin { record } => self.goto_begin(record, rules),
            Op::GotoEnd { uid, result } => self.goto_end(uid, *result),
            Op::PutVolume {
                uid,
                expect,
                volume,
                head,
                base,
                origin,
            } => {
                if *origin == HeadOrigin::Existing {
                    self.check_reachable(head.as_ref(), rules)?;
                }
                self.put_volume(uid, *expect, (*volume, *head, *base), rules)
            }
        }
    }

    fn check_reachable(&self, head: Option<&Content>, rules: Rules) -> Valid {
        match head {
            Some(head) if rules.roots_reachable && !self.reachable(&head.root) => {
                Err(Invalid::RootNotReachable(head.root))
            }
            _ => Ok(()),
        }
    }

    fn put_volume(
        &mut self,
        uid: &Uid,
        expect: Option<ChainPoint>,
        (volume, head, base): (Option<VolumeRecord>, Option<Content>, Option<Uid>),
        rules: Rules,
    ) -> Valid {
        check_contents(head.iter())?;
        let device = self.device(uid).ok_or(Invalid::DeviceUnknown(*uid))?;
        if device.attachment.is_some() {
            return Err(Invalid::HasImage(*uid));
        }
        let at = device.volume.map(|v| v.point());
        let back = at.zip(volume).is_some_and(|(at, new)| new.point() < at);
        if (at != expect || back) && rules.chain_expected {
            return Err(Invalid::VolumeMoved(*uid));
        }
        let mut device = DeviceState::clone(device);
        (device.volume, device.head, device.base) = (volume, head, base);
        if !device.is_possible() {
            return Err(Invalid::Malformed("no volume is so large".into()));
        }
        self.devices.insert_mut(*uid, Arc::new(device));
        Ok(())
    }

    fn open(&mut self, id: SessionId, kind: SessionKind, label: &str) -> Valid {
        if self.session(&id).is_some() {
            return Err(Invalid::OpenedElsewhere);
        }
        if label.len() > LABEL_BYTES_MAX {
            return Err(Invalid::Malformed("the session's label is too long".into()));
        }
        let session = SessionState {
            kind,
            label: label.to_owned(),
            counter: 0,
            packs: BTreeSet::new(),
            roots: BTreeSet::new(),
        };
        self.sessions.insert_mut(id, Arc::new(session));
        Ok(())
    }

    fn publish(&mut self, session: SessionId, record: PackRecord) -> Valid {
        let name = PackName {
            session,
            n: record.n,
        };
        if self.packs.contains_key(&name) {
            return Err(Invalid::PackExists(name));
        }
        if record.size > PACK_BYTES_MAX {
            return Err(Invalid::Malformed(format!("{name} is too large")));
        }
        let number = PackNumber(self.next_pack);
        let full = || Invalid::Malformed("all pack numbers are used up".into());
        self.next_pack = self.next_pack.checked_add(1).ok_or_else(full)?;
        self.numbers.insert_mut(number, name);
        self.packs.insert_mut(
            name,
            Arc::new(PackState {
                number,
                name,
                record,
                last_named: 0,
            }),
        );
        Ok(())
    }

    fn rely(&mut self, seq: Sequence, packs: &[PackName], roots: &[Hash], rules: Rules) -> Valid {
        if let Some(gone) = roots
            .iter()
            .find(|r| rules.roots_reachable && !self.reachable(r))
        {
            return Err(Invalid::RootNotReachable(*gone));
        }
        for name in packs {
            if !self.name_pack(seq, name) && rules.packs_live {
                return Err(Invalid::PackNotLive(*name));
            }
        }
        Ok(())
    }

    /// False when it is not live.
    fn name_pack(&mut self, seq: Sequence, name: &PackName) -> bool {
        let Some(pack) = self.packs.get(name) else {
            return false;
        };
        let pack = PackState {
            last_named: seq,
            ..PackState::clone(pack)
        };
        self.packs.insert_mut(*name, Arc::new(pack));
        true
    }

    fn pin(&mut self, id: SessionId, change: impl FnOnce(&mut SessionState)) -> Valid {
        let session = self.sessions.get(&id).ok_or(Invalid::SessionNotOpen(id))?;
        let mut session = SessionState::clone(session);
        change(&mut session);
        self.sessions.insert_mut(id, Arc::new(session));
        Ok(())
    }

    fn put_snapshot(&mut self, record: &SnapshotRecord, gotos_begun: u64, rules: Rules) -> Valid {
        record
            .check()
            .map_err(|e| Invalid::Malformed(e.to_string()))?;
        if self.snapshot(&record.uid).is_some() {
            return Err(Invalid::SnapshotExists(record.uid));
        }
        let device = self
            .device(&record.device)
            .ok_or(Invalid::DeviceUnknown(record.device))?;
        if rules.gotos_counted && device.in_goto.is_some() {
            return Err(Invalid::DeviceInGoto(device.uid));
        }
        if rules.gotos_counted && device.gotos_begun != gotos_begun {
            return Err(Invalid::GotoSince(device.uid));
        }
        let number = record.id_number();
        self.change_device(&record.device, |device| {
            // Of a volume only the head says what it comes from.
            if device.volume.is_none() {
                device.base = Some(record.uid);
            }
            device.next_id = device.next_id.max(number.unwrap_or(0).saturating_add(1));
        })?;
        let order = self.next_snapshot;
        self.next_snapshot = self.next_snapshot.saturating_add(1);
        let state = SnapshotState {
            order,
            record: record.clone(),
        };
        self.snapshots.insert_mut(record.uid, Arc::new(state));
        Ok(())
    }

    fn delete_snapshot(&mut self, uid: &Uid) -> Valid {
        let snapshot = self
            .snapshots
            .get(uid)
            .ok_or(Invalid::SnapshotUnknown(*uid))?
            .clone();
        self.snapshots.remove_mut(uid);
        // Contents stay where they are; only what they are called is forgotten.
        let device = snapshot.record.device;
        if self.device(&device).is_some_and(|d| d.base == Some(*uid)) {
            self.change_device(&device, |d| d.base = None)?;
        }
        Ok(())
    }

    fn change_device(&mut self, uid: &Uid, change: impl FnOnce(&mut DeviceState)) -> Valid {
        let device = self.devices.get(uid).ok_or(Invalid::DeviceUnknown(*uid))?;
        let mut device = DeviceState::clone(device);
        change(&mut device);
        self.devices.insert_mut(*uid, Arc::new(device));
        Ok(())
    }

    fn remove_device(&mut self, uid: &Uid) -> Valid {
        let device = self.device(uid).ok_or(Invalid::DeviceUnknown(*uid))?;
        if device.in_goto.is_some() {
            return Err(Invalid::DeviceInGoto(*uid));
        }
        if self.snapshots().any(|s| s.record.device == *uid) {
            return Err(Invalid::HasSnapshots(*uid));
        }
        self.devices.remove_mut(uid);
        Ok(())
    }

    fn compact(
        &mut self,
        own: SessionId,
        seq: Sequence,
        (base, new): (Sequence, &[PackRecord]),
        (dropped, kept): (&[PackName], &[PackName]),
        rules: Rules,
    ) -> Valid {
        for name in dropped {
            let pack = self.pack(name).ok_or(Invalid::PackNotLive(*name))?;
            if rules.spare_pinned && self.pinned(name) {
                return Err(Invalid::PackPinned(*name));
            }
            if rules.spare_open && self.session(&name.session).is_some() {
                return Err(Invalid::PackOfOpenSession(*name));
            }
            if rules.spare_named && pack.last_named > base {
                return Err(Invalid::PackNamedSince(*name));
            }
        }
        for name in kept {
            let live = if rules.kept_named {
                self.name_pack(seq, name)
            } else {
                self.pack(name).is_some()
            };
            if rules.kept_live && (!live || dropped.contains(name)) {
                return Err(Invalid::PackNotLive(*name));
            }
        }
        for name in dropped {
            if let Some(pack) = self.packs.get(name) {
                let number = pack.number;
                self.numbers.remove_mut(&number);
            }
            self.packs.remove_mut(name);
        }
        new.iter().try_for_each(|p| self.publish(own, *p))
    }

    fn goto_begin(&mut self, record: &GotoRecord, rules: Rules) -> Valid {
        if self.gotos.contains_key(&record.uid) {
            return Err(Invalid::GotoExists(record.uid));
        }
        check_contents(record.devices.iter().flat_map(|d| [&d.undo, &d.target]))?;
        for device in &record.devices {
            if self
                .device(&device.device)
                .is_some_and(|d| d.in_goto.is_some())
            {
                return Err(Invalid::DeviceInGoto(device.device));
            }
            let is_volume = |d: &Arc<DeviceState>| d.volume.is_some();
            if self.device(&device.device).is_some_and(is_volume) {
                return Err(Invalid::IsVolume(device.device));
            }
            if rules.roots_reachable && !self.reachable(&device.target.root) {
                return Err(Invalid::RootNotReachable(device.target.root));
            }
            self.change_device(&device.device, |d| {
                d.in_goto = Some(record.uid);
                d.gotos_begun = d.gotos_begun.saturating_add(1);
            })?;
        }
        let mut record = record.clone();
        if !rules.goto_reachable {
            record.devices.clear();
        }
        self.gotos.insert_mut(record.uid, Arc::new(record));
        Ok(())
    }

    fn goto_end(&mut self, uid: &Uid, result: GotoResult) -> Valid {
        let record = self
            .gotos
            .get(uid)
            .ok_or(Invalid::GotoUnknown(*uid))?
            .clone();
        for device in &record.devices {
            let base = match result {
                GotoResult::Done => Some(device.snapshot),
                GotoResult::Undone => device.undo_base,
            };
            let base = base.filter(|b| self.snapshot(b).is_some());
            self.change_device(&device.device, |d| {
                d.in_goto = None;
                d.base = base;
            })?;
        }
        self.gotos.remove_mut(uid);
        Ok(())
    }

    /// For a test of the rule that checkpoints hold it.
    #[cfg(test)]
    pub(crate) fn forget_names(mut self) -> Self {
        let packs: Vec<PackState> = self.packs().map(|p| PackState::clone(p)).collect();
        for pack in packs {
            self.packs.insert_mut(
                pack.name,
                Arc::new(PackState {
                    last_named: 0,
                    ..pack
                }),
            );
        }
        self
    }
}

fn new_device(uid: Uid) -> DeviceState {
    DeviceState {
        uid,
        name: String::new(),
        attachment: None,
        head: None,
        base: None,
        next_id: 1,
        gotos_begun: 0,
        in_goto: None,
        volume: None,
    }
}

fn check_contents<'a>(mut contents: impl Iterator<Item = &'a Content>) -> Valid {
    if contents.all(Content::is_possible) {
        return Ok(());
    }
    Err(Invalid::Malformed("no disk is so large".into()))
}

fn check_device(name: &str, attachment: Option<&crate::format::entry::Attachment>) -> Valid {
    if name.is_empty() || name.len() > NAME_BYTES_MAX {
        return Err(Invalid::Malformed(format!(
            "a device name has 1 to {NAME_BYTES_MAX} bytes"
        )));
    }
    if attachment.is_some_and(|a| a.path.len() > PATH_BYTES_MAX || a.format.len() > NAME_BYTES_MAX)
    {
        return Err(Invalid::Malformed("the image's path is too long".into()));
    }
    Ok(())
}
