//! `still receive`.

use crate::commands::send::to_file;
use crate::context::Context;
use crate::output::escape::escape;
use crate::output::{Answer, Report, units};
use crate::report::transfer::{Carried, Received};
use clap::Args;
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufReader, Read};
use std::path::{Path, PathBuf};
use std::time::Instant;
use stillpoint_migrate::bundle::{self, Receive};
use stillpoint_migrate::wire::Taken;
use stillpoint_store::id::Hash;
use stillpoint_store::store::Store;
use stillpoint_store::{Error, ErrorKind, Result};

/// Arguments of `receive`.
#[derive(Debug, Args)]
#[command(after_help = "\
All snapshots of the bundle are there at once, or none is. Those that are there already are passed over, so that receiving
again is safe, and goes on where it was cut off. A snapshot whose id is taken on its device gets the next free one.

Examples:
  still receive monday.bundle
  ssh other still send web1@monday | still receive
  still receive monday.bundle --as web1=old-web1")]
pub struct Arguments {
    /// Bundle to receive; - is standard input
    #[arg(value_name = "FILE", default_value = "-")]
    file: PathBuf,
    /// Another name for a device that is new here; may be given again
    #[arg(long = "as", value_name = "D=NAME", value_parser = rename)]
    renames: Vec<(String, String)>,
    /// Where clusters are missing, write which to this file, for `still send --for` there
    #[arg(long, value_name = "FILE")]
    need: Option<PathBuf>,
}

/// Reads `OLD=NEW`.
pub fn rename(text: &str) -> std::result::Result<(String, String), String> {
    let (old, new) = text.split_once('=').ok_or("it is not D=NAME")?;
    if old.is_empty() || new.is_empty() {
        return Err("a name is empty".into());
    }
    Ok((old.into(), new.into()))
}

/// Receives.
pub fn run(arguments: &Arguments, context: &Context) -> Result<Answer> {
    let _line = context.watch("receive");
    let since = Instant::now();
    let system = context.open()?;
    let receive = Receive {
        renames: arguments
            .renames
            .iter()
            .cloned()
            .collect::<BTreeMap<_, _>>(),
    };
    let from = open(&arguments.file)?;
    match bundle::receive(system.store(), &receive, from, &context.progress)? {
        bundle::Received::Whole(outcome) => Ok(Answer::of(Received {
            snapshots: outcome.snapshots.iter().map(carried).collect(),
            already: outcome.already,
            clusters: outcome.clusters,
            stored_bytes: outcome.stored_bytes,
            seconds: since.elapsed().as_secs_f64(),
        })),
        bundle::Received::Lacking { needed, count } => Err(lacking(
            system.store(),
            &needed,
            count,
            arguments.need.as_deref(),
        )?),
    }
}

fn open(path: &Path) -> Result<Box<dyn Read + Send>> {
    if path == Path::new("-") {
        return Ok(Box::new(BufReader::with_capacity(
            1 << 20,
            std::io::stdin(),
        )));
    }
    let file =
        File::open(path).map_err(|e| Error::io("opening the bundle", e).at(path.display()))?;
    Ok(Box::new(BufReader::with_capacity(1 << 20, file)))
}

/// Says what is missing and what to do about it.
fn lacking(store: &Store, needed: &[Hash], count: u64, need: Option<&Path>) -> Result<Error> {
    let why = format!(
        "{} are neither here nor in the bundle, so none of its snapshots is here; what it had is kept",
        units::number_of(count, "cluster")
    );
    let error = Error::new(ErrorKind::Refused, "receiving the bundle").detail(why);
    let Some(path) = need else {
        return Ok(error.hint(
            "`still receive --need FILE` with this bundle writes which; `still send ... --for FILE` \
             sends them",
        ));
    };
    to_file("writing what is needed", path, |out| {
        bundle::write_need(store, needed, out)
    })?;
    let path = path.display();
    Ok(error.hint(format!(
        "send the same snapshots with --for {path}, and receive that bundle"
    )))
}

/// A snapshot that came or went.
pub fn carried(taken: &Taken) -> Carried {
    Carried {
        device: taken.device.clone(),
        id: stillpoint_api::text(&taken.id),
        name: stillpoint_api::text(&taken.name),
        uid: Some(taken.uid.to_string()),
        id_before: taken.renumbered.as_deref().map(stillpoint_api::text),
    }
}

/// A line a snapshot.
pub fn lines(what: &str, snapshots: &[Carried]) -> String {
    let line = |s: &Carried| {
        let id = match &s.id_before {
            None => String::new(),
            Some(before) => format!(" as id {} (it was {})", escape(&s.id), escape(before)),
        };
        format!("{what} {}@{}{id}\n", escape(&s.device), escape(&s.name))
    };
    snapshots.iter().map(line).collect()
}

/// What an outcome says of what was there already.
pub fn already(outcome: u64) -> String {
    if outcome == 0 {
        String::new()
    } else {
        format!(", {} there already", units::number_of(outcome, "snapshot"))
    }
}

impl Report for Received {
    fn text(&self) -> String {
        format!(
            "{}received {}: {} new, {} stored in {}{}\n",
            lines("received", &self.snapshots),
            units::number_of(self.snapshots.len() as u64, "snapshot"),
            units::number_of(self.clusters, "cluster"),
            units::size(self.stored_bytes),
            units::seconds(self.seconds),
            already(self.already)
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_device_is_given_another_name_by_both() {
        assert_eq!(rename("a=b").unwrap(), ("a".into(), "b".into()));
        assert!(rename("a").is_err() && rename("=b").is_err() && rename("a=").is_err());
    }

    #[test]
    fn a_snapshot_with_another_id_is_told() {
        let carried = Carried {
            device: "web1".into(),
            id: "7".into(),
            name: "monday".into(),
            uid: None,
            id_before: Some("3".into()),
        };
        let text = "received web1@monday as id 7 (it was 3)\n";
        assert_eq!(lines("received", &[carried]), text);
    }
}
