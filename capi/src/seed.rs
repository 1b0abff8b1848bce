//! The functions of QEMU 4.2's header under their own names, for callers that do not compile the header of this library:
//! other languages, `dlsym`, objects that were compiled against QEMU's.

use crate::error::{
    Error, stillpoint_error_free, stillpoint_error_get_class, stillpoint_error_get_pretty,
};
use crate::handles::BlockDriverState;
use crate::info::Info1_1;
use crate::{group, snapshot};
use std::ffi::{c_char, c_int};
use std::ptr;

/// The release of the seed.
const SEED: c_int = 402;

/// Of 4.2.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bdrv_can_snapshot(bs: *mut BlockDriverState) -> c_int {
    // SAFETY: the contract is that of the function called.
    unsafe { snapshot::stillpoint_bdrv_can_snapshot(SEED, bs) }
}

/// Of 4.2.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bdrv_snapshot_create(
    bs: *mut BlockDriverState,
    sn_info: *mut Info1_1,
) -> c_int {
    // SAFETY: the contract is that of the function called.
    unsafe { snapshot::stillpoint_bdrv_snapshot_create(SEED, bs, sn_info.cast()) }
}

/// Of 4.2.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bdrv_snapshot_find(
    bs: *mut BlockDriverState,
    sn_info: *mut Info1_1,
    name: *const c_char,
) -> c_int {
    // SAFETY: the contract is that of the function called.
    unsafe { snapshot::stillpoint_bdrv_snapshot_find(SEED, bs, sn_info.cast(), name) }
}

/// Of 4.2.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bdrv_snapshot_find_by_id_and_name(
    bs: *mut BlockDriverState,
    id: *const c_char,
    name: *const c_char,
    sn_info: *mut Info1_1,
    errp: *mut *mut Error,
) -> bool {
    let sn = sn_info.cast();
    // SAFETY: the contract is that of the function called.
    unsafe { snapshot::stillpoint_bdrv_snapshot_find_by_id_and_name(SEED, bs, id, name, sn, errp) }
}

/// Of 4.2.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bdrv_snapshot_goto(
    bs: *mut BlockDriverState,
    snapshot_id: *const c_char,
    errp: *mut *mut Error,
) -> c_int {
    // SAFETY: the contract is that of the function called.
    unsafe { snapshot::stillpoint_bdrv_snapshot_goto(SEED, bs, snapshot_id, errp) }
}

/// Of 4.2.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bdrv_snapshot_delete(
    bs: *mut BlockDriverState,
    snapshot_id: *const c_char,
    name: *const c_char,
    errp: *mut *mut Error,
) -> c_int {
    // SAFETY: the contract is that of the function called.
    unsafe { snapshot::stillpoint_bdrv_snapshot_delete(SEED, bs, snapshot_id, name, errp) }
}

/// Of 4.2.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bdrv_snapshot_list(
    bs: *mut BlockDriverState,
    psn_info: *mut *mut Info1_1,
) -> c_int {
    // SAFETY: the contract is that of the function called.
    unsafe { snapshot::stillpoint_bdrv_snapshot_list(SEED, bs, psn_info.cast()) }
}

/// Of 4.2.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bdrv_snapshot_load_tmp(
    bs: *mut BlockDriverState,
    snapshot_id: *const c_char,
    name: *const c_char,
    errp: *mut *mut Error,
) -> c_int {
    // SAFETY: the contract is that of the function called.
    unsafe { snapshot::stillpoint_bdrv_snapshot_load_tmp(SEED, bs, snapshot_id, name, errp) }
}

/// Of 4.2.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bdrv_snapshot_load_tmp_by_id_or_name(
    bs: *mut BlockDriverState,
    id_or_name: *const c_char,
    errp: *mut *mut Error,
) -> c_int {
    // SAFETY: the contract is that of the function called.
    unsafe { snapshot::stillpoint_bdrv_snapshot_load_tmp_by_id_or_name(SEED, bs, id_or_name, errp) }
}

/// Of 4.2.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bdrv_all_can_snapshot(first_bad_bs: *mut *mut BlockDriverState) -> bool {
    let (none, errp) = (ptr::null(), ptr::null_mut());
    // SAFETY: the contract is that of the function called.
    unsafe { group::stillpoint_bdrv_all_can_snapshot(SEED, false, none, first_bad_bs, errp) }
}

/// Of 4.2.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bdrv_all_delete_snapshot(
    name: *const c_char,
    first_bad_bs: *mut *mut BlockDriverState,
    err: *mut *mut Error,
) -> c_int {
    let (none, bad) = (ptr::null(), first_bad_bs);
    // SAFETY: the contract is that of the function called.
    unsafe { group::stillpoint_bdrv_all_delete_snapshot(SEED, name, false, none, bad, err) }
}

/// Of 4.2.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bdrv_all_goto_snapshot(
    name: *const c_char,
    first_bad_bs: *mut *mut BlockDriverState,
    errp: *mut *mut Error,
) -> c_int {
    let (none, bad) = (ptr::null(), first_bad_bs);
    // SAFETY: the contract is that of the function called.
    unsafe { group::stillpoint_bdrv_all_goto_snapshot(SEED, name, false, none, bad, errp) }
}

/// Of 4.2.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bdrv_all_find_snapshot(
    name: *const c_char,
    first_bad_bs: *mut *mut BlockDriverState,
) -> c_int {
    // SAFETY: the contract is that of the function called.
    unsafe { group::stillpoint_bdrv_all_find_snapshot(SEED, name, first_bad_bs) }
}

/// Of 4.2.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bdrv_all_create_snapshot(
    sn: *mut Info1_1,
    vm_state_bs: *mut BlockDriverState,
    vm_state_size: u64,
    first_bad_bs: *mut *mut BlockDriverState,
) -> c_int {
    let (none, bad, errp) = (ptr::null(), first_bad_bs, ptr::null_mut());
    let (sn, node, size) = (sn.cast(), vm_state_bs, vm_state_size);
    // SAFETY: the contract is that of the function called.
    unsafe {
        group::stillpoint_bdrv_all_create_snapshot(SEED, sn, node, size, false, none, bad, errp)
    }
}

/// Of 4.2.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bdrv_all_find_vmstate_bs() -> *mut BlockDriverState {
    let (name, none, errp) = (ptr::null(), ptr::null(), ptr::null_mut());
    // SAFETY: the contract is that of the function called.
    unsafe { group::stillpoint_bdrv_all_find_vmstate_bs(SEED, name, false, none, errp) }
}

/// Of 4.2.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn error_get_pretty(error: *const Error) -> *const c_char {
    // SAFETY: the contract is that of the function called.
    unsafe { stillpoint_error_get_pretty(error) }
}

/// Of 4.2.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn error_get_class(error: *const Error) -> c_int {
    // SAFETY: the contract is that of the function called.
    unsafe { stillpoint_error_get_class(error) }
}

/// Of 4.2.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn error_free(error: *mut Error) {
    // SAFETY: the contract is that of the function called.
    unsafe { stillpoint_error_free(error) }
}
