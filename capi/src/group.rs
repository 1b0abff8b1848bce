//! The group functions, `bdrv_all_*`, over the graph that the thread is in.

use crate::boundary::{Outcome, call_bool, call_int, call_ptr, invalid, release};
use crate::error::Error;
use crate::handles::{BlockDriverState, State, own, with_current};
use crate::info;
use crate::text::{null, optional, required};
use std::ffi::{c_char, c_int, c_void};
use std::ptr;
use stillpoint_api::compat::eras::GroupResult;
use stillpoint_api::compat::{self, Devices, Failure, Release};

/// `strList`: a list of device names.
#[repr(C)]
pub struct StrList {
    next: *const StrList,
    value: *const c_char,
}

/// Names in a list at most; one that is longer runs in a circle.
const NAMES_MAX: usize = 65_536;

/// `has_devices, devices`.
///
/// # Safety
/// `list` is NULL or a list of strings.
unsafe fn devices(has: bool, list: *const StrList) -> Outcome<Devices> {
    let mut names = Vec::new();
    let mut at = list;
    // SAFETY: the caller's promise: each element is one, or NULL at the end.
    while let Some(element) = unsafe { at.as_ref() } {
        if names.len() == NAMES_MAX {
            return Err(invalid("devices has no end"));
        }
        // SAFETY: a string or NULL, which the caller keeps during the call.
        let name = unsafe { required(element.value, "a device's name") }?;
        names.push(String::from_utf8_lossy(name).into_owned());
        at = element.next;
    }
    Ok(Devices { has, names })
}

/// Where the node that failed is told to the caller.
#[derive(Clone, Copy)]
struct FirstBad(*mut *mut BlockDriverState);

impl FirstBad {
    /// Refuses NULL in releases that write there in every case, and writes "none".
    ///
    /// # Safety
    /// NULL, or it points to a `BlockDriverState *`.
    unsafe fn begin(self, release: Release) -> Outcome<()> {
        if release.flags().group_result == GroupResult::FirstBad && self.0.is_null() {
            return Err(null("first_bad_bs"));
        }
        // SAFETY: the caller's promise.
        unsafe { self.put(ptr::null_mut()) };
        Ok(())
    }

    /// Writes the node of a failure.
    ///
    /// # Safety
    /// As of `begin`.
    unsafe fn note<T>(self, state: &State, done: Result<T, Failure>) -> Outcome<T> {
        if let Err(e) = &done {
            // SAFETY: the caller's promise.
            unsafe { self.put(state.handle(e.first_bad)) };
        }
        done
    }

    unsafe fn put(self, bs: *mut BlockDriverState) {
        if !self.0.is_null() {
            // SAFETY: the caller's promise, and it is not NULL.
            unsafe { *self.0 = bs };
        }
    }
}

/// `bdrv_all_can_snapshot`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn stillpoint_bdrv_all_can_snapshot(
    version: c_int,
    has_devices: bool,
    list: *const StrList,
    first_bad_bs: *mut *mut BlockDriverState,
    errp: *mut *mut Error,
) -> bool {
    let act = || {
        let (release, bad) = (release(version)?, FirstBad(first_bad_bs));
        // SAFETY: the header makes it NULL or a `BlockDriverState **`.
        unsafe { bad.begin(release) }?;
        // SAFETY: the header makes it NULL or a list of strings.
        let devices = unsafe { devices(has_devices, list) }?;
        with_current(|state, _| {
            let can = compat::bdrv_all_can_snapshot(release, &state.graph, &devices);
            // SAFETY: as above.
            unsafe { bad.note(state, can) }
        })?;
        Ok(true)
    };
    // SAFETY: the header makes it NULL or an `Error **`.
    unsafe { call_bool("bdrv_all_can_snapshot", errp, act) }
}

/// `bdrv_all_delete_snapshot`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn stillpoint_bdrv_all_delete_snapshot(
    version: c_int,
    name: *const c_char,
    has_devices: bool,
    list: *const StrList,
    first_bad_bs: *mut *mut BlockDriverState,
    errp: *mut *mut Error,
) -> c_int {
    let act = || {
        let (release, bad) = (release(version)?, FirstBad(first_bad_bs));
        // SAFETY: the header makes it NULL or a `BlockDriverState **`.
        unsafe { bad.begin(release) }?;
        // SAFETY: a string or NULL, which the caller keeps during the call.
        let name = unsafe { required(name, "name") }?;
        // SAFETY: the header makes it NULL or a list of strings.
        let devices = unsafe { devices(has_devices, list) }?;
        with_current(|state, _| {
            let graph = &mut state.graph;
            let done = compat::bdrv_all_delete_snapshot(release, graph, name, &devices);
            // SAFETY: as above.
            unsafe { bad.note(state, done) }
        })?;
        Ok(0)
    };
    // SAFETY: the header makes it NULL or an `Error **`.
    unsafe { call_int("bdrv_all_delete_snapshot", errp, act) }
}

