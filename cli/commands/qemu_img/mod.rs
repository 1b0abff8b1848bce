//! `still qemu-img`: qemu-img's own command line over the store, also under the name `qemu-img`.

pub mod arguments;
mod asked;
mod getopt;
mod pass_on;
mod say;
mod snapshot;
#[cfg(test)]
mod tests;

use crate::context::Context;
use crate::output::Answer;
use arguments::Arguments;
use clap::Subcommand;
use std::ffi::{OsStr, OsString};
use std::path::Path;
use stillpoint_store::Result;

/// The name under which this program takes qemu-img's place.
const NAME: &str = "qemu-img";

/// qemu-img's subcommands that this program has.
#[derive(Debug, Subcommand)]
#[command(after_help = "\
Installed as `qemu-img` earlier in PATH than the real one (ln -s \"$(command -v still)\" ~/bin/qemu-img), it serves
`qemu-img snapshot` for the store's devices, and passes every other image and subcommand on to the real one.

Example:
  still qemu-img snapshot -l web1.raw")]
pub enum Verb {
    /// List, apply, create or delete a device's snapshots, with output and exit codes as a QEMU release's
    Snapshot(Arguments),
}

/// Runs it.
pub fn run(verb: &Verb, context: &Context) -> Result<Answer> {
    match verb {
        Verb::Snapshot(arguments) => snapshot::run(arguments, context),
    }
}

/// The words of a command line: those for clap, and those after `qemu-img snapshot`, which are read as getopt reads them.
pub struct Words {
    /// For clap.
    pub head: Vec<OsString>,
    /// What comes after `qemu-img snapshot`.
    pub tail: Option<Arguments>,
}

/// Splits a command line. One of a program called `qemu-img` that is not about snapshots goes on to the real one, and
/// this does not return.
pub fn split(words: Vec<OsString>) -> Result<Words> {
    if is_called(&words) {
        let Some(at) = pass_on::snapshot_at(&words) else {
            return Err(pass_on::exec(&words));
        };
        let tail = Arguments {
            words: words[at + 1..].to_vec(),
            program: Some(words),
        };
        return Ok(Words {
            head: ["still", NAME, "snapshot"].map(Into::into).to_vec(),
            tail: Some(tail),
        });
    }
    let Some(at) = verb_at(&words).filter(|at| is(&words[*at], NAME)) else {
        return Ok(Words {
            head: words,
            tail: None,
        });
    };
    if words.get(at + 1).is_none_or(|w| !is(w, "snapshot")) {
        return Ok(Words {
            head: words,
            tail: None,
        });
    }
    let mut head = words;
    let tail = head.split_off(at + 2);
    let tail = Arguments {
        words: tail,
        program: None,
    };
    Ok(Words {
        head,
        tail: Some(tail),
    })
}

fn is_called(words: &[OsString]) -> bool {
    let name = words.first().and_then(|w| Path::new(w).file_name());
    name == Some(OsStr::new(NAME))
}

/// Where the verb stands, behind the options that all verbs share.
fn verb_at(words: &[OsString]) -> Option<usize> {
    let mut at = 1;
    while let Some(word) = words.get(at) {
        match word.to_str() {
            Some("--store") => at += 2,
            Some("--json" | "--quiet" | "-q") => at += 1,
            Some(word) if word.starts_with("--store=") => at += 1,
            _ => return Some(at),
        }
    }
    None
}

fn is(word: &OsStr, text: &str) -> bool {
    word == OsStr::new(text)
}
