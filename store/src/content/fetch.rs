//! Reading clusters: resolved window by window, in storage order, each frame once, every cluster checked against its
//! hash. Frames are read, decoded, verified and delivered in parallel.

use crate::catalog::Catalog;
use crate::codec::spare;
use crate::codec::{DecodedFrame, decode_clusters};
use crate::content::resolve::{HashSet, Location, Resolver};
use crate::error::{Error, ErrorKind, Result};
use crate::format::entry::PackKind;
use crate::id::{Hash, PackName, PackNumber};
use crate::log::Log;
use crate::object::{Objects, get_exact};
use crate::progress::Progress;
use rayon::prelude::*;
use std::sync::{Arc, Mutex, PoisonError};

/// Clusters resolved at a time: with their places 64 bytes each, 32 MiB.
pub const WINDOW: usize = 512 << 10;
/// Encoded bytes that one task reads at once.
const SPAN_BYTES: u32 = 1 << 20;
/// A gap up to this is read through rather than skipped.
const GAP_BYTES: u32 = 64 << 10;
/// Times that failed clusters are looked up again.
const TRIES: usize = 4;

/// Takes verified bytes: one or more whole clusters from number `cluster` on. Called from several threads, in any order.
pub trait Sink: Sync {
    /// An error ends the reading.
    fn put(&self, cluster: u64, bytes: &[u8]) -> Result<()>;
}

/// Verifies and forgets.
pub struct Nowhere;

impl Sink for Nowhere {
    fn put(&self, _: u64, _: &[u8]) -> Result<()> {
        Ok(())
    }
}

/// A cluster of a disk and what it must hold.
#[derive(Debug, Clone, Copy)]
pub struct Want {
    /// Cluster number.
    pub cluster: u64,
    /// Its hash.
    pub hash: Hash,
}

/// A cluster that no live pack yields.
#[derive(Debug)]
pub struct Damage {
    /// Cluster number.
    pub cluster: u64,
    /// The hash that is not to be had.
    pub hash: Hash,
    /// Why, of the last copy tried.
    pub why: Arc<Error>,
}

/// Reads clusters of one store.
pub struct Fetcher<'a> {
    objects: &'a dyn Objects,
    log: &'a Log,
    cluster_bytes: u32,
    catalog: Arc<Catalog>,
    resolver: Resolver<'a>,
}

/// A window with its places.
pub struct Resolved {
    wants: Vec<(u64, u32)>,
    set: HashSet,
    places: Vec<Option<Location>>,
}

impl Resolved {
    fn place(&self, position: u32) -> Option<Location> {
        self.places[position as usize]
    }

    fn hash(&self, position: u32) -> Hash {
        self.set.hashes()[position as usize]
    }

    fn damage(&self, (cluster, position): (u64, u32), why: &Arc<Error>) -> Damage {
        Damage {
            cluster,
            hash: self.hash(position),
            why: why.clone(),
        }
    }
}

impl<'a> Fetcher<'a> {
    /// Over the packs live now.
    pub fn new(objects: &'a dyn Objects, log: &'a Log, cluster_bytes: u32) -> Self {
        let catalog = log.current();
        let resolver = Resolver::new(objects, &catalog, PackKind::Clusters);
        Self {
            objects,
            log,
            cluster_bytes,
            catalog,
            resolver,
        }
    }

    /// Finds out where all of them are; at most `WINDOW` at a time keeps memory bounded.
    pub fn resolve(&mut self, wants: &[Want]) -> Result<Resolved> {
        let set = HashSet::new(wants.iter().map(|w| w.hash).collect());
        let places = self.resolver.find(&set)?;
        let position = |w: &Want| set.position(&w.hash).expect("the set was made of these");
        let wants = wants
            .iter()
            .map(|w| (w.cluster, position(w) as u32))
            .collect();
        Ok(Resolved { wants, set, places })
    }

