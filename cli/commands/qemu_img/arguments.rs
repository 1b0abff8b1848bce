//! clap's definition of `still qemu-img snapshot`: for help, completions and manual pages, and for getopt's list of options.

use clap::{Arg, ArgAction, ArgMatches, Command, FromArgMatches};
use std::ffi::OsString;

/// Names the release, where the command line names none.
pub const RELEASE: &str = "STILL_QEMU_VERSION";

/// What follows `qemu-img snapshot`, as it was written: it is read by getopt's rules, not by clap's, with the options that
/// clap's definition has.
#[derive(Debug, Default)]
pub struct Arguments {
    /// The words.
    pub words: Vec<OsString>,
    /// The whole command line, of a program that was called as qemu-img.
    pub program: Option<Vec<OsString>>,
}

impl FromArgMatches for Arguments {
    fn from_arg_matches(_: &ArgMatches) -> std::result::Result<Self, clap::Error> {
        Ok(Self::default())
    }

    fn update_from_arg_matches(&mut self, _: &ArgMatches) -> std::result::Result<(), clap::Error> {
        Ok(())
    }
}

impl clap::Args for Arguments {
    fn augment_args(command: Command) -> Command {
        command
            .args(ACTIONS.map(action))
            .args(SWITCHES.map(switch))
            .args(IGNORED.map(ignored))
            .arg(release())
            .arg(file())
            .override_usage(USAGE)
            .after_help(AFTER_HELP)
    }

    fn augment_args_for_update(command: Command) -> Command {
        Self::augment_args(command)
    }
}

const AFTER_HELP: &str = "\
Output, messages and exit codes (0 or 1) are those of the release; what the store has to add comes on lines of its own.
Called as qemu-img it passes every image that is not the store's on to the real qemu-img.

Examples:
  still qemu-img snapshot -c monday web1.raw
  still qemu-img snapshot -l web1
  still qemu-img snapshot --qemu-version 10.0 -a monday web1.raw";

const USAGE: &str = "\
still qemu-img snapshot [OPTIONS] [-l | -a SNAPSHOT | -c SNAPSHOT | -d SNAPSHOT] FILE";

/// Id and long form, short form, help.
type Row = (&'static str, Option<char>, &'static str);

const ACTIONS: [Row; 3] = [
    (
        "apply",
        Some('a'),
        "Put the image back to a snapshot, given by id or else by name",
    ),
    (
        "create",
        Some('c'),
        "Make a snapshot of that name; others may have it",
    ),
    (
        "delete",
        Some('d'),
        "Delete a snapshot, given as the release has it: by name from 4.0 on",
    ),
];

const SWITCHES: [Row; 3] = [
    ("list", Some('l'), "List the snapshots"),
    (
        "force-share",
        Some('U'),
        "Taken as qemu-img takes it: only with -l",
    ),
    (
        "image-opts",
        None,
        "FILE is options; its file.filename counts",
    ),
];

const IGNORED: [Row; 2] = [
    ("format", Some('f'), "Taken and not used, from 10.1 on"),
    ("object", None, "Taken and not used"),
];

fn option((id, short, help): Row) -> Arg {
    Arg::new(id).long(id).short(short).help(help)
}

fn action(row: Row) -> Arg {
    let arg = option(row).value_name("SNAPSHOT");
    arg.value_parser(clap::value_parser!(OsString))
}

fn switch(row: Row) -> Arg {
    option(row).action(ArgAction::SetTrue)
}

fn ignored(row: Row) -> Arg {
    option(row).value_name("X")
}

fn release() -> Arg {
    let help = "Behave as this QEMU release, 1.0 to 11.1 [default: 4.2]";
    let arg = option(("qemu-version", None, help)).value_name("RELEASE");
    arg.env(RELEASE).hide_env_values(true)
}

fn file() -> Arg {
    let arg = Arg::new("file").value_name("FILE");
    arg.value_hint(clap::ValueHint::FilePath)
        .value_parser(clap::value_parser!(OsString))
        .help("Image of a device, or name of a device")
}
