//! A device of a store as a qcow2 image: its snapshots are the table, its image or head is the disk.

mod spool;
#[cfg(test)]
mod tests;

use crate::compat::driver::{DriverError, DriverResult};
use crate::compat::errno;
use crate::compat::graph::{Graph, Node, NodeId};
use crate::compat::info::{ICOUNT_NONE, IdStr, NameStr, QemuSnapshotInfo};
use crate::compat::qcow2::{ChooseId, Entry, Qcow2, Table};
use crate::owned_view::OwnedView;
use crate::raw::{CreateRaw, RawSnapshot};
use crate::system::System;
use crate::view::DeviceView;
use spool::{Part, Spool};
use std::sync::Arc;
use stillpoint_store::disk::{DiskFile, FileKind, OpenMode};
use stillpoint_store::format::entry::Content;
use stillpoint_store::id::Uid;
use stillpoint_store::progress::Progress;
use stillpoint_store::world::Moment;
use stillpoint_store::{Error, Result};

/// The table of a device. Every operation is durable when it returns; the image is locked only while one is at work.
pub struct StoreTable {
    system: Arc<System>,
    device: String,
    /// Whoever removes the device and gives its name to another disk does not hand this table over to it.
    uid: Uid,
    progress: Arc<Progress>,
    active: Active,
    shown: Option<Shown>,
    /// The head of a device without an image, as it was when it was read last.
    head: Option<OwnedView>,
}

/// The snapshot that reads are of.
struct Shown {
    uid: Uid,
    disk: OwnedView,
    vm_state: Option<OwnedView>,
}

/// Active VM state.
enum Active {
    Empty,
    /// Written since; not in the store.
    Written(Spool),
    /// That of the snapshot gone to. It stays readable after its snapshot went, as a qcow2 image's own clusters would.
    Stored(OwnedView),
}

impl StoreTable {
    /// The table of the device of that name. `NotFound` where there is none.
    pub fn open(system: Arc<System>, device: &str) -> Result<Self> {
        let uid = system.device(device)?.uid;
        Ok(Self {
            system,
            device: device.into(),
            uid,
            progress: Arc::default(),
            active: Active::Empty,
            shown: None,
            head: None,
        })
    }

    /// Counts here what its operations do.
    #[must_use]
    pub fn with_progress(mut self, progress: Arc<Progress>) -> Self {
        self.progress = progress;
        self
    }

    fn view(&self) -> Result<DeviceView> {
        self.system.device_of_uid(self.uid, &self.device)
    }

    fn image(&self) -> Result<Option<Box<dyn DiskFile>>> {
        let view = self.system.readable_device(self.uid, &self.device)?;
        view.image
            .map(|path| self.system.disk.open(&path, OpenMode::Read))
            .transpose()
    }

    fn list(&self) -> DriverResult<Vec<RawSnapshot>> {
        let all = self.system.list_raw_of(self.uid, &self.device);
        all.map_err(of_device)
    }

    fn snapshot(&self, uid: Uid) -> DriverResult<RawSnapshot> {
        let all = self.list()?;
        let found = all.into_iter().find(|s| s.uid == uid);
        found.ok_or_else(|| DriverError::errno(errno::ENOENT))
    }

    fn pinned(&self, content: Option<Content>) -> Result<Option<OwnedView>> {
        let open = |content| OwnedView::open(&self.system, content);
        content.map(open).transpose()
    }

    fn shown(&self, uid: Uid) -> DriverResult<&Shown> {
        let shown = self.shown.as_ref().filter(|s| s.uid == uid);
        shown.ok_or_else(|| DriverError::errno(errno::ENOENT))
    }

    fn head(&mut self, head: Option<Content>) -> DriverResult<&OwnedView> {
        if self.head.as_ref().map(OwnedView::content) != head {
            self.head = self.pinned(head)?;
        }
        let none = || DriverError::errno(errno::ENOMEDIUM);
        self.head.as_ref().ok_or_else(none)
    }

