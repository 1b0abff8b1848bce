//! An NBD export as bytes that are read.

use crate::read_only::Bytes;
use stillpoint_nbd::client::{Connection, Error as NbdError};
use stillpoint_nbd::codec::allocation;
use stillpoint_store::disk::Extent;
use stillpoint_store::{Error, ErrorKind, Result};

/// Bytes of a request.
const READ_BYTES: usize = 1 << 20;
/// Bytes that one question about allocation is about.
const STATUS_BYTES: u64 = 1 << 30;

/// See the module. Threads share it; their requests are in flight together.
pub(super) struct Disk {
    pub connection: Connection,
    /// Whether the server tells what is allocated.
    pub maps: bool,
    /// For messages.
    pub image: String,
}

impl Disk {
    fn failed(&self, e: NbdError, offset: u64) -> Error {
        Error::new(ErrorKind::Io, "reading through qemu-nbd")
            .at(&self.image)
            .offset(offset)
            .source(e)
    }

    fn status(&self, offset: u64) -> Result<(u64, u64)> {
        let rest = self.connection.info().size.saturating_sub(offset);
        if !self.maps {
            return Ok((rest, 0));
        }
        let asked = self.connection.map(0, offset, rest.min(STATUS_BYTES));
        let found = asked.map_err(|e| self.failed(e, offset))?;
        Ok(found.first().map_or((rest, 0), |e| (e.length, e.flags)))
    }
}

impl Bytes for Disk {
    fn len(&self) -> Result<u64> {
        Ok(self.connection.info().size)
    }

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> Result<usize> {
        let rest = self.connection.info().size.saturating_sub(offset);
        let n = rest.min(buf.len() as u64) as usize;
        let most = READ_BYTES
            .min(self.connection.payload_max() as usize)
            .max(1);
        let mut at = offset;
        let pieces = buf[..n].chunks_mut(most).map(|piece| {
            let start = at;
            at += piece.len() as u64;
            let asked = self.connection.start_read(start, piece.len());
            asked
                .map(|pending| (start, piece, pending))
                .map_err(|e| self.failed(e, start))
        });
        // All are asked for before the first is waited for.
        let pieces: Vec<_> = pieces.collect::<Result<_>>()?;
        for (start, piece, pending) in pieces {
            let bytes = pending.wait().map_err(|e| self.failed(e, start))?;
            piece.copy_from_slice(&bytes);
        }
        Ok(n)
    }

    fn extent(&self, offset: u64) -> Result<Extent> {
        if offset >= self.connection.info().size {
            return Ok(Extent {
                start: offset,
                end: offset,
                data: false,
            });
        }
        let (length, flags) = self.status(offset)?;
        let hole = allocation::HOLE | allocation::ZERO;
        Ok(Extent {
            start: offset,
            end: offset + length,
            data: flags & hole != hole,
        })
    }

    fn is_zeros(&self, extent: &Extent) -> Result<bool> {
        let (_, flags) = self.status(extent.start)?;
        Ok(flags & allocation::ZERO != 0)
    }
}
