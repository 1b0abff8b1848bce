//! Volumes: writable disks that live in the store. Contents are a head, which is in packs, and overlays over it, files of this
//! host with what was written since. See FORMAT.md, "Overlays", and section 3.7 of the design.
//!
//! ```text
//! host      local/id, folders and locks of this host
//! overlay   one file of blocks and its map
//! layers    overlays and a head, as one disk that is read
//! frozen    what was sealed, as a file for an ingest
//! disk      what a guest does; extents and changed besides
//! verbs     create, open, seal, goto, resize, remove, hand over and adopt
//! ```
//!
//! Three locks, taken in this order, of several volumes in the order of their uids:
//! - the *turn* of a volume: whoever changes its chain (snapshot, goto, resize, removal) has it from beginning to end;
//! - its *gate*: every write passes it shared, until it is acknowledged; switching overlays passes it alone, so that nothing
//!   is in flight then. Held for file creation at most, never for storing anything, but for goto, shrinking and removal;
//! - the lock of an overlay's map, for memory only.

mod adopt;
mod changed;
mod create;
mod disk;
mod extents;
mod frozen;
mod goto;
mod hand_over;
mod host;
mod layers;
mod open;
mod overlay;
mod remove;
mod resize;
mod seal;
mod turn;

use crate::disk::Disk;
use crate::error::Result;
use crate::format::overlay::OverlayName;
use std::path::Path;

pub use create::{NewVolume, Source};
pub use disk::Volume;
pub use extents::{Depth, VolumeExtent};
pub use goto::GotoVolume;
pub use layers::Below;
pub use open::Volumes;
pub use seal::{Records, Sealed};

/// Opens an overlay's file as a volume does, makes durable what is found in it, and reads all of that. `Corrupt` where it is
/// damaged.
pub fn check_overlay(disk: &dyn Disk, path: &Path, name: OverlayName) -> Result<()> {
    let overlay = overlay::Overlay::open(disk, path, name)?;
    let blocks = overlay.held();
    let stored = blocks.into_iter().flat_map(|run| {
        let mut pieces = Vec::new();
        let count = run.end - run.start;
        overlay.pieces(run.start, count, &mut |piece| pieces.push(piece));
        pieces
    });
    for piece in stored {
        if let overlay::What::Data(slot, sums) = piece.what {
            layers::verify(&overlay, piece.first, slot, &sums)?;
        }
    }
    Ok(())
}
