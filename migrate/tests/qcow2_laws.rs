//! What holds for every image that is written: it reads back as what went in, and QEMU finds nothing to complain of.

// Tests say what went wrong by the panic, and so do their helpers.
#![allow(clippy::unwrap_used)]

mod support;

use proptest::prelude::*;
use std::io::Read;
use std::path::Path;
use stillpoint_migrate::Result;
use stillpoint_migrate::qcow2::write::{
    Content, Draft, Key, Options, Part, Piece, Pieces, Source, Written, write,
};
use stillpoint_migrate::qcow2::{Compression, Extent, Gate, Image, Snapshot};
use stillpoint_store::disk::sim::SimDisk;
use stillpoint_store::disk::{Disk, DiskFile, OpenMode};
use stillpoint_store::progress::Progress;
use support::{Bench, has_qemu, same};

/// Bytes of a cell of the model.
const CELL: u64 = 1536;

/// 0: hole, 1: zeros, others: data of that seed.
type Cells = Vec<u8>;

#[derive(Debug, Clone)]
struct Model {
    /// The active state's, then the snapshots'.
    disks: Vec<Cells>,
    vm: Vec<Cells>,
    /// Added to the disks' sizes, in sectors.
    odd: u64,
    options: Options,
}

/// Seeds below 20 are zeros by their bytes, those below 100 compress well, those below 120 to about 320 of 512, others do not.
fn byte(seed: u8, at: u64) -> u8 {
    match seed {
        0..20 => 0,
        20..100 => seed,
        100..120 if at % 512 > 300 => seed,
        _ => {
            let mixed = (at + u64::from(seed) * 7919).wrapping_mul(0x9E37_79B9_7F4A_7C15);
            let mixed = (mixed ^ (mixed >> 29)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
            (mixed >> 32) as u8
        }
    }
}

fn bytes(cells: &[u8], len: u64) -> Vec<u8> {
    let cell = |n: u64| cells.get((n / CELL) as usize).copied().unwrap_or(0);
    (0..len).map(|n| byte(cell(n), n % CELL)).collect()
}

impl Model {
    fn size(&self, n: usize) -> u64 {
        self.disks[n].len() as u64 * CELL + self.odd * 512
    }

    fn draft(&self) -> Draft {
        let snapshot = |n: usize| Snapshot {
            l1: Extent::default(),
            id: n.to_string().into_bytes(),
            name: vec![b'n'; n * 40],
            date_sec: n as u32 * 1000,
            date_nsec: 7,
            vm_clock_nsec: 1 << (40 + n),
            vm_state_size: self.vm[n - 1].len() as u64 * CELL,
            icount: n.is_multiple_of(2).then_some(n as u64),
            disk_size: Some(self.size(n)),
            unknown_extra: vec![9; n % 3],
        };
        Draft {
            size: self.size(0),
            snapshots: (1..self.disks.len()).map(snapshot).collect(),
        }
    }
}

impl Source for Model {
    fn pieces(&self, part: Part) -> Result<Pieces<'_>> {
        let cells = match part {
            Part::Active => &self.disks[0],
            Part::Disk(n) => &self.disks[n + 1],
            Part::VmState(n) => &self.vm[n],
        };
        let piece = |(n, seed): (usize, &u8)| {
            let content = match seed {
                0 => Content::Hole,
                1 => Content::Zero,
                seed => Content::Data {
                    key: Key([*seed; 32]),
                    offset: 0,
                },
            };
            Ok(Piece {
                start: n as u64 * CELL,
                len: CELL,
                content,
            })
        };
        Ok(Box::new(cells.iter().enumerate().map(piece)))
    }

    fn read(&self, key: &Key, offset: u64, buf: &mut [u8]) -> Result<()> {
        for (n, b) in (offset..).zip(buf) {
            *b = byte(key.0[0], n);
        }
        Ok(())
    }

    fn is(&self, key: &Key, offset: u64, bytes: &[u8]) -> bool {
        let mut there = vec![0; bytes.len()];
        self.read(key, offset, &mut there).unwrap();
        there == bytes
    }
}

/// Few seeds, so that cells return.
fn cells(max: usize) -> impl Strategy<Value = Cells> {
    let cell = prop_oneof![Just(0), Just(1), Just(5), 100..105_u8, 200..205_u8];
    prop::collection::vec(cell, 0..max)
}

