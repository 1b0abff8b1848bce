//! A frame, as it comes and with its checksum made right.
#![no_main]

mod common;

use common::{CLUSTER_BYTES, sign_frame};
use libfuzzer_sys::fuzz_target;
use stillpoint_store::codec::{decode_clusters, decode_frame, encode_frame, frame_check};
use stillpoint_store::format::entry::PackKind;
use stillpoint_store::geometry::Compression;

fuzz_target!(|data: &[u8]| {
    let _ = decode_frame(PackKind::Clusters, CLUSTER_BYTES, data);
    let _ = decode_clusters(CLUSTER_BYTES, data, 3, Vec::new());
    let mut signed = data.to_vec();
    sign_frame(&mut signed);
    for kind in [PackKind::Clusters, PackKind::Nodes] {
        let Ok(frame) = decode_frame(kind, CLUSTER_BYTES, &signed) else {
            continue;
        };
        frame_check(&signed).expect("what decodes passes the check");
        if kind == PackKind::Clusters {
            let start = decode_clusters(CLUSTER_BYTES, &signed, 3, Vec::new())
                .expect("the start of what decodes");
            assert!(frame.data().starts_with(start.data()));
        }
        let items: Vec<&[u8]> = frame.iter().collect();
        assert_eq!(items.concat(), frame.data());
        let again = encode_frame(kind, &items, Compression::Zstd(1));
        assert_eq!(
            decode_frame(kind, CLUSTER_BYTES, &again.bytes).expect("ours"),
            frame
        );
    }
});
