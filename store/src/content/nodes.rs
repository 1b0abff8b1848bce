//! Manifest nodes from node packs. Nodes are few (one for 16 clusters and a few above), so the places of all of them are
//! held in memory, 32 bytes each, and frames of nodes within a budget.

use crate::catalog::Catalog;
use crate::codec::{DecodedFrame, decode_frame};
use crate::content::resolve::{Location, readable};
use crate::error::{Error, Result};
use crate::format::entry::PackKind;
use crate::format::manifest::Node;
use crate::id::{Hash, PackName, PackNumber};
use crate::index::{Key, key_of};
use crate::log::Log;
use crate::manifest::NodeSource;
use crate::object::Objects;
use crate::pack::reader::read_frame;
use crate::pack::table::Table;
use std::collections::{BTreeSet, HashMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};

/// Frames of nodes kept: 64 KiB each, 16 MiB in all.
const FRAMES_MAX: usize = 256;

/// Times that a node is looked for anew because packs were dropped meanwhile.
const TRIES: usize = 8;

/// Reads nodes of live packs. Starts from one catalog; where a node is not to be had in it, the newest one is followed.
pub struct Nodes<'a> {
    log: &'a Log,
    objects: Arc<dyn Objects>,
    cluster_bytes: u32,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// Counted up when the packs change.
    generation: u64,
    /// Packs whose tables are in `places`, or were unreadable.
    packs: HashMap<PackNumber, PackName>,
    /// Sorted by key; several copies of a node may follow each other.
    places: Vec<(Key, Location)>,
    frames: HashMap<(PackNumber, u32), Arc<DecodedFrame>>,
    oldest: VecDeque<(PackNumber, u32)>,
}

impl<'a> Nodes<'a> {
    /// Over the node packs live in `catalog`, one of `log`.
    pub fn new(
        log: &'a Log,
        objects: Arc<dyn Objects>,
        catalog: &Catalog,
        cluster_bytes: u32,
    ) -> Result<Self> {
        let nodes = Self {
            log,
            objects,
            cluster_bytes,
            state: Mutex::new(State::default()),
        };
        nodes.follow(catalog)?;
        Ok(nodes)
    }

    /// Adds the packs that became live and forgets those that no longer are.
    pub fn follow(&self, catalog: &Catalog) -> Result<()> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let live: BTreeSet<PackNumber> = catalog
            .packs()
            .filter(|p| p.record.kind == PackKind::Nodes)
            .map(|p| p.number)
            .collect();
        let had = state.packs.len();
        state.packs.retain(|number, _| live.contains(number));
        if state.packs.len() < had {
            state.generation += 1;
            state.places.retain(|(_, at)| live.contains(&at.pack));
            state.frames.retain(|(pack, _), _| live.contains(pack));
            state.oldest.retain(|(pack, _)| live.contains(pack));
        }
        let before = state.places.len();
        for pack in catalog.packs().filter(|p| p.record.kind == PackKind::Nodes) {
            if state.packs.insert(pack.number, pack.name).is_some() {
                continue;
            }
            state.generation += 1;
            let table = readable(Table::read(&*self.objects, pack.name, &pack.record))?;
            let entries = table.iter().flat_map(Table::entries);
            state.places.extend(
                entries.map(|(_, hash, at, item)| {
                    (key_of(hash), Location::new(pack.number, at, item))
                }),
            );
        }
        if state.places.len() > before {
            state.places.sort_unstable();
        }
        Ok(())
    }

    /// A live pack that holds this node, its bytes checked.
    pub fn holder(&self, hash: &Hash) -> Option<PackName> {
        self.bytes_followed(hash).ok()?;
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let at = state.candidates(hash).next()?;
        state.packs.get(&at.pack).copied()
    }

    /// Bytes of an item of a node pack, verified. Not there only when no pack that is live now has it.
    pub fn bytes(&self, hash: &Hash) -> Result<Vec<u8>> {
        let mut tries = 0;
        loop {
            // Another thread may follow between the try and the answer: then that counts as a change too.
            let before = self.generation();
            let failed = match self.bytes_followed(hash) {
                Ok(bytes) => return Ok(bytes),
                Err(e) => e,
            };
            self.follow(&*self.log.refresh()?)?;
            if tries == TRIES || self.generation() == before {
                return Err(failed);
            }
            tries += 1;
        }
    }

    fn generation(&self) -> u64 {
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.generation
    }

    fn bytes_followed(&self, hash: &Hash) -> Result<Vec<u8>> {
        let candidates: Vec<Location> = {
            let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
            state.candidates(hash).collect()
        };
        let mut last = None;
        for at in candidates {
            match self.frame(at) {
                Ok(frame) => match frame.item(usize::from(at.item)) {
                    Some(bytes) if Hash::of(bytes) == *hash => return Ok(bytes.to_vec()),
                    _ => {}
                },
                Err(e) => last = Some(e),
            }
        }
        Err(last.unwrap_or_else(|| {
            Error::corrupt(
                "reading a manifest node",
                format!("no live pack holds node {hash}"),
            )
        }))
    }

    fn frame(&self, at: Location) -> Result<Arc<DecodedFrame>> {
        let (name, cached) = {
            let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
            (
                state.packs.get(&at.pack).copied(),
                state.frames.get(&(at.pack, at.offset)).cloned(),
            )
        };
        if let Some(frame) = cached {
            return Ok(frame);
        }
        let name = name.ok_or_else(|| {
            Error::new(crate::ErrorKind::Busy, "reading a manifest node")
                .detail("its pack was dropped meanwhile")
        })?;
        let bytes = read_frame(&*self.objects, name, at.frame())?;
        let frame = decode_frame(PackKind::Nodes, self.cluster_bytes, &bytes).map_err(|e| {
            e.at(self.objects.describe(&name.key()))
                .offset(u64::from(at.offset))
        })?;
        let frame = Arc::new(frame);
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if state.oldest.len() == FRAMES_MAX
            && let Some(old) = state.oldest.pop_front()
        {
            state.frames.remove(&old);
        }
        if state
            .frames
            .insert((at.pack, at.offset), frame.clone())
            .is_none()
        {
            state.oldest.push_back((at.pack, at.offset));
        }
        Ok(frame)
    }
}

impl State {
    fn candidates(&self, hash: &Hash) -> impl Iterator<Item = Location> + '_ {
        let key = key_of(hash);
        let from = self.places.partition_point(|(k, _)| *k < key);
        self.places[from..]
            .iter()
            .take_while(move |(k, _)| *k == key)
            .map(|(_, at)| *at)
    }
}

impl NodeSource for Nodes<'_> {
    fn node(&self, hash: &Hash) -> Result<Arc<Node>> {
        let bytes = self.bytes(hash)?;
        Node::decode(&bytes).map(Arc::new)
    }
}
