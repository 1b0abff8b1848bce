//! A summary of a store: as it comes, and its filter alone behind the checksums.
#![no_main]

mod transfer;

use libfuzzer_sys::fuzz_target;
use stillpoint_migrate::bundle::Summary;
use stillpoint_store::id::Hash;
use transfer::mended;

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
