//! Finding many hashes by reading pack tables: exact, bounded in memory, and without the index.
//!
//! Packs are tried in the order in which they helped last, and the search ends when nothing is missing, so that a disk
//! whose clusters lie together costs the tables of its own packs and not those of the whole store.

use crate::catalog::{Catalog, PackState};
use crate::error::Result;
use crate::format::entry::PackKind;
use crate::format::pack::FrameRef;
use crate::id::{Hash, PackNumber};
use crate::object::Objects;
use crate::pack::table::Table;
use std::collections::BTreeSet;
use std::sync::Arc;

/// Where a copy of a cluster is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Location {
    /// The pack.
    pub pack: PackNumber,
    /// Offset of the frame in the pack.
    pub offset: u32,
    /// Bytes of the frame with its header.
    pub bytes: u32,
    /// Position in the frame.
    pub item: u16,
}

impl Location {
    /// An item of a frame of a pack.
    pub fn new(pack: PackNumber, frame: FrameRef, item: u16) -> Self {
        Self {
            pack,
            offset: frame.offset,
            bytes: frame.bytes,
            item,
        }
    }

    /// The frame alone.
    pub fn frame(&self) -> FrameRef {
        FrameRef {
            offset: self.offset,
            bytes: self.bytes,
        }
    }
}

/// A set of hashes that answers membership quickly: sorted, with a directory by the first two bytes.
pub struct HashSet {
    hashes: Vec<Hash>,
    starts: Vec<u32>,
}

impl HashSet {
    /// Sorts and deduplicates.
    pub fn new(mut hashes: Vec<Hash>) -> Self {
        hashes.sort_unstable();
        hashes.dedup();
        let mut starts = vec![0u32; (1 << 16) + 1];
        for h in &hashes {
            starts[prefix(h) + 1] += 1;
        }
        for i in 1..starts.len() {
            starts[i] += starts[i - 1];
        }
        Self { hashes, starts }
    }

    /// Position of the hash in `hashes()`, if it is a member.
    pub fn position(&self, hash: &Hash) -> Option<usize> {
        let p = prefix(hash);
        let (from, to) = (self.starts[p] as usize, self.starts[p + 1] as usize);
        self.hashes[from..to]
            .binary_search(hash)
            .ok()
            .map(|i| from + i)
    }

    /// The members, sorted.
    pub fn hashes(&self) -> &[Hash] {
        &self.hashes
    }
}

fn prefix(hash: &Hash) -> usize {
    usize::from(hash.0[0]) << 8 | usize::from(hash.0[1])
}

/// Searches the tables of live packs of one kind.
pub struct Resolver<'a> {
    objects: &'a dyn Objects,
    /// Packs still to try first come first.
    order: Vec<Arc<PackState>>,
    /// Frames that were read and found damaged: another copy is wanted.
    bad: BTreeSet<(PackNumber, u32)>,
}

impl<'a> Resolver<'a> {
    /// Over the packs that are live in `catalog`.
    pub fn new(objects: &'a dyn Objects, catalog: &Catalog, kind: PackKind) -> Self {
        let order = catalog
            .packs()
            .filter(|p| p.record.kind == kind)
            .cloned()
            .collect();
        Self {
            objects,
            order,
            bad: BTreeSet::new(),
        }
    }

    /// The live packs are now those of `catalog`.
    pub fn follow(&mut self, catalog: &Catalog, kind: PackKind) {
        let known: BTreeSet<PackNumber> = self.order.iter().map(|p| p.number).collect();
        self.order
            .retain(|p| catalog.pack_numbered(p.number).is_some());
        let new = catalog
            .packs()
            .filter(|p| p.record.kind == kind && !known.contains(&p.number));
        self.order.extend(new.cloned());
    }

    /// Never answers with this frame again.
    pub fn avoid(&mut self, at: Location) {
        self.bad.insert((at.pack, at.offset));
    }

    /// A location for each member of `set`, `None` where no live pack lists it. A pack whose table cannot be read is
    /// passed over: what it alone lists is missing.
    pub fn find(&mut self, set: &HashSet) -> Result<Vec<Option<Location>>> {
        let mut found = vec![None; set.hashes().len()];
        let mut missing = found.len();
        let mut helped = Vec::new();
        let mut idle = Vec::new();
        for (i, pack) in self.order.iter().enumerate() {
            if missing == 0 {
                idle.extend_from_slice(&self.order[i..]);
                break;
            }
            let Some(table) = readable(Table::read(self.objects, pack.name, &pack.record))? else {
                idle.push(pack.clone());
                continue;
            };
            let before = missing;
            for (_, hash, frame, item) in table.entries() {
                let Some(at) = set.position(hash) else {
                    continue;
                };
                if found[at].is_none() && !self.bad.contains(&(pack.number, frame.offset)) {
                    missing -= 1;
                    found[at] = Some(Location::new(pack.number, frame, item));
                }
            }
            if missing < before {
                helped.push(pack.clone());
            } else {
                idle.push(pack.clone());
            }
        }
        helped.append(&mut idle);
        self.order = helped;
        Ok(found)
    }
}

/// Damage and absence are the caller's to count; anything else ends the search.
pub fn readable<T>(result: Result<T>) -> Result<Option<T>> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(e)
            if matches!(
                e.kind(),
                crate::ErrorKind::Corrupt | crate::ErrorKind::NotFound
            ) =>
        {
            Ok(None)
        }
        Err(e) => Err(e),
    }
}
