//! VM state: in with a group, back as a stream or a view, alive as long as its snapshot.

#![allow(clippy::unwrap_used, reason = "tests")]

mod support;

use std::fs;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use stillpoint_api::store::geometry::{Compression, Geometry};
use stillpoint_api::store::ops::gc;
use stillpoint_api::store::progress::Progress;
use stillpoint_api::{
    Create, Created, ErrorKind, OpenOptions, Output, Part, Result, System, VmBytes, VmState,
};
use support::{Dice, for_seeds};

struct Bench {
    folder: tempfile::TempDir,
    system: System,
}

fn bytes(dice: &mut Dice, len: usize) -> Vec<u8> {
    let words = (0..len.div_ceil(8)).flat_map(|_| dice.roll().to_le_bytes());
    words.take(len).collect()
}

impl Bench {
    /// Devices `a`, read-only, `b` and `c`.
    fn new(geometry: Geometry) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let store = folder.path().join("store");
        System::init(&store, geometry).unwrap();
        let system = System::open(&store, OpenOptions::default()).unwrap();
        let mut dice = Dice::new(1);
        for (name, read_only) in [("a", true), ("b", false), ("c", false)] {
            let path = folder.path().join(name);
            fs::write(&path, bytes(&mut dice, 100_000)).unwrap();
            system.device_add(name, &path, "raw", read_only).unwrap();
        }
        Self { folder, system }
    }

    fn small() -> Self {
        Self::new(Geometry {
            cluster_bytes: 4096,
            frame_bytes: 16384,
            compression: Compression::Zstd(1),
        })
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn save(&self, name: &str, device: Option<&str>, bytes: VmBytes<'_>) -> Result<Created> {
        let create = Create {
            name: Some(name.into()),
            vm_clock_nsec: 77,
            icount: Some(5),
            ..Create::default()
        };
        let device = device.map(Into::into);
        let vm_state = Some(VmState { device, bytes });
        self.system
            .create_with(&create, vm_state, &Progress::default())
    }

    fn stream(&self, name: &str, mut bytes: &[u8]) -> Created {
        self.save(name, None, VmBytes::Stream(&mut bytes)).unwrap()
    }

    fn read(&self, reference: &str) -> Vec<u8> {
        let mut out = Vec::new();
        let progress = Progress::default();
        self.system
            .read_vm_state(reference, &mut out, &progress)
            .unwrap();
        out
    }

    fn collect(&self) {
        let all = gc::Options {
            all: true,
            ..gc::Options::default()
        };
        self.system.store().gc(all, &Progress::default()).unwrap();
    }

    fn stored(&self) -> u64 {
        let totals = self.system.store().totals(&Progress::default());
        totals.unwrap().stored_bytes
    }
}

#[test]
fn vm_state_of_any_length_comes_back_from_one_device_of_the_group() {
    for_seeds(6, |seed| {
        let bench = Bench::small();
        let mut dice = Dice::new(seed);
        let len = [1, 4095, 4096, 4097, 70_001, 3_000_000][seed as usize];
        let mut state = bytes(&mut dice, len);
        state[len / 3..len / 2].fill(0);
        let made = bench.stream("one", &state);
        let with: Vec<&str> = made
            .devices
            .iter()
            .filter(|d| d.vm_state.is_some())
            .map(|d| d.device.as_str())
            .collect();
        assert_eq!(with, ["b"], "the first that may be written");
        assert_eq!(bench.system.all_find_vmstate(&[]).unwrap().name, "b");
        for view in bench.system.list(None).unwrap() {
            assert_eq!((view.vm_clock_nsec, view.icount), (77, Some(5)));
            let size = if view.device == "b" { len as u64 } else { 0 };
            assert_eq!(view.vm_state_size, size);
        }
        assert_eq!(bench.read("b@one"), state);
        let view = bench.system.view("b@one", Part::VmState).unwrap();
        let mut tail = vec![0; len];
        let at = len / 4;
        assert_eq!(view.read_at(at as u64, &mut tail).unwrap(), len - at);
        assert_eq!(tail[..len - at], state[at..]);
        let none = bench.system.content_of("c@one", Part::VmState).unwrap_err();
        assert_eq!(none.kind(), ErrorKind::NotFound);
    });
}

#[test]
fn a_file_is_vm_state_too_and_any_device_of_the_group_can_have_it() {
    let bench = Bench::small();
    let state = bytes(&mut Dice::new(3), 50_000);
    fs::write(bench.path("ram"), &state).unwrap();
    let ram = bench.path("ram");
    let made = bench.save("one", Some("a"), VmBytes::File(&ram)).unwrap();
    assert_eq!(bench.read("a@one"), state);
    let a = made.devices.iter().find(|d| d.device == "a").unwrap();
    let content = |part| bench.system.content_of_uid(a.uid, part).unwrap();
    assert_eq!(content(Part::Disk), a.content);
    assert_eq!(
        Some(content(Part::VmState)),
        a.vm_state.map(|vm| vm.content)
    );
    let progress = Progress::default();
    let back = bench.path("back");
    let output = Output::File(&back);
    bench
        .system
        .export_vm_state("a@id:1,name:one", output, &progress)
        .unwrap();
    assert_eq!(fs::read(back).unwrap(), state);
}

