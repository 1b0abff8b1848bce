//! The functions over one node.

use crate::boundary::{Outcome, call_bool, call_int, failure, release};
use crate::error::Error;
use crate::handles::{BlockDriverState, with_node};
use crate::info;
use crate::text::{null, optional, required};
use std::ffi::{c_char, c_int, c_void};
use std::ptr;
use stillpoint_api::compat::{self, Flags, QemuSnapshotInfo};

/// Linux's number for no memory.
const ENOMEM: c_int = 12;

/// `bdrv_can_snapshot`: 1 or 0; of NULL it is 0.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn stillpoint_bdrv_can_snapshot(
    version: c_int,
    bs: *mut BlockDriverState,
) -> c_int {
    let act = || {
        let release = release(version)?;
        with_node(bs, |graph, id| {
            Ok(compat::bdrv_can_snapshot(release, graph, id))
        })
    };
    // SAFETY: there is no Error object.
    c_int::from(unsafe { call_bool("bdrv_can_snapshot", ptr::null_mut(), act) })
}

/// `bdrv_snapshot_create`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn stillpoint_bdrv_snapshot_create(
    version: c_int,
    bs: *mut BlockDriverState,
    sn_info: *mut c_void,
) -> c_int {
    let act = || {
        let release = release(version)?;
        let flags = release.flags();
        // SAFETY: the header makes it a struct of that release, or NULL.
        let asked = unsafe { info::read(&flags, sn_info) }?;
        let mut sn = asked;
        let created = with_node(bs, |graph, id| {
            compat::bdrv_snapshot_create(release, graph, id, &mut sn)
        });
        if created.is_ok() || sn != asked {
            // SAFETY: it was read as one just now.
            unsafe { info::write_created(&flags, sn_info, &sn) };
        }
        created.map(|()| 0)
    };
    // SAFETY: there is no Error object.
    unsafe { call_int("bdrv_snapshot_create", ptr::null_mut(), act) }
}

/// `bdrv_snapshot_find`. `sn_info` is untouched when nothing is found.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn stillpoint_bdrv_snapshot_find(
    version: c_int,
    bs: *mut BlockDriverState,
    sn_info: *mut c_void,
    name: *const c_char,
) -> c_int {
    let act = || {
        let release = release(version)?;
        // SAFETY: a string or NULL, which the caller keeps during the call.
        let name = unsafe { required(name, "name") }?;
        if sn_info.is_null() {
            return Err(null("sn_info"));
        }
        let found = with_node(bs, |graph, id| {
            compat::bdrv_snapshot_find(release, graph, id, name)
        })?;
        // SAFETY: the header makes it room for a struct of that release, and it is not NULL.
        unsafe { info::write(&release.flags(), sn_info, &found) };
        Ok(0)
    };
    // SAFETY: there is no Error object.
    unsafe { call_int("bdrv_snapshot_find", ptr::null_mut(), act) }
}

/// `bdrv_snapshot_find_by_id_and_name`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn stillpoint_bdrv_snapshot_find_by_id_and_name(
    version: c_int,
    bs: *mut BlockDriverState,
    id: *const c_char,
    name: *const c_char,
    sn_info: *mut c_void,
    errp: *mut *mut Error,
) -> bool {
    let act = || {
        let release = release(version)?;
        // SAFETY: a string or NULL, which the caller keeps during the call.
        let id = unsafe { optional(id) };
        // SAFETY: likewise.
        let name = unsafe { optional(name) };
        if sn_info.is_null() {
            return Err(null("sn_info"));
        }
        let found = with_node(bs, |graph, node| {
            compat::bdrv_snapshot_find_by_id_and_name(release, graph, node, id, name)
        })?;
        let Some(found) = found else {
            return Ok(false);
        };
        // SAFETY: the header makes it room for a struct of that release, and it is not NULL.
        unsafe { info::write(&release.flags(), sn_info, &found) };
        Ok(true)
    };
    // SAFETY: the header makes it NULL or an `Error **`.
    unsafe { call_bool("bdrv_snapshot_find_by_id_and_name", errp, act) }
}

/// `bdrv_snapshot_goto`. Releases before 2.11 pass no `errp`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn stillpoint_bdrv_snapshot_goto(
    version: c_int,
    bs: *mut BlockDriverState,
    snapshot_id: *const c_char,
    errp: *mut *mut Error,
) -> c_int {
    let act = || {
        let release = release(version)?;
        // SAFETY: a string or NULL, which the caller keeps during the call.
        let id_or_name = unsafe { required(snapshot_id, "snapshot_id") }?;
        with_node(bs, |graph, id| {
            compat::bdrv_snapshot_goto(release, graph, id, id_or_name)
        })?;
        Ok(0)
    };
    // SAFETY: the header makes it NULL or an `Error **`.
    unsafe { call_int("bdrv_snapshot_goto", errp, act) }
}

