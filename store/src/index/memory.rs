//! The index in memory, for simulated stores; misbehaves on demand.

use super::{ClusterIndex, IndexHome, Key, Opened, Place, Places};
use crate::error::{Error, Result};
use crate::id::{PackName, PackNumber, Uid};
use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// As many as a folder has.
const SLOTS: usize = super::slot::SLOTS;

/// How an index may misbehave. All of it must cost time only.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Fault {
    /// It does not.
    #[default]
    None,
    /// Every lookup finds something: places of noted packs with wrong entries.
    WrongPlaces,
    /// Places name packs that do not exist.
    StalePlaces,
    /// Lookups find nothing.
    Forget,
    /// Claims every pack and holds nothing.
    Empty,
    /// Fails after so many more calls.
    FailAfter(u64),
    /// Panics after so many more calls.
    PanicAfter(u64),
}

#[derive(Clone, Default)]
struct Contents {
    store: Option<Uid>,
    places: HashMap<Key, Places>,
    packs: BTreeMap<PackNumber, PackName>,
}

#[derive(Default)]
struct Slot {
    taken: AtomicBool,
    contents: Mutex<Contents>,
}

#[derive(Default)]
struct Shared {
    slots: [Slot; SLOTS],
    fault: Mutex<Fault>,
    calls: AtomicU64,
}

/// Slots in memory that outlive the indexes opened in them; clones share them.
#[derive(Clone)]
pub struct MemoryHome {
    store: Uid,
    shared: Arc<Shared>,
}

/// An index in one of the slots.
pub struct MemoryIndex {
    shared: Arc<Shared>,
    slot: usize,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Default for MemoryHome {
    fn default() -> Self {
        Self::new(Uid([0; 16]))
    }
}

impl MemoryHome {
    /// Empty slots.
    pub fn new(store: Uid) -> Self {
        Self {
            store,
            shared: Arc::default(),
        }
    }

    /// The same slots, opened for another store.
    #[must_use]
    pub fn of_store(&self, store: Uid) -> Self {
        Self {
            store,
            shared: Arc::clone(&self.shared),
        }
    }

    /// A copy of what is held now, on its own: for rolling back.
    #[must_use]
    pub fn copy(&self) -> Self {
        let copy = Self::new(self.store);
        for (from, to) in self.shared.slots.iter().zip(&copy.shared.slots) {
            *lock(&to.contents) = lock(&from.contents).clone();
        }
        copy
    }

    /// Takes over what a copy holds, also in indexes that are open.
    pub fn roll_back(&self, copy: &Self) {
        for (from, to) in copy.shared.slots.iter().zip(&self.shared.slots) {
            *lock(&to.contents) = lock(&from.contents).clone();
        }
    }

    /// Answers with wrong places from now on.
    pub fn lie(&self) {
        self.set_fault(Fault::WrongPlaces);
    }

    /// What its indexes do wrong from now on.
    pub fn set_fault(&self, fault: Fault) {
        *lock(&self.shared.fault) = fault;
        self.shared.calls.store(0, SeqCst);
    }
}

impl IndexHome for MemoryHome {
    fn open(&self) -> Result<Option<Opened>> {
        let Some(slot) = self
            .shared
            .slots
            .iter()
            .position(|s| !s.taken.swap(true, SeqCst))
        else {
            return Ok(None);
        };
        let index = MemoryIndex {
            shared: Arc::clone(&self.shared),
            slot,
        };
        let mut contents = index.contents();
        let other = contents.store.is_some_and(|found| found != self.store);
        if other {
            *contents = Contents::default();
        }
        contents.store = Some(self.store);
        drop(contents);
        let reason = "the index was of another store and is being rebuilt";
        Ok(Some((Box::new(index), other.then(|| reason.to_owned()))))
    }

    fn clear(&self) -> Result<()> {
        for slot in &self.shared.slots {
            if !slot.taken.swap(true, SeqCst) {
                *lock(&slot.contents) = Contents::default();
                slot.taken.store(false, SeqCst);
            }
        }
        Ok(())
    }
}

impl Drop for MemoryIndex {
    fn drop(&mut self) {
        self.shared.slots[self.slot].taken.store(false, SeqCst);
    }
}

impl MemoryIndex {
    fn contents(&self) -> MutexGuard<'_, Contents> {
        lock(&self.shared.slots[self.slot].contents)
    }

