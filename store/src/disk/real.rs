//! The operating system's file system. Every error names the operation and the path.

use super::{Disk, DiskFile, Extent, FileKind, OpenMode, Stamp};
use crate::error::{Error, Result};
use rustix::fs::{Access, AtFlags, FallocateFlags, FlockOperation, OFlags, SeekFrom};
use rustix::io::{Errno, ReadWriteFlags};
use std::fs::{File, Metadata, OpenOptions};
use std::io::{self, IoSliceMut};
use std::os::unix::fs::{FileExt, FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

/// Linux 6.14; rustix has no name for it.
const RWF_DONTCACHE: ReadWriteFlags = ReadWriteFlags::from_bits_retain(0x80);

/// Bytes of zeros written at a time where holes cannot be punched.
const ZEROS: usize = 1 << 20;

/// See the module.
#[derive(Debug, Clone, Copy, Default)]
pub struct RealDisk;

/// No file system has larger blocks.
const TAIL_BYTES: u64 = 64 << 10;

struct RealFile {
    file: File,
    path: PathBuf,
    kind: FileKind,
    /// Set for images until the file system says that it cannot.
    spare_cache: AtomicBool,
    locked: AtomicBool,
}

impl Drop for RealFile {
    fn drop(&mut self) {
        // Closing unlocks only with the last copy of the file; a child that is just being started has one until it becomes
        // its program.
        if self.locked.load(Ordering::Relaxed) {
            let _closing_does_it = rustix::fs::flock(&self.file, FlockOperation::Unlock);
        }
    }
}

fn kind_of(meta: &Metadata) -> FileKind {
    let kind = meta.file_type();
    if kind.is_file() {
        FileKind::File
    } else if kind.is_dir() {
        FileKind::Folder
    } else if kind.is_block_device() {
        FileKind::BlockDevice
    } else if kind.is_fifo() {
        FileKind::Fifo
    } else if kind.is_socket() {
        FileKind::Socket
    } else {
        FileKind::Other
    }
}

fn at(doing: &'static str, path: &Path) -> impl Fn(io::Error) -> Error {
    move |source| Error::io(doing, source).at(path.display())
}

/// Only these are ever opened: opening a FIFO waits for its other end, opening a device may do anything.
fn openable(path: &Path, kind: FileKind) -> Result<()> {
    let what = match kind {
        FileKind::File | FileKind::BlockDevice => return Ok(()),
        FileKind::Folder => "it is a folder",
        FileKind::Fifo | FileKind::Socket | FileKind::Other => {
            "it is neither a file nor a block device"
        }
    };
    Err(Error::invalid("opening", what).at(path.display()))
}

impl RealDisk {
    /// A file that somebody else opened for reading and writing, one without a name for example. `name` is for messages.
    pub fn adopt(file: File, name: &Path) -> Box<dyn DiskFile> {
        Box::new(RealFile {
            file,
            path: name.to_owned(),
            kind: FileKind::File,
            spare_cache: AtomicBool::new(false),
            locked: AtomicBool::new(false),
        })
    }
}

impl RealFile {
    fn open(path: &Path, mode: OpenMode) -> Result<Self> {
        let failed = at("opening", path);
        let mut options = OpenOptions::new();
        options.read(true).write(mode.writes());
        let mut flags = OFlags::NONBLOCK | OFlags::CLOEXEC;
        if mode == OpenMode::CreateNew {
            options.create_new(true);
        } else {
            let kind = kind_of(&std::fs::metadata(path).map_err(&failed)?);
            openable(path, kind)?;
            // Without O_CREAT this is the claim on a block device: refused while it is mounted or claimed.
            if mode.writes() && kind == FileKind::BlockDevice {
                flags |= OFlags::EXCL;
            }
        }
        options.custom_flags(flags.bits().cast_signed());
        let file = options.open(path).map_err(&failed)?;
        // The path may have changed since it was looked at; NONBLOCK kept that from waiting.
        let kind = kind_of(&file.metadata().map_err(&failed)?);
        openable(path, kind)?;
        let image = matches!(mode, OpenMode::ReadImage | OpenMode::WriteImage);
        Ok(Self {
            file,
            path: path.to_owned(),
            kind,
            spare_cache: AtomicBool::new(image),
            locked: AtomicBool::new(false),
        })
    }

    fn at(&self, doing: &'static str) -> impl Fn(io::Error) -> Error {
        at(doing, &self.path)
    }

    fn read_some(&self, offset: u64, buf: &mut [u8]) -> io::Result<usize> {
        if self.spare_cache.load(Ordering::Relaxed) {
            let mut parts = [IoSliceMut::new(buf)];
            match rustix::io::preadv2(&self.file, &mut parts, offset, RWF_DONTCACHE) {
                Err(Errno::OPNOTSUPP | Errno::INVAL | Errno::NOSYS) => {
                    self.spare_cache.store(false, Ordering::Relaxed);
                }
                done => return done.map_err(io::Error::from),
            }
        }
        self.file.read_at(buf, offset)
    }

    /// Asks the file system; false: it cannot do that here.
    fn fallocate(&self, mode: FallocateFlags, start: u64, len: u64) -> io::Result<bool> {
        loop {
            return match rustix::fs::fallocate(&self.file, mode, start, len) {
                Ok(()) => Ok(true),
                Err(Errno::INTR) => continue,
                // INVAL: a block device asked for a part of a sector.
                Err(Errno::OPNOTSUPP | Errno::NOSYS | Errno::NODEV | Errno::INVAL) => Ok(false),
                Err(e) => Err(e.into()),
            };
        }
    }

    fn write_zeros(&self, start: u64, end: u64) -> Result<()> {
        let zeros = vec![0; ZEROS.min((end - start) as usize)];
        let mut at = start;
        while at < end {
            let n = (end - at).min(zeros.len() as u64);
            self.write_at(at, &zeros[..n as usize])?;
            at += n;
        }
        Ok(())
    }

    fn seek(&self, to: SeekFrom) -> io::Result<Option<u64>> {
        match rustix::fs::seek(&self.file, to) {
            Ok(at) => Ok(Some(at)),
            Err(Errno::NXIO) => Ok(None),
            Err(e) => Err(e.into()),
        }
    }

    fn flock(&self, how: FlockOperation) -> Result<bool> {
        loop {
            return match rustix::fs::flock(&self.file, how) {
                Ok(()) => {
                    self.locked.store(true, Ordering::Relaxed);
                    Ok(true)
                }
                Err(Errno::INTR) => continue,
                Err(Errno::WOULDBLOCK) => Ok(false),
                Err(e) => Err(self.at("locking")(e.into())),
            };
        }
    }

    /// Device and inode; for a block device the device that it stands for, whatever node names it.
    fn identity(&self, meta: &Metadata) -> (u64, u64) {
        match self.kind {
            FileKind::BlockDevice => (meta.rdev(), 0),
            _ => (meta.dev(), meta.ino()),
        }
    }
}

impl DiskFile for RealFile {
    fn len(&self) -> Result<u64> {
        let len = match self.kind {
            FileKind::BlockDevice => {
                rustix::fs::seek(&self.file, SeekFrom::End(0)).map_err(io::Error::from)
            }
            _ => self.file.metadata().map(|meta| meta.len()),
        };
        len.map_err(self.at("reading the size of"))
    }

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> Result<usize> {
        let mut done = 0;
        while done < buf.len() {
            let here = offset + done as u64;
            match self.read_some(here, &mut buf[done..]) {
                Ok(0) => break,
                Ok(n) => done += n,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(self.at("reading")(e).offset(here)),
            }
        }
        Ok(done)
    }

    fn write_at(&self, offset: u64, data: &[u8]) -> Result<()> {
        self.file
            .write_all_at(data, offset)
            .map_err(|e| self.at("writing")(e).offset(offset))
    }

    fn set_len(&self, len: u64) -> Result<()> {
        if self.kind == FileKind::BlockDevice {
            let why = "a block device keeps its size";
            return Err(Error::invalid("resizing", why).at(self.path.display()));
        }
        self.file.set_len(len).map_err(self.at("resizing"))
    }

    fn punch(&self, start: u64, end: u64) -> Result<()> {
        let len = self.len()?;
        let end = end.min(len);
        if start >= end {
            return Ok(());
        }
        // The last block of a file becomes a hole only when it is punched whole.
        let is_tail = end == len && self.kind == FileKind::File;
        let block_end = if is_tail {
            end.next_multiple_of(TAIL_BYTES)
        } else {
            end
        };
        let ways = [
            (FallocateFlags::PUNCH_HOLE, block_end),
            (FallocateFlags::ZERO_RANGE, end),
        ];
        // On block devices both are the safe way to BLKZEROOUT.
        for (how, end) in ways {
            let done = self.fallocate(how | FallocateFlags::KEEP_SIZE, start, end - start);
            if done.map_err(|e| self.at("punching a hole into")(e).offset(start))? {
                return Ok(());
            }
        }
        self.write_zeros(start, end)
    }

    fn allocate(&self, len: u64) -> Result<()> {
        if len == 0 {
            return Ok(());
        }
        let done = self.fallocate(FallocateFlags::empty(), 0, len);
        if done.map_err(self.at("reserving space for"))? {
            return Ok(());
        }
        // Written bytes are reserved bytes, where file systems know no other way.
        let end = self.len()?;
        if end < len {
            self.write_zeros(end, len)
        } else {
            Ok(())
        }
    }

    fn extent(&self, offset: u64) -> Result<Extent> {
        let failed = |e| self.at("looking for holes in")(e).offset(offset);
        let len = self.len()?;
        if offset >= len {
            return Ok(Extent {
                start: offset,
                end: offset,
                data: false,
            });
        }
        let until = |end: Option<u64>, data| {
            // A file that grew or shrank meanwhile must not give an extent that is empty or past the end.
            let end = end
                .filter(|end| *end > offset)
                .map_or(len, |end| end.min(len));
            Extent {
                start: offset,
                end,
                data,
            }
        };
        match self.seek(SeekFrom::Data(offset)) {
            Ok(Some(data)) if data > offset => Ok(until(Some(data), false)),
            Ok(Some(_)) => {
                let hole = self.seek(SeekFrom::Hole(offset)).map_err(failed)?;
                Ok(until(hole, true))
            }
            Ok(None) => Ok(until(None, false)),
            Err(e)
                if matches!(
                    Errno::from_io_error(&e),
                    Some(Errno::INVAL | Errno::OPNOTSUPP)
                ) =>
            {
                Ok(until(None, true))
            }
            Err(e) => Err(failed(e)),
        }
    }

    fn sync(&self) -> Result<()> {
        self.file.sync_all().map_err(self.at("syncing"))
    }

    fn sync_data(&self) -> Result<()> {
        self.file.sync_data().map_err(self.at("syncing"))
    }

    fn sync_and_forget(&self) -> Result<()> {
        self.sync()?;
        match rustix::fs::fadvise(&self.file, 0, None, rustix::fs::Advice::DontNeed) {
            // Nothing is kept where that means nothing.
            Ok(()) | Err(Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP | Errno::SPIPE) => Ok(()),
            Err(e) => Err(self.at("reading again")(e.into())),
        }
    }

    fn stamp(&self) -> Result<Stamp> {
        let meta = self
            .file
            .metadata()
            .map_err(self.at("reading the times of"))?;
        let nanos = |sec: i64, nsec: i64| i128::from(sec) * 1_000_000_000 + i128::from(nsec);
        let times = match self.kind {
            FileKind::BlockDevice => (0, 0),
            _ => (
                nanos(meta.mtime(), meta.mtime_nsec()),
                nanos(meta.ctime(), meta.ctime_nsec()),
            ),
        };
        Ok(Stamp {
            len: self.len()?,
            inode: self.identity(&meta),
            times,
        })
    }

    fn try_lock(&self) -> Result<bool> {
        self.flock(FlockOperation::NonBlockingLockExclusive)
    }

    fn try_lock_shared(&self) -> Result<bool> {
        self.flock(FlockOperation::NonBlockingLockShared)
    }

    fn is_still_named(&self) -> Result<bool> {
        let failed = self.at("looking at");
        let there = match std::fs::metadata(&self.path) {
            Ok(meta) => meta,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(false),
            Err(e) => return Err(failed(e)),
        };
        let here = self.file.metadata().map_err(&failed)?;
        Ok(kind_of(&there) == self.kind && self.identity(&there) == self.identity(&here))
    }

    fn is_ours_alone(&self) -> Result<bool> {
        let failed = self.at("looking at");
        let Some(there) = unless(
            std::fs::symlink_metadata(&self.path),
            &[io::ErrorKind::NotFound],
        )
        .map_err(&failed)?
        else {
            return Ok(false);
        };
        let here = self.file.metadata().map_err(&failed)?;
        let same = there.is_file() && self.identity(&there) == self.identity(&here);
        Ok(same && here.nlink() == 1 && here.uid() == rustix::process::geteuid().as_raw())
    }

    fn as_real(&self) -> Option<&File> {
        Some(&self.file)
    }
}

/// `Ok(None)` where the error is of one of these kinds.
fn unless<T>(result: io::Result<T>, fine: &[io::ErrorKind]) -> io::Result<Option<T>> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(e) if fine.contains(&e.kind()) => Ok(None),
        Err(e) => Err(e),
    }
}

