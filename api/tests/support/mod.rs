//! What the long tests share: dice, a world that repeats itself, disks made of few different clusters.

#![allow(
    dead_code,
    clippy::unwrap_used,
    reason = "tests, each of which uses its own part of this"
)]

pub mod folder;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use stillpoint_api::store::disk::{Disk, OpenMode};
use stillpoint_api::store::geometry::{Compression, Geometry};
use stillpoint_api::store::index::IndexHome;
use stillpoint_api::store::object::memory::MemoryObjects;
use stillpoint_api::store::progress::Progress;
use stillpoint_api::store::store::Doors;
use stillpoint_api::store::world::{Moment, World};
use stillpoint_api::{Output, Result, System};

/// Bytes of a cluster in these tests.
pub const C: usize = 4096;

/// Two clusters a frame, so that frames are rewritten in part.
pub const GEOMETRY: Geometry = Geometry {
    cluster_bytes: 4096,
    frame_bytes: 8192,
    compression: Compression::Zstd(1),
};

/// SplitMix64: all that happens in a run follows from its seed.
#[derive(Clone)]
pub struct Dice(u64);

impl Dice {
    pub fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0xA076_1D64_78BD_642F) ^ 0x5EED)
    }

    pub fn roll(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    /// Below `n`.
    pub fn below(&mut self, n: usize) -> usize {
        (self.roll() % n.max(1) as u64) as usize
    }

    /// True once in `n` times.
    pub fn one_in(&mut self, n: usize) -> bool {
        self.below(n) == 0
    }

    pub fn pick<'a, T>(&mut self, all: &'a [T]) -> &'a T {
        &all[self.below(all.len())]
    }
}

/// A world whose dice follow from a seed and whose clock counts calls.
pub struct SeededWorld(Mutex<Dice>, String);

impl SeededWorld {
    pub fn new(seed: u64, label: &str) -> Arc<Self> {
        Arc::new(Self(Mutex::new(Dice::new(seed)), label.to_owned()))
    }

    fn roll(&self) -> u64 {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).roll()
    }
}

impl World for SeededWorld {
    fn now(&self) -> Moment {
        Moment {
            sec: 1_700_000_000 + self.roll() % 1_000_000,
            nsec: 0,
        }
    }

    fn random(&self) -> [u8; 16] {
        let (a, b) = (self.roll(), self.roll());
        std::array::from_fn(|i| if i < 8 { a } else { b }.to_le_bytes()[i % 8])
    }

    fn label(&self) -> String {
        self.1.clone()
    }
}

/// What a cluster of a test disk is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cell {
    Hole,
    Zero,
    /// One of a few contents, so that disks share clusters and bring dead ones back to life.
    Letter(u8),
}

/// The bytes of a letter: every third one compresses.
pub fn letter(n: u8) -> Vec<u8> {
    let mut dice = Dice::new(u64::from(n) + 1000);
    if n.is_multiple_of(3) {
        return dice.roll().to_le_bytes().repeat(C / 8);
    }
    (0..C / 8).flat_map(|_| dice.roll().to_le_bytes()).collect()
}

/// A disk as the test remembers it: cells, and a length that may end within the last one.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Picture {
    pub cells: Vec<Cell>,
    pub len: usize,
}

impl Picture {
    pub fn random(dice: &mut Dice, alphabet: u8, cells: std::ops::Range<usize>) -> Self {
        let n = cells.start + dice.below(cells.len());
        let cells = (0..n).map(|_| cell(dice, alphabet)).collect();
        Self { cells, len: n * C }
    }

    /// Changes a few cells.
    pub fn scribble(&mut self, dice: &mut Dice, alphabet: u8) {
        for _ in 0..=dice.below(self.cells.len() / 2 + 1) {
            if !self.cells.is_empty() {
                let at = dice.below(self.cells.len());
                self.cells[at] = cell(dice, alphabet);
            }
        }
    }

    pub fn bytes(&self) -> Vec<u8> {
        let mut bytes: Vec<u8> = self.cells.iter().flat_map(|c| cell_bytes(*c)).collect();
        bytes.truncate(self.len);
        bytes
    }

    /// Makes the file hold this, holes as holes.
    pub fn paint(&self, disk: &dyn Disk, path: &Path) {
        let mode = if disk.kind(path).is_ok() {
            OpenMode::Write
        } else {
            OpenMode::CreateNew
        };
        let file = disk.open(path, mode).unwrap();
        file.set_len(0).unwrap();
        file.set_len(self.len as u64).unwrap();
        for (i, cell) in self.cells.iter().enumerate() {
            let end = self.len.min((i + 1) * C);
            if *cell != Cell::Hole && i * C < end {
                file.write_at((i * C) as u64, &cell_bytes(*cell)[..end - i * C])
                    .unwrap();
            }
        }
    }
}

pub fn cell(dice: &mut Dice, alphabet: u8) -> Cell {
    match dice.below(8) {
        0 => Cell::Hole,
        1 => Cell::Zero,
        _ => Cell::Letter(dice.below(usize::from(alphabet)) as u8),
    }
}

fn cell_bytes(cell: Cell) -> Vec<u8> {
    match cell {
        Cell::Letter(n) => letter(n),
        Cell::Hole | Cell::Zero => vec![0; C],
    }
}

/// Doors to a store in memory, for one process of it.
pub fn doors(objects: &MemoryObjects, index: Arc<dyn IndexHome>, world: Arc<dyn World>) -> Doors {
    Doors {
        objects: Arc::new(objects.clone()),
        local: Arc::new(objects.clone()),
        index,
        world,
        say: Arc::new(|_| {}),
    }
}

/// The disk that a reference means.
pub fn restored(system: &System, reference: &str) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    system.export(reference, Output::Stream(&mut bytes), &Progress::default())?;
    Ok(bytes)
}

/// How many rounds: `ci` of them, times `more` when STILL_ROUNDS is `full`.
pub fn rounds(ci: u64, more: u64) -> u64 {
    match std::env::var("STILL_ROUNDS") {
        Ok(full) if full == "full" => ci * more,
        Ok(n) => n.parse().unwrap(),
        Err(_) => ci,
    }
}

/// Runs `run` with the seeds 0 to `rounds`, or with STILL_SEED alone; names the seed that failed.
pub fn for_seeds(rounds: u64, run: impl Fn(u64)) {
    let only: Option<u64> = std::env::var("STILL_SEED").ok().map(|s| s.parse().unwrap());
    for seed in only.map_or(0..rounds, |seed| seed..seed + 1) {
        if let Err(panic) = catch_unwind(AssertUnwindSafe(|| run(seed))) {
            eprintln!("failed with STILL_SEED={seed}");
            std::panic::resume_unwind(panic);
        }
    }
}
