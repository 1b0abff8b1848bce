//! Opening: the lock, the log, what overlays are there, and which must be.

use super::disk::Volume;
use super::host::Host;
use super::layers::{Head, Layers, Readers};
use super::overlay::Overlay;
use super::turn::Turn;
use crate::catalog::DeviceState;
use crate::error::{Error, ErrorKind, Result};
use crate::format::entry::{HeadOrigin, Op, SessionKind, VolumeRecord};
use crate::format::overlay::OverlayName;
use crate::id::Uid;
use crate::object::Purse;
use crate::ops::view::Reader;
use crate::store::Store;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

const DOING: &str = "opening a volume";

/// What the volumes of a store share.
pub struct Shared<'a> {
    pub(super) store: &'a Store,
    pub(super) host: Host,
    pub(super) readers: Arc<Readers<'a>>,
}

/// The volumes of a store that this process has open. All calls may come from several threads.
pub struct Volumes<'a> {
    pub(super) shared: Arc<Shared<'a>>,
    open: Mutex<BTreeMap<Uid, Arc<Volume<'a>>>>,
}

impl<'a> Volumes<'a> {
    /// None open yet. Reads what is in packs through `reader`, whose cache it shares; without one, through one of its own.
    pub fn open(store: &'a Store, reader: Option<Arc<Reader<'a>>>) -> Result<Self> {
        Ok(Self {
            shared: Arc::new(Shared {
                store,
                host: Host::of(store)?,
                readers: Arc::new(Readers::new(store, reader)),
            }),
            open: Mutex::default(),
        })
    }

    /// Opens a volume, or gives the one that is open; it stays so until `close`. `Busy` while another process has it, `Refused`
    /// where its overlays are on another host or not all there, `InvalidInput` for a device that is no volume.
    pub fn volume(&self, device: &Uid) -> Result<Arc<Volume<'a>>> {
        let mut open = self.opened();
        // One that has ended is opened anew once its last user is gone.
        if let Some(volume) = open.get(device)
            && volume.check_not_ended().is_ok()
        {
            return Ok(volume.clone());
        }
        open.remove(device);
        let own = &mut |d: &DeviceState| self.shared.own(d);
        let volume = Arc::new(self.shared.open(device, own)?);
        open.insert(*device, volume.clone());
        Ok(volume)
    }

    /// Lets go of a volume: flushed and free for other processes once nobody uses it any more.
    pub fn close(&self, device: &Uid) {
        let closed = self.opened().remove(device);
        drop(closed);
    }

    /// Turns of all of them, opened where they are not.
    pub(super) fn turns(&self, devices: &[Uid]) -> Result<Vec<Turn<'a>>> {
        let volumes: Result<Vec<_>> = devices.iter().map(|d| self.volume(d)).collect();
        let turns = Turn::take_all(volumes?);
        let catalog = self.shared.store.refresh()?;
        for turn in &turns {
            turn.volume().catch_up(&catalog)?;
        }
        turns
            .iter()
            .try_for_each(|turn| turn.volume().check_not_ended())?;
        Ok(turns)
    }

    pub(super) fn opened(&self) -> MutexGuard<'_, BTreeMap<Uid, Arc<Volume<'a>>>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The record by which a volume is this host's; asked for under its lock.
pub(super) type Own<'t> = &'t mut dyn FnMut(&DeviceState) -> Result<VolumeRecord>;

impl<'a> Shared<'a> {
    fn device(&self, device: &Uid) -> Result<Arc<DeviceState>> {
        let catalog = self.store.refresh()?;
        catalog.device(device).cloned().ok_or_else(|| {
            Error::new(ErrorKind::NotFound, DOING)
                .at(device)
                .detail("there is no such device")
        })
    }