    /// Delivers all clusters of `wants`; returns those that no live pack yields.
    pub fn fetch(
        &mut self,
        wants: &[Want],
        sink: &dyn Sink,
        progress: &Progress,
    ) -> Result<Vec<Damage>> {
        let resolved = self.resolve(wants)?;
        self.deliver(&resolved, 0..u64::MAX, sink, progress)
    }

    /// Delivers the clusters of the window that lie in `range`; returns those that no live pack yields.
    ///
    /// A pack may have been rewritten since, or hold a damaged copy: what failed is looked up again among the packs live
    /// by then, and is lost only when nothing new is found.
    pub fn deliver(
        &mut self,
        window: &Resolved,
        range: std::ops::Range<u64>,
        sink: &dyn Sink,
        progress: &Progress,
    ) -> Result<Vec<Damage>> {
        let mut failed = self.pass(window, range, sink, progress)?;
        for _ in 0..TRIES {
            if failed.is_empty() {
                break;
            }
            self.catalog = self.log.refresh()?;
            self.resolver.follow(&self.catalog, PackKind::Clusters);
            let wants: Vec<Want> = failed
                .iter()
                .map(|d| Want {
                    cluster: d.cluster,
                    hash: d.hash,
                })
                .collect();
            let again = self.resolve(&wants)?;
            if again.places.iter().all(Option::is_none) {
                if self.log.still_holds(&self.catalog)? {
                    break;
                }
                continue;
            }
            failed = self.pass(&again, 0..u64::MAX, sink, progress)?;
        }
        Ok(failed)
    }

    /// One try over all places. Frames that failed are not used again.
    fn pass(
        &mut self,
        window: &Resolved,
        range: std::ops::Range<u64>,
        sink: &dyn Sink,
        progress: &Progress,
    ) -> Result<Vec<Damage>> {
        let mut todo: Vec<(u64, u32)> = window
            .wants
            .iter()
            .filter(|(c, _)| range.contains(c))
            .copied()
            .collect();
        todo.par_sort_unstable_by_key(|(cluster, position)| (window.place(*position), *cluster));
        let nowhere = todo.partition_point(|(_, p)| window.place(*p).is_none());
        let none = Arc::new(Error::corrupt(
            "looking for a cluster",
            "no live pack lists it",
        ));
        let lost = todo[..nowhere]
            .iter()
            .map(|want| window.damage(*want, &none));
        let failed = Mutex::new(lost.collect::<Vec<_>>());
        spans(&todo[nowhere..], window)
            .par_iter()
            .try_for_each(|span| {
                progress.check()?;
                let bad = Task {
                    fetcher: self,
                    window,
                    sink,
                    progress,
                }
                .run(span)?;
                failed
                    .lock()
                    .unwrap_or_else(PoisonError::into_inner)
                    .extend(bad);
                Ok(())
            })?;
        let failed = failed.into_inner().unwrap_or_else(PoisonError::into_inner);
        for damage in &failed {
            if let Some(at) = window
                .set
                .position(&damage.hash)
                .and_then(|p| window.places[p])
            {
                self.resolver.avoid(at);
            }
        }
        Ok(failed)
    }

    fn name(&self, pack: PackNumber) -> Result<PackName> {
        self.catalog
            .pack_numbered(pack)
            .map(|p| p.name)
            .ok_or_else(|| {
                Error::new(ErrorKind::NotFound, "reading a cluster")
                    .detail("its pack was dropped meanwhile")
            })
    }
}

/// Cuts sorted wants into runs of frames of one pack that are worth one read.
fn spans<'t>(todo: &'t [(u64, u32)], window: &Resolved) -> Vec<&'t [(u64, u32)]> {
    let at = |i: usize| {
        window
            .place(todo[i].1)
            .expect("sorted behind those without a place")
    };
    let mut spans = Vec::new();
    let mut from = 0;
    for i in 1..=todo.len() {
        let cut = i == todo.len() || {
            let (first, last, next) = (at(from), at(i - 1), at(i));
            next.pack != first.pack
                || (next.offset != last.offset
                    && (next.offset > last.offset + last.bytes + GAP_BYTES
                        || next.offset + next.bytes - first.offset > SPAN_BYTES))
        };
        if cut {
            spans.push(&todo[from..i]);
            from = i;
        }
    }
    spans
}

