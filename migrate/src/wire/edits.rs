//! A window of changes to contents: which clusters become holes, zeros or what hash.

use stillpoint_store::format::manifest::Child;
use stillpoint_store::id::Hash;
use stillpoint_store::manifest::Run;
use stillpoint_store::{Error, Result};

/// Hashes and runs of a window at most: what a receiver looks up at a time. 3 MiB as bytes.
pub const WINDOW_MAX: usize = 1 << 16;

const HEAD_BYTES: usize = 12;
const RUN_BYTES: usize = 16;
const COUNT_BITS: u32 = 62;

/// See the module.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Edits {
    /// Counted up from 0 over the whole stream.
    pub window: u32,
    /// In order; those with a hash are of one cluster each.
    pub runs: Vec<Run>,
}

impl Edits {
    /// The hashes that it names, in order; some may be the same.
    pub fn hashes(&self) -> Vec<Hash> {
        let hash = |run: &Run| match run.child {
            Child::Hash(hash) => Some(hash),
            Child::Hole | Child::Zero => None,
        };
        self.runs.iter().filter_map(hash).collect()
    }

    /// The bytes. Neighbours with a hash each are one run there.
    pub fn encode(&self) -> Vec<u8> {
        let mut runs: Vec<(u64, u64, u64)> = Vec::new();
        for run in &self.runs {
            let kind = match run.child {
                Child::Hole => 0,
                Child::Zero => 1,
                Child::Hash(_) => 2,
            };
            match runs.last_mut() {
                Some((first, count, 2)) if kind == 2 && *first + *count == run.first => *count += 1,
                _ => runs.push((run.first, run.count, kind)),
            }
        }
        let hashes = self.hashes();
        let mut out = Vec::with_capacity(HEAD_BYTES + runs.len() * RUN_BYTES + hashes.len() * 32);
        for n in [self.window, runs.len() as u32, hashes.len() as u32] {
            out.extend_from_slice(&n.to_le_bytes());
        }
        for (first, count, kind) in runs {
            out.extend_from_slice(&first.to_le_bytes());
            out.extend_from_slice(&(count | kind << COUNT_BITS).to_le_bytes());
        }
        hashes
            .iter()
            .for_each(|hash| out.extend_from_slice(&hash.0));
        out
    }

    /// Reads them; every length is checked against what is there, runs are in order and do not overlap.
    pub fn decode(bytes: &[u8]) -> Result<Self> {
        let Some((head, rest)) = bytes.split_first_chunk::<HEAD_BYTES>() else {
            return Err(bad("it is shorter than its head"));
        };
        let number = |at: usize| u32::from_le_bytes([0, 1, 2, 3].map(|i| head[at + i]));
        let (window, runs, hashes) = (number(0), number(4) as usize, number(8) as usize);
        if runs > WINDOW_MAX || hashes > WINDOW_MAX {
            return Err(bad("it has more changes than a window may have"));
        }
        if rest.len() != runs * RUN_BYTES + hashes * 32 {
            return Err(bad("its size does not fit its changes"));
        }
        let (runs, hashes) = rest.split_at(runs * RUN_BYTES);
        let mut hashes = hashes.as_chunks::<32>().0.iter();
        let mut edits = Self {
            window,
            runs: Vec::new(),
        };
        let mut end = 0;
        for run in runs.as_chunks::<RUN_BYTES>().0 {
            end = edits.push_decoded(*run, end, &mut hashes)?;
        }
        if hashes.next().is_some() {
            return Err(bad("a hash belongs to no cluster"));
        }
        Ok(edits)
    }

