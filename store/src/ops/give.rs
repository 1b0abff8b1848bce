//! What another store lacks, on its way out: where two disks differ, and the frames that hold given clusters. A frame is
//! read once; one that is wanted whole leaves as it stands, of others what is wanted is put together anew.

use crate::catalog::Catalog;
use crate::codec::{EncodedFrame, decode_clusters, frame_check};
use crate::content::nodes::Nodes;
use crate::content::resolve::{HashSet, Location, Resolver, readable};
use crate::error::{Error, ErrorKind, Result};
use crate::format::entry::{Content, PackKind};
use crate::format::manifest::Child;
use crate::format::pack::FrameHeader;
use crate::id::{Hash, PackNumber};
use crate::manifest::Run;
use crate::manifest::diff::diff;
use crate::manifest::walk::{Piece, Walker};
use crate::ops::repack::Repacker;
use crate::pack::reader::{located, read_frame};
use crate::pack::table::Table;
use crate::progress::Progress;
use crate::store::Store;
use rayon::prelude::*;
use std::collections::HashMap;
use std::sync::Arc;

/// Frames read and decoded at a time.
const FRAMES: usize = 16;
/// Times that clusters that could not be read are looked for again.
const TRIES: usize = 4;

/// Manifests of one store, to be compared. All calls may come from several threads.
pub struct Trees<'a> {
    nodes: Nodes<'a>,
    cluster_bytes: u64,
}

impl Store {
    /// Manifests as they are now.
    pub fn trees(&self) -> Trees<'_> {
        Trees {
            nodes: self.nodes(),
            cluster_bytes: u64::from(self.geometry().cluster_bytes),
        }
    }

    /// Gives out clusters of the packs that are live now.
    pub fn giver(&self) -> Giver<'_> {
        let catalog = self.catalog();
        Giver {
            resolver: self.resolver(&catalog),
            catalog,
            repacker: Repacker::new(self.geometry()),
            store: self,
        }
    }
}

impl Store {
    /// Tells `f` every hash that a live pack of clusters lists, in no order, some more than once. What a table that cannot
    /// be read lists is left out.
    pub fn each_stored(&self, f: &mut dyn FnMut(&Hash)) -> Result<()> {
        let catalog = self.refresh()?;
        let packs = catalog
            .packs()
            .filter(|p| p.record.kind == PackKind::Clusters);
        for pack in packs {
            let table = readable(Table::read(&*self.objects, pack.name, &pack.record))?;
            table
                .iter()
                .flat_map(Table::entries)
                .for_each(|(_, hash, ..)| f(hash));
        }
        Ok(())
    }
}

impl Trees<'_> {
    /// Tells `f` what to change in `old` so that it becomes `new`, in order, within the size of `new`. Without `old`, in a
    /// disk of holes. Runs of clusters that have a hash are of one each.
    pub fn changes(
        &self,
        old: Option<Content>,
        new: Content,
        f: &mut dyn FnMut(Run) -> Result<()>,
    ) -> Result<()> {
        let clusters = |c: Content| c.size.div_ceil(self.cluster_bytes);
        let end = clusters(new);
        let Some(old) = old else {
            return self.all(new.root, end, f);
        };
        let (a, b) = ((old.root, clusters(old)), (new.root, end));
        diff(
            &self.nodes,
            a.0,
            a.1,
            &self.nodes,
            b.0,
            b.1,
            &mut |change| {
                // What is past the new end goes with the size.
                let count = change.count.min(end.saturating_sub(change.first));
                if count == 0 {
                    return Ok(());
                }
                f(Run {
                    first: change.first,
                    count,
                    child: change.new,
                })
            },
        )
    }

    fn all(&self, root: Hash, clusters: u64, f: &mut dyn FnMut(Run) -> Result<()>) -> Result<()> {
        for piece in Walker::new(&self.nodes, root, clusters)? {
            match piece? {
                Piece::Uniform {
                    child: Child::Hole, ..
                } => {}
                Piece::Uniform {
                    first,
                    count,
                    child,
                } => f(Run {
                    first,
                    count,
                    child,
                })?,
                Piece::Leaf { first, node, count } => {
                    for (i, first) in (first..first + count).enumerate() {
                        let child = node.child(i);
                        if child != Child::Hole {
                            f(Run {
                                first,
                                count: 1,
                                child,
                            })?;
                        }
                    }
                }
            }
        }
        Ok(())
    }
}

/// Clusters that were given out already: a bit each.
#[derive(Debug, Default)]
pub struct Given(HashMap<(PackNumber, u32), Vec<u64>>);

impl Given {
    /// Notes it; true if it was new.
    fn add(&mut self, at: Location) -> bool {
        let words = self.0.entry((at.pack, at.offset)).or_default();
        let (word, bit) = (usize::from(at.item) / 64, 1 << (at.item % 64));
        if words.len() <= word {
            words.resize(word + 1, 0);
        }
        let new = words[word] & bit == 0;
        words[word] |= bit;
        new
    }
}

/// Gives out clusters; see the module.
pub struct Giver<'a> {
    store: &'a Store,
    catalog: Arc<Catalog>,
    resolver: Resolver<'a>,
    repacker: Repacker,
}

/// A cluster and where it is.
type Found = (Location, Hash);

