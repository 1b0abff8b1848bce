//! What one node has: names, flags, bytes, VM state.

use crate::boundary::{Outcome, call, call_int, call_ptr, failure, invalid, release};
use crate::error::Error;
use crate::handles::{BlockDriverState, keep_text, with_current, with_node};
use crate::text::{null, string};
use std::ffi::{c_char, c_int, c_uint, c_void};
use std::{ptr, slice};
use stillpoint_api::compat::driver::{Driver, DriverError};
use stillpoint_api::compat::errno::{self, ENOMEDIUM};
use stillpoint_api::compat::graph::Node;
use stillpoint_api::compat::{self, Failure, Graph, NodeId};

const READ_ONLY: c_uint = 1;
const INACTIVE: c_uint = 2;
const EJECTED: c_uint = 4;
const TEMPORARY: c_uint = 8;
const IMPLICIT: c_uint = 16;
const ALL: c_uint = 31;

/// The node of that node name in the graph that the thread is in, or NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn stillpoint_find_node(node_name: *const c_char) -> *mut BlockDriverState {
    let act = || {
        // SAFETY: a string or NULL, which the caller keeps during the call.
        let name = unsafe { string(node_name, "node_name") }?;
        with_current(|state, _| Ok(state.handle(state.graph.named(&name))))
    };
    // SAFETY: there is no Error object.
    unsafe { call_ptr("stillpoint_find_node", ptr::null_mut(), act) }
}

/// The root of the backend of that name in the graph that the thread is in, or NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn stillpoint_find_device(name: *const c_char) -> *mut BlockDriverState {
    let act = || {
        // SAFETY: a string or NULL, which the caller keeps during the call.
        let name = unsafe { string(name, "name") }?;
        with_current(|state, _| Ok(state.handle(state.graph.device(&name))))
    };
    // SAFETY: there is no Error object.
    unsafe { call_ptr("stillpoint_find_device", ptr::null_mut(), act) }
}

fn name_of(
    function: &str,
    bs: *mut BlockDriverState,
    of: impl FnOnce(&Graph, NodeId) -> String,
) -> *const c_char {
    let act = || {
        let name = with_node(bs, |graph, id| Ok(of(graph, id)))?;
        keep_text(bs, &name)
    };
    // SAFETY: there is no Error object.
    unsafe { call(function, ptr::null_mut(), |_| ptr::null(), act) }
}

/// Name of the first backend that holds the node, or the empty string. It lives until the node is detached.
#[unsafe(no_mangle)]
pub extern "C" fn stillpoint_get_device_name(bs: *mut BlockDriverState) -> *const c_char {
    name_of("stillpoint_get_device_name", bs, |graph, id| {
        graph.device_name(id).to_owned()
    })
}

/// The node's name. It lives until the node is detached.
#[unsafe(no_mangle)]
pub extern "C" fn stillpoint_get_node_name(bs: *mut BlockDriverState) -> *const c_char {
    name_of("stillpoint_get_node_name", bs, |graph, id| {
        graph.get(id).map_or(String::new(), |n| n.name.clone())
    })
}

fn flags(node: &Node) -> c_uint {
    [
        (node.read_only, READ_ONLY),
        (node.inactive, INACTIVE),
        (!node.inserted, EJECTED),
        (node.temporary, TEMPORARY),
        (!node.monitor_owned, IMPLICIT),
    ]
    .iter()
    .filter(|(is, _)| *is)
    .fold(0, |all, (_, flag)| all | flag)
}

/// The node's `STILLPOINT_NODE_*` bits; 0 for what is no node.
#[unsafe(no_mangle)]
pub extern "C" fn stillpoint_get_node_flags(bs: *mut BlockDriverState) -> c_uint {
    let act = || with_node(bs, |graph, id| Ok(graph.get(id).map_or(0, flags)));
    // SAFETY: there is no Error object.
    unsafe { call("stillpoint_get_node_flags", ptr::null_mut(), |_| 0, act) }
}

/// Makes the node's bits those.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn stillpoint_set_node_flags(
    bs: *mut BlockDriverState,
    flags: c_uint,
    errp: *mut *mut Error,
) -> c_int {
    let act = || {
        if flags & !ALL != 0 {
            let text = format!("flags {flags:#x} have bits that mean nothing");
            return Err(invalid(text));
        }
        with_node(bs, |graph, id| {
            if let Some(node) = graph.get_mut(id) {
                node.read_only = flags & READ_ONLY != 0;
                node.inactive = flags & INACTIVE != 0;
                node.inserted = flags & EJECTED == 0;
                node.temporary = flags & TEMPORARY != 0;
                node.monitor_owned = flags & IMPLICIT == 0;
            }
            Ok(0)
        })
    };
    // SAFETY: the header makes it NULL or an `Error **`.
    unsafe { call_int("stillpoint_set_node_flags", errp, act) }
}

