//! The face of the engine: a store that is open. One line into each verb of `ops`.

use crate::catalog::Catalog;
use crate::error::{Error, ErrorKind, Result};
use crate::format::entry::{Op, SessionKind};
use crate::format::store::StoreFile;
use crate::geometry::Geometry;
use crate::id::{PackName, PackNumber, Uid};
use crate::index::keeper::{CatchUp, Keeper};
use crate::index::{IndexHome, Key, key_of};
use crate::log::Log;
use crate::object::{Local, Objects, Purse, Put, get_whole};
use crate::pack::table::Table;
use crate::tuning::Tuning;
use crate::world::World;
use std::sync::Arc;

/// Key of the file that names and measures the store.
pub const STORE_FILE: &str = "store.json";
const STORE_FILE_BYTES_MAX: u64 = 64 << 10;

/// Times that something is begun anew because packs were dropped under it.
const SETTLE_TRIES: usize = 8;

pub use crate::index::keeper::Say;

/// What a store stands on.
#[derive(Clone)]
pub struct Doors {
    /// Where everything is.
    pub objects: Arc<dyn Objects>,
    /// Locks and notes of this host.
    pub local: Arc<dyn Local>,
    /// Where the index is.
    pub index: Arc<dyn IndexHome>,
    /// Clock, dice and name.
    pub world: Arc<dyn World>,
    /// Lines for the user.
    pub say: Say,
}

/// An open store.
pub struct Store {
    pub(crate) objects: Arc<dyn Objects>,
    pub(crate) local: Arc<dyn Local>,
    pub(crate) world: Arc<dyn World>,
    pub(crate) log: Log,
    pub(crate) keeper: Keeper,
    pub(crate) say: Say,
    pub(crate) tuning: Tuning,
    file: StoreFile,
}

/// Whether a pack that is no longer there can be the reason.
pub(crate) fn may_be_dropped(e: &Error) -> bool {
    matches!(
        e.kind(),
        ErrorKind::NotFound | ErrorKind::Corrupt | ErrorKind::Busy
    )
}

/// Reads `store.json`.
pub fn read_store_file(objects: &dyn Objects) -> Result<StoreFile> {
    let at = objects.describe(STORE_FILE);
    let bytes =
        get_whole(objects, STORE_FILE, STORE_FILE_BYTES_MAX).map_err(|e| match e.kind() {
            ErrorKind::NotFound => Error::new(ErrorKind::NotFound, "opening the store")
                .at(&at)
                .detail("there is no store here")
                .hint("make one with `still init`, or name another with --store"),
            _ => e,
        })?;
    StoreFile::decode(&bytes).map_err(|e| e.at(at))
}

impl Store {
    /// Writes `store.json` where there is none: from then on this is a store.
    pub fn create(
        objects: &dyn Objects,
        world: &dyn World,
        geometry: Geometry,
    ) -> Result<StoreFile> {
        let file = StoreFile {
            id: Uid(world.random()),
            geometry: geometry.check()?,
        };
        match objects.put_new(STORE_FILE, &[&file.encode()], Purse::Free)? {
            Put::Created => objects.sync("").map(|()| file),
            Put::Exists => Err(Error::new(ErrorKind::AlreadyExists, "making a store")
                .at(objects.describe(STORE_FILE))
                .detail("there is a store already")),
        }
    }

    /// Opens the store behind `doors`: reads `store.json` and folds the log. Changes nothing.
    pub fn open(doors: Doors) -> Result<Self> {
        Self::open_tuned(doors, Tuning::default())
    }

    /// The same with other sizes and intervals: for tests.
    pub fn open_tuned(doors: Doors, tuning: Tuning) -> Result<Self> {
        let Doors {
            objects,
            local,
            index,
            world,
            say,
        } = doors;
        let file = read_store_file(&*objects)?;
        let log = Log::open_with(objects.clone(), local.clone(), world.clone(), tuning.log)?;
        let keeper = Keeper::new(index, say.clone());
        Ok(Self {
            objects,
            local,
            world,
            log,
            keeper,
            say,
            tuning,
            file,
        })
    }

    /// Its random name.
    pub fn id(&self) -> Uid {
        self.file.id
    }

    /// How it cuts and compresses.
    pub fn geometry(&self) -> Geometry {
        self.file.geometry
    }

    /// What exists, as folded last.
    pub fn catalog(&self) -> Arc<Catalog> {
        self.log.current()
    }

    /// What exists now.
    pub fn refresh(&self) -> Result<Arc<Catalog>> {
        self.log.refresh()
    }

    /// Whether anything can be written.
    pub fn is_read_only(&self) -> bool {
        self.objects.is_read_only()
    }

    /// Where the store is, for messages.
    pub fn describe(&self) -> String {
        self.objects.describe("")
    }

    /// The moment, by the store's clock.
    pub fn now(&self) -> crate::world::Moment {
        self.world.now()
    }

    /// A line for the user.
    pub fn say(&self, line: &str) {
        (self.say)(line);
    }

    /// A fresh random name.
    pub fn new_uid(&self) -> Uid {
        Uid(self.world.random())
    }

    /// One durable entry that stores nothing new. `plan` is asked again for each state that it is tried on.
    pub fn commit(
        &self,
        kind: SessionKind,
        purse: Purse,
        plan: &mut dyn FnMut(&Catalog) -> Result<Vec<Op>>,
    ) -> Result<()> {
        self.log
            .commit_alone(kind, purse, &mut |catalog, _| plan(catalog))
            .map(|_| ())
    }

    /// Ends the sessions of processes that died.
    pub fn expire_dead(&self) -> Result<usize> {
        Ok(self.log.expire_dead()?.len())
    }

    /// Does `act` on what exists now, and again where packs were dropped under it: what failed then proves nothing.
    pub(crate) fn on_settled<T>(
        &self,
        mut act: impl FnMut(&Arc<Catalog>) -> Result<T>,
    ) -> Result<T> {
        for _ in 0..SETTLE_TRIES {
            let catalog = self.refresh()?;
            match act(&catalog) {
                Err(e) if may_be_dropped(&e) && !self.log.still_holds(&catalog)? => {}
                done => return done,
            }
        }
        Err(Error::new(ErrorKind::Busy, "reading the store")
            .at(self.describe())
            .detail("packs are being dropped as fast as they are read")
            .hint("wait for the other gc to end, then try again"))
    }

    /// Brings the index in step with the live packs.
    pub(crate) fn index_packs(&self, catalog: &Catalog) -> Result<CatchUp> {
        let live: Vec<(PackNumber, PackName)> =
            catalog.packs().map(|p| (p.number, p.name)).collect();
        self.keeper
            .catch_up(&live, &mut |name| self.index_entries(catalog, name))
    }

    /// What the index holds of a pack.
    pub(crate) fn index_entries(
        &self,
        catalog: &Catalog,
        name: &PackName,
    ) -> Result<Vec<(Key, u32)>> {
        let pack = catalog.pack(name).ok_or_else(|| {
            Error::new(ErrorKind::NotFound, "indexing a pack")
                .at(name)
                .detail("it is not live")
        })?;
        let table = Table::read(&*self.objects, *name, &pack.record)?;
        Ok(table
            .entries()
            .map(|(entry, hash, ..)| (key_of(hash), entry))
            .collect())
    }
}
