//! The C library: QEMU's snapshot API by release, over a store's devices. `include/stillpoint/block-snapshot.h` is its
//! contract, for callers; this is what stands behind it.
//!
//! A caller's release is the first argument of every function of QEMU's, since the header is compiled into callers of
//! different releases within one process. Handles of stores, graphs and nodes are numbers, never followed: one that is
//! stale is an error. Strings, results and Error objects are real pointers, and what the header says of them must hold:
//! that is the `# Safety` of every function here.

mod boundary;
mod error;
mod graph;
mod group;
mod handles;
mod info;
mod node;
mod old;
mod options;
mod seed;
mod snapshot;
mod store;
mod text;

pub use error::{
    Error, stillpoint_error_abort, stillpoint_error_append_hint, stillpoint_error_copy,
    stillpoint_error_fatal, stillpoint_error_free, stillpoint_error_get_class,
    stillpoint_error_get_pretty, stillpoint_error_hint, stillpoint_error_new,
    stillpoint_error_prepend, stillpoint_error_propagate, stillpoint_error_report,
};
pub use graph::{
    stillpoint_add_backend, stillpoint_add_bitmap, stillpoint_add_child, stillpoint_add_memory,
    stillpoint_add_plain, stillpoint_attach, stillpoint_attach_node, stillpoint_close_node,
    stillpoint_detach, stillpoint_detach_all, stillpoint_graph_enter, stillpoint_graph_free,
    stillpoint_graph_new, stillpoint_remove_bitmap,
};
pub use group::{
    StrList, stillpoint_bdrv_all_can_snapshot, stillpoint_bdrv_all_create_snapshot,
    stillpoint_bdrv_all_delete_snapshot, stillpoint_bdrv_all_find_snapshot,
    stillpoint_bdrv_all_find_vmstate_bs, stillpoint_bdrv_all_goto_snapshot,
    stillpoint_bdrv_all_has_snapshot,
};
pub use handles::{BlockDriverState, GraphHandle, StoreHandle};
pub use info::{Info1_0, Info1_1, Info5_2};
pub use node::{
    stillpoint_bdrv_load_vmstate, stillpoint_bdrv_save_vmstate, stillpoint_find_device,
    stillpoint_find_node, stillpoint_get_device_name, stillpoint_get_node_flags,
    stillpoint_get_node_name, stillpoint_getlength, stillpoint_pread, stillpoint_set_node_flags,
};
pub use old::{
    stillpoint_bdrv_is_snapshot, stillpoint_bdrv_snapshot_dump, stillpoint_bdrv_snapshots,
};
pub use options::{
    QemuOptDesc, QemuOptsList, internal_snapshot_opts, stillpoint_load_tmp_argument,
};
pub use seed::*;
pub use snapshot::{
    stillpoint_bdrv_can_snapshot, stillpoint_bdrv_snapshot_create, stillpoint_bdrv_snapshot_delete,
    stillpoint_bdrv_snapshot_delete_by_id_or_name, stillpoint_bdrv_snapshot_find,
    stillpoint_bdrv_snapshot_find_by_id_and_name, stillpoint_bdrv_snapshot_goto,
    stillpoint_bdrv_snapshot_list, stillpoint_bdrv_snapshot_load_tmp,
    stillpoint_bdrv_snapshot_load_tmp_by_id_or_name, stillpoint_free,
};
pub use store::{
    stillpoint_close, stillpoint_device_add, stillpoint_device_remove, stillpoint_goto_finish,
    stillpoint_goto_undo, stillpoint_init, stillpoint_last_error, stillpoint_open,
    stillpoint_version,
};