/// Does something with what is behind a node.
fn with_driver<T>(
    bs: *mut BlockDriverState,
    act: impl FnOnce(&mut dyn Driver) -> Result<T, DriverError>,
) -> Outcome<T> {
    with_node(bs, |graph, id| {
        let driver = graph.get_mut(id).and_then(|node| node.driver.as_mut());
        let driver = driver.ok_or_else(|| failure(ENOMEDIUM, "the node has no medium"))?;
        act(driver.as_mut()).map_err(of_driver)
    })
}

fn of_driver(e: DriverError) -> Failure {
    let cause = e.cause.as_ref().map(|cause| cause.to_string().into_bytes());
    let text = e.message.or(cause);
    let text = text.unwrap_or_else(|| errno::text(e.errno).into_bytes());
    Failure {
        cause: e.cause,
        ..failure(e.errno, text)
    }
}

/// Bytes of the disk, or a negative errno.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn stillpoint_getlength(
    bs: *mut BlockDriverState,
    errp: *mut *mut Error,
) -> i64 {
    let act = || {
        let size = with_driver(bs, |driver| driver.size())?;
        Ok(i64::try_from(size).unwrap_or(i64::MAX))
    };
    // SAFETY: the header makes it NULL or an `Error **`.
    unsafe { call("stillpoint_getlength", errp, i64::from, act) }
}

/// Memory of the caller that is filled during the call.
///
/// # Safety
/// `buf` is NULL or has room for `bytes` bytes.
unsafe fn room<'a>(buf: *mut c_void, bytes: usize) -> Outcome<&'a mut [u8]> {
    if bytes == 0 {
        return Ok(&mut []);
    }
    if buf.is_null() {
        return Err(null("buf"));
    }
    if isize::try_from(bytes).is_err() {
        return Err(invalid("bytes are more than any memory has"));
    }
    // SAFETY: C may leave it uninitialised, which Rust must not see.
    unsafe { ptr::write_bytes(buf.cast::<u8>(), 0, bytes) };
    // SAFETY: the caller's promise, it is initialised now, and C does not touch it during the call.
    Ok(unsafe { slice::from_raw_parts_mut(buf.cast::<u8>(), bytes) })
}

/// Reads the disk, or the snapshot that `load_tmp` chose. Beyond the end there are zeros.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn stillpoint_pread(
    bs: *mut BlockDriverState,
    offset: u64,
    buf: *mut c_void,
    bytes: usize,
    errp: *mut *mut Error,
) -> c_int {
    let act = || {
        // SAFETY: the header makes it room for as many bytes, or NULL.
        let into = unsafe { room(buf, bytes) }?;
        with_driver(bs, |driver| driver.read_at(offset, into))?;
        Ok(0)
    };
    // SAFETY: the header makes it NULL or an `Error **`.
    unsafe { call_int("stillpoint_pread", errp, act) }
}

fn position(pos: i64, size: c_int) -> Outcome<(u64, usize)> {
    match (u64::try_from(pos), usize::try_from(size)) {
        (Ok(pos), Ok(size)) => Ok((pos, size)),
        _ => Err(invalid("pos or size is negative")),
    }
}

/// `bdrv_save_vmstate`: writes active VM state; returns `size`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn stillpoint_bdrv_save_vmstate(
    version: c_int,
    bs: *mut BlockDriverState,
    buf: *const u8,
    pos: i64,
    size: c_int,
) -> c_int {
    let act = || {
        let release = release(version)?;
        let (at, len) = position(pos, size)?;
        let bytes = match (len, buf.is_null()) {
            (0, _) => &[],
            (_, true) => return Err(null("buf")),
            // SAFETY: the caller has as many bytes there, and keeps them during the call.
            (_, false) => unsafe { slice::from_raw_parts(buf, len) },
        };
        with_node(bs, |graph, id| {
            compat::bdrv_save_vmstate(release, graph, id, at, bytes)
        })?;
        Ok(size)
    };
    // SAFETY: there is no Error object.
    unsafe { call_int("bdrv_save_vmstate", ptr::null_mut(), act) }
}

/// `bdrv_load_vmstate`: reads active VM state, zeros where none was written; returns `size`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn stillpoint_bdrv_load_vmstate(
    version: c_int,
    bs: *mut BlockDriverState,
    buf: *mut u8,
    pos: i64,
    size: c_int,
) -> c_int {
    let act = || {
        let release = release(version)?;
        let (at, len) = position(pos, size)?;
        // SAFETY: the header makes it room for as many bytes, or NULL.
        let into = unsafe { room(buf.cast(), len) }?;
        with_node(bs, |graph, id| {
            compat::bdrv_load_vmstate(release, graph, id, at, into)
        })?;
        Ok(size)
    };
    // SAFETY: there is no Error object.
    unsafe { call_int("bdrv_load_vmstate", ptr::null_mut(), act) }
}
