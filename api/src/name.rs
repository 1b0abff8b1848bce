//! What natively made devices and snapshots may be called. The format holds more: what other programs made keeps its
//! name.

use stillpoint_store::limits::NAME_BYTES_MAX;
use stillpoint_store::{Error, Result};

/// Refuses a device name that could not be told from something else on the command line, in an export or as a folder.
pub fn check_device_name(name: &str) -> Result<()> {
    check("checking the device name", name)?;
    if name == "." || name == ".." {
        return Err(bad("checking the device name", name, "it means a folder"));
    }
    Ok(())
}

/// Refuses a snapshot name that could not be told from something else.
pub fn check_snapshot_name(name: &str) -> Result<()> {
    check("checking the snapshot name", name)
}

fn check(doing: &'static str, name: &str) -> Result<()> {
    if name.is_empty() {
        return Err(Error::invalid(doing, "it is empty"));
    }
    if name.len() > NAME_BYTES_MAX {
        let why = format!("it has {} bytes, {NAME_BYTES_MAX} are allowed", name.len());
        return Err(Error::invalid(doing, why));
    }
    if let Some(c) = name
        .chars()
        .find(|c| matches!(c, '@' | '/') || c.is_control())
    {
        return Err(bad(doing, name, &format!("{c:?} is not allowed in a name")));
    }
    if name.trim() != name {
        return Err(bad(doing, name, "it begins or ends with a space"));
    }
    Ok(())
}

fn bad(doing: &'static str, name: &str, why: &str) -> Error {
    Error::invalid(doing, format!("{name:?}: {why}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_mean_something_else_are_refused() {
        for bad in [
            "",
            " ",
            "a ",
            "\u{a0}a",
            "a@b",
            "a/b",
            "a\nb",
            "\u{7f}",
            &"x".repeat(256),
        ] {
            assert!(check_device_name(bad).is_err(), "{bad:?}");
            assert!(check_snapshot_name(bad).is_err(), "{bad:?}");
        }
        assert!(check_device_name("..").is_err());
        for good in [
            "root",
            "id:3",
            "vor dem Umbau",
            "\u{e9}t\u{e9}",
            &"x".repeat(255),
        ] {
            assert!(check_device_name(good).is_ok(), "{good:?}");
            assert!(check_snapshot_name(good).is_ok(), "{good:?}");
        }
    }
}
