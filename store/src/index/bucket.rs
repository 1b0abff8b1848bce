//! A bucket: the sorted records of all keys that share their first two bytes. Pure bytes, see FORMAT.md section 9.
//!
//! The sled database holds buckets, not keys: one value of a few kilobytes costs sled as much memory and time as one
//! key would, and a batch of new keys is merged into it in one pass.

use super::{Key, PLACES_MAX, Place, Places};
use crate::error::{Error, Result};
use crate::id::PackNumber;

/// Key bytes that the bucket's number does not say.
const REST: usize = 14;
/// Rest of the key, pack number (4), entry (3).
const RECORD: usize = REST + 7;
/// Entry numbers are stored in three bytes: a pack of 64 MiB cannot list that many.
pub(super) const ENTRY_END: u32 = 1 << 24;
/// Number of buckets.
pub(super) const BUCKETS: u32 = 1 << 16;

/// The bucket of a key.
pub(super) fn number_of(key: &Key) -> u16 {
    u16::from_be_bytes([key[0], key[1]])
}

/// Records of a bucket.
pub(super) fn len(bucket: &[u8]) -> Result<usize> {
    if !bucket.len().is_multiple_of(RECORD) {
        return Err(Error::corrupt(
            "reading the index",
            "a bucket has an odd length",
        ));
    }
    Ok(bucket.len() / RECORD)
}

fn rest(record: &[u8]) -> &[u8] {
    &record[..REST]
}

fn place(record: &[u8]) -> Place {
    let byte = |i: usize| record[REST + i];
    Place {
        pack: PackNumber(u32::from_le_bytes([byte(0), byte(1), byte(2), byte(3)])),
        entry: u32::from_le_bytes([byte(4), byte(5), byte(6), 0]),
    }
}

fn push(out: &mut Vec<u8>, rest: &[u8], place: Place) {
    out.extend_from_slice(rest);
    out.extend_from_slice(&place.pack.0.to_le_bytes());
    out.extend_from_slice(&place.entry.to_le_bytes()[..3]);
}

/// What the bucket says of a key.
pub(super) fn find(bucket: &[u8], key: &Key) -> Result<Places> {
    let records = len(bucket)?;
    let record = |i: usize| &bucket[i * RECORD..(i + 1) * RECORD];
    let (mut low, mut high) = (0, records);
    while low < high {
        let middle = usize::midpoint(low, high);
        if rest(record(middle)) < &key[2..] {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    let mut found = Places::default();
    (low..records)
        .map(record)
        .take_while(|r| rest(r) == &key[2..])
        .take(PLACES_MAX)
        .for_each(|r| found.add(place(r)));
    Ok(found)
}

/// Calls `each` with every key of bucket `number`; those with several places come several times.
pub(super) fn keys(number: u16, bucket: &[u8], mut each: impl FnMut(&Key)) -> Result<()> {
    len(bucket)?;
    let mut key = [0; 16];
    key[..2].copy_from_slice(&number.to_be_bytes());
    for record in bucket.chunks_exact(RECORD) {
        key[2..].copy_from_slice(rest(record));
        each(&key);
    }
    Ok(())
}

/// Keys with at least one place that `keep` takes.
pub(super) fn count_keys(bucket: &[u8], keep: impl Fn(Place) -> bool) -> Result<u64> {
    len(bucket)?;
    let mut last = None;
    let mut count = 0;
    for record in bucket.chunks_exact(RECORD).filter(|r| keep(place(r))) {
        if last != Some(rest(record)) {
            count += 1;
            last = Some(rest(record));
        }
    }
    Ok(count)
}

/// The bucket with `fresh` added, sorted by key and all of this bucket; places that `keep` refuses are left out.
pub(super) fn merge(
    bucket: &[u8],
    fresh: &[(Key, Place)],
    keep: impl Fn(Place) -> bool,
) -> Result<Vec<u8>> {
    len(bucket)?;
    let mut out = Vec::with_capacity(bucket.len() + fresh.len() * RECORD);
    let mut old = bucket.chunks_exact(RECORD).peekable();
    let mut new = fresh.iter().peekable();
    loop {
        let next: [u8; REST] = match (old.peek(), new.peek()) {
            (None, None) => return Ok(out),
            (Some(o), None) => take_rest(rest(o)),
            (None, Some(n)) => take_rest(&n.0[2..]),
            (Some(o), Some(n)) => take_rest(rest(o).min(&n.0[2..])),
        };
        let mut places = Places::default();
        while let Some(o) = old.next_if(|o| rest(o) == next) {
            places.add(place(o));
        }
        while let Some(n) = new.next_if(|n| n.0[2..] == next) {
            places.add(n.1);
        }
        places.retain(&keep);
        places.iter().for_each(|p| push(&mut out, &next, p));
    }
}

fn take_rest(bytes: &[u8]) -> [u8; REST] {
    let mut rest = [0; REST];
    rest.copy_from_slice(bytes);
    rest
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    fn key(last: u8) -> Key {
        let mut key = [7; 16];
        key[15] = last;
        key
    }

    fn at(pack: u32, entry: u32) -> Place {
        Place {
            pack: PackNumber(pack),
            entry,
        }
    }

    #[test]
    fn a_fifth_place_pushes_the_oldest_out() {
        let fresh: Vec<_> = (1..=5).map(|n| (key(1), at(n, n))).collect();
        let bucket = merge(&[], &fresh, |_| true).unwrap();
        let found: Vec<_> = find(&bucket, &key(1))
            .unwrap()
            .iter()
            .map(|p| p.pack.0)
            .collect();
        assert_eq!(found, [2, 3, 4, 5]);
    }

    #[test]
    fn refused_places_leave_no_record() {
        let bucket = merge(&[], &[(key(1), at(1, 0)), (key(2), at(2, 0))], |_| true).unwrap();
        let bucket = merge(&bucket, &[], |p| p.pack.0 != 1).unwrap();
        assert_eq!(len(&bucket).unwrap(), 1);
        assert_eq!(find(&bucket, &key(1)).unwrap(), Places::default());
    }

    #[test]
    fn an_odd_length_is_corrupt() {
        assert!(find(&[0; RECORD + 1], &key(1)).is_err());
        assert!(merge(&[0; RECORD - 1], &[], |_| true).is_err());
        assert!(keys(0, &[0; 1], |_| ()).is_err());
    }

    proptest! {
        #[test]
        fn merging_in_steps_equals_a_map(steps in prop::collection::vec(
            prop::collection::vec((0_u8..40, 0_u32..9, 0..ENTRY_END), 0..60), 0..5)) {
            let mut bucket = Vec::new();
            let mut model: BTreeMap<Key, Places> = BTreeMap::new();
            for step in steps {
                let mut fresh: Vec<_> =
                    step.iter().map(|(k, p, e)| (key(*k), at(*p, *e))).collect();
                fresh.sort_by_key(|f| f.0);
                for (k, p) in &fresh {
                    model.entry(*k).or_default().add(*p);
                }
                bucket = merge(&bucket, &fresh, |_| true).unwrap();
            }
            for k in 0..40 {
                let expected = model.get(&key(k)).copied().unwrap_or_default();
                prop_assert_eq!(find(&bucket, &key(k)).unwrap(), expected);
            }
        }

        #[test]
        fn hostile_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = find(&bytes, &key(3));
            let _ = merge(&bytes, &[(key(3), at(1, 1))], |_| true);
            let _ = keys(9, &bytes, |_| ());
        }
    }
}
