//! What a simulated disk is made of, behind its lock.

use super::content::{Change, Content, File, PAGE, Survival};
use super::tree::{Holders, Ino, Names, Node, ROOT, Tree, parts};
use super::{CrashMode, Dice, Fault, Folder, Lie, ReadFault};
use crate::error::{Error, Result};
use rustix::io::Errno;
use std::collections::BTreeMap;
use std::io;
use std::path::Path;

pub(super) struct State {
    pub(super) tree: Tree,
    seed: u64,
    pub(super) calls: u64,
    pub(super) crash_at: Option<u64>,
    pub(super) crashed: bool,
    pub(super) faults: BTreeMap<u64, Fault>,
    pub(super) read_faults: Vec<(String, ReadFault, u64)>,
    pub(super) lies: Vec<(Lie, String)>,
    pub(super) read_only: bool,
    /// Bytes that fit; without it nothing is counted.
    capacity: Option<u64>,
    charges: BTreeMap<Ino, u64>,
    pub(super) opens: BTreeMap<Ino, u64>,
    pub(super) locks: BTreeMap<Ino, Holders>,
    pub(super) handles: u64,
    clock: i128,
}

/// What becomes of a mutating call.
pub(super) enum Admitted {
    Go(u64),
    Fault(Fault),
    /// This is the call that the crash interrupts.
    Crash,
}

impl Fault {
    pub(super) fn errno(self) -> Errno {
        match self {
            Self::Eio => Errno::IO,
            Self::Enospc => Errno::NOSPC,
        }
    }
}

fn under(path: &Path, prefix: &str) -> bool {
    path.to_string_lossy().starts_with(prefix)
}

impl State {
    pub(super) fn new(seed: u64) -> Self {
        Self {
            tree: Tree::new(),
            seed,
            calls: 0,
            crash_at: None,
            crashed: false,
            faults: BTreeMap::new(),
            read_faults: Vec::new(),
            lies: Vec::new(),
            read_only: false,
            capacity: None,
            charges: BTreeMap::new(),
            opens: BTreeMap::new(),
            locks: BTreeMap::new(),
            handles: 0,
            clock: 0,
        }
    }

    pub(super) fn crash_error(doing: &'static str, path: &Path) -> Error {
        Error::io(doing, io::Error::other("the disk has crashed")).at(path.display())
    }

    pub(super) fn alive(&self, doing: &'static str, path: &Path) -> Result<()> {
        if self.crashed {
            Err(Self::crash_error(doing, path))
        } else {
            Ok(())
        }
    }

    /// Counts a mutating call.
    pub(super) fn admit(&mut self, doing: &'static str, path: &Path) -> Result<Admitted> {
        self.alive(doing, path)?;
        self.calls += 1;
        let call = self.calls;
        if self.crash_at.is_some_and(|n| call >= n) {
            self.crashed = true;
            return Ok(Admitted::Crash);
        }
        if self.read_only {
            return Err(Error::io(doing, Errno::ROFS.into()).at(path.display()));
        }
        Ok(self
            .faults
            .remove(&call)
            .map_or(Admitted::Go(call), Admitted::Fault))
    }

    pub(super) fn lies(&self, lie: Lie, path: &Path) -> bool {
        self.lies
            .iter()
            .any(|(what, prefix)| *what == lie && under(path, prefix))
    }

    pub(super) fn read_fault(&mut self, path: &Path) -> Option<ReadFault> {
        let rule = self
            .read_faults
            .iter_mut()
            .find(|(p, _, n)| *n > 0 && under(path, p))?;
        rule.2 -= 1;
        Some(rule.1)
    }

    /// Marks a change of the file; two changes never have the same time.
    pub(super) fn touch(&mut self, ino: Ino) {
        self.clock += 1;
        let now = self.clock;
        if let Some(file) = self.tree.file_mut(ino) {
            file.times = (now, now);
        }
    }

    pub(super) fn create(&mut self, call: u64, path: &Path) -> std::result::Result<Ino, Errno> {
        let place = self.tree.place(path).ok_or(Errno::NOENT)?;
        if place.ino.is_some() {
            return Err(Errno::EXIST);
        }
        let ino = self.tree.add(Node::File(File::default()));
        self.tree
            .rename_to(call, place.folder, &place.name, Some(ino));
        self.touch(ino);
        Ok(ino)
    }

