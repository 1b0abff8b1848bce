//! Every op: what it does, and what makes it invalid.

use super::{Catalog, Invalid, Rules};
use crate::format::codec;
use crate::format::entry::{
    Attachment, ChainPoint, Content, Entry, GotoDevice, GotoRecord, GotoResult, HeadOrigin, Op,
    PackKind, PackRecord, SessionKind, VolumeRecord,
};
use crate::format::snapshot::SnapshotRecord;
use crate::id::{Hash, PackName, PackNumber, Sequence, SessionId, Uid};
use std::collections::BTreeMap;

const DISK: Uid = Uid([1; 16]);

/// A catalog and the sessions that write to it.
struct Bench {
    catalog: Catalog,
    counter: u64,
    rules: Rules,
}

impl Bench {
    fn new() -> Self {
        Self {
            catalog: Catalog::default(),
            counter: 0,
            rules: Rules::default(),
        }
    }

    fn entry(&mut self, entry: &Entry) -> Result<(), Invalid> {
        let checksum = Hash::of(&codec::encode(entry));
        let (next, valid) = self.catalog.apply(checksum, entry, self.rules);
        assert_eq!(next.seq(), self.catalog.seq() + 1);
        assert_eq!(next.tip(), checksum);
        self.catalog = next;
        valid
    }

    fn try_ops(&mut self, session: SessionId, ops: &[Op]) -> Result<(), Invalid> {
        self.counter += 1;
        let (counter, base) = (self.counter, self.catalog.seq());
        self.entry(&Entry {
            session,
            counter,
            base,
            ops: ops.to_vec(),
        })
    }

    fn ops(&mut self, session: SessionId, ops: &[Op]) {
        self.try_ops(session, ops).unwrap();
    }

    /// The ops have no effect but to take their place.
    fn refused(&mut self, session: SessionId, ops: &[Op], why: Invalid) {
        let before = self.catalog.clone();
        assert_eq!(self.try_ops(session, ops), Err(why));
        let mut same = self.catalog.clone();
        (same.seq, same.tip) = (before.seq, before.tip);
        assert_eq!(same, before);
    }

    fn open(&mut self) -> SessionId {
        let session = SessionId {
            opened_at: self.catalog.seq() + 1,
            nonce: 7,
        };
        self.ops(session, &[open()]);
        session
    }

    /// A session on a store with one device.
    fn with_device() -> (Self, SessionId) {
        let mut bench = Self::new();
        let session = bench.open();
        bench.ops(session, &[device(DISK, "disk")]);
        (bench, session)
    }

    /// Packs 0 to `n` of a session that has ended, and another session.
    fn with_packs(n: u32) -> (Self, Vec<PackName>, SessionId) {
        let (mut bench, first) = Self::with_device();
        bench.ops(first, &[publish(0..n), Op::Close]);
        let names = (0..n).map(|n| PackName { session: first, n }).collect();
        let session = bench.open();
        (bench, names, session)
    }

    fn last_named(&self, name: &PackName) -> Sequence {
        self.catalog.pack(name).unwrap().last_named
    }
}

fn open() -> Op {
    Op::Open {
        kind: SessionKind::Writer,
        label: "bench".into(),
    }
}

fn device(uid: Uid, name: &str) -> Op {
    Op::PutDevice {
        uid,
        name: name.into(),
        attachment: None,
    }
}

fn pack(n: u32) -> PackRecord {
    let kind = PackKind::Clusters;
    PackRecord {
        n,
        kind,
        hash: Hash([n as u8; 32]),
        size: 1,
        entries: 1,
        blocks: 1,
    }
}

fn publish(packs: std::ops::Range<u32>) -> Op {
    Op::Publish {
        packs: packs.map(pack).collect(),
    }
}

fn root(n: u8) -> Hash {
    Hash([n; 32])
}

fn content(n: u8) -> Content {
    Content {
        root: root(n),
        size: 1,
    }
}

/// Contents of a size that no disk has.
fn endless(n: u8) -> Content {
    Content {
        size: u64::MAX,
        ..content(n)
    }
}

