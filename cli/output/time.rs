//! Points in time: UTC, RFC 3339 in JSON.

use serde::{Serialize, Serializer};
use stillpoint_api::civil;

/// Seconds and nanoseconds since 1970, as snapshot records hold them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Time {
    /// Seconds since 1970.
    pub sec: u64,
    /// Nanoseconds of that second.
    pub nsec: u32,
}

impl Time {
    /// 2026-03-01T12:34:56.5Z; the fraction only as long as it must be. A year above 9999, which RFC 3339 has no room
    /// for but a hostile record may hold, takes the digits that it needs.
    pub fn rfc3339(self) -> String {
        let (date, clock) = self.split();
        let fraction = format!(".{:09}", self.nsec);
        let fraction = fraction.trim_end_matches('0').trim_end_matches('.');
        format!("{date}T{clock}{fraction}Z")
    }

    /// 2026-03-01 12:34:56, for tables whose head says UTC.
    pub fn table(self) -> String {
        let (date, clock) = self.split();
        format!("{date} {clock}")
    }

    fn split(self) -> (String, String) {
        let (year, month, day) = civil((self.sec / 86400).cast_signed());
        let (hour, minute) = (self.sec / 3600 % 24, self.sec / 60 % 60);
        let date = format!("{year:04}-{month:02}-{day:02}");
        (date, format!("{hour:02}:{minute:02}:{:02}", self.sec % 60))
    }
}

impl Serialize for Time {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.rfc3339())
    }
}

/// A VM clock as QEMU prints it: hours, minutes, seconds, milliseconds.
pub fn vm_clock(nsec: u64) -> String {
    let ms = nsec / 1_000_000;
    format!(
        "{:02}:{:02}:{:02}.{:03}",
        ms / 3_600_000,
        ms / 60_000 % 60,
        ms / 1000 % 60,
        ms % 1000
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(sec: u64, nsec: u32) -> String {
        Time { sec, nsec }.rfc3339()
    }

    #[test]
    fn dates_are_those_of_date_u() {
        assert_eq!(at(0, 0), "1970-01-01T00:00:00Z");
        assert_eq!(at(951_782_400, 0), "2000-02-29T00:00:00Z");
        assert_eq!(at(1_709_251_199, 500_000_000), "2024-02-29T23:59:59.5Z");
        assert_eq!(at(4_107_542_400, 1), "2100-03-01T00:00:00.000000001Z");
        assert_eq!(at(253_402_300_799, 0), "9999-12-31T23:59:59Z");
    }

    #[test]
    fn no_date_of_a_record_panics() {
        assert!(at(u64::MAX, 999_999_999).ends_with(".999999999Z"));
    }

    #[test]
    fn vm_clocks_look_as_in_qemu() {
        assert_eq!(vm_clock(0), "00:00:00.000");
        assert_eq!(vm_clock(93_784_005_999_999), "26:03:04.005");
    }
}
