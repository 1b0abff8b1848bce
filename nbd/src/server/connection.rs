//! The transmission phase of one connection.
//!
//! The connection's own thread reads requests. What takes no waiting it answers itself, and answers that come together
//! go out together; the rest goes to a few workers, which answer in any order. When nothing else is in flight or at
//! hand, there is nobody to hand over for, and it does what waits itself too. It stops reading while too much is in flight.

use super::flight::{Flight, Ticket};
use super::handshake::{self, Ready};
use super::output::{Answers, Output};
use super::perform::{Disk, PIECE};
use super::pool::Pool;
use super::{Limits, Shared};
use crate::codec::{Request, command, flags};
use crate::errno::{Errno, Failure};
use crate::transport::{Input, Socket};
use std::io;
use std::sync::Arc;
use std::thread::{self, Scope};

/// Longest read that is tried on the connection's thread while other requests wait.
const SMALL: u64 = 256 << 10;
/// Longest write that is received as a whole before it is begun. Of a longer one no more than this is held.
const WRITE: usize = 1 << 20;
/// A read that must be answered in one piece and is longer waits for its share of what all connections may hold.
const LONG: u64 = 2 << 20;

/// Serves a connection to its end; says when its handshake is done. There is nobody to tell about a peer that misbehaves: it is
/// cut off.
pub(super) fn serve(shared: &Shared, socket: &Socket, settled: impl FnOnce()) {
    if let Ok(Some(ready)) = handshake::shake(shared, socket) {
        settled();
        transmit(shared, socket, ready);
    }
}

/// A request for a worker.
struct Job {
    request: Request,
    payload: Vec<u8>,
    /// Makes room when the job is done.
    #[expect(dead_code, reason = "it works by being dropped")]
    ticket: Ticket,
}

fn transmit(shared: &Shared, socket: &Socket, ready: Ready) {
    let limits = &shared.options.limits;
    let disk = Disk::new(ready.chosen, limits);
    let output = Output::new(ready.output, socket);
    let flight = Arc::new(Flight::new(limits.requests, limits.bytes));
    let pool = Pool::new();
    thread::scope(|scope| {
        let _closed = Close(&pool);
        let mut reader = Reader {
            shared,
            limits,
            disk: &disk,
            flight: &flight,
            pool: &pool,
            output: &output,
            answers: Answers::new(&output),
            input: ready.input,
            workers: 0,
        };
        // However it ended, what was read is done, and its answer sent if the peer takes it.
        let _ = reader.run(scope);
        let _ = reader.answers.send();
    });
    output.close();
}

/// Lets the workers go, also when the reader panics.
struct Close<'a, T>(&'a Pool<T>);

impl<T> Drop for Close<'_, T> {
    fn drop(&mut self) {
        self.0.close();
    }
}

/// What the connection's own thread has at hand.
struct Reader<'a> {
    shared: &'a Shared,
    limits: &'a Limits,
    disk: &'a Disk,
    flight: &'a Arc<Flight>,
    pool: &'a Pool<Job>,
    output: &'a Output<'a>,
    answers: Answers<'a>,
    input: Input,
    workers: usize,
}

