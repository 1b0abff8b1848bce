//! `still gc`.

use crate::context::Context;
use crate::output::{Answer, Report, units};
use crate::report::Collected;
use clap::Args;
use std::time::Instant;
use stillpoint_store::Result;
use stillpoint_store::ops::gc::Options;

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

fn call(all: bool, dry_run: bool, context: &Context) -> Result<Collected> {
    let since = Instant::now();
    let done = context
        .open()?
        .store()
        .gc(Options { all, dry_run }, &context.progress)?;
    Ok(Collected {
        dry_run,
        packs_dropped: done.dead_packs + done.orphans,
        packs_rewritten: done.rewritten_packs,
        copied_bytes: done.bytes_copied,
        freed_bytes: done.bytes_before.saturating_sub(done.bytes_after) + done.orphan_bytes,
        dead_bytes: done.bytes_dead,
        pinned_bytes: done.bytes_spared,
        stored_bytes: done.bytes_after,
        seconds: since.elapsed().as_secs_f64(),
    })
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
