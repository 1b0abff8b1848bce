//! Each stored structure put together by hand, by the offsets that `store/FORMAT.md` gives, and compared with what the
//! program writes. Whoever changes the one without the other is stopped here.

mod transfers;

use super::{files, fixture};
use stillpoint_api::store::catalog::{Catalog, Rules};
use stillpoint_api::store::codec::encode_frame;
use stillpoint_api::store::format::codec;
use stillpoint_api::store::format::entry::{
    Attachment, ChainPoint, Content, Entry, GotoDevice, GotoRecord, GotoResult, HeadOrigin, Op,
    PackKind, PackRecord, SessionKind, VolumeRecord,
};
use stillpoint_api::store::format::envelope::{self, EnvelopeKind};
use stillpoint_api::store::format::manifest::{Child, NodeDraft};
use stillpoint_api::store::format::overlay::{
    Empty, MapBlock, MapEntry, OverlayHeader, OverlayName,
};
use stillpoint_api::store::format::snapshot::SnapshotRecord;
use stillpoint_api::store::format::store::StoreFile;
use stillpoint_api::store::geometry::{Compression, Geometry};
use stillpoint_api::store::id::{Hash, PackName, SessionId, Uid};
use stillpoint_api::store::ops::ingest::record_copy;
use stillpoint_api::store::pack::writer::{PackBuilder, SealedPack};

/// Bytes written one field after the other; `at` says where the format has the next one.
#[derive(Default)]
struct Picture(Vec<u8>);

impl Picture {
    fn new() -> Self {
        Self::default()
    }
    #[track_caller]
    fn at(self, offset: usize) -> Self {
        assert_eq!(self.0.len(), offset, "the picture itself is wrong");
        self
    }
    fn raw(mut self, bytes: &[u8]) -> Self {
        self.0.extend_from_slice(bytes);
        self
    }
    fn u8(self, n: u8) -> Self {
        self.raw(&[n])
    }
    fn u16(self, n: u16) -> Self {
        self.raw(&n.to_le_bytes())
    }
    fn u32(self, n: u32) -> Self {
        self.raw(&n.to_le_bytes())
    }
    fn u64(self, n: u64) -> Self {
        self.raw(&n.to_le_bytes())
    }
    fn zeros(self, n: usize) -> Self {
        self.raw(&vec![0; n])
    }
    /// First bytes of the BLAKE3 of all so far and of `more`.
    fn checksum(self, n: usize, more: &[u8]) -> Self {
        let sum = blake3::hash(&[&self.0, more].concat());
        self.raw(&sum.as_bytes()[..n])
    }

    // bincode, section 1.
    fn text(self, text: impl AsRef<[u8]>) -> Self {
        self.u64(text.as_ref().len() as u64).raw(text.as_ref())
    }
    fn option<T>(self, value: Option<T>, put: impl Fn(Self, T) -> Self) -> Self {
        match value {
            None => self.u8(0),
            Some(value) => put(self.u8(1), value),
        }
    }
    fn list<T>(self, values: impl IntoIterator<Item = T>, put: impl Fn(Self, T) -> Self) -> Self {
        let values: Vec<T> = values.into_iter().collect();
        let begun = self.u64(values.len() as u64);
        values.into_iter().fold(begun, put)
    }

