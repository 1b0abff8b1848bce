//! `still export`.

use crate::commands::only_raw;
use crate::context::Context;
use crate::output::escape::escape;
use crate::output::{Answer, Report, units};
use crate::report::Exported;
use crate::server::Server;
use clap::Args;
use serde_json::json;
use std::io::IsTerminal;
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;
use std::time::Instant;
use stillpoint_api::Output;
use stillpoint_store::{Error, ErrorKind, Result};

const DOING: &str = "exporting";

/// Arguments of `export`.
#[derive(Debug, Args)]
#[command(after_help = "\
Every cluster is checked against its hash before it is written; holes stay holes.

Examples:
  still export web1@monday web1.raw
  still export web1@monday - | zstd > web1.raw.zst
  still export --vm-state web1@paused ram.bin")]
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
    /// Write the snapshot's saved VM state instead of its disk
    #[arg(long)]
    vm_state: bool,
}

/// Exports.
pub fn run(arguments: &Arguments, context: &Context) -> Result<Answer> {
    let doing = DOING;
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
        let mut out = std::io::stdout().lock();
        export(arguments, Output::Stream(&mut out), context)?;
        return Ok(Answer::Raw(Vec::new()));
    }
    call(arguments, context).map(Answer::of)
}

fn call(arguments: &Arguments, context: &Context) -> Result<Exported> {
    let since = Instant::now();
    let done = export(arguments, Output::File(&arguments.file), context)?;
    Ok(Exported {
        target: arguments.target.clone(),
        part: if arguments.vm_state {
            "vm_state"
        } else {
            "disk"
        },
        file: arguments.file.display().to_string(),
        format: "raw".into(),
        size_bytes: done.content.size,
        written_bytes: context.progress.bytes_done.load(Ordering::Relaxed),
        seconds: since.elapsed().as_secs_f64(),
    })
}

fn export(
    arguments: &Arguments,
    output: Output<'_>,
    context: &Context,
) -> Result<stillpoint_api::Exported> {
    let system = context.open()?;
    let (target, progress) = (&arguments.target, &context.progress);
    let named = std::slice::from_ref(target);
    // A volume as it is now: the server that has it open stores first what was written to it.
    if !arguments.vm_state
        && let Some(mut server) = Server::of_volumes(&context.store, &system, named)?
    {
        let absorbed = json!({ "device": target });
        server.execute("x-stillpoint-volume-absorb", absorbed)?;
        let head = system.device(target)?.head;
        let head = head.ok_or_else(|| Error::invalid(DOING, "nothing was ever written to it"))?;
        return system.export_content(head, output, progress);
    }
    if arguments.vm_state {
        system.export_vm_state(target, output, progress)
    } else {
        system.export(target, output, progress)
    }
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
            part: "disk",
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