    /// Opens a volume for which `own` gives a record.
    pub(super) fn open(self: &Arc<Self>, device: &Uid, own: Own<'_>) -> Result<Volume<'a>> {
        if self.store.is_read_only() {
            return Err(Error::new(ErrorKind::ReadOnly, DOING)
                .at(self.store.describe())
                .detail("the store cannot be written"));
        }
        record_of(&*self.device(device)?)?;
        let lock = self.host.lock(device)?;
        // Under the lock: whoever had it before is done with the volume.
        let state = self.device(device)?;
        let record = own(&state)?;
        check_countable(&state, &record)?;
        // ORDER: the entry is durable, whoever wrote it and was cut off, before anything is acknowledged into the overlays that
        // it makes current, and before those are removed that it makes needless.
        self.store.log.make_durable()?;
        let name = |n| self.name(device, &record, n);
        self.host.remove_parts(device)?;
        self.remove_old(device, &record)?;
        let overlays = self.chain(device, &record)?;
        let opened: Result<Vec<Arc<Overlay>>> = overlays
            .iter()
            .rev()
            .map(|n| {
                let name = name(*n);
                let overlay = Overlay::open(&*self.host.disk, &self.host.path_of(&name), name)?;
                Ok(Arc::new(overlay))
            })
            .collect();
        let overlays = opened?;
        if overlays[0].is_sealed() {
            return Err(missing(&state.name, overlays[0].name().n + 1));
        }
        // A crash came before they were marked, or the one above was made beforehand: without it they are old from now on.
        overlays[1..].iter().for_each(|overlay| overlay.seal());
        let layers = Layers {
            overlays,
            head: state.head.map(|head| Arc::new(Head::new(head))),
            size: record.size,
            readers: self.readers.clone(),
        };
        Ok(Volume::new(self.clone(), *device, layers, record, lock))
    }

    pub(super) fn name(&self, device: &Uid, record: &VolumeRecord, n: u64) -> OverlayName {
        OverlayName {
            store: self.store.id(),
            volume: *device,
            host: record.host.unwrap_or(Uid([0; 16])),
            generation: record.generation,
            n,
        }
    }

    /// Removes overlays of other generations, and those that the head has.
    fn remove_old(&self, device: &Uid, record: &VolumeRecord) -> Result<()> {
        let old: Vec<PathBuf> = self
            .host
            .overlays(device)?
            .into_iter()
            .filter(|(generation, n)| *generation != record.generation || *n <= record.absorbed)
            .map(|(generation, n)| {
                let name = OverlayName {
                    generation,
                    ..self.name(device, record, n)
                };
                self.host.path_of(&name)
            })
            .collect();
        if old.is_empty() {
            return Ok(());
        }
        self.host.remove(&old)
    }

    /// Numbers of the overlays, which follow each other from the first that is not absorbed on.
    fn chain(&self, device: &Uid, record: &VolumeRecord) -> Result<Vec<u64>> {
        let there = self.host.overlays(device)?;
        let numbers: Vec<u64> = there
            .into_iter()
            .filter(|(generation, n)| *generation == record.generation && *n > record.absorbed)
            .map(|(_, n)| n)
            .collect();
        let mut wanted = record.absorbed + 1;
        for n in &numbers {
            if *n != wanted {
                break;
            }
            wanted += 1;
        }
        if numbers.is_empty() || wanted <= *numbers.last().unwrap_or(&0) {
            return Err(missing(&device.to_string(), wanted));
        }
        Ok(numbers)
    }

    /// The record of a volume of this host; one that no host has becomes this one's, another host's is refused.
    fn own(&self, device: &DeviceState) -> Result<VolumeRecord> {
        let record = record_of(device)?;
        match record.host {
            None => self.take_over(device),
            host if host == self.host.id()? => Ok(record),
            Some(_) => Err(Error::new(ErrorKind::Refused, DOING)
                .at(&device.name)
                .detail("what was written to it last is on another host")
                .hint(format!(
                    "`still volume move {0}` there hands it over; \
                     `still volume move {0} --take` here gives up what was not in a snapshot",
                    device.name
                ))),
        }
    }

    /// Makes the volume this host's, as it is in the store: a new generation, whose first overlay is durable before the entry.
    pub(super) fn take_over(&self, device: &DeviceState) -> Result<VolumeRecord> {
        let old = record_of(device)?;
        let host = self.host.id_or_new(&mut || self.store.new_uid())?;
        let record = VolumeRecord {
            generation: old.generation.saturating_add(1),
            absorbed: 0,
            host: Some(host),
            ..old
        };
        self.new_overlay(&device.uid, &record, 1)?;
        let op = Op::PutVolume {
            uid: device.uid,
            expect: Some(old.point()),
            volume: Some(record),
            head: device.head,
            base: device.base,
            origin: HeadOrigin::Existing,
        };
        let plan = &mut |_: &crate::catalog::Catalog| Ok(vec![op.clone()]);
        self.store
            .commit(SessionKind::Writer, Purse::Free, plan)
            .map(|()| record)
    }

    /// An empty overlay, durable with its name.
    pub(super) fn new_overlay(
        &self,
        device: &Uid,
        record: &VolumeRecord,
        n: u64,
    ) -> Result<Arc<Overlay>> {
        let name = self.name(device, record, n);
        let (disk, path) = (&*self.host.disk, self.host.path_of(&name));
        // What has that name was left by a try that failed, and was never in force.
        let overlay = Overlay::create(disk, &path, name, self.store.new_uid().0)?;
        disk.sync_folder(&self.host.folder_of(device))?;
        Ok(Arc::new(overlay))
    }
}

/// What the log says of a volume.
fn record_of(device: &DeviceState) -> Result<VolumeRecord> {
    device.volume.ok_or_else(|| {
        Error::invalid(DOING, "the device is no volume")
            .at(&device.name)
            .hint("`still volume create NAME --from DEVICE` makes one of it")
    })
}

/// Numbers of overlays are counted up from there without a look at how far.
fn check_countable(device: &DeviceState, record: &VolumeRecord) -> Result<()> {
    if record.absorbed > u64::MAX / 2 || record.generation > u64::MAX / 2 {
        let why = "no volume has had so many overlays";
        return Err(Error::corrupt(DOING, why).at(&device.name));
    }
    Ok(())
}

fn missing(volume: &str, n: u64) -> Error {
    Error::new(ErrorKind::Refused, DOING)
        .at(volume)
        .detail(format!("its overlay {n} is missing, with what was written to it"))
        .hint("bring its file back; `still volume move NAME --take` goes on with what is in the store")
}
