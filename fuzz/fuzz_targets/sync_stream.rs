//! One direction of a sync, its checksums made right. The first byte says which: what a sender says to a receiver that holds
//! nothing or a disk, or what a receiver says to a sender.
#![no_main]

mod transfer;

use libfuzzer_sys::fuzz_target;
use std::io::Cursor;
use stillpoint_migrate::bundle::{Receive, receive};
use stillpoint_migrate::sync::{Give, Take, give, take};
use stillpoint_migrate::wire::Consent;
use stillpoint_store::progress::Progress;
use stillpoint_store::store::Store;
use transfer::{mended, store};

const DISK: &[u8] = include_bytes!("../corpus/bundle_stream/whole");

fn with_a_disk() -> Store {
    let store = store();
    let idle = Progress::default();
    receive(&store, &Receive::default(), Cursor::new(DISK), &idle).expect("the seed is good");
    store
}

fuzz_target!(|data: &[u8]| {
    let Some((which, data)) = data.split_first() else {
        return;
    };
    let Some(from) = mended(data) else {
        return;
    };
    let (from, to, idle) = (Cursor::new(from), std::io::sink(), Progress::default());
    let store = if which & 1 == 0 {
        store()
    } else {
        with_a_disk()
    };
    let before = store.catalog();
    let done = if which & 2 == 0 {
        let how = Take {
            // Without, nothing may be deleted.
            consent: if which & 4 == 0 {
                Consent::Any
            } else {
                Consent::default()
            },
            ..Take::default()
        };
        take(&store, how, from, to, &idle)
    } else {
        let what = Give {
            window_max: Some(2),
            ..Give::default()
        };
        give(&store, &what, from, to, &idle)
    };
    let catalog = store.refresh().expect("memory can be read");
    assert_eq!(catalog.sessions().count(), 0);
    if done.is_err() || which & 4 != 0 {
        let kept = before
            .snapshots()
            .all(|s| catalog.snapshot(&s.record.uid).is_some());
        assert!(kept, "a snapshot was deleted");
    }
    let report = store.verify(&idle).expect("it can be read");
    assert!(report.is_good(), "{report:?}");
});
