//! Requests that were sent and not yet answered.

use super::Error;
use super::connection::Status;
use crate::codec::Request;
use crate::errno::Failure;
use std::collections::HashMap;
use std::marker::PhantomData;
use std::ops::Range;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

/// What comes of a request.
pub(super) enum Outcome {
    Data(Vec<u8>),
    Status(Status),
    Done,
}

/// What answers can be taken as.
pub(super) trait Answer: Sized {
    fn of(outcome: Outcome) -> Option<Self>;
}

impl Answer for Vec<u8> {
    fn of(outcome: Outcome) -> Option<Self> {
        match outcome {
            Outcome::Data(data) => Some(data),
            _ => None,
        }
    }
}

impl Answer for Status {
    fn of(outcome: Outcome) -> Option<Self> {
        match outcome {
            Outcome::Status(status) => Some(status),
            _ => None,
        }
    }
}

impl Answer for () {
    fn of(outcome: Outcome) -> Option<Self> {
        matches!(outcome, Outcome::Done).then_some(())
    }
}

/// An answer to come. Dropping it drops the answer; the request is done all the same.
pub struct Pending<T> {
    receiver: Receiver<Result<Outcome, Error>>,
    answer: PhantomData<fn() -> T>,
}

#[expect(private_bounds, reason = "nobody else makes answers")]
impl<T: Answer> Pending<T> {
    pub(super) fn new(receiver: Receiver<Result<Outcome, Error>>) -> Self {
        Self {
            receiver,
            answer: PhantomData,
        }
    }

    /// Waits for the answer.
    pub fn wait(self) -> Result<T, Error> {
        let outcome = self.receiver.recv().unwrap_or_else(|_| Err(gone()))?;
        T::of(outcome).ok_or_else(|| Error::Protocol("an answer of the wrong kind".to_owned()))
    }
}

pub(super) fn gone() -> Error {
    Error::Io(std::io::ErrorKind::ConnectionAborted.into())
}

/// A request and what has come of it so far.
pub(super) struct Slot {
    pub(super) request: Request,
    /// Space for the data of a read.
    pub(super) data: Vec<u8>,
    /// Parts of a read that have come, by their places in `data`; what follows on the last is joined to it.
    pub(super) filled: Vec<Range<usize>>,
    pub(super) status: Status,
    pub(super) failed: Option<Failure>,
    sender: SyncSender<Result<Outcome, Error>>,
}

impl Slot {
    pub(super) fn new(request: Request, data: Vec<u8>) -> (Self, Receiver<Result<Outcome, Error>>) {
        let (sender, receiver) = sync_channel(1);
        let slot = Self {
            request,
            data,
            filled: Vec::new(),
            status: Status::default(),
            failed: None,
            sender,
        };
        (slot, receiver)
    }

    pub(super) fn finish(self, outcome: Result<Outcome, Error>) {
        // Nobody may be waiting any more.
        let _ = self.sender.send(outcome);
    }
}

/// The requests in flight by their cookies.
pub(super) struct Slots {
    state: Mutex<State>,
    room: Condvar,
    most: usize,
}

struct State {
    slots: HashMap<u64, Slot>,
    /// Those that the receiver is working on.
    out: usize,
    next: u64,
    broken: bool,
}

impl Slots {
    pub(super) fn new(most: usize) -> Arc<Self> {
        let state = State {
            slots: HashMap::new(),
            out: 0,
            next: 1,
            broken: false,
        };
        Arc::new(Self {
            state: Mutex::new(state),
            room: Condvar::new(),
            most: most.max(1),
        })
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for room and enters a request under a new cookie, which it answers.
    pub(super) fn enter(&self, mut slot: Slot) -> Result<u64, Error> {
        let mut state = self.lock();
        while state.slots.len() + state.out >= self.most && !state.broken {
            state = self
                .room
                .wait(state)
                .unwrap_or_else(PoisonError::into_inner);
        }
        if state.broken {
            return Err(gone());
        }
        let cookie = state.next;
        state.next += 1;
        slot.request.cookie = cookie;
        state.slots.insert(cookie, slot);
        Ok(cookie)
    }

    /// Takes a request out to work on its answer. [`Slots::back`] or [`Slots::gone`] comes next.
    pub(super) fn take(&self, cookie: u64) -> Option<Slot> {
        let mut state = self.lock();
        let slot = state.slots.remove(&cookie)?;
        state.out += 1;
        Some(slot)
    }

    /// More is to come for it.
    pub(super) fn back(&self, slot: Slot) {
        let mut state = self.lock();
        state.out -= 1;
        if !state.broken {
            state.slots.insert(slot.request.cookie, slot);
        }
    }

    /// It is answered.
    pub(super) fn gone(&self) {
        self.lock().out -= 1;
        self.room.notify_one();
    }

    /// There will be no answers any more: all waiters hear of it, now and from here on.
    pub(super) fn break_all(&self) {
        let mut state = self.lock();
        state.broken = true;
        // Dropping the senders wakes them.
        state.slots.clear();
        self.room.notify_all();
    }
}
