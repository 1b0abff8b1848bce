//! The log: numbered, immutable entries, each created once; folding them gives the catalog. Section 3.2 of the design has
//! the rules, `catalog::Rules` names those that a test can switch off.
//!
//! The same code serves threads, processes and, over an object store, hosts: the only atomic step is *create if absent*.

mod append;
mod checkpoint;
mod fold;
pub mod salvage;
mod session;

pub use append::{Durability, invalid, is_unclear};
pub use session::Session;

use crate::catalog::{Catalog, Rules};
use crate::error::Result;
use crate::id::Sequence;
use crate::limits::{CHECKPOINT_EVERY, ENTRIES_KEPT};
use crate::object::{Local, Objects};
use crate::world::World;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Folder of the entries.
const LOG: &str = "log";
/// Folder of the checkpoints.
const CHECKPOINT: &str = "checkpoint";

/// What tests turn.
#[derive(Debug, Clone, Copy)]
pub struct Options {
    /// Entries between checkpoints.
    pub checkpoint_every: u64,
    /// Entries kept however old the checkpoints are.
    pub entries_kept: u64,
    /// The rules that hold.
    pub rules: Rules,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            checkpoint_every: CHECKPOINT_EVERY,
            entries_kept: ENTRIES_KEPT,
            rules: Rules::default(),
        }
    }
}

/// An open log: the catalog as folded last, and the way to add to it.
pub struct Log {
    objects: Arc<dyn Objects>,
    local: Arc<dyn Local>,
    world: Arc<dyn World>,
    options: Options,
    state: Mutex<State>,
}

struct State {
    catalog: Arc<Catalog>,
    /// Entries up to this one survive a crash.
    durable: Sequence,
}

impl Log {
    /// Loads the newest checkpoint that is whole and folds what follows. Changes nothing.
    pub fn open(
        objects: Arc<dyn Objects>,
        local: Arc<dyn Local>,
        world: Arc<dyn World>,
    ) -> Result<Self> {
        Self::open_with(objects, local, world, Options::default())
    }

    /// The same with other options.
    pub fn open_with(
        objects: Arc<dyn Objects>,
        local: Arc<dyn Local>,
        world: Arc<dyn World>,
        options: Options,
    ) -> Result<Self> {
        let catalog = Arc::new(fold::load(&*objects, options.rules)?);
        let state = Mutex::new(State {
            catalog,
            durable: 0,
        });
        Ok(Self {
            objects,
            local,
            world,
            options,
            state,
        })
    }

    /// The catalog as folded last.
    pub fn current(&self) -> Arc<Catalog> {
        self.state().catalog.clone()
    }

    /// Folds what others have added.
    pub fn refresh(&self) -> Result<Arc<Catalog>> {
        let mut state = self.state();
        self.fold_on(&mut state)?;
        Ok(state.catalog.clone())
    }

    /// Whether every pack that was live in `seen` still is. Only then does what was not found in them not exist: the
    /// bytes of a dropped pack may have gone before they were read.
    pub fn still_holds(&self, seen: &Catalog) -> Result<bool> {
        let now = self.refresh()?;
        Ok(seen.packs().all(|p| now.pack(&p.name).is_some()))
    }

    /// Every entry folded so far survives a crash after this, also those that others wrote.
    pub fn make_durable(&self) -> Result<()> {
        self.make_durable_in(&mut self.state())
    }

    fn make_durable_in(&self, state: &mut State) -> Result<()> {
        let seq = state.catalog.seq();
        if state.durable < seq && !self.objects.is_read_only() {
            self.objects.sync(LOG)?;
            state.durable = seq;
        }
        Ok(())
    }

    /// A panic while it is held leaves a state that was true once; folding goes on from there.
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn entry_key(seq: Sequence) -> String {
    format!("{LOG}/{seq:020}")
}

fn checkpoint_key(seq: Sequence) -> String {
    format!("{CHECKPOINT}/{seq:020}")
}

#[cfg(test)]
mod tests;
