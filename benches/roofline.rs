//! The roofline: what this machine can do at best. Reads, zero checks, hashes, compression and writes as the engine does
//! them, on the same threads, without index, packs, tables, manifests or commits.
//!
//! `cargo bench --bench roofline -- ingest|resnapshot|restore|verify IMAGE FOLDER --cluster N --frame N --level L`
//!
//! `ingest` leaves in FOLDER what the others need: `data` (frames), `frames` (their lengths), `map` (a number a cluster:
//! 0 zeros, else 1 + which unique cluster) and `hashes` (of the unique clusters). Frame i holds the unique clusters
//! from i times clusters-a-frame on. Prints one line of JSON.

use rayon::prelude::*;
use rustix::fs::SeekFrom;
use std::cell::RefCell;
use std::collections::HashMap;
use std::error::Error;
use std::fs::File;
use std::hash::{BuildHasherDefault, Hasher};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::sync::mpsc;
use std::time::Instant;

type Result<T> = std::result::Result<T, Box<dyn Error + Send + Sync>>;

/// Bytes of one read.
const RUN_BYTES: usize = 256 << 10;
/// Bytes scanned while those before are compressed.
const BATCH_BYTES: usize = 32 << 20;
/// Bytes written between starts of an fsync.
const SYNC_BYTES: u64 = 32 << 20;
/// Incompressible frames in a row before a sample decides.
const RAW_BEFORE_PROBING: usize = 4;
const SAMPLE_BYTES: usize = 16 << 10;

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

/// Keys are hashes already.
#[derive(Default)]
struct First8(u64);

impl Hasher for First8 {
    fn finish(&self) -> u64 {
        self.0
    }
    fn write(&mut self, bytes: &[u8]) {
        for (i, byte) in bytes.iter().take(8).enumerate() {
            self.0 ^= u64::from(*byte) << (i * 8);
        }
    }
    fn write_u64(&mut self, n: u64) {
        self.0 = n;
    }
}

/// First half of a hash.
#[derive(PartialEq, Eq)]
struct Half(u64, u64);

impl std::hash::Hash for Half {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_u64(self.0);
    }
}

type Known = HashMap<Half, u32, BuildHasherDefault<First8>>;
type Digest = [u8; 32];

fn half(digest: &Digest) -> Half {
    let word = |at: usize| {
        let mut bytes = [0; 8];
        bytes.copy_from_slice(&digest[at..at + 8]);
        u64::from_le_bytes(bytes)
    };
    Half(word(0), word(8))
}

fn is_zero(bytes: &[u8]) -> bool {
    bytes[0] == 0 && bytes[..bytes.len() - 1] == bytes[1..]
}

/// `None` for zeros.
fn digest(cluster: &[u8]) -> Option<Digest> {
    (!is_zero(cluster)).then(|| *blake3::hash(cluster).as_bytes())
}

