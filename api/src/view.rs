//! What callers see of devices and snapshots.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;
use stillpoint_store::catalog::{Catalog, DeviceState, SnapshotState};
use stillpoint_store::format::entry::Content;
use stillpoint_store::id::{Hash, Uid};
use stillpoint_store::log::salvage::DEVICE_LABEL;
use stillpoint_store::world::Moment;

/// A device.
#[derive(Debug, Clone)]
pub struct DeviceView {
    /// Its name.
    pub name: String,
    /// Its uid.
    pub uid: Uid,
    /// Its image, if it stands for one.
    pub image: Option<PathBuf>,
    /// The image's format.
    pub format: Option<String>,
    /// goto refuses to write it.
    pub read_only: bool,
    /// Its contents, where they are in the store.
    pub head: Option<Content>,
    /// Bytes of its contents, or of its newest snapshot, or of its image, if that can be asked.
    pub size: Option<u64>,
    /// Name of the snapshot that its contents come from.
    pub base: Option<String>,
    /// How many snapshots it has.
    pub snapshots: u64,
    /// A goto on it was cut off.
    pub in_goto: bool,
    /// It is a volume: it can be written to.
    pub volume: bool,
}

/// A snapshot.
#[derive(Debug, Clone)]
pub struct SnapshotView {
    /// Its device's name.
    pub device: String,
    /// Its uid.
    pub uid: Uid,
    /// Its id, as text; bytes that are not UTF-8 are `\xNN`.
    pub id: String,
    /// Its name, likewise.
    pub name: String,
    /// When it was made.
    pub date: Moment,
    /// Bytes of the disk.
    pub size: u64,
    /// Bytes of the saved VM state.
    pub vm_state_size: u64,
    /// VM clock, nanoseconds.
    pub vm_clock_nsec: u64,
    /// Instruction count.
    pub icount: Option<u64>,
    /// The manifest root: equal for equal disks.
    pub root: Hash,
    /// The operation that made it.
    pub group: Option<Uid>,
    /// The snapshot before it.
    pub parent: Option<Uid>,
    /// The device's contents come from it.
    pub is_base: bool,
    /// Labels.
    pub labels: BTreeMap<String, String>,
}

impl DeviceView {
    pub(crate) fn of(catalog: &Catalog, device: &DeviceState) -> Self {
        let attachment = device.attachment.as_ref();
        Self {
            name: device.name.clone(),
            uid: device.uid,
            image: attachment.map(|a| PathBuf::from(OsString::from_vec(a.path.clone()))),
            format: attachment.map(|a| a.format.clone()),
            read_only: attachment.is_some_and(|a| a.read_only),
            head: device.head,
            size: device.volume.map(|v| v.size).or_else(|| {
                let newest = || catalog.snapshots_of(&device.uid).pop();
                let content = device.head.or_else(|| newest().map(|s| s.record.content));
                content.map(|content| content.size)
            }),
            base: device
                .base
                .and_then(|uid| catalog.snapshot(&uid))
                .map(|s| text(&s.record.name)),
            snapshots: catalog.snapshots_of(&device.uid).len() as u64,
            in_goto: device.in_goto.is_some(),
            volume: device.volume.is_some(),
        }
    }
}

impl SnapshotView {
    pub(crate) fn of(catalog: &Catalog, snapshot: &SnapshotState) -> Self {
        let record = &snapshot.record;
        let device = catalog.device(&record.device);
        let mut labels = record.labels.clone();
        labels.remove(DEVICE_LABEL);
        Self {
            device: device.map(|d| d.name.clone()).unwrap_or_default(),
            uid: record.uid,
            id: text(&record.id),
            name: text(&record.name),
            date: Moment {
                sec: record.date_sec,
                nsec: record.date_nsec,
            },
            size: record.content.size,
            vm_state_size: record.vm_state.map_or(0, |s| s.size),
            vm_clock_nsec: record.vm_clock_nsec,
            icount: record.icount,
            root: record.content.root,
            group: record.group,
            parent: record.parent,
            is_base: device.is_some_and(|d| d.base == Some(record.uid)),
            labels,
        }
    }
}

/// A name that is bytes, as text: where it is not UTF-8, bytes as `\xNN`.
pub fn text(bytes: &[u8]) -> String {
    let mut out = String::new();
    for chunk in bytes.utf8_chunks() {
        out.push_str(chunk.valid());
        let odd = chunk.invalid().iter();
        out.extend(odd.map(|byte| format!("\\x{byte:02x}")));
    }
    out
}

#[cfg(test)]
mod tests {
    use super::text;

    #[test]
    fn odd_bytes_are_spelled_out() {
        assert_eq!(text(b"ok\xff\xfe-\xc3\xa9"), "ok\\xff\\xfe-\u{e9}");
    }
}
