//! What `qemu-img snapshot` says before it comes to an image, by release.

use crate::arguments::Cli;
use crate::exit::Exit;
use crate::output::Answer;
use clap::CommandFactory;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use stillpoint_api::compat::Flags;
use stillpoint_api::compat::eras::ImgUsage;

/// Why a command line cannot be meant.
#[derive(Debug, PartialEq, Eq)]
pub enum Usage {
    /// It asks for help.
    Help,
    /// Two actions.
    Mixed,
    /// No file, or several.
    NotOneFile,
    /// An option that there is not, as it was written.
    Unknown(String),
    /// An option without its argument, as it was written.
    Missing(String),
}

/// The help text, on standard output.
pub fn help(exit: Exit, err: Vec<u8>) -> Answer {
    let mut cli = Cli::command();
    cli.build();
    let text = ["qemu-img", "snapshot"]
        .iter()
        .try_fold(&mut cli, |c, name| c.find_subcommand_mut(name))
        .map(|c| c.render_long_help().to_string());
    Answer::Program {
        out: text.unwrap_or_default().into_bytes(),
        err,
        exit,
    }
}

/// A line on standard error, exit code 1.
pub fn failed(line: &[u8]) -> Answer {
    Answer::Program {
        out: Vec::new(),
        err: [b"qemu-img: ", line, b"\n"].concat(),
        exit: Exit::Failed,
    }
}

/// Refuses a command line as the release did.
pub fn usage(flags: &Flags, usage: &Usage) -> Answer {
    let own = match usage {
        Usage::Help => return help(Exit::Done, Vec::new()),
        Usage::Mixed | Usage::NotOneFile if !flags.img_mix_message => {
            return help(Exit::Failed, Vec::new());
        }
        Usage::Mixed => "Cannot mix '-l', '-a', '-c', '-d'".to_owned(),
        Usage::NotOneFile => "Expecting one image file name".to_owned(),
        Usage::Unknown(option) => format!("unrecognized option '{option}'"),
        Usage::Missing(option) => format!("missing argument for option '{option}'"),
    };
    match flags.img_usage {
        ImgUsage::HelpFails | ImgUsage::HelpSucceeds => match getopt(usage) {
            None => tried(&format!("qemu-img: {own}"), INFORMATION),
            Some(line) => {
                let fails = flags.img_usage == ImgUsage::HelpFails;
                let exit = if fails { Exit::Failed } else { Exit::Done };
                help(exit, format!("snapshot: {line}\n").into_bytes())
            }
        },
        ImgUsage::Own => tried(&format!("qemu-img: {own}"), INFORMATION),
        ImgUsage::Getopt => match getopt(usage) {
            None => tried(&format!("qemu-img: {own}"), INFO),
            Some(line) => tried(&format!("qemu-img snapshot: {line}"), INFO),
        },
    }
}

const INFORMATION: &str = "Try 'qemu-img --help' for more information";
const INFO: &str = "Try 'qemu-img snapshot --help' for more info";

fn tried(line: &str, hint: &str) -> Answer {
    Answer::Program {
        out: Vec::new(),
        err: format!("{line}\n{hint}\n").into_bytes(),
        exit: Exit::Failed,
    }
}

/// The C library's words, where it is the one that speaks.
fn getopt(usage: &Usage) -> Option<String> {
    let short = |option: &str| {
        option
            .strip_prefix('-')
            .filter(|o| !o.starts_with('-'))
            .map(ToOwned::to_owned)
    };
    match usage {
        Usage::Help | Usage::Mixed | Usage::NotOneFile => None,
        Usage::Unknown(option) => Some(match short(option) {
            Some(short) => format!("invalid option -- '{short}'"),
            None => format!("unrecognized option '{option}'"),
        }),
        Usage::Missing(option) => Some(match short(option) {
            Some(short) => format!("option requires an argument -- '{short}'"),
            None => format!("option '{option}' requires an argument"),
        }),
    }
}

/// That there is no such file, in the release's words.
pub fn no_such_file(flags: &Flags, file: &OsStr) -> Answer {
    let lead = could_not_open(file);
    let again = if flags.img_open_twice { &lead[..] } else { &[] };
    failed(&[&lead, again, b"No such file or directory"].concat())
}

/// That the store has no such device, or cannot be asked, for which QEMU had no words.
pub fn cannot_open(file: &OsStr, why: &str) -> Answer {
    failed(&[&could_not_open(file), why.as_bytes()].concat())
}

fn could_not_open(file: &OsStr) -> Vec<u8> {
    [b"Could not open '", file.as_bytes(), b"': "].concat()
}
