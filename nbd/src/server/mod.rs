//! The server: listeners, a thread a connection, limits, and an end that loses nothing it acknowledged.

mod accept;
mod connection;
mod flight;
mod handshake;
mod negotiation;
mod options;
mod output;
mod perform;
mod pool;

pub use negotiation::{Chosen, Negotiation, Step};
pub use options::{Limits, Options, Tls};

use crate::export::Exports;
use crate::transport::Socket;
use std::collections::HashMap;
use std::io;
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream, ToSocketAddrs};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // What is locked here is counters and lists, whole after each statement.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A server with any number of listeners. Dropping it is as [`Server::shutdown`] with no patience.
pub struct Server {
    shared: Arc<Shared>,
    listeners: Mutex<Vec<Listening>>,
}

/// A thread that accepts.
struct Listening {
    thread: JoinHandle<()>,
    /// Closing it ends the thread.
    wake: UnixStream,
}

/// What all threads of a server share.
struct Shared {
    exports: Arc<dyn Exports>,
    options: Options,
    stopping: AtomicBool,
    open: Mutex<Open>,
    closed: Condvar,
    /// Long reads of all connections that are answered in one piece.
    long: Arc<flight::Flight>,
}

/// The connections there are.
#[derive(Default)]
struct Open {
    sockets: HashMap<u64, Peer>,
    next: u64,
    threads: usize,
}

struct Peer {
    socket: Socket,
    /// It has not chosen an export yet. The oldest of these goes when somebody comes and there is no room.
    shaking: bool,
}

impl Server {
    /// A server that listens nowhere yet.
    pub fn new(exports: Arc<dyn Exports>, options: Options) -> Self {
        let long = flight::Flight::new(usize::MAX, options.limits.long_reads);
        let shared = Shared {
            exports,
            options,
            long: Arc::new(long),
            stopping: AtomicBool::new(false),
            open: Mutex::default(),
            closed: Condvar::new(),
        };
        Self {
            shared: Arc::new(shared),
            listeners: Mutex::default(),
        }
    }

    /// Listens on a unix socket at a path where nothing is yet. The file stays when the server ends.
    pub fn listen_unix(&self, path: &Path) -> io::Result<()> {
        self.listen_on_unix(UnixListener::bind(path)?)
    }

    /// Listens on a TCP address; answers with the one it got.
    pub fn listen_tcp(&self, address: impl ToSocketAddrs) -> io::Result<SocketAddr> {
        let listener = TcpListener::bind(address)?;
        let address = listener.local_addr()?;
        self.listen_on_tcp(listener)?;
        Ok(address)
    }

    /// Listens on a socket that is bound already, as from socket activation.
    pub fn listen_on_unix(&self, listener: UnixListener) -> io::Result<()> {
        listener.set_nonblocking(true)?;
        self.listen(accept::Listener::Unix(listener))
    }

    /// Listens on a socket that is bound already, as from socket activation.
    pub fn listen_on_tcp(&self, listener: TcpListener) -> io::Result<()> {
        listener.set_nonblocking(true)?;
        self.listen(accept::Listener::Tcp(listener))
    }

    /// Serves a connected unix socket on a thread of its own.
    pub fn serve_unix(&self, stream: UnixStream) -> io::Result<()> {
        accept::start(&self.shared, Socket::Unix(stream))
    }

    /// Serves a connected TCP socket on a thread of its own.
    pub fn serve_tcp(&self, stream: TcpStream) -> io::Result<()> {
        accept::start(&self.shared, Socket::tcp(stream)?)
    }

    /// Connections that are open, those in their handshake included.
    pub fn connections(&self) -> usize {
        lock(&self.shared.open).threads
    }

    /// Ends: nobody new is let in, no further request is read, and requests that were read are done and answered.
    /// Peers that do not take their answers within `patience` are cut off. Answers whether none had to be. The caller
    /// flushes its disks afterwards if it wants what was written, but not flushed by clients, to be durable.
    pub fn shutdown(&self, patience: Duration) -> bool {
        self.shared.stopping.store(true, Ordering::SeqCst);
        for listening in std::mem::take(&mut *lock(&self.listeners)) {
            drop(listening.wake);
            // It only accepts; if it panicked it accepts no more, which is all that is wanted.
            let _ = listening.thread.join();
        }
        // Readers see an end of their input, and answers still go out.
        self.shared.end_all(Shutdown::Read);
        let gently = self.shared.wait(Some(Instant::now() + patience));
        if !gently {
            self.shared.end_all(Shutdown::Both);
            self.shared.wait(None);
        }
        gently
    }

    fn listen(&self, listener: accept::Listener) -> io::Result<()> {
        let (wake, woken) = UnixStream::pair()?;
        let shared = Arc::clone(&self.shared);
        let thread = std::thread::Builder::new()
            .name("nbd-accept".to_owned())
            .spawn(move || accept::run(&shared, &listener, &woken))?;
        lock(&self.listeners).push(Listening { thread, wake });
        Ok(())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.shutdown(Duration::ZERO);
    }
}

impl Shared {
    fn stopping(&self) -> bool {
        self.stopping.load(Ordering::SeqCst)
    }

    fn end_all(&self, how: Shutdown) {
        for peer in lock(&self.open).sockets.values() {
            peer.socket.end(how);
        }
    }

    /// Waits until all connections are closed; `false` when the deadline comes first.
    fn wait(&self, deadline: Option<Instant>) -> bool {
        let mut open = lock(&self.open);
        while open.threads > 0 {
            let left = deadline.map(|at| at.saturating_duration_since(Instant::now()));
            if left == Some(Duration::ZERO) {
                return false;
            }
            let left = left.unwrap_or(Duration::from_secs(1));
            let waited = self.closed.wait_timeout(open, left);
            open = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
        true
    }
}
