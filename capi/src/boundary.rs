//! What every call from C goes through: no panic gets out, and what failed becomes a number, an Error object and a text.

use crate::error::Error;
use std::any::Any;
use std::cell::RefCell;
use std::ffi::{CString, c_char, c_int};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::ptr;
use std::sync::atomic::{AtomicU32, Ordering};
use stillpoint_api::compat::errno::{self, EINVAL, EIO};
use stillpoint_api::compat::{Failure, QemuError, Release};

/// What a function ends with before it is put in terms of C.
pub type Outcome<T> = Result<T, Failure>;

#[derive(Default)]
struct Last {
    /// What QEMU would have printed while it worked.
    reports: Vec<Vec<u8>>,
    /// Everything that is known about the last call, if it failed.
    text: Option<CString>,
}

thread_local! {
    static LAST: RefCell<Last> = RefCell::default();
}

/// Runs one call. Where it fails or panics, `failed` makes its result of the number, `*errp` gets the Error object if
/// there is one, and `stillpoint_last_error` the whole story.
///
/// # Safety
/// `errp` is NULL or points to an `Error *`.
pub unsafe fn call<T>(
    function: &str,
    errp: *mut *mut Error,
    failed: impl FnOnce(c_int) -> T,
    act: impl FnOnce() -> Outcome<T>,
) -> T {
    with_last(|last| *last = Last::default());
    // Of the parent's threads a child has this one alone: locks that others held are never let go, and work that is
    // given to them is never done.
    let act = || if is_child() { Err(forked()) } else { act() };
    // What a panic leaves half done is behind locks that are taken over, and the store commits whole entries.
    let done = catch_unwind(AssertUnwindSafe(act));
    let e = match done {
        Ok(Ok(done)) => return done,
        Ok(Err(e)) => e,
        Err(payload) => panicked(&*payload),
    };
    with_last(|last| last.text = Some(story(function, &e, &last.reports)));
    if let Some(error) = e.error {
        // SAFETY: the caller's promise about `errp` is this function's.
        unsafe { Error::put(errp, error) };
    }
    failed(e.ret)
}

/// Process of the first call; 0 before that.
static PROCESS: AtomicU32 = AtomicU32::new(0);

fn is_child() -> bool {
    let this = std::process::id();
    match PROCESS.compare_exchange(0, this, Ordering::Relaxed, Ordering::Relaxed) {
        Ok(_) => false,
        Err(first) => first != this,
    }
}

fn forked() -> Failure {
    invalid("the library was used before fork(), and cannot be in the child")
}

/// For functions that return a number: what failed is that number.
pub unsafe fn call_int(
    function: &str,
    errp: *mut *mut Error,
    act: impl FnOnce() -> Outcome<c_int>,
) -> c_int {
    // SAFETY: the caller's promise about `errp` is this function's.
    unsafe { call(function, errp, |ret| ret, act) }
}

/// For functions that return a bool: what failed is false.
pub unsafe fn call_bool(
    function: &str,
    errp: *mut *mut Error,
    act: impl FnOnce() -> Outcome<bool>,
) -> bool {
    // SAFETY: the caller's promise about `errp` is this function's.
    unsafe { call(function, errp, |_| false, act) }
}

/// For functions that return a pointer: what failed is NULL.
pub unsafe fn call_ptr<T>(
    function: &str,
    errp: *mut *mut Error,
    act: impl FnOnce() -> Outcome<*mut T>,
) -> *mut T {
    // SAFETY: the caller's promise about `errp` is this function's.
    unsafe { call(function, errp, |_| ptr::null_mut(), act) }
}

/// Keeps what QEMU would have printed for the text of the last error.
pub fn report(lines: Vec<Vec<u8>>) {
    with_last(|last| last.reports.extend(lines));
}

/// The text of the last error of this thread, or NULL; it stays until the thread's next call.
pub fn last_error() -> *const c_char {
    let mut text = ptr::null();
    with_last(|last| text = last.text.as_ref().map_or(ptr::null(), |t| t.as_ptr()));
    text
}

/// A failure with a number, positive, and a text for the Error object.
pub fn failure(errno: c_int, text: impl Into<Vec<u8>>) -> Failure {
    Failure {
        ret: -errno,
        error: Some(QemuError::new(text)),
        first_bad: None,
        cause: None,
    }
}

/// -EINVAL, for arguments on which QEMU aborted or crashed.
pub fn invalid(text: impl Into<Vec<u8>>) -> Failure {
    failure(EINVAL, text)
}

