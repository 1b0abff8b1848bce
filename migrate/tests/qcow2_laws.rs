//! What holds for every image that is written: it reads back as what went in, and QEMU finds nothing to complain of.

// Tests say what went wrong by the panic, and so do their helpers.
#![allow(clippy::unwrap_used)]

mod support;

use proptest::prelude::*;
use std::io::Read;
use std::path::Path;
use stillpoint_migrate::Result;
use stillpoint_migrate::qcow2::write::{
    Content, Draft, Key, Options, Part, Piece, Pieces, Source, write,
};
use stillpoint_migrate::qcow2::{Compression, Extent, Gate, Image, Snapshot};
use stillpoint_store::disk::sim::SimDisk;
use stillpoint_store::disk::{Disk, OpenMode};
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

/// Seeds below 20 are zeros by their bytes, those below 120 compress.
fn byte(seed: u8, at: u64) -> u8 {
    match seed {
        0..20 => 0,
        20..120 => seed,
        _ => {
            let mixed = (at + u64::from(seed) * 7919).wrapping_mul(0x9E37_79B9_7F4A_7C15);
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
fn a_crash_leaves_a_whole_image_or_none() {
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
    let mut whole = 0;
    for (n, mode) in (2..=calls).flat_map(|n| CrashMode::ALL.map(|mode| (n, mode))) {
        let disk = SimDisk::new(n);
        disk.crash_at(n);
        let done = attempt(&disk).is_ok();
        let after = disk.restart(mode);
        match Image::open(&after, path, &Gate::closed()) {
            Ok(image) => {
                reads_back(&image, &model);
                whole += 1;
            }
            Err(e) => assert!(!done, "lost at call {n}, {mode:?}: {e:?}"),
        }
    }
    assert!(whole > 0);
}
