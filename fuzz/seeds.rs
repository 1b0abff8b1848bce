//! Writes the seeds: small good examples of everything. `cargo run --example seeds` in this folder, after the format changed.

#[path = "fuzz_targets/common.rs"]
mod common;

use common::{CLUSTER_BYTES, header, name};
use std::{fs, io};
use stillpoint_migrate::wire::edits::Edits;
use stillpoint_migrate::wire::message::{Device, Have, Plan, Step, Totals, Want};
use stillpoint_migrate::wire::{Incoming, Message, Outgoing, Preamble, Purpose};
use stillpoint_store::codec::encode_frame;
use stillpoint_store::format::entry::{Content, PackKind};
use stillpoint_store::format::manifest::NodeDraft;
use stillpoint_store::format::pack::{BLOCK_BYTES, TRAILER_BYTES};
use stillpoint_store::format::snapshot::SnapshotRecord;
use stillpoint_store::format::store::StoreFile;
use stillpoint_store::geometry::{Compression, Geometry};
use stillpoint_store::id::{Hash, Uid};
use stillpoint_store::manifest::build::Builder;
use stillpoint_store::manifest::{Child, Run};
use stillpoint_store::pack::writer::{PackBuilder, SealedPack};

fn put(target: &str, seed: &str, bytes: &[u8]) -> io::Result<()> {
    let folder = format!("{}/corpus/{target}", env!("CARGO_MANIFEST_DIR"));
    fs::create_dir_all(&folder)?;
    fs::write(format!("{folder}/{seed}"), bytes)
}

fn pack(kind: PackKind, items: &[&[u8]], compression: Compression) -> SealedPack {
    let mut builder = PackBuilder::new(Uid([4; 16]), name(), kind, CLUSTER_BYTES);
    for part in items.chunks(3) {
        let hashes: Vec<Hash> = part.iter().map(|item| Hash::of(item)).collect();
        builder.push(&encode_frame(kind, part, compression), &hashes);
    }
    builder.seal()
}

/// Name, kind, items, compression.
type Seed<'a> = (&'a str, PackKind, &'a [&'a [u8]], Compression);
/// Name, level, runs of children.
type NodeSeed<'a> = (&'a str, u8, &'a [(Child, usize)]);

fn packs() -> io::Result<()> {
    let cluster: Vec<u8> = (0..CLUSTER_BYTES).map(|n| (n / 100) as u8).collect();
    let seeds: [Seed<'_>; 4] = [
        (
            "clusters-zstd",
            PackKind::Clusters,
            &[&cluster[..]; 4],
            Compression::Zstd(1),
        ),
        (
            "clusters-raw",
            PackKind::Clusters,
            &[&cluster[..]; 1],
            Compression::None,
        ),
        (
            "nodes-zstd",
            PackKind::Nodes,
            &[&cluster[..200], &cluster[..7]],
            Compression::Zstd(1),
        ),
        (
            "nodes-raw",
            PackKind::Nodes,
            &[b"abc", b"d", b"ef", b"g"],
            Compression::None,
        ),
    ];
    for (seed, kind, items, compression) in seeds {
        let frame = encode_frame(kind, &items[..items.len().min(3)], compression);
        put("frame", seed, &frame.bytes)?;
        let pack = pack(kind, items, compression).bytes;
        let (rest, trailer) = pack.split_at(pack.len() - TRAILER_BYTES);
        put("trailer", &format!("{seed}-trailer"), trailer)?;
        put("trailer", &format!("{seed}-header"), &header(kind).encode())?;
        let (frames, block) = rest.split_at(rest.len() - BLOCK_BYTES);
        // The target adds zeros.
        put("table_block", seed, &block[..256])?;
        put("pack_scan", &format!("{seed}-whole"), &pack)?;
        put("pack_scan", &format!("{seed}-frames"), frames)?;
    }
    Ok(())
}

fn nodes() -> io::Result<()> {
    let hash = Child::Hash(Hash([7; 32]));
    let seeds: [NodeSeed<'_>; 4] = [
        ("holes", 0, &[(Child::Hole, 16)]),
        ("leaf", 0, &[(hash, 2), (Child::Zero, 3), (hash, 1)]),
        ("inner", 3, &[(Child::Zero, 9), (hash, 1)]),
        ("full", 1, &[(hash, 16)]),
    ];
    for (seed, level, children) in seeds {
        let mut draft = NodeDraft::new(level);
        for (child, count) in children {
            draft.push(*child, *count);
        }
        put("manifest_node", seed, &draft.take().encode())?;
    }
    Ok(())
}

fn stores() -> io::Result<()> {
    let file = StoreFile {
        id: Uid([4; 16]),
        geometry: Geometry::DEFAULT,
    };
    put("store_json", "default", &file.encode())?;
    let compact = concat!(
        r#"{"magic":"stillpoint store","version":1,"id":"04040404040404040404040404040404","#,
        r#""cluster_bytes":4096,"frame_bytes":4096,"compression":"none","checksum":""}"#
    );
    put("store_json", "compact", compact.as_bytes())?;
    put(
        "store_json",
        "newer",
        br#"{"magic":"stillpoint store","version":2}"#,
    )
}

