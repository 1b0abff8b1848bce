//! Lists of snapshots as text, in the columns of each release: for `info snapshots` and `qemu-img snapshot -l`.

use crate::compat::eras::{Flags, Layout};
use crate::compat::info::{ICOUNT_NONE, QemuSnapshotInfo};
use crate::compat::release::Release;
use crate::draft::civil;

/// Seconds that local time is ahead of UTC at a moment, in seconds since 1970.
pub type UtcOffset<'a> = &'a dyn Fn(u64) -> i64;

/// What `qemu-img snapshot -l` prints: nothing for no snapshots, else a title, the header and a line each.
pub fn snapshot_list(
    release: Release,
    list: &[QemuSnapshotInfo],
    offset: UtcOffset<'_>,
) -> Vec<u8> {
    if list.is_empty() {
        return Vec::new();
    }
    let mut out = b"Snapshot list:\n".to_vec();
    out.extend(table(&release.flags(), list, offset));
    out
}

/// The header and a line each.
pub(super) fn table(flags: &Flags, list: &[QemuSnapshotInfo], offset: UtcOffset<'_>) -> Vec<u8> {
    let mut out = header(flags);
    out.push(b'\n');
    for sn in list {
        out.extend(row(flags, sn, offset));
        out.push(b'\n');
    }
    out
}

