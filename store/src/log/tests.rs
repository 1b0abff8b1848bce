//! The log on memory objects: ordinary ways, damage, and `protocol`, which looks for interleavings that lose something.

mod actors;
mod protocol;

use super::{Durability, Log, Options, Session, invalid, is_unclear};
use crate::catalog::{Catalog, Invalid, Rules};
use crate::error::{Error, ErrorKind, Result};
use crate::format::entry::{Op, SessionKind};
use crate::id::{Sequence, Uid};
use crate::object::memory::{Gate, MemoryObjects};
use crate::object::{Objects, Purse};
use crate::world::{Moment, World};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Barrier, Mutex};

/// Counts instead of throwing dice.
#[derive(Default)]
struct Counting;

static THROWN: AtomicU64 = AtomicU64::new(0);

impl World for Counting {
    fn now(&self) -> Moment {
        Moment { sec: 0, nsec: 0 }
    }

    fn random(&self) -> [u8; 16] {
        let mut bytes = [0; 16];
        bytes[..8].copy_from_slice(&THROWN.fetch_add(1, Ordering::Relaxed).to_le_bytes());
        bytes
    }

    fn label(&self) -> String {
        "a test".into()
    }
}

const SMALL: u64 = 4;

fn options() -> Options {
    Options {
        checkpoint_every: SMALL,
        entries_kept: 2,
        rules: Rules::default(),
    }
}

fn open(objects: &MemoryObjects) -> Result<Log> {
    let world = Arc::new(Counting);
    Log::open_with(
        Arc::new(objects.clone()),
        Arc::new(objects.clone()),
        world,
        options(),
    )
}

/// Keeps as many entries as a real one: others may go far while one looks away.
fn open_keeping(objects: &MemoryObjects) -> Result<Log> {
    let entries_kept = Options::default().entries_kept;
    let options = Options {
        entries_kept,
        ..options()
    };
    let objects = Arc::new(objects.clone());
    Log::open_with(objects.clone(), objects, Arc::new(Counting), options)
}

fn device(n: u8) -> Op {
    Op::PutDevice {
        uid: Uid([n; 16]),
        name: format!("device {n}"),
        attachment: None,
    }
}

/// One entry that adds a device.
fn add(log: &Log, n: u8) -> Result<Sequence> {
    let done = log.commit_alone(SessionKind::Writer, Purse::Free, &mut |_, _| {
        Ok(vec![device(n)])
    })?;
    Ok(done.seq())
}

fn writer(log: &Log) -> Result<Session> {
    log.open_session(SessionKind::Writer, Purse::Free, &mut |_| Ok(vec![]))
}

fn commit(log: &Log, session: &mut Session, op: &Op) -> Result<Arc<Catalog>> {
    let plan = &mut |_: &Catalog| Ok(vec![op.clone()]);
    log.commit(session, Purse::Free, Durability::Now, plan)
}

fn key(seq: Sequence) -> String {
    super::entry_key(seq)
}

fn flip(objects: &MemoryObjects, key: &str) {
    let mut bytes = objects.dump()[key].clone();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    objects.set_at_rest(key, Some(bytes));
}

#[test]
fn what_one_handle_commits_another_reads() -> Result<()> {
    let objects = MemoryObjects::new();
    let (one, two) = (open(&objects)?, open(&objects.fork_handle())?);
    assert_eq!(add(&one, 1)?, 1);
    assert_eq!(two.current().seq(), 0);
    assert!(two.refresh()?.device_named("device 1").is_some());
    assert_eq!(add(&two, 2)?, 2);
    assert_eq!(*open(&objects)?.current(), *two.current());
    Ok(())
}