/// `bdrv_all_goto_snapshot`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn stillpoint_bdrv_all_goto_snapshot(
    version: c_int,
    name: *const c_char,
    has_devices: bool,
    list: *const StrList,
    first_bad_bs: *mut *mut BlockDriverState,
    errp: *mut *mut Error,
) -> c_int {
    let act = || {
        let (release, bad) = (release(version)?, FirstBad(first_bad_bs));
        // SAFETY: the header makes it NULL or a `BlockDriverState **`.
        unsafe { bad.begin(release) }?;
        // SAFETY: a string or NULL, which the caller keeps during the call.
        let name = unsafe { required(name, "name") }?;
        // SAFETY: the header makes it NULL or a list of strings.
        let devices = unsafe { devices(has_devices, list) }?;
        with_current(|state, _| {
            let graph = &mut state.graph;
            let done = compat::bdrv_all_goto_snapshot(release, graph, name, &devices);
            // SAFETY: as above.
            unsafe { bad.note(state, done) }
        })?;
        Ok(0)
    };
    // SAFETY: the header makes it NULL or an `Error **`.
    unsafe { call_int("bdrv_all_goto_snapshot", errp, act) }
}

/// `bdrv_all_find_snapshot`, through 5.2.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn stillpoint_bdrv_all_find_snapshot(
    version: c_int,
    name: *const c_char,
    first_bad_bs: *mut *mut BlockDriverState,
) -> c_int {
    let act = || {
        let (release, bad) = (release(version)?, FirstBad(first_bad_bs));
        // SAFETY: the header makes it NULL or a `BlockDriverState **`.
        unsafe { bad.begin(release) }?;
        // SAFETY: a string or NULL, which the caller keeps during the call.
        let name = unsafe { required(name, "name") }?;
        with_current(|state, _| {
            let found = compat::bdrv_all_find_snapshot(release, &mut state.graph, name);
            // SAFETY: as above.
            unsafe { bad.note(state, found) }
        })?;
        Ok(0)
    };
    // SAFETY: there is no Error object.
    unsafe { call_int("bdrv_all_find_snapshot", ptr::null_mut(), act) }
}

/// `bdrv_all_has_snapshot`, from 6.0 on: 1, 0, or a negative number.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn stillpoint_bdrv_all_has_snapshot(
    version: c_int,
    name: *const c_char,
    has_devices: bool,
    list: *const StrList,
    errp: *mut *mut Error,
) -> c_int {
    let act = || {
        let release = release(version)?;
        // SAFETY: a string or NULL, which the caller keeps during the call.
        let name = unsafe { required(name, "name") }?;
        // SAFETY: the header makes it NULL or a list of strings.
        let devices = unsafe { devices(has_devices, list) }?;
        with_current(|state, _| {
            let graph = &mut state.graph;
            compat::bdrv_all_has_snapshot(release, graph, name, &devices).map(c_int::from)
        })
    };
    // SAFETY: the header makes it NULL or an `Error **`.
    unsafe { call_int("bdrv_all_has_snapshot", errp, act) }
}

/// `bdrv_all_create_snapshot`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn stillpoint_bdrv_all_create_snapshot(
    version: c_int,
    sn_info: *mut c_void,
    vm_state_bs: *mut BlockDriverState,
    vm_state_size: u64,
    has_devices: bool,
    list: *const StrList,
    first_bad_bs: *mut *mut BlockDriverState,
    errp: *mut *mut Error,
) -> c_int {
    let act = || {
        let (release, bad) = (release(version)?, FirstBad(first_bad_bs));
        // SAFETY: the header makes it NULL or a `BlockDriverState **`.
        unsafe { bad.begin(release) }?;
        let flags = release.flags();
        // SAFETY: the header makes it a struct of that release, or NULL.
        let asked = unsafe { info::read(&flags, sn_info) }?;
        // SAFETY: the header makes it NULL or a list of strings.
        let devices = unsafe { devices(has_devices, list) }?;
        let mut sn = asked;
        let done = with_current(|state, machine| {
            let vm_state = (!vm_state_bs.is_null())
                .then(|| own(machine, vm_state_bs, "vm_state_bs"))
                .transpose()?;
            let (graph, size) = (&mut state.graph, vm_state_size);
            let done =
                compat::bdrv_all_create_snapshot(release, graph, &mut sn, vm_state, size, &devices);
            // SAFETY: as above.
            unsafe { bad.note(state, done) }
        });
        if sn != asked {
            // SAFETY: it was read as one just now.
            unsafe { info::write_created(&flags, sn_info, &sn) };
        }
        done.map(|()| 0)
    };
    // SAFETY: the header makes it NULL or an `Error **`.
    unsafe { call_int("bdrv_all_create_snapshot", errp, act) }
}

/// `bdrv_all_find_vmstate_bs`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn stillpoint_bdrv_all_find_vmstate_bs(
    version: c_int,
    vmstate_bs: *const c_char,
    has_devices: bool,
    list: *const StrList,
    errp: *mut *mut Error,
) -> *mut BlockDriverState {
    let act = || {
        let release = release(version)?;
        // SAFETY: a string or NULL, which the caller keeps during the call.
        let name = unsafe { optional(vmstate_bs) };
        let name = name.map(String::from_utf8_lossy);
        // SAFETY: the header makes it NULL or a list of strings.
        let devices = unsafe { devices(has_devices, list) }?;
        with_current(|state, _| {
            let (graph, name) = (&state.graph, name.as_deref());
            let found = compat::bdrv_all_find_vmstate_bs(release, graph, name, &devices)?;
            Ok(state.handle(found))
        })
    };
    // SAFETY: the header makes it NULL or an `Error **`.
    unsafe { call_ptr("bdrv_all_find_vmstate_bs", errp, act) }
}
