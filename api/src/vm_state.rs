//! VM state on its way into a snapshot, through the same clusters as its disk.

use crate::create::Locked;
use crate::system::System;
use std::io::{self, Read};
use std::path::Path;
use stillpoint_store::catalog::DeviceState;
use stillpoint_store::disk::DiskFile;
use stillpoint_store::disk::real::RealDisk;
use stillpoint_store::image::{Access, Image};
use stillpoint_store::{Error, ErrorKind, Result};

/// VM state to store with a group, on one of its devices.
pub struct VmState<'a> {
    /// The device that gets it, one of the group; by default the one that `all_find_vmstate` names.
    pub device: Option<String>,
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

/// VM state that is ready to be read, as often as need be.
pub(crate) enum Source<'a> {
    Image(Image),
    Spool(Box<dyn DiskFile>),
    /// The caller's, who alone reaches it.
    Lent(&'a dyn DiskFile),
}

impl Source<'_> {
    pub(crate) fn open(system: &System, bytes: VmBytes<'_>) -> Result<Self> {
        let source = match bytes {
            VmBytes::File(path) => Self::Image(open_file(system, path)?),
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
            Self::Lent(file) => *file,
        }
    }

    /// Nobody else reaches a spool.
    pub(crate) fn check_unchanged(&self) -> Result<()> {
        match self {
            Self::Image(image) => image.check_unchanged(),
            Self::Spool(_) | Self::Lent(_) => Ok(()),
        }
    }
}

fn open_file(system: &System, path: &Path) -> Result<Image> {
    Image::open(&*system.disk, path, Access::Read).map_err(|e| {
        let e = e.of("VM state");
        match e.kind() {
            ErrorKind::InvalidInput => {
                e.hint("name a file; `--vm-state -` reads a pipe to its end")
            }
            _ => e,
        }
    })
}

fn spool(stream: &mut dyn Read) -> Result<Box<dyn DiskFile>> {
    let failed = |e| Error::io("keeping VM state in a temporary file", e);
    let mut file = tempfile::tempfile().map_err(failed)?;
    io::copy(stream, &mut file).map_err(|e| Error::io("reading VM state", e))?;
    Ok(RealDisk::adopt(file, Path::new("VM state")))
}

/// Nobody may write the device's image.
pub(crate) fn is_read_only(d: &DeviceState) -> bool {
    d.attachment.as_ref().is_some_and(|a| a.read_only)
}

/// Position in a group of the device that VM state goes to when none is chosen: the first whose image may be written, the
/// first of all where none may.
pub(crate) fn default_device<T>(group: &[T], read_only: impl Fn(&T) -> bool) -> usize {
    group.iter().position(|d| !read_only(d)).unwrap_or(0)
}

/// Position in the group of the device that VM state goes to.
pub(crate) fn chosen(devices: &[Locked], name: Option<&str>) -> Result<usize> {
    let found = match name {
        Some(name) => devices.iter().position(|d| d.name == name),
        None => Some(default_device(devices, |d| d.read_only)),
    };
    found.ok_or_else(|| {
        let why = format!("device {:?} is not in the group", name.unwrap_or_default());
        Error::new(ErrorKind::NotFound, "storing VM state")
            .detail(why)
            .hint("name one of the devices that snapshots are made of")
    })
}
