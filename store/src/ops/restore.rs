//! Disks out: a file written sparse, or a stream in disk order.

use crate::catalog::Catalog;
use crate::content::fetch::{Damage, Fetcher, Nowhere, Sink, WINDOW, Want};
use crate::content::nodes::Nodes;
use crate::content::resolve::Resolver;
use crate::disk::DiskFile;
use crate::error::{Error, ErrorKind, Result};
use crate::format::entry::{Content, Op, PackKind, SessionKind};
use crate::format::manifest::Child;
use crate::limits::MANIFEST_FANOUT;
use crate::log::Session;
use crate::manifest::walk::{Piece, Walker};
use crate::object::Purse;
use crate::ops::held::Held;
use crate::ops::sink::FileSink;
use crate::progress::Progress;
use crate::store::{Store, may_be_dropped};
use std::io::Write;
use std::ops::Range;
use std::sync::{Mutex, PoisonError};

/// Bytes of a disk that a stream holds at a time.
const STREAM_BYTES: u64 = 16 << 20;

/// Takes a run of clusters that are all holes or all zeros.
pub(crate) type Empty<'a> = &'a mut dyn FnMut(Child, Range<u64>) -> Result<()>;

/// Takes a run of holes, from byte to byte.
type Hole<'a> = &'a mut dyn FnMut(u64, u64) -> Result<()>;

/// What became of a file.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Restored {
    /// Bytes that it had already.
    pub kept: u64,
    /// Bytes written, zeros included.
    pub written: u64,
}

impl Store {
    /// Writes the disk into a file: data where it had data, zeros where it had zeros, holes elsewhere. Durable when this
    /// returns. Where the file is not empty, clusters that it holds already are compared by their hashes and not written
    /// again: an export that was cut off goes on.
    pub fn restore_file(
        &self,
        content: Content,
        file: &dyn DiskFile,
        progress: &Progress,
    ) -> Result<Restored> {
        let _pin = self.pin(&[content])?;
        let found = !file.is_empty()?;
        file.set_len(content.size)?;
        let size = u64::from(self.geometry().cluster_bytes);
        let held = found.then(|| Held::new(file, size)).transpose()?;
        let held = held.as_ref();
        let hole: Hole<'_> = &mut |from, to| held.map_or(Ok(()), |held| held.empty(from, to));
        let written = self
            .write_disk(content, file, (held, hole), progress)
            .map_err(|e| self.or_unkept(e, &[content]))?;
        let kept = held.map_or(0, Held::kept);
        Ok(Restored { kept, written })
    }

    /// Writes the disk over something of a fixed size, at least as large: holes are punched where that can be, else zeros
    /// are written. Durable when this returns.
    pub fn restore_over(
        &self,
        content: Content,
        file: &dyn DiskFile,
        progress: &Progress,
    ) -> Result<Restored> {
        let _pin = self.pin(&[content])?;
        let hole: Hole<'_> = &mut |from, to| file.punch(from, to);
        let written = self.write_disk(content, file, (None, hole), progress);
        let written = written.map_err(|e| self.or_unkept(e, &[content]))?;
        Ok(Restored { kept: 0, written })
    }

