//! Contents of a simulated file: sparse pages, and the changes that were not synced yet.

use super::dice::Dice;
use crate::disk::Extent;
use std::collections::BTreeMap;
use std::sync::Arc;

/// Granularity of holes and of space.
pub(super) const PAGE: u64 = 4096;
/// What a medium writes whole or not at all.
pub(super) const SECTOR: u64 = 512;

type Page = [u8; PAGE as usize];

/// Bytes of a file. Pages that are absent read as zeros.
#[derive(Clone, Default)]
pub(super) struct Content {
    pages: BTreeMap<u64, Arc<Page>>,
    pub(super) len: u64,
    /// The first so many bytes have their space already.
    allocated: u64,
}

/// One mutation that a crash may lose.
#[derive(Clone)]
pub(super) enum Change {
    Write { offset: u64, data: Arc<[u8]> },
    SetLen(u64),
    Punch { start: u64, end: u64 },
    Allocate(u64),
}

impl Content {
    pub(super) fn read(&self, offset: u64, buf: &mut [u8]) -> usize {
        let end = self.len.min(offset.saturating_add(buf.len() as u64));
        let mut at = offset;
        while at < end {
            let n = (PAGE - at % PAGE).min(end - at);
            let out = &mut buf[(at - offset) as usize..][..n as usize];
            match self.pages.get(&(at / PAGE)) {
                Some(page) => out.copy_from_slice(&page[(at % PAGE) as usize..][..n as usize]),
                None => out.fill(0),
            }
            at += n;
        }
        end.saturating_sub(offset) as usize
    }

    fn write(&mut self, offset: u64, data: &[u8]) {
        let mut rest = data;
        let mut at = offset;
        while !rest.is_empty() {
            let (now, later) = rest.split_at(rest.len().min((PAGE - at % PAGE) as usize));
            let page = self
                .pages
                .entry(at / PAGE)
                .or_insert_with(|| Arc::new([0; PAGE as usize]));
            Arc::make_mut(page)[(at % PAGE) as usize..][..now.len()].copy_from_slice(now);
            at += now.len() as u64;
            rest = later;
        }
        if !data.is_empty() {
            self.len = self.len.max(at);
        }
    }

    /// Only pages that exist are touched, so that large holes cost nothing.
    fn zero(&mut self, start: u64, end: u64) {
        if start >= end {
            return;
        }
        let (first, last) = (start / PAGE, end.div_ceil(PAGE));
        let touched: Vec<u64> = self.pages.range(first..last).map(|(n, _)| *n).collect();
        for n in touched {
            let (from, to) = (start.max(n * PAGE), end.min((n + 1) * PAGE));
            if to - from == PAGE {
                self.pages.remove(&n);
            } else if let Some(page) = self.pages.get_mut(&n) {
                Arc::make_mut(page)[(from % PAGE) as usize..][..(to - from) as usize].fill(0);
            }
        }
    }

    pub(super) fn apply(&mut self, change: &Change) {
        match change {
            Change::Write { offset, data } => self.write(*offset, data),
            Change::SetLen(len) => {
                if *len < self.len {
                    self.zero(*len, self.len.next_multiple_of(PAGE));
                }
                self.len = *len;
                self.allocated = self.allocated.min(*len);
            }
            Change::Punch { start, end } => self.zero(*start, (*end).min(self.len)),
            Change::Allocate(len) => {
                self.len = self.len.max(*len);
                self.allocated = self.allocated.max(*len);
            }
        }
    }

    /// What the medium may make of a change that was under way: of a write any set of its sectors, or nothing or all of
    /// anything else.
    pub(super) fn apply_partly(&mut self, change: &Change, keep: &mut dyn FnMut() -> bool) {
        let Change::Write { offset, data } = change else {
            if keep() {
                self.apply(change);
            }
            return;
        };
        let mut at = *offset;
        let end = at + data.len() as u64;
        while at < end {
            let next = end.min((at / SECTOR + 1) * SECTOR);
            if keep() {
                self.write(at, &data[(at - offset) as usize..(next - offset) as usize]);
            }
            at = next;
        }
    }

