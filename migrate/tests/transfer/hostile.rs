//! Streams that are whole and lie.

use crate::host::{GEOMETRY, Host, disk, letter};
use stillpoint_migrate::wire::edits::Edits;
use stillpoint_migrate::wire::message::{Base, Device, Plan, Step, Totals};
use stillpoint_migrate::wire::{Message, Outgoing, Preamble, Purpose};
use stillpoint_store::codec::encode_frame;
use stillpoint_store::format::entry::{Content, PackKind};
use stillpoint_store::format::manifest::Child;
use stillpoint_store::format::snapshot::SnapshotRecord;
use stillpoint_store::id::{Hash, Uid};
use stillpoint_store::manifest::Run;

const DEVICE: Uid = Uid([7; 16]);

fn stream(messages: &[Message]) -> Vec<u8> {
    let preamble = Preamble {
        purpose: Purpose::Bundle,
        store: Uid([1; 16]),
        id: Uid([2; 16]),
        geometry: GEOMETRY,
    };
    let mut bytes = Vec::new();
    let mut out = Outgoing::begin(&mut bytes, &preamble).unwrap();
    for message in messages {
        let (kind, payload) = message.encode();
        out.put(kind, 0, &payload).unwrap();
    }
    bytes
}

fn device() -> Message {
    Message::Device(Device {
        uid: DEVICE,
        name: "d".into(),
        head: None,
        snapshots: vec![],
    })
}

fn record(content: Content) -> SnapshotRecord {
    let from = Host::new(1);
    from.save("d", "one", &disk(0..2));
    SnapshotRecord {
        device: DEVICE,
        content,
        ..from.records()[0].clone()
    }
}

fn edits(runs: Vec<Run>) -> Message {
    Message::Edits(Edits { window: 0, runs })
}

fn cluster(first: u64, n: u64) -> Run {
    Run {
        first,
        count: 1,
        child: Child::Hash(Hash::of(&letter(n))),
    }
}

fn end(contents: u64, windows: u64, clusters: u64) -> Message {
    Message::End(Totals {
        contents,
        windows,
        clusters,
    })
}

#[track_caller]
fn refused(messages: &[Message], says: &str) {
    let to = Host::new(2);
    let e = to.receive(&stream(messages)).unwrap_err();
    let text = format!("{e}");
    assert!(text.contains(says), "{text:?} does not say {says:?}");
    assert!(to.records().is_empty());
}

#[test]
fn a_snapshot_whose_contents_do_not_come_or_are_others_is_refused() {
    let content = Content {
        root: Hash([9; 32]),
        size: 8192,
    };
    let plan = Message::Plan(Plan::default());
    let snapshot = Message::Snapshot(record(content));
    let head = [plan, device(), snapshot];
    refused(
        &[&head[..], &[end(0, 0, 0)]].concat(),
        "contents did not come",
    );
    let step = Message::Content(Step {
        base: None,
        content,
    });
    let frame = encode_frame(PackKind::Clusters, &[&letter(1)], GEOMETRY.compression);
    let told = [
        step.clone(),
        Message::Frame(frame.bytes),
        edits(vec![cluster(0, 1)]),
        Message::ContentEnd,
        end(1, 1, 1),
    ];
    refused(
        &[&head[..], &told].concat(),
        "not the one that the snapshot names",
    );
}

#[test]
fn messages_out_of_turn_are_refused() {
    let content = Content {
        root: Hash([9; 32]),
        size: 8192,
    };
    let step = |base| Message::Content(Step { base, content });
    for (messages, says) in [
        (vec![edits(vec![])], "changes of no contents"),
        (vec![Message::ContentEnd], "contents end that did not begin"),
        (vec![step(None), step(None)], "contents begin before"),
        (vec![step(None), end(1, 0, 0)], "in the middle of contents"),
        (vec![step(Some(content))], "build on what did not come"),
        (vec![Message::Ready], "\"ready\" came where it cannot be"),
        (vec![device(), device()], "a device comes twice"),
        (
            vec![Message::Snapshot(record(content))],
            "of no device that came",
        ),
        (vec![end(0, 0, 7)], "a part of the bundle is missing"),
        (
            vec![Message::Base(Base {
                content,
                name: "x@y".into(),
            })],
            "it builds on x@y",
        ),
        (
            vec![step(None), edits(vec![]), edits(vec![])],
            "a window is missing",
        ),
    ] {
        refused(&messages, says);
    }
}

#[test]
fn changes_beyond_the_disk_are_refused() {
    let content = Content {
        root: Hash([9; 32]),
        size: 8192,
    };
    let step = Message::Content(Step {
        base: None,
        content,
    });
    let beyond = Run {
        first: 2,
        count: 1 << 40,
        child: Child::Zero,
    };
    refused(&[step, edits(vec![beyond])], "a change cannot be");
}

#[test]
fn a_name_that_no_device_may_have_is_refused() {
    let bad = Message::Device(Device {
        uid: DEVICE,
        name: "a/b@c".into(),
        head: None,
        snapshots: vec![],
    });
    let to = Host::new(2);
    assert!(to.receive(&stream(&[bad, end(0, 0, 0)])).is_err());
}

#[test]
fn frames_of_other_clusters_are_refused() {
    let frame = encode_frame(PackKind::Clusters, &[&[1; 8192]], GEOMETRY.compression);
    refused(
        &[Message::Frame(frame.bytes)],
        "not of the store's cluster size",
    );
    refused(&[Message::Frame(vec![1; 100])], "the magic is another");
}

#[test]
fn a_huge_disk_of_nothing_costs_nothing() {
    let from = Host::new(1);
    let file = std::fs::File::create(from.image("big")).unwrap();
    file.set_len(1 << 42).unwrap();
    let path = from.image("big");
    from.system.device_add("big", &path, "raw", false).unwrap();
    let create = stillpoint_api::Create {
        name: Some("one".into()),
        ..stillpoint_api::Create::default()
    };
    let idle = stillpoint_store::progress::Progress::default();
    from.system.create(&create, &idle).unwrap();
    let bundle = from.send(&["big@one"], &[]);
    assert!(bundle.len() < 1000, "{} bytes", bundle.len());
    let to = Host::new(2);
    to.take(&bundle);
    assert_eq!(to.records(), from.records());
}