impl Disk for RealDisk {
    fn open(&self, path: &Path, mode: OpenMode) -> Result<Box<dyn DiskFile>> {
        Ok(Box::new(RealFile::open(path, mode)?))
    }

    fn kind(&self, path: &Path) -> Result<FileKind> {
        std::fs::metadata(path)
            .map(|meta| kind_of(&meta))
            .map_err(at("looking at", path))
    }

    fn create_folders(&self, path: &Path) -> Result<()> {
        std::fs::create_dir_all(path).map_err(at("making the folder", path))
    }

    fn link(&self, from: &Path, to: &Path) -> Result<bool> {
        let made = unless(
            std::fs::hard_link(from, to),
            &[io::ErrorKind::AlreadyExists],
        );
        made.map(|made| made.is_some()).map_err(|e| {
            let no_links = matches!(
                Errno::from_io_error(&e),
                Some(Errno::PERM | Errno::OPNOTSUPP)
            );
            let error = at("naming", to)(e);
            if no_links {
                error.hint("the file system may not know hard links; choose another one")
            } else {
                error
            }
        })
    }

    fn rename(&self, from: &Path, to: &Path) -> Result<()> {
        std::fs::rename(from, to).map_err(at("renaming", from))
    }

    fn remove(&self, path: &Path) -> Result<()> {
        let gone = unless(std::fs::remove_file(path), &[io::ErrorKind::NotFound]);
        gone.map(|_| ()).map_err(at("removing", path))
    }

