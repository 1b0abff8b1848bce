//! Manifest nodes from node packs. Nodes are few (one for 16 clusters and a few above), so the places of those in the packs
//! that were looked into are held in memory, 32 bytes each, and frames of nodes within a budget.
//!
//! A pack is looked into when the index says that it has what is wanted, or, since the index may be wrong or gone, when no
//! other has it: then the newest first.

use crate::catalog::{Catalog, PackState};
use crate::codec::{DecodedFrame, decode_frame};
use crate::content::places::NodePlaces;
use crate::content::resolve::{Location, readable};
use crate::error::{Error, ErrorKind, Result};
use crate::format::entry::PackKind;
use crate::format::manifest::Node;
use crate::id::{Hash, PackName, PackNumber};
use crate::index::keeper::Keeper;
use crate::index::{Place, key_of};
use crate::log::Log;
use crate::manifest::NodeSource;
use crate::object::Objects;
use crate::pack::reader::read_frame;
use crate::pack::table::Table;
use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
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
    index: &'a Keeper,
    objects: Arc<dyn Objects>,
    cluster_bytes: u32,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// That of the catalog that is followed.
    seq: u64,
    /// Counted up when the packs change.
    generation: u64,
    /// Counted up with each pack that was looked into.
    looked: u64,
    /// Packs that were not looked into.
    unread: BTreeMap<PackNumber, Arc<PackState>>,
    /// Packs whose tables are in `places`, or were unreadable.
    packs: HashMap<PackNumber, PackName>,
    places: NodePlaces,
    frames: HashMap<(PackNumber, u32), Arc<DecodedFrame>>,
    oldest: VecDeque<(PackNumber, u32)>,
}

impl<'a> Nodes<'a> {
    /// Over the node packs live in `catalog`, one of `log`. None is looked into yet.
    pub fn new(
        (log, index): (&'a Log, &'a Keeper),
        objects: Arc<dyn Objects>,
        catalog: &Catalog,
        cluster_bytes: u32,
    ) -> Self {
        let unread = node_packs(catalog).map(|p| (p.number, p.clone())).collect();
        let state = State {
            unread,
            seq: catalog.seq(),
            ..State::default()
        };
        Self {
            log,
            index,
            objects,
            cluster_bytes,
            state: Mutex::new(state),
        }
    }

    /// Adds the packs that became live and forgets those that no longer are. New ones are few: they are looked into.
    pub fn follow(&self, catalog: &Catalog) -> Result<()> {
        let new: Vec<Arc<PackState>> = {
            let mut state = self.lock();
            if catalog.seq() <= state.seq {
                return Ok(());
            }
            state.seq = catalog.seq();
            state.forget_all_but(&node_packs(catalog).map(|p| p.number).collect());
            let known = |p: &&Arc<PackState>| !state.knows(p.number);
            let new: Vec<_> = node_packs(catalog).filter(known).cloned().collect();
            state.generation += u64::from(!new.is_empty());
            state
                .unread
                .extend(new.iter().map(|p| (p.number, p.clone())));
            new
        };
        new.iter().try_for_each(|pack| self.look_into(pack))
    }

    /// Nobody who finds what he wants in memory waits for the disk with this.
    fn look_into(&self, pack: &PackState) -> Result<()> {
        let table = readable(Table::read(&*self.objects, pack.name, &pack.record))?;
        let entries = table.iter().flat_map(Table::entries);
        let places =
            entries.map(|(_, hash, at, item)| (key_of(hash), Location::new(pack.number, at, item)));
        let places = places.collect();
        let mut state = self.lock();
        // Another thread may have been faster, or the pack is not live any more.
        if state.unread.remove(&pack.number).is_some() {
            state.packs.insert(pack.number, pack.name);
            state.places.add(places);
        }
        state.looked += 1;
        Ok(())
    }

    /// Looks into the pack that the index names for this node; `false` where there is none that was not looked into.
    fn look_where_it_should_be(&self, hash: &Hash) -> Result<bool> {
        let hints = self.index.lookup(&key_of(hash));
        let unread = |at: Place| self.lock().unread.get(&at.pack).cloned();
        let named = hints.iter().find_map(unread);
        named.map_or(Ok(false), |pack| self.look_into(&pack).map(|()| true))
    }

    /// Looks into the newest pack of those left that can be read; `false` where none is left.
    fn look_further(&self) -> Result<bool> {
        let left: Vec<_> = self.lock().unread.values().rev().cloned().collect();
        let mut last = None;
        for pack in left {
            match self.look_into(&pack) {
                Ok(()) => return Ok(true),
                Err(e) => last = Some(e),
            }
        }
        last.map_or(Ok(false), Err)
    }

    /// A live pack that holds this node, its bytes checked. Where the index does not know it, and no pack that was looked into
    /// has it, none: who asks stores it then.
    pub fn holder(&self, hash: &Hash) -> Option<PackName> {
        let should_be = || self.look_where_it_should_be(hash);
        self.read_followed(hash, &should_be, |_, name| Ok(name))
            .ok()
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
            let anywhere = || Ok(self.look_where_it_should_be(hash)? || self.look_further()?);
            let failed = match self.read_followed(hash, &anywhere, |bytes, _| take(bytes)) {
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

    /// Gives the verified bytes of an item, and the pack that they are in, to `take`. While it is in no pack that was looked
    /// into, or not as it should be, `more` looks into another.
    fn read_followed<T>(
        &self,
        hash: &Hash,
        more: &dyn Fn() -> Result<bool>,
        take: impl Fn(&[u8], PackName) -> Result<T>,
    ) -> Result<T> {
        let mut tried = Vec::new();
        let mut last = None;
        loop {
            let (found, looked) = {
                let state = self.lock();
                (state.candidates(hash).collect::<Vec<Found>>(), state.looked)
            };
            for (at, name, cached) in found {
                if tried.contains(&at) {
                    continue;
                }
                tried.push(at);
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
            // Another thread may have looked into the last pack between the try and the answer.
            if !more()? && self.lock().looked == looked {
                break;
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

fn node_packs(catalog: &Catalog) -> impl Iterator<Item = &Arc<PackState>> {
    let packs = catalog.packs();
    packs.filter(|p| p.record.kind == PackKind::Nodes)
}

impl State {
    fn candidates(&self, hash: &Hash) -> impl Iterator<Item = Found> + '_ {
        self.places.of(key_of(hash)).filter_map(|at| {
            let name = *self.packs.get(&at.pack)?;
            let cached = self.frames.get(&(at.pack, at.offset)).cloned();
            Some((at, name, cached))
        })
    }

    fn knows(&self, pack: PackNumber) -> bool {
        self.packs.contains_key(&pack) || self.unread.contains_key(&pack)
    }

    fn forget_all_but(&mut self, live: &HashSet<PackNumber>) {
        let had = self.packs.len() + self.unread.len();
        self.packs.retain(|number, _| live.contains(number));
        self.unread.retain(|number, _| live.contains(number));
        if self.packs.len() + self.unread.len() < had {
            self.generation += 1;
            self.places.retain(|at| live.contains(&at.pack));
            self.frames.retain(|(pack, _), _| live.contains(pack));
            self.oldest.retain(|(pack, _)| live.contains(pack));
        }
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
