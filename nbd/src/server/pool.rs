//! Jobs that wait for a worker of their connection.

use super::lock;
use std::collections::VecDeque;
use std::sync::{Condvar, Mutex, PoisonError};

/// A queue with workers behind it; its length is bounded by what is in flight.
pub(super) struct Pool<T> {
    state: Mutex<State<T>>,
    more: Condvar,
}

struct State<T> {
    jobs: VecDeque<T>,
    idle: usize,
    closed: bool,
}

impl<T> Pool<T> {
    pub(super) fn new() -> Self {
        let state = State {
            jobs: VecDeque::new(),
            idle: 0,
            closed: false,
        };
        Self {
            state: Mutex::new(state),
            more: Condvar::new(),
        }
    }

    /// Answers whether another worker would have something to do.
    pub(super) fn push(&self, job: T) -> bool {
        let mut state = lock(&self.state);
        state.jobs.push_back(job);
        self.more.notify_one();
        state.jobs.len() > state.idle
    }

    /// Waits for the next job; `None` when the pool is closed and empty.
    pub(super) fn pop(&self) -> Option<T> {
        let mut state = lock(&self.state);
        loop {
            if let Some(job) = state.jobs.pop_front() {
                return Some(job);
            }
            if state.closed {
                return None;
            }
            state.idle += 1;
            state = self
                .more
                .wait(state)
                .unwrap_or_else(PoisonError::into_inner);
            state.idle -= 1;
        }
    }

    /// What is queued is still done.
    pub(super) fn close(&self) {
        lock(&self.state).closed = true;
        self.more.notify_all();
    }
}