    /// A volume holds what was written to it since, too. It is open during the call only, so that others can have it.
    fn read_volume(&self, at: u64, into: &mut [u8]) -> Result<()> {
        let volumes = self.system.volumes()?;
        let volume = volumes.volume(&self.uid)?;
        let there = volume.size().saturating_sub(at).min(into.len() as u64) as usize;
        let (inside, beyond) = into.split_at_mut(there);
        beyond.fill(0);
        if inside.is_empty() {
            return Ok(());
        }
        volume.read_at(at, inside)
    }

    /// The active VM state as a file, what came from a snapshot included.
    fn spool(&mut self) -> Result<&Spool> {
        if !matches!(self.active, Active::Written(_)) {
            let spool = match &self.active {
                Active::Stored(view) => view.with(Spool::of)?,
                _ => Spool::new()?,
            };
            self.active = Active::Written(spool);
        }
        match &self.active {
            Active::Written(spool) => Ok(spool),
            _ => Err(Error::invalid(
                "keeping VM state",
                "there is no room for it",
            )),
        }
    }
}

impl Table for StoreTable {
    fn format_name(&self) -> &'static str {
        "stillpoint"
    }

    fn has_fixed_size(&self) -> bool {
        let image = self.view().ok().and_then(|v| v.image);
        let kind = image.and_then(|path| self.system.disk.kind(&path).ok());
        kind == Some(FileKind::BlockDevice)
    }

    fn entries(&mut self) -> DriverResult<Vec<Entry>> {
        Ok(self.list()?.iter().map(entry).collect())
    }

    fn put(&mut self, info: &QemuSnapshotInfo, id: ChooseId<'_>) -> DriverResult<IdStr> {
        let len = info.vm_state_size;
        if len > 0 {
            self.spool()?;
        }
        let part = match &self.active {
            Active::Written(spool) if len > 0 => Some(Part { spool, len }),
            _ => None,
        };
        let create = CreateRaw {
            device: &self.device,
            uid: Some(self.uid),
            name: info.name.as_bytes(),
            date: Moment {
                sec: u64::from(info.date_sec),
                nsec: info.date_nsec,
            },
            vm_clock_nsec: info.vm_clock_nsec,
            icount: Some(info.icount).filter(|n| *n != ICOUNT_NONE),
            vm_state: part.as_ref().map(|p| p as &dyn DiskFile),
        };
        let mut refused = None;
        let made = self.system.create_raw(
            &create,
            &mut |all| {
                let all: Vec<Entry> = all.iter().map(entry).collect();
                let chosen = id(&all).map(|id| id.as_bytes().to_vec());
                chosen.map_err(|e| {
                    refused = Some(e);
                    Error::invalid("making a snapshot", "its id was refused")
                })
            },
            &self.progress,
        );
        match (made, refused) {
            (Ok(made), _) => Ok(IdStr::new(&made.id)),
            (Err(_), Some(refused)) => Err(refused),
            (Err(e), None) => Err(of_device(e)),
        }
    }

    fn restore(&mut self, uid: Uid) -> DriverResult<()> {
        // ORDER: pinned before the disk is what it belongs to: afterwards anybody may have deleted it.
        let vm_state = self.pinned(self.snapshot(uid)?.vm_state)?;
        self.system.goto_uid(&self.device, uid, &self.progress)?;
        self.active = vm_state.map_or(Active::Empty, Active::Stored);
        Ok(())
    }

    fn remove(&mut self, uid: Uid) -> DriverResult<()> {
        Ok(self.system.delete_uid(uid)?)
    }

    fn show(&mut self, of: Option<Uid>) -> DriverResult<()> {
        let Some(uid) = of else {
            self.shown = None;
            return Ok(());
        };
        let snapshot = self.snapshot(uid)?;
        let shown = Shown {
            uid,
            disk: OwnedView::open(&self.system, snapshot.content)?,
            vm_state: self.pinned(snapshot.vm_state)?,
        };
        self.shown = Some(shown);
        Ok(())
    }

    fn size(&mut self) -> DriverResult<u64> {
        if let Some(file) = self.image().map_err(of_device)? {
            return Ok(file.len()?);
        }
        let view = self.view().map_err(of_device)?;
        let head = view.head.map_or(0, |head| head.size);
        // Growing a volume leaves its head as it is.
        let volume = view.size.filter(|_| view.volume);
        Ok(volume.unwrap_or(head))
    }

    fn read_at(&mut self, of: Option<Uid>, at: u64, into: &mut [u8]) -> DriverResult<()> {
        if let Some(uid) = of {
            return Ok(self.shown(uid)?.disk.read(at, into)?);
        }
        if let Some(file) = self.image().map_err(of_device)? {
            return Ok(read_padded(&*file, at, into)?);
        }
        let view = self.view().map_err(of_device)?;
        if view.volume {
            return Ok(self.read_volume(at, into)?);
        }
        Ok(self.head(view.head)?.read(at, into)?)
    }

    fn write_vmstate(&mut self, at: u64, bytes: &[u8]) -> DriverResult<()> {
        Ok(self.spool()?.write_at(at, bytes)?)
    }

    fn read_vmstate(&mut self, of: Option<Uid>, at: u64, into: &mut [u8]) -> DriverResult<()> {
        let view = match (of, &self.active) {
            (Some(uid), _) => self.shown(uid)?.vm_state.as_ref(),
            (None, Active::Empty) => None,
            (None, Active::Written(spool)) => return Ok(spool.read_at(at, into)?),
            (None, Active::Stored(view)) => Some(view),
        };
        if let Some(view) = view {
            return Ok(view.read(at, into)?);
        }
        into.fill(0);
        Ok(())
    }

    fn vmstate_len(&mut self, of: Option<Uid>) -> DriverResult<u64> {
        let bytes = |view: &OwnedView| view.content().size;
        match (of, &self.active) {
            (Some(uid), _) => Ok(self.shown(uid)?.vm_state.as_ref().map_or(0, bytes)),
            (None, Active::Empty) => Ok(0),
            (None, Active::Written(spool)) => Ok(spool.len()?),
            (None, Active::Stored(view)) => Ok(bytes(view)),
        }
    }

    fn discard_vmstate(&mut self) -> DriverResult<()> {
        self.active = Active::Empty;
        Ok(())
    }
}

