//! Damage at rest in every kind of file: found, named, contained, never served, and what is undamaged is saved.

use crate::bench::{Dice, Machine, STORE, alone, seed, small};
use crate::check::{check, difference};
use crate::steps::{Expect, Step, history, prepared};
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::path::Path;
use stillpoint_api::store::format::entry::PackKind;
use stillpoint_api::store::log::Options;
use stillpoint_api::store::ops::gc;
use stillpoint_api::store::ops::rescue::rescue;
use stillpoint_api::store::progress::Progress;
use stillpoint_api::store::tuning::Tuning;
use stillpoint_api::{ErrorKind, Output, System};

/// What is done to a file.
#[derive(Debug, Clone)]
enum Harm {
    Flip(String, u64, u8),
    Cut(String, u64),
    Gone(String),
    Swapped(String, String),
}

impl Harm {
    fn inflict(&self, machine: &Machine) {
        match self {
            Self::Flip(path, at, bit) => machine.disk.flip_bit(path, *at, *bit),
            Self::Cut(path, len) => machine.disk.truncate(path, *len),
            Self::Gone(path) => machine.disk.remove_at_rest(path),
            Self::Swapped(a, b) => machine.disk.swap(a, b),
        }
    }

    /// Takes a flip or a swap back, where the files are still there.
    fn mend(&self, machine: &Machine) -> bool {
        let there = |path: &String| !machine.paths(path).is_empty();
        let mended = match self {
            Self::Flip(path, ..) => there(path),
            Self::Swapped(a, b) => there(a) && there(b),
            Self::Cut(..) | Self::Gone(_) => false,
        };
        if mended {
            self.inflict(machine);
        }
        mended
    }
}

type Key = (String, String);

/// Snapshots by whether they restore. Panics on wrong bytes and on errors that are no word of damage.
fn restored(system: &System, expect: &Expect, place: &str) -> (BTreeSet<Key>, BTreeSet<Key>) {
    let (mut good, mut bad) = (BTreeSet::new(), BTreeSet::new());
    for ((device, name), wanted) in &expect.snapshots {
        let mut found = Vec::new();
        let out = Output::Stream(&mut found);
        let key = (device.clone(), name.clone());
        match system.export(&format!("{device}@{name}"), out, &Progress::default()) {
            Ok(_) => {
                let same = found == **wanted;
                assert!(
                    same,
                    "{place}: {key:?} restores wrong: {}",
                    difference(&found, wanted)
                );
                good.insert(key);
            }
            Err(e) => {
                assert_eq!(e.kind(), ErrorKind::Corrupt, "{place}: {key:?}: {e:?}");
                bad.insert(key);
            }
        }
    }
    (good, bad)
}

