//! One snapshot, or the present contents of a device, read-only, for one connection.

use super::contexts::Contexts;
use super::{Client, description, failed};
use crate::ahead::Pattern;
use crate::menu::Item;
use crate::shelf::{Disk, Shelf};
use std::sync::{Arc, OnceLock};
use stillpoint_nbd::codec::Extents;
use stillpoint_nbd::{Export, ExportInfo, Failure};
use stillpoint_store::format::entry::Content;
use stillpoint_store::{Error, Result};

/// See the module.
pub struct SnapshotExport {
    shelf: Arc<Shelf>,
    item: Item,
    content: Content,
    contexts: Contexts,
    pattern: Pattern,
    /// Empty for a mere question, which pins nothing.
    disk: OnceLock<Arc<Disk>>,
    client: Option<Client>,
}

impl SnapshotExport {
    /// For a question: nothing is opened.
    pub fn new(shelf: Arc<Shelf>, item: Item, content: Content, contexts: Contexts) -> Self {
        Self {
            shelf,
            item,
            content,
            contexts,
            pattern: Pattern::default(),
            disk: OnceLock::new(),
            client: None,
        }
    }

    /// For a connection: open and pinned from now on.
    pub fn opened(mut self, client: Client) -> Result<Self> {
        self.disk()?;
        self.client = Some(client);
        Ok(self)
    }

    fn disk(&self) -> Result<&Arc<Disk>> {
        if let Some(disk) = self.disk.get() {
            return Ok(disk);
        }
        let disk = self.shelf.open(self.content)?;
        Ok(self.disk.get_or_init(|| disk))
    }

    fn note(&self, disk: &Arc<Disk>, offset: u64, len: usize) {
        let window = || self.shelf.window();
        if let Some(range) = self.pattern.note(offset, len as u64, window) {
            self.shelf.expect(disk, range);
        }
    }

    fn failed(&self, doing: &str, offset: u64, error: &Error) -> Failure {
        failed(&self.item, doing, offset, error)
    }
}

impl Export for SnapshotExport {
    fn info(&self) -> ExportInfo {
        let mut info = ExportInfo::read_only(self.content.size);
        let cluster = self.shelf.system().store().geometry().cluster_bytes;
        info.block.preferred = cluster.clamp(4096, 32 << 20);
        info.description = description(&self.item);
        info
    }

    fn read(&self, buf: &mut [u8], offset: u64) -> std::result::Result<(), Failure> {
        let disk = self
            .disk()
            .map_err(|e| self.failed("opening", offset, &e))?;
        self.note(disk, offset, buf.len());
        disk.read(offset, buf)
            .map_err(|e| self.failed("reading", offset, &e))
    }

    fn read_now(&self, buf: &mut [u8], offset: u64) -> std::result::Result<bool, Failure> {
        let disk = self
            .disk()
            .map_err(|e| self.failed("opening", offset, &e))?;
        let done = disk
            .read_now(offset, buf)
            .map_err(|e| self.failed("reading", offset, &e))?;
        if done {
            self.note(disk, offset, buf.len());
        }
        Ok(done)
    }

    fn cache(&self, offset: u64, len: u64) -> std::result::Result<(), Failure> {
        let disk = self
            .disk()
            .map_err(|e| self.failed("opening", offset, &e))?;
        // More than the cache holds would push itself out.
        let len = len.min(self.shelf.window());
        self.shelf.expect(disk, offset..offset + len);
        Ok(())
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
    ) -> std::result::Result<(), Failure> {
        let mut status = || {
            let disk = self.disk()?;
            let range = (offset, len);
            self.contexts
                .status(&self.shelf, disk, context, range, extents)
        };
        status().map_err(|e| self.failed("comparing", offset, &e))
    }
}
