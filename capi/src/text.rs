//! Strings from C and to C.

use crate::boundary::{Outcome, failure, invalid};
use std::ffi::{CString, OsStr, c_char};
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::slice;
use stillpoint_api::compat::Failure;

/// Bytes that are read of a string at most: those of the longest path, and far more than an id or name has.
const BYTES_MAX: usize = 4095;
/// Linux's number for a name that is too long.
const ENAMETOOLONG: i32 = 36;

/// A snapshot's id or name, or `None` for NULL. One that is longer than any id or name is cut: it is nobody's.
///
/// # Safety
/// NULL, or a string that lives as long as `'a`.
pub unsafe fn optional<'a>(text: *const c_char) -> Option<&'a [u8]> {
    if text.is_null() {
        return None;
    }
    // SAFETY: it is a string, so that bytes up to its NUL can be read, and no more are.
    let len = unsafe { libc::strnlen(text, BYTES_MAX) };
    // SAFETY: as many bytes were read just now, and live as long as the caller promises.
    Some(unsafe { slice::from_raw_parts(text.cast(), len) })
}

/// The same where NULL made QEMU abort or crash.
///
/// # Safety
/// As of `optional`.
pub unsafe fn required<'a>(text: *const c_char, what: &str) -> Outcome<&'a [u8]> {
    // SAFETY: the caller's promise is the same.
    unsafe { optional(text) }.ok_or_else(|| null(what))
}

/// A name of a node, device or format.
///
/// # Safety
/// As of `optional`.
pub unsafe fn string(text: *const c_char, what: &str) -> Outcome<String> {
    // SAFETY: the caller's promise is the same.
    let bytes = unsafe { whole(text, what) }?;
    let text = std::str::from_utf8(bytes).map_err(|_| invalid(format!("{what} is not UTF-8")))?;
    Ok(text.to_owned())
}

/// A path.
///
/// # Safety
/// As of `optional`.
pub unsafe fn path(text: *const c_char, what: &str) -> Outcome<PathBuf> {
    // SAFETY: the caller's promise is the same.
    let bytes = unsafe { whole(text, what) }?;
    Ok(PathBuf::from(OsStr::from_bytes(bytes)))
}

unsafe fn whole<'a>(text: *const c_char, what: &str) -> Outcome<&'a [u8]> {
    // SAFETY: the caller's promise is the same.
    let bytes = unsafe { required(text, what) }?;
    if bytes.len() == BYTES_MAX {
        let text = format!("{what} has more than {} bytes", BYTES_MAX - 1);
        return Err(failure(ENAMETOOLONG, text));
    }
    Ok(bytes)
}

/// -EINVAL that says which argument is NULL.
pub fn null(what: &str) -> Failure {
    invalid(format!("{what} is NULL"))
}

/// Up to the first NUL.
pub fn c_string(mut bytes: Vec<u8>) -> CString {
    if let Some(end) = bytes.iter().position(|b| *b == 0) {
        bytes.truncate(end);
    }
    CString::new(bytes).unwrap_or_default()
}