#[test]
fn a_plan_is_asked_again_for_each_state_it_is_tried_on() -> Result<()> {
    let objects = MemoryObjects::new();
    let (one, two) = (open(&objects)?, open(&objects.fork_handle())?);
    let mut seen = Vec::new();
    let mut plan = |catalog: &Catalog, _| {
        // Somebody else takes the slot between the plan and the put.
        if seen.is_empty() {
            add(&two, 1)?;
        }
        seen.push(catalog.seq());
        Ok(vec![device(2)])
    };
    assert_eq!(
        one.commit_alone(SessionKind::Writer, Purse::Free, &mut plan)?
            .seq(),
        2
    );
    assert_eq!(seen, [0, 1]);
    Ok(())
}

#[test]
fn ops_that_are_not_valid_are_busy_and_tell_why() -> Result<()> {
    let objects = MemoryObjects::new();
    let log = open(&objects)?;
    add(&log, 1)?;
    let taken = Op::PutDevice {
        uid: Uid([9; 16]),
        name: "device 1".into(),
        attachment: None,
    };
    let mut session = writer(&log)?;
    let before = objects.dump();
    let error = commit(&log, &mut session, &taken).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Busy);
    assert_eq!(
        invalid(&error),
        Some(&Invalid::NameTaken("device 1".into()))
    );
    assert_eq!(objects.dump(), before, "nothing was written");
    // The session is as good as before.
    commit(&log, &mut session, &device(2))?;
    log.close(session, Purse::Free)
}

#[test]
fn a_session_that_was_ended_commits_no_more() -> Result<()> {
    let objects = MemoryObjects::new();
    let (log, other) = (open(&objects)?, open(&objects.fork_handle())?);
    let mut session = writer(&log)?;
    assert_eq!(other.expire_dead()?, []);
    objects.kill();
    assert_eq!(other.expire_dead()?, [session.id()]);
    let error = commit(&log, &mut session, &device(1)).unwrap_err();
    assert_eq!(
        invalid(&error),
        Some(&Invalid::SessionNotOpen(session.id()))
    );
    assert!(other.refresh()?.has_ended(&session.id()));
    Ok(())
}

#[test]
fn a_dropped_session_can_be_expired_and_a_closed_one_need_not() -> Result<()> {
    let objects = MemoryObjects::new();
    let (log, other) = (open(&objects)?, open(&objects.fork_handle())?);
    let (closed, dropped) = (writer(&log)?, writer(&log)?);
    let id = dropped.id();
    log.close(closed, Purse::Free)?;
    drop(dropped);
    assert_eq!(other.expire_dead()?, [id]);
    assert_eq!(other.refresh()?.sessions().count(), 0);
    Ok(())
}

#[test]
fn the_lock_is_held_before_the_session_can_be_seen() -> Result<()> {
    let objects = MemoryObjects::new();
    let watcher = objects.fork_handle();
    let held = Arc::new(AtomicUsize::new(0));
    let seen = held.clone();
    let gate: Gate = Arc::new(move |call, key| {
        if call == "put_new" && key.starts_with("log/") {
            // Nobody else gets the lock of the session that is about to appear.
            let expired = open(&watcher.fork_handle())?.expire_dead()?;
            assert_eq!(expired, []);
            seen.fetch_add(1, Ordering::Relaxed);
        }
        Ok(())
    });
    let log = open(&objects.fork_handle().with_reply_gate(gate))?;
    log.close(writer(&log)?, Purse::Free)?;
    assert_eq!(held.load(Ordering::Relaxed), 2);
    Ok(())
}

#[test]
fn writers_on_threads_take_all_slots_and_lose_nothing() -> Result<()> {
    let objects = MemoryObjects::new();
    let barrier = Barrier::new(4);
    std::thread::scope(|scope| {
        let workers: Vec<_> = (0..4u8)
            .map(|worker| {
                let (objects, barrier) = (objects.fork_handle(), &barrier);
                scope.spawn(move || -> Result<()> {
                    let log = open_keeping(&objects)?;
                    barrier.wait();
                    (0..25u8).try_for_each(|n| add(&log, worker * 25 + n).map(drop))
                })
            })
            .collect();
        workers
            .into_iter()
            .try_for_each(|w| w.join().expect("no worker panics"))
    })?;
    let log = open(&objects)?;
    assert_eq!(log.current().seq(), 100);
    assert_eq!(log.current().devices().count(), 100);
    Ok(())
}

