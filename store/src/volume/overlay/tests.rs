//! What an overlay holds after a crash, a full disk, or damage.

use super::{Held, Overlay};
use crate::disk::sim::{CrashMode, Fault, SimDisk};
use crate::disk::{Disk, OpenMode};
use crate::error::ErrorKind;
use crate::format::overlay::{BLOCK_BYTES, Empty, OverlayName, sum};
use crate::id::Uid;
use std::collections::BTreeMap;
use std::path::Path;

const PATH: &str = "/v/1-1";
const BLOCKS: u64 = 24;

fn name() -> OverlayName {
    OverlayName {
        store: Uid([1; 16]),
        volume: Uid([2; 16]),
        host: Uid([3; 16]),
        generation: 1,
        n: 1,
    }
}

fn disk() -> SimDisk {
    let disk = SimDisk::new(1);
    disk.create_folders(Path::new("/v")).unwrap();
    disk.sync_folder(Path::new("/")).unwrap();
    disk
}

fn create(disk: &SimDisk) -> Overlay {
    let overlay = Overlay::create(disk, Path::new(PATH), name(), [9; 16]).unwrap();
    disk.sync_folder(Path::new("/v")).unwrap();
    overlay
}

fn open(disk: &SimDisk) -> crate::Result<Overlay> {
    Overlay::open(disk, Path::new(PATH), name())
}

/// splitmix64.
struct Dice(u64);

impl Dice {
    fn below(&mut self, n: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        (z ^ (z >> 31)) % n
    }
}

/// What a block is: its fill, or empty.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Is {
    Filled(u64),
    Empty(Empty),
}

type Plain = BTreeMap<u64, Is>;

#[derive(Debug, Clone, Copy)]
enum Step {
    Write { first: u64, count: u64, fill: u64 },
    Empty { first: u64, count: u64, kind: Empty },
    Sync,
}

fn block(fill: u64) -> Vec<u8> {
    let fill = fill.to_le_bytes();
    fill.iter().copied().cycle().take(BLOCK_BYTES).collect()
}

fn steps(seed: u64, count: u64) -> Vec<Step> {
    let mut dice = Dice(seed);
    (0..count)
        .map(|n| {
            let first = dice.below(BLOCKS);
            let count = (1 + dice.below(5)).min(BLOCKS - first);
            match dice.below(10) {
                0..=5 => Step::Write {
                    first,
                    count,
                    fill: n * 1000 + seed,
                },
                6 => Step::Empty {
                    first,
                    count,
                    kind: Empty::Hole,
                },
                7 => Step::Empty {
                    first,
                    count,
                    kind: Empty::Zero,
                },
                _ => Step::Sync,
            }
        })
        .collect()
}

fn run(overlay: &Overlay, step: Step) -> crate::Result<()> {
    match step {
        Step::Write { first, count, fill } => {
            let data: Vec<u8> = (0..count).flat_map(|i| block(fill + i)).collect();
            overlay.write(first, &data, &[]).map(|done| assert!(done))
        }
        Step::Empty { first, count, kind } => overlay.write_empty(first, count, kind),
        Step::Sync => overlay.sync(),
    }
}

fn apply(plain: &mut Plain, step: Step) {
    match step {
        Step::Write { first, count, fill } => {
            plain.extend((0..count).map(|i| (first + i, Is::Filled(fill + i))));
        }
        Step::Empty { first, count, kind } => {
            plain.extend((first..first + count).map(|block| (block, Is::Empty(kind))));
        }
        Step::Sync => {}
    }
}

/// What the overlay holds, every block of data read and verified.
fn contents(overlay: &Overlay) -> Plain {
    let mut plain = Plain::new();
    for at in 0..BLOCKS {
        match overlay.get(at) {
            None => {}
            Some(Held::Empty(kind)) => drop(plain.insert(at, Is::Empty(kind))),
            Some(Held::Data(place)) => {
                let mut bytes = vec![0; BLOCK_BYTES];
                assert!(overlay.read_slots(place.slot, &mut bytes).unwrap());
                assert_eq!(sum(&bytes), place.sum, "block {at}");
                let fill = u64::from_le_bytes(bytes[..8].try_into().unwrap());
                assert_eq!(bytes, block(fill));
                plain.insert(at, Is::Filled(fill));
            }
        }
    }
    plain
}