/// What the store says of itself, and what it still does.
fn examine(machine: &Machine, expect: &Expect, harm: &Harm, place: &str) {
    let progress = Progress::default();
    let hurts_pack = format!("{harm:?}").contains("/packs/");
    let system = match machine.open() {
        Ok(system) => system,
        Err(e) => {
            assert!(
                matches!(e.kind(), ErrorKind::Corrupt | ErrorKind::NotFound),
                "{place}: {e:?}"
            );
            assert!(!hurts_pack, "{place}: a pack is not needed to open: {e:?}");
            let said = format!("{e} {:?}", e.what_next());
            assert!(said.contains(STORE), "{place}: names no file: {said}");
            return;
        }
    };
    let listed = system.list(None).unwrap();
    assert_eq!(
        listed.len(),
        expect.snapshots.len(),
        "{place}: silently other snapshots"
    );
    let (good, bad) = restored(&system, expect, place);

    let report = system.store().verify(&progress).unwrap();
    assert_eq!(report.is_good(), !hurts_pack, "{place}: {report:?}");
    let named: BTreeMap<Key, Vec<Range<u64>>> = report
        .bad_snapshots
        .iter()
        .map(|b| {
            let view = listed
                .iter()
                .find(|s| s.uid == b.uid)
                .expect("a snapshot that is listed");
            ((view.device.clone(), view.name.clone()), b.extents.clone())
        })
        .collect();
    assert!(
        named.keys().eq(&bad),
        "{place}: verify names {named:?}, bad are {bad:?}"
    );
    for (key, extents) in &named {
        let len = expect.snapshots[key].len() as u64;
        let inside = !extents.is_empty() && extents.iter().all(|r| r.start < r.end && r.end <= len);
        assert!(inside, "{place}: {key:?} is damaged at {extents:?}");
    }

    // With something to drop and to rewrite, gc has every reason to touch what is damaged.
    let delete = Step::Delete("three", &["a"]);
    delete.run(machine, &system, expect).unwrap();
    let expect = &expect.after(&delete);
    let left = |keys: &BTreeSet<Key>| -> BTreeSet<Key> {
        keys.iter()
            .filter(|key| expect.snapshots.contains_key(*key))
            .cloned()
            .collect()
    };
    let all = gc::Options {
        all: true,
        dry_run: false,
    };
    if let Err(e) = system.store().gc(all, &progress) {
        assert_eq!(e.kind(), ErrorKind::Corrupt, "{place}: {e:?}");
        assert!(hurts_pack, "{place}: gc finds damage where none is: {e:?}");
        let said = format!("{e:?}");
        assert!(
            said.contains("nothing was removed") || said.contains("/packs/"),
            "{place}: {said}"
        );
    } else {
        // A pack that is gone, or whose table is, is missed for certain.
        let missed = matches!(harm, Harm::Gone(_) | Harm::Cut(..)) && !left(&bad).is_empty();
        assert!(
            !missed,
            "{place}: gc drops packs though something is missing"
        );
    }
    let place = format!("{place}, after gc");
    let (good_now, bad_now) = restored(&system, expect, &place);
    assert_eq!(
        (good_now, bad_now),
        (left(&good), left(&bad)),
        "{place}: gc changed what is damaged"
    );
}

/// Everything that is not damaged is written out exactly, and what is lost of the rest is named.
fn save(machine: &Machine, expect: &Expect, may_lose: bool, place: &str) {
    let objects = machine.objects().unwrap();
    let out = Path::new("/out");
    let rescued = rescue(&objects, &machine.disk, out, &Progress::default())
        .unwrap_or_else(|e| panic!("{place}: rescue: {e:?}"));
    let mut saved = BTreeSet::new();
    for one in &rescued.saved {
        let name = String::from_utf8(one.record.name.clone()).unwrap();
        let device = one.device.clone().unwrap_or_default();
        let key = (device, name);
        let Some(wanted) = expect.snapshots.get(&key) else {
            assert!(one.unlisted, "{place}: {key:?} is saved as if it existed");
            continue;
        };
        let found = machine.read(&one.path.to_string_lossy()).unwrap();
        let mut known = wanted.to_vec();
        for lost in &one.lost {
            known[lost.start as usize..lost.end as usize].fill(0);
        }
        assert!(
            found == known,
            "{place}: {key:?} saved wrong: {}",
            difference(&found, &known)
        );
        assert!(
            may_lose || one.lost.is_empty(),
            "{place}: {key:?} loses {:?}",
            one.lost
        );
        if one.lost.is_empty() {
            saved.insert(key);
        }
    }
    if !may_lose {
        let all: BTreeSet<Key> = expect.snapshots.keys().cloned().collect();
        assert_eq!(
            saved, all,
            "{place}: not saved; damage: {:?}",
            rescued.damage
        );
    }
}

/// Each harm on a machine of its own.
fn harmed(tuning: Tuning, before: &[Step], harms: impl FnOnce(&Machine) -> Vec<Harm> + Send) {
    alone(|| {
        let (template, expect) = prepared(seed(), tuning, before);
        let harms = harms(&template.copy());
        assert!(!harms.is_empty(), "nothing to harm");
        for harm in harms {
            let place = format!("{harm:?}, seed {}", seed());
            let machine = template.copy();
            harm.inflict(&machine);
            save(
                &machine.copy(),
                &expect,
                format!("{harm:?}").contains("/packs/"),
                &place,
            );
            let machine = template.copy();
            harm.inflict(&machine);
            examine(&machine, &expect, &harm, &place);
            if harm.mend(&machine) {
                let place = format!("{place}, and mended");
                let after = expect.after(&Step::Delete("three", &["a"]));
                let allowed = [expect.clone(), after];
                check(machine.copy(), &allowed, 1).unwrap_or_else(|e| panic!("{place}: {e}"));
            }
        }
    });
}

