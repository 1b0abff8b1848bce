//! One open qcow2 file: its header, its lists, and its bytes. What it is based on is the chain's affair.

use super::bytes::{be64s, read_padded, read_table, read_up_to};
use super::codec;
use super::decoded::Decoded;
use super::entry::{COPIED, Kind, L2Entry, Rules};
use super::geometry::Geometry;
use super::header::{Extent, Header};
use super::l1::L1;
use super::snapshot::TABLE_BYTES_MAX;
use super::{Bitmap, Snapshot, bitmap};
use std::cell::RefCell;
use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};
use stillpoint_store::disk::{DiskFile, Stamp};
use stillpoint_store::{Error, ErrorKind, Result};

/// How much memory L2 tables may take that were read and may be needed again, in bytes a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TableCacheBytes(pub u64);

impl Default for TableCacheBytes {
    fn default() -> Self {
        Self(16 << 20)
    }
}

/// An L2 table.
pub(super) type Table = Arc<[L2Entry]>;

/// L2 tables by offset, the oldest first out. Snapshots share them, and a caller that walks several states reads each once.
#[derive(Default)]
struct TableCache {
    tables: HashMap<u64, Table>,
    order: VecDeque<u64>,
}

thread_local! {
    /// Compressed bytes on their way.
    static STREAM: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// See the module. Shared by all states of it; every call may come from several threads.
pub struct Layer {
    path: String,
    file: Box<dyn DiskFile>,
    data: Option<Box<dyn DiskFile>>,
    len: u64,
    header: Header,
    snapshots: Vec<Snapshot>,
    bitmaps: Vec<Bitmap>,
    cache: Mutex<TableCache>,
    cached_tables: usize,
    decoded: Decoded,
}

impl std::fmt::Debug for Layer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Layer")
            .field("path", &self.path)
            .field("header", &self.header)
            .finish_non_exhaustive()
    }
}

/// The header of a file that can be read here, and the file's length.
pub(super) fn read_header(file: &dyn DiskFile) -> Result<(Header, u64)> {
    let found = read_any_header(file)?;
    found.0.check_readable()?;
    Ok(found)
}

/// The same, also of an encrypted image.
pub(crate) fn read_any_header(file: &dyn DiskFile) -> Result<(Header, u64)> {
    let len = file.len()?;
    let mut first = vec![0; 512];
    let n = read_up_to(file, 0, &mut first)?;
    first.truncate(n);
    let bits = Header::peek_cluster_bits(&first).filter(|_| Header::is_magic(&first));
    if let Some(bits) = bits {
        first.resize(1 << bits, 0);
        let n = read_up_to(file, 0, &mut first)?;
        first.truncate(n);
    }
    Ok((Header::decode(&first)?, len))
}

impl Layer {
    /// Reads header, snapshot table and bitmap directory of `file`; `data` is its external data file, which must be there
    /// exactly when the header names one. Refuses tables that overlap each other or end past the end of the file.
    pub fn open(
        path: &str,
        file: Box<dyn DiskFile>,
        data: Option<Box<dyn DiskFile>>,
        cache: TableCacheBytes,
    ) -> Result<Self> {
        Self::open_unnamed(path, file, data, cache).map_err(|e| e.at(path))
    }

    fn open_unnamed(
        path: &str,
        file: Box<dyn DiskFile>,
        data: Option<Box<dyn DiskFile>>,
        cache: TableCacheBytes,
    ) -> Result<Self> {
        let (header, len) = read_header(&*file)?;
        if header.data_file.is_some() != data.is_some() {
            let why = "an external data file is missing, or given without need";
            return Err(Error::invalid("opening a qcow2 image", why));
        }
        let (snapshots, table_bytes) = read_snapshots(&*file, len, &header)?;
        let bitmaps = read_bitmaps(&*file, len, &header)?;
        let cached_tables = (cache.0 / header.geometry.cluster_bytes()).max(2) as usize;
        let layer = Self {
            path: path.to_owned(),
            file,
            data,
            len,
            header,
            snapshots,
            bitmaps,
            cache: Mutex::default(),
            cached_tables,
            decoded: Decoded::default(),
        };
        layer.check_tables(table_bytes)?;
        Ok(layer)
    }

