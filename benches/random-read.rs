//! What a random read of 4 KiB through a view takes when no frame is in memory, and when all are.
//!
//!     cargo bench --bench random-read -- STORE DEVICE@SNAPSHOT COUNT
//!
//! Prints microseconds: opening the view, the first read, then the median, 99th percentile and mean of COUNT reads at
//! random places that hold data. Cold means that no decoded frame is kept; the places of manifest nodes and table blocks are,
//! and so is what the operating system keeps. Without arguments it makes a store of 256 MiB for itself.

use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::time::Instant;
use stillpoint_api::store::geometry::Geometry;
use stillpoint_api::store::ops::diff::ExtentKind;
use stillpoint_api::store::progress::Progress;
use stillpoint_api::{Create, OpenOptions, Part, System, View};

const READ: usize = 4096;
const OWN_BYTES: usize = 256 << 20;

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

fn main() -> Result<()> {
    // What cargo hands to every bench, such as --bench, is of no use here.
    let words: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let words: Vec<&str> = words.into_iter().filter(|w| !w.starts_with("--")).collect();
    match words[..] {
        [store, snapshot, count] => measure(Path::new(store), snapshot, count.parse()?),
        [] => {
            let folder = tempfile::tempdir()?;
            let store = own(folder.path())?;
            measure(&store, "d@one", 500)
        }
        _ => Err("usage: random-read STORE DEVICE@SNAPSHOT COUNT".into()),
    }
}

/// A store of words in random order, which compress about as well as a file system does.
fn own(folder: &Path) -> Result<PathBuf> {
    let (store, image) = (folder.join("store"), folder.join("image"));
    let mut dice = Dice(7);
    let mut text = String::with_capacity(OWN_BYTES + 64);
    while text.len() < OWN_BYTES {
        let word = dice.roll();
        write!(text, "{:x}{:03} ", word % 5000, word % 97)?;
    }
    text.truncate(OWN_BYTES);
    std::fs::write(&image, text)?;
    System::init(&store, Geometry::DEFAULT)?;
    let system = System::open(&store, OpenOptions::default())?;
    system.device_add("d", &image, "raw", false)?;
    let one = Create {
        name: Some("one".into()),
        ..Create::default()
    };
    system.create(&one, &Progress::default())?;
    Ok(store)
}

fn measure(store: &Path, snapshot: &str, count: usize) -> Result<()> {
    let system = System::open(store, OpenOptions::default())?;
    let content = system.content_of(snapshot, Part::Disk)?;
    println!("| frames | open | first | median | 99 % | mean |");
    println!("|---|---|---|---|---|---|");
    // Small frames of a large disk do not all fit; then warm is as warm as this gets.
    for (name, cache_bytes) in [("cold", 0), ("warm", 1 << 30)] {
        let since = Instant::now();
        let view = system.store().view(content, cache_bytes)?;
        let open = micros(since);
        let places = places(&view, count)?;
        let first = reads(&view, &places[..1])?[0];
        if name == "warm" {
            reads(&view, &places)?;
        }
        let mut took = reads(&view, &places)?;
        took.sort_by(f64::total_cmp);
        let (median, most) = (took[took.len() / 2], took[took.len() * 99 / 100]);
        let mean = took.iter().sum::<f64>() / took.len() as f64;
        println!("| {name} | {open:.0} | {first:.0} | {median:.1} | {most:.1} | {mean:.1} |");
    }
    Ok(())
}

/// Random offsets, multiples of a read, in what is data.
fn places(view: &View<'_>, count: usize) -> Result<Vec<u64>> {
    let mut data = Vec::new();
    let mut total = 0;
    for extent in view.extents(0, u64::MAX)? {
        let extent = extent?;
        let blocks = extent.length / READ as u64;
        if extent.kind == ExtentKind::Data && blocks > 0 {
            data.push((total, extent.start));
            total += blocks;
        }
    }
    if total == 0 || count == 0 {
        return Err("there is nothing to read".into());
    }
    let mut dice = Dice(0x5EED);
    let place = |_| {
        let block = dice.roll() % total;
        let (before, start) = data[data.partition_point(|(before, _)| *before <= block) - 1];
        start + (block - before) * READ as u64
    };
    Ok((0..count).map(place).collect())
}

fn reads(view: &View<'_>, places: &[u64]) -> Result<Vec<f64>> {
    let mut buf = [0; READ];
    let mut took = Vec::with_capacity(places.len());
    for place in places {
        let since = Instant::now();
        view.read_at(*place, &mut buf)?;
        took.push(micros(since));
    }
    Ok(took)
}

fn micros(since: Instant) -> f64 {
    since.elapsed().as_secs_f64() * 1e6
}
