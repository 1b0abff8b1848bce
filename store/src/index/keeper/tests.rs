//! The keeper against indexes that fail, lie and panic.

use super::*;
use crate::index::conformance::{STORE, key, listed, name};
use crate::index::memory::{Fault, MemoryHome};
use crate::index::{Opened, Place};
use std::sync::Mutex;

type Lines = Arc<Mutex<Vec<String>>>;

fn keeper(home: &MemoryHome) -> (Keeper, Lines) {
    let lines = Lines::default();
    let heard = Arc::clone(&lines);
    let say = Arc::new(move |line: &str| heard.lock().unwrap().push(line.to_owned()));
    (Keeper::new(Arc::new(home.clone()), say), lines)
}

fn live(packs: std::ops::Range<u32>) -> Vec<(PackNumber, PackName)> {
    packs.map(|n| (PackNumber(n), name(n))).collect()
}

#[expect(clippy::unnecessary_wraps, reason = "it stands in for what can fail")]
fn tables(name: &PackName) -> Result<Vec<(Key, u32)>> {
    let mut places = listed(name.n);
    places.reverse();
    Ok(places)
}

fn finds(keeper: &Keeper, n: u32) -> bool {
    let at = |entry| Place {
        pack: PackNumber(n),
        entry,
    };
    listed(n)
        .iter()
        .all(|(key, entry)| keeper.lookup(key).iter().any(|p| p == at(*entry)))
}

#[test]
fn nothing_is_opened_before_catching_up() {
    let (keeper, lines) = keeper(&MemoryHome::new(STORE));
    assert_eq!(keeper.lookup(&key(1)), Places::default());
    keeper.insert_pack(PackNumber(1), &name(1), &listed(1));
    assert!(keeper.is_closed() && !keeper.is_open());
    keeper.catch_up(&[], &mut tables).unwrap();
    assert!(keeper.is_open() && !keeper.is_closed());
    assert!(lines.lock().unwrap().is_empty());
}

#[test]
fn catching_up_adds_what_is_new_and_forgets_what_is_gone() {
    let home = MemoryHome::new(STORE);
    let (keeper, _) = keeper(&home);
    let done = keeper.catch_up(&live(0..4), &mut tables).unwrap();
    assert_eq!(
        done,
        CatchUp {
            packs: 4,
            entries: 200,
            ..CatchUp::default()
        }
    );
    let done = keeper.catch_up(&live(2..5), &mut tables).unwrap();
    assert_eq!(
        done,
        CatchUp {
            packs: 1,
            entries: 50,
            forgotten: 2,
            unread: 0
        }
    );
    assert_eq!(
        (0..5).map(|n| finds(&keeper, n)).collect::<Vec<_>>(),
        [false, false, true, true, true]
    );
    let done = keeper
        .catch_up(&live(2..5), &mut |_| panic!("nothing is to be read"))
        .unwrap();
    assert_eq!(done, CatchUp::default());
}

#[test]
fn a_pack_noted_under_another_name_is_indexed_again() {
    let (keeper, _) = keeper(&MemoryHome::new(STORE));
    keeper.catch_up(&live(0..2), &mut tables).unwrap();
    let done = keeper.catch_up(
        &[(PackNumber(0), name(0)), (PackNumber(1), name(9))],
        &mut tables,
    );
    assert_eq!(
        done.unwrap(),
        CatchUp {
            packs: 1,
            entries: 50,
            forgotten: 1,
            unread: 0
        }
    );
    let found = keeper.lookup(&listed(9)[0].0);
    assert_eq!(found.iter().next().unwrap().pack, PackNumber(1));
}

#[test]
fn damaged_tables_are_left_out_and_other_errors_are_not() {
    let (keeper, _) = keeper(&MemoryHome::new(STORE));
    let mut read = |of: &PackName| match of.n {
        1 => Err(Error::corrupt("reading", "bad")),
        2 => Err(Error::new(ErrorKind::NotFound, "reading")),
        _ => tables(of),
    };
    let done = keeper.catch_up(&live(0..4), &mut read).unwrap();
    assert_eq!((done.packs, done.unread), (2, 2));
    assert!(finds(&keeper, 0) && finds(&keeper, 3));
    let mut stop = |_: &PackName| Err(Error::new(ErrorKind::Cancelled, "stopped as asked"));
    let failed = keeper.catch_up(&live(0..9), &mut stop).unwrap_err();
    assert_eq!(failed.kind(), ErrorKind::Cancelled);
    assert!(finds(&keeper, 0), "the index is not to blame");
}