    /// Adds one run as it is stored; returns where it ends.
    fn push_decoded(
        &mut self,
        run: [u8; RUN_BYTES],
        end: u64,
        hashes: &mut std::slice::Iter<'_, [u8; 32]>,
    ) -> Result<u64> {
        let half = |at: usize| u64::from_le_bytes([0, 1, 2, 3, 4, 5, 6, 7].map(|i| run[at + i]));
        let (first, packed) = (half(0), half(8));
        let (count, kind) = (packed & ((1 << COUNT_BITS) - 1), packed >> COUNT_BITS);
        let last = first
            .checked_add(count)
            .filter(|last| *last <= 1 << COUNT_BITS);
        let Some(last) = last.filter(|_| first >= end && count > 0) else {
            return Err(bad("its runs overlap or are out of order"));
        };
        match kind {
            0 | 1 => {
                let child = if kind == 0 { Child::Hole } else { Child::Zero };
                self.runs.push(Run {
                    first,
                    count,
                    child,
                });
            }
            2 => {
                let before = self.runs.last();
                let goes_on = before.is_some_and(|r| !r.child.is_uniform() && r.first + 1 == first);
                if goes_on {
                    return Err(bad("neighbours with a hash each are two runs"));
                }
                for first in first..last {
                    // LIMIT: ends with the hashes, of which there are as many as bytes for them.
                    let hash = hashes.next().ok_or_else(|| bad("a cluster has no hash"))?;
                    self.runs.push(Run {
                        first,
                        count: 1,
                        child: Child::Hash(Hash(*hash)),
                    });
                }
            }
            _ => return Err(bad("a cluster is of no known kind")),
        }
        Ok(last)
    }
}

fn bad(why: &str) -> Error {
    Error::corrupt("reading changes of a disk", why)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn runs() -> impl Strategy<Value = Vec<Run>> {
        let child = prop_oneof![
            Just(Child::Hole),
            Just(Child::Zero),
            any::<u8>().prop_map(|n| Child::Hash(Hash([n; 32]))),
        ];
        prop::collection::vec((0u64..3, 1u64..1000, child), 0..50).prop_map(|list| {
            let mut at = 0;
            list.into_iter()
                .map(|(gap, count, child)| {
                    let count = if child.is_uniform() { count } else { 1 };
                    let first = at + gap;
                    at = first + count;
                    Run {
                        first,
                        count,
                        child,
                    }
                })
                .collect()
        })
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_back(window: u32, runs in runs()) {
            let edits = Edits { window, runs };
            prop_assert_eq!(Edits::decode(&edits.encode()).unwrap(), edits);
        }

        #[test]
        fn arbitrary_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = Edits::decode(&bytes);
        }
    }

    #[test]
    fn neighbours_cost_their_hashes_and_little_more() {
        let run = |first| Run {
            first,
            count: 1,
            child: Child::Hash(Hash([1; 32])),
        };
        let edits = Edits {
            window: 0,
            runs: (7..107).map(run).collect(),
        };
        assert_eq!(edits.encode().len(), 12 + 16 + 100 * 32);
    }

    #[test]
    fn what_cannot_be_is_refused() {
        let hash = Child::Hash(Hash([1; 32]));
        let run = |first, child| Run {
            first,
            count: 1,
            child,
        };
        let good = Edits {
            window: 1,
            runs: vec![run(0, hash), run(5, Child::Zero)],
        };
        let good = good.encode();
        assert!(Edits::decode(&good).is_ok());
        let changed = |at: usize, value: u8| {
            let mut bad = good.clone();
            bad[at] = value;
            bad
        };
        // Two runs of a hash each, the second right behind the first, have a second encoding.
        let two = good[12..28]
            .iter()
            .chain(&[1, 0, 0, 0, 0, 0, 0, 0])
            .chain(&good[20..28]);
        let two = [
            &[1, 0, 0, 0, 2, 0, 0, 0, 2, 0, 0, 0][..],
            &two.copied().collect::<Vec<u8>>(),
            &[1; 64],
        ]
        .concat();
        let refused = Edits::decode(&two).unwrap_err().to_string();
        assert!(refused.contains("two runs"), "{refused}");
        // More runs, more hashes, the first run at 5 too, longer, of another kind, the second empty.
        for (at, value) in [
            (4, 3),
            (8, 2),
            (12, 5),
            (20, 2),
            (27, 0x40),
            (27, 0xc0),
            (36, 0),
        ] {
            assert!(
                Edits::decode(&changed(at, value)).is_err(),
                "byte {at} = {value}"
            );
        }
    }
}
