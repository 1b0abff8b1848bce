//! `blockdev-snapshot-internal-sync` and `blockdev-snapshot-delete-internal-sync`.

use super::query::snapshot_info;
use super::{Answer, device};
use crate::qmp::arguments::Arguments;
use crate::qmp::error::QmpError;
use crate::qmp::monitor::Monitor;
use serde_json::json;
use stillpoint_api::{Create, RawSnapshot};

/// A snapshot that is wanted on one device.
#[derive(Debug)]
pub struct Wanted {
    /// The device.
    pub device: String,
    /// The snapshot's name.
    pub name: String,
}

impl Wanted {
    /// From `device` and `name`.
    pub fn take(mut arguments: Arguments) -> Result<Self, QmpError> {
        let wanted = Self {
            device: arguments.needs("device")?,
            name: arguments.needs("name")?,
        };
        arguments.end()?;
        Ok(wanted)
    }

    /// Whether it may be made: the checks that QEMU makes before it does anything, in their order.
    pub fn check(&self, monitor: &Monitor) -> Result<(), QmpError> {
        let Self { device: d, name } = self;
        let view = device(monitor, d)?;
        if view.read_only {
            return Err(QmpError::new(format!("Device '{d}' is read only")));
        }
        if name.is_empty() {
            return Err(QmpError::new("Name is empty"));
        }
        let all = monitor.system().list_raw(d)?;
        if all.iter().any(|s| s.name == name.as_bytes()) {
            let desc = format!("Snapshot with name '{name}' already exists on device '{d}'");
            return Err(QmpError::new(desc));
        }
        Ok(())
    }
}

/// Makes a snapshot of that name on each of some devices, all or none of them.
pub fn create_group(monitor: &Monitor, name: &str, devices: Vec<String>) -> Result<(), QmpError> {
    let first = devices.first().cloned().unwrap_or_default();
    let create = Create {
        name: Some(name.to_owned()),
        devices,
        ..Create::default()
    };
    let doing = format!("Failed to create snapshot '{name}' on device '{first}': ");
    let made = monitor.create(&create, None);
    made.map(|_| ()).map_err(|e| e.after(&doing))
}

pub fn create(monitor: &Monitor, arguments: Arguments) -> Answer {
    let wanted = Wanted::take(arguments)?;
    wanted.check(monitor)?;
    create_group(monitor, &wanted.name, vec![wanted.device])?;
    Ok(json!({}))
}

pub fn delete(monitor: &Monitor, mut arguments: Arguments) -> Answer {
    let name = arguments.needs("device")?;
    let (id, snapshot) = (arguments.text("id")?, arguments.text("name")?);
    arguments.end()?;
    let view = device(monitor, &name)?;
    if id.is_none() && snapshot.is_none() {
        return Err(QmpError::new("Name or id must be provided"));
    }
    let is =
        |wanted: &Option<String>, has: &[u8]| wanted.as_ref().is_none_or(|w| w.as_bytes() == has);
    let all = monitor.system().list_raw(&view.name)?;
    let found = all
        .into_iter()
        .find(|s: &RawSnapshot| is(&id, &s.id) && is(&snapshot, &s.name));
    let Some(victim) = found else {
        let shown = |word: &Option<String>| word.clone().unwrap_or_else(|| "null".to_owned());
        let (id, snapshot) = (shown(&id), shown(&snapshot));
        let desc = format!(
            "Snapshot with id '{id}' and name '{snapshot}' does not exist on device '{name}'"
        );
        return Err(QmpError::new(desc));
    };
    monitor.system().delete_uid(victim.uid)?;
    let state = victim.vm_state.map_or(0, |content| content.size);
    let RawSnapshot { id, name, date, .. } = &victim;
    Ok(snapshot_info(
        id,
        name,
        *date,
        (state, victim.vm_clock_nsec),
        victim.icount,
    ))
}
