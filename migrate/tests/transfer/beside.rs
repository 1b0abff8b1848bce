//! Syncs beside deletes and gc on both sides, and what they read.

use crate::host::{C, Host, disk};
use crate::sync::{source, sync, sync_relayed};
use stillpoint_migrate::sync::{Give, Take, give, take};
use stillpoint_migrate::wire::Consent;
use stillpoint_migrate::wire::message::Plan;
use stillpoint_store::ErrorKind;
use stillpoint_store::format::entry::PackKind;
use stillpoint_store::ops::gc;
use stillpoint_store::progress::Progress;

/// As another process does it.
fn gc_all(host: &Host) {
    let all = gc::Options {
        all: true,
        dry_run: false,
    };
    let system = host.reopened();
    system.store().gc(all, &Progress::default()).unwrap();
}

fn delete_all(host: &Host) {
    let system = host.reopened();
    for snapshot in system.list(None).unwrap() {
        system.delete_uid(snapshot.uid).unwrap();
    }
    gc_all(host);
}

#[test]
fn what_is_being_sent_may_be_deleted_and_comes_all_the_same() {
    let (from, to) = (source(), Host::new(2));
    let records = from.records();
    let disks = ["d@one", "d@two", "e@other"].map(|name| (name, from.read(name)));
    let what = Give {
        window_max: Some(40),
        ..Give::default()
    };
    // Each message of the sender finds its store emptied, and what nothing holds gone from the receiver's.
    let empty = |_, _| {
        delete_all(&from);
        gc_all(&to);
        true
    };
    let (given, taken) = sync_relayed((&from, &to), &what, Consent::Any, (&empty, &|_, _| true));
    given.unwrap();
    assert_eq!(taken.unwrap().outcome.snapshots.len(), 3);
    assert!(from.reopened().list(None).unwrap().is_empty());
    assert_eq!(to.records(), records);
    for (name, disk) in disks {
        assert!(to.read(name) == disk, "{name}");
    }
    to.verify();
    gc_all(&from);
    let left = from.reopened();
    assert_eq!(left.store().refresh().unwrap().sessions().count(), 0);
}

#[test]
fn what_is_built_on_may_be_deleted_there_and_nothing_is_lost() {
    for kind in 3..14 {
        let (from, to) = (source(), Host::new(2));
        sync(&from, &to, &Give::default());
        let mut bytes = from.read("d@two");
        bytes[7 * C..9 * C].copy_from_slice(&disk([2000, 2001]));
        from.save("d", "three", &bytes);
        // Told as changes of what goes just before a message of this kind arrives.
        let go = |_, this| {
            if this == kind {
                delete_all(&to);
            }
            true
        };
        let lines: crate::sync::Relays<'_> = (&go, &|_, _| true);
        let (given, taken) = sync_relayed((&from, &to), &Give::default(), Consent::Any, lines);
        assert_eq!(given.is_ok(), taken.is_ok());
        if let Err(e) = taken {
            assert_eq!(e.kind(), ErrorKind::Busy, "{kind}: {e}");
            assert!(e.what_next().unwrap().contains("again"), "{kind}: {e}");
        } else {
            assert_eq!(to.read("d@three"), bytes, "{kind}");
        }
        to.store().refresh().unwrap();
        to.verify();
        sync(&from, &to, &Give::default());
        assert_eq!(to.records().len(), 4);
        for name in ["d@one", "d@two", "d@three", "e@other"] {
            assert!(from.read(name) == to.read(name), "{kind}: {name}");
        }
        to.verify();
    }
}

#[test]
fn a_mirror_of_named_devices_touches_no_others() {
    let (from, to) = (source(), Host::new(2));
    let run = |target: Option<&str>, mirror, how: Take| {
        let what = Give {
            targets: target.map(Into::into).into_iter().collect(),
            mirror,
            ..Give::default()
        };
        let pipe = || std::io::pipe().unwrap();
        let ((wants, asks), (frames, sends)) = (pipe(), pipe());
        std::thread::scope(|scope| {
            let taker = scope.spawn(|| take(to.store(), how, frames, asks, &Progress::default()));
            let idle = Progress::default();
            let given = give(from.store(), &what, wants, sends, &idle);
            let taken = taker.join().unwrap();
            assert_eq!(given.is_ok(), taken.is_ok());
            taken
        })
    };
    let renamed = Take {
        renames: [("e".to_string(), "mine".to_string())].into(),
        ..Take::default()
    };
    run(None, false, renamed.clone()).unwrap();
    delete_all(&from);
    from.save("d", "four", &disk(0..3));
    let plan = Plan {
        mirror: true,
        dry_run: false,
    };
    let asked = |name: &str, how: Take| Take {
        consent: Consent::Only(plan),
        only: [name.to_string()].into(),
        ..how
    };
    // It sends another device than was asked for.
    let e = run(Some("e"), true, asked("d", Take::default())).unwrap_err();
    let text = e.to_string();
    assert!(text.contains("\"e\" comes, which nobody asked for"), "{e}");
    // It calls as was asked for what has another name here.
    let e = run(Some("e"), true, asked("e", Take::default())).unwrap_err();
    assert!(e.what_next().unwrap().contains("--as e=mine"), "{e}");
    assert_eq!(to.records().len(), 3);
    let done = run(Some("d"), true, asked("d", Take::default())).unwrap();
    assert_eq!((done.outcome.deleted.len(), to.records().len()), (2, 2));
    assert_eq!(to.read("mine@other"), disk(100..160));
    let done = run(Some("e"), true, asked("e", renamed)).unwrap();
    assert_eq!(done.outcome.deleted.len(), 1);
}

#[test]
fn no_frame_is_read_twice() {
    let (from, to) = (source(), Host::new(2));
    let (system, reads) = from.watched();
    reads.lock().unwrap().clear();
    let pipe = || std::io::pipe().unwrap();
    let ((wants, asks), (frames, sends)) = (pipe(), pipe());
    std::thread::scope(|scope| {
        let how = Take::default();
        let taker = scope.spawn(|| take(to.store(), how, frames, asks, &Progress::default()));
        let idle = Progress::default();
        give(system.store(), &Give::default(), wants, sends, &idle).unwrap();
        taker.join().unwrap().unwrap();
    });
    let catalog = from.catalog();
    let of_clusters = |key: &&String| {
        let packs = catalog.packs();
        let mut clusters = packs.filter(|p| p.record.kind == PackKind::Clusters);
        clusters.any(|p| p.name.key() == **key)
    };
    let packs = catalog.packs().count();
    let reads = reads.lock().unwrap();
    let reads = reads.iter().filter(of_clusters).count();
    // 302 clusters in frames of four, and a table of each pack in two reads.
    assert!(
        reads >= 302 / 4,
        "{reads} reads are too few: nothing counted"
    );
    assert!(
        reads <= 302_usize.div_ceil(4) + 3 + 2 * packs,
        "{reads} reads"
    );
}
