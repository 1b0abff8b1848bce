//! A summary of a store: as it comes, and its filter alone behind the checksums.
#![no_main]

use libfuzzer_sys::fuzz_target;
use stillpoint_migrate::bundle::Summary;
use stillpoint_migrate::wire::stream::{HEAD_BYTES, PREAMBLE_BYTES};
use stillpoint_migrate::wire::{Outgoing, Preamble};
use stillpoint_store::id::Hash;

/// The same messages with checksums that fit.
fn mended(data: &[u8]) -> Option<Vec<u8>> {
    let preamble = Preamble::decode(data.first_chunk::<PREAMBLE_BYTES>()?).ok()?;
    let mut bytes = Vec::new();
    let mut out = Outgoing::begin(&mut bytes, &preamble).ok()?;
    let mut rest = &data[PREAMBLE_BYTES..];
    while let Some((head, after)) = rest.split_first_chunk::<HEAD_BYTES>() {
        let len = u32::from_le_bytes([head[4], head[5], head[6], head[7]]) as usize;
        let (payload, after) = after.split_at_checked(len)?;
        out.put(head[0], 0, payload).ok()?;
        rest = after;
    }
    Some(bytes)
}

fuzz_target!(|data: &[u8]| {
    let forms = [Some(data.to_vec()), mended(data)];
    for bytes in forms.into_iter().flatten() {
        if let Ok(summary) = Summary::read(&bytes[..]) {
            for n in 0..8u8 {
                summary.lacks(&Hash::of(&[n]));
                summary.lacks(&Hash([n << 5; 32]));
            }
        }
    }
});
