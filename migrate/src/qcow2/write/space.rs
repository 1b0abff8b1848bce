//! Where clusters of the new file go, and how often each is referred to. Space is only ever appended.

use super::super::Geometry;
use super::super::entry::{COMPRESSED, Kind, L2Entry, OFFSET_MASK, Rules, compressed_word};
use std::ops::Range;

/// See the module. No count is above 65535: what would be is stored again.
pub(super) struct Space {
    geometry: Geometry,
    refs: Vec<u16>,
    refs_max: u16,
    /// Where compressed bytes may go on, in a cluster that has some; 0: nowhere.
    compressed_at: u64,
}

impl Space {
    /// With the header's cluster.
    pub fn new(geometry: Geometry, refs_max: u16) -> Self {
        Self {
            geometry,
            refs: vec![1],
            refs_max,
            compressed_at: 0,
        }
    }

    /// Clusters so far.
    pub fn clusters(&self) -> u64 {
        self.refs.len() as u64
    }

    /// Bytes so far.
    pub fn bytes(&self) -> u64 {
        self.clusters() * self.geometry.cluster_bytes()
    }

    /// Where compressed bytes may go on; at the start of a cluster, nowhere.
    pub fn compressed_end(&self) -> u64 {
        self.compressed_at
    }

    /// Counts of all clusters.
    pub fn refs(&self) -> &[u16] {
        &self.refs
    }

    /// How often the cluster at `offset` is referred to.
    pub fn refs_at(&self, offset: u64) -> u16 {
        let n = (offset >> self.geometry.cluster_bits()) as usize;
        self.refs.get(n).copied().unwrap_or(0)
    }

    /// Takes `clusters` clusters in a row, each referred to `refs` times.
    pub fn take(&mut self, clusters: u64, refs: u16) -> u64 {
        let offset = self.bytes();
        self.refs.resize(self.refs.len() + clusters as usize, refs);
        offset
    }

    /// Takes space for `len` compressed bytes, fewer than a cluster's, behind those before where that is possible.
    pub fn take_compressed(&mut self, len: u64, refs: u16) -> u64 {
        let cluster = self.geometry.cluster_bytes();
        let rest = self.compressed_at.next_multiple_of(cluster) - self.compressed_at;
        let more = len.saturating_sub(rest);
        let shared = rest > 0 && self.fits(self.refs_at(self.compressed_at), refs);
        // What does not fit goes on in the next cluster only if that is the next to be taken.
        let goes_on = more == 0 || self.compressed_at + rest == self.bytes();
        let at = if shared && goes_on {
            let first = (self.compressed_at >> self.geometry.cluster_bits()) as usize;
            self.refs[first] += refs;
            if more > 0 {
                self.take(1, refs);
            }
            self.compressed_at
        } else {
            self.take(1, refs)
        };
        self.compressed_at = at + len;
        at
    }

    fn fits(&self, refs: u16, more: u16) -> bool {
        refs.checked_add(more)
            .is_some_and(|sum| sum <= self.refs_max)
    }

    /// Host clusters that an L2 entry refers to.
    fn touched(&self, word: u64) -> Range<usize> {
        let bits = self.geometry.cluster_bits();
        if word & COMPRESSED == 0 {
            let n = ((word & OFFSET_MASK) >> bits) as usize;
            return n..n + 1;
        }
        let rules = Rules {
            geometry: self.geometry,
            version: 3,
            data_file: false,
        };
        match (L2Entry { word, bitmap: 0 }).kind(0, rules) {
            Ok((Kind::Compressed { host, len }, _)) => {
                (host >> bits) as usize..((host + len - 1) >> bits) as usize + 1
            }
            _ => 0..0,
        }
    }

    /// Refers to what `word` names `refs` times more; false, and nothing changed, when that is more than can be counted.
    pub fn share(&mut self, word: u64, refs: u16) -> bool {
        let touched = self.touched(word);
        let fit = self.refs[touched.clone()]
            .iter()
            .all(|n| self.fits(*n, refs));
        if fit {
            self.refs[touched].iter_mut().for_each(|n| *n += refs);
        }
        fit
    }

    /// The L2 entry of compressed bytes.
    pub fn compressed_word(&self, at: u64, len: u64) -> u64 {
        compressed_word(at, len, self.geometry)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn space(refs_max: u16) -> Space {
        Space::new(Geometry::new(9, false).unwrap(), refs_max)
    }

    #[test]
    fn compressed_bytes_follow_each_other_while_nothing_comes_between() {
        let mut space = space(100);
        assert_eq!(space.take_compressed(300, 1), 512);
        assert_eq!(space.take_compressed(300, 2), 812);
        assert_eq!(space.refs(), [1, 3, 2]);
        assert_eq!(space.take(1, 1), 1536);
        assert_eq!(space.take_compressed(400, 1), 1112);
        assert_eq!(space.take_compressed(100, 1), 2048);
        assert_eq!(space.refs(), [1, 3, 3, 1, 1]);
    }

    #[test]
    fn a_full_count_starts_a_new_cluster() {
        let mut space = space(3);
        let first = space.take_compressed(100, 2);
        assert_eq!(space.take_compressed(100, 2), 1024);
        assert!(space.share(space.compressed_word(first, 100), 1));
        assert!(!space.share(space.compressed_word(first, 100), 1));
        assert_eq!(space.refs(), [1, 3, 2]);
    }
}
