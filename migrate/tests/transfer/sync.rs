//! Syncs over pipes that delay and break.

use crate::host::{C, Host, disk};
use std::collections::{BTreeMap, VecDeque};
use std::io::{PipeReader, PipeWriter, Read, Write};
use std::sync::{Arc, Mutex};
use std::thread::{JoinHandle, sleep, spawn};
use std::time::{Duration, Instant};
use stillpoint_migrate::Result;
use stillpoint_migrate::sync::{Give, Report, give, take};
use stillpoint_store::progress::Progress;

/// A pipe that breaks after so many bytes.
struct Breaking<R>(R, Arc<Mutex<u64>>);

impl<R: Read> Read for Breaking<R> {
    fn read(&mut self, into: &mut [u8]) -> std::io::Result<usize> {
        let mut left = self.1.lock().unwrap();
        let most = into.len().min(usize::try_from(*left).unwrap_or(usize::MAX));
        drop(left);
        let n = self.0.read(&mut into[..most])?;
        left = self.1.lock().unwrap();
        *left -= n as u64;
        Ok(n)
    }
}

/// What a sync is to go through.
#[derive(Clone)]
struct Line {
    delay: Duration,
    /// Bytes until it breaks: towards the receiver, and back.
    bytes: (u64, u64),
}

const WHOLE: Line = Line {
    delay: Duration::ZERO,
    bytes: (u64::MAX, u64::MAX),
};

/// Passes bytes on, each as much later as the line is long.
fn delayed(mut from: PipeReader, mut to: PipeWriter, delay: Duration) -> JoinHandle<()> {
    let queue: Arc<Mutex<VecDeque<(Instant, Vec<u8>)>>> = Arc::default();
    let filled = queue.clone();
    let fill = spawn(move || {
        let mut buffer = vec![0; 1 << 16];
        while let Ok(n) = from.read(&mut buffer) {
            let part = (Instant::now(), buffer[..n].to_vec());
            filled.lock().unwrap().push_back(part);
            if n == 0 {
                return;
            }
        }
    });
    spawn(move || {
        loop {
            let next = queue.lock().unwrap().pop_front();
            let Some((since, part)) = next else {
                sleep(Duration::from_millis(1));
                continue;
            };
            sleep((since + delay).saturating_duration_since(Instant::now()));
            if part.is_empty() || to.write_all(&part).is_err() {
                break;
            }
        }
        drop(to);
        let _ = fill.join();
    })
}

fn sync_over(from: &Host, to: &Host, what: &Give, line: &Line) -> (Result<Report>, Result<Report>) {
    let pipe = || std::io::pipe().unwrap();
    let ((near, far), (there, back)) = (pipe(), pipe());
    let ((near_end, far), (back_end, back)) = if line.delay.is_zero() {
        ((near, far), (there, back))
    } else {
        let (near_end, onward) = pipe();
        let (back_end, homeward) = pipe();
        delayed(near, onward, line.delay);
        delayed(there, homeward, line.delay);
        ((near_end, far), (back_end, back))
    };
    let bytes = |n: u64| Arc::new(Mutex::new(n));
    let near_end = Breaking(near_end, bytes(line.bytes.0));
    let back_end = Breaking(back_end, bytes(line.bytes.1));
    std::thread::scope(|scope| {
        let none = BTreeMap::new();
        let taker = scope.spawn(|| take(to.store(), none, near_end, back, &Progress::default()));
        let given = give(from.store(), what, back_end, far, &Progress::default());
        (given, taker.join().unwrap())
    })
}

#[track_caller]
fn sync(from: &Host, to: &Host, what: &Give) -> Report {
    let (given, taken) = sync_over(from, to, what, &WHOLE);
    let taken = taken.unwrap();
    assert_eq!(given.unwrap().outcome, taken.outcome);
    taken
}

fn source() -> Host {
    let host = Host::new(1);
    let mut bytes = disk(0..300);
    host.save("d", "one", &bytes);
    bytes[40 * C..42 * C].copy_from_slice(&disk([1000, 1001]));
    host.save_with("d", "two", &bytes, Some(&disk(0..9)));
    host.save("e", "other", &disk(100..160));
    host
}

