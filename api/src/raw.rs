//! Snapshots as other programs know them: any id, any name, any number of equal ones; chosen by uid. The format has
//! always held such; the rest of this crate refuses to make or to guess among them.

use crate::create::{Inputs, Locked, Saved, Taken, seal};
use crate::goto::{GotoReport, goto_volumes};
use crate::select::{device, device_of_uid, other};
use crate::system::{System, check_unmarked};
use crate::vm_state::Source;
use std::collections::BTreeMap;
use stillpoint_store::catalog::{Catalog, SnapshotState};
use stillpoint_store::disk::DiskFile;
use stillpoint_store::format::entry::{Content, Op, SessionKind};
use stillpoint_store::format::snapshot::SnapshotRecord;
use stillpoint_store::id::Uid;
use stillpoint_store::image::Access;
use stillpoint_store::log::salvage::DEVICE_LABEL;
use stillpoint_store::object::Purse;
use stillpoint_store::ops::ingest::Writer;
use stillpoint_store::progress::Progress;
use stillpoint_store::world::Moment;
use stillpoint_store::{Error, ErrorKind, Result};

/// A snapshot, byte for byte.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RawSnapshot {
    /// Its uid, the only name that is its own.
    pub uid: Uid,
    /// Its id.
    pub id: Vec<u8>,
    /// Its name.
    pub name: Vec<u8>,
    /// When it was made.
    pub date: Moment,
    /// VM clock, nanoseconds.
    pub vm_clock_nsec: u64,
    /// Instruction count.
    pub icount: Option<u64>,
    /// The disk.
    pub content: Content,
    /// The VM state.
    pub vm_state: Option<Content>,
    /// Bytes of extra data that nobody knows.
    pub extra_bytes: usize,
}

impl RawSnapshot {
    fn of(record: &SnapshotRecord) -> Self {
        Self {
            uid: record.uid,
            id: record.id.clone(),
            name: record.name.clone(),
            date: Moment {
                sec: record.date_sec,
                nsec: record.date_nsec,
            },
            vm_clock_nsec: record.vm_clock_nsec,
            icount: record.icount,
            content: record.content,
            vm_state: record.vm_state,
            extra_bytes: record.extra.len(),
        }
    }
}

/// What to make, byte for byte.
#[derive(Clone, Copy)]
pub struct CreateRaw<'a> {
    /// The device's name.
    pub device: &'a str,
    /// Its uid, where it must be that very one: a name may be given to another device.
    pub uid: Option<Uid>,
    /// The snapshot's name, 255 bytes at most; others may have it.
    pub name: &'a [u8],
    /// The moment it is to bear.
    pub date: Moment,
    /// VM clock, nanoseconds.
    pub vm_clock_nsec: u64,
    /// Instruction count.
    pub icount: Option<u64>,
    /// A file whose bytes are the VM state.
    pub vm_state: Option<&'a dyn DiskFile>,
}

/// Chooses an id, 127 bytes at most, from the device's snapshots at the moment that counts. May be asked again.
pub type ChooseRawId<'a> = &'a mut dyn FnMut(&[RawSnapshot]) -> Result<Vec<u8>>;

impl CreateRaw<'_> {
    fn record(&self, uid: Uid, device: &Locked, id: &[u8], taken: &Taken) -> SnapshotRecord {
        SnapshotRecord {
            uid,
            device: device.uid,
            id: id.to_vec(),
            name: self.name.to_vec(),
            date_sec: self.date.sec,
            date_nsec: self.date.nsec,
            vm_clock_nsec: self.vm_clock_nsec,
            icount: self.icount,
            vm_state: taken.vm_state.map(|vm| vm.content),
            content: taken.disk.content,
            group: None,
            parent: device.parent_uid,
            extra: Vec::new(),
            labels: BTreeMap::from([(DEVICE_LABEL.into(), device.name.clone())]),
        }
    }
}

impl System {
    /// A device's snapshots in the order in which they were made.
    pub fn list_raw(&self, name: &str) -> Result<Vec<RawSnapshot>> {
        let catalog = self.store.refresh()?;
        let uid = device(&catalog, name)?.uid;
        Ok(raw_list(&catalog, &uid))
    }

