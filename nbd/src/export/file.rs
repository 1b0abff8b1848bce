//! A raw image file or block device.

use super::{BASE_ALLOCATION, Export, ExportInfo, ZeroMode};
use crate::codec::{Extents, allocation, transmission};
use crate::errno::{Errno, Failure};
use rustix::fs::{FallocateFlags, SeekFrom as Seek};
use rustix::io::ReadWriteFlags;
use std::fs::File;
use std::io::{self, IoSliceMut};
use std::os::unix::fs::FileExt;
use std::path::Path;

/// A raw image. Its size is that of the moment it was opened. Takes no locks on the file.
#[derive(Debug)]
pub struct FileExport {
    file: File,
    size: u64,
    read_only: bool,
}

impl FileExport {
    /// Opens a file or block device for reading.
    pub fn read_only(path: &Path) -> io::Result<Self> {
        Self::of(File::open(path)?, true)
    }

    /// Opens a file or block device for reading and writing.
    pub fn writable(path: &Path) -> io::Result<Self> {
        Self::of(File::options().read(true).write(true).open(path)?, false)
    }

    fn of(file: File, read_only: bool) -> io::Result<Self> {
        let size = rustix::fs::seek(&file, Seek::End(0))?;
        Ok(Self {
            file,
            size,
            read_only,
        })
    }

    fn fallocate(&self, flags: FallocateFlags, offset: u64, len: u64) -> Result<(), Failure> {
        Ok(rustix::fs::fallocate(&self.file, flags, offset, len)?)
    }

    fn punch(&self, offset: u64, len: u64) -> Result<(), Failure> {
        let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
        self.fallocate(flags, offset, len)
    }

    fn synced(&self, fua: bool) -> Result<(), Failure> {
        if fua { self.flush() } else { Ok(()) }
    }

    fn fill_with_zeroes(&self, mut offset: u64, mut len: u64) -> Result<(), Failure> {
        let zeroes = vec![0; 1 << 20];
        while len > 0 {
            let n = len.min(zeroes.len() as u64);
            self.file.write_all_at(&zeroes[..n as usize], offset)?;
            (offset, len) = (offset + n, len - n);
        }
        Ok(())
    }
}

impl Export for FileExport {
    fn info(&self) -> ExportInfo {
        if self.read_only {
            ExportInfo::read_only(self.size)
        } else {
            let more = transmission::CAN_MULTI_CONN | transmission::SEND_FAST_ZERO;
            ExportInfo::writable(self.size).with(more)
        }
    }

    fn read(&self, buf: &mut [u8], offset: u64) -> Result<(), Failure> {
        Ok(self.file.read_exact_at(buf, offset)?)
    }

    fn read_now(&self, buf: &mut [u8], offset: u64) -> Result<bool, Failure> {
        let len = buf.len();
        let into = &mut [IoSliceMut::new(buf)];
        // A short or failed read is tried again by `read`, which says what is wrong.
        let read = rustix::io::preadv2(&self.file, into, offset, ReadWriteFlags::NOWAIT);
        Ok(read.is_ok_and(|n| n == len))
    }

    fn write(&self, data: &[u8], offset: u64, fua: bool) -> Result<(), Failure> {
        self.file.write_all_at(data, offset)?;
        self.synced(fua)
    }

    fn writes_at_once(&self) -> bool {
        true
    }

    fn write_zeroes(&self, offset: u64, len: u64, mode: ZeroMode) -> Result<(), Failure> {
        let done = if mode.no_hole {
            let flags = FallocateFlags::ZERO_RANGE | FallocateFlags::KEEP_SIZE;
            self.fallocate(flags, offset, len)
        } else {
            self.punch(offset, len)
        };
        match done {
            Err(failure) if failure.errno == Errno::NotSup && !mode.fast => {
                self.fill_with_zeroes(offset, len)?;
            }
            other => other?,
        }
        self.synced(mode.fua)
    }

    fn trim(&self, offset: u64, len: u64, fua: bool) -> Result<(), Failure> {
        match self.punch(offset, len) {
            // Nothing has to happen.
            Err(failure) if failure.errno == Errno::NotSup => {}
            other => other?,
        }
        self.synced(fua)
    }

    fn flush(&self) -> Result<(), Failure> {
        Ok(self.file.sync_data()?)
    }

    fn cache(&self, offset: u64, len: u64) -> Result<(), Failure> {
        let len = std::num::NonZeroU64::new(len);
        let advice = rustix::fs::Advice::WillNeed;
        Ok(rustix::fs::fadvise(&self.file, offset, len, advice)?)
    }

    fn block_status(
        &self,
        context: &str,
        offset: u64,
        len: u64,
        extents: &mut Extents,
    ) -> Result<(), Failure> {
        if context != BASE_ALLOCATION {
            return Err(Errno::Inval.into());
        }
        let (mut at, end) = (offset, offset + len);
        while at < end {
            // No data up to the end is ENXIO.
            let data = match rustix::fs::seek(&self.file, Seek::Data(at)) {
                Err(rustix::io::Errno::NXIO) => end,
                other => other?.min(end),
            };
            let hole = allocation::HOLE | allocation::ZERO;
            if data > at && !extents.push(data - at, hole) {
                break;
            }
            if data >= end {
                break;
            }
            let hole = match rustix::fs::seek(&self.file, Seek::Hole(data)) {
                Err(rustix::io::Errno::NXIO) => end,
                other => other?.min(end),
            };
            if hole <= data || !extents.push(hole - data, 0) {
                break;
            }
            at = hole;
        }
        Ok(())
    }
}
