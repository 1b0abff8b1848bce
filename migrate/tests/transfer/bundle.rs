//! Bundles.

use crate::host::{C, GEOMETRY, Host, disk, letter};
use std::collections::BTreeMap;
use stillpoint_migrate::ErrorKind;
use stillpoint_migrate::bundle::{self, Receive, Received, Send, Summary};
use stillpoint_migrate::wire::stream::{HEAD_BYTES, PREAMBLE_BYTES};
use stillpoint_store::catalog::Catalog;
use stillpoint_store::format::entry::{Op, SessionKind};
use stillpoint_store::format::snapshot::SnapshotRecord;
use stillpoint_store::geometry::{Compression, Geometry};
use stillpoint_store::object::Purse;
use stillpoint_store::ops::gc;
use stillpoint_store::progress::Progress;

/// A device with three states, the second with VM state.
fn source() -> Host {
    let host = Host::new(1);
    let first = disk(0..40);
    host.save("d", "one", &first);
    let mut second = first.clone();
    second[5 * C..7 * C].copy_from_slice(&disk([100, 101]));
    second.extend(vec![0; 3 * C]);
    second.extend([7; 100]);
    host.save_with("d", "two", &second, Some(&disk(10..14)));
    second.truncate(30 * C);
    host.save("d", "three", &second);
    host
}

fn ends(bundle: &[u8]) -> Vec<usize> {
    let mut ends = vec![0, PREAMBLE_BYTES];
    let mut at = PREAMBLE_BYTES;
    while at < bundle.len() {
        let len = [4, 5, 6, 7].map(|i| bundle[at + i]);
        at += HEAD_BYTES + u32::from_le_bytes(len) as usize;
        ends.push(at);
    }
    assert_eq!(at, bundle.len());
    ends
}

#[test]
fn what_is_received_equals_what_was_sent_in_every_field_and_byte() {
    let from = source();
    let bundle = from.send(&["d@one", "d@two", "d@three"], &[]);
    let to = Host::new(2);
    let outcome = to.take(&bundle);
    assert_eq!((outcome.snapshots.len(), outcome.already), (3, 0));
    assert_eq!(from.records(), to.records());
    for target in ["d@one", "d@two", "d@three"] {
        assert_eq!(from.read(target), to.read(target), "{target}");
    }
    assert_eq!(to.read_vm("d@two"), disk(10..14));
    to.verify();
    let sessions = to.catalog().sessions().count();
    assert_eq!(sessions, 0, "nobody is at work any more");
    // Each cluster once: letters 0 to 39, 100, 101 and the odd end.
    assert_eq!(outcome.clusters, 43);
}

#[test]
fn receiving_again_is_the_same_as_once() {
    let from = source();
    let bundle = from.send(&["d@one", "d@two"], &[]);
    let to = Host::new(2);
    to.take(&bundle);
    let before = to.objects.dump();
    let outcome = to.take(&bundle);
    assert_eq!((outcome.snapshots.len(), outcome.already), (0, 2));
    let packs = |dump: &BTreeMap<String, Vec<u8>>| {
        dump.keys()
            .filter(|k| k.starts_with("packs/"))
            .cloned()
            .collect::<Vec<_>>()
    };
    assert_eq!(packs(&before), packs(&to.objects.dump()));
    assert_eq!(to.records().len(), 2);
}

#[test]
fn a_bundle_since_a_snapshot_has_only_what_changed_and_is_refused_without_it() {
    let from = source();
    let all = from.send(&["d@one", "d@two"], &[]);
    let one = from.send(&["d@one"], &[]);
    let two = from.send(&["d@two"], &["d@one"]);
    assert!(two.len() < all.len() / 3, "{} of {}", two.len(), all.len());
    let to = Host::new(2);
    let e = to.receive(&two).unwrap_err();
    assert_eq!(e.kind(), ErrorKind::Refused);
    assert!(e.to_string().contains("it builds on d@one"), "{e}");
    assert!(to.records().is_empty());
    to.take(&one);
    to.take(&two);
    assert_eq!(from.read("d@two"), to.read("d@two"));
    to.verify();
}

