use super::*;
use crate::disk::real::RealDisk;
use crate::disk::sim::{CrashMode, Fault, Lie, SimDisk};
use crate::id::SessionId;
use crate::object::{Local, conformance, get_whole};
use std::collections::BTreeMap;

const SMALL: Reserve = Reserve {
    entry_files: 3,
    entry_bytes: 8192,
    pack_files: 1,
    pack_bytes: 65_536,
};
const ROOT: &str = "/home/store";

fn on(disk: &SimDisk) -> Result<LocalObjects> {
    LocalObjects::open(Arc::new(disk.clone()), Path::new(ROOT), SMALL, [1; 16])
}

/// A new store on a new simulated disk, all of it durable.
fn made(seed: u64) -> Result<(SimDisk, LocalObjects)> {
    let disk = SimDisk::new(seed);
    let door = Arc::new(disk.clone());
    let store = LocalObjects::create(door, Path::new(ROOT), SMALL, [1; 16])?;
    Ok((disk, store))
}

fn kind_of<T>(result: Result<T>) -> ErrorKind {
    result.err().expect("an error").kind()
}

#[test]
fn a_store_on_a_real_disk_conforms() -> Result<()> {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let root = dir.path().join("new/store");
    let store = LocalObjects::create(Arc::new(RealDisk), &root, SMALL, [2; 16])?;
    conformance::check_objects(&store)?;
    let other = LocalObjects::open(Arc::new(RealDisk), &root, SMALL, [3; 16])?;
    conformance::check_local(&store, &other)?;
    assert_eq!(RealDisk.list(&root.join("tmp"))?, Vec::<String>::new());
    Ok(())
}

#[test]
fn a_store_on_a_simulated_disk_conforms() -> Result<()> {
    let (disk, store) = made(1)?;
    conformance::check_objects(&store)?;
    conformance::check_local(&store, &on(&disk)?)
}

#[test]
fn a_store_is_made_only_where_nothing_is() -> Result<()> {
    let disk = SimDisk::new(1);
    let create = |at: &str| {
        LocalObjects::create(
            Arc::new(disk.clone()),
            Path::new(at),
            Reserve::NONE,
            [0; 16],
        )
    };
    disk.create_folders(Path::new("/full/of/things"))?;
    assert_eq!(kind_of(create("/full")), ErrorKind::AlreadyExists);
    disk.open(Path::new("/file"), OpenMode::CreateNew)?;
    assert_eq!(kind_of(create("/file")), ErrorKind::InvalidInput);
    let store = create("/full/of/things")?;
    create("/full/of/things")?;
    store.put_new("store.json", &[b"{}"], Purse::Free)?;
    let error = create("/full/of/things").err().expect("it is taken");
    assert!(error.to_string().contains("a store already"), "{error}");
    let none = LocalObjects::open(Arc::new(disk.clone()), Path::new("/none"), SMALL, [0; 16]);
    assert_eq!(kind_of(none), ErrorKind::NotFound);
    Ok(())
}

#[test]
fn an_interrupted_create_can_be_repeated_and_a_finished_one_is_durable() -> Result<()> {
    let calls = made(1)?.0.calls();
    for n in 1..=calls {
        for mode in CrashMode::ALL {
            let disk = SimDisk::new(n);
            disk.crash_at(n);
            let door = Arc::new(disk.clone());
            assert!(LocalObjects::create(door, Path::new(ROOT), SMALL, [1; 16]).is_err());
            let after = disk.restart(mode);
            LocalObjects::create(Arc::new(after.clone()), Path::new(ROOT), SMALL, [1; 16])?;
            let store = on(&after.restart(CrashMode::NothingUnsynced))?;
            store.put_new("log/1", &[b"x"], Purse::Free)?;
        }
    }
    Ok(())
}

#[test]
fn keys_do_not_lead_out_of_the_store() -> Result<()> {
    let (_, store) = made(1)?;
    for key in ["../x", "/x", "a//b", "", "a/../../x", "A", "a b", ".", "a/"] {
        assert_eq!(
            kind_of(store.put_new(key, &[b"x"], Purse::Free)),
            ErrorKind::InvalidInput
        );
        assert_eq!(
            kind_of(store.get(key, 0, &mut [0])),
            ErrorKind::InvalidInput,
            "{key}"
        );
    }
    assert_eq!(kind_of(store.put_note("a/b", b"")), ErrorKind::InvalidInput);
    Ok(())
}

