//! An open export.

use super::Error;
use super::pending::{Answer, Pending, Slot, Slots};
use super::receive::Receiver;
use crate::codec::{Extent, Mode, Request, command, flags, transmission};
use crate::export::{ExportInfo, ZeroMode};
use crate::transport::{Input, Socket, WriteHalf};
use std::net::Shutdown;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

/// Longest wait for a server to take the last word.
const LAST_WORD: Duration = Duration::from_secs(1);

/// Extents from the offset of the request on, for each context by its place in [`Connection::contexts`]. They may end
/// before the range does; ask again from there.
pub type Status = Vec<(usize, Vec<Extent>)>;

/// An open export. Threads may share it. Every request has a form that waits and one, `start_`, that answers with a
/// [`Pending`]; those wait only while as many are in flight as the options allow. Dropping it leaves in good order,
/// but does not wait for what is in flight.
pub struct Connection {
    socket: Socket,
    output: WriteHalf,
    slots: Arc<Slots>,
    receiver: Option<JoinHandle<()>>,
    mode: Mode,
    info: ExportInfo,
    contexts: Vec<String>,
}

impl Connection {
    pub(super) fn start(
        socket: Socket,
        input: Input,
        output: WriteHalf,
        mode: Mode,
        info: ExportInfo,
        contexts: Vec<(u32, String)>,
        requests: usize,
    ) -> Result<Self, Error> {
        let slots = Slots::new(requests);
        let (ids, contexts) = contexts.into_iter().unzip();
        let receiver = Receiver {
            input,
            mode,
            contexts: ids,
            size: info.size,
        };
        let theirs = Arc::clone(&slots);
        let thread = std::thread::Builder::new()
            .name("nbd-client".to_owned())
            .spawn(move || receiver.run(&theirs))?;
        Ok(Self {
            socket,
            output,
            slots,
            receiver: Some(thread),
            mode,
            info,
            contexts,
        })
    }

    /// Size and abilities.
    pub fn info(&self) -> &ExportInfo {
        &self.info
    }

    /// How messages look.
    pub fn mode(&self) -> Mode {
        self.mode
    }

    /// The metadata contexts that the server agreed to.
    pub fn contexts(&self) -> &[String] {
        &self.contexts
    }

    /// Most bytes of a read or write.
    pub fn payload_max(&self) -> u64 {
        u64::from(self.info.block.maximum)
    }

    /// Reads `len` bytes, no more than [`Connection::payload_max`].
    pub fn start_read(&self, offset: u64, len: usize) -> Result<Pending<Vec<u8>>, Error> {
        self.bounded(len)?;
        let request = request(command::READ, 0, offset, len as u64);
        self.send(request, &[], vec![0; len])
    }

    /// Reads and waits.
    pub fn read(&self, offset: u64, len: usize) -> Result<Vec<u8>, Error> {
        self.start_read(offset, len)?.wait()
    }

    /// Writes, no more than [`Connection::payload_max`]; with `fua` the data are durable when it is answered.
    pub fn start_write(&self, offset: u64, data: &[u8], fua: bool) -> Result<Pending<()>, Error> {
        self.bounded(data.len())?;
        let mut flags = self.fua(fua)?;
        if self.mode == Mode::Extended {
            flags |= flags::PAYLOAD_LEN;
        }
        let request = request(command::WRITE, flags, offset, data.len() as u64);
        self.send(request, data, Vec::new())
    }

    /// Writes and waits.
    pub fn write(&self, offset: u64, data: &[u8], fua: bool) -> Result<(), Error> {
        self.start_write(offset, data, fua)?.wait()
    }

    /// Makes a range read as zeroes. Without extended headers ranges end before 4 GiB.
    pub fn start_zero(&self, offset: u64, len: u64, mode: ZeroMode) -> Result<Pending<()>, Error> {
        self.need(transmission::SEND_WRITE_ZEROES, "write zeroes")?;
        let mut flags = self.fua(mode.fua)?;
        if mode.no_hole {
            flags |= flags::NO_HOLE;
        }
        if mode.fast {
            self.need(transmission::SEND_FAST_ZERO, "fast zeroes")?;
            flags |= flags::FAST_ZERO;
        }
        self.plain(command::WRITE_ZEROES, flags, offset, len)
    }

    /// Makes a range read as zeroes and waits.
    pub fn zero(&self, offset: u64, len: u64, mode: ZeroMode) -> Result<(), Error> {
        self.start_zero(offset, len, mode)?.wait()
    }

    /// Gives up the contents of a range.
    pub fn start_trim(&self, offset: u64, len: u64, fua: bool) -> Result<Pending<()>, Error> {
        self.need(transmission::SEND_TRIM, "trim")?;
        self.plain(command::TRIM, self.fua(fua)?, offset, len)
    }

