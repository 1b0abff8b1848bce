//! Snapshots as other programs know them: any id, any name, any number of equal ones; chosen by uid. The format has
//! always held such; the rest of this crate refuses to make or to guess among them.

use crate::create::{Locked, TRIES, seal};
use crate::goto::{GotoReport, goto_volumes};
use crate::select::device;
use crate::system::{System, check_unmarked};
use std::collections::BTreeMap;
use std::sync::Arc;
use stillpoint_store::catalog::{Catalog, SnapshotState};
use stillpoint_store::disk::DiskFile;
use stillpoint_store::format::entry::{Content, Op, SessionKind};
use stillpoint_store::format::snapshot::SnapshotRecord;
use stillpoint_store::id::Uid;
use stillpoint_store::image::Access;
use stillpoint_store::log::salvage::DEVICE_LABEL;
use stillpoint_store::object::Purse;
use stillpoint_store::ops::ingest::{Input, Writer};
use stillpoint_store::progress::Progress;
use stillpoint_store::volume::Sealed;
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
    fn of(snapshot: &SnapshotState) -> Self {
        let record = &snapshot.record;
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

/// The device that a snapshot is made of, and what was sealed of it if it is a volume.
struct Of<'a, 'v> {
    locked: &'a Locked,
    sealed: Option<&'a Sealed<'v>>,
}

impl System {
    /// A device's snapshots in the order in which they were made.
    pub fn list_raw(&self, name: &str) -> Result<Vec<RawSnapshot>> {
        let catalog = self.store.refresh()?;
        let uid = device(&catalog, name)?.uid;
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
        // What cannot be is found before the image is read.
        id(&raw_list(&self.store.catalog(), &locked.uid))?;
        let mut writer = Writer::new(&self.store, SessionKind::Writer, Purse::Free)?;
        let sealed = seal(volumes.as_ref(), std::slice::from_ref(&locked))?;
        let of = Of {
            locked: &locked,
            sealed: sealed.as_ref(),
        };
        let made = self.create_raw_with(&mut writer, &of, create, id, progress);
        if made.is_err() {
            // What made it fail is what the caller is to hear.
            writer.abandon().unwrap_or_default();
        }
        let (made, catalog) = made?;
        sealed.map_or(Ok(()), |sealed| sealed.settle(&catalog))?;
        Ok(made)
    }

    fn create_raw_with(
        &self,
        writer: &mut Writer<'_>,
        of: &Of<'_, '_>,
        create: &CreateRaw<'_>,
        id: ChooseRawId<'_>,
        progress: &Progress,
    ) -> Result<(RawSnapshot, Arc<Catalog>)> {
        let uid = self.store.new_uid();
        let locked = of.locked;
        let mut tries = 0;
        loop {
            let (content, vm_state) = self.ingest_raw(writer, of, create, progress)?;
            let mut record = SnapshotRecord {
                uid,
                device: locked.uid,
                id: id(&raw_list(&self.store.catalog(), &locked.uid))?,
                name: create.name.to_vec(),
                date_sec: create.date.sec,
                date_nsec: create.date.nsec,
                vm_clock_nsec: create.vm_clock_nsec,
                icount: create.icount,
                vm_state,
                content,
                group: None,
                parent: locked.parent_uid,
                extra: Vec::new(),
                labels: BTreeMap::from([(DEVICE_LABEL.into(), locked.name.clone())]),
            };
            record.check()?;
            writer.store_record(&record)?;
            let finished = writer.finish(&mut |catalog| {
                record.id = id(&raw_list(catalog, &locked.uid))?;
                record.check()?;
                let put = Op::PutSnapshot {
                    record: record.clone(),
                    gotos_begun: locked.gotos_begun,
                };
                let head = |sealed: &Sealed<'_>| sealed.ops(catalog, &[content], &[Some(uid)]);
                Ok(std::iter::once(put)
                    .chain(of.sealed.into_iter().flat_map(head))
                    .collect())
            });
            match finished {
                Ok(catalog) => {
                    let made = RawSnapshot::of(&SnapshotState { order: 0, record });
                    return Ok((made, catalog));
                }
                Err(e) if tries < TRIES && writer.forget(&e)? => tries += 1,
                Err(e) => return Err(e),
            }
        }
    }

    /// Disk and VM state in one stream of batches.
    fn ingest_raw(
        &self,
        writer: &mut Writer<'_>,
        of: &Of<'_, '_>,
        create: &CreateRaw<'_>,
        progress: &Progress,
    ) -> Result<(Content, Option<Content>)> {
        let locked = of.locked;
        let catalog = self.store.catalog();
        let reachable = |c: &Content| catalog.reachable(&c.root);
        let mut inputs = Vec::new();
        if let Some(image) = &locked.image {
            inputs.push(Input {
                file: image.file(),
                size: image.size(),
                parent: locked.parent.filter(reachable),
                changed: None,
            });
        }
        inputs.extend(of.sealed.into_iter().flat_map(Sealed::inputs));
        if let Some(file) = create.vm_state {
            let mut latest = catalog.snapshots_of(&locked.uid).into_iter().rev();
            let parent = latest.find_map(|s| s.record.vm_state);
            inputs.push(Input {
                file,
                size: file.len()?,
                parent,
                changed: None,
            });
        }
        let known = |i| i == 0 && locked.volume;
        let read = writer.ingest_known(&inputs, &known, progress);
        // Also of one that could not be read to its end: that somebody changed it says more.
        if let Some(image) = &locked.image {
            image.check_unchanged()?;
        }
        let mut read = read?.into_iter().map(|i| i.content);
        let disk = if locked.image.is_some() || locked.volume {
            read.next()
        } else {
            locked.head
        };
        let disk = disk.ok_or_else(|| {
            let why = "the device has neither an image nor contents";
            Error::invalid("making a snapshot", why)
        })?;
        Ok((disk, read.next()))
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
    all.map(|s| RawSnapshot::of(s)).collect()
}

fn gone(device: &str) -> Error {
    Error::new(ErrorKind::NotFound, "looking for a snapshot")
        .detail(format!("it is not, or no longer, one of {device:?}"))
}