/// Fails the first put of an entry, before or after it happened.
fn failing_once() -> Gate {
    let failed = AtomicUsize::new(0);
    Arc::new(move |call, key| {
        let entry = call == "put_new" && key.starts_with("log/");
        if entry && failed.fetch_add(1, Ordering::Relaxed) == 0 {
            return Err(Error::new(ErrorKind::Io, "testing"));
        }
        Ok(())
    })
}

#[test]
fn an_entry_whose_answer_was_lost_counts_once() -> Result<()> {
    let objects = MemoryObjects::new();
    let log = open(&objects.clone().with_reply_gate(failing_once()))?;
    assert_eq!(add(&log, 1)?, 1);
    let log = open(&objects.clone().with_gate(failing_once()))?;
    assert_eq!(add(&log, 2)?, 2);
    assert_eq!(open(&objects)?.current().devices().count(), 2);
    Ok(())
}

#[test]
fn a_store_that_stays_silent_leaves_it_unclear() -> Result<()> {
    let objects = MemoryObjects::new();
    let silent: Gate = Arc::new(|call, _| match call {
        "put_new" => Err(Error::new(ErrorKind::Io, "testing")),
        _ => Ok(()),
    });
    let log = open(&objects.clone().with_gate(silent))?;
    let error = add(&log, 1).unwrap_err();
    assert!(is_unclear(&error) && invalid(&error).is_none());
    assert_eq!(error.kind(), ErrorKind::Io);
    assert!(
        error.to_string().contains("entry 1 was written is unclear"),
        "{error}"
    );
    Ok(())
}

#[test]
fn a_full_disk_is_told_as_such_and_the_session_goes_on() -> Result<()> {
    let objects = MemoryObjects::new();
    let full = Arc::new(AtomicUsize::new(0));
    let is_full = full.clone();
    let gate: Gate = Arc::new(move |call, _| match call {
        "put_new" if is_full.load(Ordering::Relaxed) == 1 => {
            Err(Error::new(ErrorKind::NoSpace, "testing"))
        }
        _ => Ok(()),
    });
    let log = open(&objects.clone().with_gate(gate))?;
    let mut session = writer(&log)?;
    full.store(1, Ordering::Relaxed);
    let error = commit(&log, &mut session, &device(1)).unwrap_err();
    assert!(error.kind() == ErrorKind::NoSpace && !is_unclear(&error));
    full.store(0, Ordering::Relaxed);
    commit(&log, &mut session, &device(1))?;
    log.close(session, Purse::Free)
}

#[test]
fn an_entry_is_put_on_a_durable_log_and_acknowledged_when_durable() -> Result<()> {
    let objects = MemoryObjects::new();
    let calls = Arc::new(Mutex::new(Vec::new()));
    let noted = calls.clone();
    let gate: Gate = Arc::new(move |call, key| {
        if key.starts_with("log") && matches!(call, "put_new" | "sync") {
            noted.lock().unwrap().push(call.to_owned());
        }
        Ok(())
    });
    let log = open(&objects.clone().with_gate(gate))?;
    let seen = || std::mem::take(&mut *calls.lock().unwrap());
    let mut session = writer(&log)?;
    assert_eq!(
        seen(),
        ["put_new"],
        "nothing is acknowledged on an open session"
    );
    commit(&log, &mut session, &device(1))?;
    assert_eq!(seen(), ["sync", "put_new", "sync"], "a crash leaves no gap");
    log.make_durable()?;
    assert!(seen().is_empty(), "nothing new");
    add(&open(&objects.fork_handle())?, 2)?;
    commit(&log, &mut session, &device(3))?;
    assert_eq!(
        seen()[..3],
        ["sync", "put_new", "sync"],
        "what others wrote too"
    );
    Ok(())
}