#[track_caller]
fn equal(from: &Host, to: &Host) {
    assert_eq!(from.records(), to.records());
    for record in from.records() {
        let device = from.catalog().device(&record.device).unwrap().name.clone();
        let target = format!("{device}@{}", String::from_utf8(record.name).unwrap());
        assert_eq!(from.read(&target), to.read(&target), "{target}");
    }
    to.verify();
}

#[test]
fn a_store_is_brought_whole_and_then_only_what_is_new() {
    let (from, to) = (source(), Host::new(2));
    let report = sync(&from, &to, &Give::default());
    assert_eq!((report.outcome.snapshots.len(), report.hops), (3, 4));
    assert_eq!(report.outcome.clusters, 302, "each cluster once");
    equal(&from, &to);
    let again = sync(&from, &to, &Give::default());
    assert_eq!((again.outcome.already, again.outcome.clusters), (0, 0));
    assert!(again.sent_bytes < 400, "{}", again.sent_bytes);
    let mut bytes = from.read("d@two");
    bytes[7 * C..8 * C].copy_from_slice(&disk([2000]));
    from.save("d", "three", &bytes);
    let third = sync(&from, &to, &Give::default());
    assert_eq!(
        (third.outcome.snapshots.len(), third.outcome.clusters),
        (1, 1)
    );
    assert!(third.sent_bytes < C as u64 + 1000, "{}", third.sent_bytes);
    equal(&from, &to);
}

#[test]
fn one_snapshot_or_device_goes_alone() {
    let (from, to) = (source(), Host::new(2));
    let targets = |t: &str| Give {
        targets: vec![t.into()],
        ..Give::default()
    };
    sync(&from, &to, &targets("d@two"));
    assert_eq!(to.records().len(), 1);
    assert_eq!(from.read("d@two"), to.read("d@two"));
    sync(&from, &to, &targets("e"));
    assert_eq!(to.records().len(), 2);
    // The earlier one is told as changes of the later.
    let last = sync(&from, &to, &targets("d"));
    assert_eq!(
        (last.outcome.snapshots.len(), last.outcome.clusters),
        (1, 2)
    );
    assert_eq!(from.read("d@one"), to.read("d@one"));
    to.verify();
}

#[test]
fn a_dry_run_says_what_lacks_and_leaves_nothing() {
    let (from, to) = (source(), Host::new(2));
    let before = to.objects.dump();
    let dry = Give {
        dry_run: true,
        ..Give::default()
    };
    let report = sync(&from, &to, &dry);
    assert_eq!(
        (report.outcome.snapshots.len(), report.outcome.clusters),
        (3, 302)
    );
    assert_eq!(before, to.objects.dump());
}

#[test]
fn a_mirror_loses_what_the_source_deleted_and_only_there() {
    let (from, to) = (source(), Host::new(2));
    to.save("mine", "kept", &disk(0..3));
    sync(&from, &to, &Give::default());
    let one = from.records()[0].uid;
    from.system.delete_uid(one).unwrap();
    sync(&from, &to, &Give::default());
    assert_eq!(to.records().len(), 4, "not asked for");
    let mirror = Give {
        mirror: true,
        ..Give::default()
    };
    let report = sync(&from, &to, &mirror);
    assert_eq!(report.outcome.deleted.len(), 1);
    assert_eq!(report.outcome.deleted[0].uid, one);
    let uids = |host: &Host| host.records().iter().map(|r| r.uid).collect::<Vec<_>>();
    assert_eq!(to.records().len(), 3);
    assert!(uids(&from).iter().all(|uid| uids(&to).contains(uid)));
    assert_eq!(to.read("mine@kept"), disk(0..3));
}

