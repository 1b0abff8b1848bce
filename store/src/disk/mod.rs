//! The file system as the engine needs it: one small port, so that the same code runs on a real disk and on one that
//! crashes, tears, fills up and lies. `real` is the only file that writes through `std::fs`.

pub mod real;
#[cfg(any(test, feature = "testing"))]
pub mod sim;

use crate::error::Result;
use std::path::{Path, PathBuf};

/// How a file is opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OpenMode {
    /// Must exist; for reading.
    Read,
    /// Must exist; for reading and writing.
    Write,
    /// Must not exist; for reading and writing.
    CreateNew,
    /// As `Read`, of an image that is read once from end to end: the page cache is spared where that is possible.
    ReadImage,
    /// As `Write`, of an image. A block device that is mounted or otherwise in use is refused.
    WriteImage,
}

impl OpenMode {
    /// True when the file can be written through it.
    pub fn writes(self) -> bool {
        !matches!(self, Self::Read | Self::ReadImage)
    }
}

/// Identity and change marks of a file: equal stamps before and after mean that nobody wrote in between.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stamp {
    /// Length in bytes; for a block device its size.
    pub len: u64,
    /// Device and inode number.
    pub inode: (u64, u64),
    /// Modification and change time in nanoseconds since 1970. Constant for block devices.
    pub times: (i128, i128),
}

/// What a path names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FileKind {
    /// A regular file.
    File,
    /// A block device.
    BlockDevice,
    /// A folder.
    Folder,
    /// A named pipe: opening it waits for the other end.
    Fifo,
    /// A socket.
    Socket,
    /// A character device.
    Other,
}

/// A run of bytes and whether the file holds data there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Extent {
    /// First byte.
    pub start: u64,
    /// One past the last.
    pub end: u64,
    /// False: a hole, which reads as zeros.
    pub data: bool,
}

/// An open file. All calls take positions and may come from several threads.
pub trait DiskFile: Send + Sync {
    /// Length in bytes; for a block device its size.
    fn len(&self) -> Result<u64>;
    /// True when it holds no byte.
    fn is_empty(&self) -> Result<bool> {
        Ok(self.len()? == 0)
    }
    /// Reads up to `buf.len()` bytes; fewer only at the end of the file.
    fn read_at(&self, offset: u64, buf: &mut [u8]) -> Result<usize>;
    /// Writes all of `data`. Not durable before `sync`.
    fn write_at(&self, offset: u64, data: &[u8]) -> Result<()>;
    /// Cuts or extends with a hole. Not for block devices.
    fn set_len(&self, len: u64) -> Result<()>;
    /// Makes the range read as zeros: a hole where the file system can. Ends at the file's end, which does not move.
    fn punch(&self, start: u64, end: u64) -> Result<()>;
    /// Reserves space for `len` bytes, so that writes into it do not meet a full disk where the file system can do so. A
    /// shorter file becomes `len` bytes long and reads as zeros there.
    fn allocate(&self, len: u64) -> Result<()>;
    /// The extent at `offset`, up to the next change or the end of the file. Without support all is data. Empty exactly
    /// when `offset` is at or past the end.
    fn extent(&self, offset: u64) -> Result<Extent>;
    /// Whether an extent with data is known to be all zeros, without reading it: files of formats that say so.
    fn is_zeros(&self, _extent: &Extent) -> Result<bool> {
        Ok(false)
    }
    /// Contents and length survive a crash after this. A failure may have lost earlier writes for good.
    fn sync(&self) -> Result<()>;
    /// As `sync`, but what else the system knows of the file, its times for one, need not survive.
    fn sync_data(&self) -> Result<()> {
        self.sync()
    }
    /// As `sync`; what is read next comes from the medium, as far as the system can do that. A process that died may have been
    /// told of writes that failed, and the system then keeps in memory what the medium does not have.
    fn sync_and_forget(&self) -> Result<()> {
        self.sync()
    }
    /// Change marks now.
    fn stamp(&self) -> Result<Stamp>;
    /// Takes the whole-file lock of this open file (flock, exclusive) without waiting; false: somebody has it.
    /// Released when the file is dropped.
    fn try_lock(&self) -> Result<bool>;
    /// As `try_lock`, shared with others who take it shared.
    fn try_lock_shared(&self) -> Result<bool>;
    /// True while the path that it was opened by names this very file.
    fn is_still_named(&self) -> Result<bool>;
    /// True while that name is no link and the file's only one, and the file belongs to the user that this process runs as: what
    /// is written to it reaches nothing else. False where that is not known.
    fn is_ours_alone(&self) -> Result<bool> {
        Ok(false)
    }
    /// The file descriptor's door to image locks; `None` where locks make no sense.
    fn as_real(&self) -> Option<&std::fs::File> {
        None
    }
}

/// A tree of folders and files.
pub trait Disk: Send + Sync {
    /// Opens a file.
    fn open(&self, path: &Path, mode: OpenMode) -> Result<Box<dyn DiskFile>>;
    /// What the path names, following links; `NotFound` if nothing.
    fn kind(&self, path: &Path) -> Result<FileKind>;
    /// Makes a folder and those above it. Durable after `sync_folder` of the folders above.
    fn create_folders(&self, path: &Path) -> Result<()>;
    /// Gives the file a second name; false: the new name is taken.
    fn link(&self, from: &Path, to: &Path) -> Result<bool>;
    /// Renames, replacing what is there.
    fn rename(&self, from: &Path, to: &Path) -> Result<()>;
    /// Removes a file; nothing there is fine.
    fn remove(&self, path: &Path) -> Result<()>;
    /// Removes an empty folder; nothing there, or one that is not empty, is fine.
    fn remove_folder(&self, path: &Path) -> Result<()>;
    /// Names in a folder, sorted; none when there is no such folder.
    fn list(&self, path: &Path) -> Result<Vec<String>>;
    /// Names made in or removed from the folder so far survive a crash after this.
    fn sync_folder(&self, path: &Path) -> Result<()>;
    /// True when this process may make and remove names in the folder.
    fn is_writable(&self, folder: &Path) -> bool;
    /// The path without links and dots, for comparing.
    fn canonical(&self, path: &Path) -> Result<PathBuf>;
}