/// A bundle of a disk of six clusters: three in a frame, one of them again, zeros and a hole.
fn bundle() -> stillpoint_store::Result<Vec<u8>> {
    let clusters: Vec<Vec<u8>> = (1..4u8).map(|n| vec![n; CLUSTER_BYTES as usize]).collect();
    let hash = |n: usize| Child::Hash(Hash::of(&clusters[n]));
    let children = [hash(0), hash(1), Child::Zero, hash(2), Child::Hole, hash(0)];
    let mut builder = Builder::new(6);
    let mut runs = Vec::new();
    for (first, child) in (0..).zip(children) {
        builder.push(child, 1, &mut |_, _| Ok(()))?;
        if child != Child::Hole {
            runs.push(Run {
                first,
                count: 1,
                child,
            });
        }
    }
    let content = Content {
        root: builder.finish(&mut |_, _| Ok(()))?,
        size: 6 * u64::from(CLUSTER_BYTES) - 100,
    };
    let items: Vec<&[u8]> = clusters.iter().map(Vec::as_slice).collect();
    let frame = encode_frame(PackKind::Clusters, &items, Compression::Zstd(1));
    let device = Device {
        uid: Uid([5; 16]),
        name: "web1".into(),
        head: Some((content, None)),
        snapshots: vec![],
    };
    let record = SnapshotRecord {
        uid: Uid([6; 16]),
        device: device.uid,
        id: b"1".to_vec(),
        name: b"monday".to_vec(),
        date_sec: 1_700_000_000,
        date_nsec: 5,
        vm_clock_nsec: 7,
        icount: Some(9),
        vm_state: None,
        content,
        group: Some(Uid([7; 16])),
        parent: None,
        extra: b"extra".to_vec(),
        labels: std::collections::BTreeMap::default(),
    };
    let base = None;
    let messages = [
        Message::Plan(Plan::default()),
        Message::Device(device),
        Message::Snapshot(record),
        Message::Content(Step { base, content }),
        Message::Frame(frame.bytes),
        Message::Edits(Edits { window: 0, runs }),
        Message::ContentEnd,
        Message::End(Totals {
            contents: 1,
            windows: 1,
            clusters: 3,
        }),
    ];
    let mut bytes = Vec::new();
    let mut out = Outgoing::begin(&mut bytes, &preamble(Purpose::Bundle))?;
    for message in messages {
        let (kind, payload) = message.encode();
        out.put(kind, 0, &payload)?;
    }
    Ok(bytes)
}

fn preamble(purpose: Purpose) -> Preamble {
    Preamble {
        purpose,
        store: Uid([4; 16]),
        id: Uid([8; 16]),
        geometry: Geometry {
            cluster_bytes: CLUSTER_BYTES,
            frame_bytes: 16384,
            compression: Compression::Zstd(1),
        },
    }
}

/// What needs two clusters, and a filter of two: FORMAT.md 3 of `migrate` has the bits.
fn summaries() -> stillpoint_store::Result<[Vec<u8>; 2]> {
    let (mut need, mut filter) = (Vec::new(), Vec::new());
    let mut out = Outgoing::begin(&mut need, &preamble(Purpose::Summary))?;
    out.put(35, 0, &[[1; 32], [2; 32]].concat())?;
    out.put(36, 0, &[])?;
    let mut out = Outgoing::begin(&mut filter, &preamble(Purpose::Summary))?;
    out.put(
        32,
        0,
        &[&2u64.to_le_bytes()[..], &24u32.to_le_bytes()].concat(),
    )?;
    // No ones, a zero, 24 bits: twice, and six bits to fill the last byte.
    out.put(33, 0, &[2, 0, 0, 4, 0, 8, 0])?;
    out.put(34, 0, &2u64.to_le_bytes())?;
    out.put(36, 0, &[])?;
    Ok([need, filter])
}

/// A small bundle, summaries, and messages.
fn transfers() -> io::Result<()> {
    let bundle = bundle().map_err(io::Error::other)?;
    put("bundle_stream", "whole", &bundle)?;
    let [need, filter] = summaries().map_err(io::Error::other)?;
    put("summary", "need", &need)?;
    put("summary", "filter", &filter)?;
    let (_, mut messages) = Incoming::begin(&bundle[..]).map_err(io::Error::other)?;
    for n in 0.. {
        let raw = messages.read().map_err(io::Error::other)?;
        let message = [&[raw.kind][..], &raw.payload].concat();
        put("sync_message", &format!("{n}"), &message)?;
        if raw.kind == 13 {
            break;
        }
    }
    let want = Message::Want(Want::of(1, &[true, false, true]));
    let have = Message::Have(Have {
        snapshots: vec![Uid([1; 16])],
        roots: vec![Hash([2; 32])],
    });
    for (seed, message) in [("want", want), ("have", have)] {
        let (kind, payload) = message.encode();
        put("sync_message", seed, &[&[kind][..], &payload].concat())?;
    }
    Ok(())
}

fn main() -> io::Result<()> {
    transfers()?;
    packs()?;
    nodes()?;
    stores()
}
