//! Names come from images and from other people: what could steer a terminal is shown, not sent.

use std::fmt::Write;

/// `text` with control characters and the marks that turn the direction of writing escaped. A backslash stays as it is:
/// this is for reading, JSON is for programs.
pub fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        if c.is_control() || is_direction_mark(c) {
            out.extend(c.escape_default());
        } else {
            out.push(c);
        }
    }
    out
}

/// A name that is bytes, as text: where it is not UTF-8, bytes as `\xNN`.
pub fn bytes_to_text(bytes: &[u8]) -> String {
    let mut out = String::new();
    for chunk in bytes.utf8_chunks() {
        out.push_str(chunk.valid());
        for byte in chunk.invalid() {
            // Writing to a String cannot fail.
            let _ = write!(out, "\\x{byte:02x}");
        }
    }
    out
}

fn is_direction_mark(c: char) -> bool {
    matches!(c, '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn terminals_are_not_steered_by_names() {
        assert_eq!(
            escape("a\x1b[2Jb\r\n\u{7f}\u{9b}"),
            "a\\u{1b}[2Jb\\r\\n\\u{7f}\\u{9b}"
        );
        assert_eq!(escape("x\u{202e}gpj"), "x\\u{202e}gpj");
        assert_eq!(escape("Grüße 日本 C:\\disk"), "Grüße 日本 C:\\disk");
    }

    #[test]
    fn odd_bytes_are_spelled_out() {
        assert_eq!(bytes_to_text(b"ok\xff\xfe-\xc3\xa9"), "ok\\xff\\xfe-é");
    }
}
