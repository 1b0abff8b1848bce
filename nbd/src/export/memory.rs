//! A disk in memory.

use super::{BASE_ALLOCATION, Export, ExportInfo, ZeroMode};
use crate::codec::{Extents, allocation, transmission};
use crate::errno::{Errno, Failure};
use std::sync::{PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

/// Bytes of the pieces that `base:allocation` is told in.
const PIECE: usize = 4096;

/// A disk in memory, gone with the value. Nothing is ever durable: flush and FUA succeed.
#[derive(Debug)]
pub struct MemoryExport {
    bytes: RwLock<Vec<u8>>,
    read_only: bool,
}

impl MemoryExport {
    /// A disk with these contents.
    pub fn new(bytes: Vec<u8>) -> Self {
        Self {
            bytes: RwLock::new(bytes),
            read_only: false,
        }
    }

    /// The same, never to be written.
    pub fn read_only(bytes: Vec<u8>) -> Self {
        Self {
            bytes: RwLock::new(bytes),
            read_only: true,
        }
    }

    /// A copy of the contents.
    pub fn contents(&self) -> Vec<u8> {
        self.shared().clone()
    }

    fn shared(&self) -> RwLockReadGuard<'_, Vec<u8>> {
        self.bytes.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn alone(&self) -> RwLockWriteGuard<'_, Vec<u8>> {
        self.bytes.write().unwrap_or_else(PoisonError::into_inner)
    }

    fn fill(&self, offset: u64, len: u64, with: u8) -> Result<(), Failure> {
        let mut bytes = self.alone();
        let end = offset.checked_add(len).ok_or(Errno::NoSpc)?;
        let range = bytes.get_mut(offset as usize..end as usize);
        range.ok_or(Errno::NoSpc)?.fill(with);
        Ok(())
    }
}

impl Export for MemoryExport {
    fn info(&self) -> ExportInfo {
        let size = self.shared().len() as u64;
        if self.read_only {
            ExportInfo::read_only(size)
        } else {
            let more = transmission::CAN_MULTI_CONN | transmission::SEND_FAST_ZERO;
            ExportInfo::writable(size).with(more)
        }
    }

    fn read(&self, buf: &mut [u8], offset: u64) -> Result<(), Failure> {
        let bytes = self.shared();
        let start = offset as usize;
        let from = bytes.get(start..start.saturating_add(buf.len()));
        buf.copy_from_slice(from.ok_or(Errno::Inval)?);
        Ok(())
    }

    fn read_now(&self, buf: &mut [u8], offset: u64) -> Result<bool, Failure> {
        self.read(buf, offset).map(|()| true)
    }

    fn write(&self, data: &[u8], offset: u64, _fua: bool) -> Result<(), Failure> {
        let mut bytes = self.alone();
        let start = offset as usize;
        let to = bytes.get_mut(start..start.saturating_add(data.len()));
        to.ok_or(Errno::NoSpc)?.copy_from_slice(data);
        Ok(())
    }

    fn writes_at_once(&self) -> bool {
        true
    }

    fn write_zeroes(&self, offset: u64, len: u64, _mode: ZeroMode) -> Result<(), Failure> {
        self.fill(offset, len, 0)
    }

    fn trim(&self, offset: u64, len: u64, _fua: bool) -> Result<(), Failure> {
        self.fill(offset, len, 0)
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
        let bytes = self.shared();
        let mut rest = bytes.get(offset as usize..).ok_or(Errno::Inval)?;
        rest = &rest[..rest.len().min(len as usize)];
        let first = PIECE - offset as usize % PIECE;
        let mut piece = first;
        while !rest.is_empty() {
            let (head, tail) = rest.split_at(piece.min(rest.len()));
            let zero = head.iter().all(|byte| *byte == 0);
            let flags = if zero {
                allocation::HOLE | allocation::ZERO
            } else {
                0
            };
            if !extents.push(head.len() as u64, flags) {
                break;
            }
            (rest, piece) = (tail, PIECE);
        }
        Ok(())
    }
}
