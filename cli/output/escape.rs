//! Names come from images and from other people: what could steer a terminal is shown, not sent.

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
}
