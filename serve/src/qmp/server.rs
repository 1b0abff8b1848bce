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

    /// Ends: nobody new is let in, and what is being done is done and answered; what takes longer than `patience` is stopped.
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
        let at_work = || clients.count() > 0 || self.monitor.jobs().any_at_work();
        while at_work() && Instant::now() < deadline {
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nbd::StoreExports;
    use crate::qmp::arguments::Arguments;
    use crate::shelf::Shelf;
    use stillpoint_api::{OpenOptions, System};
    use stillpoint_store::geometry::Geometry;

    #[test]
    fn a_stop_does_not_wait_for_the_end_of_a_long_job() {
        let folder = tempfile::tempdir().unwrap();
        let (store, image) = (folder.path().join("store"), folder.path().join("web1"));
        System::init(&store, Geometry::DEFAULT).unwrap();
        let system = System::open(&store, OpenOptions::default()).unwrap();
        let system: &'static System = Box::leak(Box::new(system));
        // Far more than can be read between the next two lines.
        let mut bytes = vec![0; 64 << 20];
        for (n, word) in bytes.chunks_mut(8).enumerate() {
            word.copy_from_slice(&(n as u64).wrapping_mul(0x9E37_79B9_7F4A_7C15).to_le_bytes());
        }
        std::fs::write(&image, bytes).unwrap();
        system.device_add("web1", &image, "raw", false).unwrap();
        let shelf = Arc::new(Shelf::new(system, 1 << 20).unwrap());
        let exports = Arc::new(StoreExports::new(shelf.clone()));
        let monitor = Monitor::new(shelf, exports, "10.0".parse().unwrap());
        let server = Server::new(monitor.clone());
        let arguments =
            json!({ "job-id": "j", "tag": "t", "vmstate": "web1", "devices": ["web1"] });
        let arguments = Arguments::new(arguments.as_object().unwrap().clone());
        monitor.execute("snapshot-save", arguments).unwrap();
        server.shutdown(Duration::ZERO);
        let jobs = monitor.jobs().list();
        assert_eq!(jobs[0]["status"], "concluded");
        let error = jobs[0]["error"].as_str().unwrap_or_default();
        assert!(error.contains("stopped as asked"), "{jobs}");
        assert!(system.list(None).unwrap().is_empty(), "whole or not at all");
    }
}
