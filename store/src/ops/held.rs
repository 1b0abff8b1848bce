//! What a file holds of a disk already: an export that was cut off has written it. Found by hash, so that it does not matter who
//! wrote it, in what order, and how much of it a crash has left.

use crate::content::fetch::Want;
use crate::disk::{DiskFile, Extent};
use crate::error::Result;
use crate::id::Hash;
use crate::ops::ingest::is_zero;
use crate::progress::Progress;
use rayon::prelude::*;
use std::sync::atomic::{AtomicU64, Ordering};

/// Clusters that one task compares.
const TASK: usize = 512;
/// Bytes looked at for what is no zero.
const PIECE_BYTES: u64 = 1 << 20;

/// See the module.
pub(crate) struct Held<'a> {
    file: &'a dyn DiskFile,
    cluster_bytes: u64,
    tells_holes: bool,
    kept: AtomicU64,
}

impl<'a> Held<'a> {
    /// Of a file that has the disk's length.
    pub(crate) fn new(file: &'a dyn DiskFile, cluster_bytes: u64) -> Result<Self> {
        file.sync_and_forget()?;
        let first = file.extent(0)?;
        Ok(Self {
            file,
            cluster_bytes,
            tells_holes: !first.data || first.end < file.len()?,
            kept: AtomicU64::new(0),
        })
    }

    /// Bytes that were found so far.
    pub(crate) fn kept(&self) -> u64 {
        self.kept.load(Ordering::Relaxed)
    }

    /// Takes away what is there.
    pub(crate) fn leave_lacking(&self, wants: &mut Vec<Want>, progress: &Progress) -> Result<()> {
        let tasks = wants.par_chunks(TASK);
        let there: Vec<Vec<bool>> = tasks
            .map(|wants| {
                progress.check()?;
                let there = self.there(wants)?;
                let kept = there.iter().filter(|there| **there).count() as u64;
                Progress::add(&progress.bytes_done, kept * self.cluster_bytes);
                Ok(there)
            })
            .collect::<Result<_>>()?;
        let mut there = there.into_iter().flatten();
        wants.retain(|_| !there.next().unwrap_or(false));
        Ok(())
    }

    /// Makes a range a hole. Where the file has none, it may be that the file system cannot tell and cannot punch them: what is
    /// zeros then stays as it is, instead of being written.
    pub(crate) fn empty(&self, from: u64, to: u64) -> Result<()> {
        let mut bytes = Vec::new();
        let mut at = from;
        while at < to {
            let extent = self.file.extent(at)?;
            if !extent.data {
                at = extent.end.max(at + 1);
                continue;
            }
            let mut end = extent.end.min(to);
            if self.tells_holes {
                self.file.punch(at, end)?;
            } else {
                end = end.min(at + PIECE_BYTES);
                bytes.resize((end - at) as usize, 0);
                let n = self.file.read_at(at, &mut bytes)?;
                if !is_zero(&bytes[..n]) {
                    self.file.punch(at, end)?;
                }
            }
            at = end;
        }
        Ok(())
    }

    fn there(&self, wants: &[Want]) -> Result<Vec<bool>> {
        let size = self.cluster_bytes;
        let mut bytes = vec![0; size as usize];
        let mut extent: Option<Extent> = None;
        let mut there = Vec::with_capacity(wants.len());
        for want in wants {
            let from = want.cluster * size;
            let here = match extent {
                Some(e) if (e.start..e.end).contains(&from) => e,
                _ => self.file.extent(from)?,
            };
            extent = Some(here);
            there.push(!is_hole(here, from + size) && self.has(want, from, &mut bytes)?);
        }
        Ok(there)
    }

    fn has(&self, want: &Want, from: u64, bytes: &mut [u8]) -> Result<bool> {
        let n = self.file.read_at(from, bytes)?;
        bytes[n..].fill(0);
        let same = Hash::of(bytes) == want.hash;
        if same {
            self.kept.fetch_add(n as u64, Ordering::Relaxed);
        }
        Ok(same)
    }
}

/// All of it up to `to`, or to the end of the file.
fn is_hole(extent: Extent, to: u64) -> bool {
    !extent.data && extent.end >= to
}
