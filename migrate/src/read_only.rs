//! Bytes that are only read, as a file that the engine takes in.

use stillpoint_store::disk::{DiskFile, Extent, Stamp};
use stillpoint_store::{Error, Result};

/// What a read-only file needs to know. The calls mean what those of `DiskFile` do.
pub(crate) trait Bytes: Send + Sync {
    /// Length in bytes.
    fn len(&self) -> Result<u64>;
    /// Fewer bytes only at the end.
    fn read_at(&self, offset: u64, buf: &mut [u8]) -> Result<usize>;
    /// The extent at `offset`.
    fn extent(&self, offset: u64) -> Result<Extent>;
    /// Whether an extent is known to be zeros.
    fn is_zeros(&self, _extent: &Extent) -> Result<bool> {
        Ok(false)
    }
    /// Change marks; those that never change, where others watch the file.
    fn stamp(&self) -> Result<Stamp> {
        Ok(Stamp {
            len: self.len()?,
            inode: (0, 0),
            times: (0, 0),
        })
    }
}

/// See the module.
pub(crate) struct ReadOnly<T>(pub T);

fn refused<T>() -> Result<T> {
    Err(Error::invalid("writing an image", "it is only read here"))
}

impl<T: Bytes> Bytes for &T {
    fn len(&self) -> Result<u64> {
        T::len(self)
    }

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> Result<usize> {
        T::read_at(self, offset, buf)
    }

    fn extent(&self, offset: u64) -> Result<Extent> {
        T::extent(self, offset)
    }

    fn is_zeros(&self, extent: &Extent) -> Result<bool> {
        T::is_zeros(self, extent)
    }

    fn stamp(&self) -> Result<Stamp> {
        T::stamp(self)
    }
}

impl<T: Bytes> DiskFile for ReadOnly<T> {
    fn len(&self) -> Result<u64> {
        self.0.len()
    }

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> Result<usize> {
        self.0.read_at(offset, buf)
    }

    fn write_at(&self, _: u64, _: &[u8]) -> Result<()> {
        refused()
    }

    fn set_len(&self, _: u64) -> Result<()> {
        refused()
    }

    fn punch(&self, _: u64, _: u64) -> Result<()> {
        refused()
    }

    fn allocate(&self, _: u64) -> Result<()> {
        refused()
    }

    fn extent(&self, offset: u64) -> Result<Extent> {
        self.0.extent(offset)
    }

    fn is_zeros(&self, extent: &Extent) -> Result<bool> {
        self.0.is_zeros(extent)
    }

    fn sync(&self) -> Result<()> {
        Ok(())
    }

    fn stamp(&self) -> Result<Stamp> {
        self.0.stamp()
    }

    fn try_lock(&self) -> Result<bool> {
        Ok(false)
    }

    fn try_lock_shared(&self) -> Result<bool> {
        Ok(true)
    }

    fn is_still_named(&self) -> Result<bool> {
        Ok(true)
    }
}
