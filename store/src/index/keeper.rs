//! Keeps the index in step with the live packs, and everybody else safe from it: whatever goes wrong in it costs a line
//! to the user and time, nothing else.

use super::{ClusterIndex, IndexHome, Key, Places};
use crate::error::{Error, ErrorKind, Result};
use crate::id::{PackName, PackNumber};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

/// Reads what the index is to hold of a pack: keys and entry numbers.
pub type ReadPack<'a> = &'a mut dyn FnMut(&PackName) -> Result<Vec<(Key, u32)>>;

/// Tells the user a line that is no error: "the index is made anew: ...".
pub type Say = Arc<dyn Fn(&str) + Send + Sync>;

/// What `catch_up` did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct CatchUp {
    /// Packs whose entries went in.
    pub packs: u64,
    /// Their entries.
    pub entries: u64,
    /// Packs that were forgotten.
    pub forgotten: u64,
    /// Live packs whose table could not be read: what they alone list will be stored again.
    pub unread: u64,
}

/// Owns the index, once somebody has asked for it. All calls may come from several threads.
pub struct Keeper {
    home: Arc<dyn IndexHome>,
    say: Say,
    state: RwLock<State>,
    /// Times that it failed and was thrown away.
    failures: AtomicU64,
}

enum State {
    /// Not asked for yet, or thrown away once: the next `catch_up` opens it.
    Closed,
    Open {
        index: Box<dyn ClusterIndex>,
        /// False until there is something to find, so that a first ingest asks nothing.
        filled: AtomicBool,
    },
    /// No slot is free, nothing can be written, or it failed twice.
    Without,
}

impl fmt::Debug for Keeper {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Keeper")
            .field("open", &self.is_open())
            .finish_non_exhaustive()
    }
}

impl Keeper {
    /// Nothing is opened yet.
    pub fn new(home: Arc<dyn IndexHome>, say: Say) -> Self {
        let state = RwLock::new(State::Closed);
        Self {
            home,
            say,
            state,
            failures: AtomicU64::new(0),
        }
    }

    /// Whether there is an index.
    pub fn is_open(&self) -> bool {
        matches!(*self.state(), State::Open { .. })
    }

    /// Whether nobody has asked for it yet.
    pub fn is_closed(&self) -> bool {
        matches!(*self.state(), State::Closed)
    }

    /// Where a cluster may be. Never fails: without an index, nothing is known. Does not open it.
    pub fn lookup(&self, key: &Key) -> Places {
        let found = {
            let state = self.state();
            let State::Open { index, filled } = &*state else {
                return Places::default();
            };
            if !filled.load(Relaxed) {
                return Places::default();
            }
            fenced(|| index.lookup(key))
        };
        found.unwrap_or_else(|e| {
            self.give_up(&e);
            Places::default()
        })
    }

    /// Makes the index hold exactly the live packs, opening it first. Packs whose table cannot be read are left out.
    /// Fails only where `read` fails with something else than damage.
    pub fn catch_up(&self, live: &[(PackNumber, PackName)], read: ReadPack<'_>) -> Result<CatchUp> {
        loop {
            let mut state = self.state_mut();
            self.open(&mut state);
            let State::Open { index, filled } = &*state else {
                return Ok(CatchUp::default());
            };
            // Also when it fails half way: what is in may be found.
            filled.store(!live.is_empty(), Relaxed);
            match follow(&**index, live, read) {
                Ok(done) => return Ok(done),
                Err(Failure::Read(e)) => return Err(e),
                Err(Failure::Index(e)) => {
                    drop(state);
                    self.give_up(&e);
                }
            }
        }
    }

    /// Adds one pack, in any order. Does not open the index: what is missing is caught up with later.
    pub fn insert_pack(&self, number: PackNumber, name: &PackName, places: &[(Key, u32)]) {
        self.change(|index| {
            if places.is_sorted() {
                return index.insert_pack(number, name, places);
            }
            let mut sorted = places.to_vec();
            sorted.sort_unstable();
            index.insert_pack(number, name, &sorted)
        });
    }

    /// What was inserted survives the process after this, unless the index fails.
    pub fn flush(&self) {
        self.change(|index| index.flush());
    }

