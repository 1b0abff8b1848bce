//! An image file or block device that belongs to somebody else: opened with care, locked as QEMU locks it, and watched
//! for changes.

mod lock;
#[cfg(test)]
mod tests;

use crate::disk::{Disk, DiskFile, FileKind, OpenMode, Stamp};
use crate::error::{Error, ErrorKind, Result};
use std::io;
use std::path::{Path, PathBuf};

/// What an image is opened for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// Reading; others may read too, nobody may write.
    Read,
    /// Reading and writing, alone.
    Write,
}

/// An open image. Its locks end with it.
pub struct Image {
    file: Box<dyn DiskFile>,
    path: PathBuf,
    stamp: Stamp,
}

impl Image {
    /// Opens and locks an image. `Busy` while a program that locks images as QEMU does uses it in a way that conflicts; a
    /// writer that takes no locks cannot be seen.
    pub fn open(disk: &dyn Disk, path: &Path, access: Access) -> Result<Self> {
        check_kind(disk, path)?;
        let mode = match access {
            Access::Read => OpenMode::ReadImage,
            Access::Write => OpenMode::WriteImage,
        };
        let file = disk.open(path, mode).map_err(|e| explain(e, access))?;
        lock_file(file.as_ref(), path, access)?;
        // Taken under the lock: from here on nobody who heeds it changes the image.
        let stamp = file.stamp()?;
        Ok(Self {
            file,
            path: path.to_owned(),
            stamp,
        })
    }

    /// Bytes when it was opened.
    pub fn size(&self) -> u64 {
        self.stamp.len
    }

    /// The open file.
    pub fn file(&self) -> &dyn DiskFile {
        self.file.as_ref()
    }

    /// The path it was opened by.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// `Busy` if anybody has changed, removed or replaced the image since it was opened: then what was read may be a mix
    /// of old and new. One's own writes count as well.
    pub fn check_unchanged(&self) -> Result<()> {
        if self.file.stamp()? == self.stamp && self.file.is_still_named()? {
            return Ok(());
        }
        Err(Error::new(ErrorKind::Busy, "reading the image")
            .at(self.path.display())
            .detail("it changed while it was being read")
            .hint("make sure that nothing writes to it, then try again"))
    }
}

impl Drop for Image {
    fn drop(&mut self) {
        if let Some(real) = self.file.as_real() {
            lock::unlock(real);
        }
    }
}

impl std::fmt::Debug for Image {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Image")
            .field("path", &self.path)
            .field("stamp", &self.stamp)
            .finish_non_exhaustive()
    }
}

fn check_kind(disk: &dyn Disk, path: &Path) -> Result<()> {
    let what = match disk.kind(path) {
        Ok(FileKind::File | FileKind::BlockDevice) => return Ok(()),
        Ok(FileKind::Folder) => "a folder",
        Ok(FileKind::Fifo) => "a FIFO",
        Ok(FileKind::Socket) => "a socket",
        Ok(FileKind::Other) => "a character device",
        Err(e) if e.kind() == ErrorKind::NotFound => {
            // What the system said stays the cause: a file that is missing is not a missing snapshot.
            return Err(e.hint("check the path; a relative one starts in the current folder"));
        }
        Err(e) => return Err(e),
    };
    Err(Error::invalid(
        "opening the image",
        format!("it is {what}, not a disk image"),
    )
    .at(path.display())
    .hint("name an image file or a block device"))
}

/// Says what the user can do about a failed open.
fn explain(error: Error, access: Access) -> Error {
    let cause = std::error::Error::source(&error).and_then(|e| e.downcast_ref::<io::Error>());
    let denied = cause.is_some_and(|e| e.kind() == io::ErrorKind::PermissionDenied);
    let (detail, hint) = match (error.kind(), access) {
        (ErrorKind::Busy, _) => (
            "the device is mounted, or claimed by another program",
            "unmount it or end that program, then try again",
        ),
        (ErrorKind::ReadOnly, _) => (
            "it lies on a read-only file system",
            "mount the file system writable",
        ),
        (_, Access::Read) if denied => (
            "this user may not read it",
            "run as a user who may, or change its permissions",
        ),
        (_, Access::Write) if denied => (
            "this user may not write it",
            "run as a user who may, or change its permissions",
        ),
        _ => return error,
    };
    error.detail(detail).hint(hint)
}

fn lock_file(file: &dyn DiskFile, path: &Path, access: Access) -> Result<()> {
    if let Some(real) = file.as_real() {
        return lock::lock(real, path, access);
    }
    let locked = match access {
        Access::Read => file.try_lock_shared()?,
        Access::Write => file.try_lock()?,
    };
    if locked {
        Ok(())
    } else {
        Err(lock::refused(path, access))
    }
}
