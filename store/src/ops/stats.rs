//! How big it all is, and what a set of snapshots alone holds.

use crate::catalog::Catalog;
use crate::error::Result;
use crate::format::entry::{Content, PackKind};
use crate::format::manifest::Child;
use crate::format::snapshot::SnapshotRecord;
use crate::id::{Hash, Uid};
use crate::manifest::walk::{Piece, Walker};
use crate::ops::gc::plan::dead_bytes;
use crate::ops::gc::total_bytes;
use crate::progress::Progress;
use crate::store::Store;
use std::collections::{BTreeMap, BTreeSet};

/// A store as a whole.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Totals {
    /// Devices.
    pub devices: u64,
    /// Snapshots.
    pub snapshots: u64,
    /// Sizes of all disks in all snapshots, and of their VM states.
    pub disk_bytes: u64,
    /// Data of all snapshots, each counted alone: neither holes nor zeros.
    pub data_bytes: u64,
    /// Live packs.
    pub packs: u64,
    /// Their bytes: what is stored.
    pub stored_bytes: u64,
    /// Different clusters, copies counted too.
    pub clusters: u64,
    /// Bytes that are dead, estimated by entries.
    pub dead_bytes: u64,
    /// Bytes of log and checkpoints that are kept.
    pub log_bytes: u64,
}

/// What a set of snapshots alone holds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Held {
    /// Bytes that `gc --all` would free if they were deleted now, what it would free anyway included.
    pub would_free: u64,
    /// Bytes that `gc --all` would free anyway.
    pub garbage: u64,
}

impl Store {
    /// Counts everything.
    pub fn totals(&self, progress: &Progress) -> Result<Totals> {
        self.on_settled(|catalog| self.totals_of(catalog, progress))
    }

    fn totals_of(&self, catalog: &Catalog, progress: &Progress) -> Result<Totals> {
        let mut totals = Totals {
            devices: catalog.devices().count() as u64,
            stored_bytes: total_bytes(catalog),
            packs: catalog.packs().count() as u64,
            clusters: catalog
                .packs()
                .filter(|p| p.record.kind == PackKind::Clusters)
                .map(|p| u64::from(p.record.entries))
                .sum(),
            log_bytes: self.log_bytes()?,
            ..Totals::default()
        };
        for snapshot in catalog.snapshots() {
            totals.snapshots += 1;
            let contents = contents_of(&snapshot.record);
            totals.disk_bytes += contents.map(|c| c.size).sum::<u64>();
        }
        totals.data_bytes = self.data_bytes(catalog, progress)?;
        let marks = self.mark_sound(catalog, progress)?;
        totals.dead_bytes = catalog.packs().map(|p| dead_bytes(p, &marks)).sum();
        Ok(totals)
    }

    /// See `Held`. Exact: what is live would be copied by the code that gc copies it with.
    pub fn held_by(&self, snapshots: &BTreeSet<Uid>, progress: &Progress) -> Result<Held> {
        let now = total_bytes(&*self.refresh()?);
        let anyway = self.bytes_without(&|_| false, progress)?;
        let without = self.bytes_without(&|uid| snapshots.contains(uid), progress)?;
        Ok(Held {
            would_free: now.saturating_sub(without),
            garbage: now.saturating_sub(anyway),
        })
    }

    fn log_bytes(&self) -> Result<u64> {
        let mut bytes = 0;
        for folder in ["log", "checkpoint"] {
            for name in self.objects.list_after(folder, "")? {
                bytes += self.objects.size(&format!("{folder}/{name}")).unwrap_or(0);
            }
        }
        Ok(bytes)
    }

    fn data_bytes(&self, catalog: &Catalog, progress: &Progress) -> Result<u64> {
        let mut known: BTreeMap<Hash, u64> = BTreeMap::new();
        let mut total = 0;
        for snapshot in catalog.snapshots() {
            progress.check()?;
            for content in contents_of(&snapshot.record) {
                let data = match known.get(&content.root) {
                    Some(data) => *data,
                    None => self.extents(content)?.data,
                };
                known.insert(content.root, data);
                total += data;
            }
        }
        Ok(total)
    }

    /// Bytes of a disk by what they are, in whole clusters.
    pub fn extents(&self, content: Content) -> Result<Extents> {
        let size = u64::from(self.geometry().cluster_bytes);
        let nodes = self.nodes();
        let mut extents = Extents::default();
        for piece in Walker::new(&nodes, content.root, content.size.div_ceil(size))? {
            match piece? {
                Piece::Uniform { count, child, .. } => extents.add(child, count * size),
                Piece::Leaf { node, count, .. } => {
                    (0..count).for_each(|i| extents.add(node.child(i as usize), size));
                }
            }
        }
        Ok(extents)
    }
}

/// The disk, and the VM state if there is one.
fn contents_of(record: &SnapshotRecord) -> impl Iterator<Item = Content> {
    std::iter::once(record.content).chain(record.vm_state)
}

/// Bytes of a disk by what they are.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Extents {
    /// Data.
    pub data: u64,
    /// Zeros that were written.
    pub zero: u64,
    /// Never written.
    pub hole: u64,
}

impl Extents {
    fn add(&mut self, child: Child, bytes: u64) {
        *match child {
            Child::Hash(_) => &mut self.data,
            Child::Zero => &mut self.zero,
            Child::Hole => &mut self.hole,
        } += bytes;
    }
}