    // Section 4: what entries are made of.
    fn session(self, s: SessionId) -> Self {
        self.u64(s.opened_at).u64(s.nonce)
    }
    fn pack_name(self, p: PackName) -> Self {
        self.session(p.session).u32(p.n)
    }
    fn pack(self, p: PackRecord) -> Self {
        let kind = match p.kind {
            PackKind::Clusters => 0,
            PackKind::Nodes => 1,
        };
        let begun = self.u32(p.n).u32(kind).raw(&p.hash.0);
        begun.u32(p.size).u32(p.entries).u32(p.blocks)
    }
    fn content(self, c: Content) -> Self {
        self.raw(&c.root.0).u64(c.size)
    }
    fn uid(self, uid: Uid) -> Self {
        self.raw(&uid.0)
    }
    fn hash(self, hash: Hash) -> Self {
        self.raw(&hash.0)
    }
    fn attachment(self, a: &Attachment) -> Self {
        self.text(&a.path).text(&a.format).u8(u8::from(a.read_only))
    }
    fn goto(self, g: &GotoRecord) -> Self {
        self.uid(g.uid).list(&g.devices, |p, d| {
            let p = p.uid(d.device).content(d.undo);
            let p = p.option(d.undo_base, Self::uid);
            p.content(d.target).uid(d.snapshot)
        })
    }
    fn record(self, r: &SnapshotRecord) -> Self {
        let p = self.uid(r.uid).uid(r.device).text(&r.id).text(&r.name);
        let p = p.u64(r.date_sec).u32(r.date_nsec).u64(r.vm_clock_nsec);
        let p = p.option(r.icount, Self::u64);
        let p = p.option(r.vm_state, Self::content).content(r.content);
        let p = p.option(r.group, Self::uid).option(r.parent, Self::uid);
        let p = p.text(&r.extra);
        p.list(&r.labels, |p, (key, value)| p.text(key).text(value))
    }
    fn volume(self, v: VolumeRecord) -> Self {
        let p = self.u64(v.generation).u64(v.absorbed).u64(v.size);
        p.option(v.host, Self::uid)
    }
    fn kind(self, kind: SessionKind) -> Self {
        self.u32(match kind {
            SessionKind::Writer => 0,
            SessionKind::Reader => 1,
            SessionKind::Gc => 2,
        })
    }

    // Section 3.
    fn envelope(magic: &[u8], sequence: u64, previous: Hash, payload: &[u8]) -> Vec<u8> {
        let head = Self::new().raw(magic).at(8).u32(1).at(12).zeros(4);
        let head = head.at(16).u64(sequence).at(24).u64(payload.len() as u64);
        let head = head.at(32).hash(previous).at(64).checksum(32, payload);
        head.at(96).raw(payload).0
    }
}

#[track_caller]
fn same(what: &str, written: &[u8], picture: &[u8]) {
    if let Some(at) =
        (0..written.len().max(picture.len())).find(|i| written.get(*i) != picture.get(*i))
    {
        let from = at.saturating_sub(4);
        let near = |b: &[u8]| format!("{:02x?}", b.iter().skip(from).take(16).collect::<Vec<_>>());
        panic!(
            "{what}: byte {at} is not FORMAT.md's; from {from} on written {}, in the format {}",
            near(written),
            near(picture)
        );
    }
}

const SESSION: SessionId = SessionId {
    opened_at: 1,
    nonce: 0x0102_0304_0506_0708,
};
const PACK: PackName = PackName {
    session: SESSION,
    n: 7,
};
const STORE: Uid = Uid([0x5a; 16]);

fn uid(n: u8) -> Uid {
    Uid([n; 16])
}

fn content(n: u8) -> Content {
    Content {
        root: Hash([n; 32]),
        size: 1000 + u64::from(n),
    }
}

fn pack_record() -> PackRecord {
    PackRecord {
        n: 0,
        kind: PackKind::Nodes,
        hash: Hash([6; 32]),
        size: 5000,
        entries: 3,
        blocks: 1,
    }
}

fn record() -> SnapshotRecord {
    SnapshotRecord {
        uid: uid(1),
        device: uid(2),
        id: b"17".to_vec(),
        name: b"before".to_vec(),
        date_sec: 1_700_000_000,
        date_nsec: 999_999_999,
        vm_clock_nsec: 3,
        icount: Some(4),
        vm_state: Some(content(5)),
        content: content(6),
        group: Some(uid(7)),
        parent: None,
        extra: vec![8, 9],
        labels: [("k".to_string(), "value".to_string())].into(),
    }
}

fn attachment() -> Attachment {
    Attachment {
        path: b"/images/a".to_vec(),
        format: "raw".into(),
        read_only: true,
    }
}

fn goto() -> GotoRecord {
    GotoRecord {
        uid: uid(3),
        devices: vec![GotoDevice {
            device: uid(2),
            undo: content(6),
            undo_base: Some(uid(1)),
            target: content(6),
            snapshot: uid(1),
        }],
    }
}

fn volume() -> VolumeRecord {
    VolumeRecord {
        generation: 2,
        absorbed: 7,
        size: 1 << 40,
        host: Some(uid(4)),
    }
}