#[test]
fn what_is_in_a_disk_is_not_stored_again_as_vm_state() {
    let bench = Bench::small();
    let state = fs::read(bench.path("c")).unwrap();
    let made = bench.stream("one", &state);
    let vm = made.devices.iter().find_map(|d| d.vm_state).unwrap();
    assert_eq!((vm.counts.new, vm.counts.stored), (0, 0));
    assert_eq!(bench.read("b@one"), state);
}

/// Fails after some bytes, as the pipe of a program that dies does not.
struct Broken(usize);

impl Read for Broken {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        if self.0 == 0 {
            return Err(io::Error::other("a test"));
        }
        let n = buf.len().min(self.0);
        buf[..n].fill(1);
        self.0 -= n;
        Ok(n)
    }
}

#[test]
fn vm_state_that_cannot_be_had_leaves_no_snapshot_on_any_device() {
    let bench = Bench::small();
    let mut nothing: &[u8] = &[];
    let missing = bench.path("missing");
    let cases = [
        (None, VmBytes::Stream(&mut nothing), ErrorKind::InvalidInput),
        (None, VmBytes::Stream(&mut Broken(100_000)), ErrorKind::Io),
        (None, VmBytes::File(&missing), ErrorKind::NotFound),
        (
            None,
            VmBytes::File(Path::new("/dev/null")),
            ErrorKind::InvalidInput,
        ),
        (
            Some("d"),
            VmBytes::Stream(&mut Broken(1)),
            ErrorKind::NotFound,
        ),
    ];
    for (device, bytes, kind) in cases {
        let failed = bench.save("one", device, bytes).unwrap_err();
        assert_eq!(failed.kind(), kind, "{failed}");
        assert!(bench.system.list(None).unwrap().is_empty());
    }
}

#[test]
fn gc_keeps_vm_state_while_its_snapshot_lives_and_frees_it_after() {
    let bench = Bench::small();
    let progress = Progress::default();
    bench.stream("one", &[7; 10]);
    bench.collect();
    let before = bench.stored();
    let state = bytes(&mut Dice::new(9), 1_000_000);
    bench.stream("two", &state);
    let (with, len) = (bench.stored(), state.len() as u64);
    assert!(with > before + len, "{before} {with}");
    let totals = bench.system.store().totals(&progress).unwrap();
    let disks = 2 * 3 * 100_000;
    assert_eq!(totals.disk_bytes, disks + 10 + len);
    bench.collect();
    assert_eq!(bench.read("b@two"), state);
    assert!(bench.system.store().verify(&progress).unwrap().is_good());

    let would = bench.system.delete("two", &[], true, &progress).unwrap();
    assert!(would.frees.unwrap() > len);
    bench.system.delete("two", &[], false, &progress).unwrap();
    bench.collect();
    assert!(bench.stored() < before + len / 10);
    assert_eq!(bench.read("b@one"), [7; 10]);
}

#[test]
fn damage_in_vm_state_is_told_as_such_and_the_rest_is_rescued() {
    let bench = Bench::small();
    let progress = Progress::default();
    bench.system.create(&Create::default(), &progress).unwrap();
    let old = packs(&bench);
    let state = bytes(&mut Dice::new(9), 300_000);
    bench.stream("two", &state);
    let mut new: Vec<PathBuf> = packs(&bench);
    new.retain(|p| !old.contains(p));
    // The larger one has the clusters.
    new.sort_by_key(|p| fs::metadata(p).unwrap().len());
    let pack = new.pop().unwrap();
    let mut damaged = fs::read(&pack).unwrap();
    damaged[100_000] ^= 1;
    let mut permissions = fs::metadata(&pack).unwrap().permissions();
    #[expect(
        clippy::permissions_set_readonly_false,
        reason = "it is removed with the test"
    )]
    permissions.set_readonly(false);
    fs::set_permissions(&pack, permissions).unwrap();
    fs::write(&pack, damaged).unwrap();

    let report = bench.system.store().verify(&progress).unwrap();
    let [bad] = &report.bad_snapshots[..] else {
        panic!("{report:?}")
    };
    assert!(
        bad.extents.is_empty() && !bad.vm_extents.is_empty(),
        "{bad:?}"
    );
    let out = bench.path("rescued");
    let rescued = stillpoint_api::rescue(&bench.path("store"), &out, &progress).unwrap();
    let all = |vm: bool| rescued.saved.iter().filter(move |s| s.vm_state == vm);
    assert_eq!(all(false).count(), 6);
    assert!(all(false).all(|s| s.lost.is_empty()));
    let vm: Vec<_> = all(true).collect();
    assert_eq!(vm.len(), 1);
    assert_eq!(vm[0].path, out.join("b/2-two.vmstate"));
    let mut read = fs::read(&vm[0].path).unwrap();
    assert_eq!(read.len(), state.len());
    for lost in &vm[0].lost {
        let lost = lost.start as usize..lost.end as usize;
        read[lost.clone()].copy_from_slice(&state[lost]);
    }
    assert!(read == state && !vm[0].lost.is_empty());
}

