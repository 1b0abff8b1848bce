//! Error numbers as Linux has them, and their texts.

use std::error::Error as _;
use std::io;
use stillpoint_store::{Error, ErrorKind};

/// No such snapshot.
pub const ENOENT: i32 = 2;
/// The medium or the store failed.
pub const EIO: i32 = 5;
/// Somebody else holds the image, or dirty bitmaps are on it.
pub const EBUSY: i32 = 16;
/// An id that the caller chose is taken.
pub const EEXIST: i32 = 17;
/// Arguments that cannot be meant.
pub const EINVAL: i32 = 22;
/// The table of snapshots is full.
pub const EFBIG: i32 = 27;
/// The disk is full.
pub const ENOSPC: i32 = 28;
/// The image or store cannot be written.
pub const EROFS: i32 = 30;
/// The release has no such function.
pub const ENOSYS: i32 = 38;
/// The driver, the format or the release cannot.
pub const ENOTSUP: i32 = 95;
/// No medium: the node has no driver.
pub const ENOMEDIUM: i32 = 123;
/// The caller asked to stop.
pub const ECANCELED: i32 = 125;

/// The C library's text for an error number: `Operation not supported`.
pub fn text(errno: i32) -> String {
    let text = io::Error::from_raw_os_error(errno).to_string();
    let suffix = format!(" (os error {errno})");
    text.strip_suffix(&suffix).unwrap_or(&text).to_owned()
}

/// The number that says most about an error of the store: the system's own where there is one below it.
pub fn of(error: &Error) -> i32 {
    if let Some(errno) = of_system(error) {
        return errno;
    }
    match error.kind() {
        ErrorKind::NotFound => ENOENT,
        ErrorKind::AlreadyExists => EEXIST,
        // Nothing is wrong with the medium; what stands in the way is named.
        ErrorKind::Busy | ErrorKind::Refused => EBUSY,
        ErrorKind::InvalidInput => EINVAL,
        ErrorKind::Unsupported => ENOTSUP,
        ErrorKind::LimitExceeded => EFBIG,
        ErrorKind::NoSpace => ENOSPC,
        ErrorKind::ReadOnly => EROFS,
        ErrorKind::Cancelled => ECANCELED,
        _ => EIO,
    }
}

/// The same for what a node does: an image that is gone is no medium there, since ENOENT says "no such snapshot".
pub fn of_medium(error: &Error) -> i32 {
    match of_system(error) {
        Some(ENOENT) => ENOMEDIUM,
        _ => of(error),
    }
}

fn of_system(error: &Error) -> Option<i32> {
    let mut cause = error.source();
    while let Some(e) = cause {
        let errno = e.downcast_ref().and_then(io::Error::raw_os_error);
        if errno.is_some() {
            return errno;
        }
        cause = e.source();
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_those_of_the_c_library() {
        assert_eq!(text(ENOTSUP), "Operation not supported");
        assert_eq!(text(ENOENT), "No such file or directory");
        assert_eq!(text(EINVAL), "Invalid argument");
        assert_eq!(text(ENOMEDIUM), "No medium found");
        assert_eq!(text(EFBIG), "File too large");
    }

    #[test]
    fn the_systems_own_number_goes_before_the_kind() {
        let denied = io::Error::from_raw_os_error(13);
        assert_eq!(of(&Error::io("opening", denied)), 13);
        let outer = Error::new(ErrorKind::Busy, "going")
            .source(Error::io("writing", io::Error::from_raw_os_error(ENOSPC)));
        assert_eq!(of(&outer), ENOSPC);
        assert_eq!(of(&Error::new(ErrorKind::NotFound, "looking")), ENOENT);
        assert_eq!(of(&Error::corrupt("reading", "torn")), EIO);
    }

    #[test]
    fn what_must_be_done_first_is_no_failure_of_the_medium() {
        assert_eq!(of(&Error::new(ErrorKind::Refused, "using")), EBUSY);
    }

    #[test]
    fn an_image_that_is_gone_is_no_medium_and_not_a_missing_snapshot() {
        let gone = Error::io("opening", io::Error::from_raw_os_error(ENOENT));
        assert_eq!((of(&gone), of_medium(&gone)), (ENOENT, ENOMEDIUM));
        assert_eq!(
            of_medium(&Error::new(ErrorKind::NotFound, "looking")),
            ENOENT
        );
    }
}