fn record(n: u8) -> SnapshotRecord {
    SnapshotRecord {
        uid: Uid([n; 16]),
        device: DISK,
        id: n.to_string().into_bytes(),
        name: Vec::new(),
        date_sec: 0,
        date_nsec: 0,
        vm_clock_nsec: 0,
        icount: None,
        vm_state: None,
        content: content(n),
        group: None,
        parent: None,
        extra: Vec::new(),
        labels: BTreeMap::new(),
    }
}

fn snapshot(n: u8) -> Op {
    Op::PutSnapshot {
        record: record(n),
        gotos_begun: 0,
    }
}

fn delete(n: u8) -> Op {
    Op::DeleteSnapshot { uid: Uid([n; 16]) }
}

fn rely(packs: &[PackName], roots: &[Hash]) -> Op {
    Op::Rely {
        packs: packs.to_vec(),
        roots: roots.to_vec(),
    }
}

fn pin(packs: &[PackName], roots: &[Hash]) -> Op {
    Op::Pin {
        packs: packs.to_vec(),
        roots: roots.to_vec(),
    }
}

fn head(n: Option<u8>) -> Op {
    Op::PutHead {
        uid: DISK,
        head: n.map(content),
        base: None,
    }
}

/// A goto of the disk from contents 90 to those of snapshot `n`.
fn begin(n: u8) -> Op {
    let (undo, target) = (content(90), content(n));
    let snapshot = Uid([n; 16]);
    let disk = GotoDevice {
        device: DISK,
        undo,
        undo_base: None,
        target,
        snapshot,
    };
    Op::GotoBegin {
        record: GotoRecord {
            uid: Uid([80; 16]),
            devices: vec![disk],
        },
    }
}

fn end(result: GotoResult) -> Op {
    Op::GotoEnd {
        uid: Uid([80; 16]),
        result,
    }
}

fn compact(base: Sequence, dropped: &[PackName], kept: &[PackName]) -> Op {
    Op::Compact {
        base,
        new: vec![],
        dropped: dropped.to_vec(),
        kept: kept.to_vec(),
    }
}

#[test]
fn a_session_is_open_from_its_open_to_its_close() {
    let mut bench = Bench::new();
    let early = SessionId {
        opened_at: 1,
        nonce: 7,
    };
    assert!(!bench.catalog.has_ended(&early), "it may yet open");
    let session = bench.open();
    assert_eq!(session, early);
    assert!(bench.catalog.session(&session).is_some() && !bench.catalog.has_ended(&session));
    bench.ops(session, &[Op::Close]);
    assert!(bench.catalog.session(&session).is_none() && bench.catalog.has_ended(&session));
    bench.refused(
        session,
        &[device(DISK, "disk")],
        Invalid::SessionNotOpen(session),
    );
}

#[test]
fn a_session_is_opened_only_at_the_sequence_in_its_name_and_once() {
    let mut bench = Bench::new();
    let wrong = SessionId {
        opened_at: 2,
        nonce: 7,
    };
    bench.refused(wrong, &[open()], Invalid::OpenedElsewhere);
    let session = bench.open();
    bench.refused(session, &[open()], Invalid::OpenedElsewhere);
}

#[test]
fn an_entry_has_no_effect_when_one_of_its_ops_is_invalid() {
    let (mut bench, session) = Bench::with_device();
    let other = Uid([2; 16]);
    let ops = [
        device(other, "other"),
        publish(0..2),
        snapshot(3),
        delete(4),
    ];
    bench.refused(session, &ops, Invalid::SnapshotUnknown(Uid([4; 16])));
    assert!(bench.catalog.device(&other).is_none());
    // Each op is valid or not on the state after the one before.
    bench.ops(session, &[snapshot(4), head(Some(4)), delete(4)]);
    bench.refused(
        session,
        &[Op::Close, snapshot(5)],
        Invalid::SessionNotOpen(session),
    );
    assert!(bench.catalog.session(&session).is_some());
}

#[test]
fn an_entry_counts_once() {
    let (mut bench, session) = Bench::with_device();
    let ops = vec![publish(0..1)];
    let entry = Entry {
        session,
        counter: 10,
        base: 0,
        ops,
    };
    bench.entry(&entry).unwrap();
    let again = Entry {
        ops: vec![publish(1..2)],
        ..entry
    };
    assert_eq!(bench.entry(&again), Err(Invalid::StaleCounter));
    assert_eq!(bench.catalog.packs().count(), 1);
    bench.rules.counter_newer = false;
    bench.entry(&again).unwrap();
    assert_eq!(bench.catalog.packs().count(), 2);
}

