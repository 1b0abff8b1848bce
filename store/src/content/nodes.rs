//! Manifest nodes from node packs. Nodes are few (one for 16 clusters and a few above), so the places of all of them are
//! held in memory, 32 bytes each, and frames of nodes within a budget.

use crate::catalog::Catalog;
use crate::codec::{DecodedFrame, decode_frame};
use crate::content::resolve::{Location, readable};
use crate::error::{Error, ErrorKind, Result};
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
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Frames of nodes kept: 64 KiB each, 16 MiB in all.
const FRAMES_MAX: usize = 256;

/// A place of an item, its pack, and its frame if that is in memory.
type Found = (Location, PackName, Option<Arc<DecodedFrame>>);

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
        let mut state = self.lock();
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
        self.read_followed(hash, |_, name| Ok(name)).ok()
    }

    /// Bytes of an item of a node pack, verified. Not there only when no pack that is live now has it.
    pub fn bytes(&self, hash: &Hash) -> Result<Vec<u8>> {
        self.read(hash, |bytes| Ok(bytes.to_vec()))
    }

    /// A source of those nodes alone that take no reading; `Busy` for others.
    pub fn in_memory(&self) -> InMemory<'_, 'a> {
        InMemory(self)
    }

    fn read<T>(&self, hash: &Hash, take: impl Fn(&[u8]) -> Result<T>) -> Result<T> {
        let mut tries = 0;
        loop {
            // Another thread may follow between the try and the answer: then that counts as a change too.
            let before = self.lock().generation;
            let failed = match self.read_followed(hash, |bytes, _| take(bytes)) {
                Ok(taken) => return Ok(taken),
                Err(e) => e,
            };
            self.follow(&*self.log.refresh()?)?;
            if tries == TRIES || self.lock().generation == before {
                return Err(failed);
            }
            tries += 1;
        }
    }

    /// Gives the verified bytes of an item, and the pack that they are in, to `take`.
    fn read_followed<T>(
        &self,
        hash: &Hash,
        take: impl Fn(&[u8], PackName) -> Result<T>,
    ) -> Result<T> {
        let found: Vec<Found> = self.lock().candidates(hash).collect();
        let mut last = None;
        for (at, name, cached) in found {
            let frame = match cached.map_or_else(|| self.load(at, name), Ok) {
                Ok(frame) => frame,
                Err(e) => {
                    last = Some(e);
                    continue;
                }
            };
            match frame.item(usize::from(at.item)) {
                Some(bytes) if Hash::of(bytes) == *hash => return take(bytes, name),
                _ => {}
            }
        }
        Err(last.unwrap_or_else(|| {
            Error::corrupt(
                "reading a manifest node",
                format!("no live pack holds node {hash}"),
            )
        }))
    }

    fn load(&self, at: Location, name: PackName) -> Result<Arc<DecodedFrame>> {
        let bytes = read_frame(&*self.objects, name, at.frame())?;
        let frame = decode_frame(PackKind::Nodes, self.cluster_bytes, &bytes).map_err(|e| {
            e.at(self.objects.describe(&name.key()))
                .offset(u64::from(at.offset))
        })?;
        let frame = Arc::new(frame);
        self.lock().keep((at.pack, at.offset), frame.clone());
        Ok(frame)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn candidates(&self, hash: &Hash) -> impl Iterator<Item = Found> + '_ {
        let key = key_of(hash);
        let from = self.places.partition_point(|(k, _)| *k < key);
        self.places[from..]
            .iter()
            .take_while(move |(k, _)| *k == key)
            .filter_map(|(_, at)| {
                let name = *self.packs.get(&at.pack)?;
                let cached = self.frames.get(&(at.pack, at.offset)).cloned();
                Some((*at, name, cached))
            })
    }

    fn keep(&mut self, at: (PackNumber, u32), frame: Arc<DecodedFrame>) {
        // Its pack may have been dropped while the frame was read.
        if !self.packs.contains_key(&at.0) || self.frames.insert(at, frame).is_some() {
            return;
        }
        self.oldest.push_back(at);
        if self.oldest.len() > FRAMES_MAX
            && let Some(old) = self.oldest.pop_front()
        {
            self.frames.remove(&old);
        }
    }
}

impl NodeSource for Nodes<'_> {
    fn node(&self, hash: &Hash) -> Result<Arc<Node>> {
        self.read(hash, |bytes| Node::decode(bytes).map(Arc::new))
    }
}

/// See [`Nodes::in_memory`].
pub struct InMemory<'n, 'a>(&'n Nodes<'a>);

impl NodeSource for InMemory<'_, '_> {
    fn node(&self, hash: &Hash) -> Result<Arc<Node>> {
        let found: Vec<Found> = self.0.lock().candidates(hash).collect();
        for (at, _, frame) in found {
            if let Some(bytes) = frame.as_ref().and_then(|f| f.item(usize::from(at.item)))
                && Hash::of(bytes) == *hash
            {
                return Node::decode(bytes).map(Arc::new);
            }
        }
        Err(Error::new(ErrorKind::Busy, "reading a manifest node").detail("it is not in memory"))
    }
}
