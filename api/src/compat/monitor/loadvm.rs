//! loadvm and the job snapshot-load.

use super::{
    BUFFER_BYTES, NO_STATE_FILE, Vm, all_nodes, barred, job_nodes, none, vmstate_driver,
    vmstate_node,
};
use crate::compat::all::{Chosen, all_can, all_find, all_goto};
use crate::compat::driver::Driver;
use crate::compat::eras::{Flags, GroupResult};
use crate::compat::errno;
use crate::compat::failure::{Failure, QemuError};
use crate::compat::find::find;
use crate::compat::graph::{Graph, NodeId};
use crate::compat::release::Release;
use std::io::{self, Read};

/// Makes all disks and the machine what they were. The disks are looked for by the release's find and gone to by id and
/// then name, so that it may be another snapshot that is loaded. Disks stay where they are when a later one or the state
/// fails; the machine then stays stopped.
pub fn loadvm(
    release: Release,
    graph: &mut Graph,
    vm: &mut dyn Vm,
    name: &[u8],
) -> Result<(), Failure> {
    let chosen = all_nodes(graph);
    load(&release.flags(), graph, &chosen, vm, name, None)
}

/// The job snapshot-load, from 6.0 on.
pub fn snapshot_load(
    release: Release,
    graph: &mut Graph,
    vm: &mut dyn Vm,
    tag: &[u8],
    vmstate: &str,
    devices: &[&str],
) -> Result<(), Failure> {
    let (flags, chosen) = job_nodes(release, graph, "snapshot-load", devices)?;
    load(&flags, graph, &chosen, vm, tag, Some(vmstate))
}

fn load(
    flags: &Flags,
    graph: &mut Graph,
    chosen: &Chosen,
    vm: &mut dyn Vm,
    name: &[u8],
    vmstate: Option<&str>,
) -> Result<(), Failure> {
    let running = vm.is_running();
    vm.stop();
    let node = check(flags, graph, chosen, name, vmstate)?;
    all_goto(flags, graph, chosen, name).map_err(|e| activating(flags, graph, name, e))?;
    read_state(flags, graph, node, vm)?;
    if running {
        vm.start();
    }
    Ok(())
}

/// Everything that is looked at before anything is changed; returns the node of the VM state.
fn check(
    flags: &Flags,
    graph: &mut Graph,
    chosen: &Chosen,
    name: &[u8],
    vmstate: Option<&str>,
) -> Result<NodeId, Failure> {
    all_can(flags, graph, chosen).map_err(|e| barred(flags, graph, e))?;
    all_find(flags, graph, chosen, name).map_err(|e| missing(flags, graph, name, e))?;
    let node = vmstate_node(flags, graph, chosen, vmstate, none::LOAD)?;
    let found = find(flags, graph, node, name)?;
    if found.vm_state_size == 0 {
        let text = if flags.monitor_full_stop {
            "This is a disk-only snapshot. Revert to it offline using qemu-img."
        } else {
            "This is a disk-only snapshot. Revert to it  offline using qemu-img"
        };
        return Err(Failure::new(errno::EINVAL, text));
    }
    Ok(node)
}

fn missing(flags: &Flags, graph: &Graph, name: &[u8], e: Failure) -> Failure {
    let text = match flags.group_result {
        GroupResult::FirstBad => {
            let device = e.first_bad.map_or("", |n| graph.device_or_node_name(n));
            let start = format!("Device '{device}' does not have the requested snapshot '");
            [start.as_bytes(), name, b"'"].concat()
        }
        GroupResult::Errp => {
            let end = b"' does not exist in one or more devices";
            [b"Snapshot '", name, end].concat()
        }
    };
    e.with(QemuError::new(text))
}

fn activating(flags: &Flags, graph: &Graph, name: &[u8], mut e: Failure) -> Failure {
    let Some(node) = e
        .first_bad
        .filter(|_| flags.group_result == GroupResult::FirstBad)
    else {
        return e;
    };
    let device = graph.device_or_node_name(node).as_bytes();
    let why = e
        .error
        .take()
        .map_or_else(|| e.errno_text().into_bytes(), |error| error.message);
    let text = [
        b"Could not load snapshot '",
        name,
        b"' on '",
        device,
        b"': ",
        &why,
    ]
    .concat();
    e.with(QemuError::new(text))
}

/// The active VM state, which the goto has made the snapshot's.
fn read_state(
    flags: &Flags,
    graph: &mut Graph,
    node: NodeId,
    vm: &mut dyn Vm,
) -> Result<(), Failure> {
    let no_state = || Failure::new(errno::EINVAL, NO_STATE_FILE);
    let driver = vmstate_driver(flags, graph, node).ok_or_else(no_state)?;
    let end = driver
        .vmstate_len()
        .map_err(|e| e.into_failure_of("Error while loading VM state"))?;
    let mut from = io::BufReader::with_capacity(
        BUFFER_BYTES,
        StateReader {
            driver: driver.as_mut(),
            at: 0,
            end,
        },
    );
    vm.load(&mut from).map_err(|e| {
        let errno = e.raw_os_error().unwrap_or(errno::EINVAL);
        Failure::new(errno, format!("Error {errno} while loading VM state: {e}"))
    })
}

struct StateReader<'a> {
    driver: &'a mut dyn Driver,
    at: u64,
    end: u64,
}

impl Read for StateReader<'_> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let n = into.len().min((self.end - self.at) as usize);
        let read = self.driver.load_vmstate(self.at, &mut into[..n]);
        read.map_err(|e| io::Error::from_raw_os_error(e.errno))?;
        self.at += n as u64;
        Ok(n)
    }
}
