//! What there is to serve, by the names that clients see: every snapshot, every volume, and the present contents of other
//! devices without an image.

use crate::label::{ID, UID, escape, escape_snapshot, unescape};
use std::collections::{BTreeMap, HashMap};
use stillpoint_store::catalog::{Catalog, DeviceState, SnapshotState};
use stillpoint_store::format::entry::Content;
use stillpoint_store::id::Uid;
use stillpoint_store::world::Moment;

/// A disk on the menu.
#[derive(Debug, Clone)]
pub struct Item {
    /// Its device's name outside.
    pub device: String,
    /// The snapshot's name outside; `None` for the present contents.
    pub snapshot: Option<String>,
    /// The device.
    pub device_uid: Uid,
    /// The snapshot's uid.
    pub uid: Option<Uid>,
    /// What it shows.
    pub shows: Shows,
    /// When the snapshot was made.
    pub date: Option<Moment>,
}

/// What a disk shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shows {
    /// Contents that are in the store and stay as they are.
    Content(Content),
    /// A volume of so many bytes, which is written to.
    Volume(u64),
}

/// Why a name is not on the menu.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Missing {
    /// Nothing has it.
    Unknown,
    /// Several snapshots have it.
    Ambiguous,
}

impl Item {
    /// `DEVICE@SNAPSHOT`, or `DEVICE`.
    pub fn name(&self) -> String {
        match &self.snapshot {
            Some(snapshot) => format!("{}@{snapshot}", self.device),
            None => self.device.clone(),
        }
    }

    /// Bytes.
    pub fn size(&self) -> u64 {
        match self.shows {
            Shows::Content(content) => content.size,
            Shows::Volume(size) => size,
        }
    }

    fn head(device: &DeviceState) -> Option<Self> {
        // What is in an image is not in the store.
        let head = device.head.filter(|_| device.attachment.is_none());
        let shows = match device.volume {
            Some(volume) => Shows::Volume(volume.size),
            None => Shows::Content(head?),
        };
        Some(Self {
            device: escape(device.name.as_bytes()),
            snapshot: None,
            device_uid: device.uid,
            uid: None,
            shows,
            date: None,
        })
    }
}

/// All devices by name, each with its snapshots in the order in which they were made.
pub fn devices(catalog: &Catalog) -> BTreeMap<&str, (&DeviceState, Vec<&SnapshotState>)> {
    let mut of: HashMap<Uid, Vec<&SnapshotState>> = HashMap::new();
    for snapshot in catalog.snapshots() {
        let list = of.entry(snapshot.record.device).or_default();
        list.push(snapshot);
    }
    let mut devices = BTreeMap::new();
    for device in catalog.devices() {
        let mut snapshots = of.remove(&device.uid).unwrap_or_default();
        snapshots.sort_by_key(|s| s.order);
        devices.insert(&*device.name, (&**device, snapshots));
    }
    devices
}

/// Everything, in the order of names.
pub fn all(catalog: &Catalog) -> Vec<Item> {
    let mut items = Vec::new();
    for (device, snapshots) in devices(catalog).into_values() {
        items.extend(Item::head(device));
        items.extend(items_of(device, &snapshots));
    }
    items
}

/// The snapshots of one device.
pub fn items_of(device: &DeviceState, snapshots: &[&SnapshotState]) -> Vec<Item> {
    let names = counts(snapshots, |s| &s.record.name);
    let ids = counts(snapshots, |s| &s.record.id);
    let only = |counts: &HashMap<&[u8], u32>, key: &[u8]| {
        !key.is_empty() && counts.get(key).is_some_and(|n| *n == 1)
    };
    let item = |s: &&SnapshotState| {
        let record = &s.record;
        let snapshot = if only(&names, &record.name) {
            escape_snapshot(&record.name)
        } else if only(&ids, &record.id) {
            format!("{ID}{}", escape(&record.id))
        } else {
            format!("{UID}{}", record.uid)
        };
        Item {
            device: escape(device.name.as_bytes()),
            snapshot: Some(snapshot),
            device_uid: device.uid,
            uid: Some(record.uid),
            shows: Shows::Content(record.content),
            date: Some(Moment {
                sec: record.date_sec,
                nsec: record.date_nsec,
            }),
        }
    };
    snapshots.iter().map(item).collect()
}

fn counts<'s>(
    snapshots: &[&'s SnapshotState],
    key: impl Fn(&'s SnapshotState) -> &'s [u8],
) -> HashMap<&'s [u8], u32> {
    let mut counts = HashMap::new();
    for snapshot in snapshots {
        *counts.entry(key(snapshot)).or_default() += 1;
    }
    counts
}

/// The disk of that name. A name, an id and a uid are taken for every snapshot, whichever of them it is listed by.
pub fn find(catalog: &Catalog, name: &str) -> Result<Item, Missing> {
    let (device, snapshot) = match name.split_once('@') {
        Some((device, snapshot)) => (device, Some(snapshot)),
        None => (name, None),
    };
    let device = device_of(catalog, device).ok_or(Missing::Unknown)?;
    match snapshot {
        None => Item::head(device).ok_or(Missing::Unknown),
        Some(snapshot) => find_of(catalog, device, snapshot),
    }
}

/// The device that has this name outside.
pub fn device_of<'c>(catalog: &'c Catalog, name: &str) -> Option<&'c DeviceState> {
    let name = String::from_utf8(unescape(name)?).ok()?;
    catalog.device_named(&name).map(|device| &**device)
}

/// The snapshot of a device that is called so.
pub fn find_of(catalog: &Catalog, device: &DeviceState, called: &str) -> Result<Item, Missing> {
    let all = catalog.snapshots_of(&device.uid);
    let all: Vec<&SnapshotState> = all.into_iter().map(|s| &**s).collect();
    let is = matcher(called).ok_or(Missing::Unknown)?;
    let mut found = items_of(device, &all)
        .into_iter()
        .zip(&all)
        .filter(|(_, s)| is(s));
    match (found.next(), found.next()) {
        (Some((item, _)), None) => Ok(item),
        (Some(_), Some(_)) => Err(Missing::Ambiguous),
        (None, _) => Err(Missing::Unknown),
    }
}

fn matcher(called: &str) -> Option<Box<dyn Fn(&SnapshotState) -> bool>> {
    if let Some(uid) = called.strip_prefix(UID) {
        let uid = uid.to_owned();
        return Some(Box::new(move |s| s.record.uid.to_string() == uid));
    }
    if let Some(id) = called.strip_prefix(ID) {
        let id = unescape(id)?;
        return Some(Box::new(move |s| s.record.id == id));
    }
    let name = unescape(called)?;
    Some(Box::new(move |s| s.record.name == name))
}