#[test]
fn ending_an_ended_session_is_no_error_and_ending_one_drops_its_claims() {
    let (mut bench, packs, session) = Bench::with_packs(1);
    bench.ops(session, &[snapshot(3), pin(&packs, &[root(3)]), delete(3)]);
    assert!(bench.catalog.pinned(&packs[0]) && bench.catalog.reachable(&root(3)));
    let expirer = bench.open();
    bench.ops(expirer, &[Op::Expire { session }]);
    assert!(!bench.catalog.pinned(&packs[0]) && !bench.catalog.reachable(&root(3)));
    bench.ops(expirer, &[Op::Expire { session }]);
}

#[test]
fn packs_get_numbers_that_are_never_used_again() {
    let (mut bench, packs, session) = Bench::with_packs(2);
    let number = |bench: &Bench, name| bench.catalog.pack(name).unwrap().number;
    assert_eq!(
        (number(&bench, &packs[0]), number(&bench, &packs[1])),
        (PackNumber(0), PackNumber(1))
    );
    let base = bench.catalog.seq();
    bench.ops(session, &[compact(base, &packs, &[]), publish(0..1)]);
    let new = PackName { session, n: 0 };
    assert_eq!(number(&bench, &new), PackNumber(2));
    assert!(bench.catalog.pack_numbered(PackNumber(0)).is_none());
    assert_eq!(
        bench.catalog.pack_numbered(PackNumber(2)).unwrap().name,
        new
    );
    bench.refused(session, &[publish(0..1)], Invalid::PackExists(new));
}

#[test]
fn what_is_relied_on_must_be_there_and_is_named() {
    for op in [rely, pin] {
        let (mut bench, packs, session) = Bench::with_packs(1);
        bench.ops(session, &[snapshot(3)]);
        bench.ops(session, &[op(&packs, &[root(3)])]);
        assert_eq!(bench.last_named(&packs[0]), bench.catalog.seq());
        let gone = PackName { n: 9, ..packs[0] };
        bench.refused(session, &[op(&[gone], &[])], Invalid::PackNotLive(gone));
        bench.refused(
            session,
            &[op(&[], &[root(4)])],
            Invalid::RootNotReachable(root(4)),
        );
        bench.rules.packs_live = false;
        bench.ops(session, &[op(&[gone], &[])]);
        bench.rules.roots_reachable = false;
        bench.ops(session, &[op(&[], &[root(4)])]);
    }
}

#[test]
fn a_pin_holds_until_it_is_given_back() {
    let (mut bench, packs, session) = Bench::with_packs(1);
    bench.ops(
        session,
        &[snapshot(3), pin(&packs, &[root(3), root(3)]), delete(3)],
    );
    assert_eq!(bench.catalog.roots(), [root(3)]);
    let unpin = Op::Unpin {
        packs: packs.clone(),
        roots: vec![root(3), root(9)],
    };
    bench.ops(session, &[unpin]);
    assert!(bench.catalog.roots().is_empty() && !bench.catalog.pinned(&packs[0]));
}

#[test]
fn a_snapshot_is_its_devices_base_and_counts_its_ids_on() {
    let (mut bench, session) = Bench::with_device();
    let disk = |bench: &Bench| bench.catalog.device(&DISK).unwrap().clone();
    assert_eq!(disk(&bench).next_id, 1);
    bench.ops(session, &[snapshot(9), snapshot(3)]);
    assert_eq!(
        (disk(&bench).next_id, disk(&bench).base),
        (10, Some(Uid([3; 16])))
    );
    let odd = |id: &[u8], n| {
        let record = SnapshotRecord {
            id: id.to_vec(),
            ..record(n)
        };
        Op::PutSnapshot {
            record,
            gotos_begun: 0,
        }
    };
    bench.ops(
        session,
        &[
            odd(b"auto", 4),
            odd(b"", 5),
            odd(b"99999999999999999999", 6),
        ],
    );
    assert_eq!(disk(&bench).next_id, 10);
    let free: Vec<u64> = bench.catalog.free_ids(&DISK, &[]).take(2).collect();
    assert_eq!(free, [10, 11]);
    let free: Vec<u64> = bench.catalog.free_ids(&DISK, &[20, 7]).take(2).collect();
    assert_eq!(free, [21, 22]);
    bench.ops(session, &[odd(b"18446744073709551615", 7)]);
    assert_eq!(disk(&bench).next_id, u64::MAX, "as far as it goes");
    let free: Vec<u64> = bench.catalog.free_ids(&DISK, &[]).take(3).collect();
    assert_eq!(free, [1, 2, 4], "3 and the last number are there");
    let made: Vec<u8> = bench
        .catalog
        .snapshots_of(&DISK)
        .iter()
        .map(|s| s.record.uid.0[0])
        .collect();
    assert_eq!(
        made,
        [9, 3, 4, 5, 6, 7],
        "in the order in which they were made"
    );
}

