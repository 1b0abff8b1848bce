//! One snapshot's disk or VM state to be read at any position, by many threads, without being written out anywhere.
//!
//! A `Reader` is what the views of a store share: places of manifest nodes, table blocks, and decoded frames within one
//! budget. A `View` is contents, and a pin that keeps gc from them.

mod clusters;
mod extents;
mod pieces;

pub use extents::{Extent, Extents};
pub use pieces::{ClusterRun, ClusterRuns};

use crate::content::known::KnownNodes;
use crate::error::{Error, ErrorKind, Result};
use crate::format::entry::Content;
use crate::format::manifest::Child;
use crate::id::Hash;
use crate::manifest::diff::{Side, diff_within};
use crate::manifest::walk::{Piece, Walker};
use crate::ops::diff::{ChangedExtent, extend};
use crate::ops::restore::Pin;
use crate::store::Store;
use clusters::{Clusters, Wish};
use std::fmt;
use std::ops::Range;
use std::sync::Arc;

/// Clusters around a wanted one that are looked up with it where all tables must be searched.
const AROUND: u64 = 16 << 10;

/// What the views of a store share. All calls may come from several threads.
pub struct Reader<'a> {
    store: &'a Store,
    nodes: KnownNodes<'a>,
    clusters: Clusters<'a>,
}

/// Contents that can be read at any position. They are pinned while it lives; a store that cannot be written pins nothing,
/// and then a gc elsewhere may end the view with `Busy`.
pub struct View<'a> {
    reader: Arc<Reader<'a>>,
    content: Content,
    _pin: Option<Arc<Pin<'a>>>,
}

impl Store {
    /// For views that share at most `cache_bytes` of decoded frames. Opens the index.
    pub fn reader(&self, cache_bytes: usize) -> Result<Arc<Reader<'_>>> {
        let catalog = self.refresh()?;
        Ok(Arc::new(Reader {
            store: self,
            nodes: KnownNodes::new(self.nodes()),
            clusters: Clusters::new(self, &catalog, cache_bytes)?,
        }))
    }

    /// A view with a reader of its own.
    pub fn view(&self, content: Content, cache_bytes: usize) -> Result<View<'_>> {
        self.reader(cache_bytes)?.view(content)
    }
}

impl<'a> Reader<'a> {
    /// Bytes of decoded frames that are kept now.
    pub fn cached_bytes(&self) -> usize {
        self.clusters.cached_bytes()
    }

    /// The live packs are those of now. What is new is looked into, so that nobody searches all packs for it.
    fn follow(&self) -> Result<()> {
        let catalog = self.store.catalog();
        self.clusters.follow(&catalog)?;
        self.nodes.follow(&catalog)
    }

    /// The same without a pin, of contents that the caller knows to be kept: the head of a volume that it has locked.
    pub(crate) fn view_of_kept(self: &Arc<Self>, content: Content) -> Result<View<'a>> {
        self.follow()?;
        Ok(View {
            reader: self.clone(),
            content,
            _pin: None,
        })
    }

    /// A view of contents that a snapshot or head names now.
    pub fn view(self: &Arc<Self>, content: Content) -> Result<View<'a>> {
        let mut one = self.views(&[content])?;
        one.pop()
            .ok_or_else(|| Error::invalid("reading a disk", "there is none"))
    }

    /// Views of several, in order, that one pin keeps.
    pub fn views(self: &Arc<Self>, contents: &[Content]) -> Result<Vec<View<'a>>> {
        // ORDER: the pin, then the packs: what is pinned is in packs that are live from then on, or in what they became.
        let pin = self.store.pin(contents)?.map(Arc::new);
        self.follow()?;
        let view = |content: &Content| {
            let view = View {
                reader: self.clone(),
                content: *content,
                _pin: pin.clone(),
            };
            // What cannot be read at all is found now.
            view.walker().map_err(|e| view.explained(e))?;
            Ok(view)
        };
        contents.iter().map(view).collect()
    }
}

