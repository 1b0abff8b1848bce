//! Change maps for `create --changed`: JSON as `qemu-img map --output=json` prints it for a dirty bitmap, that is with the
//! image opened through NBD with `x-dirty-bitmap`. There QEMU (10.0) shows what changed as `"data": false`, and nothing as
//! `"zero": true`: the bitmap knows nothing of zeros. A plain map of the image has its holes as zeros; taken for a bitmap's
//! it would say that nothing changed.

use serde::Deserialize;
use std::io::Read;
use std::path::Path;
use stillpoint_store::{Error, Result};

/// Largest map file: a bitmap of 8 TiB in 64 KiB pieces that alternate.
const MAP_BYTES_MAX: u64 = 1 << 30;

/// What somebody says of a disk since its last snapshot.
#[derive(Debug, PartialEq, Eq)]
pub struct Changed {
    /// The map speaks of the bytes below this; what is above may have changed too.
    pub covered_bytes: u64,
    /// Start and length of what changed, in order, not touching.
    pub ranges: Vec<(u64, u64)>,
}

#[derive(Deserialize)]
struct Extent {
    start: u64,
    length: u64,
    data: bool,
    zero: bool,
}

/// The map in `path`.
pub fn read(path: &Path) -> Result<Changed> {
    let doing = "reading the change map";
    let mut text = String::new();
    let file = std::fs::File::open(path).map_err(|e| Error::io(doing, e).at(path.display()))?;
    file.take(MAP_BYTES_MAX)
        .read_to_string(&mut text)
        .map_err(|e| Error::io(doing, e).at(path.display()))?;
    parse(&text).map_err(|why| {
        let hint = "`still create --help` has the command that makes it from a dirty bitmap";
        Error::invalid(doing, why).at(path.display()).hint(hint)
    })
}

/// A gap would be silently trusted as unchanged, so the extents must follow each other from byte 0 on.
fn parse(text: &str) -> std::result::Result<Changed, String> {
    let extents: Vec<Extent> = serde_json::from_str(text).map_err(|e| e.to_string())?;
    let mut changed = Changed {
        covered_bytes: 0,
        ranges: Vec::new(),
    };
    for extent in extents {
        let start = changed.covered_bytes;
        if extent.start != start {
            return Err(format!(
                "an extent starts at {} where {start} should",
                extent.start
            ));
        }
        changed.covered_bytes = start
            .checked_add(extent.length)
            .ok_or_else(|| format!("the extent at {start} ends past 64 bits"))?;
        if extent.zero {
            return Err(format!(
                "it is no map of a dirty bitmap: the extent at {start} is said to be zeros"
            ));
        }
        if extent.data {
            continue;
        }
        match changed.ranges.last_mut() {
            Some(last) if last.0 + last.1 == start => last.1 += extent.length,
            _ => changed.ranges.push((start, extent.length)),
        }
    }
    if changed.covered_bytes == 0 {
        return Err("it has no extents".into());
    }
    Ok(changed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dirty_is_what_qemu_shows_as_no_data() {
        let map = r#"[
            { "start": 0, "length": 65536, "depth": 0, "present": true, "zero": false, "data": true, "offset": 0},
            { "start": 65536, "length": 65536, "depth": 0, "present": false, "zero": false, "data": false},
            { "start": 131072, "length": 4096, "depth": 0, "present": false, "zero": false, "data": false},
            { "start": 135168, "length": 1, "depth": 0, "present": true, "zero": false, "data": true}]"#;
        let changed = parse(map).expect("the map is good");
        assert_eq!(
            changed,
            Changed {
                covered_bytes: 135_169,
                ranges: vec![(65536, 69632)]
            }
        );
    }

    #[test]
    fn maps_that_leave_something_unsaid_are_refused() {
        let extent = |start: u64, length: u64| {
            format!(r#"{{"start":{start},"length":{length},"data":true,"zero":false}}"#)
        };
        let gap = format!("[{},{}]", extent(0, 1), extent(2, 1));
        let late = format!("[{}]", extent(1, 1));
        let past = format!("[{},{}]", extent(0, u64::MAX), extent(u64::MAX, 9));
        assert!(parse(&format!("[{}]", extent(0, 1))).is_ok());
        for map in [
            gap.as_str(),
            &late,
            &past,
            "[]",
            "{}",
            "",
            r#"[{"start":0,"length":1}]"#,
            r#"[{"start":0,"length":1,"data":true}]"#,
        ] {
            assert!(parse(map).is_err(), "{map}");
        }
    }

    #[test]
    fn a_plain_map_of_the_image_is_no_map_of_changes() {
        // `qemu-img map --output=json a.raw`, with a hole.
        let map = r#"[
            { "start": 0, "length": 65536, "depth": 0, "present": true, "zero": false, "data": true, "offset": 0},
            { "start": 65536, "length": 65536, "depth": 0, "present": true, "zero": true, "data": false, "offset": 65536}]"#;
        let why = parse(map).expect_err("it says nothing of changes");
        assert!(
            why.contains("dirty bitmap") && why.contains("65536"),
            "{why}"
        );
    }
}