    pub(super) fn flip(&mut self, offset: u64, bit: u8) {
        let mut byte = [0];
        if self.read(offset, &mut byte) == 1 {
            self.write(offset, &[byte[0] ^ (1 << (bit % 8))]);
        }
    }

    pub(super) fn extent(&self, offset: u64) -> Extent {
        if offset >= self.len {
            return Extent {
                start: offset,
                end: offset,
                data: false,
            };
        }
        let first = offset / PAGE;
        let data = self.pages.contains_key(&first);
        let mut next = first + 1;
        if data {
            for (n, _) in self.pages.range(next..) {
                if *n != next {
                    break;
                }
                next += 1;
            }
        } else {
            next = self
                .pages
                .range(next..)
                .next()
                .map_or(u64::MAX / PAGE, |(n, _)| *n);
        }
        Extent {
            start: offset,
            end: self.len.min(next * PAGE),
            data,
        }
    }

    /// Bytes of space taken.
    pub(super) fn space(&self) -> u64 {
        let reserved = self.allocated.div_ceil(PAGE);
        (reserved + self.pages.range(reserved..).count() as u64) * PAGE
    }

    /// Bytes of space that a change would take in addition. Never less than what it takes.
    pub(super) fn space_for(&self, change: &Change) -> u64 {
        match change {
            Change::Write { offset, data } => {
                let last = (offset + data.len() as u64).div_ceil(PAGE);
                let first = (offset / PAGE).max(self.allocated.div_ceil(PAGE)).min(last);
                (last - first - self.pages.range(first..last).count() as u64) * PAGE
            }
            Change::Allocate(len) => {
                let (from, to) = (self.allocated.div_ceil(PAGE), len.div_ceil(PAGE));
                let fresh = to.saturating_sub(from);
                (fresh - self.pages.range(from..from + fresh).count() as u64) * PAGE
            }
            Change::SetLen(_) | Change::Punch { .. } => 0,
        }
    }
}

/// What lies on the medium, and what the program sees.
#[derive(Clone, Default)]
pub(super) struct File {
    pub(super) seen: Content,
    pub(super) durable: Content,
    /// With the number of the mutating call; the order is that of the calls.
    pub(super) unsynced: Vec<(u64, Change)>,
    /// Modification and change time.
    pub(super) times: (i128, i128),
}

/// How much of the unsynced changes of one file survives.
pub(super) enum Survival<'a> {
    None,
    All,
    /// Each by coin, writes possibly in part.
    Random(&'a mut Dice),
    /// All, but of this call only some leading sectors.
    Torn(u64, &'a mut Dice),
    /// No contents, but perhaps the length, full of zeros.
    LengthOnly(&'a mut Dice),
}

impl File {
    pub(super) fn change(&mut self, call: u64, change: Change) {
        self.seen.apply(&change);
        self.unsynced.push((call, change));
    }

    pub(super) fn sync(&mut self) {
        for (_, change) in self.unsynced.drain(..) {
            self.durable.apply(&change);
        }
    }

    pub(super) fn survivor(&self, how: Survival<'_>) -> Content {
        let mut left = self.durable.clone();
        match how {
            Survival::None => {}
            Survival::All => self
                .unsynced
                .iter()
                .for_each(|(_, change)| left.apply(change)),
            Survival::Random(dice) => {
                for (_, change) in &self.unsynced {
                    match dice.below(3) {
                        0 => {}
                        1 => left.apply(change),
                        _ => left.apply_partly(change, &mut || dice.below(2) == 1),
                    }
                }
            }
            Survival::Torn(call, dice) => {
                for (n, change) in &self.unsynced {
                    if *n != call {
                        left.apply(change);
                    } else if let Change::Write { data, .. } = change {
                        let mut to_keep = dice.below((data.len() as u64).div_ceil(SECTOR));
                        left.apply_partly(change, &mut || {
                            let keep = to_keep > 0;
                            to_keep = to_keep.saturating_sub(1);
                            keep
                        });
                    }
                }
            }
            Survival::LengthOnly(dice) => {
                if dice.below(2) == 1 {
                    left.apply(&Change::SetLen(self.seen.len));
                }
            }
        }
        left
    }
}