fn packs(bench: &Bench) -> Vec<PathBuf> {
    let sessions = fs::read_dir(bench.path("store/packs")).unwrap();
    let files = sessions.flat_map(|s| fs::read_dir(s.unwrap().path()).unwrap());
    files.map(|f| f.unwrap().path()).collect()
}

#[test]
fn all_devices_are_asked_at_once() {
    let bench = Bench::small();
    let progress = Progress::default();
    let can = bench.system.all_can(&[]).unwrap();
    assert!(can.iter().all(|(_, can)| can.is_ok()) && can.len() == 3);
    fs::rename(bench.path("b"), bench.path("elsewhere")).unwrap();
    let can = bench.system.all_can(&[]).unwrap();
    let cannot: Vec<&str> = can
        .iter()
        .filter(|(_, can)| can.is_err())
        .map(|(d, _)| d.name.as_str())
        .collect();
    assert_eq!(cannot, ["b"]);
    let why = can.into_iter().find_map(|(_, can)| can.err()).unwrap();
    let failed = bench.system.create(&Create::default(), &progress);
    let failed = failed.unwrap_err();
    assert_eq!(why.to_string(), failed.to_string());
    assert!(why.what_next().is_some() && why.what_next() == failed.what_next());
    fs::rename(bench.path("elsewhere"), bench.path("b")).unwrap();

    bench.stream("one", &[1]);
    assert_eq!(bench.system.all_find("one", &[]).unwrap().len(), 3);
    assert_eq!(
        bench.system.all_find("id:1,name:one", &[]).unwrap().len(),
        3
    );
    bench
        .system
        .delete("one", &["c".into()], false, &progress)
        .unwrap();
    let missing = bench.system.all_find("one", &[]).unwrap_err();
    assert_eq!(missing.kind(), ErrorKind::NotFound);
    assert!(missing.to_string().contains("not on \"c\""), "{missing}");
    let both = ["a".to_owned(), "b".to_owned()];
    assert_eq!(bench.system.all_find("one", &both).unwrap().len(), 2);
    assert!(bench.system.all_find("id:2,name:one", &both).is_err());
    assert_eq!(
        bench.system.all_find_vmstate(&["a".into()]).unwrap().name,
        "a"
    );
}

/// A page as heaps and tables have them: pointers, small numbers and zeros by turns; one in ten is noise.
fn paint(page: &mut [u8], dice: &mut Dice) {
    let (noise, base) = (dice.one_in(10), dice.roll() & 0x7FFF_FFFF_F000);
    for word in page.chunks_exact_mut(8) {
        let roll = dice.roll();
        let value = match roll % 4 {
            _ if noise => roll,
            0 => base + (roll >> 40 & 0xFFF8),
            1 => roll >> 56,
            2 => roll >> 32 & 0xFFFF,
            _ => 0,
        };
        word.copy_from_slice(&value.to_le_bytes());
    }
}

#[test]
fn a_second_save_with_one_page_in_a_hundred_changed_stores_less_than_1_5_percent() {
    const PAGE: usize = 4096;
    const PAGES: usize = (64 << 20) / PAGE;
    let bench = Bench::new(Geometry::DEFAULT);
    let mut dice = Dice::new(12);
    let mut state = vec![0; PAGES * PAGE];
    for page in state.chunks_exact_mut(PAGE) {
        if !dice.one_in(3) {
            paint(page, &mut dice);
        }
    }
    bench.stream("one", &state);
    let all = || {
        let totals = bench.system.store().totals(&Progress::default()).unwrap();
        totals.stored_bytes + totals.log_bytes
    };
    let before = all();
    for _ in 0..PAGES / 100 {
        let at = dice.below(PAGES) * PAGE;
        paint(&mut state[at..at + PAGE], &mut dice);
    }
    bench.stream("two", &state);
    let added = (all() - before) as f64 / state.len() as f64 * 100.0;
    assert!((0.3..1.5).contains(&added), "{added} %");
    let hash = |bytes: &[u8]| stillpoint_api::store::id::Hash::of(bytes);
    assert_eq!(hash(&bench.read("b@two")), hash(&state));
}