/// Every op there is, with its number and what follows that.
fn ops() -> Vec<(Op, Picture)> {
    let p = Picture::new;
    let packs = || vec![PACK];
    let roots = || vec![Hash([9; 32])];
    let claims = || {
        p().list(packs(), Picture::pack_name)
            .list(roots(), Picture::hash)
    };
    let open = Op::Open {
        kind: SessionKind::Gc,
        label: "host".into(),
    };
    let put_device = Op::PutDevice {
        uid: uid(2),
        name: "root".into(),
        attachment: Some(attachment()),
    };
    let put_head = Op::PutHead {
        uid: uid(2),
        head: Some(content(1)),
        base: None,
    };
    let compact = Op::Compact {
        base: 40,
        new: vec![pack_record()],
        dropped: packs(),
        kept: vec![],
    };
    let goto_end = Op::GotoEnd {
        uid: uid(3),
        result: GotoResult::Undone,
    };
    let put_volume = Op::PutVolume {
        uid: uid(2),
        expect: Some(ChainPoint {
            generation: 2,
            absorbed: 6,
        }),
        volume: Some(volume()),
        head: Some(content(1)),
        base: None,
        origin: HeadOrigin::Stored,
    };
    vec![
        (open, p().kind(SessionKind::Gc).text("host")),
        (Op::Close, p()),
        (Op::Expire { session: SESSION }, p().session(SESSION)),
        (
            Op::Publish {
                packs: vec![pack_record()],
            },
            p().list([pack_record()], Picture::pack),
        ),
        (
            Op::Rely {
                packs: packs(),
                roots: roots(),
            },
            claims(),
        ),
        (
            Op::Pin {
                packs: packs(),
                roots: roots(),
            },
            claims(),
        ),
        (
            Op::Unpin {
                packs: packs(),
                roots: roots(),
            },
            claims(),
        ),
        (
            Op::PutSnapshot {
                record: record(),
                gotos_begun: 2,
            },
            p().record(&record()).u64(2),
        ),
        (Op::DeleteSnapshot { uid: uid(1) }, p().uid(uid(1))),
        (
            put_device,
            p().uid(uid(2)).text("root").u8(1).attachment(&attachment()),
        ),
        (Op::RemoveDevice { uid: uid(2) }, p().uid(uid(2))),
        (put_head, p().uid(uid(2)).u8(1).content(content(1)).u8(0)),
        (
            compact,
            p().u64(40)
                .list([pack_record()], Picture::pack)
                .list(packs(), Picture::pack_name)
                .u64(0),
        ),
        (Op::GotoBegin { record: goto() }, p().goto(&goto())),
        (goto_end, p().uid(uid(3)).u32(1)),
        (
            put_volume,
            p().uid(uid(2))
                .u8(1)
                .u64(2)
                .u64(6)
                .u8(1)
                .volume(volume())
                .u8(1)
                .content(content(1))
                .u8(0)
                .u32(1),
        ),
    ]
}

#[test]
fn store_json_is_section_2() {
    let file = StoreFile {
        id: STORE,
        geometry: Geometry {
            cluster_bytes: 4096,
            frame_bytes: 16384,
            compression: Compression::Zstd(3),
        },
    };
    let members = [
        ("magic", "\"stillpoint store\""),
        ("version", "1"),
        ("id", "\"5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a\""),
        ("cluster_bytes", "4096"),
        ("frame_bytes", "16384"),
    ];
    let compact: Vec<String> = members
        .iter()
        .map(|(k, v)| format!("\"{k}\":{v}"))
        .collect();
    let compact = format!("{{{},\"compression\":{{\"zstd\":3}}}}", compact.join(","));
    let pretty: Vec<String> = members
        .iter()
        .map(|(k, v)| format!("  \"{k}\": {v},\n"))
        .collect();
    let pretty = pretty.concat();
    let text = format!(
        "{{\n{pretty}  \"compression\": {{\n    \"zstd\": 3\n  }},\n  \"checksum\": \"{}\"\n}}\n",
        blake3::hash(compact.as_bytes())
    );
    same("store.json", &file.encode(), text.as_bytes());
}

#[test]
fn envelopes_are_section_3() {
    let kinds = [
        (EnvelopeKind::Entry, b"STILLENT"),
        (EnvelopeKind::Checkpoint, b"STILLCKP"),
        (EnvelopeKind::Record, b"STILLREC"),
    ];
    for (kind, magic) in kinds {
        let (written, checksum) = envelope::seal(kind, 9, Hash([3; 32]), b"payload");
        same(
            "envelope",
            &written,
            &Picture::envelope(magic, 9, Hash([3; 32]), b"payload"),
        );
        assert_eq!(checksum.0[..], written[64..96]);
    }
}

