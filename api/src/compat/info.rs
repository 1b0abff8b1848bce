//! `QEMUSnapshotInfo`: one snapshot as callers see it, within the limits of its C fields.

use std::fmt;

/// `icount` of a snapshot that has none.
pub const ICOUNT_NONE: u64 = u64::MAX;

/// A C string in an array of `N` bytes: at most `N - 1` bytes and a NUL. What is longer is cut, as every release did.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Text<const N: usize> {
    bytes: [u8; N],
}

/// `id_str[128]`.
pub type IdStr = Text<128>;
/// `name[256]`.
pub type NameStr = Text<256>;

impl<const N: usize> Text<N> {
    /// The text up to its first NUL, cut to what fits.
    pub fn new(text: &[u8]) -> Self {
        let end = text.iter().position(|b| *b == 0).unwrap_or(text.len());
        let end = end.min(N - 1);
        let mut bytes = [0; N];
        bytes[..end].copy_from_slice(&text[..end]);
        Self { bytes }
    }

    /// Without the NUL.
    pub fn as_bytes(&self) -> &[u8] {
        let end = self.bytes.iter().position(|b| *b == 0);
        &self.bytes[..end.unwrap_or(N)]
    }

    /// The array, NULs to its end.
    pub fn as_array(&self) -> &[u8; N] {
        &self.bytes
    }

    /// Whether it is the empty string.
    pub fn is_empty(&self) -> bool {
        self.bytes[0] == 0
    }
}

impl<const N: usize> Default for Text<N> {
    fn default() -> Self {
        Self { bytes: [0; N] }
    }
}

impl<const N: usize> From<&str> for Text<N> {
    fn from(text: &str) -> Self {
        Self::new(text.as_bytes())
    }
}

impl<const N: usize> fmt::Display for Text<N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&String::from_utf8_lossy(self.as_bytes()))
    }
}

impl<const N: usize> fmt::Debug for Text<N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", String::from_utf8_lossy(self.as_bytes()))
    }
}

/// One snapshot of a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct QemuSnapshotInfo {
    /// Its id: what create writes here; through 2.3 also what it reads.
    pub id_str: IdStr,
    /// Its name; others may have the same.
    pub name: NameStr,
    /// Bytes of VM state; 0 for a snapshot of the disk alone. 32 bits in 1.0.
    pub vm_state_size: u64,
    /// UTC, seconds since 1970.
    pub date_sec: u32,
    /// Nanoseconds of that second.
    pub date_nsec: u32,
    /// VM clock since boot, nanoseconds.
    pub vm_clock_nsec: u64,
    /// Instruction count, [`ICOUNT_NONE`] for none. Releases before 5.2 do not have it.
    pub icount: u64,
}

impl Default for QemuSnapshotInfo {
    /// Zeroed but for the icount, which is none.
    fn default() -> Self {
        Self {
            id_str: IdStr::default(),
            name: NameStr::default(),
            vm_state_size: 0,
            date_sec: 0,
            date_nsec: 0,
            vm_clock_nsec: 0,
            icount: ICOUNT_NONE,
        }
    }
}

impl QemuSnapshotInfo {
    /// A request for create: a name, all else zero.
    pub fn named(name: &[u8]) -> Self {
        Self {
            name: NameStr::new(name),
            ..Self::default()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_end_where_their_arrays_or_the_c_string_end() {
        assert_eq!(NameStr::new(&[b'x'; 300]).as_bytes(), [b'x'; 255]);
        assert_eq!(NameStr::new(&[b'x'; 255]).as_bytes(), [b'x'; 255]);
        assert_eq!(IdStr::new(&[b'7'; 128]).as_bytes(), [b'7'; 127]);
        assert_eq!(NameStr::new(b"a\0b").as_bytes(), b"a");
        assert_eq!(NameStr::new(b"\xff\xfe").as_bytes(), b"\xff\xfe");
        assert!(NameStr::new(b"").is_empty());
        assert_eq!(NameStr::new(&[b'x'; 300]).as_array()[255], 0);
    }
}
