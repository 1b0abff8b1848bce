//! Snapshots of one, some or all devices: one group, one entry, all or none.

use crate::commit::Planned;
use crate::draft::{Draft, check_free, name_of};
use crate::name::check_snapshot_name;
use crate::select::Selector;
use crate::system::{System, check_unmarked, choose};
use crate::vm_state::{Source, VmState, chosen, is_read_only};
use crate::volume::is_attached;
use std::collections::BTreeMap;
use std::ops::Range;
use stillpoint_store::catalog::{Catalog, DeviceState};
use stillpoint_store::format::entry::{Content, Op, SessionKind};
use stillpoint_store::format::snapshot::SnapshotRecord;
use stillpoint_store::id::Uid;
use stillpoint_store::image::{Access, Image};
use stillpoint_store::object::Purse;
use stillpoint_store::ops::ingest::{Counts, Ingested, Input, Writer};
use stillpoint_store::progress::Progress;
use stillpoint_store::volume::{Sealed, Volumes};
use stillpoint_store::{Error, ErrorKind, Result};

/// What to make.
#[derive(Debug, Clone, Default)]
pub struct Create {
    /// The snapshots' name; by default the time.
    pub name: Option<String>,
    /// The devices; by default all that are attached, volumes among them.
    pub devices: Vec<String>,
    /// Byte ranges outside of which the image is trusted to be what its base holds, the snapshot that it comes from: the
    /// last one made of it or gone to. For one device. Without a base everything is read.
    pub changed: Option<Vec<Range<u64>>>,
    /// The snapshot that `changed` is relative to: refused where the base holds something else.
    pub since: Option<String>,
    /// VM clock since boot, nanoseconds; 0 where there is none.
    pub vm_clock_nsec: u64,
    /// Instruction count, where the VM counts.
    pub icount: Option<u64>,
}

/// A group that was made.
#[derive(Debug, Clone)]
pub struct Created {
    /// Its uid.
    pub group: Uid,
    /// Its snapshots.
    pub devices: Vec<CreatedDevice>,
}

/// One snapshot of it.
#[derive(Debug, Clone)]
pub struct CreatedDevice {
    /// The device's name.
    pub device: String,
    /// The snapshot's uid.
    pub uid: Uid,
    /// Its id.
    pub id: String,
    /// Its name.
    pub name: String,
    /// The disk.
    pub content: Content,
    /// What it cost.
    pub counts: Counts,
    /// The VM state and what it cost, on the device of the group that has it.
    pub vm_state: Option<Ingested>,
}

/// A device whose image is locked, and what was known of it when it was.
pub(crate) struct Locked {
    pub uid: Uid,
    pub name: String,
    pub image: Option<Image>,
    /// It is a volume, which this process has open.
    pub volume: bool,
    pub head: Option<Content>,
    pub gotos_begun: u64,
    pub parent: Option<Content>,
    pub parent_uid: Option<Uid>,
    /// VM state that the next one probably shares much with.
    pub vm_parent: Option<Content>,
    /// Its image is never written.
    pub read_only: bool,
}

/// VM state and the position in the group of the device that it goes to.
pub(crate) struct Saved<'a> {
    pub device: usize,
    pub source: Source<'a>,
}

/// What a group is made of.
pub(crate) struct Inputs<'a, 'v> {
    pub devices: &'a [Locked],
    pub changed: Option<&'a [Range<u64>]>,
    pub vm: Option<&'a Saved<'a>>,
    /// Those of the devices that are volumes, in their order.
    pub sealed: Option<&'a Sealed<'v>>,
}

/// What was taken in of a device.
pub(crate) struct Taken {
    pub disk: Ingested,
    pub vm_state: Option<Ingested>,
}

impl System {
    /// Makes a snapshot on each device. Durable on all of them when this returns; an error leaves none.
    pub fn create(&self, create: &Create, progress: &Progress) -> Result<Created> {
        self.create_with(create, None, progress)
    }

