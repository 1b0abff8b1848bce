//! A volume, writable, for one connection. All connections share the volume, so that a flush on one covers what was completed on
//! all.

use super::contexts::Contexts;
use super::{Client, description, failed};
use crate::ahead::Pattern;
use crate::menu::Item;
use crate::shelf::Shelf;
use crate::volumes::Writer;
use std::sync::Arc;
use stillpoint_nbd::codec::{Extents, transmission};
use stillpoint_nbd::{Export, ExportInfo, Failure, ZeroMode};
use stillpoint_store::Result;

type Done<T> = std::result::Result<T, Failure>;

fn info(size: u64) -> ExportInfo {
    let more = transmission::CAN_MULTI_CONN | transmission::SEND_FAST_ZERO;
    ExportInfo::writable(size).with(more)
}

/// What a client that only asks is told: the volume is not opened for it.
pub struct Question {
    size: u64,
    contexts: Contexts,
}

impl Question {
    /// Of a volume of so many bytes.
    pub fn new(size: u64, contexts: Contexts) -> Self {
        Self { size, contexts }
    }
}

impl Export for Question {
    fn info(&self) -> ExportInfo {
        info(self.size)
    }

    fn read(&self, _buf: &mut [u8], _offset: u64) -> Done<()> {
        Err(stillpoint_nbd::Errno::Inval.into())
    }

    fn contexts(&self) -> Vec<String> {
        self.contexts.names()
    }
}

/// See the module.
pub struct VolumeExport {
    writer: Writer,
    shelf: Arc<Shelf>,
    item: Item,
    contexts: Contexts,
    pattern: Pattern,
    #[expect(dead_code, reason = "it works by being dropped")]
    client: Client,
}

impl VolumeExport {
    /// Opens the volume.
    pub fn open(shelf: Arc<Shelf>, item: Item, contexts: Contexts, client: Client) -> Result<Self> {
        Ok(Self {
            writer: Writer::new(shelf.clone(), item.device_uid, &item.device)?,
            shelf,
            item,
            contexts,
            pattern: Pattern::default(),
            client,
        })
    }

    fn note(&self, offset: u64, len: usize) {
        let window = || self.shelf.window();
        if let Some(range) = self.pattern.note(offset, len as u64, window) {
            self.shelf.expect_of_volume(self.writer.volume(), range);
        }
    }

    /// Notes what came of a change of so many bytes and, with `fua`, makes it durable.
    fn changed(&self, doing: &str, offset: u64, len: u64, fua: bool, done: Result<()>) -> Done<()> {
        self.shelf.volumes().counts().wrote(len, &done);
        done.map_err(|e| failed(&self.item, doing, offset, &e))?;
        if fua { self.flush() } else { Ok(()) }
    }
}

impl Export for VolumeExport {
    fn info(&self) -> ExportInfo {
        let mut info = info(self.writer.volume().size());
        info.description = description(&self.item);
        info
    }

    fn read(&self, buf: &mut [u8], offset: u64) -> Done<()> {
        self.note(offset, buf.len());
        let read = self.shelf.read_volume(self.writer.volume(), offset, buf);
        read.map_err(|e| failed(&self.item, "reading", offset, &e))
    }

    fn read_now(&self, buf: &mut [u8], offset: u64) -> Done<bool> {
        let volume = self.writer.volume();
        let read = self.shelf.read_volume_now(volume, offset, buf);
        let done = read.map_err(|e| failed(&self.item, "reading", offset, &e))?;
        if done {
            self.note(offset, buf.len());
        }
        Ok(done)
    }

    fn write(&self, data: &[u8], offset: u64, fua: bool) -> Done<()> {
        let done = self.writer.volume().write_at(offset, data);
        self.changed("writing", offset, data.len() as u64, fua, done)
    }

    fn writes_at_once(&self) -> bool {
        true
    }

    fn write_zeroes(&self, offset: u64, len: u64, mode: ZeroMode) -> Done<()> {
        let volume = self.writer.volume();
        let done = volume.write_zeroes(offset, len, !mode.no_hole);
        self.changed("writing zeroes", offset, len, mode.fua, done)
    }

    fn trim(&self, offset: u64, len: u64, fua: bool) -> Done<()> {
        let done = self.writer.volume().discard(offset, len);
        self.changed("discarding", offset, len, fua, done)
    }

    fn flush(&self) -> Done<()> {
        let done = self.writer.volume().flush();
        self.shelf.volumes().counts().flushed(&done);
        done.map_err(|e| failed(&self.item, "flushing", 0, &e))
    }

    fn contexts(&self) -> Vec<String> {
        self.contexts.names()
    }

    fn block_status(
        &self,
        context: &str,
        offset: u64,
        len: u64,
        extents: &mut Extents,
    ) -> Done<()> {
        let (shelf, volume) = (&self.shelf, self.writer.volume());
        let range = (offset, len);
        let status = self
            .contexts
            .status_of_volume(shelf, volume, context, range, extents);
        status.map_err(|e| failed(&self.item, "comparing", offset, &e))
    }
}