    /// The header.
    pub fn header(&self) -> &Header {
        &self.header
    }

    /// Internal snapshots in the order of the table.
    pub fn snapshots(&self) -> &[Snapshot] {
        &self.snapshots
    }

    /// Persistent bitmaps in the order of their directory.
    pub fn bitmaps(&self) -> &[Bitmap] {
        &self.bitmaps
    }

    /// What the file was opened as.
    pub fn path(&self) -> &str {
        &self.path
    }

    /// Change marks of the file.
    pub(super) fn stamp(&self) -> Result<Stamp> {
        self.file.stamp()
    }

    /// Sizes of clusters and tables.
    pub fn geometry(&self) -> Geometry {
        self.header.geometry
    }

    pub(super) fn rules(&self) -> Rules {
        Rules {
            geometry: self.header.geometry,
            version: self.header.version,
            data_file: self.data.is_some(),
        }
    }

    /// Tables that the header and the snapshot table name must be in the file and apart from each other: otherwise their sizes,
    /// up to 65536 times 32 MiB, would not be bounded by the file's.
    fn check_tables(&self, snapshot_table_bytes: u64) -> Result<()> {
        let header = &self.header;
        let cluster = self.geometry().cluster_bytes();
        let directory = header.bitmaps.filter(|_| header.bitmaps_in_step);
        let directory = directory.map(|(_, at)| ("bitmap directory", at.offset, at.count));
        let tables = [
            ("header", 0, 1),
            ("L1 table", header.l1.offset, header.l1.count * 8),
            (
                "refcount table",
                header.refcount_table.offset,
                header.refcount_table.count * cluster,
            ),
            (
                "snapshot table",
                header.snapshots.offset,
                snapshot_table_bytes,
            ),
        ];
        let of_snapshots = self.snapshots.iter();
        let of_snapshots =
            of_snapshots.map(|s| ("L1 table of a snapshot", s.l1.offset, s.l1.count * 8));
        let all = tables.into_iter().chain(directory).chain(of_snapshots);
        let mut ranges: Vec<(u64, u64, &str)> = Vec::new();
        for (what, start, bytes) in all.filter(|(_, _, bytes)| *bytes > 0) {
            let bad = |why: &str| {
                Error::corrupt("opening a qcow2 image", format!("the {what} {why}")).offset(start)
            };
            if !self.geometry().is_aligned(start) {
                return Err(bad("does not start at a cluster's boundary"));
            }
            let end = start.checked_add(bytes).ok_or_else(|| bad("has no end"))?;
            if end > self.len {
                return Err(bad("ends past the end of the file"));
            }
            ranges.push((start, end, what));
        }
        ranges.sort_unstable();
        for pair in ranges.windows(2) {
            let ((_, end, a), (start, _, b)) = (pair[0], pair[1]);
            if start < end {
                let why = format!("the {a} and the {b} overlap");
                return Err(Error::corrupt("opening a qcow2 image", why).offset(start));
            }
        }
        Ok(())
    }

    /// An L1 table without flags, and with the bounds of its entries checked.
    pub(super) fn read_l1(&self, at: Extent) -> Result<L1> {
        const DOING: &str = "reading an L1 table of";
        let table = L1::read(&*self.file, self.len, at, DOING).map_err(|e| e.at(&self.path))?;
        let cluster = self.geometry().cluster_bytes();
        let mut used: Vec<(u64, u64)> = table.used().map(|(i, table)| (table, i)).collect();
        used.sort_unstable();
        let bad = |i: u64, table: u64, why: &str| {
            let why = format!("entry {i}, an L2 table at byte {table}, {why}");
            Error::corrupt(DOING, why)
                .at(&self.path)
                .offset(at.offset + i * 8)
        };
        for (n, (table, i)) in used.iter().copied().enumerate() {
            if !self.geometry().is_aligned(table) {
                return Err(bad(i, table, "is not at a cluster's boundary"));
            }
            if table + cluster > self.len {
                return Err(bad(i, table, "ends past the end of the file"));
            }
            // One file could otherwise claim more metadata than it has bytes.
            if n > 0 && used[n - 1].0 == table {
                return Err(bad(i, table, "is there twice"));
            }
        }
        Ok(table)
    }