#[test]
fn an_index_that_fails_or_panics_once_is_filled_anew_and_said_once() {
    for fault in [Fault::FailAfter(0), Fault::PanicAfter(0)] {
        let home = MemoryHome::new(STORE);
        let (keeper, lines) = keeper(&home);
        keeper.catch_up(&live(0..3), &mut tables).unwrap();
        home.set_fault(fault);
        assert!(!finds(&keeper, 1));
        assert!(!finds(&keeper, 2));
        assert_eq!(lines.lock().unwrap().len(), 1, "{fault:?}");
        home.set_fault(Fault::None);
        assert!(!finds(&keeper, 1), "nobody fills it but catch_up");
        let done = keeper.catch_up(&live(0..3), &mut tables).unwrap();
        assert_eq!(done.packs, 3);
        assert!(finds(&keeper, 1));
        assert_eq!(keeper.failures.load(Relaxed), 1);
    }
}

#[test]
fn an_index_that_fails_twice_is_not_opened_again() {
    let home = MemoryHome::new(STORE);
    let (keeper, lines) = keeper(&home);
    home.set_fault(Fault::PanicAfter(2));
    assert_eq!(
        keeper.catch_up(&live(0..3), &mut tables).unwrap(),
        CatchUp::default()
    );
    home.set_fault(Fault::None);
    assert_eq!(
        keeper.catch_up(&live(0..3), &mut tables).unwrap(),
        CatchUp::default()
    );
    assert!(!keeper.is_open() && !keeper.is_closed());
    assert_eq!(lines.lock().unwrap().len(), 2);
    keeper.insert_pack(PackNumber(0), &name(0), &listed(0));
    keeper.flush();
    assert!(!finds(&keeper, 0));
}

#[test]
fn an_index_of_another_store_is_said_and_filled() {
    let home = MemoryHome::new(STORE);
    let (before, _) = keeper(&home);
    before.catch_up(&live(0..3), &mut tables).unwrap();
    drop(before);
    let (after, lines) = keeper(&home.of_store(crate::id::Uid([9; 16])));
    assert_eq!(after.catch_up(&live(0..3), &mut tables).unwrap().packs, 3);
    assert!(lines.lock().unwrap()[0].contains("another store"));
}

#[test]
fn rebuilding_reads_every_table() {
    let home = MemoryHome::new(STORE);
    let (keeper, _) = keeper(&home);
    home.set_fault(Fault::Empty);
    keeper.catch_up(&live(0..3), &mut tables).unwrap();
    home.set_fault(Fault::None);
    assert_eq!(
        keeper.catch_up(&live(0..3), &mut tables).unwrap(),
        CatchUp::default()
    );
    assert!(!finds(&keeper, 1), "it claims what it does not hold");
    assert_eq!(keeper.rebuild(&live(0..3), &mut tables).unwrap().packs, 3);
    assert!((0..3).all(|n| finds(&keeper, n)));
}

struct NoHome;

impl IndexHome for NoHome {
    fn open(&self) -> Result<Option<Opened>> {
        Ok(None)
    }
    fn clear(&self) -> Result<()> {
        Ok(())
    }
}

#[test]
fn without_a_slot_all_goes_on_and_rebuilding_says_so() {
    let keeper = Keeper::new(Arc::new(NoHome), Arc::new(|_: &str| ()));
    assert_eq!(
        keeper.catch_up(&live(0..3), &mut tables).unwrap(),
        CatchUp::default()
    );
    assert!(!finds(&keeper, 0));
    let failed = keeper.rebuild(&live(0..3), &mut tables).unwrap_err();
    assert_eq!(failed.kind(), ErrorKind::Busy);
}

#[test]
fn threads_that_meet_a_failure_together_all_get_answers() {
    let home = MemoryHome::new(STORE);
    let (keeper, lines) = keeper(&home);
    keeper.catch_up(&live(0..3), &mut tables).unwrap();
    home.set_fault(Fault::PanicAfter(100));
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                (0..100).for_each(|n| assert!(keeper.lookup(&key(n)).iter().count() <= 1));
            });
        }
    });
    assert_eq!(lines.lock().unwrap().len(), 1);
}
