//! Hashes in a few bits each: cut to a number below n * 2^k, sorted, and each told by how far it is from the one before, as
//! Rice codes. A hash that is not among them passes as one with a chance of one in 2^k.

use stillpoint_store::id::Hash;
use stillpoint_store::{Error, Result};

/// Bits of a remainder: one false answer in 16.7 million.
pub const RICE_BITS: u32 = 24;
/// Values between two places where decoding can begin.
const STRIDE: usize = 64;
/// LIMIT: no store has as many clusters.
const COUNT_MAX: u64 = 1 << 38;

/// What a filter is made for: so many hashes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Range {
    values: u64,
}

impl Range {
    /// For `count` hashes.
    pub fn new(count: u64) -> Result<Self> {
        if count > COUNT_MAX {
            return Err(Error::corrupt(
                "reading a summary",
                "no store has so many clusters",
            ));
        }
        let values = count.max(1) << RICE_BITS;
        Ok(Self { values })
    }

    /// The number of a hash. Larger hashes have larger numbers, or the same.
    pub fn value(self, hash: &Hash) -> u64 {
        let mut top = [0; 8];
        top.copy_from_slice(&hash.0[..8]);
        let wide = u128::from(u64::from_be_bytes(top)) * u128::from(self.values);
        (wide >> 64) as u64
    }
}

/// Writes values in order.
#[derive(Debug, Default)]
pub struct Encoder {
    bytes: Vec<u8>,
    /// Bits not yet in `bytes`, the lowest first.
    pending: u64,
    bits: u32,
    last: u64,
    count: u64,
}

impl Encoder {
    /// Adds a value above the last; the same again changes nothing.
    pub fn push(&mut self, value: u64) {
        if self.count > 0 && value == self.last {
            return;
        }
        let distance = value - self.last;
        for _ in 0..distance >> RICE_BITS {
            self.put(1, 1);
        }
        self.put(0, 1);
        self.put(distance & ((1 << RICE_BITS) - 1), RICE_BITS);
        self.last = value;
        self.count += 1;
    }

    fn put(&mut self, value: u64, bits: u32) {
        self.pending |= value << self.bits;
        self.bits += bits;
        while self.bits >= 8 {
            self.bytes.push(self.pending as u8);
            self.pending >>= 8;
            self.bits -= 8;
        }
    }

    /// Whole bytes written so far; they are the caller's.
    pub fn take(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.bytes)
    }

    /// Bytes that wait to be taken.
    pub fn len(&self) -> usize {
        self.bytes.len()
    }

    /// The rest, and how many values there are.
    pub fn finish(mut self) -> (Vec<u8>, u64) {
        if self.bits > 0 {
            self.bytes.push(self.pending as u8);
        }
        (self.bytes, self.count)
    }
}

/// Answers whether a hash is among them, almost always rightly; memory is the encoded bytes and a fourth of a byte a hash.
#[derive(Debug, Clone)]
pub struct Filter {
    range: Range,
    bytes: Vec<u8>,
    /// Every `STRIDE`th value, and the bit behind it.
    starts: Vec<(u64, u64)>,
}

impl Filter {
    /// Of encoded values, each of which is checked.
    pub fn new(range: Range, bytes: Vec<u8>, count: u64) -> Result<Self> {
        let mut filter = Self {
            range,
            bytes,
            starts: Vec::new(),
        };
        let (mut at, mut value) = (0, 0);
        for n in 0..count {
            let (next, behind) = filter.decode(at, value).ok_or_else(broken)?;
            if next >= range.values || (n > 0 && next == value) {
                return Err(broken());
            }
            (value, at) = (next, behind);
            if (n as usize).is_multiple_of(STRIDE) {
                filter.starts.push((value, at));
            }
        }
        if at.div_ceil(8) != filter.bytes.len() as u64 {
            return Err(broken());
        }
        Ok(filter)
    }

