//! Reads a stream ahead on a thread of its own, frames decoded and hashed, so that reading, checking and storing overlap.

use super::message::Message;
use super::stream::Incoming;
use std::io::Read;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender};
use std::time::Duration;
use stillpoint_store::ops::ingest::Arrived;
use stillpoint_store::progress::Progress;
use stillpoint_store::{Error, ErrorKind, Result};

/// Messages read ahead at most: frames of 4 MiB, encoded and decoded, are the largest.
pub const AHEAD: usize = 8;
/// How soon somebody who waits for the other side notices that he was asked to stop.
const NOTICE: Duration = Duration::from_millis(200);

/// How long somebody whose pipe broke waits for the other side to say why.
const LAST_WORDS: Duration = Duration::from_secs(2);

/// What was read.
pub enum Item {
    /// A frame, its clusters named by their hashes.
    Frame(Arrived),
    /// Any other message.
    Message(Message),
}

/// A message and what belongs to it.
pub struct Got {
    /// How many messages had to come before it, one after the other.
    pub hops: u16,
    /// The message.
    pub item: Item,
    /// Bytes of the stream up to here.
    pub bytes: u64,
}

/// Gives what is read to `to` until it fails, the message that is the last was read, or nobody listens. The thread is not
/// waited for: it may wait for a pipe that nobody writes to.
pub fn start<R, T>(incoming: Incoming<R>, cluster_bytes: u32, to: SyncSender<T>) -> Result<()>
where
    R: Read + Send + 'static,
    T: From<Result<Got>> + Send + 'static,
{
    let read = move || {
        let mut incoming = incoming;
        loop {
            let got = next(&mut incoming, cluster_bytes);
            let last = got.as_ref().map_or(true, is_last);
            if to.send(got.into()).is_err() || last {
                return;
            }
        }
    };
    std::thread::Builder::new()
        .name("receive".into())
        .spawn(read)
        .map(drop)
        .map_err(|e| Error::io("starting a thread", e))
}

fn next<R: Read>(incoming: &mut Incoming<R>, cluster_bytes: u32) -> Result<Got> {
    let raw = incoming.read()?;
    let hops = raw.hops;
    let item = match Message::decode(raw)? {
        Message::Frame(bytes) => Item::Frame(Arrived::read(cluster_bytes, bytes)?),
        message => Item::Message(message),
    };
    if incoming.is_file() && matches!(item, Item::Message(Message::End(_))) {
        incoming.end()?;
    }
    Ok(Got {
        hops,
        item,
        bytes: incoming.bytes(),
    })
}

fn is_last(got: &Got) -> bool {
    use Message::{Done, End, Failed};
    matches!(&got.item, Item::Message(End(_) | Done(_) | Failed(_)))
}

/// The next of what was read ahead; `Cancelled` soon after somebody asked to stop.
pub fn wait<T>(from: &Receiver<T>, progress: &Progress) -> Result<T> {
    loop {
        progress.check()?;
        match from.recv_timeout(NOTICE) {
            Ok(got) => return Ok(got),
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => {
                return Err(Error::new(ErrorKind::Io, "receiving").detail("the other side is gone"));
            }
        }
    }
}

/// The next of what was read ahead, if it is there almost at once.
pub fn wait_a_moment<T>(from: &Receiver<T>) -> Option<T> {
    from.recv_timeout(NOTICE).ok()
}

/// The next of what was read ahead, if it comes soon.
pub fn wait_briefly<T>(from: &Receiver<T>) -> Option<T> {
    from.recv_timeout(LAST_WORDS).ok()
}