/// `bdrv_snapshot_delete`. Releases before 1.7 pass neither `name` nor `errp`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn stillpoint_bdrv_snapshot_delete(
    version: c_int,
    bs: *mut BlockDriverState,
    snapshot_id: *const c_char,
    name: *const c_char,
    errp: *mut *mut Error,
) -> c_int {
    let act = || {
        let release = release(version)?;
        // SAFETY: a string or NULL, which the caller keeps during the call.
        let id = unsafe { optional(snapshot_id) };
        // SAFETY: likewise.
        let name = unsafe { optional(name) };
        if id.is_none() && !release.flags().delete_takes_name {
            return Err(null("snapshot_id"));
        }
        with_node(bs, |graph, node| {
            compat::bdrv_snapshot_delete(release, graph, node, id, name)
        })?;
        Ok(0)
    };
    // SAFETY: the header makes it NULL or an `Error **`.
    unsafe { call_int("bdrv_snapshot_delete", errp, act) }
}

/// `bdrv_snapshot_delete_by_id_or_name`. Before 2.5 the header drops the number.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn stillpoint_bdrv_snapshot_delete_by_id_or_name(
    version: c_int,
    bs: *mut BlockDriverState,
    id_or_name: *const c_char,
    errp: *mut *mut Error,
) -> c_int {
    let act = || {
        let release = release(version)?;
        // SAFETY: a string or NULL, which the caller keeps during the call.
        let id_or_name = unsafe { required(id_or_name, "id_or_name") }?;
        with_node(bs, |graph, node| {
            compat::bdrv_snapshot_delete_by_id_or_name(release, graph, node, id_or_name)
        })?;
        Ok(0)
    };
    // SAFETY: the header makes it NULL or an `Error **`.
    unsafe { call_int("bdrv_snapshot_delete_by_id_or_name", errp, act) }
}

/// `bdrv_snapshot_list`. The array is the caller's, who frees it as what malloc gave; NULL for no snapshots. `*psn_info`
/// is untouched when the call fails.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn stillpoint_bdrv_snapshot_list(
    version: c_int,
    bs: *mut BlockDriverState,
    psn_info: *mut c_void,
) -> c_int {
    let act = || {
        let release = release(version)?;
        if psn_info.is_null() {
            return Err(null("psn_info"));
        }
        let all = with_node(bs, |graph, id| {
            compat::bdrv_snapshot_list(release, graph, id)
        })?;
        let array = array(&release.flags(), &all)?;
        // SAFETY: the header makes it a `QEMUSnapshotInfo **`, and it is not NULL.
        unsafe { *psn_info.cast::<*mut c_void>() = array };
        Ok(c_int::try_from(all.len()).unwrap_or(c_int::MAX))
    };
    // SAFETY: there is no Error object.
    unsafe { call_int("bdrv_snapshot_list", ptr::null_mut(), act) }
}

/// A copy in memory from malloc.
fn array(flags: &Flags, all: &[QemuSnapshotInfo]) -> Outcome<*mut c_void> {
    let bytes = info::bytes(flags);
    if all.is_empty() {
        return Ok(ptr::null_mut());
    }
    // SAFETY: calloc checks the product, and may be called with any numbers.
    let array = unsafe { libc::calloc(all.len(), bytes) };
    if array.is_null() {
        return Err(failure(ENOMEM, "there is no memory for the list"));
    }
    for (n, sn) in all.iter().enumerate() {
        // SAFETY: the nth of as many structs as were asked for.
        let at = unsafe { array.byte_add(n * bytes) };
        // SAFETY: malloc's memory is aligned for anything, and the struct's size is a multiple of its alignment.
        unsafe { info::write(flags, at, sn) };
    }
    Ok(array)
}

/// Frees what `bdrv_snapshot_list` gave: C's `free`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn stillpoint_free(memory: *mut c_void) {
    // SAFETY: NULL, or memory from malloc that was not freed.
    unsafe { libc::free(memory) };
}

/// `bdrv_snapshot_load_tmp`. Releases before 2.0 pass neither `snapshot_id` nor `errp`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn stillpoint_bdrv_snapshot_load_tmp(
    version: c_int,
    bs: *mut BlockDriverState,
    snapshot_id: *const c_char,
    name: *const c_char,
    errp: *mut *mut Error,
) -> c_int {
    let act = || {
        let release = release(version)?;
        // SAFETY: a string or NULL, which the caller keeps during the call.
        let id = unsafe { optional(snapshot_id) };
        // SAFETY: likewise.
        let name = unsafe { optional(name) };
        if name.is_none() && !release.flags().load_tmp_full {
            return Err(null("snapshot_name"));
        }
        with_node(bs, |graph, node| {
            compat::bdrv_snapshot_load_tmp(release, graph, node, id, name)
        })?;
        Ok(0)
    };
    // SAFETY: the header makes it NULL or an `Error **`.
    unsafe { call_int("bdrv_snapshot_load_tmp", errp, act) }
}

/// `bdrv_snapshot_load_tmp_by_id_or_name`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn stillpoint_bdrv_snapshot_load_tmp_by_id_or_name(
    version: c_int,
    bs: *mut BlockDriverState,
    id_or_name: *const c_char,
    errp: *mut *mut Error,
) -> c_int {
    let act = || {
        let release = release(version)?;
        // SAFETY: a string or NULL, which the caller keeps during the call.
        let id_or_name = unsafe { required(id_or_name, "id_or_name") }?;
        with_node(bs, |graph, node| {
            compat::bdrv_snapshot_load_tmp_by_id_or_name(release, graph, node, id_or_name)
        })?;
        Ok(0)
    };
    // SAFETY: the header makes it NULL or an `Error **`.
    unsafe { call_int("bdrv_snapshot_load_tmp_by_id_or_name", errp, act) }
}
