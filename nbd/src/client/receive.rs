//! The thread that takes answers off the connection.

use super::Error;
use super::pending::{Outcome, Slot, Slots};
use crate::codec::{
    Chunk, DATA_PREFIX, Extent, Mode, ReplyHeader, chunk_flag, chunk_payload_max, command, flags,
};
use crate::errno::{Errno, Failure};
use crate::transport::Input;

/// What the thread works with.
pub(super) struct Receiver {
    pub(super) input: Input,
    pub(super) mode: Mode,
    pub(super) contexts: Vec<u32>,
    pub(super) size: u64,
}

impl Receiver {
    /// Until the connection ends or the server breaks the protocol.
    pub(super) fn run(mut self, slots: &Slots) {
        while self.one(slots).is_ok() {}
        slots.break_all();
    }

    fn one(&mut self, slots: &Slots) -> Result<(), Error> {
        let mode = self.mode;
        let header = self.input.next(|bytes| ReplyHeader::decode(mode, bytes))?;
        let (ReplyHeader::Simple { cookie, .. } | ReplyHeader::Chunk { cookie, .. }) = header;
        let slot = slots.take(cookie);
        let mut slot = slot.ok_or_else(|| broken("an answer that nobody asked for"))?;
        match self.answer(header, &mut slot) {
            Ok(false) => slots.back(slot),
            Ok(true) => {
                slots.gone();
                let outcome = outcome(&mut slot);
                slot.finish(outcome);
            }
            Err(error) => {
                let text = error.to_string();
                slot.finish(Err(error));
                return Err(Error::Protocol(text));
            }
        }
        Ok(())
    }

    /// Takes one message in; answers whether it was the last of its request.
    fn answer(&mut self, header: ReplyHeader, slot: &mut Slot) -> Result<bool, Error> {
        match header {
            ReplyHeader::Simple { error, .. } => {
                self.simple(error, slot)?;
                Ok(true)
            }
            ReplyHeader::Chunk {
                flags,
                kind,
                length,
                offset,
                ..
            } => {
                if self.mode == Mode::Extended && offset != slot.request.offset {
                    return Err(broken("an answer with another offset"));
                }
                if length > chunk_payload_max(kind, slot.data.len() as u64) {
                    return Err(broken("a chunk that is too long"));
                }
                self.chunk(kind, length as usize, slot)?;
                Ok(flags & chunk_flag::DONE != 0)
            }
        }
    }

    fn simple(&mut self, error: u32, slot: &mut Slot) -> Result<(), Error> {
        let read = slot.request.command == command::READ;
        if error != 0 {
            slot.failed = Some(Errno::from_wire(error).into());
        } else if self.mode != Mode::Simple
            && (read || slot.request.command == command::BLOCK_STATUS)
        {
            return Err(broken("a simple reply where chunks must come"));
        } else if read {
            self.input.exact(&mut slot.data)?;
            slot.filled = std::iter::once(0..slot.data.len()).collect();
        }
        Ok(())
    }

    fn chunk(&mut self, kind: u16, length: usize, slot: &mut Slot) -> Result<(), Error> {
        // The data of a read go where they belong without a stop; everything else is small.
        if kind == DATA_KIND && length >= DATA_PREFIX {
            let mut offset = [0; DATA_PREFIX];
            self.input.exact(&mut offset)?;
            let at = u64::from_be_bytes(offset);
            let into = place(slot, at, (length - DATA_PREFIX) as u64)?;
            return Ok(self.input.exact(into)?);
        }
        let payload = self.input.payload(length)?;
        match Chunk::decode(kind, &payload)? {
            Chunk::None => {}
            Chunk::Data(..) => return Err(broken("a chunk of data without an offset")),
            Chunk::Hole(at, len) => place(slot, at, u64::from(len))?.fill(0),
            Chunk::Status(context, extents) => self.status(context, extents, slot)?,
            Chunk::Error(number, message, _) => {
                let failure = Failure::new(Errno::from_wire(number), message);
                slot.failed.get_or_insert(failure);
            }
            Chunk::Unknown(_) => return Err(broken("a chunk of an unknown kind")),
        }
        Ok(())
    }

    fn status(&self, context: u32, extents: Vec<Extent>, slot: &mut Slot) -> Result<(), Error> {
        let place = self.contexts.iter().position(|id| *id == context);
        let asked = slot.request.command == command::BLOCK_STATUS;
        let Some(place) = place.filter(|_| asked) else {
            return Err(broken("a context that was not chosen"));
        };
        // The last extent may go past the request, but not past the disk.
        let total = extents
            .iter()
            .try_fold(0u64, |n, e| n.checked_add(e.length));
        let left = self.size.saturating_sub(slot.request.offset);
        if total.is_none_or(|total| total > left) {
            return Err(broken("extents past the end of the disk"));
        }
        if slot.request.has(flags::REQ_ONE) && extents.len() > 1 {
            return Err(broken("more extents than were asked for"));
        }
        if slot.status.iter().any(|(known, _)| *known == place) {
            return Err(broken("a context twice"));
        }
        slot.status.push((place, extents));
        Ok(())
    }
}

/// Parts of a read that do not follow on each other, at most: what a server may make us remember.
const PARTS_MAX: usize = 1 << 16;

/// Kind of a chunk of data, as in the codec.
const DATA_KIND: u16 = 1;

/// The part of a read's space for `len` bytes from `at` on the disk.
fn place(slot: &mut Slot, at: u64, len: u64) -> Result<&mut [u8], Error> {
    let start = at.checked_sub(slot.request.offset);
    let end = start.and_then(|start| start.checked_add(len));
    let (Some(start), Some(end)) = (start, end) else {
        return Err(broken("data from another place"));
    };
    let part = start as usize..end as usize;
    let space = slot.data.get_mut(part.clone());
    let space = space.ok_or_else(|| broken("data from another place"))?;
    let parts = slot.filled.len();
    match slot.filled.last_mut() {
        Some(last) if last.end == part.start => last.end = part.end,
        _ if parts == PARTS_MAX => return Err(broken("a read in too many parts")),
        _ => slot.filled.push(part),
    }
    Ok(space)
}

/// Whether every byte of a read has come, and none twice: what is missing would be taken for zeroes.
fn is_whole(slot: &mut Slot) -> bool {
    slot.filled
        .sort_unstable_by_key(|part| (part.start, part.end));
    let end = slot.filled.iter().try_fold(0, |end, part| {
        // Empty ones say nothing.
        (part.start == end || part.is_empty()).then_some(end.max(part.end))
    });
    end == Some(slot.data.len())
}

fn outcome(slot: &mut Slot) -> Result<Outcome, Error> {
    if let Some(failure) = slot.failed.take() {
        return Err(Error::Failed(failure));
    }
    if slot.request.command == command::READ && !is_whole(slot) {
        return Err(broken("a read with missing or repeated data"));
    }
    match slot.request.command {
        command::READ => Ok(Outcome::Data(std::mem::take(&mut slot.data))),
        command::BLOCK_STATUS => Ok(Outcome::Status(std::mem::take(&mut slot.status))),
        _ => Ok(Outcome::Done),
    }
}

fn broken(what: &str) -> Error {
    Error::Protocol(what.to_owned())
}
