//! A simulated disk: it crashes, tears, fills up, fails and lies when a test says so, the same way for the same seed.
//!
//! Every file and folder has what the program sees, what lies on the medium, and the list of changes in between that a
//! sync makes durable and a crash may lose. Every mutating call has a number, from 1 on; a crash test runs a workload
//! once to count them, and then once for each number and `CrashMode`.

mod content;
mod dice;
mod file;
mod state;
mod tree;

#[cfg(test)]
mod tests;

use super::{Disk, DiskFile, FileKind, OpenMode};
use crate::error::{Error, Result};
use content::Content;
use dice::Dice;
use file::SimFile;
use rustix::io::Errno;
use state::{Admitted, State};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tree::{Folder, Node};

/// What of the unsynced changes survives a crash.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CrashMode {
    /// None of them.
    NothingUnsynced,
    /// All of them.
    AllUnsynced,
    /// Each by coin; writes possibly in some of their sectors.
    Random,
    /// All but the last unsynced write, of which only some leading sectors do.
    TornLast,
    /// All names, no contents: files are empty, short or full of zeros.
    NamesBeforeData,
    /// All contents, no names.
    DataBeforeNames,
}

impl CrashMode {
    /// Each of them.
    pub const ALL: [Self; 6] = [
        Self::NothingUnsynced,
        Self::AllUnsynced,
        Self::Random,
        Self::TornLast,
        Self::NamesBeforeData,
        Self::DataBeforeNames,
    ];
}

/// How one mutating call fails. What a failed sync was to make durable is lost, as on a real system.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// The medium failed.
    Eio,
    /// The disk is full; of a write, half may have been done.
    Enospc,
}

/// How reads fail.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReadFault {
    /// The medium failed.
    Eio,
    /// Half of the bytes come, as if the file ended there.
    Short,
}

/// A sync that does nothing and reports success: what a forgotten fsync looks like.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lie {
    /// Of files.
    FileSync,
    /// Of folders.
    FolderSync,
}

/// See the module. Clones are handles of the same disk.
#[derive(Clone)]
pub struct SimDisk {
    state: Arc<Mutex<State>>,
}

fn failed(doing: &'static str, path: &Path, errno: Errno) -> Error {
    Error::io(doing, errno.into()).at(path.display())
}

impl SimDisk {
    /// An empty disk with the folder `/`. The seed decides what `Random` and torn crashes keep.
    pub fn new(seed: u64) -> Self {
        Self::with(State::new(seed))
    }

