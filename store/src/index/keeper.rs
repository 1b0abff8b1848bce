//! Keeps the index in step with the live packs, and everybody else safe from it: whatever goes wrong in it costs a line
//! to the user and time, nothing else.

use super::{ClusterIndex, IndexHome, Key, Places};
use crate::error::{Error, ErrorKind, Result};
use crate::id::{PackName, PackNumber};
use crate::store::Say;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, PoisonError, RwLock};

/// Reads what the index is to hold of a pack: keys and entry numbers.
pub type ReadPack<'a> = &'a mut dyn FnMut(&PackName) -> Result<Vec<(Key, u32)>>;

/// What `catch_up` did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct CatchUp {
    /// Packs whose entries went in.
    pub packs: u64,
    /// Their entries.
    pub entries: u64,
    /// Packs that were forgotten.
    pub forgotten: u64,
}

/// Owns the index, once somebody has asked for it.
pub struct Keeper {
    home: Arc<dyn IndexHome>,
    say: Say,
    state: RwLock<State>,
}

enum State {
    Closed,
    Open {
        index: Box<dyn ClusterIndex>,
        empty: bool,
    },
    /// No slot is free, nothing can be written, or it failed twice.
    Without,
}

impl Keeper {
    /// Nothing is opened yet.
    pub fn new(home: Arc<dyn IndexHome>, say: Say) -> Self {
        Self {
            home,
            say,
            state: RwLock::new(State::Closed),
        }
    }

    /// Whether there is an index.
    pub fn is_open(&self) -> bool {
        matches!(
            *self.state.read().unwrap_or_else(PoisonError::into_inner),
            State::Open { .. }
        )
    }

    /// Whether nobody has asked for it yet.
    pub fn is_closed(&self) -> bool {
        matches!(
            *self.state.read().unwrap_or_else(PoisonError::into_inner),
            State::Closed
        )
    }

    /// Where a cluster may be. Never fails: without an index, nothing is known.
    pub fn lookup(&self, key: &Key) -> Places {
        let failed = {
            let state = self.state.read().unwrap_or_else(PoisonError::into_inner);
            match &*state {
                State::Open {
                    index,
                    empty: false,
                } => match index.lookup(key) {
                    Ok(places) => return places,
                    Err(e) => e,
                },
                _ => return Places::default(),
            }
        };
        self.give_up(&failed);
        Places::default()
    }

    /// Makes the index hold exactly the live packs, opening it first. Packs whose table cannot be read are left out.
    pub fn catch_up(&self, live: &[(PackNumber, PackName)], read: ReadPack<'_>) -> Result<CatchUp> {
        for _ in 0..2 {
            self.open();
            let mut state = self.state.write().unwrap_or_else(PoisonError::into_inner);
            let State::Open { index, empty } = &mut *state else {
                return Ok(CatchUp::default());
            };
            match follow(&**index, live, read) {
                Ok(done) => {
                    *empty = live.is_empty();
                    return Ok(done);
                }
                Err(Failure::Index(e)) => {
                    drop(state);
                    self.give_up(&e);
                    self.reopen();
                }
                Err(Failure::Read(e)) => return Err(e),
            }
        }
        Ok(CatchUp::default())
    }

    /// Adds one pack, its places sorted.
    pub fn insert_pack(&self, number: PackNumber, name: &PackName, places: &[(Key, u32)]) {
        let failed = {
            let mut state = self.state.write().unwrap_or_else(PoisonError::into_inner);
            let State::Open { index, empty } = &mut *state else {
                return;
            };
            *empty = false;
            index.insert_pack(number, name, places).err()
        };
        if let Some(e) = failed {
            self.give_up(&e);
        }
    }

    /// Throws away every index that nobody else has open, and fills this one from nothing.
    pub fn rebuild(&self, live: &[(PackNumber, PackName)], read: ReadPack<'_>) -> Result<CatchUp> {
        *self.state.write().unwrap_or_else(PoisonError::into_inner) = State::Closed;
        self.home.clear()?;
        let done = self.catch_up(live, read)?;
        if !self.is_open() {
            return Err(Error::new(ErrorKind::Busy, "rebuilding the index").detail(
                "no index can be opened: all slots are in use, or the folder cannot be written",
            ));
        }
        Ok(done)
    }

    fn open(&self) {
        let mut state = self.state.write().unwrap_or_else(PoisonError::into_inner);
        if !matches!(*state, State::Closed) {
            return;
        }
        *state = match self.home.open() {
            Ok(Some((index, why))) => {
                if let Some(why) = why {
                    (self.say)(&format!("the index is made anew: {why}"));
                }
                State::Open {
                    index,
                    empty: false,
                }
            }
            Ok(None) => State::Without,
            Err(e) => {
                (self.say)(&format!("going on without an index: {e}"));
                State::Without
            }
        };
    }

    fn give_up(&self, why: &Error) {
        let mut state = self.state.write().unwrap_or_else(PoisonError::into_inner);
        if matches!(*state, State::Open { .. }) {
            *state = State::Without;
            (self.say)(&format!(
                "the index failed and is thrown away; it will be made anew: {why}"
            ));
            drop(state);
            self.home.clear().unwrap_or_default();
        }
    }

    fn reopen(&self) {
        *self.state.write().unwrap_or_else(PoisonError::into_inner) = State::Closed;
    }
}

enum Failure {
    Index(Error),
    Read(Error),
}

fn follow(
    index: &dyn ClusterIndex,
    live: &[(PackNumber, PackName)],
    read: ReadPack<'_>,
) -> std::result::Result<CatchUp, Failure> {
    let mut done = CatchUp::default();
    let known: BTreeMap<PackNumber, PackName> =
        index.packs().map_err(Failure::Index)?.into_iter().collect();
    let wanted: BTreeSet<(PackNumber, PackName)> = live.iter().copied().collect();
    for (number, name) in &known {
        if !wanted.contains(&(*number, *name)) {
            index.forget_pack(*number).map_err(Failure::Index)?;
            done.forgotten += 1;
        }
    }
    for (number, name) in live {
        if known.get(number) == Some(name) {
            continue;
        }
        let mut places = match read(name) {
            Ok(places) => places,
            // What it alone lists is stored again when it is met; `verify` tells of the damage.
            Err(e) if matches!(e.kind(), ErrorKind::Corrupt | ErrorKind::NotFound) => continue,
            Err(e) => return Err(Failure::Read(e)),
        };
        places.sort_unstable();
        index
            .insert_pack(*number, name, &places)
            .map_err(Failure::Index)?;
        done.packs += 1;
        done.entries += places.len() as u64;
    }
    if done.packs > 0 {
        index.flush().map_err(Failure::Index)?;
    }
    Ok(done)
}
