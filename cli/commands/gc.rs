//! `still gc`.

use crate::commands::not_wired;
use crate::context::Context;
use crate::output::{Answer, Report, units};
use crate::report::Collected;
use clap::Args;
use stillpoint_store::Result;

/// Arguments of `gc`.
#[derive(Debug, Clone, Copy, Args)]
#[command(after_help = "\
Blocks nobody: snapshots can be made and read meanwhile. Afterwards at most a tenth of the packs' bytes are dead.

Example:
  still gc --dry-run")]
pub struct Arguments {
    /// Leave nothing dead, however much must be copied for it
    #[arg(long)]
    all: bool,
    /// Only say what would be done
    #[arg(long)]
    dry_run: bool,
}

/// Collects.
pub fn run(arguments: Arguments, context: &Context) -> Result<Answer> {
    let _line = context.watch("gc");
    call(arguments.all, arguments.dry_run, context).map(Answer::of)
}

fn call(_all: bool, _dry_run: bool, context: &Context) -> Result<Collected> {
    not_wired(context)
}

impl Report for Collected {
    fn is_answer(&self) -> bool {
        self.dry_run
    }

    fn text(&self) -> String {
        let (drop, rewrite, free) = if self.dry_run {
            ("would drop", "would rewrite", "would free")
        } else {
            ("dropped", "rewrote", "freed")
        };
        let took = units::seconds(self.seconds);
        let mut text = format!(
            "{drop} {}, {rewrite} {} ({} copied)\n{free} {} in {took}; {} stored, {} of it dead\n",
            units::number_of(self.packs_dropped, "pack"),
            units::number_of(self.packs_rewritten, "pack"),
            units::size(self.copied_bytes),
            units::size(self.freed_bytes),
            units::size(self.stored_bytes),
            units::size(self.dead_bytes),
        );
        if self.pinned_bytes > 0 {
            text.push_str(&units::size(self.pinned_bytes));
            text.push_str(" are kept for readers and writers at work\n");
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_kept_for_others_is_said() {
        let collected = Collected {
            dry_run: true,
            packs_dropped: 1,
            packs_rewritten: 2,
            copied_bytes: 1 << 20,
            freed_bytes: 3 << 20,
            dead_bytes: 0,
            pinned_bytes: 512,
            stored_bytes: 1 << 30,
            seconds: 0.0,
        };
        assert_eq!(
            collected.text(),
            "would drop 1 pack, would rewrite 2 packs (1.0 MiB copied)\n\
             would free 3.0 MiB in 0 ms; 1.0 GiB stored, 0 B of it dead\n\
             512 B are kept for readers and writers at work\n"
        );
    }
}