#[test]
fn what_was_synced_is_there_after_a_crash_at_any_call() {
    for seed in 0..4 {
        let steps = steps(seed, 60);
        let calls = {
            let disk = disk();
            let overlay = create(&disk);
            steps.iter().for_each(|s| run(&overlay, *s).unwrap());
            disk.calls()
        };
        let begin = {
            let disk = disk();
            create(&disk);
            disk.calls()
        };
        for at in begin + 1..=calls {
            let disk = disk();
            let overlay = create(&disk);
            disk.crash_at(at);
            // What may be there: every state since the last sync that was acknowledged.
            let (mut now, mut allowed) = (Plain::new(), vec![Plain::new()]);
            for step in &steps {
                let done = run(&overlay, *step);
                apply(&mut now, *step);
                if done.is_ok() && matches!(step, Step::Sync) {
                    allowed.clear();
                }
                allowed.push(now.clone());
                if done.is_err() {
                    break;
                }
            }
            for mode in CrashMode::ALL {
                let disk = disk.restart(mode);
                let overlay = open(&disk).unwrap();
                let found = contents(&overlay);
                assert!(
                    allowed.contains(&found),
                    "seed {seed}, call {at} of {calls}, {mode:?}: {found:?} of {allowed:?}"
                );
                // And it can be written on.
                let mut then = found;
                for step in &steps[..20] {
                    run(&overlay, *step).unwrap();
                    apply(&mut then, *step);
                }
                overlay.sync().unwrap();
                drop(overlay);
                let again = open(&disk.restart(CrashMode::NothingUnsynced)).unwrap();
                assert_eq!(contents(&again), then);
            }
        }
    }
}

#[test]
fn a_sync_that_does_nothing_is_noticed() {
    let disk = disk();
    let overlay = create(&disk);
    disk.lie(crate::disk::sim::Lie::FileSync, "/v");
    run(
        &overlay,
        Step::Write {
            first: 0,
            count: 1,
            fill: 7,
        },
    )
    .unwrap();
    overlay.sync().unwrap();
    let again = open(&disk.restart(CrashMode::NothingUnsynced)).unwrap();
    assert!(
        contents(&again).is_empty(),
        "the disk lied: the write is lost"
    );
}

#[test]
fn blocks_written_again_and_again_take_no_more_room() {
    let disk = disk();
    let overlay = create(&disk);
    let mut plain = Plain::new();
    for round in 0..2000 {
        let step = Step::Write {
            first: round % 7,
            count: 3,
            fill: round * 10,
        };
        run(&overlay, step).unwrap();
        apply(&mut plain, step);
        overlay.sync().unwrap();
    }
    let len = disk
        .open(Path::new(PATH), OpenMode::Read)
        .unwrap()
        .len()
        .unwrap();
    assert!(len <= 4 << 20, "{len} bytes for 9 blocks");
    overlay.close().unwrap();
    assert_eq!(contents(&open(&disk).unwrap()), plain);
}

#[test]
fn a_write_that_rests_on_what_changed_meanwhile_has_no_effect() {
    let disk = disk();
    let overlay = create(&disk);
    run(
        &overlay,
        Step::Write {
            first: 3,
            count: 1,
            fill: 1,
        },
    )
    .unwrap();
    let seen = (3, overlay.get(3));
    assert!(overlay.write(3, &block(2), &[seen]).unwrap());
    assert!(!overlay.write(3, &block(3), &[seen]).unwrap());
    assert!(!overlay.write(4, &block(3), &[(4, seen.1)]).unwrap());
    assert_eq!(contents(&overlay), Plain::from([(3, Is::Filled(2))]));
}

#[test]
fn a_full_disk_is_told_by_the_write_and_not_by_the_sync() {
    let disk = disk();
    let overlay = create(&disk);
    disk.set_space(3 << 20);
    let mut plain = Plain::new();
    let mut refused = None;
    for n in 0..2000 {
        let step = Step::Write {
            first: n % BLOCKS,
            count: 1,
            fill: n,
        };
        // Without a sync in between nothing that batches name is free again.
        match overlay.write(1000 + n, &block(n), &[]) {
            Ok(_) => {}
            Err(e) => {
                refused = Some(e.kind());
                break;
            }
        }
        if n < 5 {
            run(&overlay, step).unwrap();
            apply(&mut plain, step);
        }
    }
    assert_eq!(refused, Some(ErrorKind::NoSpace));
    overlay.sync().unwrap();
    assert_eq!(contents(&overlay), plain);
    let again = open(&disk.restart(CrashMode::NothingUnsynced)).unwrap();
    assert_eq!(contents(&again), plain);
}

