//! The parts of the engine one by one, on made-up data that is the same every time. Ratios between them in one run mean
//! something; single times do not.

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use std::hint::black_box;
use stillpoint_store::codec::{decode_frame, encode_frame};
use stillpoint_store::format::entry::PackKind;
use stillpoint_store::geometry::{Compression, Geometry};
use stillpoint_store::id::{Hash, PackName, PackNumber, SessionId, Uid};
use stillpoint_store::index::slot::LocalSlots;
use stillpoint_store::index::{IndexHome, key_of};
use stillpoint_store::manifest::build::Builder;
use stillpoint_store::manifest::diff::diff;
use stillpoint_store::manifest::edit::edit;
use stillpoint_store::manifest::memory::MemoryNodes;
use stillpoint_store::manifest::{Child, Run};

const CLUSTER: usize = Geometry::DEFAULT.cluster_bytes as usize;
const CLUSTERS: u64 = 64 << 10;

/// Words in random order: compresses about as well as a file system of programs and texts.
fn text(bytes: usize, seed: u64) -> Vec<u8> {
    let mut state = seed | 1;
    let mut out = Vec::with_capacity(bytes + 64);
    while out.len() < bytes {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        let word = state >> 40;
        out.extend_from_slice(format!("{:x}{:03} ", word % 5000, word % 97).as_bytes());
    }
    out.truncate(bytes);
    out
}

fn hash_of(n: u64) -> Hash {
    Hash::of(&n.to_le_bytes())
}

fn clusters(c: &mut Criterion) {
    let mut group = c.benchmark_group("cluster");
    let cluster = text(CLUSTER, 1);
    group.throughput(Throughput::Bytes(CLUSTER as u64));
    group.bench_function("hash", |b| b.iter(|| Hash::of(black_box(&cluster))));
    group.finish();
}

fn frames(c: &mut Criterion) {
    let mut group = c.benchmark_group("frame");
    for kib in [64usize, 128, 256, 512, 1024] {
        let data = text(kib << 10, 7);
        let items: Vec<&[u8]> = data.chunks(CLUSTER).collect();
        group.throughput(Throughput::Bytes(data.len() as u64));
        for level in [3, 6] {
            group.bench_function(format!("encode {kib}K zstd:{level}"), |b| {
                b.iter(|| {
                    encode_frame(
                        PackKind::Clusters,
                        black_box(&items),
                        Compression::Zstd(level),
                    )
                });
            });
        }
        let frame = encode_frame(PackKind::Clusters, &items, Compression::Zstd(6));
        // What a cold random read of 4 KiB costs, the disk's own time apart.
        group.bench_function(format!("decode {kib}K"), |b| {
            b.iter(|| decode_frame(PackKind::Clusters, CLUSTER as u32, black_box(&frame.bytes)));
        });
    }
    group.finish();
}

fn manifests(c: &mut Criterion) {
    let nodes = MemoryNodes::default();
    let mut sink = |_: Hash, bytes: Vec<u8>| nodes.insert(Hash::of(&bytes), &bytes);
    let mut builder = Builder::new(CLUSTERS);
    for n in 0..CLUSTERS {
        builder
            .push(Child::Hash(hash_of(n)), 1, &mut sink)
            .expect("memory takes it");
    }
    let root = builder.finish(&mut sink).expect("memory takes it");
    let runs: Vec<Run> = (0..CLUSTERS)
        .step_by(100)
        .map(|first| Run {
            first,
            count: 1,
            child: Child::Hash(hash_of(first + CLUSTERS)),
        })
        .collect();
    let changed = edit(
        &nodes,
        root,
        CLUSTERS,
        CLUSTERS,
        runs.iter().copied(),
        &mut sink,
    )
    .expect("memory takes it");
    let mut group = c.benchmark_group("manifest of 64 Ki clusters");
    group.throughput(Throughput::Elements(CLUSTERS));
    group.bench_function("build", |b| {
        b.iter(|| {
            let mut builder = Builder::new(CLUSTERS);
            let mut drop = |_: Hash, _: Vec<u8>| Ok(());
            for n in 0..CLUSTERS {
                builder
                    .push(Child::Hash(Hash([n as u8; 32])), 1, &mut drop)
                    .expect("it drops them");
            }
            builder.finish(&mut drop)
        });
    });
    group.bench_function("edit, 1 % changed", |b| {
        let mut drop = |_: Hash, _: Vec<u8>| Ok(());
        b.iter(|| {
            edit(
                &nodes,
                root,
                CLUSTERS,
                CLUSTERS,
                runs.iter().copied(),
                &mut drop,
            )
        });
    });
    group.bench_function("diff, 1 % changed", |b| {
        b.iter(|| {
            diff(
                &nodes,
                root,
                CLUSTERS,
                &nodes,
                changed,
                CLUSTERS,
                &mut |_| Ok(()),
            )
        });
    });
    group.finish();
}

fn index(c: &mut Criterion) {
    const KEYS: u64 = 200_000;
    let folder = tempfile::tempdir().expect("a folder for the index");
    let slots = LocalSlots::new(folder.path(), Uid([7; 16]), 32 << 20);
    let Ok(Some((index, _))) = slots.open() else {
        return;
    };
    let name = PackName {
        session: SessionId {
            opened_at: 1,
            nonce: 1,
        },
        n: 0,
    };
    let mut places: Vec<_> = (0..KEYS).map(|n| (key_of(&hash_of(n)), n as u32)).collect();
    places.sort_unstable();
    index
        .insert_pack(PackNumber(0), &name, &places)
        .expect("the index takes it");
    let mut group = c.benchmark_group("index of 200 k keys");
    group.throughput(Throughput::Elements(1));
    let mut n = 0;
    group.bench_function("hit", |b| {
        b.iter(|| {
            n = (n + 7919) % KEYS;
            index.lookup(&key_of(&hash_of(n)))
        });
    });
    group.bench_function("miss", |b| {
        b.iter(|| {
            n += 1;
            index.lookup(&key_of(&hash_of(KEYS + n)))
        });
    });
    group.finish();
}

criterion_group!(parts, clusters, frames, manifests, index);
criterion_main!(parts);
