//! Buffers of a thread, used again: memory that the system has just given costs as much to touch as to decode into.

use std::cell::RefCell;

/// Buffers that a thread keeps: one read into, one decoded into.
const KEPT: usize = 2;

thread_local! {
    static SPARE: RefCell<Vec<Vec<u8>>> = const { RefCell::new(Vec::new()) };
}

/// A buffer with anything in it.
pub(crate) fn take() -> Vec<u8> {
    SPARE.with_borrow_mut(Vec::pop).unwrap_or_default()
}

/// Makes it so long, and no longer than it must be; what stands in it means nothing.
pub(crate) fn fit(buffer: &mut Vec<u8>, len: usize) {
    buffer.reserve_exact(len.saturating_sub(buffer.len()));
    buffer.resize(len, 0);
}

/// Gives a buffer back, of a frame's size at most.
pub(crate) fn give(buffer: Vec<u8>) {
    SPARE.with_borrow_mut(|spare| {
        if spare.len() < KEPT {
            spare.push(buffer);
        }
    });
}
