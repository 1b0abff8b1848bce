//! Drivers in memory: a disk with snapshots, and one without. For tests, and for whoever wants to try a release out.

use crate::compat::driver::{Driver, DriverError, DriverResult};
use crate::compat::errno;
use crate::compat::info::{IdStr, QemuSnapshotInfo};
use crate::compat::qcow2::{ChooseId, Entry, Table};
use stillpoint_store::id::Uid;

/// Bytes of VM state at most: it is held in memory.
const VM_STATE_BYTES_MAX: u64 = 1 << 30;

/// A disk, its active VM state and its snapshots.
#[derive(Debug, Default)]
pub struct MemoryTable {
    /// The disk.
    pub disk: Vec<u8>,
    /// The active VM state.
    pub vm_state: Vec<u8>,
    /// See [`Table::has_data_file`].
    pub data_file: bool,
    /// See [`Table::has_fixed_size`].
    pub fixed_size: bool,
    /// Every operation that changes the table fails with this errno.
    pub broken: Option<i32>,
    pub(super) kept: Vec<Kept>,
    pub(super) made: u64,
}

#[derive(Debug)]
pub(super) struct Kept {
    pub(super) entry: Entry,
    disk: Vec<u8>,
    /// As much of it as was written; the rest of what the entry says is zeros.
    vm_state: Vec<u8>,
}

impl MemoryTable {
    /// A disk of these bytes.
    pub fn new(disk: &[u8]) -> Self {
        Self {
            disk: disk.to_vec(),
            ..Self::default()
        }
    }

    /// Adds an entry as it is, whatever ids and names there are, with as much of the active VM state as it says.
    pub fn insert(&mut self, info: QemuSnapshotInfo, disk: &[u8]) {
        self.made += 1;
        let mut uid = [0; 16];
        uid[..8].copy_from_slice(&self.made.to_be_bytes());
        let entry = Entry {
            uid: Uid(uid),
            info,
            disk_size: disk.len() as u64,
            unknown_extra: 0,
        };
        let written = self.vm_state.len() as u64;
        self.kept.push(Kept {
            entry,
            disk: disk.to_vec(),
            vm_state: part(&self.vm_state, written.min(info.vm_state_size)),
        });
    }

    fn check(&self) -> DriverResult<()> {
        self.broken.map_or(Ok(()), |e| Err(DriverError::errno(e)))
    }

    fn kept(&self, uid: Uid) -> DriverResult<&Kept> {
        let found = self.kept.iter().find(|k| k.entry.uid == uid);
        found.ok_or_else(|| DriverError::errno(errno::ENOENT))
    }
}

fn check_state(bytes: u64) -> DriverResult<()> {
    if bytes > VM_STATE_BYTES_MAX {
        return Err(DriverError::errno(errno::EFBIG));
    }
    Ok(())
}

/// The first `len` bytes, zeros where there are fewer.
fn part(bytes: &[u8], len: u64) -> Vec<u8> {
    let mut part = bytes[..bytes.len().min(len as usize)].to_vec();
    part.resize(len as usize, 0);
    part
}

/// Bytes from `at` on, zeros beyond the end.
fn copy(from: &[u8], at: u64, into: &mut [u8]) {
    let rest = usize::try_from(at)
        .ok()
        .and_then(|at| from.get(at..))
        .unwrap_or_default();
    let n = rest.len().min(into.len());
    into[..n].copy_from_slice(&rest[..n]);
    into[n..].fill(0);
}

impl Table for MemoryTable {
    fn format_name(&self) -> &'static str {
        "qcow2"
    }

    fn has_data_file(&self) -> bool {
        self.data_file
    }

    fn has_fixed_size(&self) -> bool {
        self.fixed_size
    }

    fn entries(&mut self) -> DriverResult<Vec<Entry>> {
        Ok(self.kept.iter().map(|k| k.entry).collect())
    }

    fn put(&mut self, info: &QemuSnapshotInfo, id: ChooseId<'_>) -> DriverResult<IdStr> {
        self.check()?;
        check_state(info.vm_state_size)?;
        let id_str = id(&self.entries()?)?;
        let disk = self.disk.clone();
        self.insert(QemuSnapshotInfo { id_str, ..*info }, &disk);
        Ok(id_str)
    }

    fn restore(&mut self, uid: Uid) -> DriverResult<()> {
        self.check()?;
        let kept = self.kept(uid)?;
        check_state(kept.entry.info.vm_state_size)?;
        let vm_state = part(&kept.vm_state, kept.entry.info.vm_state_size);
        let disk = kept.disk.clone();
        self.disk = disk;
        self.vm_state = vm_state;
        Ok(())
    }

    fn remove(&mut self, uid: Uid) -> DriverResult<()> {
        self.check()?;
        self.kept.retain(|k| k.entry.uid != uid);
        Ok(())
    }

    fn size(&mut self) -> DriverResult<u64> {
        Ok(self.disk.len() as u64)
    }

    fn read_at(&mut self, of: Option<Uid>, at: u64, into: &mut [u8]) -> DriverResult<()> {
        let disk = match of {
            Some(uid) => &self.kept(uid)?.disk,
            None => &self.disk,
        };
        copy(disk, at, into);
        Ok(())
    }

    fn write_vmstate(&mut self, at: u64, bytes: &[u8]) -> DriverResult<()> {
        check_state(at.saturating_add(bytes.len() as u64))?;
        let end = at as usize + bytes.len();
        self.vm_state.resize(self.vm_state.len().max(end), 0);
        self.vm_state[at as usize..end].copy_from_slice(bytes);
        Ok(())
    }

    fn read_vmstate(&mut self, of: Option<Uid>, at: u64, into: &mut [u8]) -> DriverResult<()> {
        let state = match of {
            Some(uid) => &self.kept(uid)?.vm_state,
            None => &self.vm_state,
        };
        copy(state, at, into);
        Ok(())
    }

    fn vmstate_len(&mut self, of: Option<Uid>) -> DriverResult<u64> {
        match of {
            Some(uid) => Ok(self.kept(uid)?.entry.info.vm_state_size),
            None => Ok(self.vm_state.len() as u64),
        }
    }

    fn discard_vmstate(&mut self) -> DriverResult<()> {
        self.vm_state.clear();
        Ok(())
    }
}

/// A disk of a format without snapshots: raw, a filter, a protocol.
#[derive(Debug, Default)]
pub struct Plain {
    /// The format's name, for messages.
    pub format: String,
    /// The disk.
    pub disk: Vec<u8>,
    /// What opening it again after a goto below gives.
    pub reopen_fails: Option<i32>,
}

impl Plain {
    /// One of that format.
    pub fn new(format: &str, disk: &[u8]) -> Self {
        Self {
            format: format.into(),
            disk: disk.to_vec(),
            reopen_fails: None,
        }
    }
}

impl Driver for Plain {
    fn format_name(&self) -> &str {
        &self.format
    }

    fn size(&mut self) -> DriverResult<u64> {
        Ok(self.disk.len() as u64)
    }

    fn read_at(&mut self, at: u64, into: &mut [u8]) -> DriverResult<()> {
        copy(&self.disk, at, into);
        Ok(())
    }

    fn reopen(&mut self) -> DriverResult<()> {
        self.reopen_fails
            .map_or(Ok(()), |e| Err(DriverError::errno(e)))
    }
}
