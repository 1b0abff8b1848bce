//! The program at the other end of a sync: how it is started, and what it does there.

use crate::commands::receive::rename;
use crate::context::Context;
use crate::exit;
use crate::output::Answer;
use clap::{Args, Subcommand};
use std::collections::BTreeMap;
use std::fs::File;
use std::os::fd::AsFd;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use stillpoint_migrate::sync::{self, Give, Report, Take};
use stillpoint_migrate::wire::Consent;
use stillpoint_store::{Error, ErrorKind, Result};

/// Which end this is.
#[derive(Debug, Subcommand)]
#[command(after_help = "\
Started by still sync, which speaks with it over standard input and output.

Example:
  still sync-peer take")]
pub enum Verb {
    /// Receive
    Take(TakeArguments),
    /// Send
    Give(GiveArguments),
}

/// Arguments of `sync-peer take`.
#[derive(Debug, Args)]
pub struct TakeArguments {
    /// Another name for a device
    #[arg(long = "as", value_name = "D=NAME", value_parser = rename)]
    renames: Vec<(String, String)>,
}

/// Arguments of `sync-peer give`.
#[derive(Debug, Args)]
pub struct GiveArguments {
    /// Devices and snapshots
    targets: Vec<String>,
    /// Delete there what is not here
    #[arg(long)]
    mirror: bool,
    /// Only say what would be done
    #[arg(long)]
    dry_run: bool,
}

/// The words that start the other end where this one sends.
pub fn take_words(renames: &BTreeMap<String, String>) -> Vec<String> {
    let words = renames.iter().map(|(old, new)| format!("--as={old}={new}"));
    std::iter::once("take".into()).chain(words).collect()
}

/// The words that start the other end where this one receives.
pub fn give_words(give: &Give) -> Vec<String> {
    let mut words = vec!["give".to_owned()];
    words.extend(give.mirror.then(|| "--mirror".into()));
    words.extend(give.dry_run.then(|| "--dry-run".into()));
    words.push("--".into());
    words.extend(give.targets.iter().cloned());
    words
}

/// Speaks with the sync that started this.
pub fn run(verb: &Verb, context: &Context) -> Result<Answer> {
    let system = context.open()?;
    let dup = |fd: std::os::fd::BorrowedFd<'_>| fd.try_clone_to_owned().map(File::from);
    // Not through the buffers of std, which look for line ends.
    let from = dup(std::io::stdin().as_fd()).map_err(|e| Error::io("opening standard input", e))?;
    let to = dup(std::io::stdout().as_fd()).map_err(|e| Error::io("opening standard output", e))?;
    let done = match verb {
        Verb::Take(arguments) => {
            let take = Take {
                renames: arguments.renames.iter().cloned().collect(),
                consent: Consent::Any,
                ..Take::default()
            };
            sync::take(system.store(), take, from, to, &context.progress)
        }
        Verb::Give(arguments) => {
            let give = Give {
                targets: arguments.targets.clone(),
                mirror: arguments.mirror,
                dry_run: arguments.dry_run,
                window_max: None,
            };
            sync::give(system.store(), &give, from, to, &context.progress)
        }
    };
    // What went wrong was told to the other end, which tells the user.
    Ok(Answer::Program {
        out: Vec::new(),
        err: Vec::new(),
        exit: done.map_or_else(|e| exit::of(&e), |_| exit::Exit::Done),
    })
}

/// A program that was started on another host.
pub struct Remote {
    child: Child,
    what: String,
}

impl Remote {
    /// Starts it. The command and the program's name there come from the environment.
    pub fn start(
        host: &str,
        path: &str,
        words: &[String],
    ) -> Result<(Self, ChildStdout, ChildStdin)> {
        let ssh = std::env::var("STILL_SSH").unwrap_or_else(|_| "ssh".into());
        let program = std::env::var("STILL_REMOTE").unwrap_or_else(|_| "still".into());
        let mut parts = ssh.split_whitespace();
        let no_command = || Error::invalid("reading STILL_SSH", "it names no command");
        let mut command = Command::new(parts.next().ok_or_else(no_command)?);
        let line: Vec<String> = words.iter().map(|word| quoted(word)).collect();
        let line = format!(
            "{program} --store {} sync-peer {}",
            quoted(path),
            line.join(" ")
        );
        command.args(parts).arg(host).arg(line);
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let what = format!("{ssh} {host} {program}");
        let failed = |e| Error::io(format!("running {what}"), e);
        let mut child = command.spawn().map_err(failed)?;
        let none = || Error::new(ErrorKind::Io, "running the other side").detail("it has no pipes");
        let from = child.stdout.take().ok_or_else(none)?;
        let to = child.stdin.take().ok_or_else(none)?;
        Ok((Self { child, what }, from, to))
    }

    /// Waits for it. Where the stream was cut off, its own end says more.
    pub fn end(mut self, done: Result<Report>) -> Result<Report> {
        let status = self
            .child
            .wait()
            .map_err(|e| Error::io("waiting for the other side", e))?;
        done.map_err(|error| {
            let cut = matches!(error.kind(), ErrorKind::Corrupt | ErrorKind::Io);
            if !cut || status.success() || error.to_string().starts_with("the other side") {
                return error;
            }
            Error::new(ErrorKind::Io, format!("running {}", self.what))
                .detail(format!("it ended early: {status}"))
                .source(error)
                .hint("if it said why, that stands above; do it again, what has arrived is kept")
        })
    }
}

/// A word for the shell there.
fn quoted(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./=@:,+".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        return word.into();
    }
    format!("'{}'", word.replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_reach_the_other_side_as_they_are() {
        assert_eq!(quoted("/srv/a-1"), "/srv/a-1");
        assert_eq!(quoted("a b"), "'a b'");
        assert_eq!(quoted("it's; rm"), r"'it'\''s; rm'");
        assert_eq!(quoted(""), "''");
    }
}