#[test]
fn a_checkpoint_that_fails_fails_no_commit() -> Result<()> {
    let objects = MemoryObjects::new();
    let gate: Gate = Arc::new(|_, key| {
        if key.starts_with("checkpoint/") {
            Err(Error::new(ErrorKind::NoSpace, "testing"))
        } else {
            Ok(())
        }
    });
    let log = open(&objects.clone().with_gate(gate))?;
    (0..10).try_for_each(|n| add(&log, n).map(drop))?;
    assert_eq!(objects.list_after("checkpoint", "")?, Vec::<String>::new());
    assert_eq!(open(&objects)?.current().devices().count(), 10);
    Ok(())
}

#[test]
fn a_load_from_a_checkpoint_equals_a_load_from_the_whole_log() -> Result<()> {
    let objects = MemoryObjects::new();
    let log = open(&objects)?;
    let log_kept = open_keeping(&objects)?;
    let _open = writer(&log_kept)?;
    for n in 0..9 {
        add(&log_kept, n)?;
    }
    let from_checkpoint = open(&objects)?.current();
    for name in objects.list_after("checkpoint", "")? {
        objects.set_at_rest(&format!("checkpoint/{name}"), None);
    }
    let from_log = open(&objects)?.current();
    assert_eq!(*from_checkpoint, *from_log);
    let encode = super::checkpoint::encode;
    assert_eq!(
        encode(&from_checkpoint),
        encode(&from_log),
        "equal states are equal bytes"
    );
    assert_eq!(*log.refresh()?, *from_log);
    Ok(())
}

#[test]
fn two_checkpoints_and_what_follows_the_older_are_kept() -> Result<()> {
    let objects = MemoryObjects::new();
    let log = open(&objects)?;
    (0..22).try_for_each(|n| add(&log, n).map(drop))?;
    let seqs = |folder: &str| -> Result<Vec<Sequence>> {
        let names = objects.list_after(folder, "")?;
        Ok(names.iter().map(|n| n.parse().unwrap()).collect())
    };
    assert_eq!(seqs("checkpoint")?, [16, 20]);
    assert_eq!(seqs("log")?, [17, 18, 19, 20, 21, 22]);
    Ok(())
}

#[test]
fn a_damaged_checkpoint_is_replaced_by_the_one_before() -> Result<()> {
    let objects = MemoryObjects::new();
    let log = open(&objects)?;
    (0..10).try_for_each(|n| add(&log, n).map(drop))?;
    flip(&objects, &super::checkpoint_key(8));
    assert_eq!(*open(&objects)?.current(), *log.current());
    // Entries go only when two good checkpoints stand for them.
    (10..12).try_for_each(|n| add(&log, n).map(drop))?;
    assert_eq!(
        objects.list_after("log", "")?.len(),
        8,
        "none after entry 4 went"
    );
    assert_eq!(*open(&objects)?.current(), *log.current());
    Ok(())
}

#[test]
fn a_checkpoint_under_anothers_name_is_damage() -> Result<()> {
    let objects = MemoryObjects::new();
    let log = open(&objects)?;
    (0..9).try_for_each(|n| add(&log, n).map(drop))?;
    let older = objects.dump()[&super::checkpoint_key(4)].clone();
    objects.set_at_rest(&super::checkpoint_key(8), Some(older));
    assert_eq!(
        super::checkpoint::read(&objects, 8).unwrap_err().kind(),
        ErrorKind::Corrupt
    );
    assert_eq!(*open(&objects)?.current(), *log.current());
    Ok(())
}

#[test]
fn a_log_that_ends_below_a_damaged_checkpoint_is_damage() -> Result<()> {
    let objects = MemoryObjects::new();
    let log = open(&objects)?;
    (0..8).try_for_each(|n| add(&log, n).map(drop))?;
    flip(&objects, &super::checkpoint_key(8));
    objects.set_at_rest(&key(8), None);
    let error = open(&objects).err().expect("entry 8 was acknowledged");
    assert_eq!(error.kind(), ErrorKind::Corrupt);
    assert!(
        error.to_string().contains(&super::checkpoint_key(8)),
        "{error}"
    );
    Ok(())
}

