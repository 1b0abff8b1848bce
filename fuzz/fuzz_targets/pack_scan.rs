//! A pack that is walked without its table; checksums of what looks like frames are made right.
#![no_main]

mod common;

use common::{CLUSTER_BYTES, name, sign_frame};
use libfuzzer_sys::fuzz_target;
use stillpoint_store::format::entry::PackKind;
use stillpoint_store::format::pack::{FRAME_MAGIC, FrameHeader, HEADER_BYTES};
use stillpoint_store::pack::scan::{Scanned, Scanner};

fuzz_target!(|data: &[u8]| {
    for kind in [PackKind::Clusters, PackKind::Nodes] {
        walk(data, kind);
        let mut signed = data.to_vec();
        sign(&mut signed, kind);
        walk(&signed, kind);
    }
});

fn sign(bytes: &mut [u8], kind: PackKind) {
    // From the end, since a frame may stand in another.
    for at in (0..bytes.len()).rev().filter(|at| at % 4 == 0) {
        if !bytes[at..].starts_with(&FRAME_MAGIC) {
            continue;
        }
        let Ok(header) = FrameHeader::decode(&bytes[at..]) else {
            continue;
        };
        if let Some(frame) = bytes[at..].get_mut(..header.stored_bytes(kind)) {
            sign_frame(frame);
        }
    }
}

/// Every byte is told once, in order.
fn walk(bytes: &[u8], kind: PackKind) {
    let mut end = HEADER_BYTES as u32;
    for scanned in Scanner::new(bytes, name(), kind, CLUSTER_BYTES) {
        let (offset, bytes) = match scanned {
            Scanned::Frame(found) => (found.at.offset, found.at.bytes),
            Scanned::Damaged { offset, bytes } => (offset, bytes),
            Scanned::Remains(found) => {
                // Nothing in it is proved, but that it lies in what was told to be damaged.
                assert!(
                    found
                        .frame
                        .iter()
                        .all(|item| item.len() <= found.frame.data().len())
                );
                continue;
            }
        };
        assert!(offset == end && bytes > 0);
        end = offset + bytes;
    }
    assert!(end as usize <= bytes.len().max(HEADER_BYTES));
}
