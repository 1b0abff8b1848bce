//! Doing one request and putting its answer together.

use super::output::Answers;
use super::{Chosen, Limits};
use crate::codec::{
    Chunk, Extent, Extents, Mode, ReplyHeader, Request, StatusPayload, chunk_flag, command,
    encode_data_header, flags, transmission,
};
use crate::errno::{Errno, Failure};
use crate::export::ZeroMode;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};

/// Bytes of a long read that are read and sent at once; a chunk each.
pub(super) const PIECE: usize = 512 << 10;
/// Most extents in an answer, over all contexts: 1 MiB of them. Clients ask again for the rest.
const EXTENTS: usize = 1 << 16;

/// A disk as one connection sees it.
pub(super) struct Disk {
    chosen: Chosen,
    payload: u64,
}

type Done<T> = Result<T, Failure>;

impl Disk {
    pub(super) fn new(chosen: Chosen, limits: &Limits) -> Self {
        let payload = u64::from(chosen.info.block.maximum.min(limits.payload));
        Self { chosen, payload }
    }

    pub(super) fn mode(&self) -> Mode {
        self.chosen.mode
    }

    /// Longest data of a read or write.
    pub(super) fn payload(&self) -> u64 {
        self.payload
    }

    pub(super) fn writes_at_once(&self) -> bool {
        self.chosen.export.writes_at_once()
    }

    /// Whether the request may be done at all; nothing is allocated for it and the export not called before.
    pub(super) fn check(&self, request: &Request) -> Done<()> {
        self.check_flags(request)?;
        if request.command == command::FLUSH {
            return Ok(());
        }
        let info = &self.chosen.info;
        let with_list = request.command == command::BLOCK_STATUS && request.has(flags::PAYLOAD_LEN);
        if with_list {
            // What it asks about stands in its payload.
            return Ok(());
        }
        let writes = [command::WRITE, command::WRITE_ZEROES, command::TRIM];
        if writes.contains(&request.command) && info.has(transmission::READ_ONLY) {
            return Err(Failure::new(Errno::Perm, "the export is read-only"));
        }
        self.check_range(request.command, request.offset, request.length)?;
        let data = [command::READ, command::WRITE].contains(&request.command);
        if data && request.length > self.payload {
            return Err(Failure::new(
                Errno::Inval,
                "longer than the maximum block size",
            ));
        }
        Ok(())
    }

    fn check_flags(&self, request: &Request) -> Done<()> {
        let extended = self.mode() == Mode::Extended;
        let own = match request.command {
            command::READ if self.mode() >= Mode::Structured => flags::DF,
            command::WRITE if extended => flags::PAYLOAD_LEN,
            command::WRITE_ZEROES if self.chosen.info.has(transmission::SEND_FAST_ZERO) => {
                flags::NO_HOLE | flags::FAST_ZERO
            }
            command::WRITE_ZEROES => flags::NO_HOLE,
            command::BLOCK_STATUS if extended => flags::REQ_ONE | flags::PAYLOAD_LEN,
            command::BLOCK_STATUS => flags::REQ_ONE,
            _ => 0,
        };
        let fua = if self.chosen.info.has(transmission::SEND_FUA) {
            flags::FUA
        } else {
            0
        };
        if request.flags & !(own | fua) != 0 {
            return Err(Failure::new(
                Errno::Inval,
                "a flag that does not belong here",
            ));
        }
        let needs = match request.command {
            // A flush is harmless, and a way to ask whether a connection is alive.
            command::READ | command::WRITE | command::BLOCK_STATUS | command::FLUSH => 0,
            command::TRIM => transmission::SEND_TRIM,
            command::WRITE_ZEROES => transmission::SEND_WRITE_ZEROES,
            command::CACHE => transmission::SEND_CACHE,
            _ => return Err(Failure::new(Errno::Inval, "unknown command")),
        };
        if self.chosen.info.flags & needs != needs {
            return Err(Failure::new(Errno::Inval, "the export does not offer that"));
        }
        Ok(())
    }

    fn check_range(&self, command: u16, offset: u64, length: u64) -> Done<()> {
        let info = &self.chosen.info;
        let end = offset.checked_add(length);
        if end.is_none_or(|end| end > info.size) {
            let errno = match command {
                command::WRITE | command::WRITE_ZEROES => Errno::NoSpc,
                _ => Errno::Inval,
            };
            return Err(Failure::new(errno, "past the end of the export"));
        }
        let minimum = u64::from(info.block.minimum);
        // The end of a disk whose size is no multiple can still be reached.
        let aligned = offset.is_multiple_of(minimum)
            && (length.is_multiple_of(minimum) || end == Some(info.size));
        if !aligned {
            return Err(Failure::new(
                Errno::Inval,
                "not aligned to the minimum block size",
            ));
        }
        if command == command::BLOCK_STATUS && length == 0 {
            return Err(Failure::new(Errno::Inval, "an empty range has no status"));
        }
        Ok(())
    }

