//! The ways back: what an ingest left is compared, restored and verified.

use crate::ingest::{Frame, Sink};
use crate::source::Source;
use crate::{BATCH_BYTES, Digest, Done, INPUT, OUTPUT, Options, Result, SYNC_BYTES};
use rayon::prelude::*;
use std::cell::RefCell;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;

/// Bytes hashed at a time.
const PIECE_BYTES: usize = 1 << 20;

thread_local! {
    static DECOMPRESSOR: RefCell<Option<zstd::bulk::Decompressor<'static>>> =
        const { RefCell::new(None) };
}

/// What `ingest` left.
pub(crate) struct Stored {
    data: File,
    frames: Vec<Frame>,
    map: Vec<u32>,
    hashes: Vec<Digest>,
}

impl Stored {
    pub(crate) fn open(folder: &Path) -> Result<Self> {
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
    pub(crate) fn decode(
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

    pub(crate) fn done(&self, image: u64, changed: usize) -> Done {
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

pub(crate) fn resnapshot(options: &Options) -> Result<Done> {
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

pub(crate) fn restore(options: &Options) -> Result<Done> {
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
pub(crate) fn targets(stored: &Stored) -> (Vec<usize>, Vec<u32>) {
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

pub(crate) fn storage_order(stored: &Stored) -> Vec<usize> {
    let mut order: Vec<usize> = (0..stored.frames.len()).collect();
    order.sort_unstable_by_key(|i| stored.frames[*i].0);
    order
}

pub(crate) fn verify(options: &Options) -> Result<Done> {
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
            for (n, run) in input[..bytes].chunks_mut(PIECE_BYTES).enumerate() {
                stored
                    .data
                    .read_exact_at(run, start.0 + (n * PIECE_BYTES) as u64)?;
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
