//! What QEMU has no command for. Field names are those of `still --json`.

use super::{Answer, Arguments, Monitor};
use serde_json::{Value, json};
use std::path::Path;
use stillpoint_api::store::ops::gc;
use stillpoint_api::{Create, SnapshotView, VmBytes, VmState};

/// Devices and their snapshots.
pub fn list(monitor: &Monitor, mut arguments: Arguments) -> Answer {
    let device = arguments.text("device")?;
    arguments.end()?;
    let system = monitor.system();
    let snapshots = system.list(device.as_deref())?;
    let devices = system.devices()?.into_iter();
    let wanted = devices.filter(|d| device.as_ref().is_none_or(|name| *name == d.name));
    let devices: Value = wanted
        .map(|d| {
            json!({
                "name": d.name,
                "uid": d.uid.to_string(),
                "size_bytes": d.size,
                "snapshots": d.snapshots,
                "image": d.image.map(|path| path.display().to_string()),
                "goto_unfinished": d.in_goto,
                "volume": d.volume,
            })
        })
        .collect();
    let snapshots: Value = snapshots.iter().map(snapshot).collect();
    Ok(json!({ "devices": devices, "snapshots": snapshots }))
}

fn snapshot(view: &SnapshotView) -> Value {
    json!({
        "device": view.device,
        "id": view.id,
        "name": view.name,
        "uid": view.uid.to_string(),
        "date_sec": view.date.sec,
        "date_nsec": view.date.nsec,
        "size_bytes": view.size,
        "vm_state_bytes": view.vm_state_size,
        "group": view.group.map(|uid| uid.to_string()),
        "parent": view.parent.map(|uid| uid.to_string()),
    })
}

/// One group over the devices, or over all that can be; with VM state from a file that this process reads.
pub fn create(monitor: &Monitor, mut arguments: Arguments) -> Answer {
    let create = Create {
        name: arguments.text("name")?,
        devices: arguments.texts("devices")?.unwrap_or_default(),
        vm_clock_nsec: arguments.number("vm-clock")?.unwrap_or_default(),
        icount: arguments.number("icount")?,
        ..Create::default()
    };
    let file = arguments.text("vm-state")?;
    let device = arguments.text("vm-device")?;
    arguments.end()?;
    let vm_state = file.as_deref().map(|file| VmState {
        device,
        bytes: VmBytes::File(Path::new(file)),
    });
    let made = monitor.create(&create, vm_state)?;
    let snapshots: Value = made
        .devices
        .iter()
        .map(|d| {
            json!({
                "device": d.device,
                "id": d.id,
                "name": d.name,
                "uid": d.uid.to_string(),
                "size_bytes": d.content.size,
                "read_bytes": d.counts.read,
                "new_bytes": d.counts.new,
                "stored_bytes": d.counts.stored,
                "vm_state": d.vm_state.map(|vm| json!({
                    "size_bytes": vm.content.size,
                    "new_bytes": vm.counts.new,
                    "stored_bytes": vm.counts.stored,
                })),
            })
        })
        .collect();
    Ok(json!({ "group": made.group.to_string(), "snapshots": snapshots }))
}

/// Goes to a snapshot; `force` also where a client has the disk open for writing.
pub fn goto(monitor: &Monitor, mut arguments: Arguments) -> Answer {
    let snapshot = arguments.needs("snapshot")?;
    let devices = arguments.texts("devices")?.unwrap_or_default();
    let force = arguments.flag("force")?;
    arguments.end()?;
    let went = monitor.goto(&snapshot, &devices, force)?;
    let devices: Value = went
        .devices
        .iter()
        .map(|d| {
            json!({
                "device": d.device,
                "snapshot": d.snapshot,
                "size_bytes": d.size,
                "read_bytes": d.read,
                "written_bytes": d.written,
            })
        })
        .collect();
    Ok(json!({ "devices": devices }))
}

/// Deletes a snapshot on the devices, or on all that have it.
pub fn delete(monitor: &Monitor, mut arguments: Arguments) -> Answer {
    let snapshot = arguments.needs("snapshot")?;
    let devices = arguments.texts("devices")?.unwrap_or_default();
    let dry_run = arguments.flag("dry-run")?;
    arguments.end()?;
    let progress = monitor.progress();
    let deleted = monitor
        .system()
        .delete(&snapshot, &devices, dry_run, progress)?;
    let snapshots: Value = deleted
        .snapshots
        .iter()
        .map(|s| json!({ "device": s.device, "id": s.id, "name": s.name }))
        .collect();
    Ok(json!({ "snapshots": snapshots, "frees_bytes": deleted.frees }))
}

/// Gives space back.
pub fn gc(monitor: &Monitor, mut arguments: Arguments) -> Answer {
    let options = gc::Options {
        all: arguments.flag("all")?,
        dry_run: arguments.flag("dry-run")?,
    };
    arguments.end()?;
    let done = monitor.system().store().gc(options, monitor.progress())?;
    Ok(json!({
        "packs_dropped": done.dead_packs + done.orphans,
        "packs_rewritten": done.rewritten_packs,
        "copied_bytes": done.bytes_copied,
        "freed_bytes": done.bytes_before.saturating_sub(done.bytes_after) + done.orphan_bytes,
        "dead_bytes": done.bytes_dead,
        "pinned_bytes": done.bytes_spared,
        "stored_bytes": done.bytes_after,
    }))
}

/// How big it all is, and how busy.
pub fn stats(monitor: &Monitor, arguments: Arguments) -> Answer {
    arguments.end()?;
    let totals = monitor.system().store().totals(monitor.progress())?;
    let shelf = monitor.shelf();
    Ok(json!({
        "devices": totals.devices,
        "snapshots": totals.snapshots,
        "disk_bytes": totals.disk_bytes,
        "data_bytes": totals.data_bytes,
        "stored_bytes": totals.stored_bytes,
        "dead_bytes": totals.dead_bytes,
        "open_disks": shelf.open_disks(),
        "cache_bytes": shelf.cached_bytes(),
    }))
}