/// Where no snapshot is looked for, it is the device that is gone: no medium, since ENOENT says "no such snapshot".
fn of_device(e: Error) -> DriverError {
    let e = DriverError::from(e);
    let errno = match e.errno {
        errno::ENOENT => errno::ENOMEDIUM,
        other => other,
    };
    DriverError { errno, ..e }
}

/// Reads from any position: what lies behind the end is zeros, also where no file could reach.
fn read_padded(file: &dyn DiskFile, at: u64, into: &mut [u8]) -> Result<()> {
    let read = if at < file.len()? {
        file.read_at(at, into)?
    } else {
        0
    };
    into[read..].fill(0);
    Ok(())
}

fn entry(snapshot: &RawSnapshot) -> Entry {
    Entry {
        uid: snapshot.uid,
        info: QemuSnapshotInfo {
            id_str: IdStr::new(&snapshot.id),
            name: NameStr::new(&snapshot.name),
            vm_state_size: snapshot.vm_state.map_or(0, |s| s.size),
            date_sec: snapshot.date.sec as u32,
            date_nsec: snapshot.date.nsec,
            vm_clock_nsec: snapshot.vm_clock_nsec,
            icount: snapshot.icount.unwrap_or(ICOUNT_NONE),
        },
        disk_size: snapshot.content.size,
        unknown_extra: snapshot.extra_bytes as u64,
    }
}

impl Graph {
    /// Adds a device of a store as a drive of its name, read-only if it was attached so.
    pub fn add_device(&mut self, system: &Arc<System>, device: &str) -> Result<NodeId> {
        let read_only = system.device(device)?.read_only;
        let table = StoreTable::open(system.clone(), device)?;
        let mut node = Node::new(device, Box::new(Qcow2::new(table))).implicit();
        node.read_only = read_only;
        let id = self.add(node)?;
        self.add_backend(device, Some(id));
        Ok(id)
    }
}