#[test]
fn an_entry_with_every_op_is_section_4() {
    let (ops, pictures): (Vec<Op>, Vec<Picture>) = ops().into_iter().unzip();
    let count = ops.len() as u64;
    let entry = Entry {
        session: SESSION,
        counter: 5,
        base: 41,
        ops,
    };
    let head = Picture::new().session(SESSION).u64(5).u64(41).u64(count);
    let picture = (0..)
        .zip(pictures)
        .fold(head, |p, (number, op)| p.u32(number).raw(&op.0));
    same("entry", &codec::encode(&entry), &picture.0);
}

/// The stored form of a catalog by what it says of itself.
fn catalog_picture(c: &Catalog) -> Vec<u8> {
    let number = |n: Option<u32>| n.map_or(0, |n| n + 1);
    let next_pack = number(c.packs().map(|p| p.number.0).max());
    let next_snapshot = c.snapshots().map(|s| s.order + 1).max().unwrap_or(0);
    let p = Picture::new().u64(c.seq()).hash(c.tip());
    let p = p.list(c.sessions(), |p, (id, s)| {
        let p = p.session(*id).kind(s.kind).text(&s.label).u64(s.counter);
        p.list(s.packs.iter().copied(), Picture::pack_name)
            .list(s.roots.iter().copied(), Picture::hash)
    });
    let p = p.list(c.packs(), |p, pack| {
        let p = p
            .pack_name(pack.name)
            .u32(pack.number.0)
            .pack_name(pack.name);
        p.pack(pack.record).u64(pack.last_named)
    });
    let p = p.u32(next_pack).list(c.devices(), |p, d| {
        let p = p.uid(d.uid).uid(d.uid).text(&d.name);
        let p = p.option(d.attachment.as_ref(), Picture::attachment);
        let p = p
            .option(d.head, Picture::content)
            .option(d.base, Picture::uid);
        p.u64(d.next_id)
            .u64(d.gotos_begun)
            .option(d.in_goto, Picture::uid)
            .option(d.volume, Picture::volume)
    });
    let p = p.list(c.snapshots(), |p, s| {
        p.uid(s.record.uid).u64(s.order).record(&s.record)
    });
    p.u64(next_snapshot)
        .list(c.gotos(), |p, g| p.uid(g.uid).goto(g))
        .0
}

#[test]
fn a_checkpoint_is_section_5() {
    let ops = vec![
        Op::Open {
            kind: SessionKind::Writer,
            label: "host".into(),
        },
        Op::Publish {
            packs: vec![pack_record()],
        },
        Op::PutDevice {
            uid: uid(2),
            name: "root".into(),
            attachment: Some(attachment()),
        },
        Op::PutSnapshot {
            record: record(),
            gotos_begun: 0,
        },
        Op::PutHead {
            uid: uid(2),
            head: Some(content(6)),
            base: Some(uid(1)),
        },
        Op::Pin {
            packs: vec![PackName { n: 0, ..PACK }],
            roots: vec![content(6).root],
        },
        Op::GotoBegin { record: goto() },
        Op::PutDevice {
            uid: uid(7),
            name: "volume".into(),
            attachment: None,
        },
        Op::PutVolume {
            uid: uid(7),
            expect: None,
            volume: Some(volume()),
            head: Some(content(6)),
            base: None,
            origin: HeadOrigin::Existing,
        },
    ];
    let entry = Entry {
        session: SESSION,
        counter: 1,
        base: 0,
        ops,
    };
    let (catalog, valid) = Catalog::default().apply(Hash([4; 32]), &entry, Rules::default());
    valid.unwrap();
    let parts = (catalog.sessions().count(), catalog.gotos().count());
    assert_eq!(parts, (1, 1), "the catalog has something of everything");
    same(
        "catalog",
        &codec::encode(&catalog),
        &catalog_picture(&catalog),
    );

    let key = "checkpoint/00000000000000000008";
    let stored = &files(&fixture())[key];
    let catalog: Catalog = codec::decode(&stored[96..], 1 << 20).unwrap();
    let payload = catalog_picture(&catalog);
    let picture = Picture::envelope(b"STILLCKP", 8, catalog.tip(), &payload);
    same(key, stored, &picture);
}

