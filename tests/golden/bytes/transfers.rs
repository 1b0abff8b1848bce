//! What travels between stores, by the offsets and fields that `migrate/FORMAT.md` gives.

use super::{Picture, content, record, same, uid};
use stillpoint_api::store::geometry::{Compression, Geometry};
use stillpoint_api::store::id::Hash;
use stillpoint_api::store::manifest::{Child, Run};
use stillpoint_migrate::wire::edits::Edits;
use stillpoint_migrate::wire::message::{
    Base, Device, Failed, Have, KINDS, Plan, Step, Totals, Want,
};
use stillpoint_migrate::wire::outcome::Became;
use stillpoint_migrate::wire::{Message, Outcome, Outgoing, Preamble, Purpose, Taken};

impl Picture {
    fn bool(self, is: bool) -> Self {
        self.u8(u8::from(is))
    }
    fn taken(self, t: &Taken) -> Self {
        let p = self.text(&t.device).uid(t.uid).text(&t.id).text(&t.name);
        p.option(t.renumbered.as_ref(), Self::text)
    }
}

fn taken(n: u8) -> Taken {
    Taken {
        device: "web1".into(),
        uid: uid(n),
        id: b"7".to_vec(),
        name: b"monday".to_vec(),
        renumbered: Some(b"3".to_vec()).filter(|_| n > 1),
    }
}

/// Each kind of message, its number, and its payload by hand.
fn messages() -> Vec<(Message, u8, Picture)> {
    let p = Picture::new;
    let have = Have {
        snapshots: vec![uid(1), uid(2)],
        roots: vec![Hash([3; 32])],
    };
    let plan = Plan {
        mirror: true,
        dry_run: false,
    };
    let base = Base {
        content: content(4),
        name: "web1@monday".into(),
    };
    let device = Device {
        uid: uid(5),
        name: "web1".into(),
        head: Some((content(6), Some(uid(7)))),
        snapshots: vec![uid(8)],
    };
    let step = Step {
        base: Some(content(9)),
        content: content(10),
    };
    let run = |first, count, child| Run {
        first,
        count,
        child,
    };
    let edits = Edits {
        window: 3,
        runs: vec![
            run(1, 1, Child::Hash(Hash([1; 32]))),
            run(2, 1, Child::Hash(Hash([2; 32]))),
            run(3, 5, Child::Hole),
            run(9, 6, Child::Zero),
        ],
    };
    let told = p().at(0).u32(3).at(4).u32(3).at(8).u32(2);
    let told = told.at(12).u64(1).u64(2 | 2 << 62);
    let told = told.u64(3).u64(5).u64(9).u64(6 | 1 << 62);
    let told = told.at(12 + 16 * 3).raw(&[1; 32]).raw(&[2; 32]);
    let lacking: Vec<bool> = (0..10).map(|n| n == 0 || n == 9).collect();
    let totals = Totals {
        contents: 1,
        windows: 2,
        clusters: 3,
    };
    let done = Outcome {
        snapshots: vec![taken(1), taken(2)],
        already: 11,
        deleted: vec![taken(3)],
        clusters: 12,
        stored_bytes: 13,
    };
    let list = |p: Picture, of: &[Taken]| p.list(of, Picture::taken);
    let became = Became {
        snapshots: vec![taken(4)],
        deleted: vec![taken(5), taken(6)],
    };
    let became_picture = list(list(p(), &became.snapshots), &became.deleted);
    let done_picture = list(list(p(), &done.snapshots).u64(11), &done.deleted);
    let failed = Failed {
        kind: 9,
        text: "no".into(),
        hint: "more".into(),
    };
    vec![
        (
            Message::Have(have),
            1,
            p().list([uid(1), uid(2)], Picture::uid)
                .list([Hash([3; 32])], Picture::hash),
        ),
        (Message::Ready, 2, p()),
        (Message::Plan(plan), 3, p().bool(true).bool(false)),
        (
            Message::Base(base),
            4,
            p().content(content(4)).text("web1@monday"),
        ),
        (
            Message::Device(device),
            5,
            p().uid(uid(5))
                .text("web1")
                .u8(1)
                .content(content(6))
                .option(Some(uid(7)), Picture::uid)
                .list([uid(8)], Picture::uid),
        ),
        (Message::Snapshot(record()), 6, p().record(&record())),
        (
            Message::Content(step),
            7,
            p().option(Some(content(9)), Picture::content)
                .content(content(10)),
        ),
        (Message::Edits(edits), 8, told),
        (
            Message::Want(Want::of(3, &lacking)),
            9,
            p().u32(3).text([1, 2]),
        ),
        (Message::Frame(vec![1, 2, 3]), 10, p().raw(&[1, 2, 3])),
        (Message::WindowEnd(3), 11, p().u32(3)),
        (Message::ContentEnd, 12, p()),
        (Message::End(totals), 13, p().u64(1).u64(2).u64(3)),
        (Message::Done(done), 14, done_picture.u64(12).u64(13)),
        (
            Message::Failed(failed),
            15,
            p().u32(9).text("no").text("more"),
        ),
        (Message::Became(became), 16, became_picture),
    ]
}

#[test]
fn a_stream_with_every_message_is_sections_1_and_2() {
    let preamble = Preamble {
        purpose: Purpose::Sync,
        store: uid(1),
        id: uid(2),
        geometry: Geometry {
            cluster_bytes: 8192,
            frame_bytes: 1 << 20,
            compression: Compression::Zstd(6),
        },
    };
    let mut written = Vec::new();
    let mut out = Outgoing::begin(&mut written, &preamble).unwrap();
    let head = Picture::new().raw(b"STILLSYN").at(8).u32(1).u32(0);
    let head = head.at(16).u32(8192).u32(1 << 20).at(24).u32(6).u32(0);
    let mut picture = head.at(32).uid(uid(1)).at(48).uid(uid(2)).at(64).0;
    let mut chain = *blake3::hash(&picture).as_bytes();
    for (hops, (message, number, wanted)) in (0..).zip(messages()) {
        let (kind, payload) = message.encode();
        assert_eq!(kind, number, "{}", message.name());
        same(message.name(), &payload, &wanted.0);
        out.put(kind, hops, &payload).unwrap();
        let head = Picture::new().u8(number).u8(0).at(2).u16(hops);
        let head = head.at(4).u32(wanted.0.len() as u32).at(8).0;
        chain = *blake3::hash(&[&chain[..], &head, &wanted.0].concat()).as_bytes();
        picture.extend([&head[..], &chain[..8], &wanted.0].concat());
    }
    same("the stream", &written, &picture);
}

#[test]
fn the_kinds_of_errors_keep_their_numbers() {
    let numbers: Vec<String> = KINDS.iter().map(|kind| format!("{kind:?}")).collect();
    assert_eq!(
        numbers.join(" "),
        "Io Corrupt NotFound AlreadyExists Busy Refused InvalidInput Unsupported LimitExceeded NoSpace ReadOnly Poisoned \
         Cancelled"
    );
}
