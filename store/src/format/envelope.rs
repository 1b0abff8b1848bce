//! What log entries, checkpoints and record copies stand in. See FORMAT.md 3.

use crate::format::codec::DecodeError;
use crate::id::{Hash, Sequence};

/// Bytes before the payload.
pub const ENVELOPE_BYTES: usize = 96;
const VERSION: u32 = 1;

/// What is in the envelope.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EnvelopeKind {
    /// A log entry.
    Entry,
    /// A checkpoint.
    Checkpoint,
    /// A copy of a snapshot record.
    Record,
}

impl EnvelopeKind {
    fn magic(self) -> &'static [u8; 8] {
        match self {
            Self::Entry => b"STILLENT",
            Self::Checkpoint => b"STILLCKP",
            Self::Record => b"STILLREC",
        }
    }
}

/// An envelope that was opened and found whole.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Envelope<'a> {
    /// See FORMAT.md.
    pub sequence: Sequence,
    /// Checksum of the entry before.
    pub previous: Hash,
    /// Its own.
    pub checksum: Hash,
    /// What is in it.
    pub payload: &'a [u8],
}

/// Puts a payload in an envelope; returns its bytes and its checksum.
pub fn seal(
    kind: EnvelopeKind,
    sequence: Sequence,
    previous: Hash,
    payload: &[u8],
) -> (Vec<u8>, Hash) {
    let mut bytes = Vec::with_capacity(ENVELOPE_BYTES + payload.len());
    bytes.extend_from_slice(kind.magic());
    bytes.extend_from_slice(&VERSION.to_le_bytes());
    bytes.extend_from_slice(&[0; 4]);
    bytes.extend_from_slice(&sequence.to_le_bytes());
    bytes.extend_from_slice(&(payload.len() as u64).to_le_bytes());
    bytes.extend_from_slice(&previous.0);
    let checksum = checksum(&bytes, payload);
    bytes.extend_from_slice(&checksum.0);
    bytes.extend_from_slice(payload);
    (bytes, checksum)
}

fn checksum(head: &[u8], payload: &[u8]) -> Hash {
    let mut hasher = blake3::Hasher::new();
    hasher.update(head).update(payload);
    Hash(*hasher.finalize().as_bytes())
}

/// Opens an envelope; every byte of it is checked.
pub fn open(kind: EnvelopeKind, bytes: &[u8]) -> Result<Envelope<'_>, DecodeError> {
    let Some((head, payload)) = bytes.split_at_checked(ENVELOPE_BYTES) else {
        return Err(DecodeError(format!(
            "{} bytes are too few for an envelope",
            bytes.len()
        )));
    };
    if &head[..8] != kind.magic() {
        return Err(DecodeError("the magic number is wrong".into()));
    }
    let number = |at: usize| u64::from_le_bytes(part(head, at));
    let version = u32::from_le_bytes(part(head, 8));
    if version != VERSION {
        let why = format!("it has format version {version}, this program knows {VERSION}");
        return Err(DecodeError(why));
    }
    if number(24) != payload.len() as u64 {
        let why = format!(
            "it declares {} bytes of payload and has {}",
            number(24),
            payload.len()
        );
        return Err(DecodeError(why));
    }
    let declared = Hash(part(head, 64));
    if checksum(&head[..64], payload) != declared {
        return Err(DecodeError("the checksum does not fit".into()));
    }
    Ok(Envelope {
        sequence: number(16),
        previous: Hash(part(head, 32)),
        checksum: declared,
        payload,
    })
}

/// `N` bytes of the head from `at` on; both are constants within its 96.
fn part<const N: usize>(head: &[u8], at: usize) -> [u8; N] {
    let mut bytes = [0; N];
    bytes.copy_from_slice(&head[at..at + N]);
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_sealed_is_opened() {
        let (bytes, checksum) = seal(EnvelopeKind::Entry, 9, Hash([3; 32]), b"payload");
        let opened = open(EnvelopeKind::Entry, &bytes).unwrap();
        assert_eq!((opened.sequence, opened.previous), (9, Hash([3; 32])));
        assert_eq!(
            (opened.checksum, opened.payload),
            (checksum, b"payload".as_slice())
        );
    }

    #[test]
    fn every_flipped_bit_and_every_other_length_is_found() {
        let (bytes, _) = seal(
            EnvelopeKind::Checkpoint,
            256,
            Hash([1; 32]),
            b"some payload",
        );
        for bit in 0..bytes.len() * 8 {
            let mut bad = bytes.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            assert!(open(EnvelopeKind::Checkpoint, &bad).is_err(), "bit {bit}");
        }
        for len in 0..bytes.len() {
            assert!(
                open(EnvelopeKind::Checkpoint, &bytes[..len]).is_err(),
                "{len} bytes"
            );
        }
        assert!(open(EnvelopeKind::Entry, &bytes).is_err());
    }

    #[test]
    fn a_newer_version_is_named() {
        let (mut bytes, _) = seal(EnvelopeKind::Entry, 1, Hash([0; 32]), b"");
        bytes[8] = 2;
        let why = open(EnvelopeKind::Entry, &bytes).unwrap_err().to_string();
        assert_eq!(why, "it has format version 2, this program knows 1");
    }
}
