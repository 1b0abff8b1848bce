//! `still import`.

use crate::commands::only_raw;
use crate::context::Context;
use crate::output::Answer;
use crate::report::Created;
use crate::views;
use clap::Args;
use std::path::PathBuf;
use std::time::Instant;
use stillpoint_api::Import;
use stillpoint_store::{Error, ErrorKind, Result};

/// Arguments of `import`.
#[derive(Debug, Args)]
#[command(after_help = "\
Example:
  still import golden.raw --device golden --name v1")]
pub struct Arguments {
    /// Image to read
    image: PathBuf,
    /// Name of the device to make
    #[arg(long, value_name = "D")]
    device: String,
    /// Name of the snapshot [default: the store chooses one]
    #[arg(long, value_name = "SNAP")]
    name: Option<String>,
    /// Format of the image; raw is the only one so far
    #[arg(long, value_name = "F", default_value = "raw")]
    format: String,
    /// Which of the image's own snapshots to take: all, none or names; raw images have none
    #[arg(
        long,
        value_name = "all|none|NAME,...",
        value_delimiter = ',',
        default_value = "all"
    )]
    snapshots: Vec<String>,
}

/// Imports.
pub fn run(arguments: &Arguments, context: &Context) -> Result<Answer> {
    only_raw("importing the image", &arguments.format)?;
    let all_or_none = |name: &&String| *name == "all" || *name == "none";
    if let Some(name) = arguments.snapshots.iter().find(|name| !all_or_none(name)) {
        return Err(Error::new(ErrorKind::NotFound, "importing the image")
            .at(arguments.image.display())
            .detail(format!("a raw image has no snapshot {name}")));
    }
    let _line = context.watch("import");
    call(arguments, context).map(Answer::of)
}

fn call(arguments: &Arguments, context: &Context) -> Result<Created> {
    let since = Instant::now();
    let import = Import {
        image: &arguments.image,
        device: &arguments.device,
        name: arguments.name.as_deref(),
    };
    let made = context.open()?.import(&import, &context.progress)?;
    Ok(views::created(&made, since))
}
