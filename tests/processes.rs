//! Several real programs on one store at once: nothing is lost, everything is exact.

mod support;

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::scope;
use support::{Dice, Home, Ran, block, hash_of, make_image, scribble};

type Hash = blake3::Hash;
/// What is in the store for certain.
type Known = Mutex<BTreeMap<String, Hash>>;

/// Somebody else's work may outrun a program again and again; it then says that it is busy. Nothing else may go wrong.
#[track_caller]
fn done(home: &Home, arguments: &[&str]) -> Ran {
    for _ in 0..100 {
        let ran = home.run(arguments);
        if ran.status.code() != Some(5) {
            return ran.code(0);
        }
    }
    home.run(arguments).code(0)
}

fn export_to(home: &Home, target: &str, file: &str) -> Hash {
    let path = home.path(file);
    done(home, &["export", target, file]);
    let hash = hash_of(&path);
    fs::remove_file(path).expect("it was written");
    hash
}

fn check_all(home: &Home, known: &BTreeMap<String, Hash>) {
    let verified = home.json(&["verify"]);
    assert_eq!(verified["damage"], serde_json::json!([]));
    let mut listed: Vec<String> = home
        .snapshots()
        .iter()
        .map(|(d, n)| format!("{d}@{n}"))
        .collect();
    listed.sort();
    assert_eq!(listed, known.keys().cloned().collect::<Vec<_>>());
    for (target, hash) in known {
        assert_eq!(home.export(target), *hash, "{target}");
    }
}

#[test]
fn writers_gcs_a_deleter_and_readers_at_once() {
    let mut dice = Dice::announced("processes");
    let home = Home::new();
    for device in ["a", "b"] {
        make_image(&home.path(&format!("{device}.raw")), 6 << 20, &mut dice);
        home.ok(&["device", "add", device, &format!("{device}.raw")]);
    }
    let known = Known::default();
    let writing = AtomicU64::new(2);
    let busy = || writing.load(Ordering::Acquire) > 0;
    // Whoever is working with one of these must not find it deleted.
    let fixed = home.path("fixed.raw");
    make_image(&fixed, 4 << 20, &mut dice);
    home.ok(&["import", "fixed.raw", "--device", "fixed", "--name", "v1"]);
    let fixed = hash_of(&fixed);
    let dice: Vec<Dice> = (0..2).map(|_| Dice::new(dice.next())).collect();
    scope(|s| {
        for (device, mut dice) in ["a", "b"].into_iter().zip(dice) {
            let (home, known, writing) = (&home, &known, &writing);
            s.spawn(move || {
                let _done = Leave(writing);
                let image = home.path(&format!("{device}.raw"));
                for n in 0..25 {
                    (0..3).for_each(|_| scribble(&image, &mut dice));
                    let name = format!("s{n}");
                    done(home, &["create", &name, "--device", device]);
                    let target = format!("{device}@{name}");
                    known
                        .lock()
                        .expect("no panic")
                        .insert(target, hash_of(&image));
                }
            });
        }
        for all in [&["gc"][..], &["gc", "--all"]] {
            let home = &home;
            s.spawn(move || {
                while busy() {
                    done(home, all);
                }
            });
        }
        s.spawn(|| {
            while busy() {
                let oldest = known.lock().expect("no panic").pop_first();
                if let Some((target, hash)) = oldest {
                    let (device, name) = target.split_once('@').expect("device@name");
                    assert_eq!(export_to(&home, &target, "deleter.raw"), hash, "{target}");
                    done(&home, &["delete", name, "--device", device]);
                }
            }
        });
        for reader in ["r1.raw", "r2.raw"] {
            let home = &home;
            s.spawn(move || {
                while busy() {
                    assert_eq!(export_to(home, "fixed@v1", reader), fixed);
                    home.ok(&["list"]);
                }
            });
        }
    });
    let mut known = known.into_inner().expect("no panic");
    known.insert("fixed@v1".into(), fixed);
    check_all(&home, &known);
    home.ok(&["gc", "--all"]);
    check_all(&home, &known);
}

/// Counts a writer out, also when it fails, so that the others end too.
struct Leave<'a>(&'a AtomicU64);

impl Drop for Leave<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}

#[test]
fn two_gcs_and_two_writers_over_the_very_clusters_that_gc_would_drop() {
    let home = Home::new();
    // Two disks of the same clusters in another order.
    let blocks: Vec<Vec<u8>> = (0..128).map(|n| block(n * 3, 16384)).collect();
    for (device, step) in [("a", 1), ("b", 77)] {
        let file = File::create_new(home.path(&format!("{device}.raw"))).expect("a new image");
        for n in 0..blocks.len() {
            let at = (n * step % blocks.len() * 16384) as u64;
            file.write_all_at(&blocks[n], at).expect("a block");
        }
        home.ok(&["device", "add", device, &format!("{device}.raw")]);
    }
    for round in 0..12 {
        let name = format!("s{round}");
        // What is stored is needed by nobody now, and the same is stored again while it is dropped.
        scope(|s| {
            for line in [
                "create NAME --device a",
                "gc --all",
                "create NAME --device b",
                "gc",
            ] {
                let (home, line) = (&home, line.replace("NAME", &name));
                s.spawn(move || done(home, &line.split(' ').collect::<Vec<_>>()));
            }
        });
        for device in ["a", "b"] {
            let hash = home.export(&format!("{device}@{name}"));
            assert_eq!(hash, hash_of(&home.path(&format!("{device}.raw"))));
        }
        home.ok(&["verify"]);
        home.ok(&["delete", &name]);
    }
    home.ok(&["gc", "--all"]);
    assert_eq!(
        home.pack_bytes(),
        0,
        "nothing is needed and nothing is left"
    );
}

#[test]
fn more_writers_than_there_are_slots_for_an_index() {
    let home = Home::new();
    let mut dice = Dice::new(11);
    let devices: Vec<String> = (0..12).map(|n| format!("d{n}")).collect();
    let mut known = BTreeMap::new();
    for device in &devices {
        let image = home.path(&format!("{device}.raw"));
        make_image(&image, 2 << 20, &mut dice);
        home.ok(&["device", "add", device, &format!("{device}.raw")]);
        known.insert(format!("{device}@same"), hash_of(&image));
    }
    scope(|s| {
        for device in &devices {
            let home = &home;
            s.spawn(move || done(home, &["create", "same", "--device", device]));
        }
    });
    check_all(&home, &known);
    // All at once again, now that everything is known.
    for device in &devices {
        known.insert(format!("{device}@again"), known[&format!("{device}@same")]);
    }
    scope(|s| {
        for device in &devices {
            let home = &home;
            s.spawn(move || done(home, &["create", "again", "--device", device]));
        }
    });
    check_all(&home, &known);
}

#[test]
fn of_many_who_want_one_name_one_gets_it() {
    let home = Home::new();
    make_image(&home.path("a.raw"), 1 << 20, &mut Dice::new(5));
    home.ok(&["device", "add", "a", "a.raw"]);
    let codes = Mutex::new(Vec::new());
    scope(|s| {
        for _ in 0..6 {
            s.spawn(|| {
                let ran = home.run(&["create", "mine"]);
                let code = ran.status.code();
                assert!(matches!(code, Some(0 | 1)), "{}", ran.story());
                codes.lock().expect("no panic").push(code);
            });
        }
    });
    let codes = codes.into_inner().expect("no panic");
    assert_eq!(codes.iter().filter(|c| **c == Some(0)).count(), 1);
    assert_eq!(home.snapshots(), [("a".into(), "mine".into())]);
}
