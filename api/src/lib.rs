//! Devices, groups and snapshots over the stillpoint engine.
//!
//! A `System` is a store with its devices. An operation over several devices is one group: its snapshots exist on all of
//! them or on none.

mod all;
mod create;
mod delete;
mod device;
mod disk;
mod goto;
mod import;
mod name;
mod read;
mod select;
mod system;
mod view;
mod vm_state;

pub use create::{Create, Created, CreatedDevice};
pub use delete::{Deleted, DeletedSnapshot};
pub use disk::{Exported, Output};
pub use goto::{GotoReport, WentDevice};
pub use import::Import;
pub use name::{check_device_name, check_snapshot_name};
pub use read::{Part, VIEW_CACHE_BYTES};
pub use select::{Selector, SnapshotRef};
pub use system::{OpenOptions, System, rescue};
pub use view::{DeviceView, SnapshotView};
pub use vm_state::{VmBytes, VmState};

pub use stillpoint_store as store;
pub use stillpoint_store::ops::view::{Extent, Reader, View};
pub use stillpoint_store::{Error, ErrorKind, Result};