fn with_dice(
    machine: &Machine,
    prefix: &str,
    mut one: impl FnMut(&str, u64, &mut Dice) -> Vec<Harm>,
) -> Vec<Harm> {
    let mut dice = Dice(seed());
    let paths = machine.paths(prefix);
    let len = |path: &str| machine.read(path).unwrap().len() as u64;
    paths
        .iter()
        .flat_map(|path| one(path, len(path), &mut dice))
        .collect()
}

#[test]
fn bits_flip_in_headers_frames_tables_and_trailers_of_packs() {
    harmed(small(), &history(), |machine| {
        let catalog = machine.copy().open().unwrap().store().catalog();
        let blocks: BTreeMap<String, (u64, PackKind)> = catalog
            .packs()
            .map(|p| {
                (
                    format!("{STORE}/{}", p.name.key()),
                    (u64::from(p.record.blocks), p.record.kind),
                )
            })
            .collect();
        assert!(
            blocks.values().any(|b| b.1 == PackKind::Nodes),
            "node packs are harmed too"
        );
        with_dice(&machine.copy(), "/store/packs/", |path, len, dice| {
            let table = len - 64 - blocks[path].0 * 4096;
            // Header, a frame's header, frames, the table's checksum, frames and hashes, the trailer.
            let parts = [
                0..64,
                64..88,
                88..table,
                table..table + 24,
                table + 24..table + 100,
                len - 64..len,
            ];
            let flip = |r: Range<u64>| {
                Harm::Flip(
                    path.into(),
                    r.start + dice.below(r.end - r.start),
                    dice.below(8) as u8,
                )
            };
            parts.into_iter().map(flip).collect()
        })
    });
}

#[test]
fn packs_are_cut_vanish_and_change_places() {
    harmed(small(), &history(), |machine| {
        let mut last: Option<String> = None;
        with_dice(machine, "/store/packs/", |path, len, dice| {
            let mut harms = vec![
                Harm::Gone(path.into()),
                Harm::Cut(path.into(), dice.below(len)),
            ];
            harms.extend(
                last.replace(path.into())
                    .map(|other| Harm::Swapped(other, path.into())),
            );
            harms
        })
    });
}

#[test]
fn entries_of_the_log_are_damaged() {
    harmed(small(), &history(), |machine| {
        let mut last: Option<String> = None;
        with_dice(machine, "/store/log/", |path, len, dice| {
            let mut harms = vec![
                Harm::Flip(path.into(), dice.below(96), dice.below(8) as u8),
                Harm::Flip(path.into(), 96 + dice.below(len - 96), dice.below(8) as u8),
                Harm::Cut(path.into(), dice.below(len)),
            ];
            harms.extend(
                last.replace(path.into())
                    .map(|other| Harm::Swapped(other, path.into())),
            );
            harms
        })
    });
}

/// The newest entry is the one whose absence nothing later tells of.
#[test]
fn an_entry_within_the_log_vanishes() {
    harmed(small(), &history(), |machine| {
        let mut paths = machine.paths("/store/log/");
        paths.pop();
        paths.into_iter().map(Harm::Gone).collect()
    });
}

#[test]
fn checkpoints_are_damaged() {
    let log = Options {
        checkpoint_every: 4,
        entries_kept: 2,
        ..Options::default()
    };
    harmed(Tuning { log, ..small() }, &history(), |machine| {
        assert_eq!(machine.paths("/store/checkpoint/").len(), 2, "two are kept");
        with_dice(machine, "/store/checkpoint/", |path, len, dice| {
            vec![
                Harm::Flip(path.into(), dice.below(96), dice.below(8) as u8),
                Harm::Flip(path.into(), 96 + dice.below(len - 96), dice.below(8) as u8),
                Harm::Cut(path.into(), dice.below(len)),
                Harm::Gone(path.into()),
            ]
        })
    });
}

#[test]
fn the_stores_own_file_is_damaged() {
    harmed(small(), &history(), |machine| {
        with_dice(machine, "/store/store.json", |path, len, dice| {
            let mut harms: Vec<Harm> = (0..40)
                .map(|_| Harm::Flip(path.into(), dice.below(len), dice.below(8) as u8))
                .collect();
            harms.extend([
                Harm::Cut(path.into(), dice.below(len)),
                Harm::Gone(path.into()),
            ]);
            harms
        })
    });
}