#[test]
fn cut_off_anywhere_nothing_counts_and_again_it_finishes() {
    let from = source();
    let bundle = from.send(&["d@one", "d@two", "d@three"], &[]);
    let mut cuts = ends(&bundle);
    cuts.pop();
    let inside: Vec<usize> = cuts.iter().map(|end| end + 9).collect();
    let between = (0..bundle.len()).step_by(997);
    cuts.extend(
        inside
            .into_iter()
            .chain(between)
            .filter(|cut| *cut < bundle.len()),
    );
    let lived_through = Host::new(3);
    for cut in cuts {
        for host in [&Host::new(2), &lived_through] {
            let e = host.receive(&bundle[..cut]).unwrap_err();
            assert_eq!(e.kind(), ErrorKind::Corrupt, "{cut}: {e:?}");
            assert!(
                e.what_next().is_some_and(|hint| hint.contains("again")),
                "{cut}: {e}"
            );
            let catalog = host.catalog();
            assert_eq!(
                catalog.snapshots().count() + catalog.devices().count(),
                0,
                "{cut}"
            );
            assert_eq!(catalog.sessions().count(), 0, "{cut}");
        }
    }
    let outcome = lived_through.take(&bundle);
    assert_eq!(outcome.clusters, 0, "all of it had arrived");
    assert_eq!(from.records(), lived_through.records());
    assert_eq!(from.read("d@two"), lived_through.read("d@two"));
    lived_through.verify();
}

#[test]
fn what_arrived_before_a_cut_is_not_stored_again() {
    let from = source();
    let bundle = from.send(&["d@one"], &[]);
    let to = Host::new(2);
    let ends = ends(&bundle);
    // Behind the first frame.
    let cut = ends[ends.len() - 10];
    to.receive(&bundle[..cut]).unwrap_err();
    let outcome = to.take(&bundle);
    assert!(
        outcome.clusters > 0 && outcome.clusters < 40,
        "{}",
        outcome.clusters
    );
    to.verify();
}

#[test]
fn every_flipped_byte_is_found_and_nothing_counts() {
    let from = Host::new(1);
    // These letters compress well, so that there are few bytes.
    from.save("d", "one", &disk([0, 3, 6, 9]));
    let good = from.send(&["d@one"], &[]);
    assert!(good.len() < 3000, "{} bytes", good.len());
    for at in 0..good.len() {
        let mut bad = good.clone();
        bad[at] ^= 1 << (at % 8);
        let to = Host::new(2);
        assert!(to.receive(&bad).is_err(), "byte {at}");
        assert!(to.records().is_empty(), "byte {at}");
    }
}

#[test]
fn something_behind_the_end_is_found() {
    let from = source();
    let bundle = from.send(&["d@one"], &[]);
    let to = Host::new(2);
    let e = to.receive(&[&bundle[..], b"x"].concat()).unwrap_err();
    assert!(e.to_string().contains("something follows"), "{e}");
}

fn summary_of(host: &Host) -> Summary {
    let mut bytes = Vec::new();
    bundle::write_summary(host.store(), &mut bytes, &Progress::default()).unwrap();
    Summary::read(&bytes[..]).unwrap()
}

fn send_for(from: &Host, target: &str, summary: Summary) -> Vec<u8> {
    from.send_as(&Send {
        targets: vec![target.into()],
        since: vec![],
        summary: Some(summary),
        window_max: None,
    })
}