    fn change(&self, call: impl FnOnce(&dyn ClusterIndex) -> Result<()>) {
        let failed = {
            let state = self.state();
            let State::Open { index, filled } = &*state else {
                return;
            };
            filled.store(true, Relaxed);
            fenced(|| call(&**index)).err()
        };
        if let Some(e) = failed {
            self.give_up(&e);
        }
    }

    /// Throws away every index that nobody else has open, and fills this one from nothing.
    pub fn rebuild(&self, live: &[(PackNumber, PackName)], read: ReadPack<'_>) -> Result<CatchUp> {
        *self.state_mut() = State::Closed;
        self.home.clear()?;
        let done = self.catch_up(live, read)?;
        if !self.is_open() {
            let why =
                "no index can be opened: all slots are in use, or the folder cannot be written";
            return Err(Error::new(ErrorKind::Busy, "rebuilding the index").detail(why));
        }
        Ok(done)
    }

    fn state(&self) -> RwLockReadGuard<'_, State> {
        self.state.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn state_mut(&self) -> RwLockWriteGuard<'_, State> {
        self.state.write().unwrap_or_else(PoisonError::into_inner)
    }

    fn open(&self, state: &mut State) {
        if !matches!(state, State::Closed) {
            return;
        }
        *state = match fenced(|| self.home.open()) {
            Ok(Some((index, why))) => {
                if let Some(why) = why {
                    (self.say)(&why);
                }
                State::Open {
                    index,
                    filled: AtomicBool::new(false),
                }
            }
            Ok(None) => {
                (self.say)(
                    "going on without an index, all are in use: what is stored already may be stored again until the next gc",
                );
                State::Without
            }
            Err(e) => {
                (self.say)(&format!("going on without an index: {e}"));
                State::Without
            }
        };
    }

    /// Throws the index away. After the first failure it may be opened again, after the second not: whatever breaks it
    /// is not a matter of its files.
    fn give_up(&self, why: &Error) {
        let mut state = self.state_mut();
        if !matches!(*state, State::Open { .. }) {
            return;
        }
        let again = self.failures.fetch_add(1, Relaxed) == 0;
        let failed = std::mem::replace(
            &mut *state,
            if again { State::Closed } else { State::Without },
        );
        let then = if again {
            "it will be made anew"
        } else {
            "going on without"
        };
        (self.say)(&format!(
            "the index failed and is thrown away, {then} ({why})"
        ));
        // Still under the lock: nobody opens it before it is gone.
        let gone = fenced(|| {
            drop(failed);
            self.home.clear()
        });
        if let Err(e) = gone {
            (self.say)(&format!("the failed index could not be removed ({e})"));
        }
    }
}

/// Runs `call`; a panic is an error.
fn fenced<T>(call: impl FnOnce() -> Result<T>) -> Result<T> {
    catch_unwind(AssertUnwindSafe(call)).unwrap_or_else(|panic| {
        Err(Error::corrupt(
            "asking the index",
            format!("it panicked: {}", super::words(&*panic)),
        ))
    })
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
    let ask = |call: &mut dyn FnMut() -> Result<()>| fenced(call).map_err(Failure::Index);
    let mut done = CatchUp::default();
    let mut known = BTreeMap::new();
    ask(&mut || {
        known = index.packs()?.into_iter().collect();
        Ok(())
    })?;
    let wanted: BTreeSet<(PackNumber, PackName)> = live.iter().copied().collect();
    for (number, _) in known
        .iter()
        .filter(|(number, name)| !wanted.contains(&(**number, **name)))
    {
        ask(&mut || index.forget_pack(*number))?;
        done.forgotten += 1;
    }
    index.expect_many(true);
    for (number, name) in live
        .iter()
        .filter(|(number, name)| known.get(number) != Some(name))
    {
        let mut places = match read(name) {
            Ok(places) => places,
            // What it alone lists is stored again when it is met; `verify` tells of the damage.
            Err(e) if matches!(e.kind(), ErrorKind::Corrupt | ErrorKind::NotFound) => {
                done.unread += 1;
                continue;
            }
            Err(e) => return Err(Failure::Read(e)),
        };
        places.sort_unstable();
        ask(&mut || index.insert_pack(*number, name, &places))?;
        done.packs += 1;
        done.entries += places.len() as u64;
    }
    if done.packs + done.forgotten > 0 {
        ask(&mut || index.flush())?;
    }
    index.expect_many(false);
    Ok(done)
}

#[cfg(test)]
mod tests;
