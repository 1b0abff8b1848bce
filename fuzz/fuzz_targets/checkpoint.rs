//! A checkpoint's catalog: what decodes encodes to an equal one and can be asked everything.
#![no_main]

use libfuzzer_sys::fuzz_target;
use stillpoint_store::catalog::Catalog;
use stillpoint_store::format::codec;
use stillpoint_store::format::envelope::{self, EnvelopeKind};

fuzz_target!(|data: &[u8]| {
    if let Ok(opened) = envelope::open(EnvelopeKind::Checkpoint, data) {
        assert_eq!(opened.payload.len() + envelope::ENVELOPE_BYTES, data.len());
    }
    let Ok(catalog) = codec::decode::<Catalog>(data, 1 << 20) else {
        return;
    };
    let again = codec::decode::<Catalog>(&codec::encode(&catalog), 1 << 24);
    assert!(again.is_ok_and(|again| again == catalog));
    for device in catalog.devices() {
        let of = catalog.snapshots_of(&device.uid);
        assert!(of.iter().all(|s| s.record.device == device.uid));
    }
    assert!(catalog.roots().iter().all(|root| catalog.reachable(root)));
});
