//! What is to be sent: which snapshots the receiver does not have, and what their contents are told as changes of.

use super::message::{Base, Device, Have, Step};
use std::collections::{BTreeMap, BTreeSet, HashSet};
use stillpoint_api::{SnapshotRef, text};
use stillpoint_store::catalog::{Catalog, DeviceState, SnapshotState};
use stillpoint_store::format::entry::Content;
use stillpoint_store::format::snapshot::SnapshotRecord;
use stillpoint_store::id::{Hash, Uid};
use stillpoint_store::{Error, ErrorKind, Result};

/// The snapshots that somebody asked for.
#[derive(Debug, Clone, Default)]
pub struct Wanted {
    /// Device and, unless all of it is meant, its snapshots.
    devices: BTreeMap<Uid, Option<BTreeSet<Uid>>>,
}

impl Wanted {
    /// What the targets mean: `D@S` a snapshot, `D` a device with all of its snapshots, none everything.
    pub fn parse(catalog: &Catalog, targets: &[String]) -> Result<Self> {
        let mut wanted = Self::default();
        if targets.is_empty() {
            wanted.devices = catalog.devices().map(|d| (d.uid, None)).collect();
        }
        for target in targets {
            let (device, snapshot) = find(catalog, target)?;
            let of = wanted
                .devices
                .entry(device.uid)
                .or_insert_with(|| Some(BTreeSet::new()));
            match (snapshot, of) {
                (None, of) => *of = None,
                (Some(snapshot), Some(some)) => {
                    some.insert(snapshot.record.uid);
                }
                (Some(_), None) => {}
            }
        }
        Ok(wanted)
    }

    /// Refuses devices as a whole: a bundle is of snapshots.
    pub fn only_snapshots(targets: &[String]) -> Result<()> {
        match targets.iter().find(|t| !t.contains('@')) {
            None => Ok(()),
            Some(device) => Err(Error::invalid(
                "sending snapshots",
                format!("{device:?} names no snapshot"),
            )
            .hint("name snapshots as DEVICE@SNAPSHOT; `still list` shows them")),
        }
    }
}

/// The device and the snapshot that a reference means.
pub fn find<'c>(
    catalog: &'c Catalog,
    target: &str,
) -> Result<(&'c DeviceState, Option<&'c SnapshotState>)> {
    let reference = SnapshotRef::parse(target)?;
    let device = catalog.device_named(&reference.device).ok_or_else(|| {
        Error::new(
            ErrorKind::NotFound,
            format!("looking for device {:?}", reference.device),
        )
        .detail("there is none of that name")
        .hint("`still device list` shows all")
    })?;
    let snapshot = match &reference.snapshot {
        Some(selector) => Some(selector.get(catalog, device)?),
        None => None,
    };
    Ok((device, snapshot))
}

/// What the receiver is known to have.
#[derive(Debug, Clone, Default)]
pub struct Known {
    /// Uids of its snapshots.
    pub snapshots: HashSet<Uid>,
    /// Roots of contents that it has whole.
    pub roots: HashSet<Hash>,
}

impl Known {
    /// Adds what is here too: nothing else matters, and nobody can say more than that takes.
    pub fn add(&mut self, have: Have, here: &Catalog) {
        let ours = |uid: &Uid| here.snapshot(uid).is_some();
        self.snapshots
            .extend(have.snapshots.into_iter().filter(ours));
        let ours = |root: &Hash| here.reachable(root);
        self.roots.extend(have.roots.into_iter().filter(ours));
    }

    /// What a store has, a part at a time.
    pub fn of(catalog: &Catalog) -> Vec<Have> {
        let snapshots: Vec<Uid> = catalog.snapshots().map(|s| s.record.uid).collect();
        let roots = catalog.roots();
        let most = super::message::HAVE_MAX;
        let parts = snapshots.len().max(roots.len()).div_ceil(most);
        let part = |i: usize| Have {
            snapshots: snapshots
                .iter()
                .skip(i * most)
                .take(most)
                .copied()
                .collect(),
            roots: roots.iter().skip(i * most).take(most).copied().collect(),
        };
        (0..parts).map(part).collect()
    }
}

/// What is to be sent, in this order.
#[derive(Debug, Clone, Default)]
pub struct Cargo {
    /// Contents that the receiver must have.
    pub bases: Vec<Base>,
    /// Devices.
    pub devices: Vec<Device>,
    /// Snapshots in the order in which they were made.
    pub records: Vec<SnapshotRecord>,
    /// Contents that the receiver does not have.
    pub steps: Vec<Step>,
}