    /// The fault of this call, after failing or panicking where it says so.
    fn fault(&self) -> Result<Fault> {
        let fault = *lock(&self.shared.fault);
        let calls = self.shared.calls.fetch_add(1, SeqCst);
        match fault {
            Fault::FailAfter(n) if calls >= n => {
                Err(Error::corrupt("reading the index", "it was told to fail"))
            }
            Fault::PanicAfter(n) if calls >= n => panic!("the index was told to panic"),
            other => Ok(other),
        }
    }
}

impl ClusterIndex for MemoryIndex {
    fn lookup(&self, key: &Key) -> Result<Places> {
        let fault = self.fault()?;
        let contents = self.contents();
        let mut found = contents.places.get(key).copied().unwrap_or_default();
        found.retain(|p| contents.packs.contains_key(&p.pack));
        match fault {
            Fault::WrongPlaces => {
                let mut wrong = Places::default();
                for (at, pack) in contents.packs.keys().take(2).enumerate() {
                    wrong.add(Place {
                        pack: *pack,
                        entry: at as u32 * 977 + u32::from(key[0]),
                    });
                }
                Ok(wrong)
            }
            Fault::StalePlaces => {
                let mut stale = Places::default();
                stale.add(Place {
                    pack: PackNumber(u32::MAX),
                    entry: 0,
                });
                Ok(stale)
            }
            Fault::Forget | Fault::Empty => Ok(Places::default()),
            _ => Ok(found),
        }
    }

    fn insert_pack(
        &self,
        number: PackNumber,
        name: &PackName,
        places: &[(Key, u32)],
    ) -> Result<()> {
        let fault = self.fault()?;
        let mut contents = self.contents();
        if fault != Fault::Empty {
            for (key, entry) in places {
                let place = Place {
                    pack: number,
                    entry: *entry,
                };
                contents.places.entry(*key).or_default().add(place);
            }
        }
        contents.packs.insert(number, *name);
        Ok(())
    }

    fn expect_many(&self, _many: bool) {}
    fn packs(&self) -> Result<Vec<(PackNumber, PackName)>> {
        self.fault()?;
        Ok(self
            .contents()
            .packs
            .iter()
            .map(|(number, name)| (*number, *name))
            .collect())
    }

    fn forget_pack(&self, number: PackNumber) -> Result<()> {
        self.fault()?;
        self.contents().packs.remove(&number);
        Ok(())
    }

    fn len(&self) -> Result<u64> {
        self.fault()?;
        let contents = self.contents();
        let live = |p: &Places| p.iter().any(|p| contents.packs.contains_key(&p.pack));
        Ok(contents.places.values().filter(|p| live(p)).count() as u64)
    }

    fn flush(&self) -> Result<()> {
        self.fault().map(drop)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::index::conformance::{STORE, holds, insert, listed, open, suite};

    #[test]
    fn memory_does_what_every_index_does() {
        suite(&|| {
            let home = MemoryHome::new(STORE);
            Box::new(move |store| Box::new(home.of_store(store)))
        });
    }

    #[test]
    fn faults_show() {
        let home = MemoryHome::new(STORE);
        let (index, _) = open(&home);
        insert(&*index, 1);
        for fault in [Fault::WrongPlaces, Fault::StalePlaces, Fault::Forget] {
            home.set_fault(fault);
            assert!(!holds(&*index, 1), "{fault:?}");
        }
        home.set_fault(Fault::FailAfter(2));
        let failed = |_| index.lookup(&listed(1)[0].0).is_err();
        assert_eq!(
            (0..4).map(failed).collect::<Vec<_>>(),
            [false, false, true, true]
        );
        home.set_fault(Fault::Empty);
        insert(&*index, 2);
        home.set_fault(Fault::None);
        assert!(holds(&*index, 1) && !holds(&*index, 2));
    }

    #[test]
    fn a_copy_rolls_back() {
        let home = MemoryHome::new(STORE);
        let (index, _) = open(&home);
        insert(&*index, 1);
        let old = home.copy();
        insert(&*index, 2);
        home.roll_back(&old);
        assert!(holds(&*index, 1) && !holds(&*index, 2));
    }
}