    /// Answers a read if that takes no waiting. `false` leaves the answers as they were.
    pub(super) fn read_now(&self, request: &Request, answers: &mut Answers<'_>) -> bool {
        if request.length == 0 {
            return false;
        }
        let before = answers.used();
        let len = request.length as usize;
        self.put_read_header(request, (request.offset, len), chunk_flag::DONE, answers);
        let into = answers.space(len);
        let read = guard(|| self.chosen.export.read_now(into, request.offset));
        if matches!(read, Ok(true)) {
            answers.commit(len);
            return true;
        }
        answers.rewind(before);
        false
    }

    /// Does a request that passed [`Disk::check`] and answers it. An error is one of sending.
    pub(super) fn perform(
        &self,
        request: &Request,
        payload: &[u8],
        answers: &mut Answers<'_>,
    ) -> io::Result<()> {
        // A chunk of data has a byte of them at least.
        if request.command == command::READ && request.length > 0 {
            return self.read(request, answers);
        }
        let done = if request.command == command::BLOCK_STATUS {
            self.status(request, payload, answers)
        } else {
            guard(|| self.change(request, payload)).map(|()| true)
        };
        match done {
            Ok(true) => self.put_done(request, answers),
            Ok(false) => {}
            Err(failure) => self.put_failure(request, &failure, None, answers),
        }
        Ok(())
    }

    fn change(&self, request: &Request, payload: &[u8]) -> Done<()> {
        let (export, offset, len) = (&self.chosen.export, request.offset, request.length);
        let fua = request.has(flags::FUA);
        match request.command {
            command::FLUSH => export.flush(),
            _ if len == 0 => Ok(()),
            command::WRITE => export.write(payload, offset, fua),
            command::TRIM => export.trim(offset, len, fua),
            command::CACHE => export.cache(offset, len),
            command::WRITE_ZEROES => {
                let mode = ZeroMode {
                    fua,
                    no_hole: request.has(flags::NO_HOLE),
                    fast: request.has(flags::FAST_ZERO),
                };
                export.write_zeroes(offset, len, mode)
            }
            _ => Err(Errno::Inval.into()),
        }
    }

    /// The part of a long write that lies `at` bytes behind its start.
    pub(super) fn write_piece(&self, request: &Request, data: &[u8], at: u64) -> Done<()> {
        guard(|| self.chosen.export.write(data, request.offset + at, false))
    }

    /// Answers a write whose pieces are done, or one of which has failed. Only now it is durable, if it is to be.
    pub(super) fn end_write(
        &self,
        request: &Request,
        written: Done<()>,
        answers: &mut Answers<'_>,
    ) {
        let flush = || {
            if request.has(flags::FUA) {
                guard(|| self.chosen.export.flush())
            } else {
                Ok(())
            }
        };
        match written.and_then(|()| flush()) {
            Ok(()) => self.put_done(request, answers),
            Err(failure) => self.put_failure(request, &failure, None, answers),
        }
    }

    /// Whether a read is answered in one piece whatever its length, because the client cannot take more than one.
    pub(super) fn is_one_piece(&self, request: &Request) -> bool {
        request.command == command::READ && (self.mode() == Mode::Simple || request.has(flags::DF))
    }

    /// A long read goes out in several chunks, unless the answer must be one.
    fn read(&self, request: &Request, answers: &mut Answers<'_>) -> io::Result<()> {
        let piece = if self.is_one_piece(request) {
            usize::MAX
        } else {
            PIECE
        };
        let end = request.offset + request.length;
        let mut at = request.offset;
        loop {
            let len = usize::try_from(end - at).unwrap_or(usize::MAX).min(piece);
            let last = at + len as u64 == end;
            let flag = if last { chunk_flag::DONE } else { 0 };
            let before = answers.used();
            self.put_read_header(request, (at, len), flag, answers);
            let into = answers.space(len);
            if let Err(failure) = guard(|| self.chosen.export.read(into, at)) {
                answers.rewind(before);
                self.put_failure(request, &failure, Some(at), answers);
                return Ok(());
            }
            answers.commit(len);
            if last {
                return Ok(());
            }
            at += len as u64;
            answers.send_if_much()?;
        }
    }