    fn remove_folder(&self, path: &Path) -> Result<()> {
        let fine = [io::ErrorKind::NotFound, io::ErrorKind::DirectoryNotEmpty];
        unless(std::fs::remove_dir(path), &fine)
            .map(|_| ())
            .map_err(at("removing", path))
    }

    fn list(&self, path: &Path) -> Result<Vec<String>> {
        let failed = at("listing", path);
        let entries = unless(std::fs::read_dir(path), &[io::ErrorKind::NotFound]);
        let Some(entries) = entries.map_err(&failed)? else {
            return Ok(Vec::new());
        };
        let mut names = Vec::new();
        for entry in entries {
            // Names that are not UTF-8 are none of ours.
            if let Ok(name) = entry.map_err(&failed)?.file_name().into_string() {
                names.push(name);
            }
        }
        names.sort_unstable();
        Ok(names)
    }

    fn sync_folder(&self, path: &Path) -> Result<()> {
        let mut options = OpenOptions::new();
        options
            .read(true)
            .custom_flags(OFlags::DIRECTORY.bits().cast_signed());
        let done = options
            .open(path)
            .and_then(|folder| match folder.sync_all() {
                // The file system keeps no folders that could be synced.
                Err(e) if Errno::from_io_error(&e) == Some(Errno::INVAL) => Ok(()),
                done => done,
            });
        done.map_err(at("syncing the folder", path))
    }

    fn is_writable(&self, folder: &Path) -> bool {
        let rights = Access::WRITE_OK | Access::EXEC_OK;
        rustix::fs::accessat(rustix::fs::CWD, folder, rights, AtFlags::EACCESS).is_ok()
    }

    fn canonical(&self, path: &Path) -> Result<PathBuf> {
        std::fs::canonicalize(path).map_err(at("looking at", path))
    }
}

#[cfg(test)]
mod tests;
