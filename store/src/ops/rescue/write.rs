//! Writes one disk of what the heap has. Clusters go window by window in the order in which they are stored, so that a
//! frame is read and decoded once for each window that needs it, on all threads.

use super::heap::{Heap, Place};
use crate::content::fetch::Sink;
use crate::disk::{Disk, OpenMode};
use crate::error::Result;
use crate::format::entry::Content;
use crate::format::manifest::Child;
use crate::id::Hash;
use crate::limits::CLUSTER_BYTES_MIN;
use crate::manifest::walk::{Piece, Walker};
use crate::ops::sink::FileSink;
use crate::progress::Progress;
use rayon::prelude::*;
use std::ops::Range;
use std::path::Path;

/// Clusters that are written at a time: 56 bytes each, 7 MiB.
const WINDOW: usize = 128 << 10;

/// A cluster that is still to be written.
#[derive(Debug, Clone, Copy)]
struct Want {
    cluster: u64,
    hash: Hash,
    /// The copy that is tried next.
    copy: usize,
}

/// Writes a disk, leaving holes where it is lost; returns these. On an error nothing is left of the file.
pub(super) fn write_disk(
    heap: &Heap<'_>,
    content: Content,
    disk: &dyn Disk,
    path: &Path,
    progress: &Progress,
) -> Result<Vec<Range<u64>>> {
    if let Some(folder) = path.parent() {
        disk.create_folders(folder)?;
    }
    let file = disk.open(path, OpenMode::CreateNew)?;
    let size = u64::from(heap.cluster_bytes().max(CLUSTER_BYTES_MIN));
    Progress::add(&progress.bytes_total, content.size);
    let write = || {
        file.set_len(content.size)?;
        FileSink::with(&*file, size, content.size, |sink| {
            let mut writer = Writer {
                heap,
                sink,
                progress,
                size,
                window: Vec::new(),
                lost: Vec::new(),
            };
            writer.write(content)?;
            Ok(writer.lost(content.size))
        })
    };
    match write() {
        Ok((lost, _)) => Ok(lost),
        Err(e) => {
            // Half a disk looks like a whole one. That it cannot be removed is the lesser trouble.
            let _left = disk.remove(path);
            Err(e)
        }
    }
}

struct Writer<'a, 'f> {
    heap: &'a Heap<'a>,
    sink: &'a FileSink<'f>,
    progress: &'a Progress,
    /// Bytes of a cluster.
    size: u64,
    window: Vec<Want>,
    /// In clusters.
    lost: Vec<Range<u64>>,
}

impl Writer<'_, '_> {
    fn write(&mut self, content: Content) -> Result<()> {
        let clusters = content.size.div_ceil(self.size);
        let Ok(mut walker) = Walker::new(self.heap, content.root, clusters) else {
            self.lost.push(0..clusters);
            return Ok(());
        };
        let mut at = 0;
        while let Some(piece) = walker.next() {
            self.progress.check()?;
            match piece {
                // The file is new: zeros are there already, and take no space of a target that may be small.
                Ok(Piece::Uniform { .. }) => {}
                Ok(Piece::Leaf { first, node, count }) => {
                    for i in 0..count {
                        if let Child::Hash(hash) = node.child(i as usize) {
                            self.want(first + i, hash);
                        }
                    }
                }
                // The walk goes on behind what the unreadable node covers.
                Err(_) => self.lost.push(at..walker.position()),
            }
            if self.window.len() >= WINDOW {
                self.flush()?;
            }
            let next = walker.position();
            Progress::add(&self.progress.bytes_done, (next - at) * self.size);
            at = next;
        }
        self.flush()
    }

    fn want(&mut self, cluster: u64, hash: Hash) {
        self.window.push(Want {
            cluster,
            hash,
            copy: self.heap.first_copy(&hash),
        });
    }

    /// Writes the window; what fails is tried with the next copy until there is none.
    fn flush(&mut self) -> Result<()> {
        let mut wants = std::mem::take(&mut self.window);
        let mut lost = Vec::new();
        while !wants.is_empty() {
            let mut todo: Vec<(Place, Want)> = Vec::with_capacity(wants.len());
            for want in wants {
                match self.heap.place(want.copy, &want.hash) {
                    Some(place) => todo.push((place, want)),
                    None => lost.push(want.cluster),
                }
            }
            todo.par_sort_unstable_by_key(|(p, w)| (p.frame, p.item, w.cluster));
            let frames: Vec<_> = todo.chunk_by(|a, b| a.0.frame == b.0.frame).collect();
            let failed: Vec<Vec<Want>> = frames
                .par_iter()
                .map(|wants| self.write_frame(wants))
                .collect::<Result<_>>()?;
            wants = failed.into_iter().flatten().collect();
        }
        lost.sort_unstable();
        let runs = lost.chunk_by(|a, b| a + 1 == *b);
        self.lost
            .extend(runs.map(|run| run[0]..run[0] + run.len() as u64));
        Ok(())
    }

    /// Writes clusters of one frame; returns those that it does not have, to be tried with the next copy.
    fn write_frame(&self, wants: &[(Place, Want)]) -> Result<Vec<Want>> {
        self.progress.check()?;
        let frame = self.heap.frame(wants[0].0.frame);
        let mut failed = Vec::new();
        // The clusters of one item are neighbours here; it is hashed once.
        for same in wants.chunk_by(|a, b| a.0.item == b.0.item) {
            let (place, first) = same[0];
            let bytes = frame
                .as_ref()
                .and_then(|f| f.item(usize::from(place.item)))
                .filter(|b| b.len() as u64 == self.size)
                .filter(|b| Hash::of(b) == first.hash);
            for (_, want) in same {
                match bytes {
                    Some(bytes) if want.hash == first.hash => self.sink.put(want.cluster, bytes)?,
                    _ => failed.push(Want {
                        copy: want.copy + 1,
                        ..*want
                    }),
                }
            }
        }
        Ok(failed)
    }

    /// In bytes, in order.
    fn lost(mut self, len: u64) -> Vec<Range<u64>> {
        self.lost.sort_unstable_by_key(|range| range.start);
        let mut bytes: Vec<Range<u64>> = Vec::new();
        for range in self.lost {
            let range = range.start.saturating_mul(self.size).min(len)
                ..range.end.saturating_mul(self.size).min(len);
            match bytes.last_mut() {
                Some(last) if last.end == range.start => last.end = range.end,
                _ => bytes.push(range),
            }
        }
        bytes
    }
}