#[test]
fn a_damaged_entry_is_named() -> Result<()> {
    let objects = MemoryObjects::new();
    let log = open(&objects)?;
    (0..3).try_for_each(|n| add(&log, n).map(drop))?;
    let good = objects.dump()[&key(2)].clone();
    flip(&objects, &key(2));
    let error = open(&objects).err().expect("entry 2 is damaged");
    assert_eq!(error.kind(), ErrorKind::Corrupt);
    assert!(error.to_string().contains(&key(2)), "{error}");
    assert!(
        error
            .what_next()
            .is_some_and(|hint| hint.contains("still rescue"))
    );
    objects.set_at_rest(&key(2), None);
    let error = open(&objects).err().expect("entry 2 is missing");
    assert_eq!(error.kind(), ErrorKind::Corrupt);
    assert!(
        error
            .to_string()
            .contains("entry 2 is missing, entry 3 is there"),
        "{error}"
    );
    objects.set_at_rest(&key(2), Some(objects.dump()[&key(3)].clone()));
    let error = open(&objects).err().expect("entry 2 says that it is 3");
    assert!(error.to_string().contains("it is entry 3"), "{error}");
    objects.set_at_rest(&key(2), Some(good));
    assert_eq!(open(&objects)?.current().seq(), 3);
    Ok(())
}

#[test]
fn an_entry_of_another_chain_is_damage_in_a_fresh_load() -> Result<()> {
    let (objects, other) = (MemoryObjects::new(), MemoryObjects::new());
    (0..3).try_for_each(|n| add(&open(&objects)?, n).map(drop))?;
    (10..13).try_for_each(|n| add(&open(&other)?, n).map(drop))?;
    objects.set_at_rest(&key(3), Some(other.dump()[&key(3)].clone()));
    let error = open(&objects).err().expect("the chain is broken");
    assert_eq!(error.kind(), ErrorKind::Corrupt);
    assert!(error.to_string().contains("does not follow"), "{error}");
    Ok(())
}

/// Runs `act` on the n-th call of `name` on a key that begins with `prefix`.
fn on_nth(
    n: usize,
    name: &'static str,
    prefix: &'static str,
    act: impl Fn() -> Result<()> + Send + Sync + 'static,
) -> Gate {
    let calls = AtomicUsize::new(0);
    Arc::new(move |call, key| {
        let hit = call == name && key.starts_with(prefix);
        if hit && calls.fetch_add(1, Ordering::Relaxed) + 1 == n {
            act()
        } else {
            Ok(())
        }
    })
}

#[test]
fn an_entry_in_a_dead_slot_is_removed_and_put_again() -> Result<()> {
    let objects = MemoryObjects::new();
    let other = Arc::new(open(&objects.fork_handle())?);
    let busy = other.clone();
    // Asleep before its put, while others go on so far that its slot is trimmed.
    let sleep = on_nth(1, "put_new", "log/", move || {
        (0..22).try_for_each(|n| add(&busy, n).map(drop))
    });
    let log = open(&objects.fork_handle().with_gate(sleep))?;
    assert_eq!(add(&log, 100)?, 23);
    assert!(!objects.dump().contains_key(&key(1)));
    assert_eq!(other.refresh()?.devices().count(), 23);
    Ok(())
}

#[test]
fn a_session_opened_in_a_dead_slot_is_opened_again() -> Result<()> {
    let objects = MemoryObjects::new();
    let other = open(&objects.fork_handle())?;
    let sleep = on_nth(1, "put_new", "log/", move || {
        (0..22).try_for_each(|n| add(&other, n).map(drop))
    });
    let log = open(&objects.fork_handle().with_gate(sleep))?;
    let session = writer(&log)?;
    assert_eq!(session.id().opened_at, 23);
    assert!(log.current().session(&session.id()).is_some());
    log.close(session, Purse::Free)
}