#[test]
fn a_records_copy_is_section_6() {
    let payload = Picture::new().record(&record()).0;
    let picture = Picture::envelope(b"STILLREC", 0, Hash([0; 32]), &payload);
    same("record", &record_copy(&record()), &picture);
}

/// Bytes 16 to 35 of a pack's header, which seal table and trailer.
fn seal_of_pack() -> Vec<u8> {
    Picture::new().pack_name(PACK).0
}

fn header(kind: u8) -> Picture {
    let p = Picture::new()
        .raw(b"STILLPAK")
        .at(8)
        .u32(1)
        .at(12)
        .u8(kind)
        .zeros(3);
    let p = p.at(16).pack_name(PACK).at(36).u32(4096).at(40).uid(STORE);
    p.at(56).checksum(8, &[])
}

/// `lengths` and `encoded` come after the header, whose checksum covers them.
fn frame(encoding: u8, items: u16, decoded: u32, lengths: &[u8], encoded: &[u8]) -> Vec<u8> {
    let p = Picture::new()
        .raw(b"SFRM")
        .at(4)
        .u8(encoding)
        .u8(0)
        .at(6)
        .u16(items);
    let p = p.at(8).u32(encoded.len() as u32).at(12).u32(decoded);
    let body = [lengths, encoded].concat();
    p.at(16).checksum(8, &body).at(24).raw(&body).0
}

/// `rest`: bytes 20 on of a block.
fn block(number: u32, rest: &Picture) -> Vec<u8> {
    let mut rest = Picture::new().u32(number).raw(&rest.0).0;
    assert!(rest.len() <= 4080);
    rest.resize(4080, 0);
    let sum = blake3::hash(&[rest.clone(), seal_of_pack()].concat());
    [&sum.as_bytes()[..16], &rest].concat()
}

fn trailer(offset: u32, blocks: u32, entries: u32, frames: u32, decoded: u64) -> Vec<u8> {
    let p = Picture::new()
        .raw(b"STILLEND")
        .at(8)
        .u32(1)
        .at(12)
        .u32(offset)
        .u32(blocks);
    let p = p.at(20).u32(entries).u32(frames).at(28).zeros(4);
    let p = p.at(32).u64(decoded).at(40).zeros(8);
    p.at(48).checksum(16, &seal_of_pack()).at(64).0
}

fn sealed(kind: PackKind, frames: &[&[&[u8]]]) -> SealedPack {
    let mut builder = PackBuilder::new(STORE, PACK, kind, 4096);
    for items in frames {
        let hashes: Vec<Hash> = items.iter().map(|item| Hash::of(item)).collect();
        builder.push(&encode_frame(kind, items, Compression::None), &hashes);
    }
    builder.seal()
}

#[test]
fn a_pack_of_clusters_is_section_7() {
    let clusters = [vec![1; 4096], vec![2; 4096], vec![3; 4096]];
    let [one, two, three] = clusters.each_ref().map(Vec::as_slice);
    let pack = sealed(PackKind::Clusters, &[&[one, two], &[three]]);

    let frames = [
        frame(0, 2, 8192, &[], &[one, two].concat()),
        frame(0, 1, 4096, &[], three),
    ];
    let (first, second) = (frames[0].len() as u32, frames[1].len() as u32);
    let entries = Picture::new().u16(2).u16(3);
    let entries = entries.u32(64).u32(first).u16(0).u16(2);
    let entries = entries.u32(64 + first).u32(second).u16(0).u16(1);
    let entries = [one, two, three]
        .iter()
        .fold(entries, |p, c| p.hash(Hash::of(c)));
    let table_at = 64 + first + second;
    let picture = header(0).at(64).raw(&frames.concat());
    let picture = picture.at(table_at as usize).raw(&block(0, &entries));
    let picture = picture.raw(&trailer(table_at, 1, 3, 2, 3 * 4096)).0;
    same("pack", &pack.bytes, &picture);
    assert_eq!(pack.record.hash, Hash::of(&picture));
}

