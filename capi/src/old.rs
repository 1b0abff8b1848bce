//! What block.h declared through 1.5.

use crate::boundary::{call_int, call_ptr, invalid, release};
use crate::handles::{BlockDriverState, with_current, with_node};
use crate::info;
use crate::text::null;
use std::ffi::{c_char, c_int, c_void};
use std::mem::MaybeUninit;
use std::ptr;
use stillpoint_api::compat;

/// `bdrv_snapshots`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn stillpoint_bdrv_snapshots(version: c_int) -> *mut BlockDriverState {
    let act = || {
        let release = release(version)?;
        with_current(|state, _| {
            let found = compat::bdrv_snapshots(release, &mut state.graph)?;
            Ok(state.handle(found))
        })
    };
    // SAFETY: there is no Error object.
    unsafe { call_ptr("bdrv_snapshots", ptr::null_mut(), act) }
}

/// `bdrv_is_snapshot`: 1 or 0; of NULL it is 0.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn stillpoint_bdrv_is_snapshot(
    version: c_int,
    bs: *mut BlockDriverState,
) -> c_int {
    let act = || {
        let release = release(version)?;
        with_node(bs, |graph, id| {
            compat::bdrv_is_snapshot(release, graph, id).map(c_int::from)
        })
    };
    // SAFETY: there is no Error object.
    unsafe { call_int("bdrv_is_snapshot", ptr::null_mut(), act) }.max(0)
}

/// `bdrv_snapshot_dump`: a line of a list, or its header for NULL, cut to the buffer and ended by a NUL. Returns `buf`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn stillpoint_bdrv_snapshot_dump(
    version: c_int,
    buf: *mut c_char,
    buf_size: c_int,
    sn: *const c_void,
) -> *mut c_char {
    let act = || {
        let release = release(version)?;
        if buf.is_null() {
            return Err(null("buf"));
        }
        let room = usize::try_from(buf_size).unwrap_or(0);
        let Some(room) = room.checked_sub(1) else {
            return Err(invalid("buf_size is not positive"));
        };
        // SAFETY: the header makes it a struct of that release, or NULL.
        let sn = unsafe { sn.as_ref() }
            .map(|sn| {
                // SAFETY: likewise.
                unsafe { info::read(&release.flags(), sn) }
            })
            .transpose()?;
        let line = compat::bdrv_snapshot_dump(release, sn.as_ref(), &utc_offset)?;
        let line = &line[..line.len().min(room)];
        // SAFETY: the caller has room for `buf_size` bytes, and this is less.
        unsafe { ptr::copy_nonoverlapping(line.as_ptr().cast(), buf, line.len()) };
        // SAFETY: likewise, by at least this byte.
        let end = unsafe { buf.add(line.len()) };
        // SAFETY: likewise.
        unsafe { *end = 0 };
        Ok(buf)
    };
    // SAFETY: there is no Error object.
    unsafe { call_ptr("bdrv_snapshot_dump", ptr::null_mut(), act) }
}

/// Seconds that local time is ahead of UTC; 0 for a moment that the C library does not know.
fn utc_offset(sec: u64) -> i64 {
    let sec = sec.cast_signed();
    let mut tm = MaybeUninit::<libc::tm>::uninit();
    // SAFETY: both point to what they must; the result is NULL or `tm` filled in.
    let local = unsafe { libc::localtime_r(&raw const sec, tm.as_mut_ptr()) };
    // SAFETY: see above.
    unsafe { local.as_ref() }.map_or(0, |tm| tm.tm_gmtoff)
}
