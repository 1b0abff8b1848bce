//! Where one JSON value ends and the next begins. Clients of QMP need not send line breaks, so brackets are counted, outside of
//! strings; what stands in them is the parser's affair.

/// Longest message, in bytes.
pub const MESSAGE_MAX: usize = 256 << 10;
/// Deepest nesting.
pub const DEPTH_MAX: usize = 64;

/// Why a stream cannot be followed any further.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lost {
    /// A message of more than [`MESSAGE_MAX`] bytes.
    TooLong,
    /// One nested deeper than [`DEPTH_MAX`].
    TooDeep,
}

/// Collects the bytes of one message at a time.
#[derive(Debug, Default)]
pub struct Framer {
    message: Vec<u8>,
    depth: usize,
    in_string: bool,
    escaped: bool,
}

impl Framer {
    /// Takes a byte; answers with a message when that was its last. Messages are objects or arrays, or, so that garbage is
    /// complained about and not waited for, whatever else stands up to the end of a line.
    pub fn push(&mut self, byte: u8) -> Result<Option<Vec<u8>>, Lost> {
        let between = self.message.is_empty();
        if between && byte.is_ascii_whitespace() {
            return Ok(None);
        }
        if self.message.len() == MESSAGE_MAX {
            return Err(Lost::TooLong);
        }
        self.message.push(byte);
        if self.in_string {
            match byte {
                _ if self.escaped => self.escaped = false,
                b'\\' => self.escaped = true,
                b'"' => self.in_string = false,
                // No string goes over a line: what is left of a message that was cut off is not waited for.
                b'\n' => return Ok(Some(self.take())),
                _ => {}
            }
            return Ok(None);
        }
        match byte {
            b'"' => self.in_string = true,
            b'{' | b'[' => {
                self.depth += 1;
                if self.depth > DEPTH_MAX {
                    return Err(Lost::TooDeep);
                }
            }
            b'}' | b']' => {
                self.depth = self.depth.saturating_sub(1);
                if self.depth == 0 {
                    return Ok(Some(self.take()));
                }
            }
            b'\n' if self.depth == 0 => return Ok(Some(self.take())),
            _ => {}
        }
        Ok(None)
    }

    fn take(&mut self) -> Vec<u8> {
        std::mem::take(self).message
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn messages(text: &str) -> Vec<String> {
        let mut framer = Framer::default();
        let mut out = Vec::new();
        for byte in text.bytes() {
            if let Some(message) = framer.push(byte).unwrap() {
                out.push(String::from_utf8(message).unwrap());
            }
        }
        out
    }

    #[test]
    fn messages_end_where_their_brackets_close() {
        let two = r#"{"execute":"a"}{"execute":"b","arguments":{"x":["]"]}}"#;
        assert_eq!(
            messages(two),
            [
                r#"{"execute":"a"}"#,
                r#"{"execute":"b","arguments":{"x":["]"]}}"#
            ]
        );
        assert_eq!(
            messages("\n {\n \"a\" : \"\\\"}\" } \r\n"),
            ["{\n \"a\" : \"\\\"}\" }"]
        );
    }

    #[test]
    fn garbage_ends_with_its_line_and_hurts_nothing_after_it() {
        assert_eq!(messages("hello\n{}"), ["hello\n", "{}"]);
        assert_eq!(messages("}]\n{}"), ["}", "]", "{}"]);
        assert_eq!(
            messages("{\"a\": \"cut off\n{}"),
            ["{\"a\": \"cut off\n", "{}"]
        );
    }

    #[test]
    fn length_and_depth_are_bounded() {
        let mut framer = Framer::default();
        let long = (0..=MESSAGE_MAX).find_map(|_| framer.push(b'x').err());
        assert_eq!(long, Some(Lost::TooLong));
        let mut framer = Framer::default();
        let deep = (0..=DEPTH_MAX).find_map(|_| framer.push(b'[').err());
        assert_eq!(deep, Some(Lost::TooDeep));
    }
}
