//! Reading: runs of an image, holes skipped, zero checked and hashed in parallel.

use crate::{Digest, Result};
use rayon::prelude::*;
use rustix::fs::SeekFrom;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

/// Bytes of one read.
const RUN_BYTES: usize = 256 << 10;

pub(crate) fn is_zero(bytes: &[u8]) -> bool {
    bytes[0] == 0 && bytes[..bytes.len() - 1] == bytes[1..]
}

/// `None` for zeros.
pub(crate) fn digest(cluster: &[u8]) -> Option<Digest> {
    (!is_zero(cluster)).then(|| *blake3::hash(cluster).as_bytes())
}

/// Clusters of data in order, batch by batch; holes are skipped.
pub(crate) struct Source {
    file: File,
    pub(crate) len: u64,
    at: u64,
    cluster: u64,
}

/// A run of clusters: which and where in the buffer.
pub(crate) struct Run {
    pub(crate) first: usize,
    pub(crate) at: usize,
    bytes: usize,
}

impl Source {
    pub(crate) fn open(path: &Path, cluster: usize) -> Result<Self> {
        let file = File::open(path)?;
        let len = file.metadata()?.len();
        Ok(Self {
            file,
            len,
            at: 0,
            cluster: cluster as u64,
        })
    }

    pub(crate) fn clusters(&self) -> usize {
        self.len.div_ceil(self.cluster) as usize
    }

    /// The next runs, as many as fit in `room` bytes.
    pub(crate) fn next_runs(&mut self, room: usize) -> Result<Vec<Run>> {
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
    pub(crate) fn scan(&self, runs: &[Run], buffer: &mut [u8]) -> Result<Vec<Vec<Option<Digest>>>> {
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
