//! A store's folder whose calls somebody watches.

use stillpoint_api::Result;
use stillpoint_api::store::id::SessionId;
use stillpoint_api::store::object::local::LocalObjects;
use stillpoint_api::store::object::{Lease, Local, Objects, Purse, Put};

pub trait Watch: Send + Sync {
    /// A call is about to be made; of one that puts an object, its key. An error: it is not made.
    fn before(&self, put: Option<&str>) -> Result<()>;
    /// An object was put, or not.
    fn after_put(&self) {}
}

pub struct Watched<W> {
    pub folder: LocalObjects,
    pub watch: W,
}

impl<W: Watch> Watched<W> {
    fn call(&self) -> Result<&LocalObjects> {
        self.watch.before(None)?;
        Ok(&self.folder)
    }
}

impl<W: Watch> Objects for Watched<W> {
    fn get(&self, key: &str, offset: u64, buf: &mut [u8]) -> Result<usize> {
        self.call()?.get(key, offset, buf)
    }
    fn size(&self, key: &str) -> Result<u64> {
        self.call()?.size(key)
    }
    fn put_new(&self, key: &str, parts: &[&[u8]], purse: Purse) -> Result<Put> {
        self.watch.before(Some(key))?;
        let put = self.folder.put_new(key, parts, purse);
        self.watch.after_put();
        put
    }
    fn list_after(&self, folder: &str, after: &str) -> Result<Vec<String>> {
        self.call()?.list_after(folder, after)
    }
    fn list_folders(&self, folder: &str) -> Result<Vec<String>> {
        self.call()?.list_folders(folder)
    }
    fn delete(&self, key: &str) -> Result<()> {
        self.call()?.delete(key)
    }
    fn sync(&self, folder: &str) -> Result<()> {
        self.call()?.sync(folder)
    }
    fn refill(&self) -> Result<()> {
        self.call()?.refill()
    }
    fn is_read_only(&self) -> bool {
        self.folder.is_read_only()
    }
    fn describe(&self, key: &str) -> String {
        self.folder.describe(key)
    }
}

impl<W: Watch> Local for Watched<W> {
    fn hold(&self, session: SessionId) -> Result<Option<Box<dyn Lease>>> {
        self.call()?.hold(session)
    }
    fn forget(&self, session: SessionId) -> Result<()> {
        self.call()?.forget(session)
    }
    fn sweep(&self) -> Result<usize> {
        self.call()?.sweep()
    }
    fn note(&self, name: &str) -> Option<Vec<u8>> {
        self.folder.note(name)
    }
    fn folder(&self) -> Option<stillpoint_api::store::object::LocalFolder> {
        self.folder.folder()
    }
    fn put_note(&self, name: &str, bytes: &[u8]) -> Result<()> {
        self.folder.put_note(name, bytes)
    }
}
