//! Runs of bytes with the same metadata.

/// A run of bytes and what a metadata context says of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Extent {
    /// Bytes, more than none.
    pub length: u64,
    /// Meaning up to the context, [`allocation`](super::allocation) for `base:allocation`.
    pub flags: u64,
}

/// Collects the extents of a range from its start: merges equal neighbours, cuts at the end of the range, and says when
/// it has enough.
#[derive(Debug)]
pub struct Extents {
    found: Vec<Extent>,
    left: u64,
    most: usize,
}

impl Extents {
    /// For a range of `length` bytes, at most `most` extents.
    pub fn new(length: u64, most: usize) -> Self {
        Self {
            found: Vec::new(),
            left: length,
            most,
        }
    }

    /// Appends the next run. Answers whether more is wanted; what comes after a `false` is ignored.
    pub fn push(&mut self, length: u64, flags: u64) -> bool {
        let length = length.min(self.left);
        if length == 0 {
            return self.left > 0;
        }
        let room = self.found.len() < self.most;
        match self.found.last_mut() {
            Some(last) if last.flags == flags => last.length += length,
            _ if room => self.found.push(Extent { length, flags }),
            _ => {
                self.left = 0;
                return false;
            }
        }
        self.left -= length;
        self.left > 0
    }

    /// Bytes that nothing was said about so far.
    pub fn left(&self) -> u64 {
        self.left
    }

    /// What was collected.
    pub fn into_vec(self) -> Vec<Extent> {
        self.found
    }
}
