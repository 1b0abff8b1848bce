//! The door to the index: hash -> locations. A cache: it may forget, lie, fail or vanish, and costs time, never data.

mod bucket;
#[cfg(any(test, feature = "testing"))]
pub mod conformance;
mod filter;
pub mod keeper;
pub mod memory;
pub mod paged;
mod seal;
mod sled;
pub mod slot;

use crate::error::Result;
use crate::id::{Hash, PackName, PackNumber};
use std::any::Any;

/// First half of a hash: enough to find candidates, which are then compared whole in a pack's table.
pub type Key = [u8; 16];

/// The index key of a hash.
pub fn key_of(hash: &Hash) -> Key {
    let mut key = [0; 16];
    key.copy_from_slice(&hash.0[..16]);
    key
}

/// Where a copy may be: a pack and the entry in its table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    /// The pack.
    pub pack: PackNumber,
    /// Entry number in its table: table block * 128 + slot.
    pub entry: u32,
}

/// At most this many places are kept a key; more copies are of no use.
pub const PLACES_MAX: usize = 4;

/// What the index says of a key.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Places {
    places: [Option<Place>; PLACES_MAX],
}

impl Places {
    /// The candidates.
    pub fn iter(&self) -> impl Iterator<Item = Place> + '_ {
        self.places.iter().flatten().copied()
    }
    /// Adds a place; the oldest goes when all are taken. Known ones change nothing.
    pub fn add(&mut self, place: Place) {
        if self.iter().any(|p| p == place) {
            return;
        }
        if let Some(free) = self.places.iter_mut().find(|p| p.is_none()) {
            *free = Some(place);
        } else {
            self.places.rotate_left(1);
            self.places[PLACES_MAX - 1] = Some(place);
        }
    }
    /// Drops the places that `keep` refuses; true if any remain.
    pub fn retain(&mut self, keep: impl Fn(Place) -> bool) -> bool {
        let mut kept = Self::default();
        self.iter().filter(|p| keep(*p)).for_each(|p| kept.add(p));
        *self = kept;
        self.iter().next().is_some()
    }
}

/// An open index. Any error makes the caller throw the index away and go on without.
pub trait ClusterIndex: Send + Sync {
    /// What is known of a key.
    fn lookup(&self, key: &Key) -> Result<Places>;
    /// Adds places, sorted by key by the caller, and notes the pack as indexed in the same step. The name guards against
    /// an index of another store or of a rolled back one.
    fn insert_pack(&self, number: PackNumber, name: &PackName, places: &[(Key, u32)])
    -> Result<()>;
    /// Called with true before many packs are added in a row by somebody who needs little memory for anything else, and with
    /// false after the `flush` that follows them. Changes how much memory is used, nothing else.
    fn expect_many(&self, many: bool);
    /// Packs noted as indexed.
    fn packs(&self) -> Result<Vec<(PackNumber, PackName)>>;
    /// Forgets a pack: its note now, its places when they are met.
    fn forget_pack(&self, number: PackNumber) -> Result<()>;
    /// Keys held, counted; may read everything.
    fn len(&self) -> Result<u64>;
    /// True when no key is held.
    fn is_empty(&self) -> Result<bool> {
        Ok(self.len()? == 0)
    }
    /// What was inserted survives the process after this.
    fn flush(&self) -> Result<()>;
}

/// An opened index. The second value says, in words for the user, why it had to be made anew.
pub type Opened = (Box<dyn ClusterIndex>, Option<String>);

/// Where an index is found, or made anew.
pub trait IndexHome: Send + Sync {
    /// Opens this process's index, made anew if it is broken, of another version or of another store. `None`: no slot
    /// is free or nothing can be written here.
    fn open(&self) -> Result<Option<Opened>>;
    /// Throws all indexes that nobody has open away.
    fn clear(&self) -> Result<()>;
}

/// What a panic said.
fn words(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().copied();
    let text = text.or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    text.unwrap_or("no words")
        .lines()
        .next()
        .unwrap_or_default()
        .chars()
        .take(200)
        .collect()
}