impl View<'_> {
    /// What it is a view of.
    pub fn content(&self) -> Content {
        self.content
    }

    /// Bytes.
    pub fn size(&self) -> u64 {
        self.content.size
    }

    /// Reads up to `buf.len()` verified bytes from any offset; fewer only at the end. Holes and zeros read as zeros, and no
    /// pack of clusters is asked for them. What an error leaves in `buf` means nothing.
    pub fn read_at(&self, offset: u64, buf: &mut [u8]) -> Result<usize> {
        let left = self.content.size.saturating_sub(offset);
        let len = left.min(buf.len() as u64) as usize;
        self.fill(offset, &mut buf[..len])
            .map_err(|e| self.explained(e))?;
        Ok(len)
    }

    /// Fills `buf`, zeros behind the end, if everything that it takes is in memory and nobody is at work on it; `false`
    /// otherwise, and then `buf` means nothing.
    pub fn read_cached(&self, offset: u64, buf: &mut [u8]) -> Result<bool> {
        let left = self.content.size.saturating_sub(offset);
        let len = left.min(buf.len() as u64) as usize;
        let (buf, behind) = buf.split_at_mut(len);
        behind.fill(0);
        if buf.is_empty() {
            return Ok(true);
        }
        let (nodes, size) = (self.reader.nodes.in_memory(), self.cluster_bytes());
        let clusters = self.content.size.div_ceil(size);
        let in_memory = |e: &Error| e.kind() != ErrorKind::Busy;
        let mut walker = match Walker::new(&nodes, self.content.root, clusters) {
            Err(e) if !in_memory(&e) => return Ok(false),
            walker => walker?,
        };
        for (cluster, skip, range) in pieces(offset, buf.len(), size) {
            let into = &mut buf[range];
            let n = into.len();
            match walker.lookup(cluster) {
                Err(e) if !in_memory(&e) => return Ok(false),
                Err(e) => return Err(self.explained(e)),
                Ok(Child::Hash(hash)) => {
                    let mut copy = |bytes: &[u8]| into.copy_from_slice(&bytes[skip..skip + n]);
                    if !self.reader.clusters.read_cached(&hash, &mut copy) {
                        return Ok(false);
                    }
                }
                Ok(Child::Hole | Child::Zero) => into.fill(0),
            }
        }
        Ok(true)
    }

    /// What lies between two bytes, in order, neighbours of one kind as one extent. Reads manifest nodes as it goes, no
    /// clusters. Ends with the contents.
    pub fn extents(&self, offset: u64, length: u64) -> Result<Extents<'_>> {
        let end = offset.saturating_add(length).min(self.content.size);
        let walker = self.walker().map_err(|e| self.explained(e))?;
        Ok(Extents::new(walker, offset..end, self.cluster_bytes()))
    }

    /// Where this differs from `base`, from the manifests alone, in the clusters that a range of bytes touches; neighbours
    /// of one kind as one extent. Whoever asks keeps gc from `base`. Takes memory for every change in the range.
    pub fn changed_since(
        &self,
        base: Content,
        offset: u64,
        length: u64,
    ) -> Result<Vec<ChangedExtent>> {
        let size = self.cluster_bytes();
        let side = |content: Content| Side {
            nodes: &self.reader.nodes,
            root: content.root,
            clusters: content.size.div_ceil(size),
        };
        let end = offset.saturating_add(length).min(self.content.size);
        let range = offset / size..end.div_ceil(size);
        let mut extents = Vec::new();
        let (old, new) = (side(base), side(self.content));
        diff_within(old, new, range.clone(), &mut |mut change| {
            let end = (change.first + change.count).min(range.end);
            change.first = change.first.max(range.start);
            change.count = end - change.first;
            extend(&mut extents, change, size, self.content.size);
            Ok(())
        })
        .map_err(|e| self.reader.store.or_unkept(e, &[base, self.content]))?;
        Ok(extents)
    }

    /// Fetches and decodes what a range needs, as far as it is not in memory, so that reads find it there. Hands nothing
    /// out and so checks no hash.
    pub fn prefetch(&self, offset: u64, length: u64) -> Result<()> {
        let size = self.cluster_bytes();
        let end = offset.saturating_add(length).min(self.content.size);
        let mut walker = self.walker()?;
        let mut last = None;
        for cluster in offset / size..end.div_ceil(size) {
            let Child::Hash(hash) = walker.lookup(cluster)? else {
                continue;
            };
            let wish = Wish {
                hash,
                // A frame that is wanted beforehand is wanted whole.
                more: usize::MAX >> 1,
                around: &|| self.around(cluster),
            };
            self.reader.clusters.prefetch(&wish, &mut last)?;
        }
        Ok(())
    }

    fn fill(&self, offset: u64, buf: &mut [u8]) -> Result<()> {
        if buf.is_empty() {
            return Ok(());
        }
        let size = self.cluster_bytes();
        let mut walker = self.walker()?;
        let len = buf.len();
        for (cluster, skip, range) in pieces(offset, len, size) {
            let behind = (len - range.end).div_ceil(size as usize);
            let into = &mut buf[range];
            let n = into.len();
            match walker.lookup(cluster)? {
                Child::Hash(hash) => {
                    let wish = Wish {
                        hash,
                        more: behind,
                        around: &|| self.around(cluster),
                    };
                    let mut copy = |bytes: &[u8]| into.copy_from_slice(&bytes[skip..skip + n]);
                    self.reader.clusters.read(wish, &mut copy)?;
                }
                Child::Hole | Child::Zero => into.fill(0),
            }
        }
        Ok(())
    }

    /// Hashes of the clusters in whose neighbourhood this one is.
    fn around(&self, cluster: u64) -> Result<Vec<Hash>> {
        let first = cluster - cluster % AROUND;
        let mut walker = self.walker()?;
        walker.seek(first);
        let mut hashes = Vec::new();
        while walker.position() < first + AROUND
            && let Some(piece) = walker.next().transpose()?
        {
            if let Piece::Leaf { node, count, .. } = piece {
                hashes.extend((0..count).filter_map(|i| match node.child(i as usize) {
                    Child::Hash(hash) => Some(hash),
                    Child::Hole | Child::Zero => None,
                }));
            }
        }
        Ok(hashes)
    }

    fn walker(&self) -> Result<Walker<'_>> {
        let clusters = self.content.size.div_ceil(self.cluster_bytes());
        Walker::new(&self.reader.nodes, self.content.root, clusters)
    }

    /// Bytes of a cluster: nothing in it is finer.
    pub fn cluster_bytes(&self) -> u64 {
        u64::from(self.reader.store.geometry().cluster_bytes)
    }

    fn explained(&self, e: Error) -> Error {
        self.reader.store.or_unkept(e, &[self.content])
    }
}

/// The clusters that `len` bytes at `offset` lie in: number, bytes to skip in it, and where the rest goes.
fn pieces(offset: u64, len: usize, size: u64) -> impl Iterator<Item = (u64, usize, Range<usize>)> {
    let mut done = 0;
    std::iter::from_fn(move || {
        let at = offset + done as u64;
        let (cluster, skip) = (at / size, (at % size) as usize);
        let n = (size as usize - skip).min(len - done);
        let range = done..done + n;
        done += n;
        (n > 0).then_some((cluster, skip, range))
    })
}

impl fmt::Debug for View<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("View")
            .field("content", &self.content)
            .finish_non_exhaustive()
    }
}
