//! A thread that lets clients of a bound socket in until it is told to stop.

use crate::listen::Listener;
use rustix::event::{PollFd, PollFlags, poll};
use std::io;
use std::net::TcpStream;
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::thread::JoinHandle;
use std::time::Duration;

/// A pause when there are no descriptors or threads left.
const PAUSE: Duration = Duration::from_millis(50);

/// A connected socket.
#[derive(Debug)]
pub enum Stream {
    /// A unix socket.
    Unix(UnixStream),
    /// A TCP socket.
    Tcp(TcpStream),
}

/// Stops when it is dropped.
#[derive(Debug)]
pub struct Accepting {
    thread: Option<JoinHandle<()>>,
    /// Closing it ends the thread.
    wake: Option<UnixStream>,
}

impl Accepting {
    /// Gives every client to `each`. An error of that is one of scarcity: it pauses.
    pub fn start(
        name: &str,
        listener: Listener,
        mut each: impl FnMut(Stream) -> io::Result<()> + Send + 'static,
    ) -> io::Result<Self> {
        match &listener {
            Listener::Unix(unix) => unix.set_nonblocking(true)?,
            Listener::Tcp(tcp) => tcp.set_nonblocking(true)?,
        }
        let (wake, woken) = UnixStream::pair()?;
        let named = std::thread::Builder::new().name(name.to_owned());
        let thread = named.spawn(move || {
            while wait(&listener, &woken) {
                let accepted = match accept(&listener) {
                    Err(e) if e.kind() == io::ErrorKind::WouldBlock => continue,
                    accepted => accepted,
                };
                if accepted.and_then(&mut each).is_err() {
                    std::thread::sleep(PAUSE);
                }
            }
        })?;
        Ok(Self {
            thread: Some(thread),
            wake: Some(wake),
        })
    }
}

impl Drop for Accepting {
    fn drop(&mut self) {
        self.wake.take();
        if let Some(thread) = self.thread.take() {
            // If it panicked it accepts no more, which is all that is wanted.
            let _ = thread.join();
        }
    }
}

fn accept(listener: &Listener) -> io::Result<Stream> {
    match listener {
        Listener::Unix(unix) => {
            let (stream, _) = unix.accept()?;
            stream.set_nonblocking(false)?;
            Ok(Stream::Unix(stream))
        }
        Listener::Tcp(tcp) => {
            let (stream, _) = tcp.accept()?;
            stream.set_nonblocking(false)?;
            Ok(Stream::Tcp(stream))
        }
    }
}

/// Waits for a client; `false` when it is time to go.
fn wait(listener: &Listener, woken: &UnixStream) -> bool {
    let listener = match listener {
        Listener::Unix(unix) => unix.as_fd(),
        Listener::Tcp(tcp) => tcp.as_fd(),
    };
    let mut ready = [
        PollFd::from_borrowed_fd(listener, PollFlags::IN),
        PollFd::new(woken, PollFlags::IN),
    ];
    match poll(&mut ready, None) {
        Ok(_) | Err(rustix::io::Errno::INTR) => ready[1].revents().is_empty(),
        Err(_) => {
            std::thread::sleep(PAUSE);
            true
        }
    }
}