    /// The value behind `last` whose code begins at the bit, and the bit behind it.
    fn decode(&self, at: u64, last: u64) -> Option<(u64, u64)> {
        let mut at = at;
        let mut far = 0u64;
        while self.bit(at)? {
            far += 1;
            at += 1;
        }
        at += 1;
        let mut rest = 0;
        let end = at + u64::from(RICE_BITS);
        let last_byte = usize::try_from(end.div_ceil(8)).ok()?;
        if last_byte > self.bytes.len() {
            return None;
        }
        let (first, shift) = ((at / 8) as usize, at % 8);
        for (i, byte) in self.bytes[first..last_byte].iter().enumerate() {
            rest |= u64::from(*byte) << (8 * i);
        }
        rest = rest >> shift & ((1 << RICE_BITS) - 1);
        let distance = far.checked_mul(1 << RICE_BITS)? + rest;
        Some((last.checked_add(distance)?, end))
    }

    fn bit(&self, at: u64) -> Option<bool> {
        let byte = self.bytes.get(usize::try_from(at / 8).ok()?)?;
        Some(byte >> (at % 8) & 1 == 1)
    }

    /// Whether the hash is one of them, as far as the filter can tell.
    pub fn holds(&self, hash: &Hash) -> bool {
        let wanted = self.range.value(hash);
        let behind = self.starts.partition_point(|(value, _)| *value <= wanted);
        let Some(&(mut value, mut at)) = behind.checked_sub(1).and_then(|i| self.starts.get(i))
        else {
            return false;
        };
        for _ in 0..STRIDE {
            if value >= wanted {
                return value == wanted;
            }
            match self.decode(at, value) {
                Some((next, behind)) => (value, at) = (next, behind),
                None => return false,
            }
        }
        value == wanted
    }
}

fn broken() -> Error {
    Error::corrupt("reading a summary", "its list of clusters is not one")
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn hash(n: u64) -> Hash {
        Hash::of(&n.to_le_bytes())
    }

    fn filter(hashes: &[Hash]) -> Filter {
        let range = Range::new(hashes.len() as u64).unwrap();
        let mut values: Vec<u64> = hashes.iter().map(|h| range.value(h)).collect();
        values.sort_unstable();
        let mut encoder = Encoder::default();
        values.iter().for_each(|v| encoder.push(*v));
        let (bytes, count) = encoder.finish();
        Filter::new(range, bytes, count).unwrap()
    }

    #[test]
    fn all_members_are_held_and_hardly_anything_else() {
        let hashes: Vec<Hash> = (0..10_000).map(hash).collect();
        let filter = filter(&hashes);
        assert!(hashes.iter().all(|h| filter.holds(h)));
        let wrong = (10_000..110_000)
            .filter(|n| filter.holds(&hash(*n)))
            .count();
        assert!(wrong <= 1, "{wrong} of 100,000 where 0.006 are expected");
        // 24 bits, one that ends the distance, and on average half a one.
        assert!(
            filter.bytes.len() < 10_000 * 26 / 8,
            "{} bytes",
            filter.bytes.len()
        );
    }

    #[test]
    fn an_empty_filter_holds_nothing() {
        assert!(!filter(&[]).holds(&hash(1)));
        assert!(!filter(&[]).holds(&Hash([0; 32])));
        assert!(filter(&[Hash([0; 32])]).holds(&Hash([0; 32])));
        assert!(filter(&[Hash([0xff; 32])]).holds(&Hash([0xff; 32])));
    }

    #[test]
    fn another_count_or_length_is_refused() {
        let hashes: Vec<Hash> = (0..100).map(hash).collect();
        let good = filter(&hashes);
        let make = |bytes: &[u8], count| Filter::new(good.range, bytes.to_vec(), count);
        assert!(make(&good.bytes, 100).is_ok());
        assert!(make(&good.bytes, 108).is_err());
        assert!(make(&good.bytes, 92).is_err());
        assert!(make(&good.bytes[..good.bytes.len() - 1], 100).is_err());
        assert!(make(&[&good.bytes[..], &[0]].concat(), 100).is_err());
        assert!(Range::new(u64::MAX).is_err());
    }

    proptest! {
        #[test]
        fn members_are_always_held(seeds in prop::collection::vec(any::<u64>(), 0..300)) {
            let hashes: Vec<Hash> = seeds.iter().map(|n| hash(*n)).collect();
            let filter = filter(&hashes);
            prop_assert!(hashes.iter().all(|h| filter.holds(h)));
        }

        #[test]
        fn arbitrary_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..100), count in 0u64..50) {
            if let Ok(filter) = Filter::new(Range::new(count).unwrap(), bytes, count) {
                filter.holds(&hash(1));
            }
        }
    }
}
