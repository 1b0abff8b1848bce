//! Sizes, counts and durations for people.

use std::time::Duration;

const UNITS: [&str; 7] = ["B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];

/// 512 B, 1.4 GiB, 230 MiB: two or three digits that mean something.
pub fn size(bytes: u64) -> String {
    if bytes < 1024 {
        return format!("{bytes} B");
    }
    let mut value = bytes as f64;
    let mut unit = 0;
    // 1023.96 KiB would print as 1024 KiB.
    while value >= 1023.5 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    let unit = UNITS[unit];
    if value < 99.95 {
        format!("{value:.1} {unit}")
    } else {
        format!("{value:.0} {unit}")
    }
}

/// A size that may be an exact number of units: 16 KiB, not 16.0 KiB.
pub fn exact_size(bytes: u64) -> String {
    let unit = (bytes.trailing_zeros() / 10).min(6) as usize;
    if bytes == 0 || bytes >> (unit * 10) >= 1024 {
        return size(bytes);
    }
    format!("{} {}", bytes >> (unit * 10), UNITS[unit])
}

/// 1,234,567.
pub fn count(n: u64) -> String {
    let digits = n.to_string();
    let mut out = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

/// "1 snapshot", "3 snapshots".
pub fn number_of(n: u64, thing: &str) -> String {
    let plural = if n == 1 { "" } else { "s" };
    format!("{} {thing}{plural}", count(n))
}

/// 40 ms, 3.2 s, 4 min 10 s, 2 h 5 min.
pub fn duration(time: Duration) -> String {
    let seconds = time.as_secs();
    match seconds {
        0 if time.as_millis() < 1000 => format!("{} ms", time.as_millis()),
        0..10 => format!("{:.1} s", time.as_secs_f64().min(9.9)),
        10..60 => format!("{seconds} s"),
        60..3600 => format!("{} min {} s", seconds / 60, seconds % 60),
        _ => format!("{} h {} min", seconds / 3600, seconds % 3600 / 60),
    }
}

/// The same of seconds as reports hold them; what is no duration is 0 ms.
pub fn seconds(seconds: f64) -> String {
    duration(Duration::try_from_secs_f64(seconds).unwrap_or_default())
}

/// `part` of `whole` in percent, rounded down so that 100 % means all.
pub fn percent(part: u64, whole: u64) -> u64 {
    if whole == 0 {
        return 100;
    }
    (u128::from(part.min(whole)) * 100 / u128::from(whole)) as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_keep_the_digits_that_matter() {
        for (bytes, text) in [
            (0, "0 B"),
            (1023, "1023 B"),
            (1024, "1.0 KiB"),
            (1536, "1.5 KiB"),
            ((1 << 20) - 1, "1.0 MiB"),
            (3 << 29, "1.5 GiB"),
            (230 << 20, "230 MiB"),
            (u64::MAX, "16.0 EiB"),
        ] {
            assert_eq!(size(bytes), text);
        }
    }

    #[test]
    fn exact_sizes_are_exact() {
        assert_eq!(exact_size(16 << 10), "16 KiB");
        assert_eq!(exact_size(1 << 20), "1 MiB");
        assert_eq!(exact_size(0), "0 B");
        assert_eq!(exact_size(1025 << 10), "1.0 MiB");
        assert_eq!(exact_size(1 << 63), "8 EiB");
    }

    #[test]
    fn counts_are_grouped() {
        assert_eq!(count(0), "0");
        assert_eq!(count(999), "999");
        assert_eq!(count(1000), "1,000");
        assert_eq!(count(1_234_567), "1,234,567");
        assert_eq!(number_of(1, "pack"), "1 pack");
        assert_eq!(number_of(0, "pack"), "0 packs");
    }

    #[test]
    fn durations_change_their_unit() {
        for (ms, text) in [
            (40, "40 ms"),
            (999, "999 ms"),
            (3240, "3.2 s"),
            (9999, "9.9 s"),
            (10_000, "10 s"),
            (250_000, "4 min 10 s"),
            (7_500_000, "2 h 5 min"),
        ] {
            assert_eq!(duration(Duration::from_millis(ms)), text);
        }
    }

    #[test]
    fn all_is_said_only_of_all() {
        assert_eq!(percent(999, 1000), 99);
        assert_eq!(percent(u64::MAX, u64::MAX), 100);
        assert_eq!(percent(0, 0), 100);
    }
}
