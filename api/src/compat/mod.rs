//! QEMU's snapshot API by release: every function of the seed's header under its C name, behaving as a release from 1.0 to
//! 11.1 did, over the store's devices.
//!
//! A [`Release`] says which; [`eras`] has the one table of how they differ. A [`Graph`] holds the nodes that the group
//! functions choose from. A function returns what its C caller saw: `Ok`, or a [`Failure`] with the number, the Error
//! object and `*first_bad_bs`. What an era left half done, this leaves half done; the native API is all or nothing.
//!
//! ```
//! use stillpoint_api::compat::memory::MemoryTable;
//! use stillpoint_api::compat::qcow2::Qcow2;
//! use stillpoint_api::compat::*;
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! // A disk in memory; `graph.add_device(&system, "web1")` adds one of a store.
//! let mut graph = Graph::new();
//! let disk = graph.add_drive("web1", Box::new(Qcow2::new(MemoryTable::new(b"monday"))))?;
//!
//! let release: Release = "4.2".parse()?;
//! let mut sn = QemuSnapshotInfo::named(b"2");
//! bdrv_snapshot_create(release, &mut graph, disk, &mut sn)?;
//! assert_eq!(sn.id_str.as_bytes(), b"1");
//! bdrv_snapshot_create(release, &mut graph, disk, &mut QemuSnapshotInfo::named(b"tuesday"))?;
//!
//! // find is by name; goto tries ids first, in every release: this one goes to "tuesday".
//! let found = bdrv_snapshot_find(release, &mut graph, disk, b"2")?;
//! assert_eq!(found.id_str.as_bytes(), b"1");
//! bdrv_snapshot_goto(release, &mut graph, disk, b"2")?;
//!
//! // A failure is what C saw.
//! let failed = bdrv_snapshot_goto(release, &mut graph, disk, b"nix").unwrap_err();
//! assert_eq!(failed.ret, -errno::ENOENT);
//! assert_eq!(failed.to_string(), "Failed to load snapshot: No such file or directory");
//! # Ok(())
//! # }
//! ```

mod all;
mod can;
mod create;
mod delete;
mod device;
pub mod driver;
mod dump;
pub mod eras;
pub mod errno;
mod failure;
mod find;
mod goto;
pub mod graph;
mod img;
mod info;
mod list;
mod load_tmp;
pub mod memory;
pub mod monitor;
mod old;
mod options;
pub mod qcow2;
mod release;
#[cfg(test)]
mod tests;
mod vmstate;

pub use all::{
    Devices, bdrv_all_can_snapshot, bdrv_all_create_snapshot, bdrv_all_delete_snapshot,
    bdrv_all_find_snapshot, bdrv_all_find_vmstate_bs, bdrv_all_goto_snapshot,
    bdrv_all_has_snapshot,
};
pub use can::bdrv_can_snapshot;
pub use create::bdrv_snapshot_create;
pub use delete::{bdrv_snapshot_delete, bdrv_snapshot_delete_by_id_or_name};
pub use device::StoreTable;
pub use dump::{UtcOffset, snapshot_list};
pub use eras::Flags;
pub use failure::{Failure, QemuError};
pub use find::{bdrv_snapshot_find, bdrv_snapshot_find_by_id_and_name};
pub use goto::bdrv_snapshot_goto;
pub use graph::{Graph, Node, NodeId};
pub use img::{ImgAction, ImgOutput, img_snapshot};
pub use info::{ICOUNT_NONE, IdStr, NameStr, QemuSnapshotInfo, Text};
pub use list::bdrv_snapshot_list;
pub use load_tmp::{bdrv_snapshot_load_tmp, bdrv_snapshot_load_tmp_by_id_or_name};
pub use old::{bdrv_is_snapshot, bdrv_snapshot_dump, bdrv_snapshots};
pub use options::{
    SNAPSHOT_OPT_BASE, SNAPSHOT_OPT_ID, SNAPSHOT_OPT_NAME, SnapshotArgument,
    parse_snapshot_argument,
};
pub use release::Release;
pub use vmstate::{bdrv_load_vmstate, bdrv_save_vmstate};
