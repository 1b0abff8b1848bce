//! Questions about all devices at once, or some: whether a snapshot can be made, who has one, where VM state goes. Native
//! names of what `bdrv_all_can_snapshot`, `bdrv_all_find_snapshot` and `bdrv_all_find_vmstate_bs` asked.

use crate::select::Selector;
use crate::system::{System, check_unmarked, choose};
use crate::view::{DeviceView, SnapshotView};
use crate::vm_state::{default_device, is_read_only};
use crate::volume::is_attached;
use stillpoint_store::catalog::{Catalog, DeviceState};
use stillpoint_store::image::Access;
use stillpoint_store::{Error, ErrorKind, Result};

impl System {
    /// The devices, all attached ones unless some are named, each with what would keep `create` from making a snapshot
    /// of it now. Takes the images' locks for a moment.
    pub fn all_can(&self, devices: &[String]) -> Result<Vec<(DeviceView, Result<()>)>> {
        let catalog = self.store.refresh()?;
        let group = group(&catalog, devices)?;
        let can = |d: &DeviceState| (DeviceView::of(&catalog, d), self.can(d));
        Ok(group.into_iter().map(can).collect())
    }

    fn can(&self, d: &DeviceState) -> Result<()> {
        if self.store.is_read_only() {
            return Err(Error::new(ErrorKind::ReadOnly, "making a snapshot")
                .at(self.store.describe())
                .detail("the store cannot be written"));
        }
        check_unmarked(&[d])?;
        if d.volume.is_some() {
            return self.volumes()?.volume(&d.uid).map(drop);
        }
        match &d.attachment {
            Some(a) => self.open_image(&d.name, a, Access::Read).map(drop),
            None if d.head.is_some() => Ok(()),
            None => Err(Error::invalid(
                format!("making a snapshot of device {:?}", d.name),
                "it has neither an image nor contents",
            )),
        }
    }

    /// The snapshot on each of the devices, all attached ones unless some are named: that `goto` would go to. `NotFound` names
    /// the devices that do not have it.
    pub fn all_find(&self, snapshot: &str, devices: &[String]) -> Result<Vec<SnapshotView>> {
        let selector = Selector::parse(snapshot)?;
        let catalog = self.store.refresh()?;
        let (mut found, mut without) = (Vec::new(), Vec::new());
        for d in group(&catalog, devices)? {
            match selector.find(&catalog, d)? {
                Some(s) => found.push(SnapshotView::of(&catalog, s)),
                None => without.push(format!("{:?}", d.name)),
            }
        }
        if without.is_empty() {
            return Ok(found);
        }
        let doing = format!("looking for snapshot {selector} on all devices");
        Err(Error::new(ErrorKind::NotFound, doing)
            .detail(format!("not on {}", without.join(", ")))
            .hint("`still find` shows which devices have it"))
    }

    /// The device that VM state goes to when none is chosen: the first of the group, attached ones by name or as they are
    /// named, whose image may be written; the first of all where none may.
    pub fn all_find_vmstate(&self, devices: &[String]) -> Result<DeviceView> {
        let catalog = self.store.refresh()?;
        let group = group(&catalog, devices)?;
        let chosen = group.get(default_device(&group, |d| is_read_only(d)));
        let view = |d: &&DeviceState| DeviceView::of(&catalog, d);
        chosen.map(view).ok_or_else(none_attached)
    }
}

/// Never empty.
fn group<'c>(catalog: &'c Catalog, devices: &[String]) -> Result<Vec<&'c DeviceState>> {
    let group = choose(catalog, devices, is_attached)?;
    if group.is_empty() {
        return Err(none_attached());
    }
    Ok(group)
}

fn none_attached() -> Error {
    Error::new(ErrorKind::NotFound, "looking for devices")
        .detail("no device is attached")
        .hint("attach an image with `still device add NAME IMAGE`")
}
