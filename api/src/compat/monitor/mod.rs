//! The monitor's commands: savevm, loadvm, delvm, info snapshots, and the jobs of 6.0.
//!
//! What a command prints and goes on after, it leaves in [`Graph::take_reports`]; what it ends with is its `Failure`, whose
//! text has no prefix of the monitor's. `Failure::ret` is a negative errno where there is one, else -1.

mod delvm;
mod info;
mod loadvm;
mod savevm;

pub use delvm::{delvm, snapshot_delete};
pub use info::info_snapshots;
pub use loadvm::{loadvm, snapshot_load};
pub use savevm::{savevm, snapshot_save};

use crate::compat::all::{Chosen, Devices, all_find_vmstate, choose};
use crate::compat::eras::{Flags, GroupResult};
use crate::compat::errno;
use crate::compat::failure::{Failure, QemuError};
use crate::compat::graph::{Graph, NodeId};
use crate::compat::old::remembered;
use crate::compat::release::Release;
use crate::compat::vmstate::vmstate_driver;
use std::io::{self, Read, Write};
use stillpoint_store::world::Moment;

/// Bytes of VM state that are passed on at a time.
const BUFFER_BYTES: usize = 16 << 20;

/// The machine whose state is saved.
pub trait Vm {
    /// Whether it runs.
    fn is_running(&self) -> bool;
    /// Stops it.
    fn stop(&mut self);
    /// Lets it go on.
    fn start(&mut self);
    /// The wall clock.
    fn now(&self) -> Moment;
    /// Seconds that local time is ahead of UTC at a moment, in seconds since 1970.
    fn utc_offset(&self, sec: u64) -> i64;
    /// The virtual clock, nanoseconds.
    fn clock_nsec(&self) -> u64;
    /// Instructions executed, where they are counted.
    fn icount(&self) -> Option<u64> {
        None
    }
    /// Writes the state.
    fn save(&mut self, to: &mut dyn Write) -> io::Result<()>;
    /// Reads the state.
    fn load(&mut self, from: &mut dyn Read) -> io::Result<()>;
}

/// Before there were group functions the monitor looped over the same nodes itself.
pub(super) fn all_nodes(graph: &Graph) -> Chosen {
    Chosen {
        nodes: graph.roots(),
        filtered: true,
    }
}

/// The nodes of a job, and that the release has jobs.
fn job_nodes(
    release: Release,
    graph: &Graph,
    job: &str,
    devices: &[&str],
) -> Result<(Flags, Chosen), Failure> {
    let flags = release.flags();
    if !flags.qmp_jobs {
        return Err(Failure::absent(release, job));
    }
    Ok((flags, choose(graph, &Devices::list(devices))?))
}

/// What commands say where no disk can hold VM state, through 5.2; programs look for these words.
mod none {
    pub const SAVE: &str = "No block device can accept snapshots";
    pub const LOAD: &str = "No block device supports snapshots";
    pub const INFO: &str = "No available block device supports snapshots";
}

/// What savevm and loadvm say where there is no place for VM state.
const NO_STATE_FILE: &str = "Could not open VM state file";

/// The node that VM state goes to and comes from, or `none`.
fn vmstate_node(
    flags: &Flags,
    graph: &mut Graph,
    chosen: &Chosen,
    name: Option<&str>,
    none: &str,
) -> Result<NodeId, Failure> {
    let found = if flags.block_h {
        remembered(flags, graph)
    } else {
        all_find_vmstate(flags, graph, chosen, name)
    };
    match found {
        Ok(Some(node)) => Ok(node),
        Ok(None) => Err(Failure::new(errno::ENOTSUP, none)),
        Err(e) => Err(Failure { ret: -1, ..e }),
    }
}

/// The failure of `all_can` in words.
fn barred(flags: &Flags, graph: &Graph, e: Failure) -> Failure {
    let failed = Failure::errno(errno::ENOTSUP);
    match (flags.group_result, e.first_bad) {
        (GroupResult::FirstBad, Some(node)) => {
            let name = graph.device_or_node_name(node);
            let stop = if flags.monitor_full_stop { "." } else { "" };
            let text = format!("Device '{name}' is writable but does not support snapshots{stop}");
            failed.on(node).with(QemuError::new(text))
        }
        _ => Failure {
            error: e.error,
            ..failed
        },
    }
}