    /// Appends a chunk for each context. `false`: there is nothing to append after it.
    fn status(&self, request: &Request, payload: &[u8], answers: &mut Answers<'_>) -> Done<bool> {
        let contexts = &self.chosen.contexts;
        let all = (0..contexts.len() as u32).collect::<Vec<u32>>();
        let (length, ids) = if request.has(flags::PAYLOAD_LEN) {
            let asked = StatusPayload::decode(payload);
            let asked = asked.map_err(|bad| Failure::new(Errno::Inval, bad.0))?;
            self.check_range(request.command, request.offset, asked.length)?;
            (asked.length, wanted(&asked.contexts, contexts.len())?)
        } else {
            (request.length, all)
        };
        if contexts.is_empty() {
            return Err(Failure::new(Errno::Inval, "no metadata context was chosen"));
        }
        let most = if request.has(flags::REQ_ONE) {
            1
        } else {
            // However many contexts a client chose, their answers together are what one is allowed.
            (EXTENTS / ids.len()).max(1)
        };
        let before = answers.used();
        for id in &ids {
            let found = self.extents(&contexts[*id as usize], request.offset, length, most);
            let found = found.inspect_err(|_| answers.rewind(before))?;
            let flag = if ids.last() == Some(id) {
                chunk_flag::DONE
            } else {
                0
            };
            let chunk = Chunk::Status(*id, found);
            let (mode, cookie) = (self.mode(), request.cookie);
            answers.put(|out| chunk.encode(mode, flag, cookie, request.offset, out));
        }
        Ok(false)
    }

    fn extents(&self, context: &str, offset: u64, length: u64, most: usize) -> Done<Vec<Extent>> {
        let mut extents = Extents::new(length, most);
        let export = &self.chosen.export;
        guard(|| export.block_status(context, offset, length, &mut extents))?;
        if extents.left() == length {
            extents.push(length, 0);
        }
        Ok(extents.into_vec())
    }

    fn put_read_header(
        &self,
        request: &Request,
        (at, len): (u64, usize),
        flag: u16,
        answers: &mut Answers<'_>,
    ) {
        let (cookie, mode) = (request.cookie, self.mode());
        answers.put(|out| match mode {
            Mode::Simple => ReplyHeader::Simple { cookie, error: 0 }.encode(mode, out),
            _ => encode_data_header(mode, flag, cookie, request.offset, (at, len), out),
        });
    }

    fn put_done(&self, request: &Request, answers: &mut Answers<'_>) {
        let (cookie, mode) = (request.cookie, self.mode());
        // A block status is answered by chunks only, and so is a read where there are chunks.
        let chunks = request.command == command::BLOCK_STATUS
            || (request.command == command::READ && mode == Mode::Structured);
        let simple = mode != Mode::Extended && !chunks;
        answers.put(|out| {
            if simple {
                ReplyHeader::Simple { cookie, error: 0 }.encode(mode, out);
            } else {
                Chunk::None.encode(mode, chunk_flag::DONE, cookie, request.offset, out);
            }
        });
    }

    /// An error, with its text if there are chunks to carry it.
    pub(super) fn put_failure(
        &self,
        request: &Request,
        failure: &Failure,
        at: Option<u64>,
        answers: &mut Answers<'_>,
    ) {
        let (cookie, mode) = (request.cookie, self.mode());
        let mut errno = failure.errno;
        let fast = request.command == command::WRITE_ZEROES && request.has(flags::FAST_ZERO);
        // By the protocol this number has a meaning for fast zeroes only.
        if errno == Errno::NotSup && !fast {
            errno = Errno::Inval;
        }
        let error = errno as u32;
        answers.put(|out| {
            if mode == Mode::Simple {
                ReplyHeader::Simple { cookie, error }.encode(mode, out);
            } else {
                let message: String = failure.message.chars().take(1000).collect();
                let chunk = Chunk::Error(error, message, at);
                chunk.encode(mode, chunk_flag::DONE, cookie, request.offset, out);
            }
        });
    }
}

/// The contexts that a payload asks for: each of those that were chosen, once at most, and one at least.
fn wanted(asked: &[u32], chosen: usize) -> Done<Vec<u32>> {
    let mut ids = asked.to_vec();
    ids.sort_unstable();
    ids.dedup();
    let known = ids.last().is_some_and(|id| (*id as usize) < chosen);
    if ids.len() != asked.len() || !known {
        return Err(Failure::new(
            Errno::Inval,
            "a context that was not chosen, or none, or one twice",
        ));
    }
    Ok(ids)
}

/// A panic of an export is a failure of the disk and of nothing else.
fn guard<T>(call: impl FnOnce() -> Done<T>) -> Done<T> {
    catch_unwind(AssertUnwindSafe(call))
        .unwrap_or_else(|_| Err(Failure::new(Errno::Io, "the export panicked")))
}