#[test]
fn what_cannot_be_written_opens_read_only() -> Result<()> {
    let (disk, store) = made(1)?;
    store.put_new("log/1", &[b"x"], Purse::Free)?;
    disk.set_read_only(true);
    let store = on(&disk)?;
    assert!(store.is_read_only());
    assert_eq!(get_whole(&store, "log/1", 9)?, b"x");
    assert_eq!(
        kind_of(store.put_new("log/2", &[b"x"], Purse::Free)),
        ErrorKind::ReadOnly
    );
    assert_eq!(kind_of(store.delete("log/1")), ErrorKind::ReadOnly);
    assert_eq!(kind_of(store.sync("log")), ErrorKind::ReadOnly);
    let session = SessionId {
        opened_at: 1,
        nonce: 1,
    };
    assert_eq!(kind_of(store.hold(session)), ErrorKind::ReadOnly);
    Ok(())
}

#[test]
fn a_full_disk_takes_what_makes_room_from_the_reserve() -> Result<()> {
    let (disk, store) = made(1)?;
    store.put_new("packs/s-1/000000", &[&vec![7; 40_000]], Purse::Free)?;
    disk.set_space(0);
    assert_eq!(
        kind_of(store.put_new("log/1", &[&[1; 5000]], Purse::Free)),
        ErrorKind::NoSpace
    );
    assert_eq!(
        store.put_new("log/1", &[&[1; 5000]], Purse::Reserve)?,
        Put::Created
    );
    assert_eq!(get_whole(&store, "log/1", 5000)?, [1; 5000]);
    // A folder needs space as well: an entry file goes for it.
    disk.set_space(0);
    assert_eq!(
        store.put_new("packs/s-2/000000", &[&vec![2; 50_000]], Purse::Reserve)?,
        Put::Created
    );
    assert_eq!(disk.list(Path::new("/home/store/reserve"))?, ["entry-1"]);
    let large = store.put_new("packs/s-2/000001", &[&vec![2; 50_000]], Purse::Reserve);
    assert_eq!(kind_of(large), ErrorKind::NoSpace);
    assert!(disk.list(Path::new("/home/store/tmp"))?.is_empty());
    disk.set_space(0);
    store.refill()?;
    store.delete("packs/s-1/000000")?;
    store.delete("packs/s-2/000000")?;
    store.refill()?;
    let all = ["entry-0", "entry-1", "entry-2", "pack-0"];
    assert_eq!(disk.list(Path::new("/home/store/reserve"))?, all);
    Ok(())
}

#[test]
fn a_failed_sync_of_a_folder_poisons_and_a_failed_write_does_not() -> Result<()> {
    let (disk, store) = made(1)?;
    let put = |key: &str| store.put_new(key, &[b"x"], Purse::Free);
    // create, write, sync, link, remove
    for (call, fault) in [
        (1, Fault::Eio),
        (2, Fault::Enospc),
        (3, Fault::Eio),
        (4, Fault::Enospc),
    ] {
        disk.fail_call(disk.calls() + call, fault);
        assert!(put("log/1").is_err());
    }
    assert_eq!(put("log/1")?, Put::Created);
    assert!(disk.list(Path::new("/home/store/tmp"))?.is_empty());
    store.sync("log")?;
    disk.fail_call(disk.calls() + 1, Fault::Eio);
    assert_eq!(kind_of(store.sync("log")), ErrorKind::Io);
    assert_eq!(kind_of(store.sync("log")), ErrorKind::Poisoned);
    assert_eq!(kind_of(put("log/2")), ErrorKind::Poisoned);
    assert_eq!(kind_of(store.delete("log/1")), ErrorKind::Poisoned);
    assert_eq!(get_whole(&store, "log/1", 9)?, b"x");
    Ok(())
}

#[test]
fn only_what_nobody_writes_is_swept() -> Result<()> {
    let (disk, store) = made(1)?;
    let alive = store.temporary()?.expect("not swept");
    drop(store.temporary()?);
    drop(store.temporary()?);
    assert_eq!(on(&disk)?.sweep_tmp()?, 2);
    assert_eq!(store.fill(&alive, &[b"x"]).err().map(|e| e.kind()), None);
    assert_eq!(
        store.name(&alive, &store.path("log/1")?, Purse::Free)?,
        Some(Put::Created)
    );
    drop(alive);
    assert_eq!(store.sweep_tmp()?, 1);
    assert_eq!(get_whole(&store, "log/1", 9)?, b"x");
    Ok(())
}

#[test]
fn a_lock_on_a_forgotten_file_counts_for_nothing() -> Result<()> {
    let (disk, store) = made(1)?;
    let session = SessionId {
        opened_at: 1,
        nonce: 1,
    };
    let held = store.hold(session)?.expect("free");
    store.forget(session)?;
    let other = on(&disk)?;
    let new = other.hold(session)?.expect("a new file");
    drop(held);
    assert!(store.hold(session)?.is_none());
    drop(new);
    Ok(())
}

/// What a run did: keys whose bytes were acknowledged, that were only tried, and whose removal was acknowledged.
#[derive(Default)]
struct Promises {
    kept: BTreeMap<String, Vec<u8>>,
    tried: BTreeMap<String, Vec<u8>>,
    gone: Vec<String>,
}

