//! The socket: clients are let in, up to a number, each with a thread of its own.

use super::message;
use super::monitor::Monitor;
use super::session;
use rustix::event::{PollFd, PollFlags, poll};
use serde_json::json;
use std::io;
use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use tracing::{debug, warn};

/// Most clients at once.
const CLIENTS: usize = 64;
/// A pause when there are no descriptors or threads left.
const PAUSE: Duration = Duration::from_millis(50);

/// Serves a monitor on unix sockets. Dropping it is as [`Server::shutdown`] with no patience.
pub struct Server {
    monitor: Arc<Monitor>,
    stopping: Arc<AtomicBool>,
    listening: Mutex<Vec<(JoinHandle<()>, UnixStream)>>,
}

impl Server {
    /// A server that listens nowhere yet.
    pub fn new(monitor: Arc<Monitor>) -> Self {
        Self {
            monitor,
            stopping: Arc::default(),
            listening: Mutex::default(),
        }
    }

    /// Lets clients of a bound socket in.
    pub fn listen(&self, listener: UnixListener) -> io::Result<()> {
        listener.set_nonblocking(true)?;
        let (wake, woken) = UnixStream::pair()?;
        let (monitor, stopping) = (self.monitor.clone(), self.stopping.clone());
        let named = std::thread::Builder::new().name("qmp-accept".to_owned());
        let thread = named.spawn(move || {
            while !stopping.load(Ordering::SeqCst) && wait(&listener, &woken) {
                let _ = accept(&monitor, &listener);
            }
        })?;
        super::lock(&self.listening).push((thread, wake));
        Ok(())
    }

    /// Ends: nobody new is let in, and what is being done is done and answered, unless that takes longer than `patience`.
    pub fn shutdown(&self, patience: Duration) {
        if self.stopping.swap(true, Ordering::SeqCst) {
            return;
        }
        for (thread, wake) in std::mem::take(&mut *super::lock(&self.listening)) {
            drop(wake);
            // It only accepts.
            let _ = thread.join();
        }
        let clients = self.monitor.clients();
        let data = json!({ "guest": false, "reason": "host-signal" });
        clients.tell(&message::event("SHUTDOWN", &data));
        clients.end();
        let deadline = Instant::now() + patience;
        while clients.count() > 0 && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(5));
        }
        self.monitor.end();
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.shutdown(Duration::ZERO);
    }
}

/// Waits for a client; `false` when it is time to go.
fn wait(listener: &UnixListener, woken: &UnixStream) -> bool {
    let mut ready = [
        PollFd::new(listener, PollFlags::IN),
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

fn accept(monitor: &Arc<Monitor>, listener: &UnixListener) -> io::Result<()> {
    let stream = match listener.accept() {
        Ok((stream, _)) => stream,
        Err(e) if e.kind() == io::ErrorKind::WouldBlock => return Ok(()),
        Err(e) => {
            std::thread::sleep(PAUSE);
            return Err(e);
        }
    };
    stream.set_nonblocking(false)?;
    let Some(number) = monitor.clients().enter(stream.try_clone()?, CLIENTS) else {
        warn!("a control client too many was turned away");
        return Ok(());
    };
    let client = Client {
        monitor: monitor.clone(),
        number,
    };
    let named = std::thread::Builder::new().name("qmp-client".to_owned());
    named.spawn(move || {
        debug!(client = client.number, "control client came");
        // One that broke off has nobody left to be told.
        let _ = session::talk(&client.monitor, client.number, &stream);
        debug!(client = client.number, "control client left");
    })?;
    Ok(())
}

/// Leaves the list however its thread ends.
struct Client {
    monitor: Arc<Monitor>,
    number: u64,
}

impl Drop for Client {
    fn drop(&mut self) {
        self.monitor.clients().leave(self.number);
    }
}