impl Cargo {
    /// Chooses for all contents what they are told as changes of: the nearest earlier ones of the device that the receiver has
    /// by then, else the nearest later. `whole`: devices go with their heads and the list of their snapshots.
    pub fn plan(catalog: &Catalog, wanted: &Wanted, known: &Known, whole: bool) -> Self {
        let mut cargo = Self::default();
        let mut told = known.roots.clone();
        let mut devices: Vec<&DeviceState> = catalog
            .devices()
            .filter(|d| wanted.devices.contains_key(&d.uid))
            .map(|d| &**d)
            .collect();
        devices.sort_by(|a, b| a.name.cmp(&b.name));
        let mut records: Vec<&SnapshotState> = Vec::new();
        for device in devices {
            let all = catalog.snapshots_of(&device.uid);
            let some = wanted.devices.get(&device.uid).and_then(Option::as_ref);
            let meant = |s: &&SnapshotState| some.is_none_or(|some| some.contains(&s.record.uid));
            let chosen = all.iter().map(|s| &***s).filter(meant);
            let lacking = chosen.filter(|s| !known.snapshots.contains(&s.record.uid));
            let lacking: Vec<&SnapshotState> = lacking.collect();
            for snapshot in &lacking {
                let (own, record) = (snapshot.order, &snapshot.record);
                cargo.step(&all, own, record.content, &|r| Some(r.content), &mut told);
                if let Some(vm) = record.vm_state {
                    cargo.step(&all, own, vm, &|r| r.vm_state, &mut told);
                }
            }
            // What lies below a volume's overlays is not what it holds.
            let is_volume = device.volume.is_some();
            let head = device
                .head
                .filter(|_| whole && some.is_none() && !is_volume);
            if let Some(head) = head {
                cargo.step(&all, u64::MAX, head, &|r| Some(r.content), &mut told);
            }
            cargo.devices.push(Device {
                uid: device.uid,
                name: device.name.clone(),
                head: head.map(|head| (head, device.base)),
                snapshots: if whole {
                    all.iter().map(|s| s.record.uid).collect()
                } else {
                    vec![]
                },
            });
            records.extend(lacking);
        }
        records.sort_by_key(|s| s.order);
        cargo.records = records.into_iter().map(|s| s.record.clone()).collect();
        cargo.name_bases(catalog, known);
        cargo
    }

    fn step(
        &mut self,
        all: &[&std::sync::Arc<SnapshotState>],
        own: u64,
        content: Content,
        part: &dyn Fn(&SnapshotRecord) -> Option<Content>,
        told: &mut HashSet<Hash>,
    ) {
        if told.contains(&content.root) {
            return;
        }
        let usable =
            |s: &&std::sync::Arc<SnapshotState>| part(&s.record).filter(|c| told.contains(&c.root));
        let earlier = all.iter().rev().filter(|s| s.order < own).find_map(usable);
        let later = || all.iter().filter(|s| s.order > own).find_map(usable);
        let base = earlier.or_else(later);
        self.steps.push(Step { base, content });
        told.insert(content.root);
    }

    /// Names the contents that the receiver must have: those that steps build on, and those of snapshots that are told by
    /// nothing else.
    fn name_bases(&mut self, catalog: &Catalog, known: &Known) {
        let built_on = self.steps.iter().filter_map(|step| step.base);
        let own = |r: &SnapshotRecord| std::iter::once(r.content).chain(r.vm_state);
        let needed: Vec<Content> = built_on.chain(self.records.iter().flat_map(own)).collect();
        let mut named = HashSet::new();
        for base in needed {
            if !known.roots.contains(&base.root) || !named.insert(base.root) {
                continue;
            }
            let of = catalog
                .snapshots()
                .find(|s| s.record.roots().any(|r| r == base.root));
            let name = of.map(|s| {
                let device = catalog.device(&s.record.device).map(|d| d.name.as_str());
                format!("{}@{}", device.unwrap_or_default(), text(&s.record.name))
            });
            self.bases.push(Base {
                content: base,
                name: name.unwrap_or_else(|| base.root.to_string()),
            });
        }
    }

    /// All contents that the sender reads: to be pinned.
    pub fn contents(&self) -> Vec<Content> {
        let steps = self.steps.iter();
        steps
            .flat_map(|s| s.base.into_iter().chain([s.content]))
            .collect()
    }
}
