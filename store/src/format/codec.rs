//! Structs <-> bytes of stored records. The only file that names bincode.

use bincode::Options;
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::fmt;

/// Why bytes are not what they should be.
#[derive(Debug)]
pub struct DecodeError(pub String);

impl fmt::Display for DecodeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for DecodeError {}

fn options() -> impl Options {
    bincode::DefaultOptions::new()
        .with_fixint_encoding()
        .reject_trailing_bytes()
}

/// The stored form.
///
/// # Panics
/// Never for our records: maps, vectors and plain fields all have a length.
pub fn encode<T: Serialize>(value: &T) -> Vec<u8> {
    options()
        .serialize(value)
        .expect("records are made of plain fields, vectors and maps")
}

/// The struct, if `bytes` are exactly its stored form and not more than `limit`. serde allocates for at most 1 MiB on the
/// word of a length alone, so that memory follows the bytes that are there.
pub fn decode<T: DeserializeOwned>(bytes: &[u8], limit: u64) -> Result<T, DecodeError> {
    if bytes.len() as u64 > limit {
        return Err(DecodeError(format!(
            "{} bytes, {limit} are allowed",
            bytes.len()
        )));
    }
    options()
        .with_limit(limit)
        .deserialize(bytes)
        .map_err(|e| DecodeError(e.to_string()))
}

#[cfg(test)]
mod tests {
    use super::{decode, encode};
    use proptest::prelude::*;

    #[test]
    fn nothing_may_follow_and_nothing_may_be_missing() {
        let bytes = encode(&(7u32, String::from("abc")));
        assert_eq!(
            decode::<(u32, String)>(&bytes, 100).unwrap(),
            (7, "abc".into())
        );
        let longer = [bytes.as_slice(), &[0]].concat();
        assert!(decode::<(u32, String)>(&longer, 100).is_err());
        assert!(decode::<(u32, String)>(&bytes[..bytes.len() - 1], 100).is_err());
        assert!(decode::<(u32, String)>(&bytes, 3).is_err());
    }

    #[test]
    fn a_lying_length_costs_no_memory() {
        let mut bytes = encode(&vec![1u8, 2, 3]);
        bytes[..8].copy_from_slice(&u64::MAX.to_le_bytes());
        assert!(decode::<Vec<u8>>(&bytes, 1000).is_err());
    }

    proptest! {
        #[test]
        fn any_bytes_give_an_error_or_an_entry(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            decode::<crate::format::entry::Entry>(&bytes, 1 << 20).map(|_| ()).unwrap_or_default();
        }
    }
}