#[test]
fn frames_of_nodes_have_lengths_and_their_items_may_stand_in_two_blocks() {
    let items: Vec<[u8; 2]> = (0..200u16).map(u16::to_le_bytes).collect();
    let items: Vec<&[u8]> = items.iter().map(|i| &i[..]).collect();
    let pack = sealed(PackKind::Nodes, &[&items]);

    let lengths = items.iter().fold(Picture::new(), |p, _| p.u32(2)).0;
    let body = frame(0, 200, 400, &lengths, &items.concat());
    // As many as fit into 4096 bytes beside the head and one frame: 126.
    let part = |first: u16, count: u16| {
        let p = Picture::new().u16(1).u16(count);
        let p = p.u32(64).u32(body.len() as u32).u16(first).u16(count);
        let items = items.iter().skip(first.into()).take(count.into());
        items.fold(p, |p, item| p.hash(Hash::of(item)))
    };
    let table_at = 64 + body.len() as u32;
    let picture = header(1)
        .raw(&body)
        .raw(&block(0, &part(0, 126)))
        .raw(&block(1, &part(126, 74)));
    let picture = picture.raw(&trailer(table_at, 2, 200, 1, 400)).0;
    same("pack", &pack.bytes, &picture);
    let numbers: Vec<u32> = pack.entries.iter().map(|(_, entry)| *entry).collect();
    let expected: Vec<u32> = (0..126).chain(128..202).collect();
    assert_eq!(numbers, expected, "block * 128 + place");
}

#[test]
fn a_compressed_frame_is_section_7() {
    let cluster = [7; 4096];
    let written = encode_frame(PackKind::Clusters, &[&cluster], Compression::Zstd(3)).bytes;
    let encoded = &written[24..];
    same("frame", &written, &frame(1, 1, 4096, &[], encoded));
    assert_eq!(zstd::decode_all(encoded).unwrap(), cluster);
}

#[test]
fn a_manifest_node_is_section_8() {
    let mut draft = NodeDraft::new(2);
    let children = [
        Child::Hash(Hash([1; 32])),
        Child::Zero,
        Child::Hole,
        Child::Zero,
        Child::Hash(Hash([2; 32])),
    ];
    children.iter().for_each(|child| draft.push(*child, 1));
    draft.push(Child::Hole, 10);
    draft.push(Child::Zero, 1);
    let picture = Picture::new().raw(b"SMAN").at(4).u8(2).u8(1).zeros(2);
    let kinds = 2 | 1 << 2 | 1 << 6 | 2 << 8 | 1 << 30;
    let picture = picture
        .at(8)
        .u32(kinds)
        .at(12)
        .raw(&[1; 32])
        .raw(&[2; 32])
        .0;
    same("node", &draft.take().encode(), &picture);
}

#[test]
fn an_overlays_header_and_map_are_section_9() {
    let header = OverlayHeader {
        name: OverlayName {
            store: STORE,
            volume: uid(2),
            host: uid(4),
            generation: 3,
            n: 5,
        },
        sealed: true,
        count: 6,
        seed: [7; 16],
        durable: 8,
        first: 9,
    };
    let p = Picture::new().raw(b"STILLOVL").at(8).u32(1).u32(1);
    let p = p.at(16).uid(STORE).uid(uid(2)).uid(uid(4));
    let p = p.at(64).u64(3).u64(5).u64(6).at(88).raw(&[7; 16]);
    let p = p.at(104).u64(8).u32(9).zeros(4).at(120);
    let checksum = *blake3::hash(&p.0).as_bytes();
    same("header", &header.encode(), &p.raw(&checksum[..8]).0);

    let block = MapBlock {
        number: 2,
        next: 77,
        ends_batch: true,
        entries: vec![
            MapEntry::Empty {
                first: 10,
                count: 1 << 40,
                kind: Empty::Hole,
            },
            MapEntry::Empty {
                first: 3,
                count: 1,
                kind: Empty::Zero,
            },
            MapEntry::Data {
                block: 11,
                slot: 12,
                sum: 99,
            },
        ],
    };
    let p = Picture::new().u64(2).u32(77).u8(3).u8(0).u8(1).u8(0);
    let p = p.at(16).u64(10).u64(1 << 40).u32(0).u32(0);
    let p = p.u64(3).u64(1).u32(0).u32(1);
    let p = p.u64(11).u64(99).u32(12).u32(2).zeros(4080 - 88);
    let checksum = *blake3::hash(&[&[5; 16][..], &p.0].concat()).as_bytes();
    let whole = [&checksum[..16], &p.0].concat();
    same("map block", &block.encode(&[5; 16]).0, &whole);
}
