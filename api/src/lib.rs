//! Devices, groups and snapshots over the stillpoint engine.
//!
//! A `System` is a store with its devices. An operation over several devices is one group: its snapshots exist on all of
//! them or on none.

pub mod compat;
mod create;
mod delete;
mod device;
mod disk;
mod goto;
mod import;
mod name;
mod raw;
mod select;
mod system;
mod view;

pub use create::{Create, Created, CreatedDevice, civil};
pub use delete::{Deleted, DeletedSnapshot};
pub use disk::{Exported, Output};
pub use goto::{GotoReport, WentDevice};
pub use import::Import;
pub use name::{check_device_name, check_snapshot_name};
pub use raw::{ChooseRawId, CreateRaw, RawSnapshot};
pub use select::{Selector, SnapshotRef};
pub use system::{OpenOptions, System, rescue};
pub use view::{DeviceView, SnapshotView, text};

pub use stillpoint_store as store;
pub use stillpoint_store::{Error, ErrorKind, Result};
