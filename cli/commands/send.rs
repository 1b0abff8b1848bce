//! `still send`.

use crate::context::Context;
use crate::output::escape::escape;
use crate::output::{Answer, Report, units};
use crate::report::transfer::{Carried, Sent};
use clap::Args;
use std::fs::File;
use std::io::{BufWriter, IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::time::Instant;
use stillpoint_migrate::bundle::{self, Send, Summary};
use stillpoint_store::{Error, Result};

/// Arguments of `send`.
#[derive(Debug, Args)]
#[command(after_help = "\
A bundle is one file with snapshots, to be received by another store of the same cluster size. With --since it holds only what
changed since a snapshot that the receiver has, with --for only what a summary of the receiver (still summary) lacks.

Examples:
  still send web1@monday > monday.bundle
  still send web1@tuesday --since web1@monday | ssh other still receive
  still send web1@monday db1@monday --for other.summary --output monday.bundle")]
pub struct Arguments {
    /// Snapshots to send
    #[arg(value_name = "D@SNAP", required = true)]
    targets: Vec<String>,
    /// Snapshot that the receiver has; may be given again
    #[arg(long, value_name = "D@SNAP")]
    since: Vec<String>,
    /// What the receiver has: a summary of its store, or what `still receive --need` wrote
    #[arg(long = "for", value_name = "SUMMARY")]
    summary: Option<PathBuf>,
    /// File to write, which must not exist [default: standard output]
    #[arg(long, short, value_name = "FILE")]
    output: Option<PathBuf>,
}

/// Sends.
pub fn run(arguments: &Arguments, context: &Context) -> Result<Answer> {
    let _line = context.watch("send");
    let since = Instant::now();
    let doing = "sending snapshots";
    let sent = if let Some(file) = &arguments.output {
        to_file(doing, file, |out| call(arguments, out, context))?
    } else {
        check_stdout(doing, "the bundle", context)?;
        call(arguments, &mut std::io::stdout().lock(), context)?
    };
    let carried = |(device, id, name): (String, Vec<u8>, Vec<u8>)| Carried {
        device,
        id: stillpoint_api::text(&id),
        name: stillpoint_api::text(&name),
        uid: None,
        id_before: None,
    };
    let report = Sent {
        snapshots: sent.snapshots.into_iter().map(carried).collect(),
        clusters: sent.clusters,
        cluster_bytes: sent.frame_bytes,
        bundle_bytes: sent.bytes,
        seconds: since.elapsed().as_secs_f64(),
    };
    if arguments.output.is_some() {
        return Ok(Answer::of(report));
    }
    if !context.quiet {
        eprint!("{}", Report::text(&report));
    }
    Ok(Answer::Raw(Vec::new()))
}

fn call(arguments: &Arguments, out: &mut dyn Write, context: &Context) -> Result<bundle::Sent> {
    let system = context.open()?;
    let send = Send {
        targets: arguments.targets.clone(),
        since: arguments.since.clone(),
        summary: arguments.summary.as_deref().map(summary).transpose()?,
        window_max: None,
    };
    let out = BufWriter::with_capacity(1 << 20, out);
    bundle::send(system.store(), &send, out, &context.progress)
}

fn summary(path: &Path) -> Result<Summary> {
    let file =
        File::open(path).map_err(|e| Error::io("opening the summary", e).at(path.display()))?;
    Summary::read(std::io::BufReader::new(file)).map_err(|e| e.at(path.display()))
}

/// Refuses to write bytes to a terminal, or beside a JSON document.
pub fn check_stdout(doing: &'static str, what: &str, context: &Context) -> Result<()> {
    if context.json {
        let why = format!("{what} and --json both want standard output");
        return Err(Error::invalid(doing, why).hint("name a file with --output"));
    }
    if std::io::stdout().is_terminal() {
        return Err(Error::invalid(doing, "standard output is a terminal")
            .hint("redirect it to a file, or name one with --output"));
    }
    Ok(())
}

/// Writes a new file, durable when this returns; an error leaves none.
pub fn to_file<T>(
    doing: &'static str,
    path: &Path,
    write: impl FnOnce(&mut dyn Write) -> Result<T>,
) -> Result<T> {
    let failed = |e| Error::io(doing, e).at(path.display());
    let mut file = File::create_new(path).map_err(failed)?;
    let written = write(&mut file).and_then(|done| {
        // The bytes, then the name.
        let synced = file.sync_all().and_then(|()| sync_folder(path));
        synced.map(|()| done).map_err(failed)
    });
    if written.is_err() {
        // What made it fail is what the caller is to hear.
        let _ = std::fs::remove_file(path);
    }
    written
}

fn sync_folder(path: &Path) -> std::io::Result<()> {
    let folder = path.parent().filter(|parent| *parent != Path::new(""));
    File::open(folder.unwrap_or(Path::new(".")))?.sync_all()
}

impl Report for Sent {
    fn text(&self) -> String {
        let names: Vec<String> = self
            .snapshots
            .iter()
            .map(|s| format!("{}@{}", escape(&s.device), escape(&s.name)))
            .collect();
        format!(
            "sent {}: {} in {}, {} of bundle in {}\n",
            names.join(", "),
            units::number_of(self.clusters, "cluster"),
            units::size(self.cluster_bytes),
            units::size(self.bundle_bytes),
            units::seconds(self.seconds)
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_says_what_the_bundle_holds() {
        let carried = Carried {
            device: "web1".into(),
            id: "1".into(),
            name: "monday".into(),
            uid: None,
            id_before: None,
        };
        let sent = Sent {
            snapshots: vec![carried],
            clusters: 2,
            cluster_bytes: 1 << 20,
            bundle_bytes: 2 << 20,
            seconds: 0.0,
        };
        let text = "sent web1@monday: 2 clusters in 1.0 MiB, 2.0 MiB of bundle in 0 ms\n";
        assert_eq!(Report::text(&sent), text);
    }
}