thread_local! {
    static COMPRESSOR: RefCell<Option<zstd::bulk::Compressor<'static>>> = const { RefCell::new(None) };
    static DECOMPRESSOR: RefCell<Option<zstd::bulk::Decompressor<'static>>> = const { RefCell::new(None) };
    static INPUT: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
    static OUTPUT: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
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
        "ingest" => ingest(options)?,
        "resnapshot" => resnapshot(options)?,
        "restore" => restore(options)?,
        "verify" => verify(options)?,
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

/// Clusters of data in order, batch by batch; holes are skipped.
struct Source {
    file: File,
    len: u64,
    at: u64,
    cluster: u64,
}

/// A run of clusters: which and where in the buffer.
struct Run {
    first: usize,
    at: usize,
    bytes: usize,
}

impl Source {
    fn open(path: &Path, cluster: usize) -> Result<Self> {
        let file = File::open(path)?;
        let len = file.metadata()?.len();
        Ok(Self {
            file,
            len,
            at: 0,
            cluster: cluster as u64,
        })
    }

    fn clusters(&self) -> usize {
        self.len.div_ceil(self.cluster) as usize
    }

    /// The next runs, as many as fit in `room` bytes.
    fn next_runs(&mut self, room: usize) -> Result<Vec<Run>> {
        let mut runs = Vec::new();
        let mut used = 0;
        while used < room && self.at < self.len {
            let data = match rustix::fs::seek(&self.file, SeekFrom::Data(self.at)) {
                Ok(data) => data,
                Err(rustix::io::Errno::NXIO) => {
                    self.at = self.len;
                    break;
                }
                Err(e) => return Err(io::Error::from(e).into()),
            };
            let hole =
                rustix::fs::seek(&self.file, SeekFrom::Hole(data)).map_err(io::Error::from)?;
            let start = self.at.max(data / self.cluster * self.cluster);
            let end = hole.div_ceil(self.cluster) * self.cluster;
            self.at = start;
            while self.at < end && used < room {
                let bytes =
                    (end - self.at).min(RUN_BYTES.max(self.cluster as usize) as u64) as usize;
                let bytes = bytes.min(room - used);
                runs.push(Run {
                    first: (self.at / self.cluster) as usize,
                    at: used,
                    bytes,
                });
                self.at += bytes as u64;
                used += bytes;
            }
        }
        Ok(runs)
    }

    /// Reads and hashes runs in parallel; digests come in their order.
    fn scan(&self, runs: &[Run], buffer: &mut [u8]) -> Result<Vec<Vec<Option<Digest>>>> {
        let mut rest = buffer;
        let mut tasks = Vec::with_capacity(runs.len());
        for run in runs {
            let (own, others) = rest.split_at_mut(run.bytes);
            rest = others;
            tasks.push((run, own));
        }
        let cluster = self.cluster as usize;
        let scan = |(run, bytes): (&Run, &mut [u8])| {
            let offset = run.first as u64 * self.cluster;
            let there = (self.len - offset).min(bytes.len() as u64) as usize;
            self.file.read_exact_at(&mut bytes[..there], offset)?;
            bytes[there..].fill(0);
            Ok(bytes.chunks_exact(cluster).map(digest).collect())
        };
        tasks.into_par_iter().with_max_len(1).map(scan).collect()
    }
}

/// A file that is written from all threads and made durable on the way by one that waits.
struct Sink {
    file: File,
    end: AtomicU64,
    written: AtomicU64,
}

impl Sink {
    fn create(path: &Path) -> Result<Self> {
        let file = File::options()
            .create(true)
            .truncate(true)
            .write(true)
            .open(path)?;
        Ok(Self {
            file,
            end: AtomicU64::new(0),
            written: AtomicU64::new(0),
        })
    }

    fn write_at(&self, bytes: &[u8], offset: u64, wake: &mpsc::Sender<()>) -> Result<()> {
        self.file.write_all_at(bytes, offset)?;
        let n = bytes.len() as u64;
        let before = self.written.fetch_add(n, Relaxed);
        if before / SYNC_BYTES != (before + n) / SYNC_BYTES {
            wake.send(())?;
        }
        Ok(())
    }

    /// Runs `work` while another thread syncs; all is durable when this returns.
    fn syncing<R>(&self, work: impl FnOnce(&mpsc::Sender<()>) -> Result<R>) -> Result<R> {
        std::thread::scope(|scope| {
            let (wake, woken) = mpsc::channel();
            let syncer = scope.spawn(move || {
                while woken.recv().is_ok() {
                    self.file.sync_data()?;
                }
                self.file.sync_all()
            });
            let result = work(&wake);
            drop(wake);
            syncer.join().map_err(|_| "the syncing thread died")??;
            result
        })
    }
}

/// Unique clusters in the order they are met; frames are cut from them.
struct Packer<'a> {
    options: &'a Options,
    sink: &'a Sink,
    wake: &'a mpsc::Sender<()>,
    raw_in_a_row: AtomicUsize,
}

/// Where a frame lies. Zero bytes long: not written.
type Frame = (u64, u32);

