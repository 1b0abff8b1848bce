//! An image with what it is based on: the file that the user named, its backing file, and so on down.

use super::bytes::read_padded;
use super::gate::Role;
use super::layer::{TableCacheBytes, read_header};
use super::{Gate, Header, Kind, Layer, Map, Mapped, State};
use crate::foreign;
use crate::format::Format;
use crate::locked::Locked;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use stillpoint_store::disk::{Disk, DiskFile};
use stillpoint_store::{Error, ErrorKind, Result};

const DOING: &str = "opening the backing chain of";

/// A file of the chain.
pub enum Link {
    /// A qcow2 file; what is above it sees its active state.
    Qcow2(State),
    /// A raw file, or one of a format that is read as raw.
    Raw {
        /// What it was opened as.
        path: String,
        /// The file.
        file: Box<dyn DiskFile>,
        /// Its length in bytes.
        len: u64,
    },
}

impl Link {
    /// Bytes of the disk in it.
    pub fn size(&self) -> u64 {
        match self {
            Self::Qcow2(state) => state.size(),
            Self::Raw { len, .. } => *len,
        }
    }

    /// What the file was opened as.
    pub fn path(&self) -> &str {
        match self {
            Self::Qcow2(state) => state.layer().path(),
            Self::Raw { path, .. } => path,
        }
    }
}

/// See the module. It is of one or more links; the first is the image itself.
pub struct Image {
    links: Vec<Link>,
    top: Arc<Layer>,
    files: Vec<Locked>,
}

/// What opens the files of a chain and remembers which it met.
struct Opener<'a> {
    disk: &'a dyn Disk,
    gate: &'a Gate,
    met: Vec<(u64, u64)>,
    files: Vec<Locked>,
}

impl Opener<'_> {
    /// Opens and locks a file of the chain; one that is already in it is a loop, under whatever name.
    fn open(&mut self, path: &Path) -> Result<Box<dyn DiskFile>> {
        let locked = Locked::open(self.disk, path)?;
        let file = locked.file();
        let inode = file.stamp()?.inode;
        if self.met.contains(&inode) {
            let why = "the file is in its own backing chain";
            return Err(Error::corrupt(DOING, why).at(path.display()));
        }
        if self.met.len() >= self.gate.depth() {
            let why = format!("the chain is longer than {} files", self.gate.depth());
            return Err(Error::new(ErrorKind::LimitExceeded, DOING)
                .detail(why)
                .at(path.display()));
        }
        self.met.push(inode);
        self.files.push(locked);
        Ok(file)
    }

    fn layer(
        &mut self,
        path: &Path,
        file: Box<dyn DiskFile>,
        header: &Header,
    ) -> Result<Arc<Layer>> {
        let data = match &header.data_file {
            None => None,
            Some(name) => {
                let name = self.gate.resolve(self.disk, path, name, Role::Data)?;
                // It counts as met: a data file that is also a backing file is a loop too.
                Some(self.open(&name)?)
            }
        };
        let shown = path.display().to_string();
        let layer = Layer::open(&shown, file, data, TableCacheBytes::default())?;
        Ok(Arc::new(layer))
    }
}

impl Image {
    /// Opens the qcow2 image at `path` and its chain, as far as `gate` lets it. Nothing is opened that is not checked first,
    /// and nothing is written.
    pub fn open(disk: &dyn Disk, path: &Path, gate: &Gate) -> Result<Self> {
        let mut opener = Opener {
            disk,
            gate,
            met: Vec::new(),
            files: Vec::new(),
        };
        let file = opener.open(path)?;
        let (header, _) = read_header(&*file).map_err(|e| e.at(path.display()))?;
        let top = opener.layer(path, file, &header)?;
        let mut links = vec![Link::Qcow2(State::active(&top)?)];
        let mut next = header
            .backing
            .map(|name| (path.to_owned(), name, header.backing_format));
        while let Some((above, name, format)) = next {
            let path = gate.resolve(disk, &above, &name, Role::Backing)?;
            let (link, below) = backing(&mut opener, &path, format.as_deref())?;
            links.push(link);
            next = below.map(|(name, format)| (path, name, format));
        }
        let files = opener.files;
        Ok(Self { links, top, files })
    }

    /// `Busy` if anybody has changed a file of the chain since it was opened.
    pub fn check_unchanged(&self) -> Result<()> {
        self.files.iter().try_for_each(Locked::check_unchanged)
    }

    /// The image itself.
    pub fn top(&self) -> &Arc<Layer> {
        &self.top
    }

