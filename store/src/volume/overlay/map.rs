//! What an overlay holds, in memory: where each block of data is, and which runs are empty. Data lie over what is empty.

use crate::format::overlay::{Empty, MapEntry};
use std::collections::BTreeMap;
use std::ops::Range;

/// Where a block is, and what it must be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    /// The slot.
    pub slot: u32,
    /// Checksum of the block.
    pub sum: u64,
}

/// What an overlay says of a block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Held {
    /// It is there.
    Data(Place),
    /// It is empty.
    Empty(Empty),
}

/// Blocks of the disk that an overlay says the same of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Piece {
    /// The first.
    pub first: u64,
    /// How many.
    pub count: u64,
    /// What.
    pub what: What,
}

/// See `Piece`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum What {
    /// In slots from this one on, with these checksums.
    Data(u32, Vec<u64>),
    /// Empty.
    Empty(Empty),
    /// Nothing: what lies below is seen.
    Absent,
}

/// See the module.
#[derive(Debug, Default)]
pub struct Map {
    data: BTreeMap<u64, Place>,
    /// Disjoint runs by their first block.
    empty: BTreeMap<u64, (u64, Empty)>,
}

impl Map {
    /// What it says of a block.
    pub fn get(&self, block: u64) -> Option<Held> {
        match self.data.get(&block) {
            Some(place) => Some(Held::Data(*place)),
            None => self.empty_at(block).map(|(_, kind)| Held::Empty(kind)),
        }
    }

    /// One past the end of the empty run that the block is in, and its kind.
    fn empty_at(&self, block: u64) -> Option<(u64, Empty)> {
        let (first, (count, kind)) = self.empty.range(..=block).next_back()?;
        (first + count > block).then_some((first + count, *kind))
    }

    /// Returns the place that is in force no more.
    pub fn put_data(&mut self, block: u64, place: Place) -> Option<Place> {
        self.data.insert(block, place)
    }

    /// Tells `gone` the blocks of data that are in force no more.
    pub fn put_empty(
        &mut self,
        first: u64,
        count: u64,
        kind: Empty,
        gone: &mut dyn FnMut(u64, Place),
    ) {
        let end = first + count;
        let data: Vec<u64> = self.data.range(first..end).map(|(b, _)| *b).collect();
        for block in data {
            if let Some(place) = self.data.remove(&block) {
                gone(block, place);
            }
        }
        let before = self.empty.range(..first).next_back();
        if let Some((at, (n, old))) = before.map(|(at, run)| (*at, *run))
            && at + n > first
        {
            self.empty.insert(at, (first - at, old));
            if at + n > end {
                self.empty.insert(end, (at + n - end, old));
            }
        }
        let within: Vec<u64> = self.empty.range(first..end).map(|(at, _)| *at).collect();
        for at in within {
            if let Some((n, old)) = self.empty.remove(&at)
                && at + n > end
            {
                self.empty.insert(end, (at + n - end, old));
            }
        }
        self.insert_merged(first, count, kind);
    }

    /// A run where there is none, as one with its neighbours of the same kind.
    fn insert_merged(&mut self, mut first: u64, mut count: u64, kind: Empty) {
        let before = self.empty.range(..first).next_back();
        if let Some((at, (n, old))) = before.map(|(at, run)| (*at, *run))
            && at + n == first
            && old == kind
        {
            (first, count) = (at, n + count);
        }
        if let Some((n, old)) = self.empty.get(&(first + count)).copied()
            && old == kind
        {
            self.empty.remove(&(first + count));
            count += n;
        }
        self.empty.insert(first, (count, kind));
    }

    /// What it says of a run of blocks, in order and without gaps.
    pub fn pieces(&self, first: u64, count: u64, each: &mut dyn FnMut(Piece)) {
        let end = first + count;
        let mut at = first;
        let mut data = self.data.range(first..end).peekable();
        while at < end {
            let Some((_, place)) = data.next_if(|(block, _)| **block == at) else {
                let stop = data.peek().map_or(end, |(block, _)| **block);
                self.pieces_without_data(at, stop, each);
                at = stop;
                continue;
            };
            let (from, slot, mut sums) = (at, place.slot, vec![place.sum]);
            at += 1;
            while let Some((_, next)) = data.next_if(|(block, next)| {
                **block == at && u64::from(next.slot) == u64::from(slot) + (at - from)
            }) {
                sums.push(next.sum);
                at += 1;
            }
            each(Piece {
                first: from,
                count: at - from,
                what: What::Data(slot, sums),
            });
        }
    }

    fn pieces_without_data(&self, mut at: u64, stop: u64, each: &mut dyn FnMut(Piece)) {
        while at < stop {
            let next = || self.empty.range(at..stop).next();
            let (end, what) = self.empty_at(at).map_or_else(
                || (next().map_or(stop, |(at, _)| *at), What::Absent),
                |(end, kind)| (end.min(stop), What::Empty(kind)),
            );
            each(Piece {
                first: at,
                count: end - at,
                what,
            });
            at = end;
        }
    }

    /// All blocks that it says something of, as sorted disjoint runs.
    pub fn held(&self) -> Vec<Range<u64>> {
        let data = self.data.keys().map(|block| *block..block + 1);
        let empty = self.empty.iter().map(|(at, (n, _))| *at..at + n);
        union(data, empty)
    }

    /// Blocks of data.
    pub fn data_blocks(&self) -> u64 {
        self.data.len() as u64
    }

