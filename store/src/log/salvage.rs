//! What a damaged log still tells: every entry and checkpoint that can be read, whether or not the chain holds.

use super::{CHECKPOINT, LOG, checkpoint, entry_key, fold};
use crate::catalog::{Catalog, Rules};
use crate::error::Result;
use crate::format::codec;
use crate::format::entry::Op;
use crate::format::envelope::{self, EnvelopeKind};
use crate::format::snapshot::SnapshotRecord;
use crate::id::{Sequence, Uid};
use crate::object::Objects;
use std::collections::{BTreeMap, BTreeSet};

/// Label of a record copy that has the device's name.
pub const DEVICE_LABEL: &str = "stillpoint.device";
const RECORD_BYTES_MAX: u64 = 64 << 10;

/// Snapshots that something tells of.
#[derive(Debug, Default)]
pub struct Salvaged {
    /// By uid; the log's own word before that of copies.
    pub records: BTreeMap<Uid, SnapshotRecord>,
    /// Names of devices.
    pub devices: BTreeMap<Uid, String>,
    /// Snapshots that the readable log lists: the others may have been deleted.
    pub listed: BTreeSet<Uid>,
}

impl Salvaged {
    /// A copy of a record; what is known already stays.
    pub fn add(&mut self, record: SnapshotRecord) {
        if let Some(name) = record.labels.get(DEVICE_LABEL) {
            self.devices
                .entry(record.device)
                .or_insert_with(|| name.clone());
        }
        self.records.entry(record.uid).or_insert(record);
    }
}

/// A record copy from the bytes of an item of a node pack, if it is one.
pub fn read_record(bytes: &[u8]) -> Option<SnapshotRecord> {
    let envelope = envelope::open(EnvelopeKind::Record, bytes).ok()?;
    let record: SnapshotRecord = codec::decode(envelope.payload, RECORD_BYTES_MAX).ok()?;
    record.check().ok().map(|()| record)
}

/// Reads all that is readable; says in `damage` what is not.
pub fn salvage(objects: &dyn Objects, damage: &mut Vec<String>) -> Result<Salvaged> {
    let mut salvaged = Salvaged::default();
    let mut catalog = Catalog::default();
    for name in objects.list_after(CHECKPOINT, "")? {
        let Ok(seq) = name.parse() else { continue };
        match checkpoint::read(objects, seq) {
            Ok(found) => {
                note(&mut salvaged, &found);
                catalog = found;
            }
            Err(e) => damage.push(e.to_string()),
        }
    }
    for name in objects.list_after(LOG, "")? {
        let Ok(seq) = name.parse::<Sequence>() else {
            continue;
        };
        match fold::read_entry(objects, seq) {
            Ok(Some(read)) => {
                // Beyond a gap the state is a guess, but which snapshots were deleted is still worth knowing.
                if seq > catalog.seq() {
                    if seq > catalog.seq() + 1 {
                        damage.push(format!(
                            "{} is missing",
                            objects.describe(&entry_key(catalog.seq() + 1))
                        ));
                    }
                    catalog = catalog
                        .skip_to(seq - 1)
                        .apply(read.checksum, &read.entry, Rules::default())
                        .0;
                }
                for op in read.entry.ops {
                    match op {
                        Op::PutSnapshot { record, .. } => salvaged.add(record),
                        Op::PutDevice { uid, name, .. } => {
                            salvaged.devices.insert(uid, name);
                        }
                        _ => {}
                    }
                }
            }
            Ok(None) => {}
            Err(e) => damage.push(e.to_string()),
        }
    }
    note(&mut salvaged, &catalog);
    salvaged.listed = catalog.snapshots().map(|s| s.record.uid).collect();
    Ok(salvaged)
}

fn note(salvaged: &mut Salvaged, catalog: &Catalog) {
    for device in catalog.devices() {
        salvaged.devices.insert(device.uid, device.name.clone());
    }
    for snapshot in catalog.snapshots() {
        salvaged
            .records
            .insert(snapshot.record.uid, snapshot.record.clone());
    }
}
