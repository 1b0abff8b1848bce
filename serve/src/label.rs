//! What disks are called outside: `DEVICE@SNAPSHOT` in NBD, `DEVICE/SNAPSHOT.raw` as files.
//!
//! A snapshot is called by its name, by `id:ID` where its device has several of that name or it has none, by `uid:UID` where
//! that is no help either. In names `%`, `/`, `@`, control characters and bytes that are not UTF-8 stand as `%XX`, and so does
//! what would make a name look like another thing: the dots of `.` and `..`, the colon of a name that begins with `id:` or
//! `uid:`. So a name outside means one thing, and no path leads out of its folder.

use std::fmt::Write;

/// Prefix of an id in place of a name.
pub const ID: &str = "id:";
/// Prefix of a uid in place of a name.
pub const UID: &str = "uid:";

/// A name as it stands outside.
pub fn escape(name: &[u8]) -> String {
    if name == b"." || name == b".." {
        return "%2E".repeat(name.len());
    }
    let mut out = String::with_capacity(name.len());
    for chunk in name.utf8_chunks() {
        for c in chunk.valid().chars() {
            if matches!(c, '%' | '/' | '@') || c.is_control() {
                push_bytes(&mut out, c.encode_utf8(&mut [0; 4]).as_bytes());
            } else {
                out.push(c);
            }
        }
        push_bytes(&mut out, chunk.invalid());
    }
    out
}

/// The same of a snapshot's name.
pub fn escape_snapshot(name: &[u8]) -> String {
    let escaped = escape(name);
    for prefix in [ID, UID] {
        if let Some(rest) = escaped.strip_prefix(prefix) {
            return format!("{}%3A{rest}", prefix.trim_end_matches(':'));
        }
    }
    escaped
}

fn push_bytes(out: &mut String, bytes: &[u8]) {
    for byte in bytes {
        // Writing to a string cannot fail.
        let _ = write!(out, "%{byte:02X}");
    }
}

/// The name that stands outside as `text`; `None` where a `%` is not followed by two digits.
pub fn unescape(text: &str) -> Option<Vec<u8>> {
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        if byte != b'%' {
            out.push(byte);
            continue;
        }
        let digit = |b: u8| char::from(b).to_digit(16);
        let (high, low) = (digit(rest.next()?)?, digit(rest.next()?)?);
        out.push((high * 16 + low) as u8);
    }
    Some(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_name_stands_outside_and_comes_back() {
        let odd: [&[u8]; 10] = [
            b"monday",
            b"",
            b".",
            b"..",
            b"a/../b",
            b"50%",
            b"x@y",
            b"id:3",
            b"\xff\x00\n",
            "vor dem Umbau \u{e9}".as_bytes(),
        ];
        for name in odd {
            let outside = escape_snapshot(name);
            assert_eq!(unescape(&outside).unwrap(), name, "{outside}");
            assert!(!outside.contains(['/', '@', '\0']), "{outside}");
            assert!(outside != "." && outside != "..");
            assert!(!outside.starts_with(ID));
        }
        assert_eq!(escape("vor \u{e9}".as_bytes()), "vor \u{e9}");
        assert_eq!(escape_snapshot(b"id:3"), "id%3A3");
        assert_eq!(escape(b"id:3"), "id:3");
    }

    #[test]
    fn what_is_no_escape_is_no_name() {
        for bad in ["%", "%4", "50%", "%zz", "a%-1"] {
            assert_eq!(unescape(bad), None, "{bad}");
        }
    }
}
