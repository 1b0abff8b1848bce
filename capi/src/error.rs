//! `Error`, QEMU's error object.

use crate::text::c_string;
use std::ffi::{CString, c_char, c_int};
use std::ptr;
use stillpoint_api::compat::QemuError;

/// A text, perhaps with a hint. Every error of this API is a `GenericError`: classes for single errors were gone when
/// the functions that set one came.
pub struct Error {
    text: CString,
    hint: Option<CString>,
}

/// `ERROR_CLASS_GENERIC_ERROR`.
const GENERIC_ERROR: c_int = 0;

impl Error {
    /// Puts a new object where `errp` points. One that is there already stays, as the first error is what matters.
    ///
    /// # Safety
    /// `errp` is NULL or points to an `Error *`.
    pub(crate) unsafe fn put(errp: *mut *mut Self, error: QemuError) {
        // SAFETY: the caller promises that what it points to can be read.
        if errp.is_null() || unsafe { !(*errp).is_null() } {
            return;
        }
        let object = Box::new(Self {
            text: c_string(error.message),
            hint: error.hint.map(|hint| c_string(hint.into_bytes())),
        });
        // SAFETY: the caller promises that what it points to can be written.
        unsafe { *errp = Box::into_raw(object) };
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

/// The class: always the generic one.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn stillpoint_error_get_class(_error: *const Error) -> c_int {
    GENERIC_ERROR
}

/// Frees the object; NULL is none.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn stillpoint_error_free(error: *mut Error) {
    if !error.is_null() {
        // SAFETY: an object of this library that was not freed, made by `Box::into_raw`.
        drop(unsafe { Box::from_raw(error) });
    }
}