impl Packer<'_> {
    /// Compresses and writes frames of clusters in parallel.
    fn frames(&self, clusters: &[&[u8]]) -> Result<Vec<Frame>> {
        let per = self.options.frame / self.options.cluster;
        clusters
            .par_chunks(per)
            .with_max_len(1)
            .map(|frame| self.frame(frame))
            .collect()
    }

    fn frame(&self, clusters: &[&[u8]]) -> Result<Frame> {
        INPUT.with_borrow_mut(|input| {
            input.clear();
            for cluster in clusters {
                input.extend_from_slice(cluster);
            }
            OUTPUT.with_borrow_mut(|output| {
                let stored = if self.compress(input, output)? {
                    &output[..]
                } else {
                    &input[..]
                };
                let offset = self.sink.end.fetch_add(stored.len() as u64, Relaxed);
                self.sink.write_at(stored, offset, self.wake)?;
                Ok((offset, stored.len() as u32))
            })
        })
    }

    /// False: raw is better.
    fn compress(&self, input: &[u8], output: &mut Vec<u8>) -> Result<bool> {
        COMPRESSOR.with_borrow_mut(|slot| {
            let zstd = match slot {
                Some(zstd) => zstd,
                None => slot.insert(zstd::bulk::Compressor::new(self.options.level)?),
            };
            let mut shrinks = |bytes: &[u8], output: &mut Vec<u8>| {
                output.clear();
                output.reserve(zstd::zstd_safe::compress_bound(bytes.len()));
                zstd.compress_to_buffer(bytes, output)
                    .map(|n| n < bytes.len() - bytes.len() / 32)
            };
            let sample = &input[..input.len().min(SAMPLE_BYTES)];
            let probing = self.raw_in_a_row.load(Relaxed) >= RAW_BEFORE_PROBING;
            let shrunk = (!probing || shrinks(sample, output)?) && shrinks(input, output)?;
            if shrunk {
                self.raw_in_a_row.store(0, Relaxed);
            } else {
                self.raw_in_a_row.fetch_add(1, Relaxed);
            }
            Ok(shrunk)
        })
    }
}

/// What is known after a batch was deduplicated.
struct Deduper {
    known: Known,
    map: Vec<u32>,
    hashes: Vec<Digest>,
}

impl Deduper {
    /// Numbers the clusters of a batch; those met first are returned.
    fn take<'a>(
        &mut self,
        runs: &[Run],
        digests: &[Vec<Option<Digest>>],
        buffer: &'a [u8],
        cluster: usize,
    ) -> Vec<&'a [u8]> {
        let mut fresh = Vec::new();
        for (run, digests) in runs.iter().zip(digests) {
            for (i, digest) in digests.iter().enumerate() {
                let Some(digest) = digest else { continue };
                let next = self.hashes.len() as u32;
                let number = *self.known.entry(half(digest)).or_insert(next);
                if number == next {
                    self.hashes.push(*digest);
                    let at = run.at + i * cluster;
                    fresh.push(&buffer[at..at + cluster]);
                }
                self.map[run.first + i] = number + 1;
            }
        }
        fresh
    }
}

fn ingest(options: &Options) -> Result<Done> {
    std::fs::create_dir_all(&options.folder)?;
    let mut source = Source::open(&options.image, options.cluster)?;
    let clusters = source.clusters();
    let sink = Sink::create(&options.folder.join("data"))?;
    let mut deduper = Deduper {
        known: Known::default(),
        map: vec![0; clusters],
        hashes: Vec::new(),
    };
    let frames = sink.syncing(|wake| {
        let raw_in_a_row = AtomicUsize::new(0);
        let packer = Packer {
            options,
            sink: &sink,
            wake,
            raw_in_a_row,
        };
        ingest_batches(&mut source, &mut deduper, &packer)
    })?;
    let lens: Vec<u8> = frames
        .iter()
        .flat_map(|(offset, len)| [offset.to_le_bytes(), u64::from(*len).to_le_bytes()])
        .flatten()
        .collect();
    let map: Vec<u8> = deduper.map.iter().flat_map(|n| n.to_le_bytes()).collect();
    for (name, bytes) in [
        ("frames", &lens),
        ("map", &map),
        ("hashes", &deduper.hashes.as_flattened().to_vec()),
    ] {
        let file = Sink::create(&options.folder.join(name))?.file;
        file.write_all_at(bytes, 0)?;
        file.sync_all()?;
    }
    let stored = sink.end.load(Relaxed);
    let unique = deduper.hashes.len();
    Ok(Done {
        image: source.len,
        stored,
        clusters,
        unique,
        changed: 0,
    })
}

