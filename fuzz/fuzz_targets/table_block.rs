//! A block of a pack's table; its checksum and the zeros at its end are made right.
#![no_main]

mod common;

use common::{name, sealed};
use libfuzzer_sys::fuzz_target;
use stillpoint_store::format::pack::{BLOCK_BYTES, Block};

fuzz_target!(|data: &[u8]| {
    let _ = Block::decode(&name(), 0, data);
    let mut bytes = [0; BLOCK_BYTES];
    let length = data.len().min(BLOCK_BYTES);
    bytes[..length].copy_from_slice(&data[..length]);
    let sum = sealed(&bytes[16..]);
    bytes[..16].copy_from_slice(&sum);
    if let Ok(block) = Block::decode(&name(), 0, &bytes) {
        assert_eq!(block.encode(&name()), bytes);
        assert_eq!(block.entries().count(), block.hashes().len());
        for (slot, (_, hash, at, item)) in block.entries().enumerate() {
            assert_eq!(block.entry(slot), Some((hash, at, item)));
        }
    }
});
