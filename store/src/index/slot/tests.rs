//! Indexes in a folder against everything that may happen to the folder.

use super::*;
use crate::index::conformance::{STORE, holds, insert, name, open, suite};
use crate::index::paged::VERSION;
use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};
use tempfile::TempDir;

/// Small, so that a few packs overflow what waits in memory.
const SMALL_CACHE: usize = 1 << 20;

fn slots(folder: &TempDir) -> LocalSlots {
    LocalSlots::new(&folder.path().join("local"), STORE, SMALL_CACHE)
}

/// A folder whose first slot holds these packs.
fn filled(packs: std::ops::Range<u32>) -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    let (index, _) = open(&slots(&folder));
    packs.for_each(|n| insert(&*index, n));
    drop(index);
    folder
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap().flatten() {
        let to = to.join(entry.file_name());
        if entry.path().is_dir() {
            copy(&entry.path(), &to);
        } else {
            fs::copy(entry.path(), to).unwrap();
        }
    }
}

/// All files of the first slot with bytes in them.
fn files(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap().flatten() {
        if entry.path().is_dir() {
            found.extend(files(&entry.path()));
        } else if entry.metadata().unwrap().len() > 0 {
            found.push(entry.path());
        }
    }
    found.sort();
    found
}

/// Whatever was done to the first slot: it opens, holds what it claims and takes more.
fn assert_usable(folder: &TempDir) -> (Vec<u32>, Option<String>) {
    let (index, reason) = open(&slots(folder));
    let claimed: Vec<u32> = index.packs().unwrap().iter().map(|(n, _)| n.0).collect();
    for n in &claimed {
        assert!(holds(&*index, *n), "pack {n} is claimed and not there");
    }
    insert(&*index, 1000);
    index.flush().unwrap();
    assert!(holds(&*index, 1000));
    (claimed, reason)
}

#[test]
fn slots_do_what_every_index_does() {
    suite(&|| {
        let folder = tempfile::tempdir().unwrap();
        Box::new(move |store| {
            Box::new(LocalSlots::new(
                &folder.path().join("local"),
                store,
                SMALL_CACHE,
            ))
        })
    });
}

#[test]
fn more_than_waits_in_memory_is_merged_and_found() {
    let folder = filled(0..600);
    let (claimed, reason) = assert_usable(&folder);
    assert_eq!((claimed.len(), reason), (600, None));
}

#[test]
fn absent_keys_are_denied_before_and_after_the_filter_exists() {
    let folder = filled(0..40);
    let (index, _) = open(&slots(&folder));
    for n in 5000..5200 {
        assert!(!holds(&*index, n));
        let absent = crate::index::conformance::listed(n);
        assert!(
            absent
                .iter()
                .all(|(key, _)| index.lookup(key).unwrap() == Places::default())
        );
    }
    assert!((0..40).all(|n| holds(&*index, n)));
    insert(&*index, 41);
    assert!(holds(&*index, 41));
    index.flush().unwrap();
    assert!(holds(&*index, 41));
}

#[test]
fn another_version_starts_from_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let slots = slots(&folder);
    fs::create_dir_all(&slots.root).unwrap();
    let next = SledIndex::open_version(&slots.folder(0), STORE, SMALL_CACHE, VERSION + 1).unwrap();
    insert(&next, 1);
    drop(next);
    let (claimed, reason) = assert_usable(&folder);
    assert!(claimed.is_empty());
    assert!(reason.unwrap().contains("another version"));
}

#[test]
fn damage_to_any_file_is_found_or_harmless() {
    let folder = filled(0..30);
    let local = folder.path().join("local/index-0");
    let sound = tempfile::tempdir().unwrap();
    copy(&local, sound.path());
    // A copy is not sealed: it is sealed as if it had been there all the time.
    let restore = || {
        fs::remove_dir_all(&local).unwrap();
        copy(sound.path(), &local);
        crate::index::seal::put(&local).unwrap();
    };
    restore();
    let (claimed, reason) = assert_usable(&folder);
    assert_eq!((claimed.len(), reason), (30, None));
    for file in files(sound.path()) {
        let file = local.join(file.strip_prefix(sound.path()).unwrap());
        for damage in [truncate, garble, empty, remove_file] {
            restore();
            damage(&file);
            let (claimed, reason) = assert_usable(&folder);
            assert!(claimed.is_empty() || reason.is_none(), "{}", file.display());
        }
    }
}

fn truncate(path: &Path) {
    let len = fs::metadata(path).unwrap().len();
    File::options()
        .write(true)
        .open(path)
        .unwrap()
        .set_len(len / 2)
        .unwrap();
}

fn garble(path: &Path) {
    let mut bytes = fs::read(path).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle..].iter_mut().for_each(|b| *b ^= 0x55);
    fs::write(path, bytes).unwrap();
}

fn empty(path: &Path) {
    fs::write(path, "").unwrap();
}

fn remove_file(path: &Path) {
    fs::remove_file(path).unwrap();
}

/// Pages that went bad on the medium while the seal holds: sled finds it, and the index fails for good.
#[test]
fn a_bad_page_under_a_whole_seal_is_an_error_not_a_wrong_answer() {
    let folder = filled(0..200);
    let local = folder.path().join("local/index-0");
    for file in files(&local.join("slabs")) {
        garble(&file);
    }
    crate::index::seal::put(&local).unwrap();
    let Ok(Some((index, reason))) = slots(&folder).open() else {
        return;
    };
    if reason.is_some() {
        return;
    }
    let listed = (0..200).flat_map(crate::index::conformance::listed);
    let failed = listed.filter(|(key, _)| index.lookup(key).is_err()).count();
    assert!(failed > 0);
    assert!(
        index.flush().is_err(),
        "after a failure it answers nothing but errors"
    );
    drop(index);
    assert!(assert_usable(&folder).1.is_some());
}

