//! Writing: deduplicated clusters in compressed frames, appended from all threads.

use crate::source::{Run, Source};
use crate::{BATCH_BYTES, Digest, Done, INPUT, OUTPUT, Options, Result, SYNC_BYTES};
use rayon::prelude::*;
use std::cell::RefCell;
use std::collections::HashMap;
use std::fs::File;
use std::hash::{BuildHasherDefault, Hasher};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::sync::mpsc;

/// Incompressible frames in a row before a sample decides.
const RAW_BEFORE_PROBING: usize = 4;
const SAMPLE_BYTES: usize = 16 << 10;

thread_local! {
    static COMPRESSOR: RefCell<Option<zstd::bulk::Compressor<'static>>> =
        const { RefCell::new(None) };
}

/// Keys are hashes already.
#[derive(Default)]
pub(crate) struct First8(u64);

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
pub(crate) struct Half(u64, u64);

impl std::hash::Hash for Half {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_u64(self.0);
    }
}

pub(crate) type Known = HashMap<Half, u32, BuildHasherDefault<First8>>;
pub(crate) fn half(digest: &Digest) -> Half {
    let word = |at: usize| {
        let mut bytes = [0; 8];
        bytes.copy_from_slice(&digest[at..at + 8]);
        u64::from_le_bytes(bytes)
    };
    Half(word(0), word(8))
}

/// A file that is written from all threads and made durable on the way by one that waits.
pub(crate) struct Sink {
    pub(crate) file: File,
    end: AtomicU64,
    written: AtomicU64,
}

impl Sink {
    pub(crate) fn create(path: &Path) -> Result<Self> {
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

    pub(crate) fn write_at(
        &self,
        bytes: &[u8],
        offset: u64,
        wake: &mpsc::Sender<()>,
    ) -> Result<()> {
        self.file.write_all_at(bytes, offset)?;
        let n = bytes.len() as u64;
        let before = self.written.fetch_add(n, Relaxed);
        if before / SYNC_BYTES != (before + n) / SYNC_BYTES {
            wake.send(())?;
        }
        Ok(())
    }

    /// Runs `work` while another thread syncs; all is durable when this returns.
    pub(crate) fn syncing<R>(
        &self,
        work: impl FnOnce(&mpsc::Sender<()>) -> Result<R>,
    ) -> Result<R> {
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
pub(crate) struct Packer<'a> {
    options: &'a Options,
    sink: &'a Sink,
    wake: &'a mpsc::Sender<()>,
    raw_in_a_row: AtomicUsize,
}

/// Where a frame lies. Zero bytes long: not written.
pub(crate) type Frame = (u64, u32);

impl Packer<'_> {
    /// Compresses and writes frames of clusters in parallel.
    pub(crate) fn frames(&self, clusters: &[&[u8]]) -> Result<Vec<Frame>> {
        let per = self.options.frame / self.options.cluster;
        clusters
            .par_chunks(per)
            .with_max_len(1)
            .map(|frame| self.frame(frame))
            .collect()
    }

    pub(crate) fn frame(&self, clusters: &[&[u8]]) -> Result<Frame> {
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
    pub(crate) fn compress(&self, input: &[u8], output: &mut Vec<u8>) -> Result<bool> {
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
pub(crate) struct Deduper {
    known: Known,
    map: Vec<u32>,
    hashes: Vec<Digest>,
}

impl Deduper {
    /// Numbers the clusters of a batch; those met first are returned.
    pub(crate) fn take<'a>(
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

pub(crate) fn ingest(options: &Options) -> Result<Done> {
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
pub(crate) fn ingest_batches(
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
