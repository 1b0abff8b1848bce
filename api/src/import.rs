//! An image taken in as a device that needs no image any more.

use crate::commit::Planned;
use crate::create::{Created, Inputs, Locked, report};
use crate::draft::{Draft, name_of};
use crate::name::{check_device_name, check_snapshot_name};
use crate::system::System;
use std::path::Path;
use stillpoint_store::catalog::Catalog;
use stillpoint_store::format::entry::{Op, SessionKind};
use stillpoint_store::image::{Access, Image};
use stillpoint_store::object::Purse;
use stillpoint_store::ops::ingest::Writer;
use stillpoint_store::progress::Progress;
use stillpoint_store::{Error, ErrorKind, Result};

/// What to take in.
#[derive(Debug, Clone)]
pub struct Import<'a> {
    /// The image.
    pub image: &'a Path,
    /// The device's name: new, or of a device without an image, which gets another snapshot.
    pub device: &'a str,
    /// The snapshot's name; by default the time.
    pub name: Option<&'a str>,
}

impl System {
    /// Takes an image in: the device, its snapshot and its head are there when this returns, or none of them.
    pub fn import(&self, import: &Import<'_>, progress: &Progress) -> Result<Created> {
        check_device_name(import.device)?;
        if let Some(name) = import.name {
            check_snapshot_name(name)?;
        }
        self.tidy()?;
        let image = Image::open(&*self.disk, import.image, Access::Read)?;
        let catalog = self.store.refresh()?;
        check_unattached(&catalog, import.device)?;
        let known = catalog.device_named(import.device);
        let base = known.and_then(|d| d.base);
        let device = Locked {
            uid: known.map_or_else(|| self.store.new_uid(), |d| d.uid),
            name: import.device.into(),
            image: Some(image),
            volume: false,
            head: None,
            gotos_begun: known.map_or(0, |d| d.gotos_begun),
            parent: known.and_then(|d| d.head),
            parent_uid: base,
            vm_parent: None,
            read_only: true,
        };
        let date = self.store.now();
        let group = self.store.new_uid();
        let draft = Draft {
            name: import.name.map_or_else(|| name_of(date), Into::into),
            generated: import.name.is_none(),
            date,
            group: Some(group),
            vm_clock_nsec: 0,
            icount: None,
        };
        let writer = Writer::new(&self.store, SessionKind::Writer, Purse::Free)?;
        let (devices, uids) = ([device], [self.store.new_uid()]);
        let inputs = Inputs {
            devices: &devices,
            changed: None,
            vm: None,
            sealed: None,
        };
        let made = self.commit_snapshots(
            writer,
            &mut |writer| self.ingest(writer, &inputs, progress),
            &mut |catalog, taken| {
                check_unattached(catalog, import.device)?;
                let records = draft.records(catalog, &devices, &uids, taken)?;
                let planned = inputs.plan(catalog, records);
                Ok(with_its_device(&devices[0], planned))
            },
        )?;
        Ok(Created {
            group,
            devices: report(&devices, &made.records, &made.taken),
        })
    }
}

/// The device comes before the snapshot of it, and the snapshot before the head that it is.
fn with_its_device(device: &Locked, planned: Planned) -> Planned {
    let put_device = Op::PutDevice {
        uid: device.uid,
        name: device.name.clone(),
        attachment: None,
    };
    let heads = planned.records.iter().map(|record| Op::PutHead {
        uid: device.uid,
        head: Some(record.content),
        base: Some(record.uid),
    });
    let ops = std::iter::once(put_device).chain(planned.ops).chain(heads);
    Planned {
        ops: ops.collect(),
        records: planned.records,
    }
}

pub(crate) fn check_unattached(catalog: &Catalog, name: &str) -> Result<()> {
    match catalog.device_named(name) {
        Some(d) if d.attachment.is_some() => Err(Error::new(
            ErrorKind::AlreadyExists,
            format!("importing into device {name:?}"),
        )
        .detail("it stands for an image of its own")
        .hint("choose another name, or use `still create`")),
        Some(d) if d.volume.is_some() => Err(Error::new(
            ErrorKind::AlreadyExists,
            format!("importing into device {name:?}"),
        )
        .detail("it is a volume, which is written to")
        .hint("choose another name, and `still volume create NAME --from` it")),
        _ => Ok(()),
    }
}
