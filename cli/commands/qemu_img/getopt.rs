//! A command line read as the C library's getopt_long reads it: short options in bundles, long ones abbreviated, words
//! between options. clap does none of that, and scripts do all of it.

use clap::Command;
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};

/// An option, as clap's definition has it.
struct Known {
    id: String,
    short: Option<char>,
    long: Option<String>,
    takes_value: bool,
}

/// What the definition of a verb knows.
pub struct Spec(Vec<Known>);

/// A piece of a command line.
#[derive(Debug, PartialEq, Eq)]
pub enum Item {
    /// An option.
    Option {
        /// clap's id of it.
        id: String,
        /// It was written in its long form.
        long: bool,
        /// Its argument.
        value: Option<OsString>,
        /// As it was written, for messages: `-c` or `--create`.
        written: String,
    },
    /// Anything else.
    Word(OsString),
    /// An option that there is not, as it was written.
    Unknown(String),
    /// An option at the end that lacks its argument.
    Missing(String),
}

impl Spec {
    /// The options of a built command.
    pub fn of(command: &Command) -> Self {
        let known = |arg: &clap::Arg| Known {
            id: arg.get_id().to_string(),
            short: arg.get_short(),
            long: arg.get_long().map(ToOwned::to_owned),
            takes_value: arg.get_action().takes_values(),
        };
        let options = command.get_arguments().filter(|a| !a.is_positional());
        Self(options.map(known).collect())
    }

    /// The long option that the text means: exactly, or as the only one that begins so.
    fn long(&self, text: &str) -> Option<&Known> {
        let name = |k: &Known| k.long.clone().unwrap_or_default();
        let exact = self.0.iter().find(|k| name(k) == text);
        let begins = |k: &&Known| !text.is_empty() && name(k).starts_with(text);
        let mut all = self.0.iter().filter(begins);
        exact.or_else(|| all.next().filter(|_| all.next().is_none()))
    }
}

/// Reads all words.
pub fn scan(spec: &Spec, words: &[OsString]) -> Vec<Item> {
    let mut items = Vec::new();
    let mut rest = words.iter();
    while let Some(word) = rest.next() {
        match word.as_bytes() {
            b"--" => items.extend(rest.by_ref().cloned().map(Item::Word)),
            [b'-', b'-', option @ ..] => items.push(long(spec, option, &mut rest)),
            [b'-', options @ ..] if !options.is_empty() => {
                items.extend(shorts(spec, options, &mut rest));
            }
            _ => items.push(Item::Word(word.clone())),
        }
    }
    items
}

fn long(spec: &Spec, option: &[u8], rest: &mut std::slice::Iter<'_, OsString>) -> Item {
    let at = option.iter().position(|b| *b == b'=');
    let (name, value) = match at {
        Some(at) => (&option[..at], Some(OsStr::from_bytes(&option[at + 1..]))),
        None => (option, None),
    };
    let name = String::from_utf8_lossy(name);
    let written = format!("--{name}");
    match (spec.long(&name), value) {
        (None, _) => Item::Unknown(written),
        (Some(known), Some(_)) if !known.takes_value => Item::Unknown(written),
        (Some(known), value) => {
            let next = || rest.next().map(OsString::as_os_str);
            let value = if known.takes_value {
                value.or_else(next)
            } else {
                None
            };
            item(known, true, value, written)
        }
    }
}

/// A bundle: options without arguments, then one whose argument is the rest of the word or the next word.
fn shorts(spec: &Spec, options: &[u8], rest: &mut std::slice::Iter<'_, OsString>) -> Vec<Item> {
    let mut items = Vec::new();
    for (at, option) in options.iter().enumerate() {
        let short = char::from(*option);
        let written = format!("-{short}");
        let Some(known) = spec.0.iter().find(|k| k.short == Some(short)) else {
            items.push(Item::Unknown(written));
            continue;
        };
        if !known.takes_value {
            items.push(item(known, false, None, written));
            continue;
        }
        let value = match &options[at + 1..] {
            [] => rest.next().map(OsString::as_os_str),
            value => Some(OsStr::from_bytes(value)),
        };
        items.push(item(known, false, value, written));
        break;
    }
    items
}

fn item(known: &Known, long: bool, value: Option<&OsStr>, written: String) -> Item {
    if known.takes_value && value.is_none() {
        return Item::Missing(written);
    }
    Item::Option {
        id: known.id.clone(),
        long,
        value: value.map(|v| OsString::from_vec(v.as_bytes().to_vec())),
        written,
    }
}