#[test]
fn a_snapshot_needs_a_device_and_a_new_uid_and_a_sound_record() {
    let (mut bench, session) = Bench::with_device();
    bench.ops(session, &[snapshot(3)]);
    bench.refused(
        session,
        &[snapshot(3)],
        Invalid::SnapshotExists(Uid([3; 16])),
    );
    let nowhere = SnapshotRecord {
        device: Uid([5; 16]),
        ..record(4)
    };
    let put = Op::PutSnapshot {
        record: nowhere,
        gotos_begun: 0,
    };
    bench.refused(session, &[put], Invalid::DeviceUnknown(Uid([5; 16])));
    let long = SnapshotRecord {
        name: vec![b'x'; 256],
        ..record(4)
    };
    let large = SnapshotRecord {
        content: endless(4),
        ..record(4)
    };
    for record in [long, large] {
        let put = Op::PutSnapshot {
            record,
            gotos_begun: 0,
        };
        assert!(matches!(
            bench.try_ops(session, &[put]),
            Err(Invalid::Malformed(_))
        ));
    }
}

#[test]
fn a_snapshots_roots_are_reachable_until_it_is_deleted() {
    let (mut bench, session) = Bench::with_device();
    let with_state = SnapshotRecord {
        vm_state: Some(content(40)),
        ..record(4)
    };
    bench.ops(
        session,
        &[
            snapshot(3),
            Op::PutSnapshot {
                record: with_state,
                gotos_begun: 0,
            },
        ],
    );
    assert_eq!(bench.catalog.roots(), [root(3), root(4), root(40)]);
    bench.ops(session, &[delete(4)]);
    assert_eq!(bench.catalog.roots(), [root(3)]);
    assert_eq!(
        bench.catalog.device(&DISK).unwrap().base,
        None,
        "its base is gone"
    );
    bench.refused(
        session,
        &[delete(4)],
        Invalid::SnapshotUnknown(Uid([4; 16])),
    );
}

#[test]
fn names_of_devices_are_unique_and_can_be_changed() {
    let (mut bench, session) = Bench::with_device();
    let other = Uid([2; 16]);
    bench.refused(
        session,
        &[device(other, "disk")],
        Invalid::NameTaken("disk".into()),
    );
    bench.ops(
        session,
        &[snapshot(3), device(DISK, "renamed"), device(other, "disk")],
    );
    let renamed = bench.catalog.device_named("renamed").unwrap();
    assert_eq!((renamed.uid, renamed.next_id), (DISK, 4), "the rest stays");
    for bad in [String::new(), "x".repeat(256)] {
        let op = device(Uid([3; 16]), &bad);
        assert!(matches!(
            bench.try_ops(session, &[op]),
            Err(Invalid::Malformed(_))
        ));
    }
    let image = Attachment {
        path: vec![b'x'; 4097],
        format: "raw".into(),
        read_only: false,
    };
    let op = Op::PutDevice {
        uid: DISK,
        name: "disk".into(),
        attachment: Some(image),
    };
    assert!(bench.try_ops(session, &[op]).is_err());
}

#[test]
fn only_a_device_without_snapshots_can_be_removed() {
    let (mut bench, session) = Bench::with_device();
    let remove = Op::RemoveDevice { uid: DISK };
    bench.ops(session, &[snapshot(3), head(Some(3))]);
    bench.refused(session, &[remove.clone()], Invalid::HasSnapshots(DISK));
    bench.ops(session, &[delete(3)]);
    assert!(bench.catalog.reachable(&root(3)), "the head holds it");
    bench.ops(session, &[remove.clone()]);
    assert!(bench.catalog.roots().is_empty());
    bench.refused(session, &[remove], Invalid::DeviceUnknown(DISK));
}