/// Scans one batch while the one before is compressed.
fn ingest_batches(
    source: &mut Source,
    deduper: &mut Deduper,
    packer: &Packer<'_>,
) -> Result<Vec<Frame>> {
    let cluster = packer.options.cluster;
    let per = packer.options.frame / cluster;
    let mut frames = Vec::new();
    let (mut current, mut next) = (vec![0; BATCH_BYTES], vec![0; BATCH_BYTES]);
    // Unique clusters that did not fill a frame; they lead the next batch.
    let mut carried: Vec<u8> = Vec::new();
    let mut runs = source.next_runs(BATCH_BYTES)?;
    let mut digests = source.scan(&runs, &mut current)?;
    loop {
        let last = runs.is_empty();
        let mut fresh: Vec<&[u8]> = carried.chunks_exact(cluster).collect();
        fresh.extend(deduper.take(&runs, &digests, &current, cluster));
        let full = if last {
            fresh.len()
        } else {
            fresh.len() / per * per
        };
        let (whole, rest) = fresh.split_at(full);
        let coming = source.next_runs(BATCH_BYTES)?;
        let (written, scanned) =
            rayon::join(|| packer.frames(whole), || source.scan(&coming, &mut next));
        frames.extend(written?);
        digests = scanned?;
        carried = rest.concat();
        if last {
            return Ok(frames);
        }
        runs = coming;
        std::mem::swap(&mut current, &mut next);
    }
}

/// What `ingest` left.
struct Stored {
    data: File,
    frames: Vec<Frame>,
    map: Vec<u32>,
    hashes: Vec<Digest>,
}

impl Stored {
    fn open(folder: &Path) -> Result<Self> {
        let words = |name: &str| -> Result<Vec<u8>> { Ok(std::fs::read(folder.join(name))?) };
        let long = |b: &[u8]| b.iter().rev().fold(0, |n, byte| n << 8 | u64::from(*byte));
        let pair = |b: &[u8]| (long(&b[..8]), long(&b[8..]) as u32);
        Ok(Self {
            data: File::open(folder.join("data"))?,
            frames: words("frames")?.chunks_exact(16).map(pair).collect(),
            map: words("map")?
                .chunks_exact(4)
                .map(|b| long(b) as u32)
                .collect(),
            hashes: words("hashes")?.as_chunks::<32>().0.to_vec(),
        })
    }

    /// Decodes frame `i` and calls `each` with the number of its first cluster and its clean bytes.
    fn decode(
        &self,
        i: usize,
        stored: &[u8],
        options: &Options,
        each: impl FnOnce(usize, &[u8]) -> Result<()>,
    ) -> Result<()> {
        let per = options.frame / options.cluster;
        let first = i * per;
        let clusters = per.min(self.hashes.len() - first);
        let bytes = clusters * options.cluster;
        OUTPUT.with_borrow_mut(|output| {
            let decoded = if stored.len() == bytes {
                stored
            } else {
                output.clear();
                output.reserve(bytes);
                DECOMPRESSOR.with_borrow_mut(|slot| {
                    let zstd = match slot {
                        Some(zstd) => zstd,
                        None => slot.insert(zstd::bulk::Decompressor::new()?),
                    };
                    zstd.decompress_to_buffer(stored, output)
                })?;
                &output[..]
            };
            let sound = decoded
                .chunks_exact(options.cluster)
                .zip(&self.hashes[first..first + clusters])
                .all(|(cluster, hash)| blake3::hash(cluster).as_bytes() == hash);
            if !sound || decoded.len() != bytes {
                return Err(format!("frame {i} is damaged").into());
            }
            each(first, decoded)
        })
    }

    fn done(&self, image: u64, changed: usize) -> Done {
        let stored = self.frames.iter().map(|f| u64::from(f.1)).sum();
        let (clusters, unique) = (self.map.len(), self.hashes.len());
        Done {
            image,
            stored,
            clusters,
            unique,
            changed,
        }
    }
}

fn resnapshot(options: &Options) -> Result<Done> {
    let stored = Stored::open(&options.folder)?;
    let mut source = Source::open(&options.image, options.cluster)?;
    if stored.map.len() != source.clusters() {
        return Err("the image has another size than the one ingested".into());
    }
    let mut buffer = vec![0; BATCH_BYTES];
    let mut changed = 0;
    loop {
        let runs = source.next_runs(BATCH_BYTES)?;
        if runs.is_empty() {
            return Ok(stored.done(source.len, changed));
        }
        let digests = source.scan(&runs, &mut buffer)?;
        for (run, digests) in runs.iter().zip(&digests) {
            for (number, digest) in stored.map[run.first..].iter().zip(digests) {
                let before = number.checked_sub(1).map(|n| &stored.hashes[n as usize]);
                changed += usize::from(before != digest.as_ref());
            }
        }
    }
}

