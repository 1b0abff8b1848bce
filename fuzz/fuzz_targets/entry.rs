//! A log entry: its envelope, its ops, and what they do to an empty catalog.
#![no_main]

use libfuzzer_sys::fuzz_target;
use stillpoint_store::catalog::{Catalog, Rules};
use stillpoint_store::format::codec;
use stillpoint_store::format::entry::Entry;
use stillpoint_store::format::envelope::{self, EnvelopeKind};
use stillpoint_store::id::Hash;

fuzz_target!(|data: &[u8]| {
    if let Ok(opened) = envelope::open(EnvelopeKind::Entry, data) {
        assert_eq!(opened.payload.len() + envelope::ENVELOPE_BYTES, data.len());
    }
    // Behind the checksum, which no fuzzer gets past.
    let Ok(entry) = codec::decode::<Entry>(data, 1 << 20) else {
        return;
    };
    let again = codec::decode::<Entry>(&codec::encode(&entry), 1 << 24);
    assert!(again.is_ok_and(|again| again == entry));
    let before = Catalog::default();
    let (after, valid) = before.apply(Hash([7; 32]), &entry, Rules::default());
    assert_eq!(after.seq(), before.seq() + 1);
    if valid.is_err() {
        assert_eq!(after.roots(), before.roots());
        assert_eq!(after.packs().count(), 0);
    }
});
