//! What a client can ask about the parts of a disk.
//!
//! - `base:allocation`: holes, zeros and data, as they were taken in.
//! - `qemu:dirty-bitmap:SNAPSHOT`, one for each snapshot of the same device: set where this disk differs from that
//!   snapshot.
//! - `qemu:allocation-depth`: 0 for holes, 1 for what changed since the snapshot before, 2 for what changed since the
//!   one before that, and so on up to [`DEPTH_MAX`], which is also everything older.
//!
//! All of it comes from manifests; no cluster is read for it.

use crate::menu::{Item, Shows, items_of};
use crate::shelf::{Disk, Shelf};
use std::collections::HashMap;
use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};
use stillpoint_nbd::BASE_ALLOCATION;
use stillpoint_nbd::codec::{Extents, allocation};
use stillpoint_store::catalog::{Catalog, SnapshotState};
use stillpoint_store::format::entry::Content;
use stillpoint_store::id::Uid;
use stillpoint_store::ops::diff::{ChangedExtent, ExtentKind};
use stillpoint_store::volume::{Depth, Volume};
use stillpoint_store::{Error, ErrorKind, Result};

/// Prefix of the contexts that say what changed.
const BITMAP: &str = "qemu:dirty-bitmap:";
/// The context that says how long ago.
const DEPTH: &str = "qemu:allocation-depth";
/// The largest depth that is told apart.
const DEPTH_MAX: usize = 8;
/// Clusters that are looked at a time: a bound on memory, since all of them may differ. More where there is nothing to be said.
const STEP: u64 = 1 << 16;
const STEP_MAX: u64 = 1 << 22;
/// Steps, and clusters with something to be said of them, after which an answer is long enough: a bound on time, since disks may
/// be of any size and a client may ask about all of one. It asks again for the rest.
const STEPS: usize = 1024;
const CLUSTERS: u64 = 1 << 21;

/// The contexts of one disk.
pub struct Contexts {
    /// What each bitmap is relative to, by its context's name.
    bases: Vec<(String, Content)>,
    /// The snapshots before this disk, the nearest first.
    before: Vec<Content>,
    /// Those that were asked for: open, so that gc leaves them alone.
    open: Mutex<HashMap<usize, Arc<Disk>>>,
}

impl Contexts {
    /// Those of a disk, as the catalog has its device.
    pub fn of(catalog: &Catalog, item: &Item) -> Self {
        let all = catalog.snapshots_of(&item.device_uid);
        let all: Vec<&SnapshotState> = all.into_iter().map(|s| &**s).collect();
        let Some(device) = catalog.device(&item.device_uid) else {
            return Self::new(Vec::new(), Vec::new());
        };
        let others = items_of(device, &all)
            .into_iter()
            .filter(|other| other.uid != item.uid);
        let bases = others
            .filter_map(|other| match other.shows {
                Shows::Content(content) => Some((format!("{BITMAP}{}", other.snapshot?), content)),
                Shows::Volume(_) => None,
            })
            .collect();
        let of: HashMap<Uid, &SnapshotState> = all.iter().map(|s| (s.record.uid, *s)).collect();
        let first = match item.uid {
            Some(uid) => of.get(&uid).and_then(|s| s.record.parent),
            None => device.base,
        };
        let mut before = Vec::new();
        let mut next = first;
        while before.len() < DEPTH_MAX - 1
            && let Some(snapshot) = next.and_then(|uid| of.get(&uid))
        {
            before.push(snapshot.record.content);
            next = snapshot.record.parent;
        }
        Self::new(bases, before)
    }

    fn new(bases: Vec<(String, Content)>, before: Vec<Content>) -> Self {
        Self {
            bases,
            before,
            open: Mutex::default(),
        }
    }

    /// Their names.
    pub fn names(&self) -> Vec<String> {
        let mut names = vec![BASE_ALLOCATION.to_owned(), DEPTH.to_owned()];
        names.extend(self.bases.iter().map(|(name, _)| name.clone()));
        names
    }

    /// Pushes what one of them says of a range of `disk`.
    pub fn status(
        &self,
        shelf: &Shelf,
        disk: &Disk,
        context: &str,
        (offset, length): (u64, u64),
        extents: &mut Extents,
    ) -> Result<()> {
        match context {
            BASE_ALLOCATION => allocated(disk, offset, length, extents),
            DEPTH => self.depth(shelf, disk, (offset, length), extents),
            _ => dirty(disk, self.base(shelf, context)?, (offset, length), extents),
        }
    }