/// One run of frames: read once, decoded, verified, delivered.
struct Task<'t> {
    fetcher: &'t Fetcher<'t>,
    window: &'t Resolved,
    sink: &'t dyn Sink,
    progress: &'t Progress,
}

impl Task<'_> {
    fn at(&self, want: (u64, u32)) -> Location {
        self.window
            .place(want.1)
            .expect("only wants with a place get here")
    }

    fn run(&self, span: &[(u64, u32)]) -> Result<Vec<Damage>> {
        let (first, last) = (self.at(span[0]), self.at(span[span.len() - 1]));
        let mut bytes = spare::take();
        spare::fit(
            &mut bytes,
            (last.offset + last.bytes - first.offset) as usize,
        );
        let read = self.fetcher.name(first.pack).and_then(|name| {
            get_exact(
                self.fetcher.objects,
                &name.key(),
                u64::from(first.offset),
                &mut bytes,
            )
        });
        if let Err(e) = read {
            return self.all_failed(span, e);
        }
        let (mut failed, mut buffer) = (Vec::new(), spare::take());
        for wants in span.chunk_by(|a, b| self.at(*a).offset == self.at(*b).offset) {
            let at = self.at(wants[0]);
            let from = (at.offset - first.offset) as usize;
            let frame = &bytes[from..from + at.bytes as usize];
            let items = wants.iter().map(|w| self.at(*w).item).max();
            let items = items.map_or(0, |last| usize::from(last) + 1);
            match decode_clusters(self.fetcher.cluster_bytes, frame, items, buffer) {
                Ok(frame) => {
                    self.deliver(&frame, wants, &mut failed)?;
                    buffer = frame.into_data();
                }
                Err(e) => {
                    let key = self.fetcher.name(at.pack)?.key();
                    let e = e
                        .at(self.fetcher.objects.describe(&key))
                        .offset(u64::from(at.offset));
                    failed.extend(self.all_failed(wants, e)?);
                    buffer = Vec::new();
                }
            }
        }
        spare::give(buffer);
        spare::give(bytes);
        Ok(failed)
    }

    /// Damage and absence concern these clusters; anything else ends the reading.
    fn all_failed(&self, wants: &[(u64, u32)], e: Error) -> Result<Vec<Damage>> {
        use ErrorKind::{Corrupt, LimitExceeded, NotFound};
        if !matches!(e.kind(), Corrupt | NotFound | LimitExceeded) {
            return Err(e);
        }
        let e = Arc::new(e);
        Ok(wants
            .iter()
            .map(|want| self.window.damage(*want, &e))
            .collect())
    }

    fn deliver(
        &self,
        frame: &DecodedFrame,
        wants: &[(u64, u32)],
        failed: &mut Vec<Damage>,
    ) -> Result<()> {
        let size = self.fetcher.cluster_bytes as usize;
        let mut good = Vec::with_capacity(wants.len());
        // The clusters of one item are neighbours here; it is hashed once.
        for same in wants.chunk_by(|a, b| self.at(*a).item == self.at(*b).item) {
            let item = self.at(same[0]).item;
            let bytes = frame.item(usize::from(item));
            if bytes.is_some_and(|b| Hash::of(b) == self.window.hash(same[0].1)) {
                good.extend(same.iter().map(|(cluster, _)| (*cluster, item)));
            } else {
                let e = Error::corrupt("reading a cluster", "its bytes do not have its hash");
                failed.extend(self.all_failed(same, e)?);
            }
        }
        // Items that follow each other both in the frame and on the disk are written together.
        for run in good.chunk_by(|a, b| a.1 + 1 == b.1 && a.0 + 1 == b.0) {
            let from = usize::from(run[0].1) * size;
            let bytes = &frame.data()[from..from + run.len() * size];
            self.sink.put(run[0].0, bytes)?;
            Progress::add(&self.progress.bytes_done, bytes.len() as u64);
        }
        Ok(())
    }
}