prop_compose! {
    fn models()(
        base in cells(200),
        changes in prop::collection::vec((cells(200), prop::collection::vec(any::<bool>(), 200)), 0..4),
        vm in prop::collection::vec(cells(60), 4),
        odd in 0..4_u64,
        version in 2..4_u32,
        cluster_bits in prop_oneof![Just(9_u32), Just(12), Just(16), Just(21)],
        refcount_order in 0..7_u32,
        compression in prop_oneof![
            Just(None), Just(Some((Compression::Zlib, 1))), Just(Some((Compression::Zstd, 1)))
        ],
        remember in prop_oneof![Just(0_usize), Just(1000)],
    ) -> Model {
        // A snapshot is like the active state but in places; in version 2 it has the same size.
        let mixed = |(other, take): &(Cells, Vec<bool>)| {
            let len = if version == 2 { base.len() } else { other.len() };
            let cell = |n: usize| if take[n] { other.get(n) } else { base.get(n) };
            (0..len).map(|n| cell(n).copied().unwrap_or(0)).collect()
        };
        let rest: Vec<Cells> = changes.iter().map(mixed).collect();
        let v2 = version == 2;
        let zstd = matches!(compression, Some((Compression::Zstd, _)));
        Model {
            disks: std::iter::once(base.clone()).chain(rest).collect(),
            vm,
            odd,
            options: Options {
                version,
                cluster_bits,
                refcount_order: if v2 { 4 } else { refcount_order },
                compression: compression.filter(|_| !(v2 && zstd)),
                remember,
            },
        }
    }
}

fn reads_back(image: &Image, model: &Model) {
    let draft = model.draft();
    let told: Vec<Snapshot> = image.top().snapshots().iter().map(unplaced).collect();
    assert_eq!(told, draft.snapshots);
    for n in 0..model.disks.len() {
        let state = match n {
            0 => image.active(),
            n => image.snapshot(n - 1),
        };
        let state = state.unwrap();
        let size = model.size(n);
        assert_eq!(state.size(), size);
        let mut end = 0;
        for mapped in state.map(0..u64::MAX) {
            let mapped = mapped.unwrap();
            assert!(mapped.start == end && mapped.len > 0);
            end = mapped.end();
        }
        assert_eq!(end, size);
        let mut read = vec![0xee; size as usize];
        image.read(&state, 0, &mut read).unwrap();
        same(&read, &bytes(&model.disks[n], size), "a disk");
        let vm = n.checked_sub(1).map_or(&[][..], |n| &model.vm[n]);
        let mut read = Vec::new();
        state.read_vm_state().read_to_end(&mut read).unwrap();
        same(&read, &bytes(vm, vm.len() as u64 * CELL), "VM state");
        for older in 0..model.disks.len().saturating_sub(1) {
            changes_are_told(image, &state, older);
        }
    }
}

/// Outside of what `changes` tells, both map the same.
fn changes_are_told(image: &Image, state: &stillpoint_migrate::qcow2::State, older: usize) {
    let older = image.snapshot(older).unwrap();
    let mut at = 0;
    let ends = state.changes(&older).unwrap().map(Result::unwrap);
    for changed in ends.chain(std::iter::once(state.size()..state.size())) {
        assert!(at <= changed.start && changed.start <= changed.end);
        let quiet = at..changed.start;
        let (new, old) = (state.map(quiet.clone()), older.map(quiet));
        assert!(new.map(Result::unwrap).eq(old.map(Result::unwrap)));
        at = changed.end;
    }
}

fn unplaced(snapshot: &Snapshot) -> Snapshot {
    Snapshot {
        l1: Extent::default(),
        ..snapshot.clone()
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(40) })]

    #[test]
    fn what_is_written_reads_back(model in models()) {
        let disk = SimDisk::new(1);
        let path = Path::new("/image");
        let file = disk.open(path, OpenMode::CreateNew).unwrap();
        let written = write(&*file, &model.draft(), &model.options, &model, &Progress::default()).unwrap();
        prop_assert_eq!(file.len().unwrap(), written.file_bytes);
        drop(file);
        let image = Image::open(&disk, path, &Gate::closed()).unwrap();
        reads_back(&image, &model);
    }

    #[test]
    fn the_image_is_as_it_should_be_whatever_is_in_the_file(
        model in models(),
        other in models(),
        same in any::<bool>(),
        layout in any::<bool>(),
        cut in prop_oneof![Just(1.0), 0.0..1.0_f64],
        flips in prop::collection::vec((0.0..1.0_f64, 1..=255_u8), 0..3),
    ) {
        let fresh = over(&model, &[]).0;
        let layout = layout && model.options.version == 3;
        let mut left = match (same, layout) {
            (true, true) => fresh.clone(),
            // Compressed otherwise, or not at all.
            (true, false) => {
                let compression = other.options.compression;
                let possible = |c: &(Compression, u32)| {
                    model.options.version == 3 || c.0 == Compression::Zlib
                };
                let compression = compression.filter(possible);
                let options = Options { compression, ..model.options };
                over(&Model { options, ..model.clone() }, &[]).0
            }
            (false, true) => over(&Model { options: model.options, ..other }, &[]).0,
            (false, false) => over(&other, &[]).0,
        };
        let whole = left.len();
        left.truncate((whole as f64 * cut) as usize);
        let whole = left.len() == whole;
        for (at, flip) in &flips {
            let at = (left.len() as f64 * at) as usize;
            left.get_mut(at).into_iter().for_each(|b| *b ^= flip);
        }
        let (image, written) = over(&model, &left);
        reads_back(&open(&image), &model);
        // Bits of a stream that say nothing may differ, and so does what another encoder makes of the same bytes.
        prop_assert!(image == fresh || !flips.is_empty() || !(same || layout));
        if same && layout && whole && flips.is_empty() {
            let stored = written.read_clusters > written.zero_clusters;
            prop_assert_eq!(written.kept_bytes > 0, stored, "{:?}", written);
        }
    }
}

