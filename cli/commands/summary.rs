//! `still summary`.

use crate::commands::send::{check_stdout, to_file};
use crate::context::Context;
use crate::output::{Answer, Report, units};
use crate::report::transfer::Summarized;
use clap::Args;
use std::io::{BufWriter, Write};
use std::path::PathBuf;
use stillpoint_migrate::bundle;
use stillpoint_store::Result;

/// Arguments of `summary`.
#[derive(Debug, Args)]
#[command(after_help = "\
For `still send --for` at a store that cannot be asked: some three bytes a cluster. One cluster in some 16 million passes for
one that is here and is not; `still receive` finds it and says how to get it.

Examples:
  still summary > other.summary
  still summary --output other.summary")]
pub struct Arguments {
    /// File to write, which must not exist [default: standard output]
    #[arg(long, short, value_name = "FILE")]
    output: Option<PathBuf>,
}

/// Writes the summary.
pub fn run(arguments: &Arguments, context: &Context) -> Result<Answer> {
    let doing = "summarising the store";
    let write = |out: &mut dyn Write| {
        let out = BufWriter::with_capacity(1 << 20, out);
        bundle::write_summary(context.open()?.store(), out, &context.progress)
    };
    let Some(file) = &arguments.output else {
        check_stdout(doing, "the summary", context)?;
        write(&mut std::io::stdout().lock())?;
        return Ok(Answer::Raw(Vec::new()));
    };
    let written = to_file(doing, file, write)?;
    Ok(Answer::of(Summarized {
        clusters: written.clusters,
        summary_bytes: written.bytes,
    }))
}

impl Report for Summarized {
    fn text(&self) -> String {
        format!(
            "summarised {} in {}\n",
            units::number_of(self.clusters, "cluster"),
            units::size(self.summary_bytes)
        )
    }
}
