//! The roofline: what this machine can do at best. Reads, zero checks, hashes, compression and writes as the engine does
//! them, on the same threads, without index, packs, tables, manifests or commits.
//!
//! `cargo bench --bench roofline -- ingest|resnapshot|restore|verify IMAGE FOLDER --cluster N --frame N --level L`
//!
//! `ingest` leaves in FOLDER what the others need: `data` (frames), `frames` (their lengths), `map` (a number a cluster:
//! 0 zeros, else 1 + which unique cluster) and `hashes` (of the unique clusters). Frame i holds the unique clusters
//! from i times clusters-a-frame on. Prints one line of JSON.

mod back;
mod ingest;
mod source;

use std::cell::RefCell;
use std::error::Error;
use std::path::PathBuf;
use std::time::Instant;

type Result<T> = std::result::Result<T, Box<dyn Error + Send + Sync>>;
type Digest = [u8; 32];

/// Bytes scanned while those before are compressed.
const BATCH_BYTES: usize = 32 << 20;
/// Bytes written between starts of an fsync, and of what is verified as one pack.
const SYNC_BYTES: u64 = 32 << 20;

thread_local! {
    static INPUT: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
    static OUTPUT: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

struct Options {
    verb: String,
    image: PathBuf,
    folder: PathBuf,
    cluster: usize,
    frame: usize,
    level: i32,
}

struct Done {
    /// Bytes of the image.
    image: u64,
    /// Bytes of frames read or written.
    stored: u64,
    clusters: usize,
    unique: usize,
    changed: usize,
}

fn main() {
    let args: Vec<String> = std::env::args()
        .skip(1)
        .filter(|a| a != "--bench")
        .collect();
    let Some(options) = parse(&args) else {
        println!(
            "usage: roofline ingest|resnapshot|restore|verify IMAGE FOLDER \
             [--cluster N] [--frame N] [--level L]"
        );
        return;
    };
    if let Err(e) = run(&options) {
        eprintln!("roofline: {e}");
        std::process::exit(1);
    }
}

fn parse(args: &[String]) -> Option<Options> {
    let [verb, image, folder, rest @ ..] = args else {
        return None;
    };
    let mut options = Options {
        verb: verb.clone(),
        image: image.into(),
        folder: folder.into(),
        cluster: 16 << 10,
        frame: 256 << 10,
        level: 3,
    };
    for pair in rest.chunks(2) {
        let [name, value] = pair else { return None };
        match name.as_str() {
            "--cluster" => options.cluster = value.parse().ok()?,
            "--frame" => options.frame = value.parse().ok()?,
            "--level" => options.level = value.parse().ok()?,
            _ => return None,
        }
    }
    let fits = options.cluster >= 4096 && options.frame.is_multiple_of(options.cluster);
    (fits && options.frame > 0 && BATCH_BYTES.is_multiple_of(options.cluster)).then_some(options)
}

fn run(options: &Options) -> Result<()> {
    let begun = Instant::now();
    let done = match options.verb.as_str() {
        "ingest" => ingest::ingest(options)?,
        "resnapshot" => back::resnapshot(options)?,
        "restore" => back::restore(options)?,
        "verify" => back::verify(options)?,
        other => return Err(format!("no such verb: {other}").into()),
    };
    let seconds = begun.elapsed().as_secs_f64();
    println!(
        "{{\"verb\":\"{}\",\"seconds\":{seconds:.3},\"mb_per_s\":{:.1},\"image_bytes\":{},\"stored_bytes\":{},\
         \"clusters\":{},\"unique\":{},\"changed\":{},\"cluster_bytes\":{},\"frame_bytes\":{},\"level\":{},\"threads\":{}}}",
        options.verb,
        done.image as f64 / 1e6 / seconds,
        done.image,
        done.stored,
        done.clusters,
        done.unique,
        done.changed,
        options.cluster,
        options.frame,
        options.level,
        rayon::current_num_threads(),
    );
    Ok(())
}
