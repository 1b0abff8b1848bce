//! Letting peers in, as many as may.

use super::{Limits, Open, Peer, Shared, connection, lock};
use crate::transport::Socket;
use rustix::event::{PollFd, PollFlags, poll};
use std::net::{Shutdown, TcpListener};
use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::Arc;
use std::{io, thread, time::Duration};

/// A pause when there are no descriptors or no memory left.
const PAUSE: Duration = Duration::from_millis(50);

/// Connections that were ended to make room and may still be there.
const LEAVING: usize = 16;

/// A bound socket; accepting from it does not wait.
pub(super) enum Listener {
    Unix(UnixListener),
    Tcp(TcpListener),
}

impl Listener {
    fn accept(&self) -> io::Result<Socket> {
        match self {
            Self::Unix(listener) => {
                let (stream, _) = listener.accept()?;
                stream.set_nonblocking(false)?;
                Ok(Socket::Unix(stream))
            }
            Self::Tcp(listener) => {
                let (stream, _) = listener.accept()?;
                stream.set_nonblocking(false)?;
                Socket::tcp(stream)
            }
        }
    }
}

/// Accepts until the other end of `woken` is closed.
pub(super) fn run(shared: &Arc<Shared>, listener: &Listener, woken: &UnixStream) {
    while !shared.stopping() {
        let ready = match listener {
            Listener::Unix(socket) => wait(socket, woken),
            Listener::Tcp(socket) => wait(socket, woken),
        };
        match ready {
            Ok(true) => {}
            Ok(false) => return,
            Err(_) => thread::sleep(PAUSE),
        }
        let started = listener.accept().and_then(|socket| start(shared, socket));
        match started {
            Err(error) if is_scarcity(&error) => thread::sleep(PAUSE),
            // A peer that left before it was let in, or one too many.
            _ => {}
        }
    }
}

/// Whether accepting again at once would fail again at once.
fn is_scarcity(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, Interrupted, QuotaExceeded, WouldBlock};
    let passing = [ConnectionAborted, Interrupted, QuotaExceeded, WouldBlock];
    !passing.contains(&error.kind())
}

/// Waits for a peer; `false` when it is time to go.
fn wait(listener: &impl std::os::fd::AsFd, woken: &UnixStream) -> io::Result<bool> {
    let mut ready = [
        PollFd::new(listener, PollFlags::IN),
        PollFd::new(woken, PollFlags::IN),
    ];
    match poll(&mut ready, None) {
        Ok(_) | Err(rustix::io::Errno::INTR) => Ok(ready[1].revents().is_empty()),
        Err(error) => Err(error.into()),
    }
}

/// Serves a socket on a thread of its own, if there is room.
pub(super) fn start(shared: &Arc<Shared>, socket: Socket) -> io::Result<()> {
    let entry = Entry::new(shared, &socket)?;
    thread::Builder::new()
        .name("nbd-connection".to_owned())
        .spawn(move || connection::serve(&entry.shared, &socket, || entry.settled()))?;
    Ok(())
}

/// A connection in the list of those that are open. It leaves the list however its thread ends.
struct Entry {
    shared: Arc<Shared>,
    id: u64,
}

impl Entry {
    fn new(shared: &Arc<Shared>, socket: &Socket) -> io::Result<Self> {
        let clone = socket.try_clone()?;
        let mut open = lock(&shared.open);
        let full = open.threads >= shared.options.limits.connections;
        if shared.stopping() || (full && !make_room(&mut open, &shared.options.limits)) {
            socket.end(Shutdown::Both);
            return Err(io::ErrorKind::QuotaExceeded.into());
        }
        let id = open.next;
        open.next += 1;
        open.threads += 1;
        let peer = Peer {
            socket: clone,
            shaking: true,
        };
        open.sockets.insert(id, peer);
        Ok(Self {
            shared: Arc::clone(shared),
            id,
        })
    }
}

/// Ends the connection that has been shaking hands for longest, so that those who never get any further keep nobody out.
fn make_room(open: &mut Open, limits: &Limits) -> bool {
    if open.threads >= limits.connections.saturating_add(LEAVING) {
        return false;
    }
    let shaking = open.sockets.iter_mut().filter(|(_, peer)| peer.shaking);
    let Some((_, oldest)) = shaking.min_by_key(|(id, _)| **id) else {
        return false;
    };
    oldest.socket.end(Shutdown::Both);
    oldest.shaking = false;
    true
}

impl Entry {
    /// It has an export, and stays for as long as it likes.
    fn settled(&self) {
        if let Some(peer) = lock(&self.shared.open).sockets.get_mut(&self.id) {
            peer.shaking = false;
        }
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        let mut open = lock(&self.shared.open);
        if let Some(peer) = open.sockets.remove(&self.id) {
            peer.socket.end(Shutdown::Both);
        }
        open.threads -= 1;
        self.shared.closed.notify_all();
    }
}
