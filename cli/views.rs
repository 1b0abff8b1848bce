//! From what the engine says to what the verbs report.

use crate::output::time::Time;
use crate::report::{Attachment, Created, CreatedSnapshot, CreatedVmState, Device, Snapshot};
use std::time::Instant;
use stillpoint_api::{CreatedDevice, DeviceView, SnapshotView};

/// A device.
pub fn device(view: &DeviceView) -> Device {
    let image = view.image.as_ref().map(|path| Attachment {
        image: path.display().to_string(),
        format: view.format.clone().unwrap_or_default(),
        read_only: view.read_only,
    });
    Device {
        name: view.name.clone(),
        uid: view.uid.to_string(),
        attachment: image,
        size_bytes: view.size,
        snapshots: view.snapshots,
        goto_unfinished: view.in_goto,
        volume: view.volume,
    }
}

/// A snapshot.
pub fn snapshot(view: &SnapshotView) -> Snapshot {
    Snapshot {
        device: view.device.clone(),
        id: view.id.clone(),
        name: view.name.clone(),
        uid: view.uid.to_string(),
        date: Time {
            sec: view.date.sec,
            nsec: view.date.nsec,
        },
        size_bytes: view.size,
        vm_state_bytes: view.vm_state_size,
        vm_clock_nsec: view.vm_clock_nsec,
        icount: view.icount,
        group: view.group.map(|uid| uid.to_string()),
        parent: view.parent.map(|uid| uid.to_string()),
    }
}

/// A group that was made.
pub fn created(made: &stillpoint_api::Created, since: Instant) -> Created {
    Created {
        group: Some(made.group.to_string()),
        snapshots: made.devices.iter().map(created_snapshot).collect(),
        seconds: since.elapsed().as_secs_f64(),
    }
}

/// A snapshot that was made.
pub fn created_snapshot(made: &CreatedDevice) -> CreatedSnapshot {
    CreatedSnapshot {
        device: made.device.clone(),
        id: made.id.clone(),
        name: made.name.clone(),
        uid: made.uid.to_string(),
        size_bytes: made.content.size,
        read_bytes: made.counts.read,
        new_bytes: made.counts.new,
        stored_bytes: made.counts.stored,
        vm_state: made.vm_state.map(|vm| CreatedVmState {
            size_bytes: vm.content.size,
            new_bytes: vm.counts.new,
            stored_bytes: vm.counts.stored,
        }),
    }
}
