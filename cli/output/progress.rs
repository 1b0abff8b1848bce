//! The progress line: one line on a terminal's stderr, drawn by a thread that only reads counters.

use crate::output::units;
use std::collections::VecDeque;
use std::io::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use stillpoint_store::progress::Progress;
use unicode_width::UnicodeWidthStr;

/// Often enough to look alive, seldom enough to cost nothing.
const EVERY: Duration = Duration::from_millis(200);
/// The rate shown is that of the last seconds.
const WINDOW: Duration = Duration::from_secs(5);

/// Draws until it is dropped, then removes the line.
pub struct Line {
    end: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Line {
    /// Starts to draw what `progress` counts.
    pub fn start(progress: Arc<Progress>, verb: &'static str) -> Self {
        let (end, ended) = channel::<()>();
        let began = Instant::now();
        let draw = move || {
            let mut meter = Meter::default();
            while ended.recv_timeout(EVERY) == Err(RecvTimeoutError::Timeout) {
                let now = Counters::of(&progress);
                meter.note(began.elapsed(), now.done);
                show(&line(verb, &now, meter.rate(), terminal_width()));
            }
            show("");
        };
        let thread = std::thread::Builder::new()
            .name("progress".into())
            .spawn(draw)
            .ok();
        Self {
            end: Some(end),
            thread,
        }
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        self.end.take();
        if let Some(thread) = self.thread.take() {
            // A line that could not be drawn is no reason to fail.
            let _ = thread.join();
        }
    }
}

/// Back to the first column, the text, and whatever stood behind it is erased.
fn show(text: &str) {
    let mut err = std::io::stderr().lock();
    let _ = write!(err, "\r{text}\x1b[K").and_then(|()| err.flush());
}

fn terminal_width() -> usize {
    let size = rustix::termios::tcgetwinsize(std::io::stderr());
    size.ok()
        .map_or(80, |size| usize::from(size.ws_col))
        .max(20)
}

/// The counters at one moment.
#[derive(Debug, Clone, Copy, Default)]
struct Counters {
    total: u64,
    done: u64,
    known: u64,
    empty: u64,
    stored: u64,
}

impl Counters {
    fn of(progress: &Progress) -> Self {
        let get = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Self {
            total: get(&progress.bytes_total),
            done: get(&progress.bytes_done),
            known: get(&progress.bytes_known),
            empty: get(&progress.bytes_empty),
            stored: get(&progress.bytes_stored),
        }
    }
}

/// Bytes a second over the last few seconds.
#[derive(Debug, Default)]
struct Meter {
    samples: VecDeque<(Duration, u64)>,
}

impl Meter {
    fn note(&mut self, at: Duration, done: u64) {
        self.samples.push_back((at, done));
        while self.samples.len() > 2 && at.saturating_sub(self.samples[1].0) >= WINDOW {
            self.samples.pop_front();
        }
    }

    fn rate(&self) -> Option<f64> {
        let (first, last) = (self.samples.front()?, self.samples.back()?);
        let seconds = last.0.saturating_sub(first.0).as_secs_f64();
        (seconds > 0.0).then(|| last.1.saturating_sub(first.1) as f64 / seconds)
    }
}

/// The line, most telling parts first; those that do not fit in the width are left out.
fn line(verb: &str, now: &Counters, rate: Option<f64>, width: usize) -> String {
    let mut parts = vec![verb.to_owned()];
    if now.total > 0 {
        parts.push(format!("{:>2} %", units::percent(now.done, now.total)));
        parts.push(format!(
            "{} of {}",
            units::size(now.done),
            units::size(now.total)
        ));
    } else {
        parts.push(units::size(now.done));
    }
    if let Some(rate) = rate.filter(|rate| *rate >= 1.0) {
        parts.push(format!("{}/s", units::size(rate as u64)));
        if now.total > now.done {
            let left = Duration::from_secs_f64(((now.total - now.done) as f64 / rate).min(1e9));
            parts.push(format!(
                "{} left",
                units::duration(left.max(Duration::from_secs(1)))
            ));
        }
    }
    for (what, bytes) in [
        ("known", now.known),
        ("empty", now.empty),
        ("stored", now.stored),
    ] {
        if bytes > 0 {
            parts.push(format!("{what} {}", units::size(bytes)));
        }
    }
    // The last column stays free: some terminals wrap when it is written.
    while parts.len() > 1 && parts.join("  ").width() >= width {
        parts.pop();
    }
    parts.join("  ")
}

#[cfg(test)]
mod tests {
    use super::*;

    const GIB: u64 = 1 << 30;

    #[test]
    fn the_line_says_how_far_how_fast_and_what_was_saved() {
        let now = Counters {
            total: 4 * GIB,
            done: GIB,
            known: GIB / 2,
            empty: 0,
            stored: 9,
        };
        assert_eq!(
            line("create", &now, Some(512.0 * 1_048_576.0), 120),
            "create  25 %  1.0 GiB of 4.0 GiB  512 MiB/s  6.0 s left  known 512 MiB  stored 9 B"
        );
    }

    #[test]
    fn what_does_not_fit_is_left_out() {
        let now = Counters {
            total: 4 * GIB,
            done: GIB,
            known: GIB,
            empty: GIB,
            stored: GIB,
        };
        let text = line("create", &now, Some(1e9), 40);
        assert_eq!(text, "create  25 %  1.0 GiB of 4.0 GiB");
        assert_eq!(line("create", &now, None, 3), "create");
    }

    #[test]
    fn nothing_is_promised_before_it_is_known() {
        assert_eq!(line("gc", &Counters::default(), None, 80), "gc  0 B");
        let stuck = Counters {
            total: 9,
            done: 1,
            ..Counters::default()
        };
        assert_eq!(line("gc", &stuck, Some(0.0), 80), "gc  11 %  1 B of 9 B");
    }

    #[test]
    fn the_rate_forgets_what_is_long_ago() {
        let mut meter = Meter::default();
        assert_eq!(meter.rate(), None);
        for second in 0..10 {
            meter.note(Duration::from_secs(second), 1000 * second);
        }
        for second in 10..20 {
            meter.note(Duration::from_secs(second), 10_000);
        }
        assert_eq!(meter.rate(), Some(0.0));
        assert!(meter.samples.len() < 10);
    }

    #[test]
    fn a_line_that_is_dropped_has_ended_its_thread() {
        let progress = Arc::new(Progress::default());
        let held = Arc::downgrade(&progress);
        drop(Line::start(progress, "test"));
        assert!(held.upgrade().is_none());
    }
}
