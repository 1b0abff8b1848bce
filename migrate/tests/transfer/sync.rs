//! Syncs over pipes that delay and break.

use crate::host::{C, Host, disk};
use std::collections::VecDeque;
use std::io::{PipeReader, PipeWriter, Read, Write};
use std::sync::{Arc, Mutex};
use std::thread::{JoinHandle, sleep, spawn};
use std::time::{Duration, Instant};
use stillpoint_migrate::Result;
use stillpoint_migrate::sync::{Give, Report, Take, give, take};
use stillpoint_migrate::wire::Consent;
use stillpoint_migrate::wire::message::Plan;
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
        let any = Take {
            consent: Consent::Any,
            ..Take::default()
        };
        let taker = scope.spawn(|| take(to.store(), any, near_end, back, &Progress::default()));
        let given = give(from.store(), what, back_end, far, &Progress::default());
        (given, taker.join().unwrap())
    })
}

#[track_caller]
pub fn sync(from: &Host, to: &Host, what: &Give) -> Report {
    let (given, taken) = sync_over(from, to, what, &WHOLE);
    let taken = taken.unwrap();
    assert_eq!(given.unwrap().outcome, taken.outcome);
    taken
}

pub fn source() -> Host {
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

#[test]
fn a_head_that_no_snapshot_holds_comes_too() {
    let from = Host::new(1);
    std::fs::write(from.image("i"), disk(0..5)).unwrap();
    let import = stillpoint_api::Import {
        image: &from.image("i"),
        device: "i",
        name: Some("v1"),
    };
    from.system.import(&import, &Progress::default()).unwrap();
    from.system.delete_uid(from.records()[0].uid).unwrap();
    let to = Host::new(2);
    let report = sync(&from, &to, &Give::default());
    assert_eq!(
        (report.outcome.snapshots.len(), report.outcome.clusters),
        (0, 5)
    );
    assert!(to.records().is_empty());
    assert_eq!(to.read("i"), disk(0..5));
    to.verify();
    assert_eq!(sync(&from, &to, &Give::default()).outcome.clusters, 0);
}

/// Passes a sender's messages on one by one; `before` may keep one back, and then nothing more is passed on.
fn relay(mut from: PipeReader, mut to: PipeWriter, before: &dyn Fn(u64, u8) -> bool) {
    let mut message = vec![0; 64];
    from.read_exact(&mut message).unwrap();
    for nth in 0.. {
        if to.write_all(&message).is_err() {
            return;
        }
        message.resize(16, 0);
        if from.read_exact(&mut message).is_err() || !before(nth, message[0]) {
            return;
        }
        let len = u32::from_le_bytes(message[4..8].try_into().unwrap());
        message.resize(16 + len as usize, 0);
        from.read_exact(&mut message[16..]).unwrap();
    }
}

/// Whether a message, by its number and kind, is passed on: to the receiver, and to the sender.
pub type Relays<'a> = (
    &'a (dyn Fn(u64, u8) -> bool + Sync),
    &'a (dyn Fn(u64, u8) -> bool + Sync),
);

/// A sync whose messages to the receiver, or to the sender, go through `before`.
pub fn sync_relayed(
    (from, to): (&Host, &Host),
    what: &Give,
    consent: Consent,
    (there, back): Relays<'_>,
) -> (Result<Report>, Result<Report>) {
    let pipe = || std::io::pipe().unwrap();
    let ((near, far), (near_end, onward)) = (pipe(), pipe());
    let ((answers, answer), (back_end, homeward)) = (pipe(), pipe());
    std::thread::scope(|scope| {
        scope.spawn(|| relay(near, onward, there));
        scope.spawn(|| relay(answers, homeward, back));
        let how = Take {
            consent,
            ..Take::default()
        };
        let taker = scope.spawn(|| take(to.store(), how, near_end, answer, &Progress::default()));
        let given = give(from.store(), what, back_end, far, &Progress::default());
        (given, taker.join().unwrap())
    })
}

#[test]
fn cut_off_at_every_message_in_either_direction_nothing_is_half_there_and_it_finishes() {
    let from = source();
    let what = Give {
        window_max: Some(40),
        ..Give::default()
    };
    let lived_through = Host::new(3);
    let pass = |_, _| true;
    for back in [false, true] {
        let mut cuts = 0;
        for cut in 0.. {
            let until = |nth: u64, _| nth < cut;
            for to in [&Host::new(2), &lived_through] {
                let lines: Relays<'_> = if back {
                    (&pass, &until)
                } else {
                    (&until, &pass)
                };
                let (given, taken) = sync_relayed((&from, to), &what, Consent::Any, lines);
                let records = to.records().len();
                assert_eq!(taken.is_ok(), records == 3, "{back} {cut}: {records}");
                assert!(records == 0 || records == 3, "{back} {cut}: {records}");
                assert!(taken.is_ok() || given.is_err(), "{back} {cut}");
                assert_eq!(to.catalog().sessions().count(), 0, "{back} {cut}");
            }
            cuts += 1;
            if !lived_through.records().is_empty() {
                break;
            }
        }
        assert!(cuts > 8, "{back}: only {cuts} messages");
        equal(&from, &lived_through);
        for record in lived_through.records() {
            lived_through.system.delete_uid(record.uid).unwrap();
        }
        let all = stillpoint_store::ops::gc::Options {
            all: true,
            dry_run: false,
        };
        let idle = Progress::default();
        lived_through.store().gc(all, &idle).unwrap();
    }
}

#[test]
fn a_mirror_keeps_what_came_after_it_had_begun() {
    let (from, to) = (source(), Host::new(2));
    sync(&from, &to, &Give::default());
    let one = from.records()[0].uid;
    from.system.delete_uid(one).unwrap();
    from.save("d", "three", &disk(500..520));
    let mirror = Give {
        mirror: true,
        ..Give::default()
    };
    // Before the sender's end arrives, another sync brings what the first sender's list has not.
    let end = |_, kind| {
        if kind == 13 {
            from.save("d", "four", &disk(700..710));
            sync(&from, &to, &Give::default());
        }
        true
    };
    let lines: Relays<'_> = (&end, &|_, _| true);
    let (given, taken) = sync_relayed((&from, &to), &mirror, Consent::Any, lines);
    given.unwrap();
    let deleted: Vec<_> = taken
        .unwrap()
        .outcome
        .deleted
        .iter()
        .map(|t| t.uid)
        .collect();
    assert_eq!(deleted, [one]);
    assert_eq!(to.read("d@four"), disk(700..710));
    equal(&from, &to);
}

#[test]
fn a_sender_that_was_asked_does_not_decide_what_is_deleted_or_stored() {
    let (from, to) = (source(), Host::new(2));
    sync(&from, &to, &Give::default());
    from.system.delete_uid(from.records()[0].uid).unwrap();
    from.save("d", "three", &disk(500..520));
    let before = to.records();
    let pass = |_, _| true;
    let plan = |mirror, dry_run| Plan { mirror, dry_run };
    for (asked, does) in [
        (plan(false, false), plan(true, false)),
        (plan(false, true), plan(false, false)),
        (plan(true, true), plan(true, false)),
    ] {
        let what = Give {
            mirror: does.mirror,
            dry_run: does.dry_run,
            ..Give::default()
        };
        let consent = Consent::Only(asked);
        let (given, taken) = sync_relayed((&from, &to), &what, consent, (&pass, &pass));
        let e = taken.unwrap_err();
        assert!(e.to_string().contains("nobody asked for"), "{e}");
        assert!(given.is_err());
        assert_eq!(to.records(), before);
    }
}