impl Promises {
    fn put(&mut self, store: &LocalObjects, key: &str, byte: u8, len: usize) -> Result<()> {
        let bytes = vec![byte; len];
        self.tried.insert(key.to_owned(), bytes.clone());
        let (front, back) = bytes.split_at(len / 3);
        store.put_new(key, &[front, back], Purse::Reserve)?;
        store.sync(key.rsplit_once('/').map_or("", |(folder, _)| folder))?;
        self.kept.insert(key.to_owned(), bytes);
        Ok(())
    }

    fn delete(&mut self, store: &LocalObjects, key: &str) -> Result<()> {
        self.kept.remove(key);
        store.delete(key)?;
        store.sync(key.rsplit_once('/').map_or("", |(folder, _)| folder))?;
        self.gone.push(key.to_owned());
        Ok(())
    }

    /// Puts, deletes and puts again on a full disk; `run` makes the keys differ.
    fn workload(&mut self, disk: &SimDisk, run: u8) -> Result<()> {
        let store = on(disk)?;
        store.sweep_tmp()?;
        self.put(&store, &format!("packs/s-{run}/000000"), 10 + run, 9000)?;
        self.put(&store, &format!("packs/s-{run}/000001"), 20 + run, 100)?;
        self.put(&store, &format!("log/{run}1"), 30 + run, 700)?;
        disk.set_space(0);
        self.put(&store, &format!("log/{run}2"), 40 + run, 8192)?;
        self.put(&store, &format!("log/{run}3"), 50 + run, 8192)?;
        self.delete(&store, &format!("packs/s-{run}/000000"))?;
        self.delete(&store, &format!("packs/s-{run}/000001"))?;
        disk.set_space(1 << 20);
        store.refill()?;
        self.put(&store, &format!("log/{run}4"), 60 + run, 8192)
    }

    /// What is broken of what was promised; `None`: nothing.
    fn broken(&self, disk: &SimDisk) -> Result<Option<String>> {
        let store = on(disk)?;
        let read = |key: &str| match get_whole(&store, key, 1 << 20) {
            Err(e) if e.kind() == ErrorKind::NotFound => Ok(None),
            bytes => bytes.map(Some),
        };
        for (key, bytes) in &self.kept {
            if read(key)?.as_ref() != Some(bytes) {
                return Ok(Some(format!("{key} was acknowledged and is lost")));
            }
        }
        for (key, bytes) in &self.tried {
            if read(key)?.is_some_and(|found| found != *bytes) {
                return Ok(Some(format!("{key} is there in part")));
            }
        }
        for key in &self.gone {
            if read(key)?.is_some() {
                return Ok(Some(format!("{key} came back")));
            }
        }
        Ok(None)
    }
}

/// Crashes at every call in every mode, and works on after it; the first broken promise.
fn first_loss(lies: &[(Lie, &str)]) -> Result<Option<String>> {
    let (disk, _) = made(1)?;
    let start = disk.calls();
    Promises::default().workload(&disk, 1)?;
    for n in start + 1..=disk.calls() + 1 {
        for mode in CrashMode::ALL {
            let (disk, _) = made(n)?;
            for (lie, prefix) in lies {
                disk.lie(*lie, prefix);
            }
            disk.crash_at(n);
            let mut promises = Promises::default();
            let finished = promises.workload(&disk, 1).is_ok();
            assert_eq!(finished, !disk.has_crashed());
            let after = disk.restart(mode);
            after.set_space(1 << 20);
            let say = |what: Option<String>, when: &str| {
                what.map(|what| format!("call {n}, {mode:?}, {when}: {what}"))
            };
            if let Some(loss) = say(promises.broken(&after)?, "after the crash") {
                return Ok(Some(loss));
            }
            // Whatever the crash left, going on must not harm it.
            promises.workload(&after, 2)?;
            if let Some(loss) = say(promises.broken(&after)?, "working on") {
                return Ok(Some(loss));
            }
        }
    }
    Ok(None)
}

#[test]
fn nothing_acknowledged_is_lost_whenever_the_disk_crashes() -> Result<()> {
    assert_eq!(first_loss(&[])?, None);
    Ok(())
}

#[test]
fn every_sync_that_is_left_out_is_found() -> Result<()> {
    let needed = [
        (Lie::FileSync, "/home/store/tmp"),
        (Lie::FolderSync, "/home/store/log"),
        (Lie::FolderSync, "/home/store/packs/s-1"),
        (Lie::FolderSync, "/home/store/reserve"),
    ];
    for lie in needed {
        assert!(first_loss(&[lie])?.is_some(), "{lie:?} is not missed");
    }
    Ok(())
}
