//! A store with its devices, opened from a folder.

use crate::select::{Selector, SnapshotRef, device, device_of_uid};
use crate::view::{DeviceView, SnapshotView};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use stillpoint_store::catalog::{Catalog, DeviceState, SnapshotState};
use stillpoint_store::disk::Disk;
use stillpoint_store::disk::real::RealDisk;
use stillpoint_store::format::entry::Content;
use stillpoint_store::geometry::Geometry;
use stillpoint_store::id::Uid;
use stillpoint_store::index::slot::LocalSlots;
use stillpoint_store::object::local::{LocalObjects, Reserve};
use stillpoint_store::ops::diff::ChangedExtent;
use stillpoint_store::ops::rescue::Rescued;
use stillpoint_store::progress::Progress;
use stillpoint_store::store::{Doors, Say, Store, read_store_file};
use stillpoint_store::tuning::Tuning;
use stillpoint_store::world::{RealWorld, World};
use stillpoint_store::{Error, ErrorKind, Result};

/// A store and its devices.
pub struct System {
    pub(crate) store: Store,
    pub(crate) disk: Arc<dyn Disk>,
}

/// How a store is opened.
#[derive(Clone)]
pub struct OpenOptions {
    /// Bytes of memory for the index's cache.
    pub index_cache_bytes: usize,
    /// Takes lines for the user.
    pub say: Say,
}

impl Default for OpenOptions {
    fn default() -> Self {
        Self {
            index_cache_bytes: 32 << 20,
            say: Arc::new(|_| {}),
        }
    }
}

impl System {
    /// Makes a store in a folder that is empty or not there yet.
    pub fn init(path: &Path, geometry: Geometry) -> Result<()> {
        let geometry = geometry.check()?;
        let objects = LocalObjects::create(
            Arc::new(RealDisk),
            path,
            Reserve::default(),
            RealWorld.random(),
        )?;
        Store::create(&objects, &RealWorld, geometry).map(|_| ())
    }

    /// Opens the store in a folder.
    pub fn open(path: &Path, options: OpenOptions) -> Result<Self> {
        let disk: Arc<dyn Disk> = Arc::new(RealDisk);
        let objects = Arc::new(LocalObjects::open(
            disk.clone(),
            path,
            Reserve::default(),
            RealWorld.random(),
        )?);
        let file = read_store_file(&*objects)?;
        let index = LocalSlots::new(&path.join("local"), file.id, options.index_cache_bytes);
        let doors = Doors {
            objects: objects.clone(),
            local: objects,
            index: Arc::new(index),
            world: Arc::new(RealWorld),
            say: options.say,
        };
        Self::with(doors, disk)
    }

    /// Over any doors and any disk that images are on: for tests, and for stores that are elsewhere.
    pub fn with(doors: Doors, disk: Arc<dyn Disk>) -> Result<Self> {
        Ok(Self {
            store: Store::open(doors)?,
            disk,
        })
    }

    /// The same with other sizes and intervals: for tests.
    pub fn with_tuning(doors: Doors, disk: Arc<dyn Disk>, tuning: Tuning) -> Result<Self> {
        Ok(Self {
            store: Store::open_tuned(doors, tuning)?,
            disk,
        })
    }

    /// The engine.
    pub fn store(&self) -> &Store {
        &self.store
    }

    /// All devices, by name.
    pub fn devices(&self) -> Result<Vec<DeviceView>> {
        let catalog = self.store.refresh()?;
        Ok(sorted(&catalog)
            .into_iter()
            .map(|d| self.described(&catalog, d))
            .collect())
    }

    /// One device.
    pub fn device(&self, name: &str) -> Result<DeviceView> {
        let catalog = self.store.refresh()?;
        Ok(self.described(&catalog, device(&catalog, name)?))
    }

    /// The device of that uid, which is told of by its name.
    pub(crate) fn device_of_uid(&self, uid: Uid, name: &str) -> Result<DeviceView> {
        let catalog = self.store.refresh()?;
        Ok(self.described(&catalog, device_of_uid(&catalog, uid, name)?))
    }