    fn with(state: State) -> Self {
        Self {
            state: Arc::new(Mutex::new(state)),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Mutating calls so far.
    pub fn calls(&self) -> u64 {
        self.state().calls
    }

    /// Mutating call `n` and everything after it fails. Call `n` itself does not happen; a write happens unsynced.
    pub fn crash_at(&self, n: u64) {
        self.state().crash_at = Some(n);
    }

    /// True once a call met the crash.
    pub fn has_crashed(&self) -> bool {
        self.state().crashed
    }

    /// The disk after a crash now, or at `crash_at`. Its calls count from 1, faults and lies are gone, locks too. This
    /// disk works no more, but can be restarted again, in other modes.
    #[must_use]
    pub fn restart(&self, mode: CrashMode) -> Self {
        let mut state = self.state();
        state.crashed = true;
        Self::with(state.survivor(mode))
    }

    /// Mutating call `n` fails, once.
    pub fn fail_call(&self, n: u64, fault: Fault) {
        self.state().faults.insert(n, fault);
    }

    /// The next `times` reads of files under `path_prefix` fail.
    pub fn fail_reads(&self, path_prefix: &str, fault: ReadFault, times: u64) {
        self.state()
            .read_faults
            .push((path_prefix.to_owned(), fault, times));
    }

    /// From now on so many bytes can still be taken. Pages of 4 KiB count, written or allocated; a folder is one.
    pub fn set_space(&self, free_bytes: u64) {
        self.state().set_space(free_bytes);
    }

    /// Bytes that can still be taken; `None` while there is no limit.
    pub fn free_space(&self) -> Option<u64> {
        self.state().free_space()
    }

    /// Reads succeed again.
    pub fn heal_reads(&self) {
        self.state().read_faults.clear();
    }

    /// Whether files and names can be changed.
    pub fn set_read_only(&self, read_only: bool) {
        self.state().read_only = read_only;
    }

    /// Syncs of paths under the prefix do nothing from now on and report success.
    pub fn lie(&self, lie: Lie, path_prefix: &str) {
        self.state().lies.push((lie, path_prefix.to_owned()));
    }

    /// Syncs do again what they say.
    pub fn stop_lying(&self) {
        self.state().lies.clear();
    }

    /// Turns a bit over at rest.
    pub fn flip_bit(&self, path: impl AsRef<Path>, offset: u64, bit: u8) {
        self.damage(path.as_ref(), |content| content.flip(offset, bit));
    }

    /// Cuts a file at rest.
    pub fn truncate(&self, path: impl AsRef<Path>, len: u64) {
        self.damage(path.as_ref(), |content| {
            content.apply(&content::Change::SetLen(len));
        });
    }

    fn damage(&self, path: &Path, harm: impl Fn(&mut Content)) {
        let mut state = self.state();
        let ino = state.tree.find(path);
        if let Some(file) = ino.and_then(|ino| state.tree.file_mut(ino)) {
            file.sync();
            harm(&mut file.seen);
            harm(&mut file.durable);
        }
    }

    /// Makes a file vanish at rest.
    pub fn remove_at_rest(&self, path: impl AsRef<Path>) {
        self.state().set_at_rest(path.as_ref(), None);
    }

    /// Exchanges two files at rest.
    pub fn swap(&self, a: impl AsRef<Path>, b: impl AsRef<Path>) {
        let mut state = self.state();
        let (in_a, in_b) = (state.tree.find(a.as_ref()), state.tree.find(b.as_ref()));
        state.set_at_rest(a.as_ref(), in_b);
        state.set_at_rest(b.as_ref(), in_a);
    }

    /// Paths of all files, sorted.
    pub fn snapshot_paths(&self) -> Vec<PathBuf> {
        self.state()
            .tree
            .files()
            .into_iter()
            .map(|(path, _)| path)
            .collect()
    }

    /// A mutating call on names, in which a sync has no part.
    fn mutate<T>(
        &self,
        doing: &'static str,
        path: &Path,
        act: impl FnOnce(&mut State, u64) -> std::result::Result<T, Errno>,
    ) -> Result<T> {
        let mut state = self.state();
        match state.admit(doing, path)? {
            Admitted::Go(call) => act(&mut state, call).map_err(|errno| failed(doing, path, errno)),
            Admitted::Fault(fault) => Err(failed(doing, path, fault.errno())),
            Admitted::Crash => Err(State::crash_error(doing, path)),
        }
    }

    fn look<T>(
        &self,
        doing: &'static str,
        path: &Path,
        act: impl FnOnce(&State) -> std::result::Result<T, Errno>,
    ) -> Result<T> {
        let state = self.state();
        state.alive(doing, path)?;
        act(&state).map_err(|errno| failed(doing, path, errno))
    }
}

impl Disk for SimDisk {
    fn open(&self, path: &Path, mode: OpenMode) -> Result<Box<dyn DiskFile>> {
        let ino = if mode == OpenMode::CreateNew {
            self.mutate("opening", path, |state, call| state.create(call, path))?
        } else {
            self.look("opening", path, |state| {
                let ino = state.tree.find(path).ok_or(Errno::NOENT)?;
                match state.tree.nodes.get(&ino) {
                    Some(Node::Folder(_)) => Err(Errno::ISDIR),
                    _ if mode.writes() && state.read_only => Err(Errno::ROFS),
                    _ => Ok(ino),
                }
            })?
        };
        Ok(Box::new(SimFile::new(self.clone(), ino, path, mode)))
    }

    fn kind(&self, path: &Path) -> Result<FileKind> {
        self.look("looking at", path, |state| {
            let ino = state.tree.find(path).ok_or(Errno::NOENT)?;
            Ok(match state.tree.nodes.get(&ino) {
                Some(Node::Folder(_)) => FileKind::Folder,
                _ => FileKind::File,
            })
        })
    }

    fn create_folders(&self, path: &Path) -> Result<()> {
        self.mutate("making the folder", path, |state, call| {
            state.create_folders(call, path)
        })
    }

    fn link(&self, from: &Path, to: &Path) -> Result<bool> {
        self.mutate("naming", to, |state, call| {
            let ino = state.tree.find(from).ok_or(Errno::NOENT)?;
            state.tree.file(ino).ok_or(Errno::PERM)?;
            let place = state.tree.place(to).ok_or(Errno::NOENT)?;
            if place.ino.is_some() {
                return Ok(false);
            }
            state
                .tree
                .rename_to(call, place.folder, &place.name, Some(ino));
            state.touch(ino);
            Ok(true)
        })
    }

    fn rename(&self, from: &Path, to: &Path) -> Result<()> {
        self.mutate("renaming", from, |state, call| {
            let source = state.tree.place(from).ok_or(Errno::NOENT)?;
            let target = state.tree.place(to).ok_or(Errno::NOENT)?;
            let ino = source.ino.ok_or(Errno::NOENT)?;
            if target.ino == Some(ino) {
                return Ok(());
            }
            if target
                .ino
                .is_some_and(|old| state.tree.folder(old).is_some())
            {
                return Err(Errno::ISDIR);
            }
            state
                .tree
                .rename_to(call, source.folder, &source.name, None);
            state
                .tree
                .rename_to(call, target.folder, &target.name, Some(ino));
            state.touch(ino);
            target
                .ino
                .into_iter()
                .for_each(|old| state.release_space(old));
            Ok(())
        })
    }

    fn remove(&self, path: &Path) -> Result<()> {
        self.mutate("removing", path, |state, call| {
            let Some(place) = state.tree.place(path) else {
                return Ok(());
            };
            let Some(ino) = place.ino else { return Ok(()) };
            state.tree.file(ino).ok_or(Errno::ISDIR)?;
            state.tree.rename_to(call, place.folder, &place.name, None);
            state.touch(ino);
            state.release_space(ino);
            Ok(())
        })
    }

    fn remove_folder(&self, path: &Path) -> Result<()> {
        self.mutate("removing", path, |state, call| {
            let Some(place) = state.tree.place(path) else {
                return Ok(());
            };
            let Some(ino) = place.ino else { return Ok(()) };
            if state.tree.folder(ino).ok_or(Errno::NOTDIR)?.seen.is_empty() {
                state.tree.rename_to(call, place.folder, &place.name, None);
                state.release_space(ino);
            }
            Ok(())
        })
    }

    fn list(&self, path: &Path) -> Result<Vec<String>> {
        self.look("listing", path, |state| match state.tree.find(path) {
            Some(ino) => {
                let folder = state.tree.folder(ino).ok_or(Errno::NOTDIR)?;
                Ok(folder.seen.keys().cloned().collect())
            }
            None => Ok(Vec::new()),
        })
    }

    fn sync_folder(&self, path: &Path) -> Result<()> {
        let mut state = self.state();
        let admitted = state.admit("syncing the folder", path)?;
        let lies = state.lies(Lie::FolderSync, path);
        let ino = state.tree.find(path);
        let folder = ino.and_then(|ino| state.tree.folder_mut(ino));
        let folder = folder.ok_or_else(|| failed("syncing the folder", path, Errno::NOENT))?;
        match admitted {
            Admitted::Go(_) if lies => Ok(()),
            Admitted::Go(_) => {
                folder.sync();
                Ok(())
            }
            Admitted::Fault(fault) => {
                folder.unsynced.clear();
                Err(failed("syncing the folder", path, fault.errno()))
            }
            Admitted::Crash => Err(State::crash_error("syncing the folder", path)),
        }
    }

    fn is_writable(&self, folder: &Path) -> bool {
        let state = self.state();
        let ino = state.tree.find(folder);
        !state.read_only && ino.is_some_and(|ino| state.tree.folder(ino).is_some())
    }

    fn canonical(&self, path: &Path) -> Result<PathBuf> {
        self.kind(path)?;
        Ok(Path::new("/").join(tree::parts(path).iter().collect::<PathBuf>()))
    }
}
