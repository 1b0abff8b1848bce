//! `still mount`.

use crate::context::Context;
use crate::output::escape::escape;
use crate::output::{Answer, Report, units};
use crate::report::Mounted;
use crate::{signals, size};
use clap::Args;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::{Sender, channel};
use std::time::{Duration, Instant};
use stillpoint_api::System;
use stillpoint_serve::mount::Mount;
use stillpoint_serve::{CACHE_BYTES, Shelf};
use stillpoint_store::{Error, ErrorKind, Result};

/// Longest that files that are in use keep the program from ending.
const PATIENCE: Duration = Duration::from_secs(10);

/// Arguments of `mount`.
#[derive(Debug, Args)]
#[command(after_help = "\
DIR/DEVICE/SNAPSHOT.raw is that snapshot, read-only; holes are holes. Names are percent-encoded where they must be. The program
runs until Ctrl-C, SIGTERM or fusermount3 -u DIR.

Examples:
  still mount /mnt/still
  still mount /mnt/still --allow-other --cache 1G

Then:  mount -o loop,ro /mnt/still/web1/monday.raw /mnt/web1")]
pub struct Arguments {
    /// Folder to mount on
    #[arg(value_name = "DIR")]
    folder: PathBuf,
    /// Let other users read the files too
    #[arg(long)]
    allow_other: bool,
    /// Bytes of memory for what was read and decoded, besides what the kernel keeps
    #[arg(long, value_name = "BYTES", value_parser = size::parse, default_value_t = CACHE_BYTES as u64)]
    cache: u64,
}

/// Why it ends.
enum End {
    Signal,
    Unmounted(Result<()>),
}

/// Mounts, and serves until a signal comes or somebody unmounts.
pub fn run(arguments: &Arguments, context: &Context) -> Result<Answer> {
    let (ended, end) = channel();
    stop_by_signal(ended.clone())?;
    let since = Instant::now();
    // The threads that serve the kernel use it up to the end of the process; see stillpoint_serve.
    let system: &'static System = Box::leak(Box::new(context.open()?));
    let cache = usize::try_from(arguments.cache).unwrap_or(usize::MAX);
    let shelf = Arc::new(Shelf::new(system, cache)?);
    let mut mount = Mount::new(shelf, &arguments.folder, arguments.allow_other)?;
    let mut unmounter = mount.unmounter(&arguments.folder);
    let serve = move || {
        // Nobody listens any more: the program is ending.
        let _ = ended.send(End::Unmounted(mount.serve()));
    };
    let named = std::thread::Builder::new().name("mount".into());
    let serving = named.spawn(serve);
    serving.map_err(|e| Error::io("starting a thread", e))?;
    if !context.quiet && !context.json {
        let store = escape(&context.store.display().to_string());
        let folder = escape(&arguments.folder.display().to_string());
        eprintln!("still: {store} is mounted on {folder}");
    }
    let ended = match end.recv() {
        Ok(End::Unmounted(served)) => Some(served),
        _ => {
            unmounter.unmount()?;
            match end.recv_timeout(PATIENCE) {
                Ok(End::Unmounted(served)) => Some(served),
                _ => None,
            }
        }
    };
    ended.unwrap_or_else(|| {
        Err(Error::new(ErrorKind::Busy, "unmounting")
            .at(arguments.folder.display())
            .detail("files of it are in use; their users get errors from now on"))
    })?;
    Ok(Answer::of(Mounted {
        folder: arguments.folder.display().to_string(),
        seconds: since.elapsed().as_secs_f64(),
    }))
}

fn stop_by_signal(ended: Sender<End>) -> Result<()> {
    let signals = signals::on_stop().map_err(|e| Error::io("waiting for signals", e))?;
    let pass_on = move || {
        while signals.recv().is_ok() {
            if ended.send(End::Signal).is_err() {
                return;
            }
        }
    };
    let named = std::thread::Builder::new().name("end".into());
    let started = named.spawn(pass_on);
    started
        .map(|_| ())
        .map_err(|e| Error::io("starting a thread", e))
}

impl Report for Mounted {
    fn text(&self) -> String {
        let took = units::seconds(self.seconds);
        format!("{} was mounted for {took}\n", escape(&self.folder))
    }
}