#[test]
fn a_sync_that_failed_is_the_end_of_writing() {
    let disk = disk();
    let overlay = create(&disk);
    let write = Step::Write {
        first: 0,
        count: 1,
        fill: 7,
    };
    run(&overlay, write).unwrap();
    let calls = disk.calls();
    // The map, then the sync.
    disk.fail_call(calls + 2, Fault::Eio);
    assert_eq!(overlay.sync().unwrap_err().kind(), ErrorKind::Io);
    assert_eq!(overlay.sync().unwrap_err().kind(), ErrorKind::Poisoned);
    assert_eq!(
        run(&overlay, write).unwrap_err().kind(),
        ErrorKind::Poisoned
    );
}

/// An overlay with a few batches, in good order, and its bytes.
fn closed() -> (SimDisk, Plain, u64) {
    let disk = disk();
    let overlay = create(&disk);
    let mut plain = Plain::new();
    for step in steps(3, 30) {
        run(&overlay, step).unwrap();
        apply(&mut plain, step);
    }
    overlay.close().unwrap();
    let file = disk.open(Path::new(PATH), OpenMode::Read).unwrap();
    let len = file.len().unwrap();
    (disk, plain, len)
}

#[test]
fn a_flipped_byte_is_told_or_changes_nothing() {
    let (disk, plain, len) = closed();
    let mut told = 0;
    for at in (0..len.min(120 * BLOCK_BYTES as u64)).step_by(61) {
        let disk = disk.restart(CrashMode::AllUnsynced);
        disk.flip_bit(PATH, at, (at % 8) as u8);
        match open(&disk) {
            Err(e) => {
                assert_eq!(e.kind(), ErrorKind::Corrupt);
                told += 1;
            }
            Ok(overlay) => {
                for block in 0..BLOCKS {
                    match (overlay.get(block), plain.get(&block)) {
                        (None, None) => {}
                        (Some(Held::Empty(kind)), Some(Is::Empty(was))) => assert_eq!(kind, *was),
                        (Some(Held::Data(place)), Some(Is::Filled(fill))) => {
                            let mut bytes = vec![0; BLOCK_BYTES];
                            overlay.read_slots(place.slot, &mut bytes).unwrap();
                            let good = sum(&bytes) == place.sum;
                            assert_eq!(good, bytes == self::block(*fill), "byte {at}");
                            told += u64::from(!good);
                        }
                        (found, was) => panic!("byte {at}: {found:?} for {was:?}"),
                    }
                }
            }
        }
    }
    assert!(told > 100, "{told} flips were told");
}

#[test]
fn a_file_that_was_cut_is_told_or_changes_nothing() {
    let (disk, _, len) = closed();
    for cut in (0..len.min(200 * BLOCK_BYTES as u64)).step_by(1777) {
        let disk = disk.restart(CrashMode::AllUnsynced);
        disk.truncate(PATH, cut);
        if let Err(e) = open(&disk) {
            assert_eq!(e.kind(), ErrorKind::Corrupt, "cut at {cut}");
        }
    }
}

#[test]
fn the_overlay_of_another_is_refused() {
    let (disk, ..) = closed();
    let other = OverlayName { n: 2, ..name() };
    let refused = Overlay::open(&disk, Path::new(PATH), other);
    assert_eq!(refused.unwrap_err().kind(), ErrorKind::Corrupt);
}

#[test]
fn a_batch_that_came_to_nothing_never_comes_to_life() {
    let disk = disk();
    let overlay = create(&disk);
    let write = |first, fill| Step::Write {
        first,
        count: 1,
        fill,
    };
    run(&overlay, write(0, 1)).unwrap();
    overlay.close().unwrap();
    run(
        &overlay,
        Step::Empty {
            first: 0,
            count: 1,
            kind: Empty::Hole,
        },
    )
    .unwrap();
    run(&overlay, write(5, 2)).unwrap();
    overlay.sync().unwrap();
    let Some(Held::Data(place)) = overlay.get(5) else {
        panic!("it was written");
    };
    drop(overlay);
    // As after a crash within that sync: the map's block is there, not all that it names.
    disk.flip_bit(PATH, u64::from(place.slot) * BLOCK_BYTES as u64, 0);
    let after = open(&disk).unwrap();
    let found = contents(&after);
    assert_eq!(found, Plain::from([(0, Is::Filled(1))]));
    // The same bytes in the same slot, and no sync.
    run(&after, write(5, 2)).unwrap();
    let Some(Held::Data(again)) = after.get(5) else {
        panic!("it was written");
    };
    assert_eq!(again.slot, place.slot, "else this proves nothing");
    drop(after);
    assert_eq!(contents(&open(&disk).unwrap()), found);
}
