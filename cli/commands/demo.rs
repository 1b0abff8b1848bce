//! `still demo`: the whole tour, by the same code that the command line runs, in a folder that is removed afterwards.

mod disk;

use crate::arguments::Cli;
use crate::commands;
use crate::context::Context;
use crate::exit::Exit;
use crate::output::error::is_broken_pipe;
use crate::output::{Answer, Report};
use clap::{Args, Parser};
use serde::Serialize;
use serde_json::Value;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;
use stillpoint_store::{Error, Result};

/// Arguments of `demo`.
#[derive(Debug, Args)]
#[command(after_help = "\
Needs nothing but space in the temporary folder (TMPDIR): three times the image, or 400 MiB without one. The image is
only read.

Example:
  still demo")]
pub struct Arguments {
    /// Raw image to show it on [default: a made-up disk of 256 MiB]
    image: Option<PathBuf>,
}

/// What the tour ran and what came out.
#[derive(Debug, Serialize)]
struct Tour {
    steps: Vec<Step>,
}

#[derive(Debug, Serialize)]
struct Step {
    /// The command line, or what a guest did.
    command: String,
    /// Its report; null for what is no command.
    report: Value,
}

/// Gives the tour.
pub fn run(arguments: &Arguments, context: &Context) -> Result<Answer> {
    let folder = tempfile::tempdir().map_err(|e| Error::io("making a folder for the demo", e))?;
    let mut guide = Guide {
        folder: folder.path(),
        context,
        tour: Tour { steps: Vec::new() },
    };
    match guide.all(arguments.image.as_deref()) {
        // The reader has seen enough of the tour.
        Err(error) if is_broken_pipe(&error) => Ok(Answer::Raw(Vec::new())),
        Err(error) => Err(error),
        Ok(()) => Ok(Answer::of(guide.tour)),
    }
}

struct Guide<'a> {
    folder: &'a Path,
    context: &'a Context,
    tour: Tour,
}

impl Guide<'_> {
    fn all(&mut self, image: Option<&Path>) -> Result<()> {
        let (web1, web2) = (self.folder.join("web1.raw"), self.folder.join("web2.raw"));
        match image {
            Some(image) => disk::copy(image, &web1)?,
            None => disk::make(&web1)?,
        }
        disk::copy(&web1, &web2)?;
        disk::change(&web2, 2)?;
        self.say(
            "two disks: web1.raw, and web2.raw, a clone of it in which 1 % has changed since",
        )?;
        self.still("init")?;
        self.still("device add web1 web1.raw")?;
        self.still("device add web2 web2.raw")?;
        self.still("create monday")?;
        let monday = [disk::hash(&web1)?, disk::hash(&web2)?];

        self.say("the guests work on: another 1 % of each disk changes")?;
        disk::change(&web1, 3)?;
        disk::change(&web2, 4)?;
        self.still("create tuesday")?;
        self.still("list")?;
        self.still("diff web1@monday web1@tuesday")?;

        self.say("tuesday went wrong: both disks go back, and only what differs is written")?;
        self.still("goto monday")?;
        self.check("web1.raw", monday[0], "it was on monday")?;
        self.check("web2.raw", monday[1], "it was on monday")?;

        self.still("export web1@monday restored.raw")?;
        self.check("restored.raw", monday[0], "web1.raw was on monday")?;
        self.still("verify")?;
        self.still("delete tuesday")?;
        self.still("gc")?;
        self.still("stats")
    }

    /// Runs one command line. Names of files in it lie in the demo's folder.
    fn still(&mut self, line: &str) -> Result<()> {
        self.print(&format!("$ still {line}\n"))?;
        let inside = |word: &str| {
            let is_image = Path::new(word).extension().is_some();
            if is_image {
                self.folder.join(word).into_os_string()
            } else {
                word.into()
            }
        };
        let words = std::iter::once("still".into()).chain(line.split(' ').map(inside));
        let cli = Cli::try_parse_from(words)
            .map_err(|e| Error::invalid("giving the tour", e.to_string()))?;
        let context = Context {
            store: self.folder.join("stillpoint"),
            json: self.context.json,
            quiet: self.context.quiet,
            progress: self.context.progress.clone(),
        };
        reset(&context);
        if let Answer::Report(report) = commands::run(cli.command, &context)? {
            if report.exit() != Exit::Done {
                return Err(Error::corrupt("giving the tour", report.text()));
            }
            self.print(&report.text())?;
            let json = report
                .json()
                .map_err(|e| Error::io("making JSON", e.into()))?;
            self.tour.steps.push(Step {
                command: format!("still {line}"),
                report: json,
            });
        }
        self.print("\n")
    }

    fn say(&mut self, what: &str) -> Result<()> {
        self.tour.steps.push(Step {
            command: format!("# {what}"),
            report: Value::Null,
        });
        self.print(&format!("# {what}\n"))
    }

    fn check(&mut self, file: &str, expected: [u8; 32], what: &str) -> Result<()> {
        if disk::hash(&self.folder.join(file))? != expected {
            return Err(Error::corrupt(
                "giving the tour",
                format!("{file} is not as on monday"),
            ));
        }
        self.say(&format!("{file} is byte for byte what {what}"))?;
        self.print("\n")
    }

    fn print(&self, text: &str) -> Result<()> {
        if self.context.json || self.context.quiet {
            return Ok(());
        }
        let text = text.replace(&format!("{}/", self.folder.display()), "");
        let mut out = std::io::stdout().lock();
        out.write_all(text.as_bytes())
            .and_then(|()| out.flush())
            .map_err(|e| Error::io("writing to standard output", e))
    }
}

/// The counters are those of the whole process; each step starts from nothing.
fn reset(context: &Context) {
    let p = &context.progress;
    for counter in [
        &p.bytes_total,
        &p.bytes_done,
        &p.bytes_known,
        &p.bytes_empty,
        &p.bytes_stored,
    ] {
        counter.store(0, Ordering::Relaxed);
    }
}

impl Report for Tour {
    /// Everything was printed as it happened.
    fn text(&self) -> String {
        "That was all of it, and the folder is gone again. Next: still --help\n".into()
    }
}
