//! Active VM state on its way into a snapshot: a file without a name.

use std::path::Path;
use stillpoint_store::disk::real::RealDisk;
use stillpoint_store::disk::{DiskFile, Extent, Stamp};
use stillpoint_store::ops::diff::ExtentKind;
use stillpoint_store::ops::view::View;
use stillpoint_store::{Error, Result};

/// Bytes that are copied at a time.
const COPY_BYTES: usize = 1 << 20;

/// Bytes that nobody else can reach, in the folder for temporary files (`TMPDIR`). Gone with the process.
pub struct Spool {
    file: Box<dyn DiskFile>,
}

impl Spool {
    /// An empty one.
    pub fn new() -> Result<Self> {
        let file = tempfile::tempfile();
        let file = file.map_err(|e| Error::io("making room for VM state", e))?;
        let file = RealDisk::adopt(file, Path::new("VM state"));
        Ok(Self { file })
    }

    /// Bytes written so far, gaps included.
    pub fn len(&self) -> Result<u64> {
        self.file.len()
    }

    /// Writes at a position.
    pub fn write_at(&self, at: u64, bytes: &[u8]) -> Result<()> {
        self.file.write_at(at, bytes)
    }

    /// Reads from a position; zeros where nothing was written.
    pub fn read_at(&self, at: u64, into: &mut [u8]) -> Result<()> {
        super::read_padded(&*self.file, at, into)
    }

    /// A copy of what a view shows; holes and zeros take no room.
    pub fn of(view: &View<'_>) -> Result<Self> {
        let spool = Self::new()?;
        spool.file.set_len(view.content().size)?;
        let mut buffer = vec![0; COPY_BYTES];
        for extent in view.extents(0, u64::MAX)? {
            let extent = extent?;
            if extent.kind != ExtentKind::Data {
                continue;
            }
            let end = extent.start + extent.length;
            let mut at = extent.start;
            while at < end {
                let part = (end - at).min(COPY_BYTES as u64) as usize;
                view.read_at(at, &mut buffer[..part])?;
                spool.write_at(at, &buffer[..part])?;
                at += part as u64;
            }
        }
        Ok(spool)
    }
}

/// The first bytes of a spool as a file to take in; zeros where it has fewer.
pub struct Part<'a> {
    /// The spool.
    pub spool: &'a Spool,
    /// How many.
    pub len: u64,
}

fn read_only<T>() -> Result<T> {
    Err(Error::invalid("keeping VM state", "it is only read here"))
}

impl DiskFile for Part<'_> {
    fn len(&self) -> Result<u64> {
        Ok(self.len)
    }

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> Result<usize> {
        let n = self.len.saturating_sub(offset).min(buf.len() as u64) as usize;
        self.spool.read_at(offset, &mut buf[..n])?;
        Ok(n)
    }

    fn write_at(&self, _: u64, _: &[u8]) -> Result<()> {
        read_only()
    }

    fn set_len(&self, _: u64) -> Result<()> {
        read_only()
    }

    fn punch(&self, _: u64, _: u64) -> Result<()> {
        read_only()
    }

    fn allocate(&self, _: u64) -> Result<()> {
        read_only()
    }

    /// What was never written is a hole, so that a state with gaps costs what is in it.
    fn extent(&self, offset: u64) -> Result<Extent> {
        let there = self.spool.file.extent(offset)?;
        let (end, data) = if there.end > offset {
            (there.end.min(self.len), there.data)
        } else {
            (self.len, false)
        };
        Ok(Extent {
            start: offset,
            end: end.max(offset),
            data,
        })
    }

    fn sync(&self) -> Result<()> {
        Ok(())
    }

    fn stamp(&self) -> Result<Stamp> {
        Ok(Stamp {
            len: self.len,
            inode: (0, 0),
            times: (0, 0),
        })
    }

    fn try_lock(&self) -> Result<bool> {
        Ok(true)
    }

    fn try_lock_shared(&self) -> Result<bool> {
        Ok(true)
    }

    fn is_still_named(&self) -> Result<bool> {
        Ok(true)
    }
}
