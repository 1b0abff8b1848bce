//! Single clusters by their hash, at random: the index says where one may be, one block of a pack's table proves it, and
//! of the frame only what is needed is decoded, and kept.
//!
//! Without an index, or where it is wrong, the tables of all packs are searched, for the wanted cluster and those around it.
//! What failed is looked up anew among the packs that are live by then; see `content::fetch`, which does the same for many.

use crate::catalog::Catalog;
use crate::codec::decode_clusters;
use crate::codec::spare;
use crate::content::frames::{FrameCache, KeptFrame};
use crate::content::resolve::{HashSet, Location, Resolver};
use crate::content::suspects::Suspects;
use crate::content::tables::Tables;
use crate::error::{Error, ErrorKind, Result};
use crate::format::entry::PackKind;
use crate::id::{Hash, PackName};
use crate::index::key_of;
use crate::pack::reader::{located, read_run};
use crate::store::Store;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Table blocks kept: with their map entries 14 KiB each, 7 MiB in all.
const BLOCKS_MAX: usize = 512;
/// Places kept of what was searched for in all tables: 64 bytes each, 16 MiB in all.
const SWEPT_MAX: usize = 256 << 10;
/// Times that a cluster is looked for because packs were dropped meanwhile.
const TRIES: usize = 8;

/// The hashes of clusters that will probably be wanted next, for whoever has to search far.
pub type Around<'a> = &'a dyn Fn() -> Result<Vec<Hash>>;

/// A cluster that is wanted.
#[derive(Clone, Copy)]
pub struct Wish<'a> {
    /// Its hash.
    pub hash: Hash,
    /// How many clusters behind it are wanted too; they probably stand behind it in the frame.
    pub more: usize,
    /// What is around it.
    pub around: Around<'a>,
}

/// See the module. All calls may come from several threads; nobody waits for the disk with a lock that a hit needs.
pub struct Clusters<'a> {
    store: &'a Store,
    frames: FrameCache,
    tables: Mutex<Tables>,
    swept: Mutex<Swept<'a>>,
}

/// What searching all tables has brought. Locked while that goes on.
struct Swept<'a> {
    resolver: Resolver<'a>,
    places: HashMap<Hash, Location>,
}

impl<'a> Clusters<'a> {
    /// Over the packs live in `catalog`; brings the index in step with them.
    pub fn new(store: &'a Store, catalog: &Arc<Catalog>, cache_bytes: usize) -> Result<Self> {
        store.index_packs(catalog)?;
        Ok(Self {
            store,
            frames: FrameCache::new(cache_bytes),
            tables: Mutex::new(tables(store, catalog)),
            swept: Mutex::new(swept(store, catalog)),
        })
    }

    /// The live packs are now those of `catalog`.
    pub fn follow(&self, catalog: &Arc<Catalog>) -> Result<()> {
        let mut swept = lock(&self.swept);
        if self.tables().catalog().seq() >= catalog.seq() {
            return Ok(());
        }
        self.store.index_packs(catalog)?;
        swept.resolver.follow(catalog, PackKind::Clusters);
        let live = |at: &Location| catalog.pack_numbered(at.pack).is_some();
        swept.places.retain(|_, at| live(at));
        self.tables().follow(catalog.clone());
        Ok(())
    }

    /// Gives the verified bytes of the cluster to `take`. `Corrupt` only when no live pack yields them.
    pub fn read(&self, wish: Wish<'_>, take: &mut dyn FnMut(&[u8])) -> Result<()> {
        let mut last = None;
        for _ in 0..TRIES {
            let seen = self.tables().catalog().clone();
            while let Some((name, at)) = self.locate(&wish)? {
                match self.cluster(name, at, &wish) {
                    Ok(frame) => {
                        let bytes = frame.proven(usize::from(at.item), &wish.hash);
                        take(bytes.unwrap_or_default());
                        return Ok(());
                    }
                    Err(e) if is_damage(&e) => {
                        self.avoid(name, at);
                        last = Some(e);
                        // Its pack may have been rewritten: where to is known now.
                        self.follow(&self.store.refresh()?)?;
                    }
                    Err(e) => return Err(e),
                }
            }
            if self.store.log.still_holds(&seen)? {
                break;
            }
            self.follow(&self.store.catalog())?;
        }
        self.start_over();
        let why = || format!("no live pack lists cluster {}", wish.hash);
        Err(last.unwrap_or_else(|| Error::corrupt("reading a cluster", why())))
    }

    /// Bytes of decoded frames that are kept now.
    pub fn cached_bytes(&self) -> usize {
        self.frames.bytes()
    }

    /// The same if that takes no reading and no decoding; `false` otherwise, and for bytes that are not what they should be.
    pub fn read_cached(&self, hash: &Hash, take: &mut dyn FnMut(&[u8])) -> bool {
        let Some((name, at)) = self.tables().near(hash) else {
            return false;
        };
        let item = usize::from(at.item);
        let frame = self.frames.held((name, at.offset), item);
        match frame.as_ref().and_then(|frame| frame.proven(item, hash)) {
            Some(bytes) => take(bytes),
            None => return false,
        }
        true
    }