    /// The same with VM state, which goes to one device of the group and into the same entry.
    ///
    /// ```
    /// use stillpoint_api::{Create, OpenOptions, System, VmBytes, VmState};
    /// # use stillpoint_api::store::geometry::Geometry;
    /// # use stillpoint_api::store::progress::Progress;
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let folder = tempfile::tempdir()?;
    /// # let (store, image) = (folder.path().join("store"), folder.path().join("web1.raw"));
    /// # std::fs::write(&image, vec![1; 100_000])?;
    /// # System::init(&store, Geometry::DEFAULT)?;
    /// # let system = System::open(&store, OpenOptions::default())?;
    /// # let progress = Progress::default();
    /// # system.device_add("web1", &image, "raw", false)?;
    /// # let monday = Create { name: Some("monday".into()), ..Create::default() };
    /// let mut ram: &[u8] = &[7; 50_000]; // a pipe from the hypervisor, as a rule
    /// let vm_state = VmState {
    ///     device: None,
    ///     bytes: VmBytes::Stream(&mut ram),
    /// };
    /// let made = system.create_with(&monday, Some(vm_state), &progress)?;
    /// assert_eq!(made.devices[0].vm_state.map(|vm| vm.content.size), Some(50_000));
    ///
    /// let mut back = Vec::new();
    /// system.read_vm_state("web1@monday", &mut back, &progress)?;
    /// assert_eq!(back, [7; 50_000]);
    /// # Ok(())
    /// # }
    /// ```
    pub fn create_with(
        &self,
        create: &Create,
        vm_state: Option<VmState<'_>>,
        progress: &Progress,
    ) -> Result<Created> {
        let volumes = self.volumes_for(&create.devices)?;
        self.create_with_volumes(volumes.as_ref(), create, vm_state, progress)
    }

    /// The same through volumes that are open. All volumes of the group are sealed at one instant, while guests write.
    pub fn create_on(
        &self,
        volumes: &Volumes<'_>,
        create: &Create,
        vm_state: Option<VmState<'_>>,
        progress: &Progress,
    ) -> Result<Created> {
        self.create_with_volumes(Some(volumes), create, vm_state, progress)
    }

    fn create_with_volumes(
        &self,
        volumes: Option<&Volumes<'_>>,
        create: &Create,
        vm_state: Option<VmState<'_>>,
        progress: &Progress,
    ) -> Result<Created> {
        let date = self.store.now();
        let name = create.name.clone().unwrap_or_else(|| name_of(date));
        check_snapshot_name(&name)?;
        self.tidy()?;
        let devices = self.lock_devices(volumes, &create.devices, Access::Read)?;
        if devices.is_empty() {
            return Err(Error::new(ErrorKind::NotFound, "making a snapshot")
                .detail("no device is attached")
                .hint("attach an image with `still device add NAME IMAGE`"));
        }
        if create.changed.is_some() && devices.len() > 1 {
            return Err(Error::invalid(
                "making a snapshot",
                "a change map is for one device; name it",
            ));
        }
        if let Some(since) = &create.since {
            check_since(&self.store.catalog(), &devices, since)?;
        }
        check_free(
            &self.store.catalog(),
            &devices,
            &name,
            create.name.is_none(),
        )?;
        let vm = match vm_state {
            None => None,
            Some(VmState { device, bytes }) => Some(Saved {
                device: chosen(&devices, device.as_deref())?,
                source: Source::open(self, bytes)?,
            }),
        };
        let group = self.store.new_uid();
        let draft = Draft {
            name,
            generated: create.name.is_none(),
            date,
            group: Some(group),
            vm_clock_nsec: create.vm_clock_nsec,
            icount: create.icount,
        };
        let uids: Vec<Uid> = devices.iter().map(|_| self.store.new_uid()).collect();
        let writer = Writer::new(&self.store, SessionKind::Writer, Purse::Free)?;
        // The instant of the snapshot, as far as volumes go: everything that could be refused has been.
        let sealed = seal(volumes, &devices)?;
        let inputs = Inputs {
            devices: &devices,
            changed: create.changed.as_deref(),
            vm: vm.as_ref(),
            sealed: sealed.as_ref(),
        };
        let made = self.commit_snapshots(
            writer,
            &mut |writer| self.ingest(writer, &inputs, progress),
            &mut |catalog, taken| {
                let records = draft.records(catalog, &devices, &uids, taken)?;
                Ok(inputs.plan(catalog, records))
            },
        )?;
        if let Some(sealed) = sealed {
            sealed.settle(&made.catalog)?;
        }
        let devices = report(&devices, &made.records, &made.taken);
        Ok(Created { group, devices })
    }

