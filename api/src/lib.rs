//! Devices, groups and snapshots over the stillpoint engine.
//!
//! A `System` is a store with its devices. An operation over several devices is one group: its snapshots exist on all of
//! them or on none.
//!
//! ```
//! use stillpoint_api::store::geometry::Geometry;
//! use stillpoint_api::store::progress::Progress;
//! use stillpoint_api::{Create, OpenOptions, System};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let folder = tempfile::tempdir()?;
//! # let (store, image) = (folder.path().join("store"), folder.path().join("web1.raw"));
//! # std::fs::write(&image, vec![1; 100_000])?;
//! System::init(&store, Geometry::DEFAULT)?;
//! let system = System::open(&store, OpenOptions::default())?;
//! let progress = Progress::default();
//!
//! system.device_add("web1", &image, "raw", false)?;
//! let monday = Create {
//!     name: Some("monday".into()),
//!     ..Create::default()
//! };
//! system.create(&monday, &progress)?;
//!
//! std::fs::write(&image, vec![2; 100_000])?; // a bad day
//! let went = system.goto("monday", &[], &progress)?;
//! assert_eq!(went.devices[0].device, "web1");
//! assert_eq!(std::fs::read(&image)?, vec![1; 100_000]);
//! # Ok(())
//! # }
//! ```
//!
//! Errors are of one type, whose `kind` says what a caller can do about them:
//!
//! ```
//! # use stillpoint_api::store::geometry::Geometry;
//! # use stillpoint_api::store::progress::Progress;
//! use stillpoint_api::{ErrorKind, Selector};
//! # use stillpoint_api::{OpenOptions, System};
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let folder = tempfile::tempdir()?;
//! # System::init(folder.path(), Geometry::DEFAULT)?;
//! # let system = System::open(folder.path(), OpenOptions::default())?;
//! // A bare word is a name, whatever it looks like; an id is asked for as such, and both may be.
//! assert_eq!(Selector::parse("3")?, Selector::Name("3".into()));
//! let missing = system.find("id:3,name:monday", &[]).unwrap_err();
//! assert_eq!(missing.kind(), ErrorKind::NotFound);
//! # Ok(())
//! # }
//! ```

mod all;
mod commit;
pub mod compat;
mod create;
mod delete;
mod device;
mod disk;
mod draft;
mod estimate;
mod goto;
mod history;
mod import;
mod name;
mod owned_view;
mod raw;
mod read;
mod read_back;
mod select;
mod states;
mod system;
mod view;
mod vm_state;
mod volume;

pub use create::{Create, Created, CreatedDevice};
pub use delete::{Deleted, DeletedSnapshot};
pub use disk::{Begin, Exported, Output};
pub use draft::civil;
pub use estimate::Estimate;
pub use goto::{GotoReport, WentDevice};
pub use history::{ImportHistory, ImportedHistory};
pub use import::Import;
pub use name::{check_device_name, check_snapshot_name};
pub use owned_view::OwnedView;
pub use raw::{ChooseRawId, CreateRaw, RawSnapshot};
pub use read::{Part, VIEW_CACHE_BYTES};
pub use read_back::Kept;
pub use select::{Selector, SnapshotRef};
pub use states::Which;
pub use system::{OpenOptions, System, rescue};
pub use view::{DeviceView, SnapshotView, text};
pub use vm_state::{VmBytes, VmState};
pub use volume::{CreatedVolume, VolumeSource};

/// The examples of the guide are tests.
#[cfg(doctest)]
#[doc = include_str!("../../docs/API.md")]
struct Guide;

pub use stillpoint_store as store;
pub use stillpoint_store::ops::view::{Extent, Reader, View};
pub use stillpoint_store::volume::{Volume, Volumes};
pub use stillpoint_store::{Error, ErrorKind, Result};
