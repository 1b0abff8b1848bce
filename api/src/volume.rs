//! Volumes: writable disks that live in the store. A command opens them for itself; a server, which has them open, passes its
//! own to the calls that end in `_on`.

use crate::name::check_device_name;
use crate::select::{SnapshotRef, device};
use crate::system::{System, choose};
use stillpoint_store::catalog::DeviceState;
use stillpoint_store::format::entry::Content;
use stillpoint_store::id::Uid;
use stillpoint_store::progress::Progress;
use stillpoint_store::volume::{NewVolume, Source, Volumes};
use stillpoint_store::{Error, ErrorKind, Result};

/// What a new volume holds.
#[derive(Debug, Clone, Copy)]
pub enum VolumeSource<'a> {
    /// Nothing, so many bytes.
    Empty(u64),
    /// What `DEVICE@SNAPSHOT` or `DEVICE` holds; of a volume what is written to it now.
    From(&'a str),
}

/// A volume that was made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CreatedVolume {
    /// The device.
    pub uid: Uid,
    /// Bytes.
    pub size: u64,
}

impl System {
    /// The volumes of this store, none open yet: for a server, which keeps them open.
    pub fn volumes(&self) -> Result<Volumes<'_>> {
        Volumes::open(&self.store, None)
    }

    /// Makes a volume: empty, or a clone, which costs the same however large it is. Durable when this returns.
    ///
    /// ```
    /// use stillpoint_api::{OpenOptions, System, VolumeSource};
    /// # use stillpoint_api::store::geometry::Geometry;
    /// # use stillpoint_api::store::progress::Progress;
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let folder = tempfile::tempdir()?;
    /// # System::init(folder.path(), Geometry::DEFAULT)?;
    /// # let system = System::open(folder.path(), OpenOptions::default())?;
    /// # let progress = Progress::default();
    /// let golden = system.volume_create("golden", VolumeSource::Empty(1 << 40), &progress)?;
    /// let volumes = system.volumes()?;
    /// let disk = volumes.volume(&golden.uid)?;
    /// disk.write_at(4096, b"hello")?;
    /// disk.flush()?;
    /// drop(disk);
    ///
    /// // Of a volume that is open the clone is made through those who have it open.
    /// let clone = system.volume_create_on(&volumes, "vm1", VolumeSource::From("golden"), &progress)?;
    /// let mut bytes = [0; 5];
    /// volumes.volume(&clone.uid)?.read_at(4096, &mut bytes)?;
    /// assert_eq!(&bytes, b"hello");
    /// # Ok(())
    /// # }
    /// ```
    pub fn volume_create(
        &self,
        name: &str,
        source: VolumeSource<'_>,
        progress: &Progress,
    ) -> Result<CreatedVolume> {
        self.volume_create_on(&self.volumes()?, name, source, progress)
    }

    /// The same through volumes that are open.
    pub fn volume_create_on(
        &self,
        volumes: &Volumes<'_>,
        name: &str,
        source: VolumeSource<'_>,
        progress: &Progress,
    ) -> Result<CreatedVolume> {
        check_device_name(name)?;
        self.tidy()?;
        if self.store.refresh()?.device_named(name).is_some() {
            let doing = format!("making volume {name:?}");
            return Err(Error::new(ErrorKind::AlreadyExists, doing)
                .detail("there is a device of that name already")
                .hint("`still device list` shows all"));
        }
        let source = match source {
            VolumeSource::Empty(size) => Source::Empty(size),
            VolumeSource::From(reference) => self.source(volumes, reference, progress)?,
        };
        let size = match source {
            Source::Empty(size) => size,
            Source::Content { content, .. } => content.size,
        };
        let uid = volumes.create(&NewVolume { name, source })?;
        Ok(CreatedVolume { uid, size })
    }

    fn source(
        &self,
        volumes: &Volumes<'_>,
        reference: &str,
        progress: &Progress,
    ) -> Result<Source> {
        let parsed = SnapshotRef::parse(reference)?;
        let catalog = self.store.refresh()?;
        let d = device(&catalog, &parsed.device)?;
        if let Some(selector) = &parsed.snapshot {
            let record = &selector.get(&catalog, d)?.record;
            return Ok(Source::Content {
                content: record.content,
                base: Some(record.uid),
            });
        }
        let content = match d.volume {
            Some(_) => volumes.absorb(&[d.uid], progress)?.first().copied(),
            None => None,
        };
        let content = content.map_or_else(|| self.resolve(reference).map(|(c, _)| c), Ok)?;
        Ok(Source::Content {
            content,
            base: d.base,
        })
    }

    /// Gives a volume another size; what it grows by are holes. Durable when this returns. Shrinking gives up what lies behind.
    pub fn volume_resize(&self, name: &str, size: u64, progress: &Progress) -> Result<()> {
        self.volumes()?
            .resize(&self.volume_named(name)?, size, progress)
    }

    /// Removes a volume with what was written to it and is in no snapshot. Its snapshots stay, and with them the device; true:
    /// there were none, and the device went too. Durable when this returns.
    pub fn volume_remove(&self, name: &str) -> Result<bool> {
        let uid = self.volume_named(name)?;
        self.volumes()?.remove(&uid)?;
        Ok(self.store.catalog().device(&uid).is_none())
    }

    /// Stores what a volume holds and lets go of it: whichever host opens it next has it. Durable when this returns.
    pub fn volume_hand_over(&self, name: &str, progress: &Progress) -> Result<()> {
        self.volumes()?
            .hand_over(&self.volume_named(name)?, progress)
    }

    /// Makes a volume of another host this one's, as it is in the store: what it held besides is given up. Durable when
    /// this returns.
    pub fn volume_take(&self, name: &str) -> Result<()> {
        self.volumes()?.adopt(&self.volume_named(name)?)
    }

    /// The device of that name, which must be a volume.
    pub fn volume_named(&self, name: &str) -> Result<Uid> {
        let catalog = self.store.refresh()?;
        let d = device(&catalog, name)?;
        if d.volume.is_none() {
            let why = "it is no volume";
            return Err(
                Error::invalid(format!("using device {name:?} as a volume"), why).hint(
                    "`still volume create NAME --from DEVICE` makes a volume of its contents",
                ),
            );
        }
        Ok(d.uid)
    }

    /// Volumes for an operation on these devices, or on all that are attached: none where none of them is one.
    pub(crate) fn volumes_for(&self, names: &[String]) -> Result<Option<Volumes<'_>>> {
        let catalog = self.store.refresh()?;
        let chosen = choose(&catalog, names, is_attached)?;
        if chosen.iter().all(|d| d.volume.is_none()) {
            return Ok(None);
        }
        self.volumes().map(Some)
    }

    /// The present contents of a device without an image; what was written to a volume is stored first.
    pub(crate) fn present(
        &self,
        volumes: Option<&Volumes<'_>>,
        reference: &str,
        progress: &Progress,
    ) -> Result<Content> {
        let parsed = SnapshotRef::parse(reference)?;
        let catalog = self.store.refresh()?;
        let d = device(&catalog, &parsed.device)?;
        if parsed.snapshot.is_none() && d.volume.is_some() {
            let absorb = |volumes: &Volumes<'_>| volumes.absorb(&[d.uid], progress);
            let contents = match volumes {
                Some(volumes) => absorb(volumes)?,
                None => absorb(&self.volumes()?)?,
            };
            return contents.first().copied().ok_or_else(|| gone(d));
        }
        self.resolve(reference).map(|(content, _)| content)
    }
}

fn gone(d: &DeviceState) -> Error {
    Error::new(ErrorKind::NotFound, format!("reading volume {:?}", d.name))
        .detail("it was removed meanwhile")
}

/// Whether an operation on all devices is one on this: it stands for an image, or is a volume.
pub(crate) fn is_attached(d: &DeviceState) -> bool {
    d.attachment.is_some() || d.volume.is_some()
}
