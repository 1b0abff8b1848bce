//! Names of a simulated disk: folders with what the program sees, what lies on the medium, and the changes in between.

use super::content::{Content, File};
use super::dice::Dice;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Component, Path, PathBuf};

/// Number of a file or folder, never reused on one disk.
pub(super) type Ino = u64;
/// The folder `/`.
pub(super) const ROOT: Ino = 1;

pub(super) type Names = BTreeMap<String, Ino>;

/// A name that now means this file or folder, or nothing.
#[derive(Clone)]
pub(super) struct NameChange {
    /// Mutating call that made it: what one call does in one folder happens whole or not at all.
    pub(super) call: u64,
    pub(super) name: String,
    pub(super) to: Option<Ino>,
}

/// What lies on the medium, and what the program sees.
#[derive(Clone, Default)]
pub(super) struct Folder {
    pub(super) seen: Names,
    pub(super) durable: Names,
    pub(super) unsynced: Vec<NameChange>,
}

fn set(names: &mut Names, change: &NameChange) {
    match change.to {
        Some(ino) => names.insert(change.name.clone(), ino),
        None => names.remove(&change.name),
    };
}

impl Folder {
    pub(super) fn change(&mut self, call: u64, name: &str, to: Option<Ino>) {
        let change = NameChange {
            call,
            name: name.to_owned(),
            to,
        };
        set(&mut self.seen, &change);
        self.unsynced.push(change);
    }

    pub(super) fn sync(&mut self) {
        for change in self.unsynced.drain(..) {
            set(&mut self.durable, &change);
        }
    }

    /// The names that are left when only the calls that `keep` likes have happened.
    pub(super) fn survivors(&self, mut keep: impl FnMut() -> bool) -> Names {
        let mut left = self.durable.clone();
        let mut last = None;
        for change in &self.unsynced {
            let kept = match last {
                Some((call, kept)) if call == change.call => kept,
                _ => keep(),
            };
            last = Some((change.call, kept));
            if kept {
                set(&mut left, change);
            }
        }
        left
    }
}

#[derive(Clone)]
pub(super) enum Node {
    File(File),
    Folder(Folder),
}

/// Handles that lock a file.
#[derive(Clone, Default)]
pub(super) struct Holders {
    pub(super) exclusive: Option<u64>,
    pub(super) shared: BTreeSet<u64>,
}

/// All files and folders.
pub(super) struct Tree {
    pub(super) nodes: BTreeMap<Ino, Node>,
    next: Ino,
}

/// Where a path leads: the folder above, and the last name.
pub(super) struct Place {
    pub(super) folder: Ino,
    pub(super) name: String,
    pub(super) ino: Option<Ino>,
}

/// The names on the way from the root; `..` as a shell would read it.
pub(super) fn parts(path: &Path) -> Vec<String> {
    let mut parts = Vec::new();
    for part in path.components() {
        match part {
            Component::Normal(name) => parts.push(name.to_string_lossy().into_owned()),
            Component::ParentDir => drop(parts.pop()),
            _ => {}
        }
    }
    parts
}

impl Tree {
    pub(super) fn new() -> Self {
        Self {
            nodes: BTreeMap::from([(ROOT, Node::Folder(Folder::default()))]),
            next: ROOT + 1,
        }
    }

    pub(super) fn add(&mut self, node: Node) -> Ino {
        let ino = self.next;
        self.next += 1;
        self.nodes.insert(ino, node);
        ino
    }

    pub(super) fn folder(&self, ino: Ino) -> Option<&Folder> {
        match self.nodes.get(&ino) {
            Some(Node::Folder(folder)) => Some(folder),
            _ => None,
        }
    }

    pub(super) fn folder_mut(&mut self, ino: Ino) -> Option<&mut Folder> {
        match self.nodes.get_mut(&ino) {
            Some(Node::Folder(folder)) => Some(folder),
            _ => None,
        }
    }

    pub(super) fn file(&self, ino: Ino) -> Option<&File> {
        match self.nodes.get(&ino) {
            Some(Node::File(file)) => Some(file),
            _ => None,
        }
    }

    pub(super) fn file_mut(&mut self, ino: Ino) -> Option<&mut File> {
        match self.nodes.get_mut(&ino) {
            Some(Node::File(file)) => Some(file),
            _ => None,
        }
    }

    pub(super) fn find(&self, path: &Path) -> Option<Ino> {
        let mut at = ROOT;
        for name in parts(path) {
            at = *self.folder(at)?.seen.get(&name)?;
        }
        Some(at)
    }

    /// `None` where there is no folder above, or the path is the root.
    pub(super) fn place(&self, path: &Path) -> Option<Place> {
        let mut above = parts(path);
        let name = above.pop()?;
        let folder = self.find(&above.iter().collect::<PathBuf>())?;
        let ino = self.folder(folder)?.seen.get(&name).copied();
        Some(Place { folder, name, ino })
    }

    pub(super) fn rename_to(&mut self, call: u64, folder: Ino, name: &str, to: Option<Ino>) {
        if let Some(folder) = self.folder_mut(folder) {
            folder.change(call, name, to);
        }
    }

    /// True while any path that the program sees leads to it.
    pub(super) fn is_named(&self, ino: Ino) -> bool {
        let folders = self.nodes.values().filter_map(|node| match node {
            Node::Folder(folder) => Some(folder),
            Node::File(_) => None,
        });
        folders
            .into_iter()
            .any(|folder| folder.seen.values().any(|n| *n == ino))
    }

    /// Paths of all files that the program sees.
    pub(super) fn files(&self) -> Vec<(PathBuf, Ino)> {
        let mut found = Vec::new();
        let mut todo = vec![(PathBuf::from("/"), ROOT)];
        while let Some((path, ino)) = todo.pop() {
            match self.nodes.get(&ino) {
                Some(Node::File(_)) => found.push((path, ino)),
                Some(Node::Folder(folder)) => {
                    todo.extend(
                        folder
                            .seen
                            .iter()
                            .map(|(name, ino)| (path.join(name), *ino)),
                    );
                }
                None => {}
            }
        }
        found.sort();
        found
    }

    /// A tree in which everything is durable, with the contents and names that the closures leave.
    pub(super) fn survivors(
        &self,
        dice: &mut Dice,
        names: impl Fn(&Folder, &mut Dice) -> Names,
        contents: impl Fn(&File, &mut Dice) -> Content,
    ) -> Self {
        let mut left = Self {
            nodes: BTreeMap::new(),
            next: self.next,
        };
        let mut todo = vec![ROOT];
        while let Some(ino) = todo.pop() {
            if left.nodes.contains_key(&ino) {
                continue;
            }
            let node = match self.nodes.get(&ino) {
                Some(Node::Folder(folder)) => {
                    let seen = names(folder, dice);
                    todo.extend(seen.values());
                    Node::Folder(Folder {
                        durable: seen.clone(),
                        seen,
                        unsynced: Vec::new(),
                    })
                }
                Some(Node::File(file)) => {
                    let seen = contents(file, dice);
                    let durable = seen.clone();
                    Node::File(File {
                        seen,
                        durable,
                        unsynced: Vec::new(),
                        times: file.times,
                    })
                }
                None => continue,
            };
            left.nodes.insert(ino, node);
        }
        left
    }
}
