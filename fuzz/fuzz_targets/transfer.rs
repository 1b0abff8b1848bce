//! What the targets of bundles, summaries and syncs share: a store in memory, and checksums made right.
#![allow(dead_code, reason = "each target uses a part")]

use std::sync::Arc;
use stillpoint_migrate::wire::stream::{HEAD_BYTES, PREAMBLE_BYTES};
use stillpoint_migrate::wire::{Outgoing, Preamble};
use stillpoint_store::geometry::{Compression, Geometry};
use stillpoint_store::index::memory::MemoryHome;
use stillpoint_store::object::memory::MemoryObjects;
use stillpoint_store::store::{Doors, Store};
use stillpoint_store::world::RealWorld;

/// As `fuzz/seeds.rs` has it.
const GEOMETRY: Geometry = Geometry {
    cluster_bytes: 4096,
    frame_bytes: 16384,
    compression: Compression::Zstd(1),
};

/// An empty one.
pub fn store() -> Store {
    let objects = MemoryObjects::new();
    Store::create(&objects, &RealWorld, GEOMETRY).expect("memory holds it");
    let doors = Doors {
        objects: Arc::new(objects.clone()),
        local: Arc::new(objects),
        index: Arc::new(MemoryHome::default()),
        world: Arc::new(RealWorld),
        say: Arc::new(|_| {}),
    };
    Store::open(doors).expect("it was just made")
}

/// The same messages with checksums that fit; what is no whole message is left out.
pub fn mended(data: &[u8]) -> Option<Vec<u8>> {
    let preamble = Preamble::decode(data.first_chunk::<PREAMBLE_BYTES>()?).ok()?;
    let mut bytes = Vec::new();
    let mut out = Outgoing::begin(&mut bytes, &preamble).ok()?;
    let mut rest = &data[PREAMBLE_BYTES..];
    while let Some((head, after)) = rest.split_first_chunk::<HEAD_BYTES>() {
        let len = u32::from_le_bytes([head[4], head[5], head[6], head[7]]) as usize;
        let (payload, after) = after.split_at_checked(len)?;
        // With the hops that it says: they are counted up.
        let hops = u16::from_le_bytes([head[2], head[3]]);
        out.put(head[0], hops, payload).ok()?;
        rest = after;
    }
    Some(bytes)
}
