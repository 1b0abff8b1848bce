//! Images through a real store on a real disk and back.

#![expect(
    clippy::unwrap_used,
    reason = "a test says what went wrong by its panic"
)]

use std::fs;
use std::path::{Path, PathBuf};
use stillpoint_api::store::format::entry::GotoResult;
use stillpoint_api::store::geometry::{Compression, Geometry};
use stillpoint_api::store::ops::gc;
use stillpoint_api::store::progress::Progress;
use stillpoint_api::{Create, ErrorKind, Import, OpenOptions, Output, System};

struct Bench {
    folder: tempfile::TempDir,
    system: System,
}

impl Bench {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let geometry = Geometry {
            cluster_bytes: 4096,
            frame_bytes: 16384,
            compression: Compression::Zstd(1),
        };
        System::init(&folder.path().join("store"), geometry).unwrap();
        let system = System::open(&folder.path().join("store"), OpenOptions::default()).unwrap();
        Self { folder, system }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn image(&self, name: &str, bytes: &[u8]) -> PathBuf {
        let path = self.path(name);
        fs::write(&path, bytes).unwrap();
        path
    }

    fn create(&self, name: &str) {
        let create = Create {
            name: Some(name.into()),
            ..Create::default()
        };
        self.system.create(&create, &Progress::default()).unwrap();
    }

    fn exported(&self, reference: &str) -> Vec<u8> {
        let path = self.path("exported");
        fs::remove_file(&path).unwrap_or_default();
        self.system
            .export(reference, Output::File(&path), &Progress::default())
            .unwrap();
        fs::read(path).unwrap()
    }
}

/// Text, noise and zeros by turns, painted so that swapped clusters differ.
fn painted(seed: u64, bytes: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    let mut out = Vec::with_capacity(bytes);
    while out.len() < bytes {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        match state % 3 {
            0 => out.extend((0..5000).map(|i| (i % 251) as u8 ^ state as u8)),
            1 => out.extend(std::iter::repeat_n(0, 9000)),
            _ => out.extend((0..700).flat_map(|i| (state.wrapping_mul(i * 2 + 1)).to_le_bytes())),
        }
    }
    out.truncate(bytes);
    out
}

#[test]
fn what_went_in_comes_out_and_goto_brings_it_back() {
    let bench = Bench::new();
    let one = painted(1, 300_001);
    let image = bench.image("disk.raw", &one);
    bench
        .system
        .device_add("root", &image, "raw", false)
        .unwrap();
    bench.create("one");
    assert_eq!(bench.exported("root@one"), one);

    let mut two = one.clone();
    two[100_000..120_000].copy_from_slice(&painted(2, 20_000));
    two.extend(painted(3, 50_000));
    fs::write(&image, &two).unwrap();
    bench.create("two");
    assert_eq!(bench.exported("root@two"), two);
    assert_eq!(bench.exported("root@id:1"), one);

    bench.system.goto("one", &[], &Progress::default()).unwrap();
    assert_eq!(fs::read(&image).unwrap(), one);
    bench.system.goto("two", &[], &Progress::default()).unwrap();
    assert_eq!(fs::read(&image).unwrap(), two);
    assert!(
        bench
            .system
            .store()
            .verify(&Progress::default())
            .unwrap()
            .is_good()
    );
}

#[test]
fn deleting_and_collecting_keeps_what_is_left_and_frees_what_stats_said() {
    let bench = Bench::new();
    let one = painted(1, 2_000_000);
    let image = bench.image("disk.raw", &one);
    bench
        .system
        .device_add("root", &image, "raw", false)
        .unwrap();
    bench.create("one");
    let mut two = one.clone();
    for i in (0..2_000_000).step_by(30_000) {
        two[i..i + 10].copy_from_slice(b"0123456789");
    }
    fs::write(&image, &two).unwrap();
    bench.create("two");
    let all = gc::Options {
        all: true,
        dry_run: false,
    };
    bench.system.store().gc(all, &Progress::default()).unwrap();
    let uid = bench.system.find("one", &[]).unwrap()[0].uid;
    let held = bench
        .system
        .store()
        .held_by(&[uid].into(), &Progress::default())
        .unwrap();
    assert_eq!(held.garbage, 0);
    assert!(held.would_free > 0);
    bench
        .system
        .delete("one", &[], false, &Progress::default())
        .unwrap();
    let done = bench.system.store().gc(all, &Progress::default()).unwrap();
    assert_eq!(done.bytes_before - done.bytes_after, held.would_free);
    assert_eq!(bench.exported("root@two"), two);
    assert!(
        bench
            .system
            .store()
            .verify(&Progress::default())
            .unwrap()
            .is_good()
    );
    let again = bench.system.store().gc(all, &Progress::default()).unwrap();
    assert_eq!((again.dead_packs, again.rewritten_packs), (0, 0));
}

#[test]
fn an_import_needs_its_image_no_more() {
    let bench = Bench::new();
    let bytes = painted(5, 100_000);
    let image = bench.image("golden.raw", &bytes);
    let import = Import {
        image: &image,
        device: "golden",
        name: Some("v1"),
    };
    bench.system.import(&import, &Progress::default()).unwrap();
    fs::remove_file(&image).unwrap();
    assert_eq!(bench.exported("golden"), bytes);
    assert_eq!(bench.exported("golden@v1"), bytes);
    let mut streamed = Vec::new();
    bench
        .system
        .export(
            "golden",
            Output::Stream(&mut streamed),
            &Progress::default(),
        )
        .unwrap();
    assert_eq!(streamed, bytes);
}

#[test]
fn a_group_is_on_all_devices_or_on_none() {
    let bench = Bench::new();
    for n in 0..3 {
        let image = bench.image(&format!("d{n}.raw"), &painted(n, 200_000));
        bench
            .system
            .device_add(&format!("d{n}"), &image, "raw", false)
            .unwrap();
    }
    bench.create("all");
    let listed = bench.system.list(None).unwrap();
    assert_eq!(listed.len(), 3);
    assert!(
        listed
            .iter()
            .all(|s| s.group.is_some() && s.group == listed[0].group)
    );

    fs::remove_file(bench.path("d1.raw")).unwrap();
    let create = Create {
        name: Some("more".into()),
        ..Create::default()
    };
    let error = bench
        .system
        .create(&create, &Progress::default())
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound);
    assert_eq!(bench.system.list(None).unwrap().len(), 3);
    let error = bench
        .system
        .goto_resume(GotoResult::Done, &Progress::default())
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound);
    assert!(!Path::new(&bench.path("d1.raw")).exists());
}

#[test]
fn making_the_index_anew_counts_and_can_be_stopped() {
    use std::sync::atomic::Ordering;
    let bench = Bench::new();
    let image = bench.image("a.raw", &painted(5, 300_000));
    bench.system.device_add("a", &image, "raw", false).unwrap();
    bench.create("one");
    let progress = Progress::default();
    let store = bench.system.store();
    assert!(store.rebuild_index(&progress).unwrap().packs > 0);
    let total = progress.bytes_total.load(Ordering::Relaxed);
    assert!(total > 0);
    assert_eq!(progress.bytes_done.load(Ordering::Relaxed), total);
    progress.stop();
    let stopped = store.rebuild_index(&progress).unwrap_err();
    assert_eq!(stopped.kind(), ErrorKind::Cancelled);
    bench.create("two");
    assert_eq!(bench.exported("a@two"), painted(5, 300_000));
}
