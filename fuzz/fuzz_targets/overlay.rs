//! An overlay's header and map: the bytes as they are, and behind checksums made right, which no fuzzer gets past; and a whole
//! file, opened as a volume's overlay on a simulated disk.
#![no_main]

use libfuzzer_sys::fuzz_target;
use std::path::Path;
use stillpoint_store::disk::sim::SimDisk;
use stillpoint_store::disk::{Disk, OpenMode};
use stillpoint_store::format::overlay::{
    BLOCK_BYTES, HEADER_BYTES, MapBlock, OverlayHeader, OverlayName, sum,
};
use stillpoint_store::id::Uid;
use stillpoint_store::volume::check_overlay;

const SEED: [u8; 16] = [7; 16];

fuzz_target!(|data: &[u8]| {
    if let Ok(header) = OverlayHeader::decode(data) {
        assert_eq!(OverlayHeader::decode(&header.encode()).ok(), Some(header));
    }
    let mut block = data.to_vec();
    block.resize(BLOCK_BYTES, 0);
    block[16..24].copy_from_slice(&1u64.to_le_bytes());
    sign(&mut block, &SEED);
    if let Ok(Some((map, checksum))) = MapBlock::decode(&block, &SEED, 1) {
        assert_eq!(map.encode(&SEED), (block.clone(), checksum));
    }
    open(data, &block);
});

/// The checksum of a map block.
fn sign(block: &mut [u8], previous: &[u8; 16]) {
    let mut hasher = blake3::Hasher::new();
    hasher.update(previous).update(&block[16..]);
    block[..16].copy_from_slice(&hasher.finalize().as_bytes()[..16]);
}

/// A file with a good header, the block as its map, and the data behind: it opens, or says why not.
fn open(data: &[u8], block: &[u8]) {
    let name = OverlayName {
        store: Uid([1; 16]),
        volume: Uid([2; 16]),
        host: Uid([3; 16]),
        generation: 1,
        n: 1,
    };
    let header = OverlayHeader {
        name,
        sealed: false,
        count: 1,
        seed: SEED,
        durable: u64::from(sum(data) % 2 == 0),
        first: 2,
    };
    let mut file = vec![0; 2 * BLOCK_BYTES];
    file[..HEADER_BYTES].copy_from_slice(&header.encode());
    file.extend_from_slice(block);
    file.extend_from_slice(data);
    let (disk, path) = (SimDisk::new(1), Path::new("/overlay"));
    let opened = disk.open(path, OpenMode::CreateNew);
    opened
        .and_then(|f| f.write_at(0, &file))
        .expect("an empty disk takes a small file");
    check_overlay(&disk, path, name).unwrap_or_default();
}
