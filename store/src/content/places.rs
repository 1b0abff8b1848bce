//! Where nodes are: sorted lists of places, each at least twice as long as the one after it, so that a pack that is added to
//! many costs little, and looking something up does not cost much more than in one list.

use crate::content::resolve::Location;
use crate::index::Key;

/// See the module.
#[derive(Debug, Default)]
pub struct NodePlaces {
    lists: Vec<Vec<(Key, Location)>>,
}

impl NodePlaces {
    /// Adds the places of a pack.
    pub fn add(&mut self, mut places: Vec<(Key, Location)>) {
        places.sort_unstable();
        while let Some(last) = self.lists.pop_if(|last| last.len() < 2 * places.len()) {
            // Two sorted runs: this sort merges them.
            places.extend(last);
            places.sort();
        }
        if !places.is_empty() {
            self.lists.push(places);
        }
    }

    /// All places of a key; several copies of a node may be somewhere.
    pub fn of(&self, key: Key) -> impl Iterator<Item = Location> + '_ {
        self.lists.iter().flat_map(move |list| {
            let from = list.partition_point(|(k, _)| *k < key);
            let same = list[from..].iter().take_while(move |(k, _)| *k == key);
            same.map(|(_, at)| *at)
        })
    }

    /// Keeps those that `wanted` likes.
    pub fn retain(&mut self, wanted: impl Fn(&Location) -> bool) {
        for list in &mut self.lists {
            list.retain(|(_, at)| wanted(at));
        }
        self.lists.retain(|list| !list.is_empty());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::pack::FrameRef;
    use crate::id::PackNumber;

    fn place(n: u32) -> Location {
        let at = FrameRef {
            offset: n,
            bytes: 1,
        };
        Location::new(PackNumber(n), at, 0)
    }

    fn key(n: u64) -> Key {
        u128::from(n).to_be_bytes()
    }

    #[test]
    fn every_place_is_found_however_the_packs_come_and_go() {
        let mut places = NodePlaces::default();
        let mut all = Vec::new();
        let mut dice = 1_u64;
        for pack in 0..300 {
            let mut own = Vec::new();
            for _ in 0..(pack % 17) * (pack % 5) {
                dice = dice.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                own.push((key((dice >> 33) % 500), place(pack)));
            }
            own.dedup();
            all.extend(own.iter().copied());
            places.add(own);
            if pack % 50 == 49 {
                places.retain(|at| at.pack.0 % 3 != 1);
                all.retain(|(_, at)| at.pack.0 % 3 != 1);
            }
            assert!(places.lists.len() < 20, "{}", places.lists.len());
        }
        for n in 0..500 {
            let mut found: Vec<Location> = places.of(key(n)).collect();
            let mut wanted: Vec<_> = all.iter().filter(|(k, _)| *k == key(n)).collect();
            wanted.sort();
            found.sort();
            assert!(found.iter().eq(wanted.iter().map(|(_, at)| at)), "{n}");
        }
    }
}
