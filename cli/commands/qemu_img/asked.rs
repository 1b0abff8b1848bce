//! What a command line of `qemu-img snapshot` asks for, in a release.

use super::NAME;
use super::arguments::{Arguments, RELEASE};
use super::getopt::{Item, Spec, scan};
use super::say::Usage;
use crate::arguments::Cli;
use clap::CommandFactory;
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::PathBuf;
use stillpoint_api::compat::{Flags, Release};
use stillpoint_store::{Error, Result};

/// One of the four actions, with its argument byte for byte.
#[derive(Debug, PartialEq, Eq)]
pub enum Action {
    /// `-l`.
    List,
    /// `-a`.
    Apply(Vec<u8>),
    /// `-c`.
    Create(Vec<u8>),
    /// `-d`.
    Delete(Vec<u8>),
}

/// What a command line asks for.
#[derive(Debug, Default)]
pub struct Asked {
    /// As which release to behave; the default where one that is not known was named.
    pub release: Release,
    /// What was named instead of a release.
    pub unknown_release: Option<Error>,
    /// None given is its own case.
    pub action: Option<Action>,
    /// What is no option: the file, if it is one word.
    pub words: Vec<OsString>,
    /// `-U`.
    pub force_share: bool,
    /// The word is options.
    pub image_opts: bool,
    /// `--store`, behind the verb.
    pub store: Option<PathBuf>,
    /// The first thing that cannot be meant.
    pub usage: Option<Usage>,
}

/// The options of clap's definition.
pub fn spec() -> Spec {
    let mut cli = Cli::command();
    cli.build();
    let command = cli
        .find_subcommand(NAME)
        .and_then(|c| c.find_subcommand("snapshot"));
    Spec::of(command.expect("the grammar has the verb"))
}

impl Arguments {
    /// Whether `--json` stands behind the verb: that must be known before anything can fail.
    pub fn wants_json(&self) -> bool {
        let is_json = |item: &Item| matches!(item, Item::Option { id, .. } if id == "json");
        scan(&spec(), &self.words).iter().any(is_json)
    }
}

/// Takes the pieces one by one, as the release did.
pub fn interpret(items: &[Item]) -> Asked {
    let mut asked = Asked::default();
    match release(items) {
        Ok(release) => asked.release = release,
        Err(e) => asked.unknown_release = Some(e),
    }
    let flags = asked.release.flags();
    for item in items {
        let refused = asked.take(item, &flags);
        asked.usage = asked.usage.take().or(refused);
    }
    if asked.words.len() != 1 {
        asked.usage.get_or_insert(Usage::NotOneFile);
    }
    asked
}

fn release(items: &[Item]) -> Result<Release> {
    let named = items.iter().rev().find_map(|item| match item {
        Item::Option { id, value, .. } if id == "qemu-version" => value.clone(),
        _ => None,
    });
    let named = named.or_else(|| std::env::var_os(RELEASE).filter(|v| !v.is_empty()));
    named.map_or(Ok(Release::DEFAULT), |v| v.to_string_lossy().parse())
}

impl Asked {
    fn take(&mut self, item: &Item, flags: &Flags) -> Option<Usage> {
        let (id, long, value, written) = match item {
            Item::Word(word) => {
                self.words.push(word.clone());
                return None;
            }
            Item::Unknown(written) => return Some(Usage::Unknown(written.clone())),
            Item::Missing(written) => return Some(Usage::Missing(written.clone())),
            Item::Option {
                id,
                long,
                value,
                written,
            } => (id.as_str(), *long, value.as_deref(), written),
        };
        let bytes = || value.unwrap_or_default().as_bytes().to_vec();
        let action = match id {
            "list" => Action::List,
            "apply" => Action::Apply(bytes()),
            "create" => Action::Create(bytes()),
            "delete" => Action::Delete(bytes()),
            "format" if !flags.img_long_actions => return Some(Usage::Unknown(written.clone())),
            _ => {
                match id {
                    "force-share" => self.force_share = true,
                    "image-opts" => self.image_opts = true,
                    "help" => return Some(Usage::Help),
                    "store" => self.store = value.map(PathBuf::from),
                    _ => {}
                }
                return None;
            }
        };
        if long && !flags.img_long_actions {
            return Some(Usage::Unknown(written.clone()));
        }
        if self.action.is_some() {
            return Some(Usage::Mixed);
        }
        self.action = Some(action);
        None
    }

    /// The file that the word names: itself, or what `--image-opts` finds in it.
    pub fn file(&self, word: &OsStr) -> OsString {
        if !self.image_opts {
            return word.to_owned();
        }
        let options = word.as_bytes().split(|b| *b == b',');
        let name = options
            .filter_map(|o| {
                o.strip_prefix(b"file.filename=")
                    .or_else(|| o.strip_prefix(b"filename="))
            })
            .next_back();
        OsString::from_vec(name.unwrap_or_default().to_vec())
    }
}
