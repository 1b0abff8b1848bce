//! The copy of a snapshot record that `rescue` finds in a node pack.
#![no_main]

use libfuzzer_sys::fuzz_target;
use stillpoint_store::format::codec;
use stillpoint_store::format::snapshot::SnapshotRecord;
use stillpoint_store::log::salvage::read_record;
use stillpoint_store::ops::ingest::record_copy;

fuzz_target!(|data: &[u8]| {
    if let Some(record) = read_record(data) {
        assert!(record.check().is_ok());
    }
    // Behind the checksum, which no fuzzer gets past.
    let Ok(record) = codec::decode::<SnapshotRecord>(data, 64 << 10) else {
        return;
    };
    if record.check().is_ok() {
        assert_eq!(read_record(&record_copy(&record)), Some(record));
    }
});