#[test]
fn a_head_is_put_only_on_a_root_that_something_holds() {
    let (mut bench, session) = Bench::with_device();
    bench.refused(
        session,
        &[head(Some(3))],
        Invalid::RootNotReachable(root(3)),
    );
    bench.ops(session, &[snapshot(3), head(Some(3))]);
    bench.ops(session, &[delete(3), head(Some(3))]);
    assert!(bench.catalog.reachable(&root(3)), "it holds itself");
    bench.ops(session, &[head(None)]);
    bench.refused(
        session,
        &[head(Some(3))],
        Invalid::RootNotReachable(root(3)),
    );
    bench.rules.roots_reachable = false;
    bench.ops(session, &[head(Some(3))]);
}

#[test]
fn a_goto_marks_its_devices_and_holds_both_contents() {
    let (mut bench, session) = Bench::with_device();
    bench.refused(session, &[begin(3)], Invalid::RootNotReachable(root(3)));
    bench.ops(session, &[snapshot(3)]);
    bench.ops(session, &[begin(3)]);
    let disk = |bench: &Bench| bench.catalog.device(&DISK).unwrap().clone();
    assert_eq!(
        (disk(&bench).in_goto, disk(&bench).gotos_begun),
        (Some(Uid([80; 16])), 1)
    );
    for op in [
        snapshot(4),
        device(DISK, "renamed"),
        Op::RemoveDevice { uid: DISK },
    ] {
        bench.refused(session, &[op], Invalid::DeviceInGoto(DISK));
    }
    bench.refused(session, &[begin(3)], Invalid::GotoExists(Uid([80; 16])));
    bench.ops(session, &[delete(3), Op::Close]);
    assert_eq!(
        bench.catalog.roots(),
        [root(3), root(90)],
        "whatever becomes of the session"
    );
    let other = bench.open();
    bench.ops(other, &[end(GotoResult::Done)]);
    assert_eq!(disk(&bench).in_goto, None);
    assert!(bench.catalog.roots().is_empty());
    bench.refused(
        other,
        &[end(GotoResult::Done)],
        Invalid::GotoUnknown(Uid([80; 16])),
    );
}

#[test]
fn a_goto_that_was_done_has_the_target_as_base_and_one_undone_what_was() {
    for (result, base) in [
        (GotoResult::Done, Some(Uid([3; 16]))),
        (GotoResult::Undone, None),
    ] {
        let (mut bench, session) = Bench::with_device();
        bench.ops(session, &[snapshot(3), snapshot(4)]);
        bench.ops(session, &[begin(3)]);
        bench.ops(session, &[end(result)]);
        assert_eq!(bench.catalog.device(&DISK).unwrap().base, base);
    }
}

#[test]
fn a_snapshot_read_before_a_goto_does_not_count_after_it() {
    let (mut bench, session) = Bench::with_device();
    bench.ops(session, &[snapshot(3)]);
    bench.ops(session, &[begin(3)]);
    bench.ops(session, &[end(GotoResult::Undone)]);
    bench.refused(session, &[snapshot(4)], Invalid::GotoSince(DISK));
    bench.rules.gotos_counted = false;
    bench.ops(session, &[snapshot(4)]);
}

#[test]
fn a_device_cannot_stand_in_a_goto_twice() {
    let (mut bench, session) = Bench::with_device();
    bench.ops(session, &[snapshot(3)]);
    let Op::GotoBegin { mut record } = begin(3) else {
        panic!("it is a begin")
    };
    record.devices.push(record.devices[0]);
    bench.refused(
        session,
        &[Op::GotoBegin { record }],
        Invalid::DeviceInGoto(DISK),
    );
}

