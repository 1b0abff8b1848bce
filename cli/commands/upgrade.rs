//! `still upgrade`.

use crate::context::Context;
use crate::output::{Answer, Report};
use crate::report::transfer::Upgraded;
use clap::Args;
use std::sync::Arc;
use stillpoint_migrate::upgrade::{Folder, walk};
use stillpoint_store::Result;
use stillpoint_store::disk::real::RealDisk;

/// Arguments of `upgrade`.
#[derive(Debug, Clone, Copy, Args)]
#[command(after_help = "\
There is only version 1 so far: nothing is to be done, and a store of a later version is refused with what to do.

Example:
  still upgrade --dry-run")]
pub struct Arguments {
    /// Only say what would be done
    #[arg(long)]
    dry_run: bool,
}

/// Upgrades.
pub fn run(arguments: Arguments, context: &Context) -> Result<Answer> {
    let folder = Folder {
        disk: Arc::new(RealDisk),
        path: context.store.clone(),
    };
    let walked = if arguments.dry_run {
        walk().plan(&folder)?
    } else {
        walk().run(&folder, &context.progress)?
    };
    Ok(Answer::of(Upgraded {
        from: walked.from,
        to: walked.to,
        steps: walked.steps.iter().map(ToString::to_string).collect(),
    }))
}

impl Report for Upgraded {
    fn text(&self) -> String {
        if self.steps.is_empty() {
            return format!("the store is of format version {}, the newest\n", self.to);
        }
        let steps = self.steps.join("; ");
        format!(
            "from format version {} to {}: {steps}\n",
            self.from, self.to
        )
    }
}
