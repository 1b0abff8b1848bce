//! What a file holds of a disk already: an export that was cut off has written it. Found by hash, so that it does not matter who
//! wrote it, in what order, and how much of it a crash has left.

use crate::content::fetch::Want;
use crate::disk::{DiskFile, Extent};
use crate::error::Result;
use crate::id::Hash;
use crate::progress::Progress;
use rayon::prelude::*;
use std::sync::atomic::{AtomicU64, Ordering};

/// Clusters that one task compares.
const TASK: usize = 512;

/// See the module. The file has the disk's length.
pub(crate) struct Held<'a> {
    file: &'a dyn DiskFile,
    cluster_bytes: u64,
    kept: AtomicU64,
}

impl<'a> Held<'a> {
    pub(crate) fn new(file: &'a dyn DiskFile, cluster_bytes: u64) -> Self {
        Self {
            file,
            cluster_bytes,
            kept: AtomicU64::new(0),
        }
    }

    /// Bytes that were found so far.
    pub(crate) fn kept(&self) -> u64 {
        self.kept.load(Ordering::Relaxed)
    }

    /// Takes away what is there.
    pub(crate) fn leave_lacking(&self, wants: &mut Vec<Want>, progress: &Progress) -> Result<()> {
        let tasks = wants.par_chunks(TASK);
        let there: Vec<Vec<bool>> = tasks
            .map(|wants| progress.check().and_then(|()| self.there(wants)))
            .collect::<Result<_>>()?;
        let mut there = there.into_iter().flatten();
        wants.retain(|_| !there.next().unwrap_or(false));
        Ok(())
    }

    /// Makes a range a hole if it is none.
    pub(crate) fn empty(&self, from: u64, to: u64) -> Result<()> {
        if is_hole(self.file.extent(from)?, to) {
            return Ok(());
        }
        self.file.punch(from, to)
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
