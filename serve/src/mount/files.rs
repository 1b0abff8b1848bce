//! The kernel's questions, answered.

use super::tree::{Entry, Node, Tree};
use crate::ahead::Pattern;
use crate::menu::{Item, Shows};
use crate::nbd::chain;
use crate::shelf::{Disk, Shelf};
use fuser::{
    Errno, FileAttr, FileHandle, FileType, Filesystem, FopenFlags, Generation, INodeNo,
    KernelConfig, LockOwner, OpenFlags, ReplyAttr, ReplyData, ReplyDirectory, ReplyEmpty,
    ReplyEntry, ReplyLseek, ReplyOpen, Request,
};
use std::collections::HashMap;
use std::ffi::OsStr;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use stillpoint_store::ops::diff::ExtentKind;
use stillpoint_store::{Error, ErrorKind};
use tracing::{debug, warn};

/// What a file is never changes.
const FOREVER: Duration = Duration::from_hours(24);
/// What a name means may.
const NOT_AT_ALL: Duration = Duration::ZERO;
/// Most that the kernel reads ahead, in bytes.
const READAHEAD: u32 = 1 << 20;
/// Whences of lseek that reach us.
const SEEK_DATA: i32 = 3;
const SEEK_HOLE: i32 = 4;

/// See the module.
pub struct Files {
    shelf: Arc<Shelf>,
    tree: Tree,
    open: Mutex<Open>,
    owner: (u32, u32),
    since: SystemTime,
}

/// What has been opened and not released.
#[derive(Default)]
struct Open {
    next: u64,
    files: HashMap<u64, Arc<OpenFile>>,
    /// What was in a folder when it was opened: entries that come and go must not shift the rest.
    folders: HashMap<u64, Arc<Vec<Entry>>>,
}

struct OpenFile {
    item: Item,
    disk: Arc<Disk>,
    pattern: Pattern,
}

type Answer<T> = Result<T, Errno>;

impl Files {
    pub fn new(shelf: Arc<Shelf>) -> Self {
        let (uid, gid) = (rustix::process::geteuid(), rustix::process::getegid());
        Self {
            shelf,
            tree: Tree::default(),
            open: Mutex::default(),
            owner: (uid.as_raw(), gid.as_raw()),
            since: SystemTime::now(),
        }
    }

    fn open(&self) -> MutexGuard<'_, Open> {
        // Maps and a counter, whole after each statement.
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn attributes(&self, number: u64, node: &Node) -> FileAttr {
        let (kind, size, time) = match node {
            Node::File(item) => {
                let since = item.date.map(|date| Duration::new(date.sec, date.nsec));
                let since = since.unwrap_or_default();
                let time = UNIX_EPOCH.checked_add(since).unwrap_or(UNIX_EPOCH);
                (FileType::RegularFile, item.size(), time)
            }
            Node::Root | Node::Folder(_) => (FileType::Directory, 0, self.since),
        };
        let is_file = kind == FileType::RegularFile;
        FileAttr {
            ino: INodeNo(number),
            size,
            // A block less than there might be, so that cp and tar ask where the holes are.
            blocks: (size / 512).saturating_sub(8),
            atime: time,
            mtime: time,
            ctime: time,
            crtime: time,
            kind,
            perm: if is_file { 0o444 } else { 0o555 },
            nlink: if is_file { 1 } else { 2 },
            uid: self.owner.0,
            gid: self.owner.1,
            rdev: 0,
            blksize: READAHEAD,
            flags: 0,
        }
    }

    fn find(&self, parent: u64, name: &OsStr) -> Answer<Entry> {
        let name = name.to_str().ok_or(Errno::ENOENT)?;
        let store = self.shelf.system().store();
        let found = self.tree.find(store, parent, name);
        found.map_err(|e| failed(name, &e))?.ok_or(Errno::ENOENT)
    }

    fn open_file(&self, number: u64) -> Answer<u64> {
        let item = match self.tree.node(number) {
            Some(Node::File(item)) => *item,
            Some(_) => return Err(Errno::EISDIR),
            None => return Err(Errno::ENOENT),
        };
        let name = item.name();
        let Shows::Content(content) = item.shows else {
            return Err(Errno::ENOENT);
        };
        let disk = self.shelf.open(content).map_err(|e| failed(&name, &e))?;
        debug!(file = name, "opened");
        let file = Arc::new(OpenFile {
            item,
            disk,
            pattern: Pattern::default(),
        });
        let mut open = self.open();
        open.next += 1;
        let handle = open.next;
        open.files.insert(handle, file);
        Ok(handle)
    }

    fn open_folder(&self, number: u64) -> Answer<u64> {
        let store = self.shelf.system().store();
        let entries = self.tree.list(store, number);
        let entries = entries.map_err(|e| failed("folder", &e))?;
        let entries = Arc::new(entries.ok_or(Errno::ENOTDIR)?);
        let mut open = self.open();
        open.next += 1;
        let handle = open.next;
        open.folders.insert(handle, entries);
        Ok(handle)
    }

    fn file(&self, handle: FileHandle) -> Answer<Arc<OpenFile>> {
        let file = self.open().files.get(&handle.0).cloned();
        file.ok_or(Errno::EBADF)
    }

    fn read(&self, handle: FileHandle, offset: u64, size: u32) -> Answer<Vec<u8>> {
        let file = self.file(handle)?;
        let left = file.item.size().saturating_sub(offset);
        let mut buf = vec![0; left.min(u64::from(size)) as usize];
        let window = || self.shelf.window();
        if let Some(range) = file.pattern.note(offset, buf.len() as u64, window) {
            self.shelf.expect(&file.disk, range);
        }
        let read = file.disk.read(offset, &mut buf);
        read.map_err(|e| failed(&file.item.name(), &e))?;
        Ok(buf)
    }