    /// Its chain; the first link is the image in its active state.
    pub fn links(&self) -> &[Link] {
        &self.links
    }

    /// The active state of the image.
    pub fn active(&self) -> Result<State> {
        State::active(&self.top)
    }

    /// The state of snapshot `n` of the image.
    pub fn snapshot(&self, n: usize) -> Result<State> {
        State::snapshot(&self.top, n)
    }

    /// What stands in `range` of a state of the image, with what comes from the chain resolved: in order and without gaps.
    /// Snapshots see the one chain that the image has now.
    pub fn map(&self, state: &State, range: Range<u64>) -> ChainMap<'_> {
        ChainMap {
            image: self,
            levels: vec![Level::Mapped(0, state.map(range))],
        }
    }

    /// The VM state of a state of the image: its chain has nothing to do with it.
    pub(super) fn map_vm_state(&self, state: &State, range: Range<u64>) -> ChainMap<'_> {
        ChainMap {
            image: self,
            levels: vec![Level::Only(state.map_vm_state(range))],
        }
    }

    /// The same of what the files from `link` on make: what the chain was before the files above were there.
    pub fn map_link(&self, link: usize, range: Range<u64>) -> ChainMap<'_> {
        let mut map = ChainMap {
            image: self,
            levels: Vec::new(),
        };
        map.enter(link, range);
        map
    }

    /// Reads a range of a state of the image; `buf` must end within the disk. A compressed cluster is decoded for each call.
    pub fn read(&self, state: &State, offset: u64, buf: &mut [u8]) -> Result<()> {
        let end = offset.saturating_add(buf.len() as u64);
        if end > state.size() {
            let why = format!(
                "the range ends at {end}, the disk has {} bytes",
                state.size()
            );
            return Err(Error::invalid("reading a qcow2 image", why));
        }
        self.read_map(self.map(state, offset..end), offset, buf)
    }

    /// Reads what a map of exactly the range of `buf` tells.
    pub(super) fn read_map(&self, map: ChainMap<'_>, offset: u64, buf: &mut [u8]) -> Result<()> {
        for mapped in map {
            let ChainMapped { link, mapped } = mapped?;
            let from = (mapped.start - offset) as usize;
            self.read_mapped(link, &mapped, &mut buf[from..from + mapped.len as usize])?;
        }
        Ok(())
    }

    /// Bytes of a range that `map` told of, from its first on.
    pub fn read_mapped(&self, link: usize, mapped: &Mapped, buf: &mut [u8]) -> Result<()> {
        match (&self.links[link], mapped.kind) {
            (_, Kind::Zero | Kind::Unallocated) => buf.fill(0),
            (Link::Qcow2(state), Kind::Data { host }) => state.layer().read_host(host, buf)?,
            (Link::Raw { file, .. }, Kind::Data { host }) => read_padded(&**file, host, buf)?,
            (Link::Qcow2(state), Kind::Compressed { host, len }) => {
                let bytes = state.layer().geometry().cluster_bytes();
                let from = (mapped.start % bytes) as usize;
                state.layer().read_compressed(host, len, from, buf)?;
            }
            (Link::Raw { .. }, Kind::Compressed { .. }) => {
                return Err(Error::invalid(
                    "reading a raw file",
                    "nothing is compressed in it",
                ));
            }
        }
        Ok(())
    }
}

/// A backing file, and the name and format of the next.
fn backing(
    opener: &mut Opener<'_>,
    path: &Path,
    format: Option<&[u8]>,
) -> Result<(Link, Option<(Vec<u8>, Option<Vec<u8>>)>)> {
    let file = opener.open(path)?;
    // QEMU guesses too where nobody said. The gate bounds what a raw file that poses as qcow2 can do: name allowed files.
    let detected = match format {
        Some(_) => String::new(),
        None => Format::detect(&*file)?.to_string(),
    };
    let format = format.unwrap_or(detected.as_bytes());
    match format {
        b"raw" | b"file" | b"host_device" => {
            let len = file.len()?;
            let path = path.display().to_string();
            Ok((Link::Raw { path, file, len }, None))
        }
        b"qcow2" => {
            let (header, _) = read_header(&*file).map_err(|e| e.at(path.display()))?;
            let layer = opener.layer(path, file, &header)?;
            let below = header.backing.map(|name| (name, header.backing_format));
            Ok((Link::Qcow2(State::active(&layer)?), below))
        }
        other => {
            let shown = String::from_utf8_lossy(other);
            let Ok(Format::Foreign(name)) = Format::named(&shown) else {
                let why = format!("it is of the format {shown:?}");
                return Err(Error::new(ErrorKind::Unsupported, DOING)
                    .detail(why)
                    .at(path.display()));
            };
            let locked = opener.files.last().cloned();
            let locked = locked.ok_or_else(|| Error::invalid(DOING, "no file is open"))?;
            let (file, extents) =
                foreign::open_backing(opener.disk, path, locked, name, opener.gate)?;
            opener.files.extend(extents);
            let len = file.len()?;
            let path = path.display().to_string();
            Ok((Link::Raw { path, file, len }, None))
        }
    }
}

