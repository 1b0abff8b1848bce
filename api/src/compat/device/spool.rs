//! Active VM state on its way into a snapshot: a file without a name.

use std::fs::File;
use std::io::Write;
use std::os::unix::fs::FileExt;
use stillpoint_store::disk::{DiskFile, Extent, Stamp};
use stillpoint_store::{Error, Result};

/// Bytes that nobody else can reach, in the folder for temporary files (`TMPDIR`). Gone with the process.
pub struct Spool {
    file: File,
}

impl Spool {
    /// An empty one.
    pub fn new() -> Result<Self> {
        let file = tempfile::tempfile();
        let file = file.map_err(|e| Error::io("making room for VM state", e))?;
        Ok(Self { file })
    }

    /// Bytes written so far, gaps included.
    pub fn len(&self) -> Result<u64> {
        let meta = self.file.metadata();
        Ok(meta.map_err(|e| Error::io("measuring VM state", e))?.len())
    }

    /// Writes at a position.
    pub fn write_at(&self, at: u64, bytes: &[u8]) -> Result<()> {
        let written = self.file.write_all_at(bytes, at);
        written.map_err(|e| Error::io("keeping VM state", e))
    }

    /// Reads from a position; zeros where nothing was written.
    pub fn read_at(&self, at: u64, into: &mut [u8]) -> Result<()> {
        let mut done = 0;
        while done < into.len() {
            match self.file.read_at(&mut into[done..], at + done as u64) {
                Ok(0) => break,
                Ok(n) => done += n,
                Err(e) if e.kind() == std::io::ErrorKind::Interrupted => {}
                Err(e) => return Err(Error::io("reading VM state", e)),
            }
        }
        into[done..].fill(0);
        Ok(())
    }

    /// Appends, for whoever streams into it.
    pub fn append(&self) -> impl Write + '_ {
        &self.file
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

    fn extent(&self, offset: u64) -> Result<Extent> {
        // Nobody but this process sees it, so that what was never written may be told from zeros or not.
        let written = self.spool.len()?.min(self.len);
        let (end, data) = if offset < written {
            (written, true)
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
