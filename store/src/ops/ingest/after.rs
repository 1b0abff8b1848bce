//! A disk that is known to be another one with a few ranges changed, which this writer took in before: only those are read,
//! and its manifest is the other's, edited.

use super::decide::{Disk, Manifest};
use super::feed::Feed;
use super::{Ingested, Input, Writer, changed};
use crate::error::Result;
use crate::format::entry::{Content, PackKind};
use crate::progress::Progress;
use std::ops::Range;

impl Writer<'_> {
    /// Takes `input` in as `before` with other bytes in `changed` (sorted, disjoint), and behind the end of the shorter of the
    /// two. `before` is of this writer: taken in since it last forgot anything. What is left out is not looked at, so
    /// that `changed` must be known, not hinted; `input.parent` and `input.changed` mean nothing. Memory grows with
    /// what has changed: 48 bytes a cluster.
    pub fn ingest_after(
        &mut self,
        before: Content,
        input: &Input<'_>,
        changed: &[Range<u64>],
        progress: &Progress,
    ) -> Result<Ingested> {
        self.settle()?;
        let nodes = self.parent_nodes();
        let size = u64::from(self.geometry().cluster_bytes);
        let input = Input {
            parent: None,
            changed: None,
            ..*input
        };
        let ranges = changed::ranges(&input, before, changed, size);
        let bytes = ranges.iter().map(|r| (r.end - r.start) * size).sum();
        Progress::add(&progress.bytes_total, bytes);
        let mut feeds = [Feed::new(&input, &*nodes, size as u32, ranges)?];
        let manifest = Manifest::Edited {
            parent: before,
            clusters: (before.size.div_ceil(size), input.size.div_ceil(size)),
            changes: Vec::new(),
        };
        let mut disks = [Disk::new(0, manifest)];
        self.run(&mut feeds, &mut disks, progress)?;
        let [disk] = disks;
        let (root, counts) = disk.finish(self)?;
        Ok(Ingested {
            content: Content {
                root,
                size: input.size,
            },
            counts,
        })
    }

    /// Publishes the manifest nodes so far, so that they can be read. They are this session's, which gc spares: nothing needs
    /// to be relied on for them. The pack of clusters that is not full yet stays open.
    fn settle(&mut self) -> Result<()> {
        self.end_nodes_frame()?;
        self.seal(PackKind::Nodes)?;
        while !self.flights.is_empty() {
            self.land()?;
        }
        self.publish()
    }
}
