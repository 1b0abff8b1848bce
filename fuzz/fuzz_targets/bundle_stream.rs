//! A bundle or one direction of a sync: as it comes, and with its checksums made right, taken in by a store in memory.
#![no_main]

use libfuzzer_sys::fuzz_target;
use std::sync::Arc;
use stillpoint_migrate::bundle::{Receive, receive};
use stillpoint_migrate::wire::stream::{HEAD_BYTES, PREAMBLE_BYTES, Raw};
use stillpoint_migrate::wire::{Message, Outgoing, Preamble};
use stillpoint_store::geometry::{Compression, Geometry};
use stillpoint_store::index::memory::MemoryHome;
use stillpoint_store::object::memory::MemoryObjects;
use stillpoint_store::progress::Progress;
use stillpoint_store::store::{Doors, Store};
use stillpoint_store::world::RealWorld;

/// As `fuzz/seeds.rs` has it.
const GEOMETRY: Geometry = Geometry {
    cluster_bytes: 4096,
    frame_bytes: 16384,
    compression: Compression::Zstd(1),
};

fn store() -> Store {
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
fn mended(data: &[u8]) -> Option<Vec<u8>> {
    let preamble = Preamble::decode(data.first_chunk::<PREAMBLE_BYTES>()?).ok()?;
    let mut bytes = Vec::new();
    let mut out = Outgoing::begin(&mut bytes, &preamble).ok()?;
    let mut rest = &data[PREAMBLE_BYTES..];
    while let Some((head, after)) = rest.split_first_chunk::<HEAD_BYTES>() {
        let len = u32::from_le_bytes([head[4], head[5], head[6], head[7]]) as usize;
        let (payload, after) = after.split_at_checked(len)?;
        let raw = Raw {
            kind: head[0],
            hops: 0,
            payload: payload.to_vec(),
        };
        if let Ok(message) = Message::decode(raw) {
            // One message has one encoding.
            let (kind, again) = message.encode();
            assert_eq!((kind, &again[..]), (head[0], payload));
        }
        out.put(head[0], 0, payload).ok()?;
        rest = after;
    }
    Some(bytes)
}

fuzz_target!(|data: &[u8]| {
    let forms = [Some(data.to_vec()), mended(data)];
    for bytes in forms.into_iter().flatten() {
        let store = store();
        let from = std::io::Cursor::new(bytes);
        let received = receive(&store, &Receive::default(), from, &Progress::default());
        let catalog = store.refresh().expect("memory can be read");
        assert_eq!(catalog.sessions().count(), 0);
        if received.is_err() {
            assert_eq!(catalog.snapshots().count(), 0);
        } else {
            let report = store.verify(&Progress::default()).expect("it can be read");
            assert!(report.is_good(), "{report:?}");
        }
    }
});
