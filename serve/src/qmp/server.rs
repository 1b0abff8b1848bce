//! The socket: clients are let in, up to a number, each with a thread of its own.

use super::message;
use super::monitor::Monitor;
use super::session;
use crate::accept::{Accepting, Stream};
use crate::listen::Listener;
use serde_json::json;
use std::io;
use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use tracing::{debug, warn};

/// Most clients at once.
const CLIENTS: usize = 64;

/// Serves a monitor on unix sockets. Dropping it is as [`Server::shutdown`] with no patience.
pub struct Server {
    monitor: Arc<Monitor>,
    stopped: AtomicBool,
    listening: Mutex<Vec<Accepting>>,
}

impl Server {
    /// A server that listens nowhere yet.
    pub fn new(monitor: Arc<Monitor>) -> Self {
        Self {
            monitor,
            stopped: AtomicBool::new(false),
            listening: Mutex::default(),
        }
    }

    /// Lets clients of a bound socket in.
    pub fn listen(&self, listener: UnixListener) -> io::Result<()> {
        let monitor = self.monitor.clone();
        let listener = Listener::Unix(listener);
        let accepting = Accepting::start("qmp-accept", listener, move |stream| match stream {
            Stream::Unix(stream) => start(&monitor, stream),
            // It obeys whoever can connect.
            Stream::Tcp(_) => Ok(()),
        })?;
        super::lock(&self.listening).push(accepting);
        Ok(())
    }

    /// Ends: nobody new is let in, and what is being done is done and answered, unless that takes longer than `patience`.
    pub fn shutdown(&self, patience: Duration) {
        if self.stopped.swap(true, Ordering::SeqCst) {
            return;
        }
        drop(std::mem::take(&mut *super::lock(&self.listening)));
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

fn start(monitor: &Arc<Monitor>, stream: UnixStream) -> io::Result<()> {
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