#[test]
fn a_compact_replaces_packs_and_names_what_it_keeps() {
    let (mut bench, packs, session) = Bench::with_packs(3);
    let base = bench.catalog.seq();
    let (dropped, kept) = (packs[..1].to_vec(), packs[1..2].to_vec());
    let op = Op::Compact {
        base,
        new: vec![pack(0)],
        dropped,
        kept,
    };
    bench.ops(session, &[op]);
    let live: Vec<PackName> = bench.catalog.packs().map(|p| p.name).collect();
    assert_eq!(live, [packs[1], packs[2], PackName { session, n: 0 }]);
    assert_eq!(bench.last_named(&packs[1]), bench.catalog.seq());
    assert!(bench.last_named(&packs[2]) < base);
}

#[test]
fn packs_that_somebody_may_need_are_not_dropped() {
    let (mut bench, packs, gc) = Bench::with_packs(2);
    let writer = bench.open();
    let base = bench.catalog.seq();
    let drop_first = compact(base, &packs[..1], &[]);
    // Named after the marking, also by one that has ended.
    bench.ops(writer, &[rely(&packs[..1], &[])]);
    bench.refused(gc, &[drop_first.clone()], Invalid::PackNamedSince(packs[0]));
    // Pinned, also before the marking.
    bench.ops(writer, &[pin(&packs[..1], &[])]);
    let base = bench.catalog.seq();
    let drop_first = compact(base, &packs[..1], &[]);
    bench.refused(gc, &[drop_first.clone()], Invalid::PackPinned(packs[0]));
    // Of a session that is open and has not said yet what it needs.
    bench.ops(writer, &[publish(0..1)]);
    let own = PackName {
        session: writer,
        n: 0,
    };
    let drop_own = compact(bench.catalog.seq(), &[own], &[]);
    bench.refused(gc, &[drop_own.clone()], Invalid::PackOfOpenSession(own));
    // Not there any more, or there to justify the drop.
    let gone = PackName { n: 9, ..packs[0] };
    bench.refused(
        gc,
        &[compact(base, &[gone], &[])],
        Invalid::PackNotLive(gone),
    );
    bench.refused(
        gc,
        &[compact(base, &packs[1..], &[gone])],
        Invalid::PackNotLive(gone),
    );
    bench.refused(
        gc,
        &[compact(base, &packs[1..], &packs[1..])],
        Invalid::PackNotLive(packs[1]),
    );
    bench.ops(writer, &[Op::Close]);
    bench.ops(gc, &[drop_first, drop_own]);
    assert_eq!(bench.catalog.packs().count(), 1);
}

#[test]
fn each_rule_of_compact_can_be_switched_off_alone() {
    type Off = fn(&mut Rules);
    let off: [(Off, fn(&[PackName]) -> Op); 3] = [
        (
            |r| r.spare_pinned = false,
            |packs| compact(u64::MAX, packs, &[]),
        ),
        (|r| r.spare_named = false, |packs| compact(0, packs, &[])),
        (
            |r| r.kept_live = false,
            |packs| compact(u64::MAX, &[], &[PackName { n: 9, ..packs[0] }]),
        ),
    ];
    for (n, (off, op)) in off.iter().enumerate() {
        let (mut bench, packs, gc) = Bench::with_packs(1);
        let claim = if n == 0 {
            pin(&packs, &[])
        } else {
            rely(&packs, &[])
        };
        bench.ops(gc, &[claim]);
        assert!(bench.try_ops(gc, &[op(&packs)]).is_err());
        off(&mut bench.rules);
        bench.ops(gc, &[op(&packs)]);
    }
}

/// Two packs hold the same cluster. One gc marks before, one after a snapshot relies on the first pack; the later drops
/// that one and keeps the other, which the earlier drops. Packs that are left.
fn two_gcs(earlier_first: bool, rules: Rules) -> usize {
    let (mut bench, packs, earlier) = Bench::with_packs(2);
    bench.rules = rules;
    let drop_second = compact(bench.catalog.seq(), &packs[1..], &[]);
    let writer = bench.open();
    bench.ops(writer, &[rely(&packs[..1], &[]), snapshot(3), Op::Close]);
    let later = bench.open();
    let drop_first = compact(bench.catalog.seq(), &packs[..1], &packs[1..]);
    let mut both = [(earlier, drop_second), (later, drop_first)];
    if !earlier_first {
        both.reverse();
    }
    let [first, second] = both;
    bench.ops(first.0, &[first.1]);
    let refused = bench.try_ops(second.0, &[second.1]).is_err();
    assert_eq!(refused, bench.catalog.packs().count() == 1);
    bench.catalog.packs().count()
}

