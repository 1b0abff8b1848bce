//! What every index must do, run against each of them. For tests only.

#![expect(
    clippy::missing_panics_doc,
    reason = "a suite panics when it finds something"
)]

use super::{ClusterIndex, IndexHome, Key, Opened, PLACES_MAX, Place, key_of};
use crate::id::{Hash, PackName, PackNumber, SessionId, Uid};

/// Somewhere to keep indexes: gives the home there for a store.
pub type Site = Box<dyn Fn(Uid) -> Box<dyn IndexHome>>;

/// The store that the suite's indexes are of.
pub const STORE: Uid = Uid([7; 16]);

/// A key that numbers name.
pub fn key(n: u32) -> Key {
    key_of(&Hash::of(&n.to_le_bytes()))
}

/// A pack name that a number names.
pub fn name(n: u32) -> PackName {
    PackName {
        session: SessionId {
            opened_at: 3,
            nonce: u64::from(n),
        },
        n,
    }
}

/// What pack `n` lists: 50 keys of its own, sorted.
pub fn listed(n: u32) -> Vec<(Key, u32)> {
    let mut places: Vec<_> = (0..50).map(|i| (key(n * 50 + i), i)).collect();
    places.sort_unstable();
    places
}

/// Inserts pack `n`.
pub fn insert(index: &dyn ClusterIndex, n: u32) {
    index
        .insert_pack(PackNumber(n), &name(n), &listed(n))
        .expect("inserting a pack");
}

/// True if everything of pack `n` is found.
pub fn holds(index: &dyn ClusterIndex, n: u32) -> bool {
    listed(n).iter().all(|(key, entry)| {
        let places = index.lookup(key).expect("looking a key up");
        places.iter().any(|p| {
            p == Place {
                pack: PackNumber(n),
                entry: *entry,
            }
        })
    })
}

/// Opens a home that has a free slot.
pub fn open(home: &dyn IndexHome) -> Opened {
    home.open().expect("opening an index").expect("a free slot")
}

/// Runs everything; `fresh` gives an empty site each time.
pub fn suite(fresh: &dyn Fn() -> Site) {
    what_is_inserted_is_found(&*fresh()(STORE));
    at_most_four_places_are_kept(&*fresh()(STORE));
    opening_again_keeps_everything(&*fresh()(STORE));
    a_forgotten_pack_is_not_told(&*fresh()(STORE));
    another_store_starts_from_nothing(&fresh());
    eight_can_be_open_and_a_ninth_gets_none(&*fresh()(STORE));
    clearing_spares_what_is_open(&*fresh()(STORE));
    many_threads_look_up_while_one_inserts(&*fresh()(STORE));
}

fn what_is_inserted_is_found(home: &dyn IndexHome) {
    let (index, reason) = open(home);
    assert_eq!(reason, None, "a first index needs no reason");
    assert!(index.is_empty().expect("counting"));
    for n in 0..60 {
        insert(&*index, n);
    }
    assert!((0..60).all(|n| holds(&*index, n)));
    assert!(!holds(&*index, 60));
    index.flush().expect("flushing");
    assert!((0..60).all(|n| holds(&*index, n)));
    assert_eq!(index.len().expect("counting"), 60 * 50);
    let packs: Vec<_> = (0..60).map(|n| (PackNumber(n), name(n))).collect();
    assert_eq!(index.packs().expect("listing packs"), packs);
}

fn at_most_four_places_are_kept(home: &dyn IndexHome) {
    let (index, _) = open(home);
    let shared = key(1);
    for n in 0..6 {
        index
            .insert_pack(PackNumber(n), &name(n), &[(shared, n)])
            .expect("inserting");
        index.flush().expect("flushing");
        index
            .insert_pack(PackNumber(n), &name(n), &[(shared, n)])
            .expect("inserting again");
    }
    let found: Vec<_> = index.lookup(&shared).expect("looking up").iter().collect();
    assert_eq!(found.len(), PLACES_MAX);
    assert!(
        found.contains(&Place {
            pack: PackNumber(5),
            entry: 5
        }),
        "the newest stays"
    );
    assert_eq!(index.len().expect("counting"), 1);
}

fn opening_again_keeps_everything(home: &dyn IndexHome) {
    for n in 0..5 {
        let (index, reason) = open(home);
        assert_eq!(reason, None);
        assert!((0..n).all(|n| holds(&*index, n)), "round {n}");
        insert(&*index, n);
    }
    let (index, _) = open(home);
    assert_eq!(index.packs().expect("listing packs").len(), 5);
}

fn a_forgotten_pack_is_not_told(home: &dyn IndexHome) {
    let (index, _) = open(home);
    insert(&*index, 1);
    insert(&*index, 2);
    index.flush().expect("flushing");
    insert(&*index, 3);
    for gone in [1, 3] {
        index.forget_pack(PackNumber(gone)).expect("forgetting");
    }
    index
        .forget_pack(PackNumber(77))
        .expect("forgetting what is not there");
    drop(index);
    let (index, _) = open(home);
    assert_eq!(
        index.packs().expect("listing packs"),
        [(PackNumber(2), name(2))]
    );
    assert!(holds(&*index, 2));
    let told = |n: u32| {
        index
            .lookup(&listed(n)[0].0)
            .expect("looking up")
            .iter()
            .count()
    };
    assert_eq!((told(1), told(3)), (0, 0));
}

fn another_store_starts_from_nothing(site: &Site) {
    let (index, _) = open(&*site(STORE));
    insert(&*index, 1);
    drop(index);
    let (index, reason) = open(&*site(Uid([8; 16])));
    assert!(reason.is_some_and(|r| r.contains("another store")));
    assert!(index.packs().expect("listing packs").is_empty());
    assert!(!holds(&*index, 1));
}

fn eight_can_be_open_and_a_ninth_gets_none(home: &dyn IndexHome) {
    let mut held: Vec<_> = (0..8).map(|_| open(home).0).collect();
    assert!(home.open().expect("opening a ninth").is_none());
    held.pop();
    let (again, _) = open(home);
    insert(&*again, 1);
    assert!(holds(&*again, 1));
    assert!(!holds(&*held[0], 1), "slots are apart");
}

fn clearing_spares_what_is_open(home: &dyn IndexHome) {
    let (first, _) = open(home);
    let (second, _) = open(home);
    insert(&*first, 1);
    insert(&*second, 2);
    drop(second);
    home.clear().expect("clearing");
    assert!(holds(&*first, 1));
    let (second, reason) = open(home);
    assert_eq!(reason, None);
    assert!(second.packs().expect("listing packs").is_empty());
}

fn many_threads_look_up_while_one_inserts(home: &dyn IndexHome) {
    let (index, _) = open(home);
    insert(&*index, 0);
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| (0..200).for_each(|_| assert!(holds(&*index, 0))));
        }
        for n in 1..40 {
            insert(&*index, n);
            if n % 10 == 0 {
                index.flush().expect("flushing");
            }
        }
    });
    assert!((0..40).all(|n| holds(&*index, n)));
}