impl<'a> Reader<'a> {
    fn run<'s>(&mut self, scope: &'s Scope<'s, 'a>) -> io::Result<()> {
        let mode = self.disk.mode();
        while !self.shared.stopping() && !self.output.is_broken() {
            let decoded = Request::decode(mode, self.input.buffered());
            let decoded = decoded.map_err(|e| io::Error::new(io::ErrorKind::InvalidData, e))?;
            let Some((request, len)) = decoded else {
                self.answers.send()?;
                if self.input.fill()? == 0 {
                    return Ok(());
                }
                continue;
            };
            self.input.consume(len);
            if request.command == command::DISC {
                return Ok(());
            }
            self.handle(scope, request)?;
            self.answers.send_if_much()?;
        }
        Ok(())
    }

    fn handle<'s>(&mut self, scope: &'s Scope<'s, 'a>, request: Request) -> io::Result<()> {
        let payload = request.payload(self.disk.mode());
        if let Err(failure) = self.accept(&request, payload) {
            self.answers.send()?;
            self.drain(payload)?;
            self.disk
                .put_failure(&request, &failure, None, &mut self.answers);
            return Ok(());
        }
        if request.command == command::READ
            && request.length <= SMALL
            && self.disk.read_now(&request, &mut self.answers)
        {
            return Ok(());
        }
        if payload > WRITE as u64 {
            return self.write_as_it_comes(&request);
        }
        if request.length > LONG && self.disk.is_one_piece(&request) {
            return self.read_long(&request);
        }
        let here = request.command == command::WRITE
            && !request.has(flags::FUA)
            && self.disk.writes_at_once();
        let at_hand = self.input.buffered().len() as u64;
        if here && payload <= at_hand {
            let data = &self.input.buffered()[..payload as usize];
            self.disk.perform(&request, data, &mut self.answers)?;
            self.input.consume(payload as usize);
            return Ok(());
        }
        if self.flight.is_empty() && (here || at_hand <= payload) {
            return self.do_here(&request, payload as usize);
        }
        self.hand_over(scope, request, payload as usize)
    }

    /// Whether the request and its payload are taken.
    fn accept(&self, request: &Request, payload: u64) -> Result<(), Failure> {
        self.disk.check(request)?;
        // Only a list of contexts has come this far without its length being looked at.
        let most = match request.command {
            command::WRITE => self.disk.payload(),
            _ => u64::from(self.limits.option_bytes),
        };
        if payload > most {
            return Err(Failure::new(Errno::Inval, "too much payload"));
        }
        Ok(())
    }

    /// Skips the data of a request that was refused; a peer that announces absurd lengths has to go.
    fn drain(&mut self, payload: u64) -> io::Result<()> {
        if payload > 2 * u64::from(self.limits.payload) {
            return Err(io::ErrorKind::InvalidData.into());
        }
        self.input.skip(payload)
    }

    fn do_here(&mut self, request: &Request, payload: usize) -> io::Result<()> {
        self.answers.send()?;
        let data = self.input.payload(payload)?;
        self.disk.perform(request, &data, &mut self.answers)
    }

    /// A write that breaks off may have been done in part, as on any disk.
    fn write_as_it_comes(&mut self, request: &Request) -> io::Result<()> {
        self.answers.send()?;
        let mut piece = Vec::new();
        let (mut at, mut written) = (0, Ok(()));
        while at < request.length {
            let left = usize::try_from(request.length - at).unwrap_or(usize::MAX);
            piece.resize(left.min(WRITE), 0);
            self.input.exact(&mut piece)?;
            written = written.and_then(|()| self.disk.write_piece(request, &piece, at));
            at += piece.len() as u64;
        }
        self.disk.end_write(request, written, &mut self.answers);
        Ok(())
    }

    fn read_long(&mut self, request: &Request) -> io::Result<()> {
        // Whoever waits here, or does not take the answer, keeps nobody waiting who reads less at once.
        self.answers.send()?;
        let _ticket = self.shared.long.start(request.length as usize);
        self.disk.perform(request, &[], &mut self.answers)?;
        self.answers.send()
    }

    fn hand_over<'s>(
        &mut self,
        scope: &'s Scope<'s, 'a>,
        request: Request,
        payload: usize,
    ) -> io::Result<()> {
        // Answers must not wait for room, or for the rest of a payload.
        self.answers.send()?;
        let ticket = self.flight.start(charge(self.disk, &request, payload));
        let payload = self.input.payload(payload)?;
        let job = Job {
            request,
            payload,
            ticket,
        };
        let busy = self.pool.push(job);
        if busy && self.workers < self.limits.workers.max(1) {
            let (disk, pool, output) = (self.disk, self.pool, self.output);
            let named = thread::Builder::new().name("nbd-worker".to_owned());
            let started = named.spawn_scoped(scope, move || work(disk, pool, output));
            match started {
                Ok(_) => self.workers += 1,
                Err(error) if self.workers == 0 => return Err(error),
                // Those there are get to it.
                Err(_) => {}
            }
        }
        Ok(())
    }
}

/// Bytes that a request holds while it is in flight.
fn charge(disk: &Disk, request: &Request, payload: usize) -> usize {
    match request.command {
        command::READ if disk.is_one_piece(request) => request.length as usize,
        command::READ => (request.length as usize).min(PIECE),
        command::BLOCK_STATUS => payload + (1 << 20),
        _ => payload,
    }
}

fn work<'a>(disk: &'a Disk, pool: &Pool<Job>, output: &'a Output<'a>) {
    let mut answers = Answers::new(output);
    while let Some(job) = pool.pop() {
        // A peer that is gone is noticed by the reader; what it had asked for in full is done all the same.
        let _ = disk.perform(&job.request, &job.payload, &mut answers);
        let _ = answers.send();
    }
}
