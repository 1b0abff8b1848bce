//! A filter of known keys: says "certainly not" of most keys that the index does not hold, from memory alone.
//!
//! Keys are halves of BLAKE3 hashes, so their bits serve as hash functions. Somebody who grinds hashes can only make it
//! say "perhaps" more often. Layers are added when it fills, each as large as all before.

use super::Key;

/// Bits a key: about one absent key in a hundred passes.
const BITS_PER_KEY: usize = 10;
/// Words of a block: one cache line a lookup.
const BLOCK: usize = 8;
const PROBES: u32 = 6;

struct Layer {
    words: Vec<u64>,
    free: usize,
}

pub(super) struct Filter {
    layers: Vec<Layer>,
    capacity: usize,
}

impl Layer {
    fn new(capacity: usize) -> Self {
        let blocks = (capacity * BITS_PER_KEY).div_ceil(BLOCK * 64);
        Self {
            words: vec![0; blocks * BLOCK],
            free: capacity,
        }
    }

    fn block(&self, key: &Key) -> usize {
        let blocks = (self.words.len() / BLOCK) as u64;
        let number = u64::from(u32::from_le_bytes([key[2], key[3], key[4], key[5]]));
        // The high half of the product spreads evenly without a division.
        ((number * blocks) >> 32) as usize * BLOCK
    }

    fn holds(&self, key: &Key) -> bool {
        let start = self.block(key);
        probes(key).all(|bit| self.words[start + bit / 64] & (1 << (bit % 64)) != 0)
    }

    fn insert(&mut self, key: &Key) {
        let start = self.block(key);
        probes(key).for_each(|bit| self.words[start + bit / 64] |= 1 << (bit % 64));
        self.free -= 1;
    }
}

/// Nine bits of the key a probe.
fn probes(key: &Key) -> impl Iterator<Item = usize> {
    let mut low = [0; 8];
    low.copy_from_slice(&key[8..]);
    let bits = u64::from_le_bytes(low);
    (0..PROBES).map(move |i| (bits >> (i * 9)) as usize & (BLOCK * 64 - 1))
}

impl Filter {
    /// An empty filter for about so many keys; more are fine.
    pub(super) fn new(capacity: usize) -> Self {
        let capacity = capacity.max(1 << 16);
        Self {
            layers: vec![Layer::new(capacity)],
            capacity,
        }
    }

    /// False: `insert` was never called with this key.
    pub(super) fn may_hold(&self, key: &Key) -> bool {
        self.layers.iter().any(|l| l.holds(key))
    }

    pub(super) fn insert(&mut self, key: &Key) {
        if self.may_hold(key) {
            return;
        }
        if self.layers.last().is_none_or(|l| l.free == 0) {
            self.layers.push(Layer::new(self.capacity));
            self.capacity *= 2;
        }
        if let Some(last) = self.layers.last_mut() {
            last.insert(key);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::Hash;
    use crate::index::key_of;

    fn key(n: u32) -> Key {
        key_of(&Hash::of(&n.to_le_bytes()))
    }

    #[test]
    fn inserted_keys_are_never_denied_and_few_others_pass() {
        let mut filter = Filter::new(1 << 16);
        // Three layers' worth.
        let held = 3 << 16;
        (0..held).for_each(|n| filter.insert(&key(n)));
        assert!((0..held).all(|n| filter.may_hold(&key(n))));
        let passed = (held..held * 2)
            .filter(|n| filter.may_hold(&key(*n)))
            .count();
        assert!(
            passed < held as usize / 20,
            "{passed} of {held} absent keys passed"
        );
    }
}
