//! What differs between two disks: manifests compared, no cluster read.

use crate::error::Result;
use crate::format::entry::Content;
use crate::format::manifest::Child;
use crate::manifest::diff::{Change, diff};
use crate::store::Store;

/// What the newer disk has in a changed range.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ExtentKind {
    /// Data.
    Data,
    /// Zeros that were written.
    Zero,
    /// Nothing.
    Hole,
}

/// A range of bytes in which two disks differ.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ChangedExtent {
    /// First byte, a multiple of the cluster size.
    pub start: u64,
    /// Bytes; the last extent may end with the disk.
    pub length: u64,
    /// What the second disk has there.
    pub kind: ExtentKind,
}

impl Store {
    /// The ranges in which `b` differs from `a`, in order, neighbours of one kind merged. Where `b` ends before `a`, what is
    /// missing is a hole.
    pub fn diff(&self, a: Content, b: Content) -> Result<Vec<ChangedExtent>> {
        let size = u64::from(self.geometry().cluster_bytes);
        let end = a.size.max(b.size);
        let nodes = self.nodes();
        let mut extents: Vec<ChangedExtent> = Vec::new();
        let (old, new) = (
            (a.root, a.size.div_ceil(size)),
            (b.root, b.size.div_ceil(size)),
        );
        diff(&nodes, old.0, old.1, &nodes, new.0, new.1, &mut |change| {
            extend(&mut extents, change, size, end);
            Ok(())
        })
        .map_err(|e| self.or_unkept(e, &[a, b]))?;
        Ok(extents)
    }
}

/// Adds a change to the extents before it, in bytes, of a disk that ends at `end`.
pub(super) fn extend(extents: &mut Vec<ChangedExtent>, change: Change, size: u64, end: u64) {
    let kind = match change.new {
        Child::Hash(_) => ExtentKind::Data,
        Child::Zero => ExtentKind::Zero,
        Child::Hole => ExtentKind::Hole,
    };
    let start = change.first * size;
    let length = (change.count * size).min(end - start);
    match extents.last_mut() {
        Some(last) if last.kind == kind && last.start + last.length == start => {
            last.length += length;
        }
        _ => extents.push(ChangedExtent {
            start,
            length,
            kind,
        }),
    }
}
