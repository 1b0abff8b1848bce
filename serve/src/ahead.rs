//! Reading ahead: who reads on where it stopped finds the next frames decoded. A few threads for all disks; what they cannot
//! keep up with is forgotten, since it was only a guess.

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

/// Guesses that wait; more are forgotten.
const WAITING: usize = 64;
/// Sequential readers that a connection may be: one that copies in parallel reads at several places.
const STREAMS: usize = 4;
/// Bytes that somebody has read on before it is believed: who reads here and there in a small place comes near to where he
/// was by chance, but not often in a row.
const RUN_MIN: u64 = 64 << 10;
/// A read this far from where one is expected goes on from there all the same: requests overtake each other.
const SLACK: u64 = 1 << 20;

/// What can be read ahead. A guess that waits keeps it, so it must keep nobody from anything.
pub trait Fetch: Send + Sync {
    /// Brings a range into memory. What fails here is found by the read itself.
    fn fetch(&self, range: Range<u64>);
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Lists and numbers, whole after each statement.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The threads, and what they are to read.
#[derive(Default)]
pub struct Ahead {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
}

#[derive(Default)]
struct Shared {
    queue: Mutex<Queue>,
    more: Condvar,
}

#[derive(Default)]
struct Queue {
    guesses: VecDeque<(Arc<dyn Fetch>, Range<u64>)>,
    closed: bool,
}

impl Ahead {
    /// With so many threads. Fewer, or none, where they cannot be had: nobody depends on them.
    pub fn new(threads: usize) -> Self {
        let shared = Arc::new(Shared::default());
        let start = |_| {
            let shared = shared.clone();
            let named = std::thread::Builder::new().name("read-ahead".to_owned());
            named.spawn(move || shared.work()).ok()
        };
        let threads = (0..threads).filter_map(start).collect();
        Self { shared, threads }
    }

    /// A range will probably be read soon.
    pub fn expect(&self, disk: Arc<dyn Fetch>, range: Range<u64>) {
        let mut queue = lock(&self.shared.queue);
        if range.is_empty() || queue.closed || queue.guesses.len() >= WAITING {
            return;
        }
        queue.guesses.push_back((disk, range));
        drop(queue);
        self.shared.more.notify_one();
    }
}

impl Drop for Ahead {
    fn drop(&mut self) {
        let mut queue = lock(&self.shared.queue);
        queue.closed = true;
        let forgotten = std::mem::take(&mut queue.guesses);
        drop(queue);
        drop(forgotten);
        self.shared.more.notify_all();
        let here = std::thread::current().id();
        for thread in self.threads.drain(..) {
            // The last owner of a disk may be one of the threads.
            if thread.thread().id() != here {
                let _ = thread.join();
            }
        }
    }
}

impl Shared {
    fn work(&self) {
        while let Some((disk, range)) = self.next() {
            disk.fetch(range);
        }
    }

    fn next(&self) -> Option<(Arc<dyn Fetch>, Range<u64>)> {
        let mut queue = lock(&self.queue);
        loop {
            if queue.closed {
                return None;
            }
            if let Some(guess) = queue.guesses.pop_front() {
                return Some(guess);
            }
            queue = self
                .more
                .wait(queue)
                .unwrap_or_else(PoisonError::into_inner);
        }
    }
}

/// Where a reader stopped last, at a few places at once.
#[derive(Debug, Default)]
pub struct Pattern {
    streams: Mutex<Vec<Stream>>,
}

#[derive(Debug)]
struct Stream {
    /// Where it is expected to go on.
    next: u64,
    /// What was read ahead ends here.
    ahead: u64,
    /// Bytes that it read on without a jump.
    run: u64,
}

impl Pattern {
    /// Notes a read, and answers with what should be read ahead for it: nothing for who jumps about, and at most `window()`
    /// bytes beyond the read for others.
    pub fn note(
        &self,
        offset: u64,
        length: u64,
        window: impl FnOnce() -> u64,
    ) -> Option<Range<u64>> {
        let end = offset + length;
        let mut streams = lock(&self.streams);
        let near = |s: &Stream| s.next.abs_diff(offset) <= SLACK && end > s.next;
        let Some(at) = streams.iter().position(near) else {
            streams.truncate(STREAMS - 1);
            let fresh = Stream {
                next: end,
                ahead: end,
                run: length,
            };
            streams.insert(0, fresh);
            return None;
        };
        // The one that moved last is the last to be forgotten.
        streams[..=at].rotate_right(1);
        let stream = &mut streams[0];
        stream.run += length;
        stream.next = end;
        if stream.run < (2 * length).max(RUN_MIN) {
            return None;
        }
        let window = window();
        if window == 0 || stream.ahead >= end + window / 2 {
            return None;
        }
        let from = stream.ahead.max(end);
        stream.ahead = end + window;
        Some(from..stream.ahead)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const W: u64 = 4 << 20;

    #[test]
    fn who_reads_on_is_read_ahead_for_and_each_byte_once() {
        let pattern = Pattern::default();
        let step = 64 << 10;
        let guesses: Vec<_> = (0..256)
            .filter_map(|n| pattern.note(n * step, step, || W))
            .collect();
        assert!(guesses.len() > 4, "{guesses:?}");
        for pair in guesses.windows(2) {
            assert_eq!(pair[0].end, pair[1].start, "{guesses:?}");
        }
        let end = 256 * step;
        let last = guesses.last().expect("some").end;
        assert!((end + W / 4..=end + W).contains(&last), "{last}");
    }

    #[test]
    fn four_readers_at_once_are_four_streams() {
        let pattern = Pattern::default();
        let step = 256 << 10;
        let mut guessed = [0; 4];
        for n in 0..32 {
            for (reader, count) in guessed.iter_mut().enumerate() {
                let at = (reader as u64) << 30;
                *count += u32::from(pattern.note(at + n * step, step, || W).is_some());
            }
        }
        assert!(guessed.iter().all(|n| *n > 1), "{guessed:?}");
    }

    #[test]
    fn who_jumps_about_is_not_read_ahead_for() {
        // Anywhere, and in the few megabytes that are in memory.
        for places in [1 << 44, 16 << 20] {
            let pattern = Pattern::default();
            let mut at = 1u64;
            for _ in 0..100_000 {
                at = at.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                let offset = ((at >> 20) % places) & !4095;
                assert_eq!(pattern.note(offset, 4096, || W), None, "{places}");
            }
        }
    }

    #[test]
    fn without_a_window_nothing_is_read_ahead() {
        let pattern = Pattern::default();
        assert!((0..100).all(|n| pattern.note(n << 16, 1 << 16, || 0).is_none()));
    }
}
