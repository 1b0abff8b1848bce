//! `still sync`.

mod peer;
mod place;

pub use peer::{Verb as Peer, run as run_peer};

use crate::commands::receive::{already, carried, lines, rename};
use crate::context::Context;
use crate::output::escape::escape;
use crate::output::{Answer, Report, units};
use crate::report::transfer::Synced;
use clap::Args;
use peer::Remote;
use place::Place;
use std::collections::BTreeSet;
use std::path::Path;
use std::time::Instant;
use stillpoint_api::{SnapshotRef, System};
use stillpoint_migrate::sync::{self, Give, Take};
use stillpoint_migrate::wire::Consent;
use stillpoint_migrate::wire::message::Plan;
use stillpoint_store::progress::Progress;
use stillpoint_store::{Error, ErrorKind, Result};

/// Arguments of `sync`.
#[derive(Debug, Args)]
#[command(after_help = "\
SRC and DST are folders of stores, or ssh:HOST:PATH for one on another host, which has still; one of the two is here.
Devices and snapshots are the same in both by their uids. It may be interrupted at any moment and repeated: what has arrived
is not sent again, unless a gc came between. STILL_SSH is the command that runs others there (ssh), STILL_REMOTE the
program's name there (still).

Examples:
  still sync /srv/stillpoint ssh:backup:/srv/stillpoint
  still sync ssh:web:/srv/stillpoint . web1 db1@monday
  still sync /srv/stillpoint /mnt/usb/stillpoint --mirror --dry-run")]
pub struct Arguments {
    /// Store to take from
    #[arg(value_name = "SRC")]
    source: String,
    /// Store to bring to; it must exist
    #[arg(value_name = "DST")]
    destination: String,
    /// Devices with all their snapshots, or single snapshots [default: everything]
    #[arg(value_name = "D[@SNAP]")]
    targets: Vec<String>,
    /// Also delete snapshots of these devices that only the destination has
    #[arg(long)]
    mirror: bool,
    /// Only say what would be done
    #[arg(long)]
    dry_run: bool,
    /// Another name for a device that is new there; may be given again
    #[arg(long = "as", value_name = "D=NAME", value_parser = rename)]
    renames: Vec<(String, String)>,
}

/// Syncs.
pub fn run(arguments: &Arguments, context: &Context) -> Result<Answer> {
    let _line = context.watch("sync");
    let since = Instant::now();
    let (source, destination) = (
        Place::parse(&arguments.source)?,
        Place::parse(&arguments.destination)?,
    );
    let give = Give {
        targets: arguments.targets.clone(),
        mirror: arguments.mirror,
        dry_run: arguments.dry_run,
        window_max: None,
    };
    let plan = Plan {
        mirror: give.mirror,
        dry_run: give.dry_run,
    };
    if give.mirror && give.targets.iter().any(|target| target.contains('@')) {
        return Err(Error::invalid(
            "syncing",
            "--mirror is for devices as a whole, not for single snapshots",
        ));
    }
    let take = Take {
        renames: arguments.renames.iter().cloned().collect(),
        consent: Consent::Only(plan),
        only: asked(&give.targets)?,
    };
    let done = match (&source, &destination) {
        (Place::Here(from), Place::Here(to)) => here(from, to, &give, take, context),
        (Place::Here(from), Place::There { host, path }) => {
            let system = context.open_at(from)?;
            let words = peer::take_words(&take.renames);
            let (remote, out, back) = Remote::start(host, path, &words)?;
            let sent = sync::give(system.store(), &give, out, back, &context.progress);
            remote.end(sent)
        }
        (Place::There { host, path }, Place::Here(to)) => {
            let system = context.open_at(to)?;
            let words = peer::give_words(&give);
            let (remote, out, back) = Remote::start(host, path, &words)?;
            let taken = sync::take(system.store(), take, out, back, &context.progress);
            remote.end(taken)
        }
        (Place::There { .. }, Place::There { .. }) => Err(Error::invalid(
            "syncing",
            "one of the two stores must be on this host",
        )
        .hint("run the sync on the other host")),
    }?;
    Ok(Answer::of(Synced {
        source: arguments.source.clone(),
        destination: arguments.destination.clone(),
        dry_run: arguments.dry_run,
        snapshots: done.outcome.snapshots.iter().map(carried).collect(),
        already: done.outcome.already,
        deleted: done.outcome.deleted.iter().map(carried).collect(),
        clusters: done.outcome.clusters,
        stored_bytes: done.outcome.stored_bytes,
        sent_bytes: done.sent_bytes,
        asked_bytes: done.asked_bytes,
        hops: u64::from(done.hops),
        seconds: since.elapsed().as_secs_f64(),
    }))
}

/// The devices of the targets.
fn asked(targets: &[String]) -> Result<BTreeSet<String>> {
    let device = |target: &String| Ok(SnapshotRef::parse(target)?.device);
    targets.iter().map(device).collect()
}

/// Both on this host: the same over two pipes.
fn here(
    from: &Path,
    to: &Path,
    give: &Give,
    take: Take,
    context: &Context,
) -> Result<sync::Report> {
    let (source, destination) = (context.open_at(from)?, context.open_at(to)?);
    if source.store().id() == destination.store().id() {
        let why = "both are the same store, or one is a copy of the other";
        return Err(Error::new(ErrorKind::Refused, "syncing").detail(why));
    }
    let pipe = || std::io::pipe().map_err(|e| Error::io("making a pipe", e));
    let ((wants, asks), (frames, sends)) = (pipe()?, pipe()?);
    let taking = |system: &System| {
        // Only one of the two counts for the screen.
        let idle = Progress::default();
        sync::take(system.store(), take, frames, asks, &idle)
    };
    std::thread::scope(|scope| {
        let taker = scope.spawn(|| taking(&destination));
        let given = sync::give(source.store(), give, wants, sends, &context.progress);
        let taken = taker.join().map_err(|_| {
            Error::new(ErrorKind::Poisoned, "receiving snapshots").detail("it panicked")
        })?;
        // Of two errors that of the sender has the receiver's in it.
        given.and_then(|given| taken.map(|_| given))
    })
}

impl Report for Synced {
    fn is_answer(&self) -> bool {
        self.dry_run
    }

    fn text(&self) -> String {
        let (bring, delete, wire) = if self.dry_run {
            ("would bring", "would delete", "asked for")
        } else {
            ("brought", "deleted", "sent")
        };
        let bytes = if self.dry_run {
            self.asked_bytes
        } else {
            self.sent_bytes
        };
        format!(
            "{}{}{bring} {} to {}: {} lacking, {} {wire} in {}{}\n",
            lines(bring, &self.snapshots),
            lines(delete, &self.deleted),
            units::number_of(self.snapshots.len() as u64, "snapshot"),
            escape(&self.destination),
            units::number_of(self.clusters, "cluster"),
            units::size(bytes),
            units::seconds(self.seconds),
            already(self.already)
        )
    }
}
