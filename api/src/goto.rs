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
use stillpoint_store::volume::{GotoVolume, Volumes};
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
    /// Makes the devices' images, volumes, or the heads of devices that are neither, hold a snapshot.
    pub fn goto(
        &self,
        snapshot: &str,
        devices: &[String],
        progress: &Progress,
    ) -> Result<GotoReport> {
        let volumes = self.volumes_for(devices)?;
        self.goto_with(volumes.as_ref(), snapshot, devices, progress)
    }

    /// The same through volumes that are open. That no client writes to them, or has asked for it, is for the caller to see to.
    pub fn goto_on(
        &self,
        volumes: &Volumes<'_>,
        snapshot: &str,
        devices: &[String],
        progress: &Progress,
    ) -> Result<GotoReport> {
        self.goto_with(Some(volumes), snapshot, devices, progress)
    }

    fn goto_with(
        &self,
        volumes: Option<&Volumes<'_>>,
        snapshot: &str,
        devices: &[String],
        progress: &Progress,
    ) -> Result<GotoReport> {
        let selector = Selector::parse(snapshot)?;
        self.tidy()?;
        let locked = self.lock_devices(volumes, devices, Access::Write)?;
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
        let of_volumes = locked.iter().filter(|d| d.volume).count();
        if let Some(volumes) = volumes
            && of_volumes == locked.len()
        {
            return goto_volumes(volumes, &locked, &targets);
        }
        if attached == 0 && of_volumes == 0 {
            return self.goto_heads(&locked, &targets);
        }
        if attached < locked.len() {
            let why = "images, volumes, and devices that are neither cannot go in one step";
            return Err(
                Error::invalid("going to a snapshot", why).hint("name them in several commands")
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
        Ok(nothing_written(devices, targets))
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
                ErrorKind::NotFound => e.hint(
                    "bring the image back to that path; where it is gone for good, put the snapshot there with \
                     `still export`; then finish the goto",
                ),
                _ => e,
            })?);
        }
        Ok(images)
    }
}

/// Volumes alone, in one entry.
pub(crate) fn goto_volumes(
    volumes: &Volumes<'_>,
    devices: &[Locked],
    targets: &[&SnapshotState],
) -> Result<GotoReport> {
    let target = |(d, t): (&Locked, &&SnapshotState)| GotoVolume {
        device: d.uid,
        content: t.record.content,
        snapshot: t.record.uid,
    };
    let all: Vec<GotoVolume> = devices.iter().zip(targets).map(target).collect();
    volumes.goto_group(&all)?;
    Ok(nothing_written(devices, targets))
}

fn nothing_written(devices: &[Locked], targets: &[&SnapshotState]) -> GotoReport {
    let went = |(d, t): (&Locked, &&SnapshotState)| WentDevice {
        device: d.name.clone(),
        snapshot: crate::view::text(&t.record.name),
        size: t.record.content.size,
        read: 0,
        written: 0,
    };
    GotoReport {
        devices: devices.iter().zip(targets).map(went).collect(),
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
