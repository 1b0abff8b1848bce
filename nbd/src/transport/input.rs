//! Buffered bytes from a peer, for decoders that ask for more.

use super::ReadHalf;
use crate::codec::Decoded;
use std::io::{self, Read};
use std::time::Instant;

/// Bytes that are read ahead.
const BUFFER: usize = 64 << 10;
/// Bytes by which a payload grows as it arrives: a liar about its length costs no more memory than what it sent.
const STEP: usize = 256 << 10;

/// What a peer sends.
pub(crate) struct Input {
    from: ReadHalf,
    buffer: Vec<u8>,
    start: usize,
    end: usize,
}

impl Input {
    pub(crate) fn new(from: ReadHalf) -> Self {
        Self {
            from,
            buffer: vec![0; BUFFER],
            start: 0,
            end: 0,
        }
    }

    pub(crate) fn set_deadline(&mut self, deadline: Option<Instant>) -> io::Result<()> {
        self.from.set_deadline(deadline)
    }

    pub(crate) fn certificate(&self) -> Option<Vec<u8>> {
        self.from.certificate()
    }

    /// What has arrived and was not consumed.
    pub(crate) fn buffered(&self) -> &[u8] {
        &self.buffer[self.start..self.end]
    }

    pub(crate) fn consume(&mut self, n: usize) {
        self.start = (self.start + n).min(self.end);
    }

    /// Waits for more; 0 is the end.
    pub(crate) fn fill(&mut self) -> io::Result<usize> {
        if self.start == self.end {
            (self.start, self.end) = (0, 0);
        } else if self.end == self.buffer.len() {
            self.buffer.copy_within(self.start..self.end, 0);
            (self.start, self.end) = (0, self.end - self.start);
        }
        let n = self.from.read(&mut self.buffer[self.end..])?;
        self.end += n;
        Ok(n)
    }

    /// The next message, waiting for it. The peer's leaving in between is an error.
    pub(crate) fn next<T>(&mut self, decode: impl Fn(&[u8]) -> Decoded<T>) -> io::Result<T> {
        loop {
            match decode(self.buffered()) {
                Ok(Some((message, n))) => {
                    self.consume(n);
                    return Ok(message);
                }
                Ok(None) => {}
                Err(bad) => return Err(io::Error::new(io::ErrorKind::InvalidData, bad)),
            }
            if self.fill()? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
    }

    /// Fills `buf`.
    pub(crate) fn exact(&mut self, buf: &mut [u8]) -> io::Result<()> {
        let n = buf.len().min(self.end - self.start);
        let (ready, rest) = buf.split_at_mut(n);
        ready.copy_from_slice(&self.buffered()[..n]);
        self.consume(n);
        self.from.read_exact(rest)
    }

    /// The next `len` bytes; the caller has bounded `len`.
    pub(crate) fn payload(&mut self, len: usize) -> io::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        while bytes.len() < len {
            let at = bytes.len();
            let end = len.min(at + STEP);
            // Exactly once the beginning is there: doubling would be past the bound.
            bytes.reserve_exact(if at == 0 { end } else { len - at });
            bytes.resize(end, 0);
            self.exact(&mut bytes[at..])?;
        }
        Ok(bytes)
    }

    /// Reads and forgets `len` bytes.
    pub(crate) fn skip(&mut self, mut len: u64) -> io::Result<()> {
        while len > 0 {
            if self.buffered().is_empty() && self.fill()? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            let n = len.min(self.buffered().len() as u64);
            self.consume(n as usize);
            len -= n;
        }
        Ok(())
    }
}
