//! Folders and files by their numbers. A number means one device or snapshot as long as the mount lives, and is never given
//! to another.

use crate::label::escape;
use crate::menu::{self, Item};
use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use stillpoint_store::Result;
use stillpoint_store::catalog::{Catalog, SnapshotState};
use stillpoint_store::id::Uid;
use stillpoint_store::store::Store;

/// Number of the mount's own folder.
pub const ROOT: u64 = 1;
/// What files end in.
const SUFFIX: &str = ".raw";

/// What a number means.
#[derive(Debug, Clone)]
pub enum Node {
    /// The mount itself.
    Root,
    /// A device.
    Folder(Uid),
    /// A snapshot.
    File(Box<Item>),
}

/// An entry of a folder.
#[derive(Debug, Clone)]
pub struct Entry {
    /// Its name.
    pub name: String,
    /// Its number.
    pub number: u64,
    /// What it is.
    pub node: Node,
}

/// See the module.
#[derive(Debug, Default)]
pub struct Tree {
    numbers: Mutex<Numbers>,
}

#[derive(Debug, Default)]
struct Numbers {
    of: HashMap<Uid, u64>,
    nodes: HashMap<u64, Node>,
}

impl Tree {
    /// What a number means; `None` for one that was never given.
    pub fn node(&self, number: u64) -> Option<Node> {
        if number == ROOT {
            return Some(Node::Root);
        }
        self.lock().nodes.get(&number).cloned()
    }

    /// What is in a folder now; `None` where the number is none of a folder that is there.
    pub fn list(&self, store: &Store, number: u64) -> Result<Option<Vec<Entry>>> {
        let Some(node) = self.node(number) else {
            return Ok(None);
        };
        let catalog = store.refresh()?;
        Ok(match node {
            Node::Root => Some(self.devices(&catalog)),
            Node::Folder(uid) => self.snapshots(&catalog, uid),
            Node::File(_) => None,
        })
    }

    /// What has a name in a folder now.
    pub fn find(&self, store: &Store, parent: u64, name: &str) -> Result<Option<Entry>> {
        let Some(node) = self.node(parent) else {
            return Ok(None);
        };
        let catalog = store.refresh()?;
        Ok(match node {
            Node::Root => menu::device_of(&catalog, name).map(|d| self.folder(name.into(), d.uid)),
            Node::Folder(uid) => self.snapshot(&catalog, uid, name),
            Node::File(_) => None,
        })
    }

    fn devices(&self, catalog: &Catalog) -> Vec<Entry> {
        // A folder without a name cannot be; natively no device is called so.
        let named = menu::devices(catalog)
            .into_iter()
            .filter(|(name, _)| !name.is_empty());
        named
            .map(|(name, (device, _))| self.folder(escape(name.as_bytes()), device.uid))
            .collect()
    }

    fn snapshots(&self, catalog: &Catalog, device: Uid) -> Option<Vec<Entry>> {
        let device = catalog.device(&device)?;
        let all = catalog.snapshots_of(&device.uid);
        let all: Vec<&SnapshotState> = all.into_iter().map(|s| &**s).collect();
        let items = menu::items_of(device, &all).into_iter();
        Some(items.filter_map(|item| self.file(item)).collect())
    }

    fn snapshot(&self, catalog: &Catalog, device: Uid, name: &str) -> Option<Entry> {
        let device = catalog.device(&device)?;
        let called = name.strip_suffix(SUFFIX)?;
        let item = menu::find_of(catalog, device, called).ok()?;
        let found = self.file(item)?;
        Some(Entry {
            name: name.to_owned(),
            ..found
        })
    }

    fn folder(&self, name: String, uid: Uid) -> Entry {
        let node = Node::Folder(uid);
        Entry {
            name,
            number: self.number(uid, &node),
            node,
        }
    }

    fn file(&self, item: Item) -> Option<Entry> {
        let name = format!("{}{SUFFIX}", item.snapshot.as_deref()?);
        let uid = item.uid?;
        let node = Node::File(Box::new(item));
        Some(Entry {
            name,
            number: self.number(uid, &node),
            node,
        })
    }

    /// The number of a device or snapshot, given now if it has none.
    fn number(&self, uid: Uid, node: &Node) -> u64 {
        let mut numbers = self.lock();
        let next = ROOT + 1 + numbers.of.len() as u64;
        let number = *numbers.of.entry(uid).or_insert(next);
        numbers.nodes.entry(number).or_insert_with(|| node.clone());
        number
    }

    fn lock(&self) -> MutexGuard<'_, Numbers> {
        // Maps, whole after each statement.
        self.numbers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
