//! Proof that a pack lists a hash: table blocks on demand, kept within a budget. A loaded block brings its neighbours,
//! so that a run of known clusters costs one block and asks the index once.

use crate::catalog::{Catalog, PackState};
use crate::content::resolve::{Location, readable};
use crate::content::suspects::Suspects;
use crate::error::Result;
use crate::format::entry::PackKind;
use crate::format::pack::{BLOCK_STRIDE, Block, FrameRef};
use crate::id::{Hash, PackName, PackNumber};
use crate::index::Place;
use crate::object::Objects;
use crate::pack::table::read_block;
use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

/// Blocks that an ingest keeps: with their map entries about 14 KiB each, 28 MiB in all.
pub const BLOCKS_MAX: usize = 2048;

/// The blocks that were needed lately.
pub struct Tables {
    objects: Arc<dyn Objects>,
    catalog: Arc<Catalog>,
    suspects: Suspects,
    blocks_max: usize,
    near: HashMap<Hash, Location>,
    blocks: VecDeque<(PackNumber, u32, Block)>,
}

impl Tables {
    /// Empty, over the packs live in `catalog`, with at most so many blocks. What only `suspects` hold is not proved.
    pub fn new(
        objects: Arc<dyn Objects>,
        catalog: Arc<Catalog>,
        suspects: Suspects,
        blocks_max: usize,
    ) -> Self {
        Self {
            objects,
            catalog,
            suspects,
            blocks_max,
            near: HashMap::new(),
            blocks: VecDeque::new(),
        }
    }

    /// The live packs are now those of `catalog`.
    pub fn follow(&mut self, catalog: Arc<Catalog>) {
        self.catalog = catalog;
    }

    /// The catalog that is followed.
    pub fn catalog(&self) -> &Arc<Catalog> {
        &self.catalog
    }

    /// A place in a live pack among the loaded blocks that list the hash.
    pub fn near(&self, hash: &Hash) -> Option<(PackName, Location)> {
        let at = self.near.get(hash)?;
        let pack = self.catalog.pack_numbered(at.pack)?;
        Some((pack.name, *at))
    }

    /// Never answers with this frame again.
    pub fn avoid(&mut self, pack: PackName, at: Location) {
        self.suspects.add(pack, at.offset);
        self.near
            .retain(|_, near| (near.pack, near.offset) != (at.pack, at.offset));
    }

    /// A live pack that lists the hash: tries the hints one by one and believes only the packs' own tables.
    pub fn prove(
        &mut self,
        hash: &Hash,
        hints: impl Iterator<Item = Place>,
    ) -> Result<Option<PackName>> {
        if let Some((name, _)) = self.near(hash) {
            return Ok(Some(name));
        }
        for hint in hints {
            let Some(wanted) = self.wanted(hint) else {
                continue;
            };
            let Some(block) = wanted.read(&*self.objects)? else {
                continue;
            };
            self.add(&wanted, block);
            if let Some((name, _)) = self.near(hash) {
                return Ok(Some(name));
            }
        }
        Ok(None)
    }

    /// The block that a hint speaks of, unless it is loaded already or there is no such live pack of clusters: the index
    /// knows nodes too, and somebody who lies may give a node's hash for that of a cluster.
    pub fn wanted(&self, hint: Place) -> Option<Wanted> {
        let block = hint.entry / BLOCK_STRIDE;
        let pack = self.catalog.pack_numbered(hint.pack)?;
        let clusters = pack.record.kind == PackKind::Clusters;
        let there = block < pack.record.blocks && !self.has(hint.pack, block);
        (clusters && there).then(|| Wanted {
            pack: pack.clone(),
            block,
        })
    }

    fn has(&self, pack: PackNumber, block: u32) -> bool {
        let mut loaded = self.blocks.iter();
        loaded.any(|(p, b, _)| (*p, *b) == (pack, block))
    }

    /// Takes a block that was read; the oldest goes when there are too many.
    pub fn add(&mut self, of: &Wanted, block: Block) {
        let (number, name) = (of.pack.number, of.pack.name);
        if self.has(number, of.block) {
            return;
        }
        if self.blocks.len() >= self.blocks_max
            && let Some((old, _, gone)) = self.blocks.pop_front()
        {
            for hash in gone.hashes() {
                if self.near.get(hash).is_some_and(|at| at.pack == old) {
                    self.near.remove(hash);
                }
            }
        }
        let good = |at: FrameRef| !self.suspects.hold(&name, at.offset);
        let listed = block.entries().filter(|(_, _, at, _)| good(*at));
        self.near
            .extend(listed.map(|(_, hash, at, item)| (*hash, Location::new(number, at, item))));
        self.blocks.push_back((number, of.block, block));
    }
}

/// A table block that is worth reading. Reading it needs no `Tables`, so that nobody waits for the disk with them.
pub struct Wanted {
    pack: Arc<PackState>,
    block: u32,
}

impl Wanted {
    /// `None` where it cannot be read: the hint is then worth nothing.
    pub fn read(&self, objects: &dyn Objects) -> Result<Option<Block>> {
        let record = &self.pack.record;
        readable(read_block(objects, self.pack.name, record, self.block))
    }
}
