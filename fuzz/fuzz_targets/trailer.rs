//! Header and trailer of a pack, as they come and with their checksums made right.
#![no_main]

mod common;

use common::{name, sealed};
use libfuzzer_sys::fuzz_target;
use stillpoint_store::format::pack::{HEADER_BYTES, PackHeader, TRAILER_BYTES, Trailer};

fuzz_target!(|data: &[u8]| {
    let _ = (Trailer::decode(&name(), data), PackHeader::decode(data));
    let Some(bytes) = data.first_chunk::<TRAILER_BYTES>() else {
        return;
    };
    let (mut trailer, mut header) = (*bytes, *bytes);
    let sum = sealed(&trailer[..48]);
    trailer[48..].copy_from_slice(&sum);
    if let Ok(read) = Trailer::decode(&name(), &trailer) {
        assert_eq!(read.encode(&name()), trailer);
    }
    let sum = blake3::hash(&header[..56]);
    header[56..HEADER_BYTES].copy_from_slice(&sum.as_bytes()[..8]);
    if let Ok(read) = PackHeader::decode(&header) {
        assert_eq!(read.encode(), header);
    }
});
