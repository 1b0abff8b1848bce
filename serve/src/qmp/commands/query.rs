//! Questions about the server and its devices.

use super::{Answer, names};
use crate::qmp::arguments::Arguments;
use crate::qmp::error::QmpError;
use crate::qmp::monitor::Monitor;
use serde_json::{Value, json};
use stillpoint_api::store::format::entry::Content;
use stillpoint_api::{DeviceView, text};
use stillpoint_store::world::Moment;

/// Nanoseconds of a second.
const SECOND: u64 = 1_000_000_000;

pub fn version(monitor: &Monitor, arguments: Arguments) -> Answer {
    arguments.end()?;
    Ok(monitor.version())
}

pub fn commands(monitor: &Monitor, arguments: Arguments) -> Answer {
    arguments.end()?;
    let all = names(monitor.release()).chain(["qmp_capabilities"]);
    Ok(all.map(|name| json!({ "name": name })).collect())
}

pub fn name(monitor: &Monitor, arguments: Arguments) -> Answer {
    arguments.end()?;
    Ok(json!({ "name": monitor.system().store().describe() }))
}

/// Devices as block backends, in the order of their names.
pub fn block(monitor: &Monitor, arguments: Arguments) -> Answer {
    arguments.end()?;
    let devices = monitor.system().devices()?;
    let info = |d: &DeviceView| -> Result<Value, QmpError> {
        Ok(json!({
            "device": d.name,
            "type": "unknown",
            "removable": false,
            "locked": false,
            "io-status": "ok",
            "inserted": inserted(monitor, d)?,
        }))
    };
    devices.iter().map(info).collect()
}

/// Devices as nodes of the same names.
pub fn nodes(monitor: &Monitor, mut arguments: Arguments) -> Answer {
    // There are no layers below to leave out.
    arguments.flag("flat")?;
    arguments.end()?;
    let devices = monitor.system().devices()?;
    devices.iter().map(|d| inserted(monitor, d)).collect()
}

/// `BlockDeviceInfo`: what of it a store has, and what else the schema wants.
fn inserted(monitor: &Monitor, device: &DeviceView) -> Answer {
    let file = match &device.image {
        Some(path) => path.display().to_string(),
        None => format!("{}#{}", monitor.system().store().describe(), device.name),
    };
    let snapshots = snapshots(monitor, &device.name)?;
    let mut image = json!({
        "filename": file,
        "format": "stillpoint",
        "virtual-size": device.size.unwrap_or(0),
        "cluster-size": monitor.system().store().geometry().cluster_bytes,
        "dirty-flag": device.in_goto,
    });
    if !snapshots.is_empty() {
        image["snapshots"] = Value::Array(snapshots);
    }
    Ok(json!({
        "file": file,
        "node-name": device.name,
        "drv": "stillpoint",
        "ro": device.read_only,
        "backing_file_depth": 0,
        "encrypted": false,
        "encryption_key_missing": false,
        "detect_zeroes": "off",
        "write_threshold": 0,
        "bps": 0, "bps_rd": 0, "bps_wr": 0,
        "iops": 0, "iops_rd": 0, "iops_wr": 0,
        "cache": { "writeback": true, "direct": false, "no-flush": false },
        "image": image,
    }))
}

fn snapshots(monitor: &Monitor, device: &str) -> Result<Vec<Value>, QmpError> {
    let all = monitor.system().list_raw(device)?;
    let info = all.iter().map(|s| {
        let state = s.vm_state.map_or(0, |content: Content| content.size);
        snapshot_info(&s.id, &s.name, s.date, (state, s.vm_clock_nsec), s.icount)
    });
    Ok(info.collect())
}

/// `SnapshotInfo`.
pub fn snapshot_info(
    id: &[u8],
    name: &[u8],
    date: Moment,
    (vm_state, vm_clock): (u64, u64),
    icount: Option<u64>,
) -> Value {
    let mut info = json!({
        "id": text(id),
        "name": text(name),
        "vm-state-size": vm_state,
        "date-sec": date.sec,
        "date-nsec": date.nsec,
        "vm-clock-sec": vm_clock / SECOND,
        "vm-clock-nsec": vm_clock % SECOND,
    });
    if let Some(icount) = icount {
        info["icount"] = json!(icount);
    }
    info
}