    /// The L2 table at `offset`, which `read_l1` checked. `None` for one that is a hole in the file: many fit into few bytes.
    pub(super) fn read_l2(&self, offset: u64) -> Result<Option<Table>> {
        let cache = || self.cache.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(table) = cache().tables.get(&offset) {
            return Ok(Some(table.clone()));
        }
        let cluster = self.geometry().cluster_bytes();
        let found = self.file.extent(offset)?;
        if !found.data && found.end >= offset + cluster {
            return Ok(None);
        }
        let doing = "reading an L2 table of";
        let bytes = read_table(&*self.file, self.len, offset, cluster, doing)
            .map_err(|e| e.at(&self.path))?;
        let table = self.decode_l2(&bytes);
        let mut cache = cache();
        if cache.tables.insert(offset, table.clone()).is_none() {
            cache.order.push_back(offset);
        }
        while cache.order.len() > self.cached_tables {
            if let Some(oldest) = cache.order.pop_front() {
                cache.tables.remove(&oldest);
            }
        }
        Ok(Some(table))
    }

    fn decode_l2(&self, bytes: &[u8]) -> Table {
        // The flag says that a cluster is at offset 0 of a data file; elsewhere it would only make equal entries differ.
        let ignored = if self.data.is_some() { 0 } else { COPIED };
        let words: Vec<u64> = be64s(bytes).collect();
        let entry = |word: u64, bitmap| L2Entry {
            word: word & !ignored,
            bitmap,
        };
        if self.geometry().extended() {
            let (pairs, _rest) = words.as_chunks::<2>();
            pairs
                .iter()
                .map(|[word, bits]| entry(*word, *bits))
                .collect()
        } else {
            words.iter().map(|word| entry(*word, 0)).collect()
        }
    }

    /// Plain bytes of clusters, from the data file where there is one; zeros past its end.
    pub fn read_host(&self, host: u64, buf: &mut [u8]) -> Result<()> {
        let file = self.data.as_ref().unwrap_or(&self.file);
        read_padded(&**file, host, buf).map_err(|e| e.at(&self.path))
    }

    /// Decodes the compressed cluster that `Kind::Compressed` names; `cluster` has exactly a cluster's bytes.
    pub fn decode(&self, host: u64, len: u64, cluster: &mut [u8]) -> Result<()> {
        const DOING: &str = "decompressing a cluster of";
        let bytes = self.geometry().cluster_bytes();
        if cluster.len() as u64 != bytes || len > 2 * bytes {
            return Err(Error::invalid(DOING, "not as large as a cluster").at(&self.path));
        }
        STREAM.with_borrow_mut(|stream| {
            if stream.len() < len as usize {
                stream.resize(len as usize, 0);
            }
            let stream = &mut stream[..len as usize];
            let n = read_up_to(&*self.file, host, stream).map_err(|e| e.at(&self.path))?;
            codec::decode(self.header.compression, &stream[..n], cluster)
                .map_err(|why| Error::corrupt(DOING, why).at(&self.path).offset(host))
        })
    }

    /// Bytes from `from` on of a compressed cluster, within it. A whole cluster is decoded in place; of one that is read in
    /// parts, the latest few are kept, and who comes while one is decoded waits for that.
    pub(super) fn read_compressed(
        &self,
        host: u64,
        len: u64,
        from: usize,
        buf: &mut [u8],
    ) -> Result<()> {
        let bytes = self.geometry().cluster_bytes() as usize;
        if buf.len() == bytes {
            return self.decode(host, len, buf);
        }
        let cluster = self.decoded.get(host, || {
            let mut cluster = vec![0; bytes];
            self.decode(host, len, &mut cluster).map(|()| cluster)
        })?;
        buf.copy_from_slice(&cluster[from..from + buf.len()]);
        Ok(())
    }