/// A column: bytes at least, and whether they are on the left; what is printed before it.
struct Column(&'static str, usize, Side);

enum Side {
    Left,
    Right,
}

/// Columns of rows; those of the header differ in two layouts, where what separates columns was an afterthought.
fn columns(layout: Layout, header: bool) -> Vec<Column> {
    use Side::{Left, Right};
    let old = |size| {
        vec![
            Column("", 10, Left),
            Column("", 20, Left),
            Column("", size, Right),
            Column("", 20, Right),
            Column("", 15, Right),
        ]
    };
    let middle = |tag, before_size, size| {
        let (id, before_tag, tag) = if header {
            (10, "", tag + 1)
        } else {
            (9, " ", tag)
        };
        vec![
            Column("", id, Left),
            Column(before_tag, tag, Left),
            Column(if header { "" } else { before_size }, size, Right),
            Column("", 20, Right),
            Column("", 13, Right),
            Column("", 11, Right),
        ]
    };
    match layout {
        Layout::L1_0 | Layout::L4_1 => old(7),
        Layout::L5_0 => old(11),
        Layout::L5_2 => middle(17, " ", 7),
        Layout::L6_0 => middle(16, " ", 8),
        Layout::L9_0 => vec![
            Column("", 7, Left),
            Column(" ", 16, Left),
            Column(" ", 8, Right),
            Column(" ", 19, Right),
            Column(" ", 15, Right),
            Column(" ", 10, Right),
        ],
    }
}

fn line(columns: &[Column], cells: &[&[u8]]) -> Vec<u8> {
    let mut out = Vec::new();
    for (Column(before, width, side), cell) in columns.iter().zip(cells) {
        let pad = vec![b' '; width.saturating_sub(cell.len())];
        out.extend_from_slice(before.as_bytes());
        match side {
            Side::Left => [cell, &pad[..]]
                .iter()
                .for_each(|b| out.extend_from_slice(b)),
            Side::Right => [&pad[..], cell]
                .iter()
                .for_each(|b| out.extend_from_slice(b)),
        }
    }
    out
}

pub(super) fn header(flags: &Flags) -> Vec<u8> {
    let (size, clock): (&[u8], &[u8]) = if flags.list_layout < Layout::L9_0 {
        (b"VM SIZE", b"VM CLOCK")
    } else {
        (b"VM_SIZE", b"VM_CLOCK")
    };
    let cells: [&[u8]; 6] = [b"ID", b"TAG", size, b"DATE", clock, b"ICOUNT"];
    line(&columns(flags.list_layout, true), &cells)
}

pub(super) fn row(flags: &Flags, sn: &QemuSnapshotInfo, offset: UtcOffset<'_>) -> Vec<u8> {
    let layout = flags.list_layout;
    let size = if layout < Layout::L4_1 {
        size_1_0(sn.vm_state_size)
    } else {
        size_4_1(sn.vm_state_size)
    };
    let none = if layout < Layout::L9_0 { "" } else { "--" };
    let icount = match sn.icount {
        ICOUNT_NONE => none.into(),
        count => count.cast_signed().to_string(),
    };
    let cells: [&[u8]; 6] = [
        sn.id_str.as_bytes(),
        sn.name.as_bytes(),
        size.as_bytes(),
        &date(u64::from(sn.date_sec), offset).into_bytes(),
        &clock(layout, sn.vm_clock_nsec).into_bytes(),
        icount.as_bytes(),
    ];
    line(&columns(layout, false), &cells)
}

/// `YYYY-mm-dd HH:MM:SS` in local time.
fn date(sec: u64, offset: UtcOffset<'_>) -> String {
    let [year, month, day, h, m, s] = local(sec, offset);
    format!("{year:04}-{month:02}-{day:02} {h:02}:{m:02}:{s:02}")
}

/// Year to second in local time.
pub(super) fn local(sec: u64, offset: UtcOffset<'_>) -> [i64; 6] {
    let local = sec.cast_signed().saturating_add(offset(sec));
    let (year, month, day) = civil(local.div_euclid(86_400));
    let s = local.rem_euclid(86_400);
    [year, month, day, s / 3600, s / 60 % 60, s % 60]
}

fn clock(layout: Layout, nsec: u64) -> String {
    let (secs, ms) = (nsec / 1_000_000_000, nsec / 1_000_000 % 1000);
    let width = if layout < Layout::L9_0 { 2 } else { 4 };
    let (h, m, s) = (secs / 3600, secs / 60 % 60, secs % 60);
    format!("{h:0width$}:{m:02}:{s:02}.{ms:03}")
}

/// `0`, `1.2K`, `41M`: plain to 999, one decimal below ten units, else rounded.
fn size_1_0(size: u64) -> String {
    if size <= 999 {
        return size.to_string();
    }
    let (mut base, mut units) = (1024u64, "KMGT".chars().peekable());
    while let Some(unit) = units.next() {
        if size < 10 * base {
            return format!("{:.1}{unit}", size as f64 / base as f64);
        }
        if size < 1000 * base || units.peek().is_none() {
            return format!("{}{unit}", size.saturating_add(base / 2) / base);
        }
        base *= 1024;
    }
    size.to_string()
}

/// `0 B`, `128 KiB`, `41 MiB`: three significant digits, as C's `%.3g` prints them; the unit is the next one from 1000
/// on. What rounds up to 1000 is `1e+03`.
fn size_4_1(size: u64) -> String {
    const UNITS: [&str; 7] = ["B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
    let above = |k: &usize| u128::from(size) >= 1000 << (10 * k);
    let k = (0..UNITS.len() - 1).take_while(above).count();
    let value = size as f64 / (1u64 << (10 * k)) as f64;
    // The exponent that is left after rounding says how many decimals three digits need.
    let rounded = format!("{value:.2e}");
    let exponent = rounded.split_once('e').and_then(|(_, e)| e.parse().ok());
    let digits = match exponent.unwrap_or(0i32) {
        3.. => "1e+03".to_owned(),
        e => format!("{value:.*}", (2 - e) as usize),
    };
    let digits = if digits.contains('.') {
        digits.trim_end_matches('0').trim_end_matches('.')
    } else {
        &digits
    };
    format!("{digits} {}", UNITS[k])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compat::info::{IdStr, NameStr};

    /// 2026-11-20 20:37:26 UTC.
    const DATE: u32 = 1_795_207_046;

    fn sn(id: &str, name: &str, size: u64, icount: u64) -> QemuSnapshotInfo {
        QemuSnapshotInfo {
            id_str: IdStr::from(id),
            name: NameStr::from(name),
            vm_state_size: size,
            date_sec: DATE,
            vm_clock_nsec: 3_723_004_999_999,
            icount,
            ..QemuSnapshotInfo::default()
        }
    }

    fn text(release: &str, list: &[QemuSnapshotInfo]) -> String {
        let list = snapshot_list(release.parse().unwrap(), list, &|_| 0);
        String::from_utf8(list).unwrap()
    }

    #[test]
    fn an_empty_list_prints_nothing() {
        assert_eq!(text("4.2", &[]), "");
    }

    #[test]
    fn every_layout_is_that_of_its_releases() {
        let list = [sn("1", "a", 41 << 20, ICOUNT_NONE), sn("2", "b", 0, 7)];
        let expected = [
            (
                "1.0",
                "ID        TAG                 VM SIZE                DATE       VM CLOCK\n\
                     1         a                       41M 2026-11-20 20:37:26   01:02:03.004\n\
                     2         b                         0 2026-11-20 20:37:26   01:02:03.004\n",
            ),
            (
                "4.1",
                "ID        TAG                 VM SIZE                DATE       VM CLOCK\n\
                     1         a                    41 MiB 2026-11-20 20:37:26   01:02:03.004\n\
                     2         b                       0 B 2026-11-20 20:37:26   01:02:03.004\n",
            ),
            (
                "5.0",
                "ID        TAG                     VM SIZE                DATE       VM CLOCK\n\
                     1         a                        41 MiB 2026-11-20 20:37:26   01:02:03.004\n\
                     2         b                           0 B 2026-11-20 20:37:26   01:02:03.004\n",
            ),
            (
                "5.2",
                "ID        TAG               VM SIZE                DATE     VM CLOCK     ICOUNT\n\
                     1         a                  41 MiB 2026-11-20 20:37:26 01:02:03.004           \n\
                     2         b                     0 B 2026-11-20 20:37:26 01:02:03.004          7\n",
            ),
            (
                "6.0",
                "ID        TAG               VM SIZE                DATE     VM CLOCK     ICOUNT\n\
                     1         a                  41 MiB 2026-11-20 20:37:26 01:02:03.004           \n\
                     2         b                     0 B 2026-11-20 20:37:26 01:02:03.004          7\n",
            ),
            (
                "9.0",
                "ID      TAG               VM_SIZE                DATE        VM_CLOCK     ICOUNT\n\
                     1       a                  41 MiB 2026-11-20 20:37:26  0001:02:03.004         --\n\
                     2       b                     0 B 2026-11-20 20:37:26  0001:02:03.004          7\n",
            ),
        ];
        for (release, rows) in expected {
            let shown = text(release, &list);
            assert_eq!(shown, format!("Snapshot list:\n{rows}"), "{release}");
        }
        assert_eq!(text("4.0", &list), text("1.0", &list));
        assert_eq!(text("11.1", &list), text("9.0", &list));
    }

    /// qemu-iotest 286: eight words a row from 5.2 on, also where ids and names are longer than their columns.
    #[test]
    fn rows_have_eight_words_where_columns_are_separated() {
        // A count of eleven digits and a clock of a hundred hours touch what is before them until 9.0, in QEMU too.
        let long = sn(&"9".repeat(40), &"x".repeat(255), u64::MAX, 9_999_999_999);
        for release in Release::all().filter(|r| r.flags().icount) {
            let shown = text(&release.to_string(), &[long, sn("1", "a", 1 << 30, 0)]);
            for row in shown.lines().skip(2) {
                assert_eq!(row.split_whitespace().count(), 8, "{release}: {row}");
            }
        }
    }

    #[test]
    fn sizes_are_worded_as_before_and_after_4_1() {
        for (size, old, new) in [
            (0, "0", "0 B"),
            (999, "999", "999 B"),
            (1000, "1.0K", "0.977 KiB"),
            (1024, "1.0K", "1 KiB"),
            (1229, "1.2K", "1.2 KiB"),
            (10 << 10, "10K", "10 KiB"),
            (128 << 10, "128K", "128 KiB"),
            (999 << 10, "999K", "999 KiB"),
            ((999 << 10) + 600, "1000K", "1e+03 KiB"),
            (1000 << 10, "1.0M", "0.977 MiB"),
            (41 << 20, "41M", "41 MiB"),
            (1 << 40, "1.0T", "1 TiB"),
            (2000 << 40, "2000T", "1.95 PiB"),
        ] {
            assert_eq!(
                (size_1_0(size).as_str(), size_4_1(size).as_str()),
                (old, new),
                "{size}"
            );
        }
        assert_eq!(size_4_1(u64::MAX), "16 EiB");
    }

    #[test]
    fn dates_are_in_the_zone_of_the_caller() {
        assert_eq!(date(u64::from(DATE), &|_| 5 * 3600), "2026-11-21 01:37:26");
        assert_eq!(date(0, &|_| -3600), "1969-12-31 23:00:00");
    }
}