#[test]
fn nothing_that_an_image_lacks_stays_of_what_was_in_the_file() {
    let model = |disk: &[u8]| Model {
        disks: vec![disk.to_vec()],
        vm: Vec::new(),
        odd: 0,
        options: Options {
            cluster_bits: 9,
            compression: Some((Compression::Zlib, 1)),
            ..Options::default()
        },
    };
    // Compressed clusters 50 share one of the file with those of 60 that only the first image has; those of noise, and in the
    // third case compressed ones again, are at the same places in both.
    for (before, now) in [
        (&[50, 60, 200][..], &[50, 0, 200][..]),
        (&[50, 60, 200], &[50, 0, 200, 0, 201]),
        (&[100, 60, 200, 101], &[100, 0, 200, 101]),
        (&[50, 60, 200, 201], &[50, 0, 200, 51]),
        (&[50, 60], &[50]),
    ] {
        let left = over(&model(before), &[]).0;
        let (image, written) = over(&model(now), &left);
        assert!(written.kept_bytes > 0);
        assert!(image == over(&model(now), &[]).0, "{before:?}, {now:?}");
    }
}

/// The image that is written where these bytes are.
fn over(model: &Model, left: &[u8]) -> (Vec<u8>, Written) {
    let disk = SimDisk::new(1);
    let file = disk.open(Path::new("/image"), OpenMode::CreateNew).unwrap();
    file.write_at(0, left).unwrap();
    let progress = Progress::default();
    let written = write(&*file, &model.draft(), &model.options, model, &progress).unwrap();
    (whole(&*file), written)
}

fn open(bytes: &[u8]) -> Image {
    let (disk, path) = (SimDisk::new(1), Path::new("/image"));
    let file = disk.open(path, OpenMode::CreateNew).unwrap();
    file.write_at(0, bytes).unwrap();
    Image::open(&disk, path, &Gate::closed()).unwrap()
}

fn whole(file: &dyn DiskFile) -> Vec<u8> {
    let mut image = vec![0; file.len().unwrap() as usize];
    let n = file.read_at(0, &mut image).unwrap();
    assert_eq!(n, image.len());
    image
}

#[test]
fn qemu_finds_nothing_to_complain_of() {
    if !has_qemu("qcow2_laws check") {
        return;
    }
    let bench = Bench::new();
    let config = ProptestConfig {
        failure_persistence: None,
        ..ProptestConfig::with_cases(20)
    };
    proptest!(config, |(model in models())| {
        let _none = std::fs::remove_file(bench.path("a"));
        let real = stillpoint_store::disk::real::RealDisk;
        let file = real.open(&bench.path("a"), OpenMode::CreateNew).unwrap();
        write(&*file, &model.draft(), &model.options, &model, &Progress::default()).unwrap();
        bench.img(&["check", "-q", "-f", "qcow2", "a"]);
        same(&bench.raw("a", None), &bytes(&model.disks[0], model.size(0)), "the active state");
    });
}

#[test]
fn a_crash_leaves_a_whole_image_or_what_the_next_writer_goes_on_with() {
    use stillpoint_store::disk::sim::CrashMode;
    let model = Model {
        disks: vec![vec![100, 200, 1, 0, 201], vec![100, 202]],
        vm: vec![vec![203]],
        odd: 1,
        options: Options {
            cluster_bits: 9,
            ..Options::default()
        },
    };
    let path = Path::new("/image");
    let fresh = over(&model, &[]).0;
    let attempt = |disk: &SimDisk| {
        let file = disk.open(path, OpenMode::CreateNew)?;
        disk.sync_folder(Path::new("/"))?;
        write(
            &*file,
            &model.draft(),
            &model.options,
            &model,
            &Progress::default(),
        )
    };
    let calls = {
        let disk = SimDisk::new(1);
        attempt(&disk).unwrap();
        disk.calls()
    };
    let (mut images, mut kept) = (0, 0);
    for (n, mode) in (2..=calls).flat_map(|n| CrashMode::ALL.map(|mode| (n, mode))) {
        let disk = SimDisk::new(n);
        disk.crash_at(n);
        let done = attempt(&disk).is_ok();
        let after = disk.restart(mode);
        match Image::open(&after, path, &Gate::closed()) {
            Ok(image) => {
                reads_back(&image, &model);
                images += 1;
            }
            Err(e) => assert!(!done, "lost at call {n}, {mode:?}: {e:?}"),
        }
        let Ok(file) = after.open(path, OpenMode::Write) else {
            continue;
        };
        let progress = Progress::default();
        let again = write(&*file, &model.draft(), &model.options, &model, &progress).unwrap();
        assert!(whole(&*file) == fresh, "call {n}, {mode:?}");
        kept += again.kept_bytes;
    }
    assert!(images > 0 && kept > 0);
}