    /// Whether it says anything.
    pub fn is_empty(&self) -> bool {
        self.data.is_empty() && self.empty.is_empty()
    }

    /// Entries that `entries` gives.
    pub fn len(&self) -> usize {
        self.data.len() + self.empty.len()
    }

    /// All of it: what is empty first, for data lie over it.
    pub fn entries(&self) -> Vec<MapEntry> {
        let empty = self
            .empty
            .iter()
            .map(|(first, (count, kind))| MapEntry::Empty {
                first: *first,
                count: *count,
                kind: *kind,
            });
        let data = self.data.iter().map(|(block, place)| MapEntry::Data {
            block: *block,
            slot: place.slot,
            sum: place.sum,
        });
        empty.chain(data).collect()
    }

    /// Slots with data in force.
    pub fn slots(&self) -> impl Iterator<Item = u32> + '_ {
        self.data.values().map(|place| place.slot)
    }
}

/// Two sorted lists of runs as one, touching runs merged.
pub fn union(
    a: impl Iterator<Item = Range<u64>>,
    b: impl Iterator<Item = Range<u64>>,
) -> Vec<Range<u64>> {
    let (mut a, mut b) = (a.peekable(), b.peekable());
    let mut out: Vec<Range<u64>> = Vec::new();
    loop {
        let from_a = match (a.peek(), b.peek()) {
            (None, None) => return out,
            (Some(x), Some(y)) => x.start <= y.start,
            (x, _) => x.is_some(),
        };
        let Some(run) = (if from_a { a.next() } else { b.next() }) else {
            return out;
        };
        match out.last_mut() {
            Some(last) if run.start <= last.end => last.end = last.end.max(run.end),
            _ => out.push(run),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const BLOCKS: u64 = 40;

    fn place(slot: u32) -> Place {
        Place {
            slot,
            sum: u64::from(slot) * 3,
        }
    }

    /// (0 data, 1 hole, 2 zero), first, count.
    fn steps() -> impl Strategy<Value = Vec<(u8, u64, u64)>> {
        prop::collection::vec((0u8..3, 0..BLOCKS - 1, 1u64..12), 0..30)
    }

    /// The map after some steps, and what it must say of each block.
    fn both(steps: &[(u8, u64, u64)]) -> (Map, Vec<Option<Held>>) {
        let (mut map, mut plain) = (Map::default(), vec![None; BLOCKS as usize]);
        for (n, (kind, first, count)) in (0u32..).zip(steps) {
            let count = (*count).min(BLOCKS - first);
            let run = *first as usize..(first + count) as usize;
            if *kind == 0 {
                for (i, at) in (0u32..).zip(run) {
                    let place = place(n * 50 + i);
                    map.put_data(at as u64, place);
                    plain[at] = Some(Held::Data(place));
                }
                continue;
            }
            let kind = if *kind == 1 { Empty::Hole } else { Empty::Zero };
            let mut gone = Vec::new();
            map.put_empty(*first, count, kind, &mut |block, place| {
                gone.push((block as usize, place));
            });
            for (at, place) in gone {
                assert_eq!(plain[at], Some(Held::Data(place)));
            }
            plain[run].fill(Some(Held::Empty(kind)));
        }
        (map, plain)
    }

    fn spread(map: &Map, first: u64, count: u64) -> Vec<Option<Held>> {
        let (mut out, mut at) = (Vec::new(), first);
        map.pieces(first, count, &mut |piece| {
            assert_eq!(piece.first, at, "in order and without gaps");
            assert!(piece.count > 0);
            at += piece.count;
            match piece.what {
                What::Absent => out.extend((0..piece.count).map(|_| None)),
                What::Empty(kind) => out.extend((0..piece.count).map(|_| Some(Held::Empty(kind)))),
                What::Data(slot, sums) => {
                    assert_eq!(sums.len() as u64, piece.count);
                    out.extend(
                        (slot..)
                            .zip(sums)
                            .map(|(slot, sum)| Some(Held::Data(Place { slot, sum }))),
                    );
                }
            }
        });
        out
    }

    proptest! {
        #[test]
        fn it_says_what_was_put_last(steps in steps(), first in 0..BLOCKS, count in 0..BLOCKS) {
            let (map, plain) = both(&steps);
            let count = count.min(BLOCKS - first);
            let run = first as usize..(first + count) as usize;
            prop_assert_eq!(spread(&map, first, count), &plain[run]);
            for (at, held) in (0..).zip(&plain) {
                prop_assert_eq!(&map.get(at), held);
            }
            let mut held = vec![false; BLOCKS as usize];
            for run in map.held() {
                held[run.start as usize..run.end as usize].fill(true);
            }
            let expected: Vec<bool> = plain.iter().map(Option::is_some).collect();
            prop_assert_eq!(held, expected);
        }

        #[test]
        fn its_entries_make_it_again(steps in steps()) {
            let (map, plain) = both(&steps);
            let mut again = Map::default();
            let entries = map.entries();
            prop_assert_eq!(entries.len(), map.len());
            for entry in entries {
                match entry {
                    MapEntry::Data { block, slot, sum } => drop(again.put_data(block, Place { slot, sum })),
                    MapEntry::Empty { first, count, kind } => again.put_empty(first, count, kind, &mut |_, _| {}),
                }
            }
            prop_assert_eq!(spread(&again, 0, BLOCKS), plain);
        }
    }
}
