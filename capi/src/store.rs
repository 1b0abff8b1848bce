//! Stores: made, opened, closed; their devices.

use crate::boundary::{Outcome, call_int, call_ptr, last_error, of_store};
use crate::error::Error;
use crate::handles::{StoreHandle, close_store, new_store, store};
use crate::text::{path, string};
use std::ffi::{c_char, c_int};
use std::ptr;
use stillpoint_api::store::format::entry::GotoResult;
use stillpoint_api::store::geometry::Geometry;
use stillpoint_api::store::progress::Progress;
use stillpoint_api::{OpenOptions, System};

/// The library's version, `0.1.0`.
#[unsafe(no_mangle)]
pub extern "C" fn stillpoint_version() -> *const c_char {
    concat!(env!("CARGO_PKG_VERSION"), "\0").as_ptr().cast()
}

/// Everything that is known about the last call of this thread, or NULL if it did not fail.
#[unsafe(no_mangle)]
pub extern "C" fn stillpoint_last_error() -> *const c_char {
    last_error()
}

/// Makes a store in a folder that is empty or not there yet.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn stillpoint_init(folder: *const c_char, errp: *mut *mut Error) -> c_int {
    let act = || {
        // SAFETY: a string or NULL, which the caller keeps during the call.
        let folder = unsafe { path(folder, "folder") }?;
        System::init(&folder, Geometry::DEFAULT).map_err(of_store)?;
        Ok(0)
    };
    // SAFETY: the header makes it NULL or an `Error **`.
    unsafe { call_int("stillpoint_init", errp, act) }
}

/// Opens the store in a folder.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn stillpoint_open(
    folder: *const c_char,
    errp: *mut *mut Error,
) -> *mut StoreHandle {
    let act = || {
        // SAFETY: a string or NULL, which the caller keeps during the call.
        let folder = unsafe { path(folder, "folder") }?;
        let system = System::open(&folder, OpenOptions::default()).map_err(of_store)?;
        Ok(new_store(system))
    };
    // SAFETY: the header makes it NULL or an `Error **`.
    unsafe { call_ptr("stillpoint_open", errp, act) }
}

/// Closes a store; its nodes keep it open below them until they are detached.
#[unsafe(no_mangle)]
pub extern "C" fn stillpoint_close(handle: *mut StoreHandle) {
    let act = || {
        close_store(handle);
        Ok(0)
    };
    // SAFETY: there is no Error object.
    unsafe { call_int("stillpoint_close", ptr::null_mut(), act) };
}

/// Adds a device to the store: a raw image or block device, under a name.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn stillpoint_device_add(
    handle: *mut StoreHandle,
    device: *const c_char,
    image: *const c_char,
    format: *const c_char,
    read_only: bool,
    errp: *mut *mut Error,
) -> c_int {
    let act = || {
        let system = store(handle)?;
        // SAFETY: strings or NULL, which the caller keeps during the call.
        let device = unsafe { string(device, "device") }?;
        // SAFETY: likewise.
        let image = unsafe { path(image, "image") }?;
        // SAFETY: likewise.
        let format = unsafe { string(format, "format") }?;
        let added = system.device_add(&device, &image, &format, read_only);
        added.map_err(of_store)?;
        Ok(0)
    };
    // SAFETY: the header makes it NULL or an `Error **`.
    unsafe { call_int("stillpoint_device_add", errp, act) }
}

/// Removes a device without snapshots from the store. Its image is not touched.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn stillpoint_device_remove(
    handle: *mut StoreHandle,
    device: *const c_char,
    errp: *mut *mut Error,
) -> c_int {
    let act = || {
        let system = store(handle)?;
        // SAFETY: a string or NULL, which the caller keeps during the call.
        let device = unsafe { string(device, "device") }?;
        system.device_remove(&device).map_err(of_store)?;
        Ok(0)
    };
    // SAFETY: the header makes it NULL or an `Error **`.
    unsafe { call_int("stillpoint_device_remove", errp, act) }
}

fn resume(handle: *mut StoreHandle, to: GotoResult) -> Outcome<c_int> {
    let system = store(handle)?;
    let resumed = system.goto_resume(to, &Progress::default());
    resumed.map_err(of_store)?;
    Ok(0)
}

/// Completes every goto that was cut off: the devices hold the snapshots that were gone to.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn stillpoint_goto_finish(
    handle: *mut StoreHandle,
    errp: *mut *mut Error,
) -> c_int {
    let act = || resume(handle, GotoResult::Done);
    // SAFETY: the header makes it NULL or an `Error **`.
    unsafe { call_int("stillpoint_goto_finish", errp, act) }
}

/// Takes every goto back that was cut off: the devices hold what they held before.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn stillpoint_goto_undo(
    handle: *mut StoreHandle,
    errp: *mut *mut Error,
) -> c_int {
    let act = || resume(handle, GotoResult::Undone);
    // SAFETY: the header makes it NULL or an `Error **`.
    unsafe { call_int("stillpoint_goto_undo", errp, act) }
}