#[test]
fn a_counted_entry_is_not_taken_for_dead_after_a_long_sleep() -> Result<()> {
    for entries in [5, 22] {
        let objects = MemoryObjects::new();
        let other = open(&objects.fork_handle())?;
        // Asleep after its second put, the commit: entry 1 opened the session.
        let sleep = on_nth(2, "put_new", "log/", move || {
            (0..entries).try_for_each(|n| add(&other, n).map(drop))
        });
        let log = open(&objects.fork_handle().with_reply_gate(sleep))?;
        let mut session = writer(&log)?;
        let catalog = commit(&log, &mut session, &device(100))?;
        assert_eq!(catalog.seq(), u64::from(entries) + 2);
        assert_eq!(catalog.session(&session.id()).map(|s| s.counter), Some(2));
        assert_eq!(catalog.devices().count(), usize::from(entries) + 1);
    }
    Ok(())
}

#[test]
fn what_cannot_be_traced_any_more_is_unclear_and_never_done_twice() -> Result<()> {
    let objects = MemoryObjects::new();
    let other = open(&objects.fork_handle())?;
    let busy = Arc::new(open(&objects.fork_handle())?);
    let sleep = on_nth(1, "put_new", "log/", move || {
        (0..22).try_for_each(|n| add(&busy, n).map(drop))?;
        Ok(())
    });
    let log = open(&objects.fork_handle().with_reply_gate(sleep))?;
    let error = add(&log, 100).unwrap_err();
    assert!(is_unclear(&error), "{error}");
    assert_eq!(other.refresh()?.devices().count(), 23);
    Ok(())
}

#[test]
fn a_chain_of_dead_entries_proves_nothing() -> Result<()> {
    let objects = MemoryObjects::new();
    let bytes_of = |n: u8| -> Result<_> {
        // What a sleeper at the empty state would put: the first two entries of another history.
        let other = MemoryObjects::new();
        add(&open(&other)?, n)?;
        add(&open(&other)?, n + 1)?;
        Ok(other.dump())
    };
    let dead = bytes_of(200)?;
    let (busy, at_rest) = (open(&objects.fork_handle())?, objects.clone());
    let sleep = on_nth(1, "put_new", "log/", move || {
        (0..22).try_for_each(|n| add(&busy, n).map(drop))
    });
    // Another sleeper follows into the next dead slot before the first one looks.
    let follow = on_nth(1, "put_new", "log/", move || {
        let first = at_rest.dump()[&key(1)].clone();
        let first = super::fold::decode_entry(&first, 1)?;
        let entry = super::fold::decode_entry(&dead[&key(2)], 2)?.entry;
        let payload = crate::format::codec::encode(&entry);
        let kind = crate::format::envelope::EnvelopeKind::Entry;
        let follower = crate::format::envelope::seal(kind, 2, first.checksum, &payload).0;
        at_rest.set_at_rest(&key(2), Some(follower));
        Ok(())
    });
    let objects_of_sleeper = objects
        .fork_handle()
        .with_gate(sleep)
        .with_reply_gate(follow);
    let log = open(&objects_of_sleeper)?;
    assert_eq!(add(&log, 100)?, 23);
    assert_eq!(open(&objects)?.current().devices().count(), 23);
    Ok(())
}

#[test]
fn a_load_that_is_overtaken_by_trimming_starts_again() -> Result<()> {
    for prefix in ["checkpoint", "log"] {
        let objects = MemoryObjects::new();
        let busy = open(&objects.fork_handle())?;
        (0..5).try_for_each(|n| add(&busy, n).map(drop))?;
        // Right after the load has listed the folder.
        let nth = if prefix == "checkpoint" { 2 } else { 1 };
        let gate = on_nth(nth, "list_after", prefix, move || {
            (5..30).try_for_each(|n| add(&busy, n).map(drop))
        });
        let log = open(&objects.fork_handle().with_reply_gate(gate))?;
        assert_eq!(log.refresh()?.devices().count(), 30);
    }
    Ok(())
}