#[test]
fn stores_without_a_common_snapshot_move_only_what_is_missing() {
    let from = Host::new(1);
    from.save("d", "one", &disk(0..60));
    let to = Host::new(2);
    // The same clusters elsewhere, but for five.
    to.save("e", "other", &disk((5..60).rev()));
    let bundle = send_for(&from, "d@one", summary_of(&to));
    let outcome = to.take(&bundle);
    assert_eq!(outcome.clusters, 5);
    assert_eq!(to.read("d@one"), disk(0..60));
    to.verify();
    assert!(
        bundle.len() < 5 * C + 60 * 32 + 1000,
        "{} bytes",
        bundle.len()
    );
}

#[test]
fn a_summary_that_is_wrong_loses_nothing_and_what_lacks_is_asked_for_exactly() {
    let from = Host::new(1);
    from.save("d", "one", &disk(0..60));
    let to = Host::new(2);
    to.save("e", "other", &disk(10..60));
    let summary = summary_of(&to);
    let e = to.catalog().device_named("e").unwrap().uid;
    let other = to.catalog().snapshots_of(&e)[0].record.uid;
    to.save("e", "less", &disk(13..60));
    to.system.delete_uid(other).unwrap();
    let all = gc::Options {
        all: true,
        dry_run: false,
    };
    to.store().gc(all, &Progress::default()).unwrap();

    let bundle = send_for(&from, "d@one", summary);
    let Received::Lacking { needed, count } = to.receive(&bundle).unwrap() else {
        panic!("three clusters are missing")
    };
    let mut missing: Vec<_> = (10..13)
        .map(|n| stillpoint_store::id::Hash::of(&letter(n)))
        .collect();
    missing.sort_unstable();
    assert_eq!((needed.clone(), count), (missing, 3));
    assert_eq!(to.records().len(), 1, "nothing of it counts");

    let mut need = Vec::new();
    bundle::write_need(to.store(), &needed, &mut need).unwrap();
    let second = send_for(&from, "d@one", Summary::read(&need[..]).unwrap());
    assert!(second.len() < bundle.len());
    let outcome = to.take(&second);
    assert_eq!(outcome.clusters, 3, "the others were kept");
    assert_eq!(to.read("d@one"), disk(0..60));
    to.verify();
}

#[test]
fn ids_that_are_taken_are_counted_up_and_the_rest_of_the_record_stays() {
    let from = Host::new(1);
    from.save("d", "one", &disk(0..4));
    let to = Host::new(2);
    to.take(&from.send(&["d@one"], &[]));
    // Both go on: each makes its own snapshot 2.
    from.save("d", "two", &disk(1..5));
    let image = to.image("d");
    std::fs::write(&image, disk(2..6)).unwrap();
    to.system.device_attach("d", &image, "raw", false).unwrap();
    to.save("d", "deux", &disk(2..6));
    let outcome = to.take(&from.send(&["d@two"], &["d@one"]));
    assert_eq!(outcome.snapshots[0].renumbered.as_deref(), Some(&b"2"[..]));
    let mut theirs = from.records()[1].clone();
    theirs.id = b"3".to_vec();
    assert_eq!(to.records()[2], theirs);
    assert_eq!(to.read("d@id:2"), disk(2..6));
    assert_eq!(to.read("d@id:3"), disk(1..5));
    // What the image here comes from is still what was made of it here.
    let catalog = to.catalog();
    let base = catalog.device_named("d").unwrap().base;
    assert_eq!(base, Some(to.records()[1].uid));
}

#[test]
fn the_last_id_that_there_is_is_counted_up_to_the_first() {
    let last = |host: &Host| {
        let one = host.records()[0].clone();
        let record = SnapshotRecord {
            uid: host.store().new_uid(),
            id: u64::MAX.to_string().into_bytes(),
            name: b"last".to_vec(),
            ..one
        };
        let mut put = |_: &Catalog| {
            Ok(vec![Op::PutSnapshot {
                record: record.clone(),
                gotos_begun: 0,
            }])
        };
        let store = host.store();
        store
            .commit(SessionKind::Writer, Purse::Free, &mut put)
            .unwrap();
    };
    let from = Host::new(1);
    from.save("d", "one", &disk(0..4));
    let to = Host::new(2);
    to.take(&from.send(&["d@one"], &[]));
    last(&to);
    last(&from);
    let outcome = to.take(&from.send(&["d@last"], &["d@one"]));
    let renumbered = &outcome.snapshots[0];
    assert_eq!(renumbered.id, b"2", "1 is there");
    assert_eq!(renumbered.renumbered, Some(u64::MAX.to_string().into()));
}

