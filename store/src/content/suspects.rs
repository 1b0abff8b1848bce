//! Copies that the last verify found bad. They are not believed: what is only in them is stored again when it is met, and
//! gc gets rid of them once every one has a good copy elsewhere.
//!
//! A note of this host, not part of the store: who does not have it shares bad copies as if they were good, as everybody
//! did before the verify. Names of packs are never used again, so an old note says nothing wrong.

use crate::catalog::{Catalog, PackState};
use crate::error::Result;
use crate::format::codec;
use crate::id::{Hash, PackName};
use crate::object::{Local, Objects};
use crate::pack::table::Table;
use std::collections::{BTreeMap, BTreeSet, HashSet};

const NOTE: &str = "damage";

/// Frames, by pack and offset; without any, the pack as a whole.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Suspects(BTreeMap<PackName, BTreeSet<u32>>);

impl Suspects {
    /// What the last verify on this host noted. A note that cannot be read is none.
    pub fn noted(local: &dyn Local) -> Self {
        let note = local.note(NOTE).unwrap_or_default();
        Self(codec::decode(&note, note.len() as u64).unwrap_or_default())
    }

    /// Notes them; without any, removes what was noted.
    pub fn note(&self, local: &dyn Local) -> Result<()> {
        if self.0.is_empty() {
            return local.put_note(NOTE, &[]);
        }
        local.put_note(NOTE, &codec::encode(&self.0))
    }

    /// Adds a frame.
    pub fn add(&mut self, pack: PackName, frame: u32) {
        self.0.entry(pack).or_default().insert(frame);
    }

    /// Adds a pack as a whole.
    pub fn add_whole(&mut self, pack: PackName) {
        self.0.insert(pack, BTreeSet::new());
    }

    /// Whether nothing is.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether anything in the pack is suspect.
    pub fn touch(&self, pack: &PackName) -> bool {
        self.0.contains_key(pack)
    }

    /// Whether the frame is.
    pub fn hold(&self, pack: &PackName, frame: u32) -> bool {
        let frames = self.0.get(pack);
        frames.is_some_and(|frames| frames.is_empty() || frames.contains(&frame))
    }

    /// The hashes that have a suspect copy in a live pack.
    pub fn hashes(&self, objects: &dyn Objects, catalog: &Catalog) -> Distrusted {
        let mut distrusted = Distrusted::default();
        let live = self.0.keys().filter_map(|name| catalog.pack(name));
        live.for_each(|pack| self.add_hashes(objects, pack, &mut distrusted));
        distrusted
    }

    fn add_hashes(&self, objects: &dyn Objects, pack: &PackState, distrusted: &mut Distrusted) {
        match Table::read_lenient(objects, pack.name, &pack.record) {
            Ok((table, bad)) => {
                let suspect = table
                    .entries()
                    .filter(|(_, _, frame, _)| self.hold(&pack.name, frame.offset));
                distrusted.hashes.extend(suspect.map(|(_, hash, ..)| *hash));
                distrusted.everything |= !bad.is_empty();
            }
            Err(_) => distrusted.everything = true,
        }
    }
}

/// Hashes whose being below a reachable root does not prove that they can be read.
#[derive(Debug, Default)]
pub struct Distrusted {
    hashes: HashSet<Hash>,
    /// A pack's table is damaged: nobody knows what was in it.
    everything: bool,
}

impl Distrusted {
    /// Whether this is one.
    pub fn holds(&self, hash: &Hash) -> bool {
        self.everything || (!self.hashes.is_empty() && self.hashes.contains(hash))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::SessionId;

    fn pack(n: u32) -> PackName {
        let session = SessionId {
            opened_at: 1,
            nonce: 2,
        };
        PackName { session, n }
    }

    #[test]
    fn a_frame_is_suspect_by_itself_or_with_its_pack() {
        let mut suspects = Suspects::default();
        suspects.add(pack(1), 64);
        suspects.add_whole(pack(2));
        assert!(suspects.hold(&pack(1), 64) && !suspects.hold(&pack(1), 65));
        assert!(suspects.hold(&pack(2), 0) && suspects.hold(&pack(2), 64));
        assert!(suspects.touch(&pack(1)) && !suspects.touch(&pack(3)));
        assert!(!suspects.hold(&pack(3), 64));
    }
}