#[test]
fn cut_off_at_any_byte_in_either_direction_it_finishes_when_repeated() {
    let from = source();
    let what = Give {
        window_max: Some(40),
        ..Give::default()
    };
    let whole = sync(&from, &Host::new(2), &what);
    let lived_through = Host::new(3);
    let there = (0..whole.sent_bytes)
        .step_by(20_011)
        .chain([1, 63, 64, 65, 80, 100, 1000]);
    let there = there.chain([whole.sent_bytes - 1]).map(|n| (n, u64::MAX));
    let back = (0..whole.asked_bytes - 1)
        .step_by(23)
        .map(|n| (u64::MAX, n));
    for bytes in there.chain(back) {
        let line = Line {
            bytes,
            ..WHOLE.clone()
        };
        let (given, taken) = sync_over(&from, &lived_through, &what, &line);
        let records = lived_through.records().len();
        if taken.is_ok() {
            // It was done, and the sender did not hear of it.
            assert_eq!(records, 3, "{bytes:?}");
            continue;
        }
        assert!(given.is_err(), "{bytes:?}");
        assert!(records == 0 || records == 3, "{bytes:?}: {records}");
        assert_eq!(lived_through.catalog().sessions().count(), 0, "{bytes:?}");
    }
    sync(&from, &lived_through, &Give::default());
    equal(&from, &lived_through);
}

#[test]
fn a_long_line_costs_its_length_a_few_times_whatever_the_number_of_clusters() {
    let mut hops = Vec::new();
    for clusters in [10, 1500] {
        let from = Host::new(1);
        from.save("d", "one", &disk(0..clusters));
        let to = Host::new(2);
        let line = Line {
            delay: Duration::from_millis(50),
            ..WHOLE
        };
        let (given, taken) = sync_over(&from, &to, &Give::default(), &line);
        assert_eq!(given.unwrap().hops, taken.as_ref().unwrap().hops);
        hops.push(taken.unwrap().hops);
        equal(&from, &to);
    }
    assert_eq!(hops, [4, 4]);
}

#[test]
fn windows_beyond_those_under_way_wait_for_one_before_them() {
    let from = Host::new(1);
    from.save("d", "one", &disk(0..200));
    // 200 changes: 50 windows, 16 of which are told at once.
    let many = Give {
        window_max: Some(4),
        ..Give::default()
    };
    let to = Host::new(2);
    let report = sync(&from, &to, &many);
    assert_eq!(
        report.hops,
        4 + 2 * (50 / 16),
        "two more for each 16 windows"
    );
    equal(&from, &to);
}

#[test]
fn the_error_of_one_side_is_told_by_both() {
    let (from, to) = (source(), Host::new(2));
    to.save("d", "mine", &disk(0..2));
    let (given, taken) = sync_over(&from, &to, &Give::default(), &WHOLE);
    let taken = taken.unwrap_err();
    assert!(
        taken
            .what_next()
            .is_some_and(|hint| hint.contains("--as d=NAME"))
    );
    let given = given.unwrap_err();
    assert!(
        given.to_string().contains("there is another device"),
        "{given}"
    );
    assert_eq!(given.what_next(), taken.what_next());
    let nothing = Give {
        targets: vec!["nobody".into()],
        ..Give::default()
    };
    let (given, taken) = sync_over(&from, &to, &nothing, &WHOLE);
    assert!(given.unwrap_err().to_string().contains("nobody"));
    assert!(taken.unwrap_err().to_string().contains("nobody"));
}

#[test]
fn a_device_without_an_image_comes_with_its_head() {
    let from = Host::new(1);
    std::fs::write(from.image("i"), disk(0..5)).unwrap();
    let import = stillpoint_api::Import {
        image: &from.image("i"),
        device: "i",
        name: Some("v1"),
    };
    from.system.import(&import, &Progress::default()).unwrap();
    let to = Host::new(2);
    sync(&from, &to, &Give::default());
    assert_eq!(to.read("i"), disk(0..5));
    let (ours, theirs) = (to.catalog(), from.catalog());
    let (ours, theirs) = (
        ours.device_named("i").unwrap(),
        theirs.device_named("i").unwrap(),
    );
    assert_eq!((ours.head, ours.base), (theirs.head, theirs.base));
}
