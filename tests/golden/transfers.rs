//! Bundles and summaries of the golden store, held fast: every later version reads them.

use super::generate::{CountingWorld, a, b};
use super::{fixture, open};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use stillpoint_api::store::disk::real::RealDisk;
use stillpoint_api::store::geometry::{Compression, Geometry};
use stillpoint_api::store::id::Hash;
use stillpoint_api::store::index::memory::MemoryHome;
use stillpoint_api::store::object::memory::MemoryObjects;
use stillpoint_api::store::progress::Progress;
use stillpoint_api::store::store::{Doors, Store};
use stillpoint_api::{Output, System};
use stillpoint_migrate::bundle::{
    Receive, Received, Send, Summary, receive, send, write_need, write_summary,
};

/// The golden bundles and summaries.
fn folder() -> PathBuf {
    static ONCE: std::sync::Once = std::sync::Once::new();
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/transfers-v1");
    ONCE.call_once(|| {
        if std::env::var_os("STILL_REGENERATE_FIXTURES").is_some() {
            fs::create_dir_all(&folder).expect("it can be made");
            for (name, bytes) in make() {
                fs::write(folder.join(name), bytes).expect("it can be written");
            }
        }
    });
    folder
}

fn golden(name: &str) -> Vec<u8> {
    fs::read(folder().join(name)).expect("it is in the repository")
}

fn bundle(system: &System, targets: &[&str], since: &[&str], summary: Option<Summary>) -> Vec<u8> {
    let words = |words: &[&str]| words.iter().map(ToString::to_string).collect();
    let what = Send {
        targets: words(targets),
        since: words(since),
        summary,
        window_max: Some(16),
    };
    let mut out = Vec::new();
    send(system.store(), &what, &mut out, &Progress::default()).unwrap();
    out
}

/// What today's program writes, each from a world that begins anew.
fn make() -> Vec<(&'static str, Vec<u8>)> {
    let golden = || open(&fixture()).unwrap();
    let (mut summary, mut need) = (Vec::new(), Vec::new());
    write_summary(golden().store(), &mut summary, &Progress::default()).unwrap();
    let needed = [Hash([1; 32]), Hash([2; 32])];
    write_need(golden().store(), &needed, &mut need).unwrap();
    let read = Summary::read(&summary[..]).unwrap();
    vec![
        (
            "one.bundle",
            bundle(&golden(), &["a@one", "b@one"], &[], None),
        ),
        (
            "three.bundle",
            bundle(&golden(), &["a@three"], &["a@one"], None),
        ),
        (
            "nothing.bundle",
            bundle(&golden(), &["a@three"], &[], Some(read)),
        ),
        ("whole.summary", summary),
        ("need.summary", need),
    ]
}

#[test]
fn today_the_same_bundles_and_summaries_are_written() {
    for (name, bytes) in make() {
        assert!(
            bytes == golden(name),
            "{name} is written otherwise than before. If only zstd changed, that is no change of the format"
        );
    }
}

#[test]
fn golden_bundles_are_received_whole() {
    let objects = Arc::new(MemoryObjects::new());
    let geometry = Geometry {
        cluster_bytes: 4096,
        frame_bytes: 8192,
        compression: Compression::None,
    };
    let world = Arc::new(CountingWorld::new());
    let file = Store::create(&*objects, &*world, geometry).unwrap();
    let doors = Doors {
        objects: objects.clone(),
        local: objects,
        index: Arc::new(MemoryHome::new(file.id)),
        world,
        say: Arc::new(|_| {}),
    };
    let system = System::with(doors, Arc::new(RealDisk)).unwrap();
    let take = |name| {
        let from = std::io::Cursor::new(golden(name));
        let taken = receive(
            system.store(),
            &Receive::default(),
            from,
            &Progress::default(),
        );
        match taken.unwrap() {
            Received::Whole(outcome) => (outcome.snapshots.len(), outcome.already),
            Received::Lacking { count, .. } => panic!("{name}: {count} clusters lack"),
        }
    };
    assert_eq!(take("one.bundle"), (2, 0));
    assert_eq!(take("three.bundle"), (1, 0));
    assert_eq!(take("nothing.bundle"), (0, 1));
    for (reference, disk) in [("a@one", a(1)), ("a@three", a(3)), ("b@one", b())] {
        let mut out = Vec::new();
        let written = system.export(reference, Output::Stream(&mut out), &Progress::default());
        written.unwrap();
        assert!(out == disk, "{reference} is another disk");
    }
    let records = |system: &System| {
        let catalog = system.store().catalog();
        let records = catalog.snapshots().map(|s| s.record.clone());
        records.collect::<Vec<_>>()
    };
    let golden = open(&fixture()).unwrap();
    assert_eq!(records(&system), records(&golden), "every field");
    let report = system.store().verify(&Progress::default()).unwrap();
    assert!(report.is_good(), "{report:?}");
}

#[test]
fn golden_summaries_say_what_they_did() {
    let whole = Summary::read(&golden("whole.summary")[..]).unwrap();
    let golden_store = open(&fixture()).unwrap();
    let mut clusters = 0;
    let mut held = |hash: &Hash| {
        clusters += 1;
        assert!(!whole.lacks(hash));
    };
    golden_store.store().each_stored(&mut held).unwrap();
    assert!(clusters > 20 && whole.lacks(&Hash([1; 32])));
    let need = Summary::read(&golden("need.summary")[..]).unwrap();
    assert!(need.lacks(&Hash([1; 32])) && need.lacks(&Hash([2; 32])));
    assert!(!need.lacks(&Hash([3; 32])));
}