    /// The same of a volume. Its depth is 1 for what is in overlays, 2 for what is in the store.
    pub fn status_of_volume(
        &self,
        shelf: &Shelf,
        volume: &Volume<'_>,
        context: &str,
        (offset, length): (u64, u64),
        extents: &mut Extents,
    ) -> Result<()> {
        let cluster = u64::from(shelf.system().store().geometry().cluster_bytes);
        let base = match context {
            BASE_ALLOCATION | DEPTH => None,
            _ => Some(self.base(shelf, context)?),
        };
        in_steps(cluster, offset..offset + length, |range| {
            let (at, len) = (range.start, range.end - range.start);
            let (mut said, mut wanted) = (0, true);
            let mut push = |bytes: u64, flags: u64, plain: bool| {
                said += if plain { 0 } else { bytes };
                wanted = extents.push(bytes, flags);
                wanted
            };
            match base {
                Some(base) => volume.changed_since(base, at, len, &mut |range, differs| {
                    push(range.end - range.start, u64::from(differs), !differs)
                })?,
                None => volume.extents(at, len, &mut |extent| {
                    let hole = extent.kind == ExtentKind::Hole;
                    let flags = match context {
                        DEPTH => depth_of(extent.depth),
                        _ => allocation_of(extent.kind),
                    };
                    push(extent.length, flags, hole)
                })?,
            }
            Ok(wanted.then_some(said.div_ceil(cluster)))
        })
    }

    /// What a bitmap is relative to, kept from gc from now on.
    fn base(&self, shelf: &Shelf, context: &str) -> Result<Content> {
        let base = self.bases.iter().position(|(name, _)| name == context);
        let base = base
            .ok_or_else(|| Error::invalid("reading a context", format!("{context:?} is none")))?;
        let content = self.bases[base].1;
        self.hold(shelf, base, content)?;
        Ok(content)
    }

    /// Keeps gc from what is compared with. A snapshot that was deleted before anybody asked is not there to compare.
    fn hold(&self, shelf: &Shelf, key: usize, content: Content) -> Result<()> {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        if open.contains_key(&key) {
            return Ok(());
        }
        let disk = shelf.open(content).map_err(|e| {
            Error::new(ErrorKind::NotFound, "comparing with a snapshot")
                .detail("it cannot be opened; it may have been deleted")
                .source(e)
        })?;
        open.insert(key, disk);
        Ok(())
    }

    fn depth(
        &self,
        shelf: &Shelf,
        disk: &Disk,
        (offset, length): (u64, u64),
        extents: &mut Extents,
    ) -> Result<()> {
        for (n, content) in self.before.iter().enumerate() {
            self.hold(shelf, self.bases.len() + n, *content)?;
        }
        let cluster = disk.view().cluster_bytes();
        in_steps(cluster, offset..offset + length, |range| {
            let (from, length) = (range.start, range.end - range.start);
            let mut said = 0;
            let changed = |base: &Content| disk.view().changed_since(*base, from, length);
            let changed = self.before.iter().map(changed);
            let changed: Vec<Vec<ChangedExtent>> = changed.collect::<Result<_>>()?;
            let mut at = from;
            for extent in disk.view().extents(from, length)? {
                let extent = extent?;
                let until = extent.start + extent.length;
                if extent.kind != ExtentKind::Hole {
                    said += extent.length;
                }
                while at < until {
                    let (depth, next) = if extent.kind == ExtentKind::Hole {
                        (0, until)
                    } else {
                        depth_at(&changed, at, until)
                    };
                    if !extents.push(next - at, depth) {
                        return Ok(None);
                    }
                    at = next;
                }
            }
            Ok(Some(said.div_ceil(cluster)))
        })
    }
}

fn depth_of(depth: Depth) -> u64 {
    match depth {
        Depth::Overlay => 1,
        Depth::Store => 2,
        Depth::Nowhere => 0,
    }
}

/// The depth at a byte, and where it may be another.
fn depth_at(changed: &[Vec<ChangedExtent>], at: u64, until: u64) -> (u64, u64) {
    let mut next = until;
    for (n, extents) in changed.iter().enumerate() {
        let behind = extents.partition_point(|e| e.start + e.length <= at);
        if let Some(extent) = extents.get(behind) {
            if extent.start <= at {
                return (n as u64 + 1, next.min(extent.start + extent.length));
            }
            next = next.min(extent.start);
        }
    }
    (changed.len() as u64 + 1, next)
}

