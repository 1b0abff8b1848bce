//! Seeds of what travels between stores.

use crate::common::CLUSTER_BYTES;
use crate::put;
use std::io;
use stillpoint_migrate::wire::edits::Edits;
use stillpoint_migrate::wire::message::{Device, Have, Plan, Step, Totals, Want};
use stillpoint_migrate::wire::{Incoming, Message, Outgoing, Preamble, Purpose};
use stillpoint_store::codec::encode_frame;
use stillpoint_store::format::entry::{Content, PackKind};
use stillpoint_store::format::snapshot::SnapshotRecord;
use stillpoint_store::geometry::{Compression, Geometry};
use stillpoint_store::id::{Hash, Uid};
use stillpoint_store::manifest::build::Builder;
use stillpoint_store::manifest::{Child, Run};

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

/// The bundle's disk as a sync tells it, frames behind what names them, and what a receiver without it says.
fn syncs(bundle: &[u8]) -> stillpoint_store::Result<(Vec<u8>, Vec<u8>)> {
    let (mut taken, mut given, mut frames) = (Vec::new(), Vec::new(), Vec::new());
    let (_, mut messages) = Incoming::begin(bundle)?;
    let mut out = Outgoing::begin(&mut taken, &preamble(Purpose::Sync))?;
    loop {
        let raw = messages.read()?;
        if raw.kind == 10 {
            frames.push(raw.payload);
            continue;
        }
        if raw.kind == 13 {
            for frame in &frames {
                out.put(10, 3, frame)?;
            }
            let (kind, payload) = Message::WindowEnd(0).encode();
            out.put(kind, 3, &payload)?;
            out.put(13, 3, &raw.payload)?;
            break;
        }
        out.put(raw.kind, 1, &raw.payload)?;
    }
    let mut out = Outgoing::begin(&mut given, &preamble(Purpose::Sync))?;
    // Of the two changes of each window, up to three windows: as the target cuts them.
    let wants = (0..3).map(|window| Message::Want(Want::of(window, &[true, window != 1])));
    let have = Message::Have(Have::default());
    for message in [have, Message::Ready].into_iter().chain(wants) {
        let (kind, payload) = message.encode();
        out.put(kind, 2, &payload)?;
    }
    Ok((taken, given))
}

/// A small bundle, summaries, and messages.
pub fn transfers() -> io::Result<()> {
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
    let (taken, given) = syncs(&bundle).map_err(io::Error::other)?;
    put("sync_stream", "taken", &[&[0][..], &taken].concat())?;
    put("sync_stream", "taken-again", &[&[1][..], &taken].concat())?;
    put("sync_stream", "given", &[&[3][..], &given].concat())?;
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
