//! A volume at the moment that it was sealed, as a file that an ingest reads.

use super::extents::merged;
use super::layers::Layers;
use crate::disk::{DiskFile, Extent, Stamp};
use crate::error::{Error, ErrorKind, Result};
use crate::ops::diff::ExtentKind;
use std::sync::Arc;

/// See the module. Nobody writes to it.
pub struct Frozen<'a> {
    layers: Arc<Layers<'a>>,
    size: u64,
}

impl<'a> Frozen<'a> {
    /// Of layers that take no writes any more.
    pub fn new(layers: Arc<Layers<'a>>) -> Self {
        let size = layers.size;
        Self { layers, size }
    }

    /// The same, cut at a smaller size.
    pub fn cut(layers: Arc<Layers<'a>>, size: u64) -> Self {
        Self { layers, size }
    }
}

fn never<T>() -> Result<T> {
    Err(Error::new(
        ErrorKind::ReadOnly,
        "writing to what was sealed",
    ))
}

impl DiskFile for Frozen<'_> {
    fn len(&self) -> Result<u64> {
        Ok(self.size)
    }

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> Result<usize> {
        let n = self.size.saturating_sub(offset).min(buf.len() as u64) as usize;
        self.layers.read(offset, &mut buf[..n])?;
        Ok(n)
    }

    /// Zeros that were written count as data: only what is read tells them from holes.
    fn extent(&self, offset: u64) -> Result<Extent> {
        let mut found = None;
        let is_data = |kind| kind != ExtentKind::Hole;
        if offset < self.size {
            merged(
                &self.layers,
                offset..self.size,
                &|a, b| is_data(a.kind) == is_data(b.kind),
                &mut |extent| {
                    found = Some(extent);
                    false
                },
            )?;
        }
        let empty = Extent {
            start: offset,
            end: offset,
            data: false,
        };
        Ok(found.map_or(empty, |e| Extent {
            start: e.start,
            end: e.start + e.length,
            data: is_data(e.kind),
        }))
    }

    fn write_at(&self, _: u64, _: &[u8]) -> Result<()> {
        never()
    }
    fn set_len(&self, _: u64) -> Result<()> {
        never()
    }
    fn punch(&self, _: u64, _: u64) -> Result<()> {
        never()
    }
    fn allocate(&self, _: u64) -> Result<()> {
        never()
    }
    fn sync(&self) -> Result<()> {
        Ok(())
    }
    fn stamp(&self) -> Result<Stamp> {
        Ok(Stamp {
            len: self.size,
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
