//! Change hints: only the given ranges are read, the rest is the parent's, and a sample of that rest is read after all.
//! A hint that lies once is not believed at all.

use super::Input;
use super::scan::is_zero;
use crate::error::Result;
use crate::format::entry::Content;
use crate::format::manifest::Child;
use crate::id::Hash;
use crate::manifest::NodeSource;
use crate::manifest::walk::Walker;
use crate::progress::Progress;
use rayon::prelude::*;
use std::ops::Range;

/// One of this many unchanged clusters is read and compared.
const AUDIT_ONE_IN: u64 = 100;
/// Clusters that an audit reads at least.
const AUDIT_MIN: u64 = 16;
/// Clusters that one task audits.
const AUDIT_TASK: usize = 64;

/// The clusters to read: those that a changed byte lies in, and all that the parent does not reach.
pub fn ranges(
    input: &Input<'_>,
    parent: Content,
    changed: &[Range<u64>],
    size: u64,
) -> Vec<Range<u64>> {
    let clusters = input.size.div_ceil(size);
    let whole = parent.size.min(input.size) / size;
    let mut all: Vec<Range<u64>> = changed
        .iter()
        .map(|r| r.start / size..r.end.div_ceil(size).min(clusters))
        .chain(std::iter::once(if parent.size == input.size {
            0..0
        } else {
            whole..clusters
        }))
        .filter(|r| r.start < r.end)
        .collect();
    all.sort_by_key(|r| r.start);
    let mut merged: Vec<Range<u64>> = Vec::with_capacity(all.len());
    for range in all {
        match merged.last_mut() {
            Some(last) if range.start <= last.end => last.end = last.end.max(range.end),
            _ => merged.push(range),
        }
    }
    merged
}

/// Whether a random sample of what lies outside of `ranges` is what the parent says.
pub fn audit(
    input: &Input<'_>,
    parent: Content,
    ranges: &[Range<u64>],
    nodes: &dyn NodeSource,
    size: u64,
    random: [u8; 16],
    progress: &Progress,
) -> Result<bool> {
    let clusters = input.size.div_ceil(size);
    let changed: u64 = ranges.iter().map(|r| r.end - r.start).sum();
    let rest = clusters - changed.min(clusters);
    if rest == 0 {
        return Ok(true);
    }
    let count = (rest / AUDIT_ONE_IN).max(AUDIT_MIN).min(rest);
    let mut picks: Vec<u64> = (0..count).map(|i| pick(random, i) % rest).collect();
    picks.sort_unstable();
    picks.dedup();
    let picks = outside(ranges, picks);
    let good = picks.par_chunks(AUDIT_TASK).map(|picks| {
        progress.check()?;
        let mut walker = Walker::new(nodes, parent.root, parent.size.div_ceil(size))?;
        let mut bytes = vec![0; size as usize];
        for cluster in picks {
            let expected = walker.lookup(*cluster)?;
            let there = (input.size - cluster * size).min(size) as usize;
            let n = input.file.read_at(cluster * size, &mut bytes[..there])?;
            bytes[n..].fill(0);
            let same = match expected {
                Child::Hole | Child::Zero => is_zero(&bytes),
                Child::Hash(hash) => Hash::of(&bytes) == hash,
            };
            if !same {
                return Ok(false);
            }
        }
        Ok(true)
    });
    good.try_reduce(|| true, |a, b| Ok(a && b))
}

/// For each `n`, in ascending order, the `n`th cluster that no range holds. One walk over the ranges, of which there may be
/// as many as there are picks.
fn outside(ranges: &[Range<u64>], numbers: Vec<u64>) -> Vec<u64> {
    let mut ranges = ranges.iter().peekable();
    let mut before = 0;
    let place = |n| {
        while let Some(range) = ranges.next_if(|range| n + before >= range.start) {
            before += range.end - range.start;
        }
        n + before
    };
    numbers.into_iter().map(place).collect()
}

/// The `i`th of a sequence that nobody can foresee.
fn pick(random: [u8; 16], i: u64) -> u64 {
    let mut seed = random.to_vec();
    seed.extend_from_slice(&i.to_le_bytes());
    let hash = Hash::of(&seed);
    u64::from_le_bytes(hash.0[..8].try_into().expect("eight bytes of 32"))
}

#[cfg(test)]
mod tests {
    use super::outside;

    #[test]
    fn clusters_outside_the_ranges_are_counted_through() {
        let ranges = [2..4, 6..7];
        assert_eq!(outside(&ranges, (0..5).collect()), [0, 1, 4, 5, 7]);
        assert_eq!(outside(&ranges, vec![2, 4]), [4, 7]);
        assert_eq!(outside(&[], vec![9]), [9]);
    }
}
