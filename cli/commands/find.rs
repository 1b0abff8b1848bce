//! `still find`.

use crate::commands::list;
use crate::context::Context;
use crate::output::escape::escape;
use crate::output::{Answer, Report};
use crate::report::Found;
use crate::views;
use clap::Args;
use stillpoint_store::Result;

/// Arguments of `find`.
#[derive(Debug, Args)]
#[command(after_help = "\
Example:
  still find monday")]
pub struct Arguments {
    /// Name of the snapshot, name:N, id:N or id:N,name:N
    #[arg(value_name = "SNAP")]
    snapshot: String,
}

/// Finds.
pub fn run(arguments: &Arguments, context: &Context) -> Result<Answer> {
    call(&arguments.snapshot, context).map(Answer::of)
}

fn call(snapshot: &str, context: &Context) -> Result<Found> {
    let system = context.open()?;
    let copies = system.find(snapshot, &[])?;
    let has = |name: &String| copies.iter().any(|c| c.device == *name);
    let missing_on = system
        .devices()?
        .into_iter()
        .filter(|d| d.image.is_some())
        .map(|d| d.name)
        .filter(|n| !has(n))
        .collect();
    let snapshot = snapshot.into();
    Ok(Found {
        snapshot,
        copies: copies.iter().map(views::snapshot).collect(),
        missing_on,
    })
}

impl Report for Found {
    fn is_answer(&self) -> bool {
        true
    }

    fn text(&self) -> String {
        let mut text = list::table(&self.copies);
        if !self.missing_on.is_empty() {
            text.push_str(&escape(&format!("not on {}", self.missing_on.join(", "))));
            text.push('\n');
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn devices_without_the_snapshot_are_named() {
        let found = Found {
            snapshot: "monday".into(),
            copies: vec![list::tests::sample("monday")],
            missing_on: vec!["db".into(), "web2".into()],
        };
        assert!(
            found.text().ends_with("4.0 GiB\nnot on db, web2\n"),
            "{}",
            found.text()
        );
    }
}
