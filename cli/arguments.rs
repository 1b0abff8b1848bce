//! The command line. Every example in a help text is parsed by a test.

use crate::commands::{
    completions, create, delete, demo, device, diff, eras, export, find, gc, goto, import, init,
    list, man, mount, qemu_img, rebuild_index, receive, rescue, send, serve, show, stats, summary,
    sync, upgrade, verify, volume,
};
use clap::{Parser, Subcommand};
use std::path::PathBuf;

/// Content-addressed snapshot store for virtual-machine disks.
///
/// Disks are cut into clusters, and each cluster is stored once, compressed, under its hash. A snapshot names clusters, so it
/// costs only what changed, and every byte that comes back was checked.
#[derive(Debug, Parser)]
#[command(
    name = "still",
    version,
    max_term_width = 100,
    after_help = "\
SNAP is a snapshot's name, name:N, id:N or id:N,name:N. D@SNAP is that snapshot of device D; D alone is its head.

Exit codes: 0 done, 1 failed, 2 usage, 3 no such device or snapshot, 4 corruption found, 5 busy,
130 stopped by Ctrl-C or SIGTERM.

Example, from nothing to a snapshot of a disk:
  still init
  still device add web1 web1.raw
  still create monday"
)]
pub struct Cli {
    /// Folder of the store
    #[arg(
        long,
        global = true,
        env = "STILL_STORE",
        default_value = "./stillpoint",
        value_name = "DIR",
        hide_env_values = true
    )]
    pub store: PathBuf,
    /// Print one JSON document on standard output, errors too
    #[arg(long, global = true)]
    pub json: bool,
    /// Print answers and errors only
    #[arg(long, short, global = true)]
    pub quiet: bool,
    /// What to do
    #[command(subcommand)]
    pub command: Command,
}

/// The verbs.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Make an empty store
    Init(init::Arguments),
    /// Show the whole tour on a copy of an image, or on a made-up disk
    Demo(demo::Arguments),
    /// Add, list and remove devices, change their images
    #[command(subcommand)]
    Device(device::Verb),
    /// Snapshot all attached devices and volumes, or some, as one group
    Create(create::Arguments),
    /// List snapshots
    List(list::Arguments),
    /// Show a device or snapshot in full
    Show(show::Arguments),
    /// Say which devices have a snapshot
    Find(find::Arguments),
    /// Say where two snapshots of a device differ
    Diff(diff::Arguments),
    /// Put images or volumes back to a snapshot, writing only what differs
    Goto(goto::Arguments),
    /// Delete a snapshot on all devices that have it, or some
    Delete(delete::Arguments),
    /// Store an image as a device with one snapshot
    Import(import::Arguments),
    /// Write a snapshot to an image file
    Export(export::Arguments),
    /// Make, resize, move and remove volumes: disks that live in the store and are written to
    #[command(subcommand)]
    Volume(volume::Verb),
    /// Read everything back and check every hash
    Verify(verify::Arguments),
    /// Give the space of deleted snapshots back
    Gc(gc::Arguments),
    /// Show what is stored and what it saves
    Stats(stats::Arguments),
    /// Serve every volume and every snapshot over NBD
    Serve(serve::Arguments),
    /// Show every snapshot as a file
    Mount(mount::Arguments),
    /// Make the index anew from the packs
    RebuildIndex(rebuild_index::Arguments),
    /// Write what can be read of a damaged store to images
    Rescue(rescue::Arguments),
    /// Bring snapshots from one store to another
    Sync(sync::Arguments),
    /// Write snapshots to one file, for another store to receive
    Send(send::Arguments),
    /// Take in snapshots that another store sent
    Receive(receive::Arguments),
    /// Say in a small file what the store has, for another store to send what it lacks
    Summary(summary::Arguments),
    /// Bring a store of an older format to the present one
    Upgrade(upgrade::Arguments),
    /// Do what qemu-img does, as a QEMU release did it
    #[command(subcommand)]
    QemuImg(qemu_img::Verb),
    /// Show how QEMU releases differ, or two of them
    Eras(eras::Arguments),
    /// Print the completion script of a shell
    Completions(completions::Arguments),
    /// The other end of a sync
    #[command(hide = true, subcommand)]
    SyncPeer(sync::Peer),
    /// Write the manual pages
    #[command(hide = true)]
    Man(man::Arguments),
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    fn examples(command: &clap::Command) -> Vec<String> {
        let help = command
            .get_after_help()
            .map(ToString::to_string)
            .unwrap_or_default();
        let own = help
            .lines()
            .map(str::trim)
            .filter(|line| line.starts_with("still "));
        let own: Vec<String> = own.map(ToOwned::to_owned).collect();
        let below = command.get_subcommands().flat_map(examples);
        own.into_iter().chain(below).collect()
    }

    #[test]
    fn the_grammar_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn every_example_in_the_help_parses() {
        let examples = examples(&Cli::command());
        assert!(examples.len() >= 20, "only {} examples", examples.len());
        for example in examples {
            let words = example
                .split(['|', '>'])
                .next()
                .unwrap_or_default()
                .split_whitespace();
            Cli::try_parse_from(words).unwrap_or_else(|e| panic!("{example}: {e}"));
        }
    }

    #[test]
    fn every_verb_has_an_example_of_itself() {
        for verb in Cli::command()
            .get_subcommands()
            .filter(|c| c.get_name() != "help")
        {
            let start = format!("still {}", verb.get_name());
            assert!(
                examples(verb).iter().any(|e| e.starts_with(&start)),
                "{start}"
            );
        }
    }

    #[test]
    fn what_cannot_be_meant_is_usage() {
        for line in [
            "still",
            "still goto",
            "still goto monday --undo",
            "still goto --finish --undo",
            "still goto --undo --device web1",
            "still import web1.raw",
            "still init --cluster-size 64KB",
            "still init --compression lz4",
            "still init --compression zstd:0",
            "still diff web1@a",
            "still completions cobol",
            "still eras 4.2 6.0 8.0",
            "still qemu-img convert",
            "still serve --nbd /run/still.sock",
            "still serve --nbd unix:x --tls-verify-peer",
            "still volume create vm1",
            "still volume create vm1 --size 1G --from golden",
        ] {
            let error = Cli::try_parse_from(line.split(' ')).expect_err(line);
            assert!(error.use_stderr(), "{line}");
        }
    }
}