    /// The same of the device with that uid, which is told of by its name.
    pub(crate) fn list_raw_of(&self, uid: Uid, name: &str) -> Result<Vec<RawSnapshot>> {
        let catalog = self.store.refresh()?;
        device_of_uid(&catalog, uid, name)?;
        Ok(raw_list(&catalog, &uid))
    }

    /// Makes a snapshot of a device. Durable when this returns; an error leaves none.
    pub fn create_raw(
        &self,
        create: &CreateRaw<'_>,
        id: ChooseRawId<'_>,
        progress: &Progress,
    ) -> Result<RawSnapshot> {
        self.tidy()?;
        let name = [create.device.to_owned()];
        let volumes = self.volumes_for(&name)?;
        let locked = self
            .lock_devices(volumes.as_ref(), &name, Access::Read)?
            .pop();
        let locked = locked.ok_or_else(|| gone(create.device))?;
        if create.uid.is_some_and(|uid| uid != locked.uid) {
            return Err(other(create.device));
        }
        // What cannot be is found before the image is read.
        id(&raw_list(&self.store.catalog(), &locked.uid))?;
        let writer = Writer::new(&self.store, SessionKind::Writer, Purse::Free)?;
        let devices = std::slice::from_ref(&locked);
        let sealed = seal(volumes.as_ref(), devices)?;
        let vm = create.vm_state.map(|file| Saved {
            device: 0,
            source: Source::Lent(file),
        });
        let inputs = Inputs {
            devices,
            changed: None,
            vm: vm.as_ref(),
            sealed: sealed.as_ref(),
        };
        let uid = self.store.new_uid();
        let made = self.commit_snapshots(
            writer,
            &mut |writer| self.ingest(writer, &inputs, progress),
            &mut |catalog, taken| {
                let id = id(&raw_list(catalog, &locked.uid))?;
                let records = taken.iter().map(|t| create.record(uid, &locked, &id, t));
                let records: Vec<SnapshotRecord> = records.collect();
                records.iter().try_for_each(SnapshotRecord::check)?;
                Ok(inputs.plan(catalog, records))
            },
        )?;
        if let Some(sealed) = sealed {
            sealed.settle(&made.catalog)?;
        }
        let record = made.records.first();
        record
            .map(RawSnapshot::of)
            .ok_or_else(|| gone(create.device))
    }

    /// Makes the device's image, or the head of one without, hold the snapshot.
    pub fn goto_uid(&self, name: &str, uid: Uid, progress: &Progress) -> Result<GotoReport> {
        self.tidy()?;
        let names = [name.to_owned()];
        let volumes = self.volumes_for(&names)?;
        let locked = self.lock_devices(volumes.as_ref(), &names, Access::Write)?;
        let catalog = self.store.catalog();
        let of = |s: &&SnapshotState| locked.iter().any(|d| d.uid == s.record.device);
        let target = catalog.snapshot(&uid).map(|s| &**s).filter(of);
        let target = target.ok_or_else(|| gone(name))?;
        if let Some(volumes) = &volumes {
            goto_volumes(volumes, &locked, &[target])
        } else if locked.iter().all(|d| d.image.is_some()) {
            self.goto_images(&locked, &[target], progress)
        } else {
            self.goto_heads(&locked, &[target])
        }
    }

    /// Deletes the snapshot. Its bytes are freed by gc.
    pub fn delete_uid(&self, uid: Uid) -> Result<()> {
        self.store
            .commit(SessionKind::Writer, Purse::Reserve, &mut |catalog| {
                let snapshot = catalog.snapshot(&uid).ok_or_else(|| gone("any device"))?;
                if let Some(device) = catalog.device(&snapshot.record.device) {
                    check_unmarked(&[device])?;
                }
                Ok(vec![Op::DeleteSnapshot { uid }])
            })
    }
}

fn raw_list(catalog: &Catalog, device: &Uid) -> Vec<RawSnapshot> {
    let all = catalog.snapshots_of(device).into_iter();
    all.map(|s| RawSnapshot::of(&s.record)).collect()
}

fn gone(device: &str) -> Error {
    Error::new(ErrorKind::NotFound, "looking for a snapshot")
        .detail(format!("it is not, or no longer, one of {device:?}"))
}
