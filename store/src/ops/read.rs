//! Some bytes of a disk.

use crate::content::fetch::Want;
use crate::error::Result;
use crate::format::entry::Content;
use crate::format::manifest::Child;
use crate::manifest::walk::Walker;
use crate::ops::restore::{BufferSink, complain};
use crate::progress::Progress;
use crate::store::Store;
use std::sync::{Mutex, PoisonError};

/// Bytes of a disk decoded at a time.
const BLOCK_BYTES: u64 = 16 << 20;

impl Store {
    /// Reads the disk from byte `at` on; what lies beyond its end is zeros. Finds its way through the manifest anew each
    /// time, so that reads should be large.
    pub fn read_at(
        &self,
        content: Content,
        at: u64,
        into: &mut [u8],
        progress: &Progress,
    ) -> Result<()> {
        into.fill(0);
        let end = at.saturating_add(into.len() as u64).min(content.size);
        let mut from = at;
        while from < end {
            let to = end.min(from.saturating_add(BLOCK_BYTES));
            let part = &mut into[(from - at) as usize..(to - at) as usize];
            self.read_block(content, from, part, progress)
                .map_err(|e| self.or_unkept(e, &[content]))?;
            from = to;
        }
        Ok(())
    }

    fn read_block(
        &self,
        content: Content,
        at: u64,
        into: &mut [u8],
        progress: &Progress,
    ) -> Result<()> {
        let size = u64::from(self.geometry().cluster_bytes);
        let (first, end) = (at / size, (at + into.len() as u64).div_ceil(size));
        let nodes = self.nodes()?;
        let mut walker = Walker::new(&nodes, content.root, content.size.div_ceil(size))?;
        let mut wants = Vec::new();
        for cluster in first..end {
            if let Child::Hash(hash) = walker.lookup(cluster)? {
                wants.push(Want { cluster, hash });
            }
        }
        let buffer = Mutex::new(vec![0; ((end - first) * size) as usize]);
        let sink = BufferSink {
            buffer: &buffer,
            first,
            cluster_bytes: size,
        };
        complain(&self.fetcher().fetch(&wants, &sink, progress)?, size)?;
        let buffer = buffer.into_inner().unwrap_or_else(PoisonError::into_inner);
        let skip = (at - first * size) as usize;
        into.copy_from_slice(&buffer[skip..skip + into.len()]);
        Ok(())
    }
}