    /// The same, for whoever is going to read its contents: `Refused` while a goto has written a part of them.
    pub(crate) fn readable_device(&self, uid: Uid, name: &str) -> Result<DeviceView> {
        let catalog = self.store.refresh()?;
        let device = device_of_uid(&catalog, uid, name)?;
        check_unmarked(&[device])?;
        Ok(self.described(&catalog, device))
    }

    fn described(&self, catalog: &Catalog, device: &DeviceState) -> DeviceView {
        let mut view = DeviceView::of(catalog, device);
        let attachment = device.attachment.as_ref();
        view.size = view.size.or_else(|| self.image_size(attachment?));
        view
    }

    /// The device whose image is at the path, by any name that leads to that file; `None` where there is none. The path of
    /// a file that is gone is that of its folder and its last name.
    pub fn device_of_image(&self, path: &Path) -> Result<Option<DeviceView>> {
        let found = match self.disk.canonical(path) {
            Err(e) if e.kind() == ErrorKind::NotFound => self.gone(path),
            found => found.map(Some),
        };
        let Some(path) = found? else { return Ok(None) };
        let mut all = self.devices()?.into_iter();
        Ok(all.find(|d| d.image.as_ref() == Some(&path)))
    }

    fn gone(&self, path: &Path) -> Result<Option<PathBuf>> {
        let (Some(folder), Some(name)) = (path.parent(), path.file_name()) else {
            return Ok(None);
        };
        let here = folder.as_os_str().is_empty();
        let folder = if here { Path::new(".") } else { folder };
        match self.disk.canonical(folder) {
            Ok(folder) => Ok(Some(folder.join(name))),
            Err(e) if e.kind() == ErrorKind::NotFound => Ok(None),
            Err(e) => Err(e),
        }
    }

    /// All snapshots, of one device or of all: by device, in the order in which they were made.
    pub fn list(&self, name: Option<&str>) -> Result<Vec<SnapshotView>> {
        let catalog = self.store.refresh()?;
        let devices = match name {
            Some(name) => vec![device(&catalog, name)?],
            None => sorted(&catalog),
        };
        let all = devices
            .into_iter()
            .flat_map(|d| catalog.snapshots_of(&d.uid));
        Ok(all.map(|s| SnapshotView::of(&catalog, s)).collect())
    }

    /// The snapshots that a selector means on some devices, or on all that have one.
    pub fn find(&self, snapshot: &str, devices: &[String]) -> Result<Vec<SnapshotView>> {
        let selector = Selector::parse(snapshot)?;
        let catalog = self.store.refresh()?;
        let found: Vec<SnapshotView> = choose_snapshots(&catalog, &selector, devices)?
            .into_iter()
            .map(|(_, s)| SnapshotView::of(&catalog, s))
            .collect();
        if found.is_empty() {
            return Err(Error::new(
                ErrorKind::NotFound,
                format!("looking for snapshot {selector}"),
            )
            .detail("no device has one")
            .hint("`still list` shows what there is"));
        }
        Ok(found)
    }

    /// What a reference means: a snapshot and its view, or the present contents of an unattached device.
    pub fn resolve(&self, reference: &str) -> Result<(Content, Option<SnapshotView>)> {
        let reference = SnapshotRef::parse(reference)?;
        let catalog = self.store.refresh()?;
        let d = device(&catalog, &reference.device)?;
        match &reference.snapshot {
            Some(selector) => {
                let snapshot = selector.get(&catalog, d)?;
                Ok((
                    snapshot.record.content,
                    Some(SnapshotView::of(&catalog, snapshot)),
                ))
            }
            None => d.head.map(|head| (head, None)).ok_or_else(|| no_head(d)),
        }
    }