#[test]
fn what_justifies_a_drop_is_not_dropped_by_another_gc() {
    let all = Rules::default();
    assert_eq!((two_gcs(true, all), two_gcs(false, all)), (1, 1));
    let without = Rules {
        kept_live: false,
        ..all
    };
    assert_eq!(two_gcs(true, without), 0, "the snapshot lost its cluster");
    let without = Rules {
        kept_named: false,
        ..all
    };
    assert_eq!(two_gcs(false, without), 0, "the snapshot lost its cluster");
}

#[test]
fn a_session_that_was_ended_compacts_nothing() {
    let (mut bench, packs, gc) = Bench::with_packs(1);
    bench.ops(gc, &[Op::Close]);
    let drop_all = compact(bench.catalog.seq(), &packs, &[]);
    bench.refused(gc, &[drop_all.clone()], Invalid::SessionNotOpen(gc));
    bench.rules.session_open = false;
    bench.ops(gc, &[drop_all]);
}

/// A catalog with something of everything, made in the order that `swap` says.
fn full(swap: bool) -> Bench {
    let (mut bench, packs, session) = Bench::with_packs(3);
    let mut ops = vec![
        publish(0..2),
        pin(&packs, &[]),
        device(Uid([2; 16]), "b"),
        device(Uid([3; 16]), "c"),
    ];
    if swap {
        ops.swap(2, 3);
        ops.swap(1, 2);
    }
    ops.extend([snapshot(5), snapshot(4), head(Some(4)), begin(5)]);
    bench.ops(session, &ops);
    bench
}

#[test]
fn equal_catalogs_are_equal_bytes_and_come_back_whole() {
    let (one, mut other) = (full(false).catalog, full(true).catalog);
    assert_ne!(one.tip, other.tip, "the entries differ");
    other.tip = one.tip;
    assert_eq!(one, other);
    let bytes = codec::encode(&one);
    assert_eq!(bytes, codec::encode(&other));
    let back: Catalog = codec::decode(&bytes, 1 << 20).unwrap();
    let back = back.complete().unwrap();
    assert_eq!(back, one, "with what is derived");
    assert_eq!(back.pack_numbered(PackNumber(4)).unwrap().name.n, 1);
}

#[test]
fn no_disk_is_larger_than_offsets_reach() {
    let (mut bench, session) = Bench::with_device();
    bench.ops(session, &[snapshot(3)]);
    let head = Op::PutHead {
        uid: DISK,
        head: Some(endless(3)),
        base: None,
    };
    let Op::GotoBegin { mut record } = begin(3) else {
        panic!()
    };
    record.devices[0].target = endless(3);
    for op in [head, Op::GotoBegin { record }] {
        let refused = bench.try_ops(session, &[op]);
        assert!(matches!(refused, Err(Invalid::Malformed(_))));
    }
    let mut stored = bench.catalog.clone();
    stored.numbers = Catalog::default().numbers;
    assert!(stored.clone().complete().is_some());
    let mut device = super::DeviceState::clone(stored.device(&DISK).unwrap());
    device.head = Some(endless(3));
    stored.devices.insert_mut(DISK, device.into());
    assert!(stored.complete().is_none(), "nor in a checkpoint");
}

#[test]
fn a_catalog_whose_packs_contradict_each_other_is_refused() {
    let good = full(false).catalog;
    let number_of = |n| {
        let mut bad = good.clone();
        let mut pack = super::PackState::clone(good.packs().next().unwrap());
        pack.number = PackNumber(n);
        bad.packs.insert_mut(pack.name, pack.into());
        bad.numbers = Catalog::default().numbers;
        bad.complete()
    };
    assert_eq!(number_of(0), Some(good.clone()));
    assert_eq!(number_of(1), None, "two packs of one number");
    assert_eq!(number_of(5), None, "a number that was never given");
}

/// The disk as a volume of so many bytes with this chain, on a head.
fn volume(at: (u64, u64), expect: Option<(u64, u64)>, head: Option<u8>, origin: HeadOrigin) -> Op {
    let (generation, absorbed) = at;
    Op::PutVolume {
        uid: DISK,
        expect: expect.map(|(generation, absorbed)| ChainPoint {
            generation,
            absorbed,
        }),
        volume: Some(VolumeRecord {
            generation,
            absorbed,
            size: content(1).size,
            host: Some(Uid([8; 16])),
        }),
        head: head.map(content),
        base: None,
        origin,
    }
}

