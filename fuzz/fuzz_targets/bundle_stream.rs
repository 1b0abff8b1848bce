//! A bundle: as it comes, and with its checksums made right, taken in by a store in memory.
#![no_main]

mod transfer;

use libfuzzer_sys::fuzz_target;
use stillpoint_migrate::bundle::{Receive, receive};
use stillpoint_store::progress::Progress;
use transfer::{mended, store};

fuzz_target!(|data: &[u8]| {
    let forms = [Some(data.to_vec()), mended(data)];
    for bytes in forms.into_iter().flatten() {
        let store = store();
        let from = std::io::Cursor::new(bytes);
        let received = receive(&store, &Receive::default(), from, &Progress::default());
        let catalog = store.refresh().expect("memory can be read");
        assert_eq!(catalog.sessions().count(), 0);
        if received.is_err() {
            assert_eq!(catalog.snapshots().count(), 0);
        } else {
            let report = store.verify(&Progress::default()).expect("it can be read");
            assert!(report.is_good(), "{report:?}");
        }
    }
});
