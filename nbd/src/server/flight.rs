//! Requests that were read and not yet answered, of a connection or of all: how many, how many bytes, and waiting for room.

use super::lock;
use std::sync::{Arc, Condvar, Mutex, PoisonError};

/// What is in flight.
pub(super) struct Flight {
    now: Mutex<Load>,
    less: Condvar,
    most: Load,
}

#[derive(Default, Clone, Copy)]
struct Load {
    requests: usize,
    bytes: usize,
}

/// A request in flight, until dropped.
pub(super) struct Ticket {
    flight: Arc<Flight>,
    bytes: usize,
}

impl Flight {
    pub(super) fn new(requests: usize, bytes: usize) -> Self {
        Self {
            now: Mutex::default(),
            less: Condvar::new(),
            most: Load {
                requests: requests.max(1),
                bytes,
            },
        }
    }

    /// Nothing is in flight. Of one connection that holds until the caller, who alone starts requests, starts one.
    pub(super) fn is_empty(&self) -> bool {
        lock(&self.now).requests == 0
    }

    /// Waits until there is room. One request has room in any case.
    pub(super) fn start(self: &Arc<Self>, bytes: usize) -> Ticket {
        let mut now = lock(&self.now);
        while now.requests > 0
            && (now.requests >= self.most.requests || now.bytes + bytes > self.most.bytes)
        {
            now = self.less.wait(now).unwrap_or_else(PoisonError::into_inner);
        }
        now.requests += 1;
        now.bytes += bytes;
        drop(now);
        let flight = Arc::clone(self);
        Ticket { flight, bytes }
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        let mut now = lock(&self.flight.now);
        now.requests -= 1;
        now.bytes -= self.bytes;
        // Of several that wait, the one that is woken may be one that still has no room.
        self.flight.less.notify_all();
    }
}
