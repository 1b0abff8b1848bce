//! `still rebuild-index`.

use crate::context::Context;
use crate::output::{Answer, Report, units};
use crate::report::Rebuilt;
use clap::Args;
use std::time::Instant;
use stillpoint_store::Result;

/// Arguments of `rebuild-index`.
#[derive(Debug, Clone, Copy, Args)]
#[command(after_help = "\
Never needed for safety: the index is a cache, and a lost or wrong one costs time, not data.

Example:
  still rebuild-index")]
pub struct Arguments {}

/// Rebuilds.
pub fn run(_arguments: Arguments, context: &Context) -> Result<Answer> {
    let _line = context.watch("rebuild-index");
    call(context).map(Answer::of)
}

fn call(context: &Context) -> Result<Rebuilt> {
    let since = Instant::now();
    let done = context.open()?.store().rebuild_index(&context.progress)?;
    let seconds = since.elapsed().as_secs_f64();
    Ok(Rebuilt {
        packs: done.packs,
        clusters: done.entries,
        seconds,
    })
}

impl Report for Rebuilt {
    fn text(&self) -> String {
        let took = units::seconds(self.seconds);
        format!(
            "indexed {} of {} in {took}\n",
            units::number_of(self.clusters, "cluster"),
            units::number_of(self.packs, "pack")
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_counts_what_it_found() {
        let rebuilt = Rebuilt {
            packs: 1,
            clusters: 2048,
            seconds: 0.25,
        };
        assert_eq!(
            rebuilt.text(),
            "indexed 2,048 clusters of 1 pack in 250 ms\n"
        );
    }
}