fn restore(options: &Options) -> Result<Done> {
    let stored = Stored::open(&options.folder)?;
    let len = std::fs::metadata(&options.image)?.len();
    let sink = Sink::create(&options.folder.join("restored"))?;
    sink.file.set_len(len)?;
    let (starts, targets) = targets(&stored);
    let size = options.cluster;
    sink.syncing(|wake| {
        let order: Vec<usize> = storage_order(&stored);
        order.into_par_iter().with_max_len(8).try_for_each(|i| {
            let write = |first: usize, bytes: &[u8]| {
                let clusters = bytes.len() / size;
                let places = |c: usize| &targets[starts[first + c]..starts[first + c + 1]];
                let mut c = 0;
                while c < clusters {
                    // Neighbours that are wanted once and side by side go out in one write.
                    let mut run = 1;
                    while let ([a], Some([b])) =
                        (places(c), (c + run < clusters).then(|| places(c + run)))
                        && *b as usize == *a as usize + run
                    {
                        run += 1;
                    }
                    for target in places(c) {
                        let offset = u64::from(*target) * size as u64;
                        let end = ((c + run) * size).min(c * size + (len - offset) as usize);
                        sink.write_at(&bytes[c * size..end], offset, wake)?;
                    }
                    c += run;
                }
                Ok(())
            };
            let (offset, bytes) = stored.frames[i];
            INPUT.with_borrow_mut(|input| {
                input.resize(bytes as usize, 0);
                stored.data.read_exact_at(input, offset)?;
                stored.decode(i, input, options, write)
            })
        })
    })?;
    Ok(stored.done(len, 0))
}

/// For each unique cluster the clusters of the image that it is: `targets[starts[n]..starts[n + 1]]`.
fn targets(stored: &Stored) -> (Vec<usize>, Vec<u32>) {
    let mut starts = vec![0; stored.hashes.len() + 2];
    for number in stored.map.iter().filter(|n| **n > 0) {
        starts[*number as usize + 1] += 1;
    }
    for n in 1..starts.len() {
        starts[n] += starts[n - 1];
    }
    // While filling, `starts[n + 1]` is where the next target of n goes; it ends as the start of n + 1.
    let mut targets = vec![0; starts[starts.len() - 1]];
    for (cluster, number) in stored.map.iter().enumerate().filter(|(_, n)| **n > 0) {
        let next = &mut starts[*number as usize];
        targets[*next] = cluster as u32;
        *next += 1;
    }
    (starts, targets)
}

fn storage_order(stored: &Stored) -> Vec<usize> {
    let mut order: Vec<usize> = (0..stored.frames.len()).collect();
    order.sort_unstable_by_key(|i| stored.frames[*i].0);
    order
}

fn verify(options: &Options) -> Result<Done> {
    let stored = Stored::open(&options.folder)?;
    let len = std::fs::metadata(&options.image)?.len();
    let order = storage_order(&stored);
    let pack_of = |i: &usize| stored.frames[*i].0 / SYNC_BYTES;
    let packs: Vec<&[usize]> = order.chunk_by(|a, b| pack_of(a) == pack_of(b)).collect();
    packs.into_par_iter().with_max_len(1).try_for_each(|pack| {
        let (start, end) = (stored.frames[pack[0]], stored.frames[pack[pack.len() - 1]]);
        let bytes = (end.0 + u64::from(end.1) - start.0) as usize;
        INPUT.with_borrow_mut(|input| {
            if input.len() < bytes {
                input.resize(bytes, 0);
            }
            let mut whole = blake3::Hasher::new();
            for (n, run) in input[..bytes].chunks_mut(RUN_BYTES * 4).enumerate() {
                stored
                    .data
                    .read_exact_at(run, start.0 + (n * RUN_BYTES * 4) as u64)?;
                whole.update(run);
            }
            std::hint::black_box(whole.finalize());
            pack.iter().try_for_each(|i| {
                let (offset, len) = stored.frames[*i];
                let at = (offset - start.0) as usize;
                stored.decode(*i, &input[at..at + len as usize], options, |_, _| Ok(()))
            })
        })
    })?;
    Ok(stored.done(len, 0))
}
