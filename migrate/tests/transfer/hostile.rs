//! Streams that are whole and lie.

use crate::host::{GEOMETRY, Host, disk, letter};
use stillpoint_migrate::Result;
use stillpoint_migrate::bundle::Received;
use stillpoint_migrate::sync::{Give, Report, Take, give, take};
use stillpoint_migrate::wire::edits::Edits;
use stillpoint_migrate::wire::message::{Base, Device, Have, Plan, Step, Totals, Want};
use stillpoint_migrate::wire::outcome::Became;
use stillpoint_migrate::wire::{Consent, Message, Outcome, Outgoing, Preamble, Purpose};
use stillpoint_store::codec::encode_frame;
use stillpoint_store::format::entry::{Content, PackKind};
use stillpoint_store::format::manifest::Child;
use stillpoint_store::format::snapshot::SnapshotRecord;
use stillpoint_store::id::{Hash, Uid};
use stillpoint_store::manifest::Run;
use stillpoint_store::progress::Progress;

const DEVICE: Uid = Uid([7; 16]);

fn stream(messages: &[Message]) -> Vec<u8> {
    stream_of(Purpose::Bundle, 0, messages)
}

fn stream_of(purpose: Purpose, hops: u16, messages: &[Message]) -> Vec<u8> {
    let preamble = Preamble {
        purpose,
        store: Uid([1; 16]),
        id: Uid([2; 16]),
        geometry: GEOMETRY,
    };
    let mut bytes = Vec::new();
    let mut out = Outgoing::begin(&mut bytes, &preamble).unwrap();
    for message in messages {
        let (kind, payload) = message.encode();
        out.put(kind, hops, &payload).unwrap();
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

fn announced(content: Content) -> Vec<Message> {
    vec![device(), Message::Snapshot(record(content))]
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

/// A sender that needs no clusters: what it tells is there when it has announced it.
fn two() -> (Host, Content) {
    let host = Host::new(3);
    host.save("mine", "one", &disk(0..40));
    let content = host.records()[0].content;
    (host, content)
}

#[track_caller]
fn refused_by(to: &Host, messages: &[Message], says: &str) {
    let before = to.records();
    let e = to.receive(&stream(messages)).unwrap_err();
    let text = format!("{e}");
    assert!(text.contains(says), "{text:?} does not say {says:?}");
    assert_eq!(to.records(), before);
    to.verify();
}

#[test]
fn a_bundle_deletes_nothing_and_cannot_be_a_dry_run_that_stores() {
    let (to, content) = two();
    let mine = to.catalog().device_named("mine").unwrap().uid;
    let lost = Content {
        root: Hash([9; 32]),
        size: 8192,
    };
    let plan = |mirror, dry_run| Message::Plan(Plan { mirror, dry_run });
    let told = Message::Device(Device {
        uid: mine,
        name: "mine".into(),
        head: None,
        snapshots: vec![],
    });
    let deletes = [plan(true, false), told, end(0, 0, 0)];
    refused_by(&to, &deletes, "bring snapshots and delete others");
    // Under a dry run changes are not made: committed, these snapshots would have no contents.
    let step = Message::Content(Step {
        base: None,
        content: lost,
    });
    let record = Message::Snapshot(record(lost));
    let dry = [device(), record, step, Message::ContentEnd, end(1, 0, 0)];
    let first = [&[plan(false, true)][..], &dry].concat();
    refused_by(&to, &first, "only compare");
    let late = [&dry[..3], &[plan(false, true)], &dry[3..]].concat();
    refused_by(&to, &late, "\"plan\" came where it cannot be");
    assert!(to.catalog().reachable(&content.root));
}

#[test]
fn a_size_that_is_not_one_of_the_contents_is_refused() {
    let (to, content) = two();
    for size in [0, 4096, 39 * 4096, 1 << 21, 1 << 40] {
        let content = Content { size, ..content };
        let claimed = [device(), Message::Snapshot(record(content)), end(0, 0, 0)];
        refused_by(&to, &claimed, "reading a manifest");
        let base = Message::Base(Base {
            content,
            name: "x@y".into(),
        });
        let lost = Content {
            root: Hash([9; 32]),
            size: 4096,
        };
        let step = Step {
            base: Some(content),
            content: lost,
        };
        let told = [&[base], &announced(lost)[..], &[Message::Content(step)]].concat();
        refused_by(&to, &told, "reading a manifest");
    }
    let saved = record(content);
    let vm_state = Some(Content { size: 5, ..content });
    let vm = SnapshotRecord { vm_state, ..saved };
    let claimed = [device(), Message::Snapshot(vm), end(0, 0, 0)];
    refused_by(&to, &claimed, "reading a manifest");
    // Another size of as many clusters is the same disk, cut elsewhere.
    let shorter = Content {
        size: content.size - 1,
        ..content
    };
    to.take(&stream(&[
        device(),
        Message::Snapshot(record(shorter)),
        end(0, 0, 0),
    ]));
    to.verify();
}

#[test]
fn a_manifest_node_does_not_pass_for_a_cluster() {
    let (to, content) = two();
    // The hash of a node that is there, as that of a cluster: the tree that it gives is well formed.
    let run = Run {
        first: 0,
        count: 1,
        child: Child::Hash(content.root),
    };
    let mut nodes = Vec::new();
    let mut builder = stillpoint_store::manifest::build::Builder::new(1);
    let mut sink = |hash, _| {
        nodes.push(hash);
        Ok(())
    };
    builder.push(run.child, 1, &mut sink).unwrap();
    let root = builder.finish(&mut sink).unwrap();
    let lie = Content { root, size: 4096 };
    let told = |run| {
        let step = Step {
            base: None,
            content: lie,
        };
        let content = Message::Content(step);
        let record = Message::Snapshot(record(lie));
        stream(&[
            device(),
            record,
            content,
            edits(vec![run]),
            Message::ContentEnd,
            end(1, 1, 0),
        ])
    };
    let received = to.receive(&told(run)).unwrap();
    assert!(matches!(received, Received::Lacking { count: 1, .. }));
    assert_eq!(to.records().len(), 1);
    to.verify();
}

#[test]
fn contents_that_nothing_has_are_refused() {
    let (to, content) = two();
    let base = Message::Base(Base {
        content,
        name: "x@y".into(),
    });
    let step = Message::Content(Step {
        base: Some(content),
        content,
    });
    let untold = [base.clone(), step.clone(), end(0, 0, 0)];
    refused_by(&to, &untold, "contents come that nothing has");
    let record = Message::Snapshot(record(content));
    let once = [step, Message::ContentEnd];
    let twice = [&[base, device(), record][..], &once, &once].concat();
    refused_by(&to, &twice, "contents come that nothing has, or twice");
}

#[test]
fn messages_out_of_turn_are_refused() {
    let content = Content {
        root: Hash([9; 32]),
        size: 8192,
    };
    let step = |base| Message::Content(Step { base, content });
    let begun = |then: &[Message]| [&announced(content)[..], &[step(None)], then].concat();
    for (messages, says) in [
        (vec![edits(vec![])], "changes of no contents"),
        (vec![Message::ContentEnd], "contents end that did not begin"),
        (begun(&[step(None)]), "contents begin before"),
        (begun(&[end(1, 0, 0)]), "in the middle of contents"),
        (
            [announced(content), vec![step(Some(content))]].concat(),
            "build on what did not come",
        ),
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
            begun(&[edits(vec![]), edits(vec![])]),
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
    let told = [announced(content), vec![step, edits(vec![beyond])]].concat();
    refused(&told, "a change cannot be");
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

/// A sync of which the sender's messages are these, whatever the receiver says.
fn taken(to: &Host, hops: u16, dry_run: bool, messages: &[Message]) -> Result<Report> {
    let mirror = false;
    let plan = Plan { mirror, dry_run };
    let all = [&[Message::Plan(plan)], messages].concat();
    let from = std::io::Cursor::new(stream_of(Purpose::Sync, hops, &all));
    let how = Take {
        consent: Consent::Only(plan),
        ..Take::default()
    };
    take(to.store(), how, from, std::io::sink(), &Progress::default())
}

/// One disk of one cluster as a sync tells it.
fn one_cluster() -> (Vec<Message>, Message) {
    let mut builder = stillpoint_store::manifest::build::Builder::new(1);
    let run = cluster(0, 1);
    builder.push(run.child, 1, &mut |_, _| Ok(())).unwrap();
    let root = builder.finish(&mut |_, _| Ok(())).unwrap();
    let content = Content { root, size: 4096 };
    let step = Step {
        base: None,
        content,
    };
    let told = vec![
        device(),
        Message::Snapshot(record(content)),
        Message::Content(step),
        edits(vec![run]),
        Message::ContentEnd,
    ];
    let frame = encode_frame(PackKind::Clusters, &[&letter(1)], GEOMETRY.compression);
    (told, Message::Frame(frame.bytes))
}

#[test]
fn a_sender_that_does_not_wait_for_answers_and_one_that_leaves_frames_out() {
    let (told, frame) = one_cluster();
    let whole = [Message::WindowEnd(0), end(1, 1, 1)];
    let with = |more: &[Message]| [&told[..], more, &whole].concat();
    let to = Host::new(2);
    // The largest number of hops that can be said is not counted up to none.
    let report = taken(&to, u16::MAX, false, &with(&[frame.clone()])).unwrap();
    assert_eq!((report.outcome.clusters, report.hops), (1, u16::MAX));
    assert_eq!(to.records().len(), 1);
    to.verify();
    let refused = |dry_run, messages: &[Message], says: &str| {
        let to = Host::new(2);
        let before = to.objects.dump();
        let e = taken(&to, 0, dry_run, messages).unwrap_err();
        assert!(e.to_string().contains(says), "{e}");
        assert!(to.records().is_empty());
        assert_eq!(to.catalog().sessions().count(), 0);
        assert!(!dry_run || before == to.objects.dump());
    };
    refused(false, &with(&[]), "a window ends before all of it has come");
    refused(true, &with(&[frame.clone()]), "that nobody asked for");
    refused(false, &[frame, end(0, 0, 0)], "that nobody asked for");
    let twice = [&told[..], &[Message::WindowEnd(1)]].concat();
    refused(false, &twice, "a window ends that is not under way");
    let mut many = told[..3].to_vec();
    for window in 0..17 {
        let runs = vec![cluster(0, 1)];
        many.push(Message::Edits(Edits { window, runs }));
    }
    refused(false, &many, "more is told at a time than may be");
    let early = [&told[..], &[end(1, 1, 1)]].concat();
    refused(false, &early, "it ends before all of it has come");
    let gives_up = Message::Failed(stillpoint_migrate::wire::message::Failed {
        kind: 99,
        text: "no".into(),
        hint: String::new(),
    });
    refused(false, &[gives_up], "the other side: no");
}

#[test]
fn a_receiver_that_asks_for_what_was_not_told_gets_nothing() {
    let from = Host::new(1);
    from.save("d", "one", &disk(0..2));
    let want = |window, mask: &[u8]| {
        Message::Want(Want {
            window,
            mask: mask.into(),
        })
    };
    let (have, ready) = (Message::Have(Have::default()), Message::Ready);
    for (messages, says) in [
        (vec![], "cut off"),
        (vec![want(0, &[3])], "came where it cannot be"),
        (vec![ready.clone(), have.clone()], "came where it cannot be"),
        (
            vec![ready.clone(), want(7, &[3])],
            "wanted that was not told",
        ),
        (
            vec![ready.clone(), want(0, &[3, 3])],
            "wanted that was not told",
        ),
        (
            vec![ready.clone(), want(0, &[3]), want(0, &[3])],
            "wanted that was not told",
        ),
        (
            vec![ready.clone(), Message::Frame(vec![0; 9])],
            "reading a frame",
        ),
        (
            vec![ready.clone(), Message::Became(Became::default())],
            "came where it cannot be",
        ),
        (
            vec![ready, Message::Done(Outcome::default())],
            "came where it cannot be",
        ),
    ] {
        let answers = std::io::Cursor::new(stream_of(Purpose::Sync, u16::MAX, &messages));
        let idle = Progress::default();
        let give = give(
            from.store(),
            &Give::default(),
            answers,
            std::io::sink(),
            &idle,
        );
        let e = give.unwrap_err();
        assert!(e.to_string().contains(says), "{e} does not say {says}");
        assert_eq!(from.catalog().sessions().count(), 0);
    }
}
