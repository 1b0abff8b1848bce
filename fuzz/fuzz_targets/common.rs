//! What the targets share: the pack that all bytes claim to be of, and checksums, which no fuzzer would ever guess.
#![allow(dead_code, reason = "no target needs all of it")]

use stillpoint_store::format::entry::PackKind;
use stillpoint_store::format::pack::{FRAME_HEADER_BYTES, PackHeader, frame_checksum};
use stillpoint_store::id::{PackName, SessionId, Uid};

pub const CLUSTER_BYTES: u32 = 4096;

pub const fn name() -> PackName {
    PackName {
        session: SessionId {
            opened_at: 1,
            nonce: 2,
        },
        n: 3,
    }
}

pub const fn header(kind: PackKind) -> PackHeader {
    PackHeader {
        name: name(),
        kind,
        cluster_bytes: CLUSTER_BYTES,
        store: Uid([4; 16]),
    }
}

/// First 16 bytes of the BLAKE3 of `bytes` and what table and trailer are sealed with.
pub fn sealed(bytes: &[u8]) -> [u8; 16] {
    let head = header(PackKind::Clusters).encode();
    let sum = *blake3::Hasher::new()
        .update(bytes)
        .update(&head[16..36])
        .finalize()
        .as_bytes();
    *sum.first_chunk().expect("32 bytes have 16")
}

/// Makes a frame's checksum right.
pub fn sign_frame(frame: &mut [u8]) {
    if frame.len() >= FRAME_HEADER_BYTES {
        let sum = frame_checksum(frame, &frame[FRAME_HEADER_BYTES..]);
        frame[16..FRAME_HEADER_BYTES].copy_from_slice(&sum);
    }
}