#[test]
fn a_rolled_back_folder_is_made_anew() {
    let folder = filled(0..10);
    let local = folder.path().join("local/index-0");
    let old = tempfile::tempdir().unwrap();
    copy(&local, old.path());
    let (index, _) = open(&slots(&folder));
    (10..30).for_each(|n| insert(&*index, n));
    drop(index);
    fs::remove_dir_all(&local).unwrap();
    copy(old.path(), &local);
    let (claimed, reason) = assert_usable(&folder);
    assert!(claimed.is_empty());
    assert!(reason.unwrap().contains("not closed or was changed"));
}

/// sled alone would search the newer pages for ever.
#[test]
fn older_metadata_over_newer_pages_is_made_anew() {
    let folder = filled(0..10);
    let metadata = folder.path().join("local/index-0/metadata");
    let old = tempfile::tempdir().unwrap();
    copy(&metadata, old.path());
    let (index, _) = open(&slots(&folder));
    for n in 10..60 {
        insert(&*index, n);
        index.flush().unwrap();
    }
    drop(index);
    fs::remove_dir_all(&metadata).unwrap();
    copy(old.path(), &metadata);
    assert!(assert_usable(&folder).1.is_some());
}

#[test]
fn deletion_while_closed_costs_only_the_index() {
    let folder = filled(0..10);
    fs::remove_dir_all(folder.path().join("local")).unwrap();
    assert_eq!(assert_usable(&folder), (vec![], None));
}

#[test]
fn deletion_while_open_is_survived() {
    let folder = filled(0..10);
    let (index, _) = open(&slots(&folder));
    fs::remove_dir_all(folder.path().join("local")).unwrap();
    assert!(holds(&*index, 3));
    let mut inserts = (10..20).map(|n| {
        index
            .insert_pack(PackNumber(n), &name(n), &[])
            .and_then(|()| index.flush())
    });
    assert!(inserts.any(|r| r.is_err()), "what cannot be sealed is said");
    drop(index);
    assert_usable(&folder);
}

#[test]
fn files_and_links_in_place_of_a_slot_are_removed_and_not_followed() {
    for dangling in [false, true] {
        let folder = tempfile::tempdir().unwrap();
        let outside = tempfile::tempdir().unwrap();
        fs::write(outside.path().join("precious"), "x").unwrap();
        let local = folder.path().join("local");
        fs::create_dir(&local).unwrap();
        let target = if dangling {
            Path::new("nowhere")
        } else {
            outside.path()
        };
        std::os::unix::fs::symlink(target, local.join("index-0")).unwrap();
        fs::write(local.join("index-1"), "junk").unwrap();
        fs::write(local.join("index-x"), "junk").unwrap();
        let (_, reason) = assert_usable(&folder);
        assert!(reason.unwrap().contains("not a folder"));
        let (_first, _) = open(&slots(&folder));
        let (_second, reason) = open(&slots(&folder));
        assert!(reason.unwrap().contains("not a folder"));
        slots(&folder).clear().unwrap();
        assert_eq!(fs::read_dir(outside.path()).unwrap().count(), 1);
        assert!(outside.path().join("precious").exists());
    }
}

#[test]
fn a_link_as_lock_file_is_not_followed() {
    let folder = tempfile::tempdir().unwrap();
    let outside = tempfile::tempdir().unwrap();
    let local = folder.path().join("local");
    fs::create_dir(&local).unwrap();
    std::os::unix::fs::symlink(outside.path().join("lock"), local.join("index-0.lock")).unwrap();
    assert_usable(&folder);
    assert!(!outside.path().join("lock").exists());
    assert!(local.join("index-1").is_dir(), "the next slot was taken");
}

#[test]
fn where_nothing_can_be_written_there_is_no_index() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("local"), "a file").unwrap();
    assert!(slots(&folder).open().unwrap().is_none());
    slots(&folder).clear().unwrap();
}

const CHILD: &str = "STILLPOINT_INDEX_CHILD";

/// Not a test of its own: the process that `kill_at_any_moment_...` kills.
#[test]
fn child_that_inserts_until_it_is_killed() {
    let Some(root) = std::env::var_os(CHILD) else {
        return;
    };
    let slots = LocalSlots::new(Path::new(&root), STORE, SMALL_CACHE);
    let (index, _) = open(&slots);
    let from = index.packs().unwrap().len() as u32;
    for n in from..from + 100_000 {
        insert(&*index, n);
        if n % 7 == 0 {
            index.flush().unwrap();
            println!("flushed {n}");
        }
    }
}

#[test]
fn a_kill_at_any_moment_leaves_no_pack_claimed_whose_places_are_missing() {
    let folder = tempfile::tempdir().unwrap();
    for round in 0..6_usize {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args([
                "--exact",
                "--nocapture",
                "index::slot::tests::child_that_inserts_until_it_is_killed",
            ])
            .env(CHILD, folder.path().join("local"))
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let flushed = lines
            .map_while(std::result::Result::ok)
            .filter(|l| l.contains("flushed "))
            .nth(3 + round);
        child.kill().unwrap();
        child.wait().unwrap();
        let last: usize = flushed
            .unwrap()
            .rsplit(' ')
            .next()
            .unwrap()
            .parse()
            .unwrap();
        let (claimed, reason) = assert_usable(&folder);
        if reason.is_none() {
            assert!(
                claimed.len() > last,
                "{} packs, {last} was flushed",
                claimed.len()
            );
        }
        slots(&folder).clear().unwrap();
    }
}
