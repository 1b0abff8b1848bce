//! VM state: taken in with a snapshot through the same clusters as its disk, and read back.

use crate::create::Locked;
use crate::select::SnapshotRef;
use crate::system::System;
use std::io::{self, Read, Write};
use std::path::Path;
use stillpoint_store::disk::DiskFile;
use stillpoint_store::disk::real::RealDisk;
use stillpoint_store::format::entry::Content;
use stillpoint_store::format::snapshot::SnapshotRecord;
use stillpoint_store::id::Uid;
use stillpoint_store::image::{Access, Image};
use stillpoint_store::progress::Progress;
use stillpoint_store::{Error, ErrorKind, Result};

/// VM state to store with a group, on one of its devices.
pub struct VmState<'a> {
    /// The device that gets it, one of the group; by default the one that `all_find_vmstate` names.
    pub device: Option<&'a str>,
    /// Its bytes.
    pub bytes: VmBytes<'a>,
}

/// Where VM state comes from.
pub enum VmBytes<'a> {
    /// A file or block device, read in place. It must not change meanwhile.
    File(&'a Path),
    /// A stream of any length but none. It is kept in an unnamed temporary file (`TMPDIR`) until the snapshot is made, since
    /// an operation that met a gc reads again.
    Stream(&'a mut dyn Read),
}

/// What of a snapshot is meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Part {
    /// The disk.
    #[default]
    Disk,
    /// The saved VM state.
    VmState,
}

/// VM state that is ready to be read, as often as need be.
pub(crate) enum Source {
    Image(Image),
    Spool(Box<dyn DiskFile>),
}

impl Source {
    pub(crate) fn open(system: &System, bytes: VmBytes<'_>) -> Result<Self> {
        let source = match bytes {
            VmBytes::File(path) => Self::Image(Image::open(&*system.disk, path, Access::Read)?),
            VmBytes::Stream(stream) => Self::Spool(spool(stream)?),
        };
        // A program that was to write it and failed looks like this.
        if source.file().is_empty()? {
            let why = "there is no byte of it";
            return Err(Error::invalid("taking VM state in", why)
                .hint("make a snapshot without VM state if the VM is not running"));
        }
        Ok(source)
    }

    pub(crate) fn file(&self) -> &dyn DiskFile {
        match self {
            Self::Image(image) => image.file(),
            Self::Spool(file) => file.as_ref(),
        }
    }

    /// Nobody else reaches a spool.
    pub(crate) fn check_unchanged(&self) -> Result<()> {
        match self {
            Self::Image(image) => image.check_unchanged(),
            Self::Spool(_) => Ok(()),
        }
    }
}

fn spool(stream: &mut dyn Read) -> Result<Box<dyn DiskFile>> {
    let failed = |e| Error::io("keeping VM state in a temporary file", e);
    let mut file = tempfile::tempfile().map_err(failed)?;
    io::copy(stream, &mut file).map_err(|e| Error::io("reading VM state", e))?;
    Ok(RealDisk::adopt(file, Path::new("VM state")))
}

/// Position in the group of the device that VM state goes to.
pub(crate) fn chosen(devices: &[Locked], name: Option<&str>) -> Result<usize> {
    let found = match name {
        Some(name) => devices.iter().position(|d| d.name == name),
        None => Some(devices.iter().position(|d| !d.read_only).unwrap_or(0)),
    };
    found.ok_or_else(|| {
        let why = format!("device {:?} is not in the group", name.unwrap_or_default());
        Error::new(ErrorKind::NotFound, "storing VM state")
            .detail(why)
            .hint("name one of the devices that snapshots are made of")
    })
}

impl System {
    /// The contents that a reference means. `NotFound` for the VM state of a snapshot without any.
    pub fn content_of(&self, reference: &str, part: Part) -> Result<Content> {
        if part == Part::Disk {
            return self.resolve(reference).map(|(content, _)| content);
        }
        let parsed = SnapshotRef::parse(reference)?;
        let catalog = self.store.refresh()?;
        let device = crate::select::device(&catalog, &parsed.device)?;
        let selector = parsed.snapshot.ok_or_else(|| {
            Error::invalid(
                "reading VM state",
                format!("{reference:?} names no snapshot"),
            )
            .hint("name one, as in DEVICE@SNAPSHOT")
        })?;
        part_of(&selector.get(&catalog, device)?.record, part)
    }

    /// The same of a snapshot known by its uid.
    pub fn content_of_uid(&self, uid: Uid, part: Part) -> Result<Content> {
        let catalog = self.store.refresh()?;
        let snapshot = catalog.snapshot(&uid).ok_or_else(|| {
            Error::new(ErrorKind::NotFound, format!("looking for snapshot {uid}"))
                .detail("there is none of that uid, or it was deleted")
        })?;
        part_of(&snapshot.record, part)
    }

    /// Streams the VM state of a snapshot, verified, and returns what it is.
    pub fn read_vm_state(
        &self,
        reference: &str,
        out: &mut dyn Write,
        progress: &Progress,
    ) -> Result<Content> {
        let content = self.content_of(reference, Part::VmState)?;
        self.store.restore_stream(content, out, progress)?;
        Ok(content)
    }

    /// The same of a snapshot known by its uid.
    pub fn read_vm_state_of(
        &self,
        uid: Uid,
        out: &mut dyn Write,
        progress: &Progress,
    ) -> Result<Content> {
        let content = self.content_of_uid(uid, Part::VmState)?;
        self.store.restore_stream(content, out, progress)?;
        Ok(content)
    }
}

fn part_of(record: &SnapshotRecord, part: Part) -> Result<Content> {
    match part {
        Part::Disk => Ok(record.content),
        Part::VmState => record.vm_state.ok_or_else(|| {
            let name = crate::view::text(&record.name);
            Error::new(ErrorKind::NotFound, "reading VM state")
                .detail(format!("snapshot {name:?} has none on this device"))
                .hint("`still list` shows where VM state is: one device of a group has it")
        }),
    }
}
