//! Answers on their way out.

use crate::transport::{Socket, WriteHalf};
use std::io;
use std::net::Shutdown;
use std::sync::atomic::{AtomicBool, Ordering};

/// Bytes of answers that wait for each other before they are sent.
const TOGETHER: usize = 256 << 10;

/// Where answers go; all threads of a connection share it.
pub(super) struct Output<'a> {
    half: WriteHalf,
    socket: &'a Socket,
    broken: AtomicBool,
}

impl<'a> Output<'a> {
    pub(super) fn new(half: WriteHalf, socket: &'a Socket) -> Self {
        Self {
            half,
            socket,
            broken: AtomicBool::new(false),
        }
    }

    /// Whether the peer takes no answers any more.
    pub(super) fn is_broken(&self) -> bool {
        self.broken.load(Ordering::Relaxed)
    }

    /// Sends; after a failure the connection is ended, since the peer could not tell where an answer starts.
    pub(super) fn send(&self, bytes: &[u8]) -> io::Result<()> {
        if self.is_broken() {
            return Err(io::ErrorKind::BrokenPipe.into());
        }
        self.half.send(bytes).inspect_err(|_| {
            self.broken.store(true, Ordering::Relaxed);
            self.socket.end(Shutdown::Both);
        })
    }

    /// The last word.
    pub(super) fn close(&self) {
        if !self.is_broken() {
            let _ = self.half.close();
        }
    }
}

/// Answers of one thread, collected before they go out. Space is reused without being cleared.
pub(super) struct Answers<'a> {
    output: &'a Output<'a>,
    bytes: Vec<u8>,
    used: usize,
    /// For headers.
    scratch: Vec<u8>,
}

impl<'a> Answers<'a> {
    pub(super) fn new(output: &'a Output<'a>) -> Self {
        Self {
            output,
            bytes: Vec::new(),
            used: 0,
            scratch: Vec::new(),
        }
    }

    /// Appends what `encode` writes.
    pub(super) fn put(&mut self, encode: impl FnOnce(&mut Vec<u8>)) {
        self.scratch.clear();
        encode(&mut self.scratch);
        let len = self.scratch.len();
        self.space(len);
        self.bytes[self.used..self.used + len].copy_from_slice(&self.scratch);
        self.used += len;
    }

    /// Where the next `len` bytes go; what stands there is old. [`Answers::commit`] appends them.
    pub(super) fn space(&mut self, len: usize) -> &mut [u8] {
        let end = self.used + len;
        if self.bytes.len() < end {
            self.bytes.resize(end, 0);
        }
        &mut self.bytes[self.used..end]
    }

    pub(super) fn commit(&mut self, len: usize) {
        self.used = (self.used + len).min(self.bytes.len());
    }

    pub(super) fn used(&self) -> usize {
        self.used
    }

    /// Takes back what was appended since `used` was this.
    pub(super) fn rewind(&mut self, used: usize) {
        self.used = used.min(self.used);
    }

    /// Sends if much has come together.
    pub(super) fn send_if_much(&mut self) -> io::Result<()> {
        if self.used >= TOGETHER {
            self.send()?;
        }
        Ok(())
    }

    /// Sends what there is.
    pub(super) fn send(&mut self) -> io::Result<()> {
        if self.used == 0 {
            return Ok(());
        }
        let sent = self.output.send(&self.bytes[..self.used]);
        self.used = 0;
        if self.bytes.len() > 4 * TOGETHER {
            self.bytes = Vec::new();
        }
        sent
    }
}