fn allocated(disk: &Disk, offset: u64, length: u64, extents: &mut Extents) -> Result<()> {
    let cluster = disk.view().cluster_bytes();
    in_steps(cluster, offset..offset + length, |range| {
        let mut data = 0;
        for extent in disk.view().extents(range.start, range.end - range.start)? {
            let extent = extent?;
            if extent.kind == ExtentKind::Data {
                data += extent.length;
            }
            if !extents.push(extent.length, allocation_of(extent.kind)) {
                return Ok(None);
            }
        }
        Ok(Some(data.div_ceil(cluster)))
    })
}

fn allocation_of(kind: ExtentKind) -> u64 {
    match kind {
        ExtentKind::Data => 0,
        ExtentKind::Zero => allocation::ZERO,
        ExtentKind::Hole => allocation::HOLE | allocation::ZERO,
    }
}

fn dirty(
    disk: &Disk,
    base: Content,
    (offset, length): (u64, u64),
    extents: &mut Extents,
) -> Result<()> {
    let cluster = disk.view().cluster_bytes();
    in_steps(cluster, offset..offset + length, |range| {
        let (mut at, mut said) = (range.start, 0);
        let changed = disk
            .view()
            .changed_since(base, at, range.end - range.start)?;
        for extent in changed {
            let (from, to) = (extent.start, extent.start + extent.length);
            let (from, to) = (from.max(at), to.min(range.end));
            if !extents.push(from - at, 0) || !extents.push(to - from, 1) {
                return Ok(None);
            }
            said += to - from;
            at = to;
        }
        let wanted = extents.push(range.end - at, 0);
        Ok(wanted.then_some(said.div_ceil(cluster)))
    })
}

/// Takes a range of bytes in parts, one after the other, until enough is said. `look` says what there is to be said of a part,
/// and answers of how many clusters that was, `None` when nobody wants to hear more.
fn in_steps(
    cluster: u64,
    range: Range<u64>,
    mut look: impl FnMut(Range<u64>) -> Result<Option<u64>>,
) -> Result<()> {
    let (mut at, mut step, mut said) = (range.start, STEP, 0);
    for _ in 0..STEPS {
        if at >= range.end || said >= CLUSTERS {
            break;
        }
        let to = (at / cluster + step).saturating_mul(cluster).min(range.end);
        let Some(clusters) = look(at..to)? else {
            break;
        };
        said += clusters;
        step = if clusters == 0 {
            (step * 2).min(STEP_MAX)
        } else {
            STEP
        };
        at = to;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn changed(start: u64, length: u64) -> ChangedExtent {
        ChangedExtent {
            start,
            length,
            kind: ExtentKind::Data,
        }
    }

    fn steps(cluster: u64, range: Range<u64>, said: u64) -> Vec<Range<u64>> {
        let mut all = Vec::new();
        let look = |part| {
            all.push(part);
            Ok(Some(said))
        };
        in_steps(cluster, range, look).unwrap();
        all
    }

    #[test]
    fn an_answer_is_found_in_bounded_time_and_leaves_nothing_out() {
        for said in [0, STEP] {
            let all = steps(4096, 5..(1 << 63) - 7, said);
            assert_eq!(all[0].start, 5);
            for pair in all.windows(2) {
                assert_eq!(pair[0].end, pair[1].start);
                assert_eq!(pair[0].end % 4096, 0);
            }
            assert!(all.len() <= STEPS);
            let clusters = all.iter().map(|r| r.end.div_ceil(4096) - r.start / 4096);
            let most = clusters.clone().max().unwrap();
            assert!(most <= if said == 0 { STEP_MAX } else { STEP });
            assert!(said == 0 || clusters.sum::<u64>() == CLUSTERS);
        }
        let small = steps(4096, 100..5000, 1);
        assert_eq!(
            small,
            [Range {
                start: 100,
                end: 5000
            }]
        );
        let mut calls = 0;
        let enough = |_| {
            calls += 1;
            Ok(None)
        };
        in_steps(4096, 0..1 << 60, enough).unwrap();
        assert_eq!(calls, 1);
    }

    #[test]
    fn the_depth_is_the_nearest_snapshot_that_had_something_else() {
        let before = [vec![changed(10, 5)], vec![changed(0, 12), changed(20, 5)]];
        assert_eq!(depth_at(&before, 0, 100), (2, 10));
        assert_eq!(depth_at(&before, 10, 100), (1, 15));
        assert_eq!(depth_at(&before, 15, 100), (3, 20));
        assert_eq!(depth_at(&before, 21, 100), (2, 25));
        assert_eq!(depth_at(&before, 25, 100), (3, 100));
        assert_eq!(depth_at(&[], 7, 9), (1, 9));
    }
}
