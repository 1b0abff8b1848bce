//! Proof that a pack lists a hash: table blocks on demand, kept within a budget. A loaded block brings its neighbours,
//! so that a run of known clusters costs one block and asks the index once.

use crate::catalog::Catalog;
use crate::content::suspects::Suspects;
use crate::error::Result;
use crate::format::pack::{BLOCK_STRIDE, Block, FrameRef};
use crate::id::{Hash, PackName, PackNumber};
use crate::index::Place;
use crate::object::Objects;
use crate::pack::table::read_block;
use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

/// Blocks kept: with their map entries about 12 KiB each, 24 MiB in all.
const BLOCKS_MAX: usize = 2048;

/// The blocks that were needed lately.
pub struct Tables {
    objects: Arc<dyn Objects>,
    catalog: Arc<Catalog>,
    suspects: Suspects,
    near: HashMap<Hash, PackNumber>,
    blocks: VecDeque<(PackNumber, u32, Block)>,
}

impl Tables {
    /// Empty, over the packs live in `catalog`. What only `suspects` hold is not proved.
    pub fn new(objects: Arc<dyn Objects>, catalog: Arc<Catalog>, suspects: Suspects) -> Self {
        Self {
            objects,
            catalog,
            suspects,
            near: HashMap::new(),
            blocks: VecDeque::new(),
        }
    }

    /// The live packs are now those of `catalog`.
    pub fn follow(&mut self, catalog: Arc<Catalog>) {
        self.catalog = catalog;
    }

    /// A live pack among the loaded blocks that lists the hash.
    pub fn near(&self, hash: &Hash) -> Option<PackName> {
        self.near
            .get(hash)
            .and_then(|n| self.catalog.pack_numbered(*n))
            .map(|p| p.name)
    }

    /// A live pack that lists the hash: tries the hints one by one and believes only the packs' own tables.
    pub fn prove(
        &mut self,
        hash: &Hash,
        hints: impl Iterator<Item = Place>,
    ) -> Result<Option<PackName>> {
        if let Some(name) = self.near(hash) {
            return Ok(Some(name));
        }
        for hint in hints {
            let block = hint.entry / BLOCK_STRIDE;
            if self
                .blocks
                .iter()
                .any(|(p, b, _)| (*p, *b) == (hint.pack, block))
            {
                continue;
            }
            if self.load(hint.pack, block)?
                && let Some(name) = self.near(hash)
            {
                return Ok(Some(name));
            }
        }
        Ok(None)
    }

    /// False where there is no such live pack or its block cannot be read: the hint is then worth nothing.
    fn load(&mut self, pack: PackNumber, block: u32) -> Result<bool> {
        let Some(state) = self.catalog.pack_numbered(pack) else {
            return Ok(false);
        };
        if block >= state.record.blocks {
            return Ok(false);
        }
        let read = read_block(&*self.objects, state.name, &state.record, block);
        let Some(loaded) = super::resolve::readable(read)? else {
            return Ok(false);
        };
        if self.blocks.len() == BLOCKS_MAX
            && let Some((old, _, gone)) = self.blocks.pop_front()
        {
            for hash in gone.hashes() {
                if self.near.get(hash) == Some(&old) {
                    self.near.remove(hash);
                }
            }
        }
        let name = state.name;
        let good = |at: FrameRef| !self.suspects.hold(&name, at.offset);
        let listed = loaded.entries().filter(|(_, _, at, _)| good(*at));
        self.near.extend(listed.map(|(_, hash, ..)| (*hash, pack)));
        self.blocks.push_back((pack, block, loaded));
        Ok(true)
    }
}