#[test]
fn another_device_of_the_name_is_refused_unless_it_gets_another() {
    let from = source();
    let bundle = from.send(&["d@one"], &[]);
    let to = Host::new(2);
    to.save("d", "mine", &disk(0..2));
    let e = to.receive(&bundle).unwrap_err();
    assert_eq!(e.kind(), ErrorKind::AlreadyExists);
    assert!(
        e.what_next()
            .is_some_and(|hint| hint.contains("--as d=NAME"))
    );
    let receive = Receive {
        renames: BTreeMap::from([("d".into(), "old".into())]),
    };
    let cursor = std::io::Cursor::new(bundle);
    bundle::receive(to.store(), &receive, cursor, &Progress::default()).unwrap();
    assert_eq!(to.read("old@one"), disk(0..40));
}

#[test]
fn stores_that_compress_otherwise_take_the_same() {
    let from = source();
    let bundle = from.send(&["d@one", "d@two"], &[]);
    for (frame_bytes, compression) in [
        (4096, Compression::None),
        (8192, Compression::Zstd(3)),
        (1 << 20, Compression::Zstd(1)),
    ] {
        let to = Host::of(
            2,
            Geometry {
                frame_bytes,
                compression,
                ..GEOMETRY
            },
        );
        to.take(&bundle);
        assert_eq!(from.read("d@two"), to.read("d@two"));
        to.verify();
    }
    let other = Host::of(
        2,
        Geometry {
            cluster_bytes: 8192,
            ..GEOMETRY
        },
    );
    let e = other.receive(&bundle).unwrap_err();
    assert_eq!(e.kind(), ErrorKind::Refused);
}

#[test]
fn a_gc_while_a_bundle_comes_takes_nothing_that_it_counts_on() {
    use std::io::Read;
    /// Runs a gc when half of it was read.
    struct Interrupted(
        std::io::Cursor<Vec<u8>>,
        u64,
        Option<Box<dyn FnOnce() + std::marker::Send>>,
    );
    impl Read for Interrupted {
        fn read(&mut self, into: &mut [u8]) -> std::io::Result<usize> {
            if self.0.position() > self.1
                && let Some(act) = self.2.take()
            {
                act();
            }
            self.0.read(into)
        }
    }
    let from = Host::new(1);
    from.save("d", "one", &disk(0..200));
    let to = Host::new(2);
    to.save("e", "other", &disk(0..100));
    let bundle = from.send(&["d@one"], &[]);
    let other = to.reopened();
    let act = move || {
        let e = other
            .store()
            .refresh()
            .unwrap()
            .device_named("e")
            .unwrap()
            .uid;
        let uid = other.store().catalog().snapshots_of(&e)[0].record.uid;
        other.delete_uid(uid).unwrap();
        let options = gc::Options {
            all: true,
            dry_run: false,
        };
        other.store().gc(options, &Progress::default()).unwrap();
    };
    let half = bundle.len() as u64 / 2;
    let from_pipe = Interrupted(
        std::io::Cursor::new(bundle.clone()),
        half,
        Some(Box::new(act)),
    );
    let received = bundle::receive(
        to.store(),
        &Receive::default(),
        from_pipe,
        &Progress::default(),
    );
    // Whatever the gc took before it was counted on is missing, and said to be; nothing is half there.
    match received {
        Ok(Received::Whole(_)) => {}
        Ok(Received::Lacking { .. }) | Err(_) => {
            to.take(&bundle);
        }
    }
    assert_eq!(to.read("d@one"), disk(0..200));
    to.verify();
}
