//! What is allocated where, and on which level.

use super::disk::Volume;
use super::layers::Layers;
use crate::error::Result;
use crate::ops::diff::ExtentKind;
use std::ops::Range;

/// Bytes that are looked at first; more and more while they are alike, of all but holes so many at most.
const WINDOW_MIN: u64 = 256 << 10;
const WINDOW_MAX: u64 = 1 << 30;

/// Where a part of a volume is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Depth {
    /// In an overlay of this host.
    Overlay,
    /// In the store.
    Store,
    /// Nothing was ever written there.
    Nowhere,
}

/// A run of bytes of one kind and depth.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct VolumeExtent {
    /// First byte.
    pub start: u64,
    /// Bytes.
    pub length: u64,
    /// What they are.
    pub kind: ExtentKind,
    /// Where they are.
    pub depth: Depth,
}

impl VolumeExtent {
    pub(super) fn new(bytes: Range<u64>, kind: ExtentKind, depth: Depth) -> Self {
        Self {
            start: bytes.start,
            length: bytes.end - bytes.start,
            kind,
            depth,
        }
    }
}

impl Volume<'_> {
    /// Tells `each` what lies in a range of bytes, in order, neighbours that are alike as one, until it answers false. Reads
    /// no data. The range lies within the volume.
    pub fn extents(
        &self,
        offset: u64,
        len: u64,
        each: &mut dyn FnMut(VolumeExtent) -> bool,
    ) -> Result<()> {
        let layers = self.layers();
        let range = self.checked(&layers, offset, len)?;
        let alike = |a: &VolumeExtent, b: &VolumeExtent| (a.kind, a.depth) == (b.kind, b.depth);
        merged(&layers, range, &alike, each)
    }
}

/// The extents of a range, neighbours that are `alike` as one. Looks no further than needed.
pub(super) fn merged(
    layers: &Layers<'_>,
    range: Range<u64>,
    alike: &dyn Fn(&VolumeExtent, &VolumeExtent) -> bool,
    each: &mut dyn FnMut(VolumeExtent) -> bool,
) -> Result<()> {
    let mut pending: Option<VolumeExtent> = None;
    let (mut at, mut window) = (range.start, WINDOW_MIN);
    while at < range.end {
        let end = range.end.min(at.saturating_add(window));
        let mut changes = 0;
        let go_on = layers.extents(at..end, &mut |extent| match &mut pending {
            Some(before) if alike(before, &extent) => {
                before.length += extent.length;
                true
            }
            _ => {
                changes += 1;
                pending.replace(extent).is_none_or(&mut *each)
            }
        })?;
        if !go_on {
            return Ok(());
        }
        at = end;
        // What is in memory at a time is what lies in a window: only holes may be many.
        let hole = pending.is_some_and(|e| e.kind == ExtentKind::Hole);
        window = match changes {
            0 if hole => window.saturating_mul(2),
            0 => (window * 2).min(WINDOW_MAX),
            _ => WINDOW_MIN,
        };
    }
    if let Some(last) = pending {
        each(last);
    }
    Ok(())
}
