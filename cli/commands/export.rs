//! `still export`.

use crate::commands::only_raw;
use crate::context::Context;
use crate::output::escape::escape;
use crate::output::{Answer, Report, units};
use crate::report::Exported;
use clap::Args;
use std::io::IsTerminal;
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;
use std::time::Instant;
use stillpoint_api::Output;
use stillpoint_store::{Error, ErrorKind, Result};

/// Arguments of `export`.
#[derive(Debug, Args)]
#[command(after_help = "\
Every cluster is checked against its hash before it is written; holes stay holes.

Examples:
  still export web1@monday web1.raw
  still export web1@monday - | zstd > web1.raw.zst")]
pub struct Arguments {
    /// Device, or snapshot of a device
    #[arg(value_name = "D[@SNAP]")]
    target: String,
    /// Image to write, which must not exist; - is standard output
    file: PathBuf,
    /// Format of the image; raw is the only one so far
    #[arg(long, value_name = "F", default_value = "raw")]
    format: String,
    /// Snapshots to put into the image itself: all or names; raw images hold none
    #[arg(long, value_name = "all|NAME,...", value_delimiter = ',')]
    snapshots: Vec<String>,
}

/// Exports.
pub fn run(arguments: &Arguments, context: &Context) -> Result<Answer> {
    let doing = "exporting";
    only_raw(doing, &arguments.format)?;
    if !arguments.snapshots.is_empty() {
        return Err(Error::new(ErrorKind::Unsupported, doing)
            .detail("a raw image cannot hold snapshots")
            .hint("export each of them to a file of its own"));
    }
    let to_stdout = arguments.file == Path::new("-");
    if to_stdout && context.json {
        return Err(Error::invalid(
            doing,
            "the image and --json both want standard output",
        ));
    }
    if to_stdout && std::io::stdout().is_terminal() {
        return Err(Error::invalid(doing, "standard output is a terminal")
            .hint("give a file, or pipe the image to a program"));
    }
    let _line = context.watch("export");
    if to_stdout {
        stream(&arguments.target, context)?;
        return Ok(Answer::Raw(Vec::new()));
    }
    call(&arguments.target, &arguments.file, context).map(Answer::of)
}

fn call(target: &str, file: &Path, context: &Context) -> Result<Exported> {
    let since = Instant::now();
    let done = context
        .open()?
        .export(target, Output::File(file), &context.progress)?;
    Ok(Exported {
        target: target.into(),
        file: file.display().to_string(),
        format: "raw".into(),
        size_bytes: done.content.size,
        written_bytes: context.progress.bytes_done.load(Ordering::Relaxed),
        seconds: since.elapsed().as_secs_f64(),
    })
}

fn stream(target: &str, context: &Context) -> Result<()> {
    let mut out = std::io::stdout().lock();
    context
        .open()?
        .export(target, Output::Stream(&mut out), &context.progress)?;
    Ok(())
}

impl Report for Exported {
    fn text(&self) -> String {
        let took = units::seconds(self.seconds);
        format!(
            "exported {} to {}: {}, {} written in {took}\n",
            escape(&self.target),
            escape(&self.file),
            units::size(self.size_bytes),
            units::size(self.written_bytes)
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_says_what_went_where() {
        let exported = Exported {
            target: "web1@monday".into(),
            file: "web1.raw".into(),
            format: "raw".into(),
            size_bytes: 4 << 30,
            written_bytes: 1 << 30,
            seconds: 61.0,
        };
        assert_eq!(
            exported.text(),
            "exported web1@monday to web1.raw: 4.0 GiB, 1.0 GiB written in 1 min 1 s\n"
        );
    }
}