/// A range, what stands there, and in which link of the chain.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ChainMapped {
    /// Index into `Image::links`. For a compressed or data range, this and the host offset identify the bytes.
    pub link: usize,
    /// The range. `Unallocated` is what no link has.
    pub mapped: Mapped,
}

enum Level {
    Mapped(usize, Map),
    /// Of the image itself, with nothing below.
    Only(Map),
    Raw(usize, Range<u64>),
    /// Behind the end of a backing file that is shorter than what is above it.
    Past(usize, Range<u64>),
}

/// See `Image::map`.
pub struct ChainMap<'a> {
    image: &'a Image,
    /// What is left to tell, the next last; at most two a link.
    levels: Vec<Level>,
}

impl ChainMap<'_> {
    /// Goes on in the link below, for a range that `link` does not have.
    fn descend(&mut self, link: usize, range: Range<u64>) {
        self.enter(link + 1, range);
    }

    fn enter(&mut self, next: usize, range: Range<u64>) {
        let Some(below) = self.image.links.get(next) else {
            return;
        };
        let end = range.end.min(below.size()).max(range.start);
        self.levels.push(Level::Past(next, end..range.end));
        let inside = range.start..end;
        self.levels.push(match below {
            Link::Qcow2(state) => Level::Mapped(next, state.map(inside)),
            Link::Raw { .. } => Level::Raw(next, inside),
        });
    }

    fn raw(&self, link: usize, at: u64, end: u64) -> Result<Mapped> {
        let Some(Link::Raw { file, .. }) = self.image.links.get(link) else {
            return Err(Error::invalid(DOING, "the link is not raw"));
        };
        let extent = file.extent(at)?;
        let kind = if extent.data {
            Kind::Data { host: at }
        } else {
            Kind::Unallocated
        };
        // The file may have become shorter; what it had then reads as zeros.
        let stop = if extent.end > at {
            extent.end.min(end)
        } else {
            end
        };
        Ok(Mapped {
            start: at,
            len: stop - at,
            kind,
        })
    }
}

impl Iterator for ChainMap<'_> {
    type Item = Result<ChainMapped>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            let (link, found) = match self.levels.last_mut()? {
                Level::Mapped(link, map) => (*link, map.next()),
                // Behind the last link, so that nothing is looked for below.
                Level::Only(map) => match map.next() {
                    Some(Ok(mapped)) => return Some(Ok(ChainMapped { link: 0, mapped })),
                    end => (0, end),
                },
                Level::Past(link, range) => {
                    let whole = (!range.is_empty()).then(|| Mapped {
                        start: range.start,
                        len: range.end - range.start,
                        kind: Kind::Zero,
                    });
                    range.start = range.end;
                    (*link, whole.map(Ok))
                }
                Level::Raw(link, range) if range.is_empty() => (*link, None),
                Level::Raw(link, range) => {
                    let (link, range) = (*link, range.clone());
                    let found = self.raw(link, range.start, range.end);
                    let end = found.as_ref().map_or(range.end, Mapped::end);
                    self.levels.pop();
                    self.levels.push(Level::Raw(link, end..range.end));
                    (link, Some(found))
                }
            };
            match found {
                None => {
                    self.levels.pop();
                }
                Some(Err(e)) => {
                    self.levels.clear();
                    return Some(Err(e));
                }
                Some(Ok(mapped)) => {
                    let below = link + 1 < self.image.links.len();
                    if mapped.kind == Kind::Unallocated && below {
                        self.descend(link, mapped.start..mapped.end());
                    } else {
                        return Some(Ok(ChainMapped { link, mapped }));
                    }
                }
            }
        }
    }
}

impl std::fmt::Debug for Image {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let path = PathBuf::from(self.top.path());
        f.debug_struct("Image")
            .field("path", &path)
            .finish_non_exhaustive()
    }
}
