//! Back to a snapshot, on one, some or all devices: all or none.

use crate::create::Locked;
use crate::select::Selector;
use crate::system::{System, choose};
use stillpoint_store::catalog::{Catalog, SnapshotState};
use stillpoint_store::disk::{Disk, DiskFile, FileKind};
use stillpoint_store::format::entry::{GotoRecord, GotoResult, Op, SessionKind};
use stillpoint_store::image::{Access, Image};
use stillpoint_store::object::Purse;
use stillpoint_store::ops::goto::{Target, Went};
use stillpoint_store::progress::Progress;
use stillpoint_store::{Error, ErrorKind, Result};

/// What a goto did.
#[derive(Debug, Clone)]
pub struct GotoReport {
    /// The devices.
    pub devices: Vec<WentDevice>,
}

/// One device of it.
#[derive(Debug, Clone)]
pub struct WentDevice {
    /// The device's name.
    pub device: String,
    /// Name of the snapshot that it holds now; empty after undoing to contents that no snapshot has.
    pub snapshot: String,
    /// Bytes of the disk now.
    pub size: u64,
    /// Bytes read to learn what differs.
    pub read: u64,
    /// Bytes written to the image.
    pub written: u64,
}

impl System {
    /// Makes the devices' images, or the heads of devices without one, hold a snapshot.
    pub fn goto(
        &self,
        snapshot: &str,
        devices: &[String],
        progress: &Progress,
    ) -> Result<GotoReport> {
        let selector = Selector::parse(snapshot)?;
        self.tidy()?;
        let locked = self.lock_devices(devices, Access::Write)?;
        if locked.is_empty() {
            return Err(Error::new(ErrorKind::NotFound, "going to a snapshot")
                .detail("no device is attached")
                .hint("name devices without an image with --device"));
        }
        let catalog = self.store.catalog();
        let mut targets = Vec::with_capacity(locked.len());
        for d in &locked {
            let device = crate::select::device(&catalog, &d.name)?;
            targets.push(selector.get(&catalog, device)?);
        }
        let attached = locked.iter().filter(|d| d.image.is_some()).count();
        if attached == 0 {
            return self.goto_heads(&locked, &targets);
        }
        if attached < locked.len() {
            let why = "devices with and without an image cannot go in one step";
            return Err(
                Error::invalid("going to a snapshot", why).hint("name them in two commands")
            );
        }
        self.goto_images(&locked, &targets, progress)
    }

    pub(crate) fn goto_heads(
        &self,
        devices: &[Locked],
        targets: &[&SnapshotState],
    ) -> Result<GotoReport> {
        let put = |(d, t): (&Locked, &&SnapshotState)| Op::PutHead {
            uid: d.uid,
            head: Some(t.record.content),
            base: Some(t.record.uid),
        };
        let ops: Vec<Op> = devices.iter().zip(targets).map(put).collect();
        self.store
            .commit(SessionKind::Writer, Purse::Free, &mut |_| Ok(ops.clone()))?;
        let went = |(d, t): (&Locked, &&SnapshotState)| WentDevice {
            device: d.name.clone(),
            snapshot: crate::view::text(&t.record.name),
            size: t.record.content.size,
            read: 0,
            written: 0,
        };
        Ok(GotoReport {
            devices: devices.iter().zip(targets).map(went).collect(),
        })
    }

    pub(crate) fn goto_images(
        &self,
        devices: &[Locked],
        targets: &[&SnapshotState],
        progress: &Progress,
    ) -> Result<GotoReport> {
        let all: Vec<Target<'_>> = devices
            .iter()
            .zip(targets)
            .filter_map(|(d, t)| target_of(&*self.disk, d, t))
            .collect();
        let went = self.store.goto(&all, progress)?;
        Ok(report(&self.store.catalog(), &went))
    }

    /// Completes every goto that was cut off, or takes it back.
    pub fn goto_resume(&self, to: GotoResult, progress: &Progress) -> Result<GotoReport> {
        let mut went = Vec::new();
        let catalog = self.store.refresh()?;
        let records: Vec<GotoRecord> = catalog.gotos().map(|g| GotoRecord::clone(g)).collect();
        if records.is_empty() {
            return Err(
                Error::new(ErrorKind::NotFound, "taking up a goto").detail("none was cut off")
            );
        }
        for record in records {
            let images = self.lock_record(&record)?;
            // Somebody else may have ended it before the locks were ours.
            if !self.store.refresh()?.gotos().any(|g| g.uid == record.uid) {
                continue;
            }
            let files: Vec<&dyn DiskFile> = images.iter().map(Image::file).collect();
            went.extend(self.store.resume_goto(&record, &files, to, progress)?);
        }
        Ok(report(&self.store.catalog(), &went))
    }

    fn lock_record(&self, record: &GotoRecord) -> Result<Vec<Image>> {
        let catalog = self.store.catalog();
        let names: Vec<String> = record
            .devices
            .iter()
            .filter_map(|d| catalog.device(&d.device).map(|d| d.name.clone()))
            .collect();
        let devices = choose(&catalog, &names, |_| false)?;
        let mut images = Vec::with_capacity(devices.len());
        for d in devices {
            let attachment = d.attachment.as_ref().ok_or_else(|| {
                Error::new(
                    ErrorKind::NotFound,
                    format!("taking up a goto of device {:?}", d.name),
                )
                .detail("it has no image any more")
            })?;
            let image = self.open_image(&d.name, attachment, Access::Write);
            images.push(image.map_err(|e| match e.kind() {
                // A marked device keeps its attachment: both ends of the goto are of that image.
                ErrorKind::NotFound => {
                    e.hint("bring the image back to that path, then finish or undo the goto")
                }
                _ => e,
            })?);
        }
        Ok(images)
    }
}

fn target_of<'a>(disk: &dyn Disk, d: &'a Locked, snapshot: &SnapshotState) -> Option<Target<'a>> {
    d.image.as_ref().map(|image| Target {
        device: d.uid,
        file: image.file(),
        fixed_size: disk
            .kind(image.path())
            .is_ok_and(|kind| kind == FileKind::BlockDevice),
        parent: d.parent,
        base: d.parent_uid,
        target: snapshot.record.content,
        snapshot: snapshot.record.uid,
    })
}

fn report(catalog: &Catalog, went: &[Went]) -> GotoReport {
    let one = |w: &Went| {
        let device = catalog.device(&w.device);
        let base = device
            .and_then(|d| d.base)
            .and_then(|uid| catalog.snapshot(&uid));
        WentDevice {
            device: device.map(|d| d.name.clone()).unwrap_or_default(),
            snapshot: base
                .map(|s| crate::view::text(&s.record.name))
                .unwrap_or_default(),
            size: w.size,
            read: w.read,
            written: w.written,
        }
    };
    GotoReport {
        devices: went.iter().map(one).collect(),
    }
}
