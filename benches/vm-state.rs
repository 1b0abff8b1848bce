//! What the second save of a VM's state stores when 1 % of its pages have changed.
//!
//!     cargo bench --bench vm-state -- [MIB]
//!
//! The state is made of pages of 4 KiB at fixed places, 1024 MiB of them by default: a third zeros, and of the rest nine in
//! ten compress as heaps and page caches do, or none do. Changed pages lie anywhere, or in runs of 16. Whole pages are new.
//! Prints what the second save adds to packs and log, over the size of the state; the aim is 1.5 %.

use std::time::Instant;
use stillpoint_api::store::geometry::Geometry;
use stillpoint_api::store::progress::Progress;
use stillpoint_api::{Create, OpenOptions, System, VmBytes, VmState};

const PAGE: usize = 4096;

type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

struct Dice(u64);

impl Dice {
    fn roll(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }
}

/// What the pages that are not zeros hold.
#[derive(Clone, Copy, PartialEq)]
enum Pages {
    /// Pointers and small numbers, as in heaps and tables: about 3 to 1. One in ten is noise.
    Usual,
    /// What is compressed or encrypted already.
    Noise,
}

fn paint(page: &mut [u8], dice: &mut Dice, pages: Pages) {
    let noise = pages == Pages::Noise || dice.roll().is_multiple_of(10);
    let base = dice.roll() & 0x7FFF_FFFF_F000;
    for word in page.as_chunks_mut::<8>().0 {
        let roll = dice.roll();
        let value = match roll % 4 {
            _ if noise => roll,
            0 => base + (roll >> 40 & 0xFFF8),
            1 => roll >> 56,
            2 => roll >> 32 & 0xFFFF,
            _ => 0,
        };
        *word = value.to_le_bytes();
    }
}

fn main() -> Result<()> {
    // What cargo hands to every bench, such as --bench, is of no use here.
    let mib = std::env::args().skip(1).find_map(|w| w.parse().ok());
    let bytes = mib.unwrap_or(1024usize) << 20;
    println!("| clusters | pages | changed | first save | second save | of the state |");
    println!("|---|---|---|---|---|---|");
    for cluster_bytes in [8192, 4096] {
        for (pages, what) in [(Pages::Usual, "usual"), (Pages::Noise, "noise")] {
            for run in [1, 16] {
                measure(bytes, cluster_bytes, pages, what, run)?;
            }
        }
    }
    Ok(())
}

fn measure(bytes: usize, cluster_bytes: u32, pages: Pages, what: &str, run: usize) -> Result<()> {
    let folder = tempfile::tempdir()?;
    let (store, image) = (folder.path().join("store"), folder.path().join("image"));
    std::fs::write(&image, [1; PAGE])?;
    let geometry = Geometry {
        cluster_bytes,
        ..Geometry::DEFAULT
    };
    System::init(&store, geometry)?;
    let system = System::open(&store, OpenOptions::default())?;
    system.device_add("d", &image, "raw", false)?;
    let mut dice = Dice(11);
    let mut state = vec![0; bytes];
    for page in state.as_chunks_mut::<PAGE>().0 {
        if !dice.roll().is_multiple_of(3) {
            paint(page, &mut dice, pages);
        }
    }
    save(&system, &state)?;
    let before = stored(&system)?;
    let count = bytes / PAGE;
    for _ in 0..count / 100 / run {
        let first = dice.roll() as usize % (count - run) / run * run;
        for page in &mut state.as_chunks_mut::<PAGE>().0[first..first + run] {
            paint(page, &mut dice, pages);
        }
    }
    let since = Instant::now();
    save(&system, &state)?;
    let added = stored(&system)? - before;
    let changed = if run == 1 { "anywhere" } else { "runs of 16" };
    println!(
        "| {} KiB | {what} | {changed} | {:.1} MB | {:.2} MB, {:.1} s | {:.2} % |",
        cluster_bytes / 1024,
        before as f64 / 1e6,
        added as f64 / 1e6,
        since.elapsed().as_secs_f64(),
        added as f64 / bytes as f64 * 100.0
    );
    Ok(())
}

fn save(system: &System, mut state: &[u8]) -> Result<()> {
    let vm_state = VmState {
        device: None,
        bytes: VmBytes::Stream(&mut state),
    };
    let create = Create::default();
    system.create_with(&create, Some(vm_state), &Progress::default())?;
    Ok(())
}

fn stored(system: &System) -> Result<u64> {
    let totals = system.store().totals(&Progress::default())?;
    Ok(totals.stored_bytes + totals.log_bytes)
}