    fn write_disk(
        &self,
        content: Content,
        file: &dyn DiskFile,
        (held, hole): (Option<&Held<'_>>, Hole<'_>),
        progress: &Progress,
    ) -> Result<u64> {
        let size = u64::from(self.geometry().cluster_bytes);
        let write = |sink: &FileSink<'_>| {
            let mut empty = |child: Child, r: Range<u64>| {
                let (from, to) = (r.start * size, (r.end * size).min(content.size));
                match child {
                    Child::Hole => hole(from, to),
                    _ => sink.put_zeros(from, to),
                }
            };
            let damage = self.read_disk(content, held, sink, &mut empty, progress)?;
            complain(&damage, size)
        };
        FileSink::with(file, size, content.size, write).map(|((), written)| written)
    }

    /// Writes the disk to a stream, holes as zeros, and flushes it.
    pub fn restore_stream(
        &self,
        content: Content,
        out: &mut dyn Write,
        progress: &Progress,
    ) -> Result<()> {
        let _pin = self.pin(&[content])?;
        self.stream(content, out, progress)
            .map_err(|e| self.or_unkept(e, &[content]))
    }

    fn stream(&self, content: Content, out: &mut dyn Write, progress: &Progress) -> Result<()> {
        let size = u64::from(self.geometry().cluster_bytes);
        let failed = |e| Error::io("writing the stream", e);
        let nodes = self.nodes();
        let mut walker = Walker::new(&nodes, content.root, content.size.div_ceil(size))?;
        let mut fetcher = self.fetcher();
        let (mut wants, mut from) = (Vec::new(), 0);
        loop {
            let (to, more) = next_wants(&mut walker, &mut wants, &mut |_, _| Ok(()))?;
            Progress::add(&progress.bytes_total, wants.len() as u64 * size);
            let window = fetcher.resolve(&wants)?;
            while from < to {
                let end = (from + STREAM_BYTES / size).min(to);
                let bytes = ((end * size).min(content.size) - from * size) as usize;
                let buffer = Mutex::new(vec![0; bytes]);
                let sink = BufferSink {
                    buffer: &buffer,
                    first: from,
                    cluster_bytes: size,
                };
                complain(&fetcher.deliver(&window, from..end, &sink, progress)?, size)?;
                let buffer = buffer.into_inner().unwrap_or_else(PoisonError::into_inner);
                out.write_all(&buffer).map_err(failed)?;
                from = end;
            }
            if !more {
                return out.flush().map_err(failed);
            }
        }
    }

    /// Reads and verifies all clusters of a disk, and delivers nothing.
    pub fn check_disk(&self, content: Content, progress: &Progress) -> Result<Vec<Damage>> {
        self.read_disk(content, None, &Nowhere, &mut |_, _| Ok(()), progress)
    }

    /// Delivers every cluster of a disk that is not held already to `sink`, and runs of holes and zeros to `empty`.
    fn read_disk(
        &self,
        content: Content,
        held: Option<&Held<'_>>,
        sink: &dyn Sink,
        empty: Empty<'_>,
        progress: &Progress,
    ) -> Result<Vec<Damage>> {
        let size = u64::from(self.geometry().cluster_bytes);
        let nodes = self.nodes();
        let mut walker = Walker::new(&nodes, content.root, content.size.div_ceil(size))?;
        let mut fetcher = self.fetcher();
        let (mut wants, mut damage) = (Vec::new(), Vec::new());
        loop {
            let (_, more) = next_wants(&mut walker, &mut wants, empty)?;
            Progress::add(&progress.bytes_total, wants.len() as u64 * size);
            if let Some(held) = held {
                held.leave_lacking(&mut wants, progress)?;
            }
            damage.extend(fetcher.fetch(&wants, sink, progress)?);
            if !more {
                return Ok(damage);
            }
        }
    }

    pub(crate) fn nodes(&self) -> Nodes<'_> {
        Nodes::new(
            (&self.log, &self.keeper),
            self.objects.clone(),
            &self.catalog(),
            self.geometry().cluster_bytes,
        )
    }

    pub(crate) fn fetcher(&self) -> Fetcher<'_> {
        Fetcher::new(&*self.objects, &self.log, self.geometry().cluster_bytes)
    }

    pub(crate) fn resolver(&self, catalog: &Catalog) -> Resolver<'_> {
        Resolver::new(&*self.objects, catalog, PackKind::Clusters)
    }

    /// What failed, or that nothing keeps the contents any more: they were deleted, and the pin, if there was one, was
    /// ended by somebody who took this process for dead.
    pub(crate) fn or_unkept(&self, e: Error, contents: &[Content]) -> Error {
        match self.refresh() {
            Ok(now) if may_be_dropped(&e) && contents.iter().any(|c| !now.reachable(&c.root)) => {
                Error::new(ErrorKind::Busy, "reading the disk")
                    .detail("it was deleted meanwhile")
                    .source(e)
                    .hint("`still list` shows what there is")
            }
            _ => e,
        }
    }

    /// Keeps gc from taking these roots while the result lives. Where nothing can be written, or no space is left, there is
    /// no pin: a pack that vanishes is then reported as such. The reserve is for those who make room.
    pub fn pin(&self, contents: &[Content]) -> Result<Option<Pin<'_>>> {
        if self.is_read_only() {
            self.refresh()?;
            return Ok(None);
        }
        let roots: Vec<_> = contents.iter().map(|c| c.root).collect();
        let opened = self
            .log
            .open_session(SessionKind::Reader, Purse::Free, &mut |_| {
                Ok(vec![Op::Pin {
                    packs: vec![],
                    roots: roots.clone(),
                }])
            });
        match opened {
            Err(e) if e.kind() == ErrorKind::NoSpace => {
                (self.say)("the disk is full: reading without keeping gc from what is read");
                Ok(None)
            }
            opened => Ok(Some(Pin {
                store: self,
                session: Some(opened?),
            })),
        }
    }
}