/// What the store said, as a number and an Error object.
pub fn of_store(e: stillpoint_api::Error) -> Failure {
    let error = QemuError {
        hint: e.what_next().map(ToOwned::to_owned),
        ..QemuError::new(e.to_string())
    };
    Failure {
        ret: -errno::of(&e),
        error: Some(error),
        first_bad: None,
        cause: Some(e),
    }
}

/// The release of `STILLPOINT_QEMU_VERSION`: 402 is 4.2.
pub fn release(version: c_int) -> Outcome<Release> {
    let parts = (u8::try_from(version / 100), u8::try_from(version % 100));
    let (Ok(major), Ok(minor)) = parts else {
        let text = format!("{version} is no QEMU release: 4.2 is 402");
        return Err(invalid(text));
    };
    Release::new(major, minor).map_err(of_store)
}

/// A thread that is going away has no last error any more.
fn with_last(act: impl FnOnce(&mut Last)) {
    let changed = LAST.try_with(|last| {
        if let Ok(mut last) = last.try_borrow_mut() {
            act(&mut last);
        }
    });
    changed.unwrap_or_default();
}

fn panicked(payload: &(dyn Any + Send)) -> Failure {
    let text = payload.downcast_ref::<&str>().copied();
    let text = text.or_else(|| payload.downcast_ref::<String>().map(String::as_str));
    let text = text.unwrap_or("no more is known");
    failure(EIO, format!("internal error: {text}"))
}

fn story(function: &str, e: &Failure, reports: &[Vec<u8>]) -> CString {
    let mut text = format!("{function}: {e}").into_bytes();
    for line in reports {
        text.extend_from_slice(b"; ");
        text.extend_from_slice(line);
    }
    let shown = e.error.as_ref().map(|e| e.message.as_slice());
    if let Some(cause) = &e.cause {
        let cause_text = cause.to_string();
        if shown != Some(cause_text.as_bytes()) {
            text.extend(format!("; {cause_text}").into_bytes());
        }
        if let Some(hint) = cause.what_next() {
            text.extend(format!("; {hint}").into_bytes());
        }
    }
    crate::text::c_string(text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::ffi::CStr;

    fn said() -> String {
        // SAFETY: the text is that of this thread, which makes no call meanwhile.
        let text = unsafe { CStr::from_ptr(last_error()) };
        text.to_string_lossy().into_owned()
    }

    #[test]
    fn a_panic_becomes_eio_and_an_error_object() {
        let mut error = ptr::null_mut();
        // SAFETY: `error` is an `Error *` that nothing else points to.
        let ret = unsafe { call_int("f", &raw mut error, || panic!("the {} broke", "mill")) };
        assert_eq!(ret, -EIO);
        assert_eq!(said(), "f: internal error: the mill broke");
        // SAFETY: the call above put it there, and it is freed once.
        unsafe { crate::stillpoint_error_free(error) };
    }

    #[test]
    fn an_error_that_is_set_already_stays() {
        let mut error = ptr::null_mut();
        for text in ["first", "second"] {
            // SAFETY: `error` is an `Error *`.
            unsafe { call_int("f", &raw mut error, || Err(invalid(text))) };
        }
        assert_eq!(said(), "f: second");
        // SAFETY: it was put there and not freed.
        let pretty = unsafe { crate::stillpoint_error_get_pretty(error) };
        // SAFETY: the text lives as long as the object.
        let pretty = unsafe { CStr::from_ptr(pretty) };
        assert_eq!(pretty, c"first");
        // SAFETY: it is freed once.
        unsafe { crate::stillpoint_error_free(error) };
    }

    #[test]
    fn a_call_that_works_leaves_no_last_error() {
        // SAFETY: no error is asked for.
        unsafe { call_int("f", ptr::null_mut(), || Err(invalid("no"))) };
        // SAFETY: no error is asked for.
        unsafe { call_int("f", ptr::null_mut(), || Ok(0)) };
        assert!(last_error().is_null());
    }

    #[test]
    fn releases_are_numbers_of_hundreds() {
        assert_eq!(release(402).unwrap().to_string(), "4.2");
        assert_eq!(release(1001).unwrap().to_string(), "10.1");
        assert_eq!(release(212).unwrap().to_string(), "2.12");
        for odd in [0, -402, 4, 403, 42, 100_000, c_int::MAX, c_int::MIN] {
            assert_eq!(release(odd).unwrap_err().ret, -EINVAL, "{odd}");
        }
    }
}
