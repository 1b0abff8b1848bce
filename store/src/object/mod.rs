//! The door to what is stored: immutable objects under keys, created whole and once. The same calls fit a folder, memory
//! and an S3 bucket; the only atomic step is *create if absent*.

#[cfg(any(test, feature = "testing"))]
pub mod conformance;
pub mod local;
pub mod memory;

use crate::disk::Disk;
use crate::error::{Error, Result};
use crate::id::SessionId;
use std::path::PathBuf;
use std::sync::Arc;

/// Who won a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Put {
    /// The key now holds these bytes.
    Created,
    /// The key held something before; it is untouched. Possibly one's own earlier try.
    Exists,
}

/// What a put may use up when the disk is full.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purse {
    /// Free space only.
    Free,
    /// The files in `reserve/` too: for entries and packs of delete and gc, which make room.
    Reserve,
}

/// Immutable objects. Keys are relative paths of `[a-z0-9.-]` parts; the part before the last `/` is the folder.
pub trait Objects: Send + Sync {
    /// Reads up to `buf.len()` bytes from `offset`; fewer only at the object's end. `NotFound` without the object.
    fn get(&self, key: &str, offset: u64, buf: &mut [u8]) -> Result<usize>;
    /// Bytes of the object; `NotFound` without it.
    fn size(&self, key: &str) -> Result<u64>;
    /// Creates the object from `parts` one after the other, if the key is free. When this returns `Created` the contents
    /// are durable; the name is after `sync` of the folder. An error leaves the key free or whole, never partly there:
    /// `put_new` of the same bytes may be tried again.
    fn put_new(&self, key: &str, parts: &[&[u8]], purse: Purse) -> Result<Put>;
    /// Names in `folder` that sort after `after`, sorted, all of them. An absent folder is empty.
    fn list_after(&self, folder: &str, after: &str) -> Result<Vec<String>>;
    /// Names of folders in `folder`, sorted.
    fn list_folders(&self, folder: &str) -> Result<Vec<String>>;
    /// Removes the object; none there is fine. May come back after a crash until `sync` of the folder.
    fn delete(&self, key: &str) -> Result<()>;
    /// Names created in and deleted from `folder` by anybody so far survive a crash after this.
    fn sync(&self, folder: &str) -> Result<()>;
    /// Puts back what the reserve has given; errors are the caller's to ignore.
    fn refill(&self) -> Result<()>;
    /// True when nothing can be put or deleted.
    fn is_read_only(&self) -> bool;
    /// How to name the store in messages.
    fn describe(&self, key: &str) -> String;
}

/// The whole object. `limit` bounds the memory that a lying object can cost.
pub fn get_whole(objects: &dyn Objects, key: &str, limit: u64) -> Result<Vec<u8>> {
    let size = objects.size(key)?;
    if size > limit {
        return Err(Error::new(crate::ErrorKind::LimitExceeded, "reading")
            .at(objects.describe(key))
            .detail(format!(
                "{size} bytes are more than the {limit} that this may have"
            )));
    }
    let mut bytes = vec![0; size as usize];
    get_exact(objects, key, 0, &mut bytes)?;
    Ok(bytes)
}

/// Fills `buf` from `offset`; an object that ends before is `Corrupt`.
pub fn get_exact(objects: &dyn Objects, key: &str, offset: u64, buf: &mut [u8]) -> Result<()> {
    let n = objects.get(key, offset, buf)?;
    if n < buf.len() {
        let read = offset + n as u64;
        // A read past the end does not say where the end is.
        let end = objects.size(key).unwrap_or(read).min(read);
        let wanted = offset + buf.len() as u64;
        let why = format!("ends after {end} bytes, {wanted} were expected");
        return Err(Error::corrupt("reading", why)
            .at(objects.describe(key))
            .offset(offset));
    }
    Ok(())
}

/// Holds a session's lock while it lives.
pub trait Lease: Send + Sync {}

/// What this host keeps beside the objects: session locks and notes. Decides nothing about data.
pub trait Local: Send + Sync {
    /// Takes the session's lock without waiting; `None`: somebody alive has it.
    fn hold(&self, session: SessionId) -> Result<Option<Box<dyn Lease>>>;
    /// Removes the lock file of a session that has ended.
    fn forget(&self, session: SessionId) -> Result<()>;
    /// Removes what processes that died left behind; how many files.
    fn sweep(&self) -> Result<usize> {
        Ok(0)
    }
    /// A note put earlier; `None` if none or unreadable.
    fn note(&self, name: &str) -> Option<Vec<u8>>;
    /// Replaces a note; need not survive a crash.
    fn put_note(&self, name: &str, bytes: &[u8]) -> Result<()>;
    /// Where overlays of volumes are; `None`: this store has no such place.
    fn folder(&self) -> Option<LocalFolder> {
        None
    }
}

/// The folder `local` of a store, and the disk that it is on.
#[derive(Clone)]
pub struct LocalFolder {
    /// The disk.
    pub disk: Arc<dyn Disk>,
    /// The folder.
    pub path: PathBuf,
}
