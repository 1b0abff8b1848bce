//! Which slots of an overlay's file are free. Contiguous ones for what is written together, where there are.

use crate::format::overlay::HEADER_SLOTS;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

/// A request up to this is met from slots wherever they are.
const FEW: u32 = 8;

/// See the module.
#[derive(Debug)]
pub struct Slots {
    /// Slots that the file has room for.
    end: u32,
    /// The first that was never given out.
    fresh: u32,
    /// Runs of free slots below that: the first, and one past the last. No two touch.
    free: BTreeMap<u32, u32>,
    free_count: u32,
}

impl Slots {
    /// Of a file with room for `end` slots, of which `used` are taken besides the headers.
    pub fn new(end: u32, used: &BTreeSet<u32>) -> Self {
        let fresh = used.last().map_or(HEADER_SLOTS, |last| last + 1);
        let mut free = BTreeMap::new();
        let mut at = HEADER_SLOTS;
        for slot in used {
            if at < *slot {
                free.insert(at, *slot);
            }
            at = slot + 1;
        }
        Self {
            end: end.max(fresh),
            fresh,
            free_count: free.iter().map(|(from, to)| to - from).sum(),
            free,
        }
    }

    /// Slots that the file has room for.
    pub fn end(&self) -> u32 {
        self.end
    }

    /// The file has more room.
    pub fn grown(&mut self, end: u32) {
        self.end = self.end.max(end);
    }

    /// So many slots, as runs; `None`: the file must grow first.
    pub fn take(&mut self, count: u32) -> Option<Vec<Range<u32>>> {
        let left = self.end - self.fresh;
        // Many slots together stay together, until too much of the file is free.
        let scattered = count <= FEW || self.free_count > self.fresh / 4 || left < count;
        let from_free = if scattered {
            count.min(self.free_count)
        } else {
            0
        };
        if count - from_free > left {
            return None;
        }
        let mut runs: Vec<Range<u32>> = Vec::new();
        let mut wanted = from_free;
        while wanted > 0
            && let Some((from, to)) = self.free.pop_first()
        {
            let end = to.min(from.saturating_add(wanted));
            if end < to {
                self.free.insert(end, to);
            }
            wanted -= end - from;
            push(&mut runs, from..end);
        }
        self.free_count -= from_free;
        if count > from_free {
            let first = self.fresh;
            self.fresh += count - from_free;
            push(&mut runs, first..self.fresh);
        }
        Some(runs)
    }

    /// Nobody needs it any more.
    pub fn give(&mut self, slot: u32) {
        let (mut from, mut to) = (slot, slot + 1);
        if let Some((before, end)) = self.free.range(..slot).next_back()
            && *end == slot
        {
            from = *before;
        }
        if let Some(end) = self.free.remove(&to) {
            to = end;
        }
        self.free.insert(from, to);
        self.free_count += 1;
    }
}

fn push(runs: &mut Vec<Range<u32>>, run: Range<u32>) {
    match runs.last_mut() {
        Some(last) if last.end == run.start => last.end = run.end,
        _ => runs.push(run),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one(run: Range<u32>) -> Vec<Range<u32>> {
        std::iter::once(run).collect()
    }

    #[test]
    fn what_was_used_is_not_given_out_and_gaps_are_used_first() {
        let mut slots = Slots::new(10, &BTreeSet::from([2, 5]));
        assert_eq!(slots.take(3), Some(vec![3..5, 6..7]));
        assert_eq!(slots.take(4), None, "three are left");
        slots.grown(11);
        assert_eq!(slots.take(4), Some(one(7..11)));
        slots.give(8);
        assert_eq!(slots.take(1), Some(one(8..9)));
        assert_eq!(slots.take(1), None);
    }

    #[test]
    fn large_requests_stay_together_while_little_is_free() {
        let mut slots = Slots::new(1000, &BTreeSet::new());
        assert_eq!(slots.take(400), Some(one(2..402)));
        (10..50).step_by(2).for_each(|slot| slots.give(slot));
        assert_eq!(slots.take(20), Some(one(402..422)));
        assert_eq!(slots.take(2), Some(vec![10..11, 12..13]));
        (100..300).for_each(|slot| slots.give(slot));
        let runs = slots.take(30).unwrap();
        assert_eq!(runs.iter().map(|r| r.end - r.start).sum::<u32>(), 30);
        assert!(runs.iter().all(|r| r.end <= 300));
    }
}