    fn seek(&self, handle: FileHandle, offset: i64, whence: i32) -> Answer<i64> {
        let file = self.file(handle)?;
        let size = file.item.size();
        let offset = u64::try_from(offset).ok().filter(|o| *o < size);
        let offset = offset.ok_or(Errno::ENXIO)?;
        let wants_data = match whence {
            SEEK_DATA => true,
            SEEK_HOLE => false,
            _ => return Err(Errno::EINVAL),
        };
        let name = || file.item.name();
        let extents = file.disk.view().extents(offset, u64::MAX);
        for extent in extents.map_err(|e| failed(&name(), &e))? {
            let extent = extent.map_err(|e| failed(&name(), &e))?;
            // Zeros that were written take no room either: what reads as zeros is a hole here.
            if (extent.kind == ExtentKind::Data) == wants_data {
                return Ok(extent.start.cast_signed());
            }
        }
        // Behind the last byte is a hole.
        if wants_data {
            Err(Errno::ENXIO)
        } else {
            Ok(size.cast_signed())
        }
    }
}

fn failed(name: &str, error: &Error) -> Errno {
    warn!(file = name, error = %chain(error), "failed");
    match error.kind() {
        ErrorKind::NotFound => Errno::ENOENT,
        ErrorKind::NoSpace => Errno::ENOSPC,
        ErrorKind::Busy => Errno::EAGAIN,
        _ => Errno::EIO,
    }
}

impl Filesystem for Files {
    fn init(&mut self, _request: &Request, config: &mut KernelConfig) -> io::Result<()> {
        // An older kernel says what it takes at most.
        if let Err(most) = config.set_max_readahead(READAHEAD) {
            let _ = config.set_max_readahead(most);
        }
        Ok(())
    }

    fn lookup(&self, _request: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        match self.find(parent.0, name) {
            Ok(entry) => {
                let attributes = self.attributes(entry.number, &entry.node);
                reply.entry_with_ttls(&FOREVER, &NOT_AT_ALL, &attributes, Generation(0));
            }
            Err(errno) => reply.error(errno),
        }
    }

    fn getattr(
        &self,
        _request: &Request,
        number: INodeNo,
        _handle: Option<FileHandle>,
        reply: ReplyAttr,
    ) {
        match self.tree.node(number.0) {
            Some(node) => reply.attr(&FOREVER, &self.attributes(number.0, &node)),
            None => reply.error(Errno::ENOENT),
        }
    }

    fn open(&self, _request: &Request, number: INodeNo, _flags: OpenFlags, reply: ReplyOpen) {
        match self.open_file(number.0) {
            Ok(handle) => reply.opened(FileHandle(handle), FopenFlags::FOPEN_KEEP_CACHE),
            Err(errno) => reply.error(errno),
        }
    }

    fn read(
        &self,
        _request: &Request,
        _number: INodeNo,
        handle: FileHandle,
        offset: u64,
        size: u32,
        _flags: OpenFlags,
        _lock_owner: Option<LockOwner>,
        reply: ReplyData,
    ) {
        match self.read(handle, offset, size) {
            Ok(bytes) => reply.data(&bytes),
            Err(errno) => reply.error(errno),
        }
    }

    fn lseek(
        &self,
        _request: &Request,
        _number: INodeNo,
        handle: FileHandle,
        offset: i64,
        whence: i32,
        reply: ReplyLseek,
    ) {
        match self.seek(handle, offset, whence) {
            Ok(offset) => reply.offset(offset),
            Err(errno) => reply.error(errno),
        }
    }

    fn release(
        &self,
        _request: &Request,
        _number: INodeNo,
        handle: FileHandle,
        _flags: OpenFlags,
        _lock_owner: Option<LockOwner>,
        _flush: bool,
        reply: ReplyEmpty,
    ) {
        // Not under the lock: its pin may go with it, which writes to the log.
        let closed = self.open().files.remove(&handle.0);
        drop(closed);
        reply.ok();
    }

    fn opendir(&self, _request: &Request, number: INodeNo, _flags: OpenFlags, reply: ReplyOpen) {
        match self.open_folder(number.0) {
            Ok(handle) => reply.opened(FileHandle(handle), FopenFlags::empty()),
            Err(errno) => reply.error(errno),
        }
    }

    fn readdir(
        &self,
        _request: &Request,
        number: INodeNo,
        handle: FileHandle,
        offset: u64,
        mut reply: ReplyDirectory,
    ) {
        let Some(entries) = self.open().folders.get(&handle.0).cloned() else {
            reply.error(Errno::EBADF);
            return;
        };
        let dots = [".", ".."].map(|name| (number, FileType::Directory, name));
        let entries = entries.iter().map(|entry| {
            let kind = match entry.node {
                Node::File(_) => FileType::RegularFile,
                _ => FileType::Directory,
            };
            (INodeNo(entry.number), kind, entry.name.as_str())
        });
        let all = (1..).zip(dots.into_iter().chain(entries));
        for (next, (number, kind, name)) in all.skip(offset as usize) {
            if reply.add(number, next, kind, name) {
                break;
            }
        }
        reply.ok();
    }

    fn releasedir(
        &self,
        _request: &Request,
        _number: INodeNo,
        handle: FileHandle,
        _flags: OpenFlags,
        reply: ReplyEmpty,
    ) {
        self.open().folders.remove(&handle.0);
        reply.ok();
    }
}
