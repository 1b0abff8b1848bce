//! What is allocated where, and on which level.

use super::disk::Volume;
use super::layers::Layers;
use crate::error::Result;
use crate::ops::diff::ExtentKind;
use std::ops::Range;

/// Blocks that are looked at first; more and more while they are alike.
const WINDOW_MIN: u64 = 256 << 10;
const WINDOW_MAX: u64 = 4 << 30;

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
        let go_on = layers.extents(at..end, &mut |extent| match &mut pending {
            Some(before) if alike(before, &extent) => {
                before.length += extent.length;
                true
            }
            _ => pending.replace(extent).is_none_or(&mut *each),
        })?;
        if !go_on {
            return Ok(());
        }
        at = end;
        window = (window * 2).min(WINDOW_MAX);
    }
    if let Some(last) = pending {
        each(last);
    }
    Ok(())
}