    /// Gives up the contents of a range and waits.
    pub fn trim(&self, offset: u64, len: u64, fua: bool) -> Result<(), Error> {
        self.start_trim(offset, len, fua)?.wait()
    }

    /// Makes what was answered before durable.
    pub fn start_flush(&self) -> Result<Pending<()>, Error> {
        self.need(transmission::SEND_FLUSH, "flush")?;
        self.plain(command::FLUSH, 0, 0, 0)
    }

    /// Makes what was answered before durable and waits.
    pub fn flush(&self) -> Result<(), Error> {
        self.start_flush()?.wait()
    }

    /// Asks the server to fetch a range ahead.
    pub fn start_cache(&self, offset: u64, len: u64) -> Result<Pending<()>, Error> {
        self.need(transmission::SEND_CACHE, "cache")?;
        self.plain(command::CACHE, 0, offset, len)
    }

    /// Asks what the contexts say of a range; with `one` for a single extent.
    pub fn start_status(&self, offset: u64, len: u64, one: bool) -> Result<Pending<Status>, Error> {
        if self.contexts.is_empty() {
            return Err(Error::Unsupported("metadata contexts".to_owned()));
        }
        let flags = if one { flags::REQ_ONE } else { 0 };
        let request = request(command::BLOCK_STATUS, flags, offset, len);
        self.send(request, &[], Vec::new())
    }

    /// Asks what the contexts say of a range and waits.
    pub fn status(&self, offset: u64, len: u64, one: bool) -> Result<Status, Error> {
        self.start_status(offset, len, one)?.wait()
    }

    /// All extents of one context over a range, in as many requests as it takes. Equal neighbours are one.
    pub fn map(&self, context: usize, offset: u64, len: u64) -> Result<Vec<Extent>, Error> {
        let aligned = u64::from(u32::MAX) & !0xffff;
        let step = if self.mode == Mode::Extended {
            u64::MAX
        } else {
            aligned
        };
        let mut all = crate::codec::Extents::new(len, usize::MAX);
        while all.left() > 0 {
            let at = offset + (len - all.left());
            let status = self.status(at, all.left().min(step), false)?;
            let of_context = status.into_iter().find(|(place, _)| *place == context);
            let missing = || Error::Protocol("no extents of a context".to_owned());
            let (_, extents) = of_context.ok_or_else(missing)?;
            for extent in extents {
                all.push(extent.length, extent.flags);
            }
        }
        Ok(all.into_vec())
    }

    fn plain(&self, command: u16, flags: u16, at: u64, len: u64) -> Result<Pending<()>, Error> {
        self.send(request(command, flags, at, len), &[], Vec::new())
    }

    fn bounded(&self, len: usize) -> Result<(), Error> {
        if len as u64 > self.payload_max() {
            let most = self.payload_max();
            return Err(Error::Unsupported(format!(
                "more than {most} bytes at once"
            )));
        }
        Ok(())
    }

    fn need(&self, flag: u16, what: &str) -> Result<(), Error> {
        if self.info.has(flag) {
            return Ok(());
        }
        Err(Error::Unsupported(what.to_owned()))
    }

    fn fua(&self, fua: bool) -> Result<u16, Error> {
        if !fua {
            return Ok(0);
        }
        self.need(transmission::SEND_FUA, "FUA")?;
        Ok(flags::FUA)
    }

    fn send<T: Answer>(
        &self,
        mut request: Request,
        payload: &[u8],
        space: Vec<u8>,
    ) -> Result<Pending<T>, Error> {
        let mut header = Vec::with_capacity(32);
        // A request that cannot be encoded must not be entered.
        request.encode(self.mode, &mut header)?;
        let (slot, receiver) = Slot::new(request, space);
        request.cookie = self.slots.enter(slot)?;
        header.clear();
        request.encode(self.mode, &mut header)?;
        if let Err(error) = self.output.send_both(&header, payload) {
            self.end();
            return Err(error.into());
        }
        Ok(Pending::new(receiver))
    }

    /// Nothing more goes in or out.
    fn end(&self) {
        self.slots.break_all();
        self.socket.end(Shutdown::Both);
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        let mut out = Vec::new();
        let request = request(command::DISC, 0, 0, 0);
        // A server that takes nothing is not waited for.
        let _ = self.socket.set_stall(Some(LAST_WORD));
        if request.encode(self.mode, &mut out).is_ok() {
            let _ = self.output.send(&out).and_then(|()| self.output.close());
        }
        self.end();
        if let Some(receiver) = self.receiver.take() {
            // It ends with the socket; if it panicked, it told nobody anything.
            let _ = receiver.join();
        }
    }
}

fn request(command: u16, flags: u16, offset: u64, length: u64) -> Request {
    Request {
        flags,
        command,
        cookie: 0,
        offset,
        length,
    }
}