/// Claims roots while it lives; see `Store::pin`.
pub struct Pin<'a> {
    store: &'a Store,
    session: Option<Session>,
}

impl Drop for Pin<'_> {
    fn drop(&mut self) {
        if let Some(session) = self.session.take()
            && let Err(e) = self.store.log.close(session, Purse::Free)
        {
            // The claim is given back when the session is found dead; nothing is lost by it.
            (self.store.say)(&format!("a read pin stays until the next gc: {e}"));
        }
    }
}

/// Fills `wants` with the next data clusters, a window at most; returns the first cluster not looked at and whether any
/// is left.
fn next_wants(
    walker: &mut Walker<'_>,
    wants: &mut Vec<Want>,
    empty: Empty<'_>,
) -> Result<(u64, bool)> {
    wants.clear();
    let mut to = 0;
    while wants.len() + MANIFEST_FANOUT <= WINDOW {
        let Some(piece) = walker.next().transpose()? else {
            return Ok((to, false));
        };
        to = piece.end();
        match piece {
            Piece::Uniform {
                first,
                count,
                child,
            } => empty(child, first..first + count)?,
            Piece::Leaf { first, node, count } => {
                for (i, cluster) in (first..first + count).enumerate() {
                    match node.child(i) {
                        Child::Hash(hash) => wants.push(Want { cluster, hash }),
                        uniform => empty(uniform, cluster..cluster + 1)?,
                    }
                }
            }
        }
    }
    Ok((to, true))
}

/// The first damage as an error that names how much there is.
fn complain(damage: &[Damage], cluster_bytes: u64) -> Result<()> {
    let Some(first) = damage.first() else {
        return Ok(());
    };
    let why = format!(
        "{} clusters cannot be read, the first at byte {}",
        damage.len(),
        first.cluster * cluster_bytes
    );
    let hint = "`still verify` lists all damage; `still rescue` saves what is readable";
    Err(Error::corrupt("reading the disk", why)
        .source(first.why.clone())
        .hint(hint))
}

struct BufferSink<'a> {
    buffer: &'a Mutex<Vec<u8>>,
    first: u64,
    cluster_bytes: u64,
}

impl Sink for BufferSink<'_> {
    fn put(&self, cluster: u64, bytes: &[u8]) -> Result<()> {
        let mut buffer = self.buffer.lock().unwrap_or_else(PoisonError::into_inner);
        let from = ((cluster - self.first) * self.cluster_bytes) as usize;
        let there = bytes.len().min(buffer.len() - from);
        buffer[from..from + there].copy_from_slice(&bytes[..there]);
        Ok(())
    }
}