#[test]
fn a_volume_is_moved_on_only_from_where_its_chain_is() {
    use HeadOrigin::{Existing, Stored};
    let (mut bench, session) = Bench::with_device();
    let moved = Invalid::VolumeMoved(DISK);
    bench.ops(session, &[volume((1, 0), None, None, Existing)]);
    bench.refused(
        session,
        &[volume((1, 0), None, None, Existing)],
        moved.clone(),
    );
    bench.ops(session, &[volume((1, 2), Some((1, 0)), Some(3), Stored)]);
    let late = volume((1, 1), Some((1, 0)), Some(4), Stored);
    bench.refused(session, &[late], moved.clone());
    let back = volume((1, 1), Some((1, 2)), Some(4), Stored);
    bench.refused(session, &[back], moved);
    bench.ops(session, &[volume((2, 0), Some((1, 2)), Some(3), Existing)]);
    let disk = bench.catalog.device(&DISK).unwrap().clone();
    assert_eq!(disk.head, Some(content(3)));
    assert_eq!(
        disk.volume.map(|v| (v.generation, v.absorbed)),
        Some((2, 0))
    );
}

#[test]
fn without_the_rule_a_late_snapshot_takes_a_volume_back() {
    use HeadOrigin::Stored;
    let (mut bench, session) = Bench::with_device();
    bench.rules.chain_expected = false;
    bench.ops(session, &[volume((1, 2), None, Some(3), Stored)]);
    bench.ops(session, &[volume((1, 1), Some((1, 0)), Some(4), Stored)]);
    let disk = bench.catalog.device(&DISK).unwrap();
    assert_eq!(disk.head, Some(content(4)), "what overlay 2 had is lost");
}

#[test]
fn a_volumes_head_is_reachable_or_stored_by_the_entry_and_then_kept() {
    use HeadOrigin::{Existing, Stored};
    let (mut bench, session) = Bench::with_device();
    let put = |head, origin| volume((1, 0), None, Some(head), origin);
    let gone = Invalid::RootNotReachable(root(3));
    bench.refused(session, &[put(3, Existing)], gone);
    bench.ops(session, &[put(3, Stored)]);
    assert_eq!(bench.catalog.roots(), [root(3)]);
    let grown = volume((1, 0), Some((1, 0)), Some(3), Existing);
    bench.ops(session, &[grown]);
}

#[test]
fn a_volume_has_no_image_no_goto_and_a_size_that_holds_its_head() {
    use HeadOrigin::Stored;
    let (mut bench, session) = Bench::with_device();
    let Op::PutVolume {
        volume: Some(record),
        ..
    } = volume((1, 0), None, None, Stored)
    else {
        panic!()
    };
    let sized = |size, head| Op::PutVolume {
        uid: DISK,
        expect: None,
        volume: Some(VolumeRecord { size, ..record }),
        head,
        base: None,
        origin: Stored,
    };
    for op in [
        sized(u64::MAX, None),
        sized(content(1).size - 1, Some(content(1))),
        sized(u64::MAX, Some(endless(1))),
    ] {
        let refused = bench.try_ops(session, &[op]);
        assert!(matches!(refused, Err(Invalid::Malformed(_))));
    }
    bench.ops(
        session,
        &[snapshot(3), volume((1, 0), None, Some(3), Stored)],
    );
    bench.refused(session, &[head(Some(3))], Invalid::IsVolume(DISK));
    bench.refused(session, &[begin(3)], Invalid::IsVolume(DISK));
    let attach = Op::PutDevice {
        uid: DISK,
        name: "disk".into(),
        attachment: Some(Attachment {
            path: b"/x".to_vec(),
            format: "raw".into(),
            read_only: false,
        }),
    };
    bench.refused(session, &[attach], Invalid::IsVolume(DISK));
    bench.ops(session, &[snapshot(4)]);
    let disk = bench.catalog.device(&DISK).unwrap().clone();
    assert_eq!(disk.base, None, "only the head says what it comes from");
}
