//! An open file of a simulated disk.

use super::content::{Change, SECTOR};
use super::state::{Admitted, State};
use super::tree::Ino;
use super::{Fault, Lie, ReadFault, SimDisk, failed};
use crate::disk::{DiskFile, Extent, OpenMode, Stamp};
use crate::error::Result;
use rustix::io::Errno;
use std::path::{Path, PathBuf};

pub(super) struct SimFile {
    disk: SimDisk,
    ino: Ino,
    handle: u64,
    path: PathBuf,
    writable: bool,
}

impl SimFile {
    pub(super) fn new(disk: SimDisk, ino: Ino, path: &Path, mode: OpenMode) -> Self {
        let handle = {
            let mut state = disk.state();
            *state.opens.entry(ino).or_default() += 1;
            state.handles += 1;
            state.handles
        };
        Self {
            disk,
            ino,
            handle,
            path: path.to_owned(),
            writable: mode.writes(),
        }
    }

    fn change(&self, doing: &'static str, change: Change) -> Result<()> {
        let mut state = self.disk.state();
        if !self.writable {
            return Err(failed(doing, &self.path, Errno::BADF));
        }
        let is_write = matches!(change, Change::Write { .. });
        match state.admit(doing, &self.path)? {
            Admitted::Go(call) => {
                let full = state.change(call, self.ino, change);
                full.map_err(|errno| failed(doing, &self.path, errno))
            }
            Admitted::Fault(fault) => {
                if fault == Fault::Enospc
                    && let Change::Write { offset, data } = change
                {
                    let half = data[..data.len() / 2].into();
                    let call = state.calls;
                    // Half a write is more than a caller may count on either way.
                    let _full = state.change(call, self.ino, Change::Write { offset, data: half });
                }
                Err(failed(doing, &self.path, fault.errno()))
            }
            Admitted::Crash => {
                if is_write {
                    let call = state.calls;
                    state.change_anyway(call, self.ino, change);
                }
                Err(State::crash_error(doing, &self.path))
            }
        }
    }

    fn look<T>(&self, doing: &'static str, act: impl FnOnce(&State) -> T) -> Result<T> {
        let state = self.disk.state();
        state.alive(doing, &self.path)?;
        Ok(act(&state))
    }

    fn lock(&self, exclusive: bool) -> Result<bool> {
        let mut state = self.disk.state();
        state.alive("locking", &self.path)?;
        let holders = state.locks.entry(self.ino).or_default();
        let others_write = holders.exclusive.is_some_and(|h| h != self.handle);
        let others_read = holders.shared.iter().any(|h| *h != self.handle);
        if others_write || (exclusive && others_read) {
            return Ok(false);
        }
        if exclusive {
            holders.shared.remove(&self.handle);
            holders.exclusive = Some(self.handle);
        } else {
            holders.exclusive = None;
            holders.shared.insert(self.handle);
        }
        Ok(true)
    }
}

impl Drop for SimFile {
    fn drop(&mut self) {
        let mut state = self.disk.state();
        if let Some(holders) = state.locks.get_mut(&self.ino) {
            holders.exclusive = holders.exclusive.filter(|h| *h != self.handle);
            holders.shared.remove(&self.handle);
        }
        let opens = state.opens.entry(self.ino).or_default();
        *opens = opens.saturating_sub(1);
        if *opens == 0 {
            state.opens.remove(&self.ino);
            state.release_space(self.ino);
        }
    }
}

impl DiskFile for SimFile {
    fn len(&self) -> Result<u64> {
        self.look("reading the size of", |s| {
            s.tree.file(self.ino).map_or(0, |f| f.seen.len)
        })
    }

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> Result<usize> {
        let mut state = self.disk.state();
        state.alive("reading", &self.path)?;
        let wanted = match state.read_fault(&self.path) {
            Some(ReadFault::Eio) => {
                return Err(failed("reading", &self.path, Errno::IO).offset(offset));
            }
            Some(ReadFault::Short) => buf.len() / 2,
            None => buf.len(),
        };
        Ok(state
            .tree
            .file(self.ino)
            .map_or(0, |f| f.seen.read(offset, &mut buf[..wanted])))
    }

    fn write_at(&self, offset: u64, data: &[u8]) -> Result<()> {
        self.change(
            "writing",
            Change::Write {
                offset,
                data: data.into(),
            },
        )
        .map_err(|e| e.offset(offset))
    }

    fn set_len(&self, len: u64) -> Result<()> {
        self.change("resizing", Change::SetLen(len))
    }

    fn punch(&self, start: u64, end: u64) -> Result<()> {
        self.change("punching a hole into", Change::Punch { start, end })
    }

    fn allocate(&self, len: u64) -> Result<()> {
        self.change("reserving space for", Change::Allocate(len))
    }

    fn extent(&self, offset: u64) -> Result<Extent> {
        let none = Extent {
            start: offset,
            end: offset,
            data: false,
        };
        self.look("looking for holes in", |s| {
            s.tree
                .file(self.ino)
                .map_or(none, |f| f.seen.extent(offset))
        })
    }

    fn sync(&self) -> Result<()> {
        let mut state = self.disk.state();
        let admitted = state.admit("syncing", &self.path)?;
        let lies = state.lies(Lie::FileSync, &self.path);
        let Some(file) = state.tree.file_mut(self.ino) else {
            return Err(failed("syncing", &self.path, Errno::IO));
        };
        match admitted {
            Admitted::Go(_) if lies => Ok(()),
            Admitted::Go(_) => {
                file.sync();
                Ok(())
            }
            Admitted::Fault(fault) => {
                // As Linux does: the pages count as clean, and are gone after a crash.
                file.unsynced.clear();
                Err(failed("syncing", &self.path, fault.errno()))
            }
            Admitted::Crash => Err(State::crash_error("syncing", &self.path)),
        }
    }

    fn stamp(&self) -> Result<Stamp> {
        self.look("reading the times of", |s| {
            let (len, times) = s
                .tree
                .file(self.ino)
                .map_or((0, (0, 0)), |f| (f.seen.len, f.times));
            Stamp {
                len,
                inode: (SECTOR, self.ino),
                times,
            }
        })
    }

    fn try_lock(&self) -> Result<bool> {
        self.lock(true)
    }

    fn try_lock_shared(&self) -> Result<bool> {
        self.lock(false)
    }

    fn is_still_named(&self) -> Result<bool> {
        self.look("looking at", |s| s.tree.find(&self.path) == Some(self.ino))
    }

    fn is_ours_alone(&self) -> Result<bool> {
        let files = self.look("looking at", |s| s.tree.files())?;
        let names = files.iter().filter(|(_, ino)| *ino == self.ino).count();
        Ok(names == 1 && self.is_still_named()?)
    }
}
