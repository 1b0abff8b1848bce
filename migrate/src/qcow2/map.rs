//! Where the bytes of a range are.

use super::{Kind, State};
use std::ops::Range;
use stillpoint_store::{Error, Result};

/// A range and what stands there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Mapped {
    /// First byte: of the disk, or of the VM state.
    pub start: u64,
    /// Bytes, not 0.
    pub len: u64,
    /// What stands there.
    pub kind: Kind,
}

impl Mapped {
    /// One past the last byte.
    pub fn end(&self) -> u64 {
        self.start + self.len
    }

    /// Takes in what follows, if both are one range.
    fn join(&mut self, next: &Self) -> bool {
        let joins = match (self.kind, next.kind) {
            (Kind::Zero, Kind::Zero) | (Kind::Unallocated, Kind::Unallocated) => true,
            (Kind::Data { host }, Kind::Data { host: next }) => host + self.len == next,
            _ => false,
        };
        if joins {
            self.len += next.len;
        }
        joins
    }
}

/// See `State::map`.
#[derive(Debug)]
pub struct Map {
    state: State,
    at: u64,
    end: u64,
    /// What the caller's offsets are relative to; a multiple of what an L2 table maps.
    base: u64,
    pending: Option<Result<Mapped>>,
}

impl Map {
    pub(super) fn new(state: State, range: Range<u64>, base: u64) -> Self {
        Self {
            state,
            at: range.start,
            end: range.end,
            base,
            pending: None,
        }
    }

    /// The state that it maps.
    pub fn state(&self) -> &State {
        &self.state
    }

    /// What one L2 entry, or one empty L1 entry, says from here on.
    fn step(&mut self) -> Result<Mapped> {
        let rules = self.state.layer().rules();
        let span = rules.geometry.table_span();
        let cluster = rules.geometry.cluster_bytes();
        let slot = self.at / span;
        let (kind, len) = if let Some(table) = self.state.table(slot)? {
            let within = self.at % span;
            let entry = table[(within / cluster) as usize];
            let found = entry.kind(within % cluster, rules).and_then(|found| {
                self.state.layer().check_host(found.0)?;
                Ok(found)
            });
            found.map_err(|why| {
                let why = format!(
                    "{why} (entry {:#018x} for byte {} of the guest)",
                    entry.word, self.at
                );
                Error::corrupt("reading an L2 table of", why).at(self.state.layer().path())
            })?
        } else {
            let next = self.state.next_used(slot + 1);
            let next = next.map_or(u64::MAX, |slot| slot * span);
            (Kind::Unallocated, next - self.at)
        };
        let mapped = Mapped {
            start: self.at - self.base,
            len: len.min(self.end - self.at),
            kind,
        };
        self.at += mapped.len;
        Ok(mapped)
    }

    fn step_unless_done(&mut self) -> Option<Result<Mapped>> {
        if self.at >= self.end {
            return None;
        }
        let step = self.step();
        if step.is_err() {
            self.at = self.end;
        }
        Some(step)
    }
}

impl Iterator for Map {
    type Item = Result<Mapped>;

    fn next(&mut self) -> Option<Self::Item> {
        let first = match self.pending.take() {
            Some(pending) => pending,
            None => self.step_unless_done()?,
        };
        let Ok(mut whole) = first else {
            return Some(first);
        };
        while let Some(next) = self.step_unless_done() {
            if !next.as_ref().is_ok_and(|next| whole.join(next)) {
                self.pending = Some(next);
                break;
            }
        }
        Some(Ok(whole))
    }
}