/// What one frame gave.
enum Read {
    /// All of it is wanted.
    Whole(EncodedFrame),
    /// Some clusters.
    Part(Vec<(Hash, Vec<u8>)>),
    /// It cannot be used.
    Bad(Error),
}

impl Giver<'_> {
    /// Gives `out` frames that hold all of `wanted`, in the order of the packs, each cluster once; a window of clusters at
    /// most. What `given` has is left out, the rest is noted there. A cluster that no live pack yields is an error.
    pub fn frames(
        &mut self,
        wanted: Vec<Hash>,
        mut given: Option<&mut Given>,
        out: &mut dyn FnMut(EncodedFrame) -> Result<()>,
        progress: &Progress,
    ) -> Result<()> {
        let (mut wanted, mut last) = (wanted, None);
        for _ in 0..TRIES {
            let (failed, why) = self.pass(wanted, given.as_deref_mut(), out, progress)?;
            (wanted, last) = (failed, why.or(last));
            if wanted.is_empty() {
                return self.repacker.end(&mut |frame, _| out(frame));
            }
            // A pack may have been rewritten since, or hold a damaged copy.
            self.catalog = self.store.refresh()?;
            self.resolver.follow(&self.catalog, PackKind::Clusters);
        }
        let why = format!("{} clusters cannot be read", wanted.len());
        let error = Error::corrupt("reading clusters to send", why)
            .at(self.store.describe())
            .hint("`still verify` lists all damage; `still rescue` saves what is readable");
        Err(match last {
            Some(last) => error.source(last),
            None => error,
        })
    }

    /// One try; returns what could not be had, and why the last of it.
    fn pass(
        &mut self,
        wanted: Vec<Hash>,
        mut given: Option<&mut Given>,
        out: &mut dyn FnMut(EncodedFrame) -> Result<()>,
        progress: &Progress,
    ) -> Result<(Vec<Hash>, Option<Error>)> {
        let set = HashSet::new(wanted);
        let places = self.resolver.find(&set)?;
        let (mut found, mut failed): (Vec<Found>, Vec<Hash>) = (Vec::new(), Vec::new());
        let mut last = None;
        for (hash, place) in set.hashes().iter().zip(places) {
            match place {
                None => failed.push(*hash),
                Some(at) => found.push((at, *hash)),
            }
        }
        if let Some(given) = &mut given {
            found.retain(|(at, _)| given.add(*at));
        }
        found.sort_unstable();
        let frames: Vec<&[Found]> = found
            .chunk_by(|a, b| (a.0.pack, a.0.offset) == (b.0.pack, b.0.offset))
            .collect();
        for batch in frames.chunks(FRAMES) {
            progress.check()?;
            let reads: Vec<Read> = batch
                .par_iter()
                .map(|f| self.read(f))
                .collect::<Result<_>>()?;
            for (read, frame) in reads.into_iter().zip(batch) {
                match read {
                    Read::Whole(encoded) => out(encoded)?,
                    Read::Part(clusters) => {
                        for (hash, bytes) in clusters {
                            let out = &mut |frame, _: &[Hash]| out(frame);
                            self.repacker.push(hash, &bytes, out)?;
                        }
                    }
                    Read::Bad(why) => {
                        last = Some(why);
                        self.resolver.avoid(frame[0].0);
                        failed.extend(frame.iter().map(|(_, hash)| *hash));
                        continue;
                    }
                }
                let bytes = frame.len() as u64 * u64::from(self.store.geometry().cluster_bytes);
                Progress::add(&progress.bytes_done, bytes);
            }
        }
        Ok((failed, last))
    }

    /// Reads one frame, of which at least one cluster is wanted.
    fn read(&self, wanted: &[Found]) -> Result<Read> {
        use ErrorKind::{Corrupt, LimitExceeded, NotFound};
        let at = wanted[0].0;
        let Some(pack) = self.catalog.pack_numbered(at.pack) else {
            return Ok(Read::Bad(Error::corrupt(
                "reading a frame",
                "its pack was dropped",
            )));
        };
        let (objects, name) = (&*self.store.objects, pack.name);
        let read = read_frame(objects, name, at.frame())
            .and_then(|bytes| self.take(bytes, wanted))
            .map_err(|e| located(e, objects, name, at.frame()));
        match read {
            Err(e) if matches!(e.kind(), Corrupt | NotFound | LimitExceeded) => Ok(Read::Bad(e)),
            read => read,
        }
    }

    fn take(&self, bytes: Vec<u8>, wanted: &[Found]) -> Result<Read> {
        if usize::from(FrameHeader::decode(&bytes)?.items) == wanted.len() {
            let header = frame_check(&bytes)?;
            let (items, decoded) = (header.items, header.decoded);
            return Ok(Read::Whole(EncodedFrame {
                bytes,
                items,
                decoded,
            }));
        }
        let last = wanted.last().map_or(0, |(at, _)| usize::from(at.item));
        let size = self.store.geometry().cluster_bytes;
        let frame = decode_clusters(size, &bytes, last + 1, Vec::new())?;
        let clusters = wanted.iter().map(|(at, hash)| {
            let item = frame.item(usize::from(at.item));
            let item = item
                .filter(|bytes| Hash::of(bytes) == *hash)
                .ok_or_else(|| {
                    Error::corrupt("reading a cluster", "its bytes do not have its hash")
                })?;
            Ok((*hash, item.to_vec()))
        });
        clusters.collect::<Result<_>>().map(Read::Part)
    }
}
