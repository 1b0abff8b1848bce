//! Taking numbers off the front of a byte slice.

use std::fmt;

/// Bytes that no conforming peer sends; says what is wrong with them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Malformed(pub &'static str);

impl fmt::Display for Malformed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }
}

impl std::error::Error for Malformed {}

/// A message and how many bytes it took, or `None` when more must arrive first.
pub type Decoded<T> = Result<Option<(T, usize)>, Malformed>;

/// What is left of a payload.
#[derive(Debug)]
pub(super) struct Fields<'a>(&'a [u8]);

impl<'a> Fields<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    pub(super) fn left(&self) -> usize {
        self.0.len()
    }

    pub(super) fn bytes(&mut self, len: usize) -> Result<&'a [u8], Malformed> {
        let split = self.0.split_at_checked(len);
        let (head, rest) = split.ok_or(Malformed("a length goes past the end of the payload"))?;
        self.0 = rest;
        Ok(head)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], Malformed> {
        let split = self.0.split_first_chunk::<N>();
        let (head, rest) = split.ok_or(Malformed("the payload is too short"))?;
        self.0 = rest;
        Ok(*head)
    }

    pub(super) fn u16(&mut self) -> Result<u16, Malformed> {
        self.array().map(u16::from_be_bytes)
    }

    pub(super) fn u32(&mut self) -> Result<u32, Malformed> {
        self.array().map(u32::from_be_bytes)
    }

    pub(super) fn u64(&mut self) -> Result<u64, Malformed> {
        self.array().map(u64::from_be_bytes)
    }

    /// A string of a length that was read before.
    pub(super) fn string(&mut self, len: u32) -> Result<String, Malformed> {
        if len > super::STRING_MAX {
            return Err(Malformed("a string is longer than 4096 bytes"));
        }
        text(self.bytes(len as usize)?)
    }

    /// A string with its 32-bit length before it.
    pub(super) fn counted(&mut self) -> Result<String, Malformed> {
        let len = self.u32()?;
        self.string(len)
    }

    /// Everything that is left, as a string.
    pub(super) fn rest(&mut self) -> Result<String, Malformed> {
        let len = u32::try_from(self.0.len()).unwrap_or(u32::MAX);
        self.string(len)
    }

    pub(super) fn end(&self) -> Result<(), Malformed> {
        if self.0.is_empty() {
            Ok(())
        } else {
            Err(Malformed("the payload is too long"))
        }
    }
}

fn text(bytes: &[u8]) -> Result<String, Malformed> {
    let text = str::from_utf8(bytes).map_err(|_| Malformed("a string is not UTF-8"))?;
    if text.contains('\0') {
        return Err(Malformed("a string has a NUL in it"));
    }
    Ok(text.to_owned())
}

/// Appends a string with its 32-bit length before it.
pub(super) fn put_counted(out: &mut Vec<u8>, text: &str) {
    let len = u32::try_from(text.len()).unwrap_or(u32::MAX);
    out.extend_from_slice(&len.to_be_bytes());
    out.extend_from_slice(text.as_bytes());
}
