//! An image taken in as a device that needs no image any more.

use crate::create::{Created, CreatedDevice, Draft, Inputs, Locked, TRIES};
use crate::name::{check_device_name, check_snapshot_name};
use crate::system::System;
use std::path::Path;
use stillpoint_store::catalog::Catalog;
use stillpoint_store::format::entry::{Op, SessionKind};
use stillpoint_store::id::Uid;
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
        let draft = Draft {
            name: import
                .name
                .map_or_else(|| crate::create::name_of(date), Into::into),
            generated: import.name.is_none(),
            date,
            group: Some(self.store.new_uid()),
            vm_clock_nsec: 0,
            icount: None,
        };
        let mut writer = Writer::new(&self.store, SessionKind::Writer, Purse::Free)?;
        let made = self.import_with(&mut writer, device, &draft, progress);
        if made.is_err() {
            // What made it fail is what the caller is to hear.
            writer.abandon().unwrap_or_default();
        }
        Ok(Created {
            group: draft.group.unwrap_or(Uid([0; 16])),
            devices: vec![made?],
        })
    }

    fn import_with(
        &self,
        writer: &mut Writer<'_>,
        device: Locked,
        draft: &Draft,
        progress: &Progress,
    ) -> Result<CreatedDevice> {
        let uid = self.store.new_uid();
        let devices = [device];
        let device = &devices[0];
        let inputs = Inputs {
            devices: &devices,
            changed: None,
            vm: None,
            sealed: None,
        };
        let mut tries = 0;
        loop {
            let ingested = self.ingest(writer, &inputs, progress)?;
            let content = ingested[0].disk.content;
            let mut record = draft
                .records(&self.store.catalog(), &devices, &[uid], &ingested)?
                .remove(0);
            writer.store_record(&record)?;
            let finished = writer.finish(&mut |catalog| {
                check_unattached(catalog, &device.name)?;
                record = draft
                    .records(catalog, &devices, &[uid], &ingested)?
                    .remove(0);
                let name = device.name.clone();
                Ok(vec![
                    Op::PutDevice {
                        uid: device.uid,
                        name,
                        attachment: None,
                    },
                    Op::PutSnapshot {
                        record: record.clone(),
                        gotos_begun: device.gotos_begun,
                    },
                    Op::PutHead {
                        uid: device.uid,
                        head: Some(content),
                        base: Some(uid),
                    },
                ])
            });
            match finished {
                Ok(_) => {
                    return Ok(CreatedDevice {
                        device: device.name.clone(),
                        uid,
                        id: crate::view::text(&record.id),
                        name: crate::view::text(&record.name),
                        content,
                        counts: ingested[0].disk.counts,
                        vm_state: None,
                    });
                }
                Err(e) if tries < TRIES && writer.forget(&e)? => tries += 1,
                Err(e) => return Err(e),
            }
        }
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