    /// Refuses clusters that start past the end of the file. A data file may be short: QEMU grows it late.
    pub(super) fn check_host(&self, kind: Kind) -> std::result::Result<(), &'static str> {
        match kind {
            Kind::Data { host } if self.data.is_none() && host >= self.len => {
                Err("a cluster is past the end of the file")
            }
            Kind::Compressed { host, .. } if host >= self.len => {
                Err("a compressed cluster is past the end of the file")
            }
            _ => Ok(()),
        }
    }
}

/// The snapshots and the bytes of their table.
fn read_snapshots(file: &dyn DiskFile, len: u64, header: &Header) -> Result<(Vec<Snapshot>, u64)> {
    const DOING: &str = "reading the snapshot table";
    let Extent { offset, count } = header.snapshots;
    let mut all = Vec::new();
    if count == 0 {
        return Ok((all, 0));
    }
    let max = TABLE_BYTES_MAX.min(len.saturating_sub(offset));
    let mut table = TableReader {
        file,
        start: offset,
        max,
        window: Vec::new(),
        at: 0,
    };
    let mut end = 0;
    for n in 0..count {
        let start = u64::next_multiple_of(end, 8);
        let at = |e: Error| e.offset(offset + start);
        let entry_bytes = Snapshot::entry_bytes(table.bytes(start, 40)?).map_err(at)?;
        let entry = table.bytes(start, entry_bytes)?;
        let snapshot = Snapshot::decode(entry).map_err(at)?;
        if snapshot.l1.count > 0 && snapshot.l1.offset == 0 {
            let why = format!("entry {n} has no L1 table");
            return Err(at(Error::corrupt(DOING, why)));
        }
        all.push(snapshot);
        end = start + entry_bytes as u64;
    }
    Ok((all, end))
}

/// The snapshot table in pieces: its length is known only when it was read.
struct TableReader<'a> {
    file: &'a dyn DiskFile,
    start: u64,
    max: u64,
    window: Vec<u8>,
    /// Where the window starts.
    at: u64,
}

const WINDOW_BYTES: u64 = 256 << 10;

impl TableReader<'_> {
    fn bytes(&mut self, at: u64, len: usize) -> Result<&[u8]> {
        const DOING: &str = "reading the snapshot table";
        let end = at + len as u64;
        if end > self.max {
            let why = format!("it is longer than {} bytes or the file", self.max);
            let kind = if self.max == TABLE_BYTES_MAX {
                ErrorKind::LimitExceeded
            } else {
                ErrorKind::Corrupt
            };
            return Err(Error::new(kind, DOING).detail(why).offset(self.start + at));
        }
        if at < self.at || end > self.at + self.window.len() as u64 {
            let want = WINDOW_BYTES.min(self.max - at).max(len as u64);
            self.window = read_table(
                self.file,
                self.start + self.max,
                self.start + at,
                want,
                DOING,
            )?;
            self.at = at;
        }
        let from = (at - self.at) as usize;
        Ok(&self.window[from..from + len])
    }
}

fn read_bitmaps(file: &dyn DiskFile, len: u64, header: &Header) -> Result<Vec<Bitmap>> {
    const DOING: &str = "reading the bitmap directory";
    let Some((count, at)) = header.bitmaps else {
        return Ok(Vec::new());
    };
    // Somebody wrote the image without knowing bitmaps; the clusters of the directory may be anything's now.
    if !header.bitmaps_in_step {
        return Ok(Vec::new());
    }
    if count > bitmap::BITMAPS_MAX || at.count > bitmap::DIRECTORY_BYTES_MAX {
        let why = format!("{count} bitmaps in {} bytes", at.count);
        return Err(Error::new(ErrorKind::LimitExceeded, DOING).detail(why));
    }
    let directory = read_table(file, len, at.offset, at.count, DOING)?;
    Bitmap::decode_all(&directory, count)
}
