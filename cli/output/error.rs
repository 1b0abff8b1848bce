//! Errors as people and programs read them.

use crate::context::Context;
use crate::exit::{self, Exit};
use crate::output::escape::escape;
use serde_json::{Value, json};
use std::error::Error as _;
use std::io::Write;
use stillpoint_store::Error;

/// Prints the error: on stderr, or as the JSON document on stdout. A reader of stdout that went away wants to hear nothing
/// (`still export D - | head -c 512`), but what it was sent is not whole.
pub fn print(error: &Error, context: &Context) -> Exit {
    if is_broken_pipe(error) {
        return Exit::Failed;
    }
    // An error that cannot be printed still ends the process with its code.
    let _ = if context.json {
        writeln!(std::io::stdout(), "{:#}", document(error))
    } else {
        write!(std::io::stderr(), "{}", text(error))
    };
    exit::of(error)
}

/// Prints an error on stderr that came before any option was read.
pub fn bare(error: &Error) -> Exit {
    let _ = write!(std::io::stderr(), "{}", text(error));
    exit::of(error)
}

/// Whether a reader of a pipe has gone away.
pub fn is_broken_pipe(error: &Error) -> bool {
    let cause = error
        .source()
        .and_then(<dyn std::error::Error>::downcast_ref::<std::io::Error>);
    cause.is_some_and(|cause| cause.kind() == std::io::ErrorKind::BrokenPipe)
}

/// What clap has found: help and version are answers, the rest is usage.
pub fn usage(error: &clap::Error) -> Exit {
    let wants_json = std::env::args_os().any(|argument| argument == "--json");
    let _ = if error.use_stderr() && wants_json {
        writeln!(std::io::stdout(), "{:#}", usage_document(error))
    } else {
        error.print()
    };
    if error.use_stderr() {
        Exit::Usage
    } else {
        Exit::Done
    }
}

fn usage_document(error: &clap::Error) -> Value {
    let text = error.to_string();
    let message = text
        .lines()
        .next()
        .unwrap_or_default()
        .trim_start_matches("error: ");
    json!({ "error": {
        "kind": "usage", "message": message, "causes": [], "hint": "still --help shows the verbs",
    }})
}

/// The first cause stands in the first line, where `grep` finds it.
fn text(error: &Error) -> String {
    let mut text = format!("still: {}", escape(&error.to_string()));
    for (nth, cause) in causes(error).iter().enumerate() {
        let lead = if nth == 0 { ": " } else { "\n  because: " };
        text.push_str(lead);
        text.push_str(&escape(cause));
    }
    text.push('\n');
    if let Some(hint) = error.what_next() {
        text.push_str("  hint: ");
        text.push_str(&escape(hint));
        text.push('\n');
    }
    text
}

fn document(error: &Error) -> Value {
    json!({ "error": {
        "kind": exit::kind_name(error.kind()),
        "message": error.to_string(),
        "causes": causes(error),
        "hint": error.what_next(),
    }})
}

fn causes(error: &Error) -> Vec<String> {
    let chain = std::iter::successors(error.source(), |&cause| cause.source());
    chain.map(ToString::to_string).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use stillpoint_store::ErrorKind;

    fn sample() -> Error {
        let denied = std::io::Error::from_raw_os_error(13);
        let inner = Error::io("reading the file", denied).at("a\nb");
        Error::new(ErrorKind::Busy, "opening the store")
            .at("/srv/x")
            .source(inner)
            .hint("wait and try again")
    }

    #[test]
    fn the_first_line_says_what_where_and_why() {
        assert_eq!(
            text(&sample()),
            "still: opening the store /srv/x: reading the file a\\nb\n  \
             because: Permission denied (os error 13)\n  hint: wait and try again\n"
        );
    }

    #[test]
    fn programs_get_the_same_in_fields() {
        let document = document(&sample());
        assert_eq!(document["error"]["kind"], "busy");
        assert_eq!(document["error"]["message"], "opening the store /srv/x");
        assert_eq!(document["error"]["causes"][0], "reading the file a\nb");
        assert_eq!(
            document["error"]["causes"][1],
            "Permission denied (os error 13)"
        );
        assert_eq!(document["error"]["hint"], "wait and try again");
    }
}
