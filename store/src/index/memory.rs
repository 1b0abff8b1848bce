//! An index in memory, for stores in memory and on simulated disks.

use super::{ClusterIndex, IndexHome, Key, Place, Places};
use crate::error::Result;
use crate::id::{PackName, PackNumber};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

#[derive(Debug, Clone, Default)]
struct Content {
    places: BTreeMap<Key, Places>,
    packs: BTreeMap<PackNumber, PackName>,
}

/// What the home holds, open or not.
#[derive(Debug, Clone, Default)]
pub struct MemoryIndex {
    content: Arc<Mutex<Content>>,
}

impl MemoryIndex {
    fn content(&self) -> MutexGuard<'_, Content> {
        self.content.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A copy of what it holds now: for rolling back.
    pub fn copy(&self) -> Self {
        Self {
            content: Arc::new(Mutex::new(self.content().clone())),
        }
    }

    /// Moves every place to another entry: an index that lies.
    pub fn lie(&self) {
        for places in self.content().places.values_mut() {
            let moved: Vec<Place> = places
                .iter()
                .map(|p| Place {
                    entry: p.entry + 1,
                    pack: p.pack,
                })
                .collect();
            *places = Places::default();
            moved.into_iter().for_each(|p| places.add(p));
        }
    }
}

impl ClusterIndex for MemoryIndex {
    fn lookup(&self, key: &Key) -> Result<Places> {
        Ok(self.content().places.get(key).copied().unwrap_or_default())
    }

    fn insert_pack(
        &self,
        number: PackNumber,
        name: &PackName,
        places: &[(Key, u32)],
    ) -> Result<()> {
        let mut content = self.content();
        for (key, entry) in places {
            content.places.entry(*key).or_default().add(Place {
                pack: number,
                entry: *entry,
            });
        }
        content.packs.insert(number, *name);
        Ok(())
    }

    fn packs(&self) -> Result<Vec<(PackNumber, PackName)>> {
        Ok(self
            .content()
            .packs
            .iter()
            .map(|(n, name)| (*n, *name))
            .collect())
    }

    fn forget_pack(&self, number: PackNumber) -> Result<()> {
        self.content().packs.remove(&number);
        Ok(())
    }

    fn len(&self) -> Result<u64> {
        Ok(self.content().places.len() as u64)
    }

    fn flush(&self) -> Result<()> {
        Ok(())
    }
}

impl IndexHome for MemoryIndex {
    fn open(&self) -> Result<Option<(Box<dyn ClusterIndex>, Option<String>)>> {
        Ok(Some((Box::new(self.clone()), None)))
    }

    fn clear(&self) -> Result<()> {
        *self.content() = Content::default();
        Ok(())
    }
}
