//! `internal_snapshot_opts`, and the argument that is read by it.

use crate::boundary::{call_int, release};
use crate::error::Error;
use crate::handles::{BlockDriverState, with_node};
use crate::text::required;
use std::ffi::{c_char, c_int};
use std::ptr;
use stillpoint_api::compat::{self, SnapshotArgument};

/// `QemuOptDesc`: an option.
#[repr(C)]
pub struct QemuOptDesc {
    name: *const c_char,
    /// 0: a string.
    kind: c_int,
    help: *const c_char,
    def_value_str: *const c_char,
}

/// `QemuOptsList`, as far as callers read it: the options that there are, and an end.
#[repr(C)]
pub struct QemuOptsList {
    name: *const c_char,
    implied_opt_name: *const c_char,
    merge_lists: bool,
    desc: [QemuOptDesc; 3],
}

// SAFETY: all pointers in it are to constants.
unsafe impl Sync for QemuOptsList {}

/// The object itself, as the seed declares it. Its size is part of the library's interface: programs that are not
/// position-independent have a copy of it.
#[unsafe(no_mangle)]
pub static internal_snapshot_opts: QemuOptsList = QemuOptsList {
    name: c"snapshot".as_ptr(),
    implied_opt_name: ptr::null(),
    merge_lists: false,
    desc: [
        option(c"snapshot.id".as_ptr(), c"the snapshot's id".as_ptr()),
        option(c"snapshot.name".as_ptr(), c"the snapshot's name".as_ptr()),
        option(ptr::null(), ptr::null()),
    ],
};

const fn option(name: *const c_char, help: *const c_char) -> QemuOptDesc {
    QemuOptDesc {
        name,
        kind: 0,
        help,
        def_value_str: ptr::null(),
    }
}

/// What `qemu-nbd -l ARGUMENT` and `qemu-img convert -l ARGUMENT` do: `load_tmp` of a snapshot by options or by id or name.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn stillpoint_load_tmp_argument(
    version: c_int,
    bs: *mut BlockDriverState,
    argument: *const c_char,
    errp: *mut *mut Error,
) -> c_int {
    let act = || {
        let release = release(version)?;
        // SAFETY: a string or NULL, which the caller keeps during the call.
        let argument = unsafe { required(argument, "argument") }?;
        let argument = compat::parse_snapshot_argument(release, argument)?;
        with_node(bs, |graph, node| match &argument {
            SnapshotArgument::Options { id, name } => {
                let (id, name) = (id.as_deref(), name.as_deref());
                compat::bdrv_snapshot_load_tmp(release, graph, node, id, name)
            }
            SnapshotArgument::IdOrName(text) => {
                compat::bdrv_snapshot_load_tmp_by_id_or_name(release, graph, node, text)
            }
        })?;
        Ok(0)
    };
    // SAFETY: the header makes it NULL or an `Error **`.
    unsafe { call_int("stillpoint_load_tmp_argument", errp, act) }
}
