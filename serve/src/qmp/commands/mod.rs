//! The commands, and since which release of QEMU there have been those that are QEMU's.

mod job;
mod native;
mod nbd;
mod query;
mod snapshot;
mod transaction;
mod volume;

use super::arguments::Arguments;
use super::error::{Class, QmpError};
use super::monitor::Monitor;
use serde_json::Value;
use stillpoint_api::DeviceView;
use stillpoint_api::compat::Release;

/// What a command answers.
pub type Answer = Result<Value, QmpError>;

/// A command.
pub struct Command {
    /// Its name.
    pub name: &'static str,
    /// The first release that has it; 1.0 for those that are ours.
    since: (u8, u8),
    /// Does it.
    pub run: fn(&Monitor, Arguments) -> Answer,
}

const fn command(
    name: &'static str,
    since: (u8, u8),
    run: fn(&Monitor, Arguments) -> Answer,
) -> Command {
    Command { name, since, run }
}

/// All of them.
const COMMANDS: &[Command] = &[
    command("query-version", (1, 0), query::version),
    command("query-commands", (1, 0), query::commands),
    command("query-name", (1, 0), query::name),
    command("query-block", (1, 0), query::block),
    command("query-named-block-nodes", (2, 0), query::nodes),
    command("blockdev-snapshot-internal-sync", (1, 7), snapshot::create),
    command(
        "blockdev-snapshot-delete-internal-sync",
        (1, 7),
        snapshot::delete,
    ),
    command("transaction", (1, 1), transaction::transaction),
    command("snapshot-save", (6, 0), job::save),
    command("snapshot-load", (6, 0), job::load),
    command("snapshot-delete", (6, 0), job::delete),
    command("query-jobs", (3, 0), job::query),
    command("job-dismiss", (3, 0), job::dismiss),
    command("nbd-server-start", (1, 3), nbd::start),
    command("nbd-server-add", (1, 3), nbd::add),
    command("nbd-server-remove", (2, 12), nbd::remove),
    command("nbd-server-stop", (1, 3), nbd::stop),
    command("block-export-add", (5, 2), nbd::export_add),
    command("block-export-del", (5, 2), nbd::export_del),
    command("query-block-exports", (5, 2), nbd::query),
    command("x-stillpoint-list", (1, 0), native::list),
    command("x-stillpoint-create", (1, 0), native::create),
    command("x-stillpoint-goto", (1, 0), native::goto),
    command("x-stillpoint-delete", (1, 0), native::delete),
    command("x-stillpoint-gc", (1, 0), native::gc),
    command("x-stillpoint-stats", (1, 0), native::stats),
    command("x-stillpoint-volume-create", (1, 0), volume::create),
    command("x-stillpoint-volume-resize", (1, 0), volume::resize),
    command("x-stillpoint-volume-remove", (1, 0), volume::remove),
    command("x-stillpoint-volume-move", (1, 0), volume::hand_over),
    command("x-stillpoint-volume-absorb", (1, 0), volume::absorb),
];

/// The command of that name, if the release has it.
pub fn find(name: &str, release: Release) -> Option<&'static Command> {
    let found = COMMANDS.iter().find(|c| c.name == name);
    found.filter(|c| c.since <= (release.major(), release.minor()))
}

/// Names of all commands that a release has.
pub fn names(release: Release) -> impl Iterator<Item = &'static str> {
    let there = move |c: &&Command| c.since <= (release.major(), release.minor());
    COMMANDS.iter().filter(there).map(|c| c.name)
}

/// The device of that name, or QEMU's word that there is none: its own class up to 2.7, and since 6.0 other quotes.
fn device(monitor: &Monitor, name: &str) -> Result<DeviceView, QmpError> {
    let devices = monitor.system().devices()?;
    let found = devices.into_iter().find(|d| d.name == name);
    found.ok_or_else(|| not_found(monitor.release(), name, name))
}

/// QEMU's word for what is neither called `device` nor `node`.
fn not_found(release: Release, device: &str, node: &str) -> QmpError {
    let release = (release.major(), release.minor());
    if release < (2, 8) {
        let desc = format!("Device '{node}' not found");
        return QmpError::of(Class::DeviceNotFound, desc);
    }
    QmpError::new(if release < (6, 0) {
        format!("Cannot find device={device} nor node_name={node}")
    } else {
        format!("Cannot find device='{device}' nor node-name='{node}'")
    })
}
