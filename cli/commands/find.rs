//! `still find`.

use crate::commands::{list, not_wired};
use crate::context::Context;
use crate::output::escape::escape;
use crate::output::{Answer, Report};
use crate::report::Found;
use clap::Args;
use stillpoint_store::Result;

/// Arguments of `find`.
#[derive(Debug, Args)]
#[command(after_help = "\
Example:
  still find monday")]
pub struct Arguments {
    /// Name of the snapshot, name:N or id:N
    #[arg(value_name = "SNAP")]
    snapshot: String,
}

/// Finds.
pub fn run(arguments: &Arguments, context: &Context) -> Result<Answer> {
    call(&arguments.snapshot, context).map(Answer::of)
}

fn call(_snapshot: &str, context: &Context) -> Result<Found> {
    not_wired(context)
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