    /// The ranges in which the second differs from the first.
    pub fn diff(&self, a: &str, b: &str) -> Result<Vec<ChangedExtent>> {
        let progress = Progress::default();
        let present = |reference| self.present(None, reference, &progress);
        let (a, b) = (present(a)?, present(b)?);
        let _pin = self.store.pin(&[a, b])?;
        self.store.diff(a, b)
    }

    /// Sessions of processes that died are ended, so that what they claimed is free.
    pub(crate) fn tidy(&self) -> Result<()> {
        match self.store.expire_dead() {
            Err(e) if e.kind() != ErrorKind::Busy => Err(e),
            _ => Ok(()),
        }
    }
}

fn no_head(d: &DeviceState) -> Error {
    let why = if d.volume.is_some() {
        "nothing of it is in the store yet"
    } else if d.attachment.is_some() {
        "its present contents are its image, not in the store"
    } else {
        "it has no present contents, only snapshots"
    };
    Error::invalid(format!("reading device {:?}", d.name), why)
        .hint("name a snapshot as DEVICE@SNAPSHOT, or make one with `still create`")
}

/// Devices by name.
pub(crate) fn sorted(catalog: &Catalog) -> Vec<&DeviceState> {
    let mut all: Vec<&DeviceState> = catalog.devices().map(|d| &**d).collect();
    all.sort_by(|a, b| a.name.cmp(&b.name));
    all
}

/// The named devices, each once, or all that `default` takes.
pub(crate) fn choose<'c>(
    catalog: &'c Catalog,
    names: &[String],
    default: impl Fn(&DeviceState) -> bool,
) -> Result<Vec<&'c DeviceState>> {
    if names.is_empty() {
        return Ok(sorted(catalog).into_iter().filter(|d| default(d)).collect());
    }
    let mut chosen: Vec<&DeviceState> = Vec::with_capacity(names.len());
    for name in names {
        let d = device(catalog, name)?;
        if chosen.iter().all(|c| c.uid != d.uid) {
            chosen.push(d);
        }
    }
    Ok(chosen)
}

/// The snapshot on each of the named devices, which must all have it, or on every device that has it.
pub(crate) fn choose_snapshots<'c>(
    catalog: &'c Catalog,
    selector: &Selector,
    devices: &[String],
) -> Result<Vec<(&'c DeviceState, &'c SnapshotState)>> {
    let mut found = Vec::new();
    for d in choose(catalog, devices, |_| true)? {
        let one = if devices.is_empty() {
            selector.find(catalog, d)?
        } else {
            Some(selector.get(catalog, d)?)
        };
        found.extend(one.map(|s| (d, s)));
    }
    Ok(found)
}

/// A device that a goto was cut off on is good for nothing but finishing or undoing that.
pub(crate) fn check_unmarked(devices: &[&DeviceState]) -> Result<()> {
    match devices.iter().find(|d| d.in_goto.is_some()) {
        None => Ok(()),
        Some(d) => Err(
            Error::new(ErrorKind::Refused, format!("using device {:?}", d.name))
                .detail("a goto on it was cut off; its image is partly written")
                .hint("`still goto --finish` completes it, `still goto --undo` takes it back"),
        ),
    }
}

/// Saves what can be read of the damaged store in `store` into the folder `out`, which is empty or not there yet.
pub fn rescue(store: &Path, out: &Path, progress: &Progress) -> Result<Rescued> {
    let disk: Arc<dyn Disk> = Arc::new(RealDisk);
    // Among other files nobody could tell later what was saved.
    if !disk.list(out)?.is_empty() {
        return Err(Error::new(ErrorKind::AlreadyExists, "rescuing to")
            .at(out.display())
            .detail("the folder is not empty")
            .hint("name a folder that is empty or not there yet"));
    }
    let objects = LocalObjects::open(disk.clone(), store, Reserve::default(), RealWorld.random())?;
    stillpoint_store::ops::rescue::rescue(&objects, &*disk, out, progress)
}

/// The path made absolute, links resolved, as the catalog holds it.
pub(crate) fn absolute(disk: &dyn Disk, path: &Path) -> Result<PathBuf> {
    disk.canonical(path)
}
