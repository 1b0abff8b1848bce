//! Clients that hear of events: each has a queue and a thread that empties it, so that nobody waits for a client that does not
//! listen. One whose queue is full is cut off.

use super::lock;
use std::collections::HashMap;
use std::io::Write;
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::sync::Mutex;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::JoinHandle;
use std::time::Duration;

/// Messages that wait for a client at most.
const QUEUE: usize = 256;
/// Longest that a client may take nothing.
const STALL: Duration = Duration::from_secs(30);

/// Sends to one client.
#[derive(Debug, Clone)]
pub struct Out {
    queue: SyncSender<Vec<u8>>,
}

impl Out {
    /// Starts the thread that writes to a socket. It ends when the last copy of the answer is gone, or the client is.
    pub fn start(stream: UnixStream) -> std::io::Result<(Self, JoinHandle<()>)> {
        stream.set_write_timeout(Some(STALL))?;
        let (queue, messages) = sync_channel(QUEUE);
        let named = std::thread::Builder::new().name("qmp-out".to_owned());
        let writer = named.spawn(move || write(stream, &messages))?;
        Ok((Self { queue }, writer))
    }

    /// Sends an answer; waits while the client is slow. `false` when it is gone.
    pub fn send(&self, message: Vec<u8>) -> bool {
        self.queue.send(message).is_ok()
    }
}

fn write(mut stream: UnixStream, messages: &Receiver<Vec<u8>>) {
    while let Ok(message) = messages.recv() {
        if stream.write_all(&message).is_err() {
            break;
        }
    }
    // The thread that reads from it sees the end. One that is closed already is as good.
    let _ = stream.shutdown(Shutdown::Both);
}

/// Those who are connected.
#[derive(Debug, Default)]
pub struct Clients {
    all: Mutex<All>,
}

#[derive(Debug, Default)]
struct All {
    next: u64,
    /// With the queue of those that have negotiated: only they hear of events.
    connected: HashMap<u64, (UnixStream, Option<Out>)>,
}

impl Clients {
    /// Lets one more in, if there are fewer than `most`.
    pub fn enter(&self, stream: UnixStream, most: usize) -> Option<u64> {
        let mut all = lock(&self.all);
        if all.connected.len() >= most {
            return None;
        }
        all.next += 1;
        let number = all.next;
        all.connected.insert(number, (stream, None));
        Some(number)
    }

    /// From now on it hears of events.
    pub fn negotiated(&self, number: u64, out: Out) {
        if let Some(client) = lock(&self.all).connected.get_mut(&number) {
            client.1 = Some(out);
        }
    }

    /// It is gone.
    pub fn leave(&self, number: u64) {
        lock(&self.all).connected.remove(&number);
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        lock(&self.all).connected.len()
    }

    /// Tells everybody.
    pub fn tell(&self, message: &[u8]) {
        for (stream, out) in lock(&self.all).connected.values() {
            let Some(out) = out else { continue };
            if out.queue.try_send(message.to_vec()).is_err() {
                let _ = stream.shutdown(Shutdown::Both);
            }
        }
    }

    /// Nobody is listened to any more; what is being done is still answered.
    pub fn end(&self) {
        for (stream, _) in lock(&self.all).connected.values() {
            let _ = stream.shutdown(Shutdown::Read);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read;

    #[test]
    fn who_does_not_listen_is_cut_off_and_nobody_waits_for_him() {
        let clients = Clients::default();
        let (ours, mut deaf) = UnixStream::pair().unwrap();
        let number = clients.enter(ours.try_clone().unwrap(), 1).unwrap();
        assert_eq!(clients.enter(ours.try_clone().unwrap(), 1), None);
        let (out, writer) = Out::start(ours).unwrap();
        clients.negotiated(number, out);
        // Far more than a socket and the queue take. It returns.
        for _ in 0..10_000 {
            clients.tell(&[b'x'; 1024]);
        }
        deaf.set_read_timeout(Some(Duration::from_mins(1))).unwrap();
        let mut heard = Vec::new();
        deaf.read_to_end(&mut heard).unwrap();
        assert!(heard.len() < 10_000 << 10, "it heard everything");
        clients.leave(number);
        writer.join().unwrap();
        assert_eq!(clients.count(), 0);
    }
}