    pub(super) fn create_folders(
        &mut self,
        call: u64,
        path: &Path,
    ) -> std::result::Result<(), Errno> {
        let mut above = ROOT;
        for name in parts(path) {
            let folder = self.tree.folder(above).ok_or(Errno::NOTDIR)?;
            if let Some(ino) = folder.seen.get(&name) {
                above = *ino;
                continue;
            }
            self.take_space(PAGE)?;
            let ino = self.tree.add(Node::Folder(Folder::default()));
            self.charges.insert(ino, PAGE);
            self.tree.rename_to(call, above, &name, Some(ino));
            above = ino;
        }
        self.tree.folder(above).map(|_| ()).ok_or(Errno::NOTDIR)
    }

    /// Applies a change if its space is there.
    pub(super) fn change(
        &mut self,
        call: u64,
        ino: Ino,
        change: Change,
    ) -> std::result::Result<(), Errno> {
        let Some(file) = self.tree.file(ino) else {
            return Err(Errno::IO);
        };
        self.take_space(file.seen.space_for(&change))?;
        self.change_anyway(call, ino, change);
        Ok(())
    }

    pub(super) fn change_anyway(&mut self, call: u64, ino: Ino, change: Change) {
        if let Some(file) = self.tree.file_mut(ino) {
            file.change(call, change);
            if self.capacity.is_some() {
                self.charges.insert(ino, file.seen.space());
            }
        }
        self.touch(ino);
    }

    fn take_space(&self, bytes: u64) -> std::result::Result<(), Errno> {
        match self.free_space() {
            Some(free) if free < bytes => Err(Errno::NOSPC),
            _ => Ok(()),
        }
    }

    pub(super) fn free_space(&self) -> Option<u64> {
        self.capacity
            .map(|all| all.saturating_sub(self.charges.values().sum()))
    }

    pub(super) fn set_space(&mut self, free: u64) {
        self.count_charges();
        self.capacity = Some(self.charges.values().sum::<u64>() + free);
    }

    fn count_charges(&mut self) {
        let nodes = self.tree.nodes.iter().filter(|(ino, _)| {
            **ino != ROOT && (self.opens.contains_key(ino) || self.tree.is_named(**ino))
        });
        let space = |node: &Node| match node {
            Node::File(file) => file.seen.space(),
            Node::Folder(_) => PAGE,
        };
        self.charges = nodes.map(|(ino, node)| (*ino, space(node))).collect();
    }

    /// Gives the space of a file back that has neither a name nor an open handle.
    pub(super) fn release_space(&mut self, ino: Ino) {
        if self.capacity.is_some() && !self.opens.contains_key(&ino) && !self.tree.is_named(ino) {
            self.charges.remove(&ino);
        }
    }

    pub(super) fn set_at_rest(&mut self, path: &Path, to: Option<Ino>) {
        let Some(place) = self.tree.place(path) else {
            return;
        };
        if let Some(folder) = self.tree.folder_mut(place.folder) {
            folder.sync();
            folder.change(0, &place.name, to);
            folder.sync();
        }
        place
            .ino
            .into_iter()
            .for_each(|old| self.release_space(old));
    }

    /// Number of the last call whose unsynced change is a write.
    fn last_write(&self) -> u64 {
        let files = self.tree.nodes.values().filter_map(|node| match node {
            Node::File(file) => Some(file),
            Node::Folder(_) => None,
        });
        let writes = files.flat_map(|file| &file.unsynced);
        let writes = writes.filter(|(_, change)| matches!(change, Change::Write { .. }));
        writes.map(|(call, _)| *call).max().unwrap_or(0)
    }

    /// The disk as it comes up after a crash.
    pub(super) fn survivor(&self, mode: CrashMode) -> Self {
        let last = self.last_write();
        let names = |folder: &Folder, dice: &mut Dice| -> Names {
            match mode {
                CrashMode::NothingUnsynced | CrashMode::DataBeforeNames => folder.durable.clone(),
                CrashMode::Random => folder.survivors(|| dice.below(2) == 1),
                _ => folder.survivors(|| true),
            }
        };
        let contents = |file: &File, dice: &mut Dice| -> Content {
            file.survivor(match mode {
                CrashMode::NothingUnsynced => Survival::None,
                CrashMode::AllUnsynced | CrashMode::DataBeforeNames => Survival::All,
                CrashMode::Random => Survival::Random(dice),
                CrashMode::TornLast => Survival::Torn(last, dice),
                CrashMode::NamesBeforeData => Survival::LengthOnly(dice),
            })
        };
        let mut dice = Dice(self.seed ^ self.calls.rotate_left(32));
        let mut left = Self::new(dice.roll());
        left.tree = self.tree.survivors(&mut dice, names, contents);
        left.clock = self.clock + 1;
        left.read_only = self.read_only;
        if self.capacity.is_some() {
            left.capacity = self.capacity;
            left.count_charges();
        }
        left
    }
}