    /// Decodes the frame with the cluster in it, unless it is the one in `last`, which it becomes. What is not to be had
    /// is left to the read to complain about.
    pub fn prefetch(&self, wish: &Wish<'_>, last: &mut Option<(PackName, u32)>) -> Result<()> {
        let Some((name, at)) = self.locate(wish)? else {
            return Ok(());
        };
        let key = (name, at.offset);
        if last.replace(key) == Some(key) {
            return Ok(());
        }
        let item = usize::from(at.item);
        match self.frame(name, at, item, wish.more) {
            Err(e) if !is_damage(&e) => Err(e),
            _ => Ok(()),
        }
    }

    fn tables(&self) -> MutexGuard<'_, Tables> {
        lock(&self.tables)
    }

    fn locate(&self, wish: &Wish<'_>) -> Result<Option<(PackName, Location)>> {
        let near = self.tables().near(&wish.hash);
        if near.is_some() {
            return Ok(near);
        }
        for hint in self.store.keeper.lookup(&key_of(&wish.hash)).iter() {
            let wanted = self.tables().wanted(hint);
            if let Some(wanted) = wanted
                && let Some(block) = wanted.read(&*self.store.objects)?
            {
                self.tables().add(&wanted, block);
            }
            // Also when somebody else has just loaded the block.
            let near = self.tables().near(&wish.hash);
            if near.is_some() {
                return Ok(near);
            }
        }
        self.sweep(wish)
    }

    fn sweep(&self, wish: &Wish<'_>) -> Result<Option<(PackName, Location)>> {
        let mut swept = lock(&self.swept);
        if !swept.places.contains_key(&wish.hash) {
            let mut hashes = (wish.around)()?;
            hashes.push(wish.hash);
            let set = HashSet::new(hashes);
            let found = swept.resolver.find(&set)?;
            if swept.places.len() + found.len() > SWEPT_MAX {
                swept.places.clear();
            }
            let found = set.hashes().iter().zip(found);
            swept
                .places
                .extend(found.filter_map(|(hash, at)| Some((*hash, at?))));
        }
        let at = swept.places.get(&wish.hash).copied();
        let tables = self.tables();
        let name = |at: Location| Some((tables.catalog().pack_numbered(at.pack)?.name, at));
        Ok(at.and_then(name))
    }

    /// The frame with the cluster in it, verified.
    fn cluster(&self, name: PackName, at: Location, wish: &Wish<'_>) -> Result<Arc<KeptFrame>> {
        let item = usize::from(at.item);
        let frame = self.frame(name, at, item, wish.more)?;
        if frame.proven(item, &wish.hash).is_some() {
            return Ok(frame);
        }
        self.frames.forget((name, at.offset));
        let e = Error::corrupt("reading a cluster", "its bytes do not have its hash");
        Err(located(e, &*self.store.objects, name, at.frame()))
    }

    /// A frame with at least `item` and, where it must be decoded, `more` behind it.
    fn frame(
        &self,
        name: PackName,
        at: Location,
        item: usize,
        more: usize,
    ) -> Result<Arc<KeptFrame>> {
        let objects = &*self.store.objects;
        let size = self.store.geometry().cluster_bytes;
        let mut load = |items| {
            let bytes = read_run(objects, name, &[at.frame()], spare::take())?.into_bytes();
            // The frame is kept, so that it gets memory of its own.
            let frame = decode_clusters(size, &bytes, items, Vec::new());
            spare::give(bytes);
            frame.map_err(|e| located(e, objects, name, at.frame()))
        };
        let first = item.saturating_add(1).saturating_add(more);
        self.frames.get((name, at.offset), item, first, &mut load)
    }

    /// Another copy is wanted.
    fn avoid(&self, name: PackName, at: Location) {
        let mut swept = lock(&self.swept);
        swept.resolver.avoid(at);
        swept
            .places
            .retain(|_, place| (place.pack, place.offset) != (at.pack, at.offset));
        self.tables().avoid(name, at);
    }

    /// What was bad once is tried again by the next read: it may have been the cable.
    fn start_over(&self) {
        let mut swept_now = lock(&self.swept);
        let mut now = self.tables();
        let catalog = now.catalog().clone();
        *swept_now = swept(self.store, &catalog);
        *now = tables(self.store, &catalog);
    }
}

fn tables(store: &Store, catalog: &Arc<Catalog>) -> Tables {
    let none = Suspects::default();
    Tables::new(store.objects.clone(), catalog.clone(), none, BLOCKS_MAX)
}

fn swept<'a>(store: &'a Store, catalog: &Catalog) -> Swept<'a> {
    Swept {
        resolver: store.resolver(catalog),
        places: HashMap::new(),
    }
}

fn is_damage(e: &Error) -> bool {
    use ErrorKind::{Corrupt, LimitExceeded, NotFound};
    matches!(e.kind(), Corrupt | NotFound | LimitExceeded)
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
