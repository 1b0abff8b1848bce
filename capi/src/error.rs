//! `Error`, QEMU's error object.

use crate::text::c_string;
use std::ffi::{CStr, CString, c_char, c_int};
use std::io::Write as _;
use std::ptr;
use std::sync::atomic::AtomicPtr;
use stillpoint_api::compat::QemuError;

/// A text, perhaps with a hint. Every error of this API is a `GenericError`: classes for single errors were gone when
/// the functions that set one came. One that a caller makes has the class that the caller says.
#[derive(Clone)]
pub struct Error {
    class: c_int,
    text: CString,
    hint: Option<CString>,
}

/// `ERROR_CLASS_GENERIC_ERROR`.
const GENERIC_ERROR: c_int = 0;

/// `error_abort`: an error that is put here aborts the program. Only its address counts; it stays NULL.
#[unsafe(no_mangle)]
pub static stillpoint_error_abort: AtomicPtr<Error> = AtomicPtr::new(ptr::null_mut());

/// `error_fatal`: an error that is put here ends the program with exit code 1. Only its address counts; it stays NULL.
#[unsafe(no_mangle)]
pub static stillpoint_error_fatal: AtomicPtr<Error> = AtomicPtr::new(ptr::null_mut());

impl Error {
    /// Puts a new object where `errp` points, as `deliver` does.
    ///
    /// # Safety
    /// `errp` is NULL or points to an `Error *`.
    pub(crate) unsafe fn put(errp: *mut *mut Self, error: QemuError) {
        if errp.is_null() {
            return;
        }
        let object = Box::new(Self {
            class: GENERIC_ERROR,
            text: c_string(error.message),
            hint: error.hint.map(|hint| c_string(hint.into_bytes())),
        });
        // SAFETY: the caller's promise is this function's.
        unsafe { object.deliver(errp) };
    }

    /// Puts the object where `errp` points. One that is there already stays, as the first error is what matters.
    ///
    /// # Safety
    /// `errp` is NULL or points to an `Error *`.
    unsafe fn deliver(self: Box<Self>, errp: *mut *mut Self) {
        if ptr::eq(errp, stillpoint_error_abort.as_ptr()) {
            self.print("unexpected error: ");
            std::process::abort();
        }
        if ptr::eq(errp, stillpoint_error_fatal.as_ptr()) {
            self.print("");
            std::process::exit(1);
        }
        // SAFETY: the caller promises that what it points to can be read.
        if errp.is_null() || unsafe { !(*errp).is_null() } {
            return;
        }
        // SAFETY: the caller promises that what it points to can be written.
        unsafe { *errp = Box::into_raw(self) };
    }

    /// The text and the hint on standard error, which may be closed.
    fn print(&self, before: &str) {
        let mut lines = before.as_bytes().to_vec();
        lines.extend_from_slice(self.text.as_bytes());
        lines.push(b'\n');
        if let Some(hint) = &self.hint {
            lines.extend_from_slice(hint.as_bytes());
            if !lines.ends_with(b"\n") {
                lines.push(b'\n');
            }
        }
        std::io::stderr().write_all(&lines).unwrap_or_default();
    }
}

/// A text of C's, of any length: NULL is empty.
///
/// # Safety
/// NULL or a string.
unsafe fn whole(text: *const c_char) -> Vec<u8> {
    if text.is_null() {
        return Vec::new();
    }
    // SAFETY: the caller's promise.
    unsafe { CStr::from_ptr(text) }.to_bytes().to_vec()
}

/// A new object of a class; it is the caller's.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn stillpoint_error_new(class: c_int, text: *const c_char) -> *mut Error {
    // SAFETY: NULL or a string.
    let text = c_string(unsafe { whole(text) });
    let hint = None;
    Box::into_raw(Box::new(Error { class, text, hint }))
}

/// A copy; it is the caller's. Of NULL it is NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn stillpoint_error_copy(error: *const Error) -> *mut Error {
    // SAFETY: NULL, or an object of this library that was not freed.
    let error = unsafe { error.as_ref() };
    error.map_or(ptr::null_mut(), |e| Box::into_raw(Box::new(e.clone())))
}

/// Puts an object where `errp` points; where there is one already, or `errp` is NULL, it is freed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn stillpoint_error_propagate(errp: *mut *mut Error, error: *mut Error) {
    if !error.is_null() {
        // SAFETY: an object of this library that was not freed, made by `Box::into_raw`.
        let object = unsafe { Box::from_raw(error) };
        // SAFETY: the header makes it NULL or an `Error **`.
        unsafe { object.deliver(errp) };
    }
}

/// Puts a text before an object's own; NULL is no object.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn stillpoint_error_prepend(error: *mut Error, text: *const c_char) {
    // SAFETY: NULL, or an object of this library that was not freed, which no other thread has.
    if let Some(error) = unsafe { error.as_mut() } {
        // SAFETY: NULL or a string.
        let mut text = unsafe { whole(text) };
        text.extend_from_slice(error.text.as_bytes());
        error.text = c_string(text);
    }
}

/// Adds to what can be done about it; NULL is no object.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn stillpoint_error_append_hint(error: *mut Error, text: *const c_char) {
    // SAFETY: NULL, or an object of this library that was not freed, which no other thread has.
    if let Some(error) = unsafe { error.as_mut() } {
        let hint = error.hint.take().unwrap_or_default();
        // SAFETY: NULL or a string.
        let more = unsafe { whole(text) };
        error.hint = Some(c_string([hint.into_bytes(), more].concat()));
    }
}

/// Writes an object's text and hint to standard error and frees it; NULL is none.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn stillpoint_error_report(error: *mut Error) {
    if !error.is_null() {
        // SAFETY: an object of this library that was not freed, made by `Box::into_raw`.
        unsafe { Box::from_raw(error) }.print("");
    }
}

/// The text. It belongs to the object; of NULL there is none.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn stillpoint_error_get_pretty(error: *const Error) -> *const c_char {
    // SAFETY: NULL, or an object of this library that was not freed.
    let error = unsafe { error.as_ref() };
    error.map_or(ptr::null(), |e| e.text.as_ptr())
}

/// What the user can do next, where that is known, else NULL. It belongs to the object.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn stillpoint_error_hint(error: *const Error) -> *const c_char {
    // SAFETY: NULL, or an object of this library that was not freed.
    let error = unsafe { error.as_ref() };
    let hint = error.and_then(|e| e.hint.as_ref());
    hint.map_or(ptr::null(), |hint| hint.as_ptr())
}

/// The class; of NULL the generic one.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn stillpoint_error_get_class(error: *const Error) -> c_int {
    // SAFETY: NULL, or an object of this library that was not freed.
    let error = unsafe { error.as_ref() };
    error.map_or(GENERIC_ERROR, |e| e.class)
}

/// Frees the object; NULL is none.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn stillpoint_error_free(error: *mut Error) {
    if !error.is_null() {
        // SAFETY: an object of this library that was not freed, made by `Box::into_raw`.
        drop(unsafe { Box::from_raw(error) });
    }
}