    /// Takes all images and the VM state in, as one stream of batches, and sees that none changed meanwhile. What is in the
    /// store already costs nothing.
    pub(crate) fn ingest(
        &self,
        writer: &mut Writer<'_>,
        from: &Inputs<'_, '_>,
        progress: &Progress,
    ) -> Result<Vec<Taken>> {
        let catalog = self.store.catalog();
        let reachable = |c: &Content| catalog.reachable(&c.root);
        let images = || {
            from.devices
                .iter()
                .filter_map(|d| Some((d, d.image.as_ref()?)))
        };
        let mut inputs: Vec<Input<'_>> = images()
            .map(|(d, image)| {
                let parent = d.parent.filter(reachable);
                Input {
                    file: image.file(),
                    size: image.size(),
                    parent,
                    changed: from.changed.filter(|_| self.may_trust_changes(d, parent)),
                }
            })
            .collect();
        // What volumes say has changed is no hint.
        let known = inputs.len()..inputs.len() + from.sealed.map_or(0, |s| s.inputs().len());
        inputs.extend(from.sealed.into_iter().flat_map(Sealed::inputs));
        if let Some(vm) = from.vm {
            let file = vm.source.file();
            inputs.push(Input {
                file,
                size: file.len()?,
                parent: from.devices[vm.device].vm_parent.filter(reachable),
                changed: None,
            });
        }
        let read = writer.ingest_known(&inputs, &|i| known.contains(&i), progress);
        // Also of one that could not be read to its end: that somebody changed it says more.
        for (_, image) in images() {
            image.check_unchanged()?;
        }
        from.vm.map_or(Ok(()), |vm| vm.source.check_unchanged())?;
        let mut read = read?;
        let vm_state = from.vm.and_then(|vm| Some((vm.device, read.pop()?)));
        let mut sealed = read.split_off(known.start).into_iter();
        let mut read = read.into_iter();
        let none = || {
            Error::invalid(
                "making a snapshot",
                "a device has neither an image nor contents",
            )
            .hint(
                "`still device attach NAME IMAGE` gives it an image, a goto with --device contents",
            )
        };
        let taken = |(i, d): (usize, &Locked)| {
            let disk = match (&d.image, d.head) {
                (Some(_), _) => read.next(),
                (None, _) if d.volume => sealed.next(),
                (None, head) => head.map(|content| Ingested {
                    content,
                    counts: Counts::default(),
                }),
            };
            Ok(Taken {
                disk: disk.ok_or_else(none)?,
                vm_state: vm_state.filter(|(at, _)| *at == i).map(|(_, vm)| vm),
            })
        };
        from.devices.iter().enumerate().map(taken).collect()
    }

    /// What a change map leaves out is the base's, and nobody else's: a parent that was guessed will not do.
    fn may_trust_changes(&self, d: &Locked, parent: Option<Content>) -> bool {
        let trusted = d.parent_uid.is_some() && parent.is_some();
        if !trusted {
            self.store.say(&format!(
                "the snapshot that {} comes from is gone: everything is read",
                d.name
            ));
        }
        trusted
    }

    /// Opens and locks the images of the devices, in one order everywhere, and only then reads what the log says of them:
    /// a goto that held the lock before is known now.
    ///
    /// Volumes are opened among `volumes`, which keep them.
    pub(crate) fn lock_devices(
        &self,
        volumes: Option<&Volumes<'_>>,
        names: &[String],
        access: Access,
    ) -> Result<Vec<Locked>> {
        let catalog = self.store.refresh()?;
        let chosen = choose(&catalog, names, is_attached)?;
        check_unmarked(&chosen)?;
        let mut order: Vec<&DeviceState> = chosen.clone();
        order.sort_by_key(|d| d.uid);
        let mut images: BTreeMap<Uid, Image> = BTreeMap::new();
        for d in order {
            if let Some(attachment) = &d.attachment {
                if access == Access::Write && attachment.read_only {
                    return Err(Error::new(
                        ErrorKind::ReadOnly,
                        format!("writing device {:?}", d.name),
                    )
                    .detail("it was added as read-only"));
                }
                images.insert(d.uid, self.open_image(&d.name, attachment, access)?);
            }
            if d.volume.is_some() {
                let open = volumes.ok_or_else(|| became_volume(d))?.volume(&d.uid);
                open.map_err(|e| e.of(format!("device {:?}", d.name)))?;
            }
        }
        let catalog = self.store.refresh()?;
        let mut now: Vec<&DeviceState> = Vec::with_capacity(chosen.len());
        for d in &chosen {
            let device = catalog.device(&d.uid).ok_or_else(|| {
                Error::new(
                    ErrorKind::NotFound,
                    format!("looking for device {:?}", d.name),
                )
                .detail("it was removed meanwhile; nothing was done")
            })?;
            now.push(device);
        }
        check_unmarked(&now)?;
        Ok(now
            .into_iter()
            .map(|d| locked(&catalog, d, images.remove(&d.uid)))
            .collect())
    }
}

