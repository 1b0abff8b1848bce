//! Writes the seeds: small good examples of everything. `cargo run --example seeds` in this folder, after the format changed.

#[path = "fuzz_targets/common.rs"]
mod common;
mod seeds_of_transfers;

use common::{CLUSTER_BYTES, header, name};
use std::path::Path;
use std::{fs, io};
use stillpoint_migrate::qcow2::write::{
    Content, Draft, Key, Options, Part, Piece, Pieces, Source, write,
};
use stillpoint_migrate::qcow2::{self as migrate, Snapshot};
use stillpoint_store::codec::encode_frame;
use stillpoint_store::disk::sim::SimDisk;
use stillpoint_store::disk::{Disk, OpenMode};
use stillpoint_store::format::entry::PackKind;
use stillpoint_store::format::manifest::NodeDraft;
use stillpoint_store::format::overlay::{Empty, MapBlock, MapEntry, OverlayHeader, OverlayName};
use stillpoint_store::format::pack::{BLOCK_BYTES, TRAILER_BYTES};
use stillpoint_store::format::store::StoreFile;
use stillpoint_store::geometry::{Compression, Geometry};
use stillpoint_store::id::{Hash, Uid};
use stillpoint_store::manifest::Child;
use stillpoint_store::pack::writer::{PackBuilder, SealedPack};
use stillpoint_store::progress::Progress;

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

fn overlays() -> io::Result<()> {
    let header = OverlayHeader {
        name: OverlayName {
            store: Uid([1; 16]),
            volume: Uid([2; 16]),
            host: Uid([3; 16]),
            generation: 1,
            n: 1,
        },
        sealed: true,
        count: 3,
        seed: [7; 16],
        durable: 1,
        first: 2,
    };
    put("overlay", "header", &header.encode())?;
    let data = |block, slot| MapEntry::Data {
        block,
        slot,
        sum: 9,
    };
    let empty = |first, count, kind| MapEntry::Empty { first, count, kind };
    let seeds = [
        ("nothing", vec![]),
        ("data", vec![data(0, 4), data(1 << 40, 5), data(0, 6)]),
        (
            "empty",
            vec![
                empty(0, 1 << 50, Empty::Hole),
                empty(7, 1, Empty::Zero),
                data(7, 3),
            ],
        ),
    ];
    for (seed, entries) in seeds {
        let block = MapBlock {
            number: 1,
            next: 3,
            ends_batch: true,
            entries,
        };
        // The target adds zeros and the checksum.
        put("overlay", seed, &block.encode(&[7; 16]).0[..200])?;
    }
    Ok(())
}

/// Every second cluster of a disk and of a snapshot's VM state.
struct Half;

impl Source for Half {
    fn pieces(&self, part: Part) -> stillpoint_migrate::Result<Pieces<'_>> {
        let skip = usize::from(part == Part::Active);
        Ok(Box::new((0..4).skip(skip).map(|n| {
            let (key, offset) = (Key([n as u8 + 1; 32]), 0);
            let content = Content::Data { key, offset };
            Ok(Piece {
                start: n * 1024,
                len: 512,
                content,
            })
        })))
    }

    fn read(&self, key: &Key, _: u64, buf: &mut [u8]) -> stillpoint_migrate::Result<()> {
        buf.fill(key.0[0]);
        buf[0] = 0;
        Ok(())
    }
}

fn qcow2s() -> io::Result<()> {
    let snapshot = Snapshot {
        id: b"1".to_vec(),
        name: b"s".to_vec(),
        vm_state_size: 4096,
        ..Snapshot::default()
    };
    let draft = Draft {
        size: 4096,
        snapshots: vec![snapshot],
    };
    let seeds = [
        ("v2", 2, None),
        ("v3", 3, None),
        ("zlib", 2, Some((migrate::Compression::Zlib, 9))),
        ("zstd", 3, Some((migrate::Compression::Zstd, 1))),
    ];
    for (name, version, compression) in seeds {
        let options = Options {
            version,
            compression,
            cluster_bits: 9,
            ..Options::default()
        };
        let disk = SimDisk::new(1);
        let file = disk
            .open(Path::new("/a"), OpenMode::CreateNew)
            .map_err(io::Error::other)?;
        write(&*file, &draft, &options, &Half, &Progress::default()).map_err(io::Error::other)?;
        let mut bytes = vec![0; file.len().map_err(io::Error::other)? as usize];
        file.read_at(0, &mut bytes).map_err(io::Error::other)?;
        put("qcow2", name, &bytes)?;
    }
    Ok(())
}

fn main() -> io::Result<()> {
    seeds_of_transfers::transfers()?;
    overlays()?;
    packs()?;
    nodes()?;
    stores()?;
    qcow2s()
}
