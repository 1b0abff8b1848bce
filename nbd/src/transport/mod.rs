//! Bytes to and from a peer: unix and TCP sockets, plain or TLS, as two halves that two threads use at once.

mod input;
mod socket;

pub(crate) use input::Input;
pub(crate) use socket::Socket;

use rustls::Connection;
use std::io::{self, Read, Write};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

/// Encrypted bytes that are read at once.
const RAW: usize = 16 << 10;
/// Plain bytes that are encrypted at once.
const PIECE: usize = 64 << 10;

/// What both halves of an encrypted connection share. The lock is held for computation only, never while waiting for the peer.
type Session = Arc<Mutex<Connection>>;

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // A panic elsewhere leaves the connection as it was before a record or after it.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The half that receives.
pub(crate) struct ReadHalf {
    socket: Socket,
    deadline: Option<Instant>,
    tls: Option<Incoming>,
}

struct Incoming {
    session: Session,
    /// For what the session wants to send of its own accord, such as new keys.
    out: Arc<Mutex<Sending>>,
    raw: Vec<u8>,
    /// The part of `raw` that the session has not seen.
    unseen: std::ops::Range<usize>,
}

/// The half that sends; one message at a time.
pub(crate) struct WriteHalf(Arc<Mutex<Sending>>);

struct Sending {
    socket: Socket,
    tls: Option<Session>,
    raw: Vec<u8>,
}

/// The two halves of a plain connection.
pub(crate) fn plain(socket: &Socket) -> io::Result<(ReadHalf, WriteHalf)> {
    halves(socket, None)
}

/// Shakes hands, until the deadline, and answers with the two halves of an encrypted connection.
pub(crate) fn encrypted(
    socket: &Socket,
    mut session: Connection,
    deadline: Option<Instant>,
) -> io::Result<(ReadHalf, WriteHalf)> {
    session.set_buffer_limit(None);
    let mut timed = Timed { socket, deadline };
    while session.is_handshaking() {
        let (read, written) = session.complete_io(&mut timed)?;
        if read == 0 && written == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
    }
    halves(socket, Some(Arc::new(Mutex::new(session))))
}

fn halves(socket: &Socket, session: Option<Session>) -> io::Result<(ReadHalf, WriteHalf)> {
    let sending = Sending {
        socket: socket.try_clone()?,
        tls: session.clone(),
        raw: Vec::new(),
    };
    let out = Arc::new(Mutex::new(sending));
    let incoming = session.map(|session| Incoming {
        session,
        out: Arc::clone(&out),
        raw: vec![0; RAW],
        unseen: 0..0,
    });
    let read = ReadHalf {
        socket: socket.try_clone()?,
        deadline: None,
        tls: incoming,
    };
    Ok((read, WriteHalf(out)))
}

impl ReadHalf {
    /// Until when reads wait; a read past that fails as timed out.
    pub(crate) fn set_deadline(&mut self, deadline: Option<Instant>) -> io::Result<()> {
        self.deadline = deadline;
        self.socket.wait_until(deadline)
    }

    /// The certificate that the peer proved to own, in DER.
    pub(crate) fn certificate(&self) -> Option<Vec<u8>> {
        let session = lock(&self.tls.as_ref()?.session);
        let first = session.peer_certificates()?.first()?;
        Some(first.to_vec())
    }

    fn receive(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        if self.deadline.is_some() {
            self.socket.wait_until(self.deadline)?;
        }
        self.socket.read(buf)
    }
}

impl Read for ReadHalf {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let Some(mut tls) = self.tls.take() else {
            return self.receive(buf);
        };
        let read = loop {
            match tls.take_plain(buf) {
                Ok(Some(n)) => break Ok(n),
                Ok(None) => {}
                Err(error) => break Err(error),
            }
            match self.receive(&mut tls.raw) {
                Ok(0) => break Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(n) => tls.unseen = 0..n,
                Err(error) => break Err(error),
            }
        };
        self.tls = Some(tls);
        read
    }
}

impl Incoming {
    /// Plain bytes from what was received; `None` when more must be received first.
    fn take_plain(&mut self, buf: &mut [u8]) -> io::Result<Option<usize>> {
        loop {
            let mut session = lock(&self.session);
            match session.reader().read(buf) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                other => return other.map(Some),
            }
            if self.unseen.is_empty() {
                return Ok(None);
            }
            let mut unseen = &self.raw[self.unseen.clone()];
            let took = session.read_tls(&mut unseen)?;
            self.unseen.start += took;
            let processed = session.process_new_packets();
            let answers = session.wants_write();
            drop(session);
            if answers {
                // An alert goes out as far as it can; the error is what counts.
                let sent = lock(&self.out).send_records();
                if processed.is_ok() {
                    sent?;
                }
            }
            processed.map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
        }
    }
}

impl WriteHalf {
    /// Sends all of it; nothing of another thread comes in between.
    pub(crate) fn send(&self, bytes: &[u8]) -> io::Result<()> {
        lock(&self.0).send(&[bytes])
    }

    /// The same for a header and what follows it.
    pub(crate) fn send_both(&self, header: &[u8], payload: &[u8]) -> io::Result<()> {
        lock(&self.0).send(&[header, payload])
    }

    /// Tells an encrypted peer that nothing more comes.
    pub(crate) fn close(&self) -> io::Result<()> {
        let mut sending = lock(&self.0);
        if let Some(session) = &sending.tls {
            lock(session).send_close_notify();
        }
        sending.send_records()
    }
}

impl Sending {
    fn send(&mut self, parts: &[&[u8]]) -> io::Result<()> {
        let Some(session) = self.tls.clone() else {
            return self.socket.write_all_parts(parts);
        };
        for part in parts {
            for piece in part.chunks(PIECE) {
                lock(&session).writer().write_all(piece)?;
                self.send_records()?;
            }
        }
        Ok(())
    }

    /// Sends what the session has ready. The lock on `self` keeps the records in order.
    fn send_records(&mut self) -> io::Result<()> {
        let Some(session) = &self.tls else {
            return Ok(());
        };
        self.raw.clear();
        let mut session = lock(session);
        while session.wants_write() {
            session.write_tls(&mut self.raw)?;
        }
        drop(session);
        self.socket.write_all(&self.raw)
    }
}

/// A socket with a deadline over all that is read.
struct Timed<'a> {
    socket: &'a Socket,
    deadline: Option<Instant>,
}

impl Read for Timed<'_> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        self.socket.wait_until(self.deadline)?;
        self.socket.read(buf)
    }
}

impl Write for Timed<'_> {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        self.socket.write(buf)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