impl Inputs<'_, '_> {
    /// The entry that puts the snapshots, one a device, and the volumes on those made of them.
    pub(crate) fn plan(&self, catalog: &Catalog, records: Vec<SnapshotRecord>) -> Planned {
        let put = |(r, d): (&SnapshotRecord, &Locked)| Op::PutSnapshot {
            record: r.clone(),
            gotos_begun: d.gotos_begun,
        };
        let snapshots = records.iter().zip(self.devices).map(put);
        let ops = snapshots.chain(self.heads(catalog, &records)).collect();
        Planned { records, ops }
    }

    /// Ops that put the volumes on the snapshots made of them.
    fn heads(&self, catalog: &Catalog, records: &[SnapshotRecord]) -> Vec<Op> {
        let Some(sealed) = self.sealed else {
            return Vec::new();
        };
        let of_volumes = || {
            let pairs = records.iter().zip(self.devices);
            pairs.filter(|(_, d)| d.volume).map(|(r, _)| r)
        };
        let contents: Vec<Content> = of_volumes().map(|r| r.content).collect();
        let bases: Vec<Option<Uid>> = of_volumes().map(|r| Some(r.uid)).collect();
        sealed.ops(catalog, &contents, &bases)
    }
}

/// The volumes among the devices, sealed; `None` where there are none.
pub(crate) fn seal<'v>(
    volumes: Option<&Volumes<'v>>,
    devices: &[Locked],
) -> Result<Option<Sealed<'v>>> {
    let uids: Vec<Uid> = devices.iter().filter(|d| d.volume).map(|d| d.uid).collect();
    match volumes.filter(|_| !uids.is_empty()) {
        Some(volumes) => volumes.seal(&uids).map(Some),
        None => Ok(None),
    }
}

fn became_volume(d: &DeviceState) -> Error {
    Error::new(ErrorKind::Busy, format!("using device {:?}", d.name))
        .detail("it became a volume meanwhile")
        .hint("try again")
}

fn locked(catalog: &Catalog, d: &DeviceState, image: Option<Image>) -> Locked {
    // Without a base the newest snapshot is the best guess: a wrong one costs look-ups, nothing else.
    let base = d.base.and_then(|uid| catalog.snapshot(&uid));
    let guess = base.or_else(|| catalog.snapshots_of(&d.uid).pop());
    Locked {
        uid: d.uid,
        name: d.name.clone(),
        image,
        volume: d.volume.is_some(),
        head: d.head,
        gotos_begun: d.gotos_begun,
        parent: guess.map(|s| s.record.content),
        parent_uid: d.base,
        vm_parent: vm_parent(catalog, d),
        read_only: is_read_only(d),
    }
}

/// Whoever resets a dirty bitmap at a snapshot says which: a map of another one would leave changes out.
fn check_since(catalog: &Catalog, devices: &[Locked], since: &str) -> Result<()> {
    let selector = Selector::parse(since)?;
    for d in devices {
        let named = selector.get(catalog, crate::select::device(catalog, &d.name)?)?;
        let base = d.parent_uid.and_then(|uid| catalog.snapshot(&uid));
        if base.is_some_and(|b| b.record.content == named.record.content) {
            continue;
        }
        let comes_from = base.map_or_else(
            || "its image comes from no snapshot".to_owned(),
            |b| {
                format!(
                    "its image comes from {:?}",
                    crate::view::text(&b.record.name)
                )
            },
        );
        let why = format!(
            "the changes of device {:?} are not since {selector}: {comes_from}",
            d.name
        );
        return Err(Error::invalid("making a snapshot", why)
            .hint("leave --changed away: then everything is read"));
    }
    Ok(())
}

/// The newest VM state of the device: between two saves of a VM most pages are the same.
fn vm_parent(catalog: &Catalog, d: &DeviceState) -> Option<Content> {
    let mut newest = catalog.snapshots_of(&d.uid).into_iter().rev();
    newest.find_map(|s| s.record.vm_state)
}

pub(crate) fn report(
    devices: &[Locked],
    records: &[SnapshotRecord],
    taken: &[Taken],
) -> Vec<CreatedDevice> {
    let one = |((d, r), t): ((&Locked, &SnapshotRecord), &Taken)| CreatedDevice {
        device: d.name.clone(),
        uid: r.uid,
        id: crate::view::text(&r.id),
        name: crate::view::text(&r.name),
        content: t.disk.content,
        counts: t.disk.counts,
        vm_state: t.vm_state,
    };
    devices.iter().zip(records).zip(taken).map(one).collect()
}
