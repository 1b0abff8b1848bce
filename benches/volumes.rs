//! What volumes cost where it should not depend on their size, and where it must depend on what was written.
//!
//!     cargo bench --bench volumes -- [ROUNDS]
//!
//! Medians of creating, cloning, snapshotting and going to a snapshot with nothing changed, for 1 GiB and 1 TiB; of a snapshot
//! after 1 k, 10 k and 100 k dirty clusters anywhere in 64 GiB; and of 4 KiB writes without a server, one after the other and
//! with a flush every 32. In a temporary folder (`TMPDIR`), whose file system decides what a sync costs.

use std::time::Instant;
use stillpoint_api::store::geometry::Geometry;
use stillpoint_api::store::progress::Progress;
use stillpoint_api::{Create, OpenOptions, System, VolumeSource, Volumes};

type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

const GIB: u64 = 1 << 30;
const CLUSTER: u64 = 8192;

struct Dice(u64);

impl Dice {
    fn roll(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }
}

/// Milliseconds.
fn timed(act: impl FnOnce() -> Result<()>) -> Result<f64> {
    let since = Instant::now();
    act()?;
    Ok(since.elapsed().as_secs_f64() * 1e3)
}

fn median(mut all: Vec<f64>) -> f64 {
    all.sort_by(f64::total_cmp);
    all.get(all.len() / 2).copied().unwrap_or(0.0)
}

fn snapshot(system: &System, volumes: &Volumes<'_>, device: &str, name: &str) -> Result<()> {
    let create = Create {
        name: Some(name.into()),
        devices: vec![device.into()],
        ..Create::default()
    };
    system.create_on(volumes, &create, None, &Progress::default())?;
    Ok(())
}

/// Milliseconds of create, snapshot, goto and clone of a volume of so many bytes.
fn unchanged(system: &System, volumes: &Volumes<'_>, size: u64, rounds: usize) -> Result<[f64; 4]> {
    let progress = Progress::default();
    let (mut create, mut snap, mut goto, mut clone) = (vec![], vec![], vec![], vec![]);
    for round in 0..rounds {
        let name = format!("v{size}-{round}");
        create.push(timed(|| {
            system.volume_create_on(volumes, &name, VolumeSource::Empty(size), &progress)?;
            Ok(())
        })?);
        let uid = system.volume_named(&name)?;
        volumes.volume(&uid)?.write_at(size / 2, &vec![7; 65536])?;
        snapshot(system, volumes, &name, "first")?;
        snap.push(timed(|| snapshot(system, volumes, &name, "second"))?);
        goto.push(timed(|| {
            system.goto_on(volumes, "first", &[name.clone()], &progress)?;
            Ok(())
        })?);
        let from = format!("{name}@first");
        clone.push(timed(|| {
            let source = VolumeSource::From(&from);
            system.volume_create_on(volumes, &format!("c{name}"), source, &progress)?;
            Ok(())
        })?);
    }
    Ok([median(create), median(snap), median(goto), median(clone)])
}

/// Milliseconds of a snapshot after so many clusters were written, and those that sealing held up a writer at most.
fn dirty(system: &System, volumes: &Volumes<'_>, clusters: u64) -> Result<f64> {
    let name = format!("d{clusters}");
    let progress = Progress::default();
    let made = system.volume_create_on(volumes, &name, VolumeSource::Empty(64 * GIB), &progress)?;
    let volume = volumes.volume(&made.uid)?;
    snapshot(system, volumes, &name, "empty")?;
    let mut dice = Dice(clusters);
    let mut page = [0u8; CLUSTER as usize];
    for _ in 0..clusters {
        for word in page.as_chunks_mut::<64>().0 {
            word[..8].copy_from_slice(&dice.roll().to_le_bytes());
        }
        volume.write_at(dice.roll() % (64 * GIB / CLUSTER) * CLUSTER, &page)?;
    }
    volume.flush()?;
    timed(|| snapshot(system, volumes, &name, "full"))
}

/// Thousands of writes a second.
fn writes(system: &System, volumes: &Volumes<'_>, flush_every: usize) -> Result<f64> {
    const WRITES: usize = 20_000;
    let name = format!("w{flush_every}");
    let progress = Progress::default();
    let made = system.volume_create_on(volumes, &name, VolumeSource::Empty(GIB), &progress)?;
    let volume = volumes.volume(&made.uid)?;
    let mut dice = Dice(3);
    let ms = timed(|| {
        for n in 1..=WRITES {
            volume.write_at(dice.roll() % (GIB / 4096) * 4096, &[n as u8; 4096])?;
            if n % flush_every == 0 {
                volume.flush()?;
            }
        }
        Ok(())
    })?;
    Ok(WRITES as f64 / ms)
}

fn main() -> Result<()> {
    // What cargo hands to every bench, such as --bench, is of no use here.
    let rounds = std::env::args().skip(1).find_map(|w| w.parse().ok());
    let rounds = rounds.unwrap_or(9);
    let folder = tempfile::tempdir()?;
    System::init(folder.path(), Geometry::DEFAULT)?;
    let system = System::open(folder.path(), OpenOptions::default())?;
    let volumes = system.volumes()?;
    println!("| nothing changed, ms | create | snapshot | goto | clone |");
    println!("|---|---|---|---|---|");
    for (what, size) in [("1 GiB", GIB), ("1 TiB", GIB << 10)] {
        let [create, snap, goto, clone] = unchanged(&system, &volumes, size, rounds)?;
        println!("| {what} | {create:.1} | {snap:.1} | {goto:.1} | {clone:.1} |");
    }
    println!("\n| dirty clusters | snapshot, ms |\n|---|---|");
    for clusters in [1_000, 10_000, 100_000] {
        println!(
            "| {clusters} | {:.0} |",
            dirty(&system, &volumes, clusters)?
        );
    }
    println!("\n| writes of 4 KiB | thousands a second |\n|---|---|");
    println!(
        "| no flush | {:.1} |",
        writes(&system, &volumes, usize::MAX)?
    );
    println!(
        "| a flush every 32 | {:.1} |",
        writes(&system, &volumes, 32)?
    );
    Ok(())
}
