//! An image file that is locked while it is read, in a form that several can own.

use crate::read_only::{Bytes, ReadOnly};
use std::path::Path;
use std::sync::Arc;
use stillpoint_store::Result;
use stillpoint_store::disk::{Disk, DiskFile, Extent, Stamp};
use stillpoint_store::image::{Access, Image};

/// See the module. Its locks end with its last clone.
#[derive(Debug, Clone)]
pub(crate) struct Locked(Arc<Image>);

impl Locked {
    /// Opens and locks an image for reading, as `Image::open` does.
    pub fn open(disk: &dyn Disk, path: &Path) -> Result<Self> {
        Image::open(disk, path, Access::Read).map(|image| Self(Arc::new(image)))
    }

    /// `Busy` if anybody has changed it since it was opened.
    pub fn check_unchanged(&self) -> Result<()> {
        self.0.check_unchanged()
    }

    /// For those who own a file.
    pub fn file(&self) -> Box<dyn DiskFile> {
        Box::new(ReadOnly(self.clone()))
    }
}

impl Bytes for Locked {
    fn len(&self) -> Result<u64> {
        self.0.file().len()
    }

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> Result<usize> {
        self.0.file().read_at(offset, buf)
    }

    fn extent(&self, offset: u64) -> Result<Extent> {
        self.0.file().extent(offset)
    }

    fn stamp(&self) -> Result<Stamp> {
        self.0.file().stamp()
    }
}
