//! savevm and the job snapshot-save.

use super::{
    BUFFER_BYTES, NO_STATE_FILE, Vm, all_nodes, barred, job_nodes, none, vmstate_driver,
    vmstate_node,
};
use crate::compat::all::{Chosen, all_can, all_create, all_delete, all_find, takes_part};
use crate::compat::create::create;
use crate::compat::delete::{delete, delete_by_id_or_name};
use crate::compat::driver::Driver;
use crate::compat::dump::local;
use crate::compat::eras::{Flags, GroupResult, SavevmOrder};
use crate::compat::errno;
use crate::compat::failure::{Failure, QemuError};
use crate::compat::find::find;
use crate::compat::graph::{Graph, NodeId};
use crate::compat::info::{ICOUNT_NONE, NameStr, QemuSnapshotInfo};
use crate::compat::release::Release;
use std::io::{self, Write};

/// Saves the machine and all disks under a name, `vm-` and the local time by default. What becomes of older snapshots of
/// that name, and of new ones when it fails, is the release's affair: see [`SavevmOrder`].
pub fn savevm(
    release: Release,
    graph: &mut Graph,
    vm: &mut dyn Vm,
    name: Option<&[u8]>,
) -> Result<QemuSnapshotInfo, Failure> {
    let flags = release.flags();
    let chosen = all_nodes(graph);
    if flags.savevm_order == SavevmOrder::Reuse {
        return savevm_reusing(&flags, graph, &chosen, vm, name);
    }
    let request = Request {
        name,
        overwrite: true,
        vmstate: None,
    };
    save(&flags, graph, &chosen, vm, &request)
}

/// The job snapshot-save, from 6.0 on: to the nodes named, VM state to `vmstate`. Refuses a tag that every one of them
/// has, and only then.
pub fn snapshot_save(
    release: Release,
    graph: &mut Graph,
    vm: &mut dyn Vm,
    tag: &[u8],
    vmstate: &str,
    devices: &[&str],
) -> Result<QemuSnapshotInfo, Failure> {
    let (flags, chosen) = job_nodes(release, graph, "snapshot-save", devices)?;
    let request = Request {
        name: Some(tag),
        overwrite: false,
        vmstate: Some(vmstate),
    };
    save(&flags, graph, &chosen, vm, &request)
}

struct Request<'a> {
    name: Option<&'a [u8]>,
    overwrite: bool,
    vmstate: Option<&'a str>,
}

/// From 2.5 on: what has the name is deleted before anything else is known.
fn save(
    flags: &Flags,
    graph: &mut Graph,
    chosen: &Chosen,
    vm: &mut dyn Vm,
    request: &Request<'_>,
) -> Result<QemuSnapshotInfo, Failure> {
    all_can(flags, graph, chosen).map_err(|e| barred(flags, graph, e))?;
    if let Some(name) = request.name {
        if request.overwrite {
            all_delete(flags, graph, chosen, name).map_err(|e| deleting(flags, graph, e))?;
        } else if all_find(flags, graph, chosen, name).is_ok() {
            let text = [
                b"Snapshot '",
                name,
                b"' already exists in one or more devices",
            ]
            .concat();
            return Err(Failure {
                ret: -1,
                ..Failure::new(errno::EEXIST, text)
            });
        }
    }
    let node = vmstate_node(flags, graph, chosen, request.vmstate, none::SAVE)?;
    stopped(vm, |vm| {
        let mut sn = fill(flags, vm, request.name);
        let size = write_state(flags, graph, node, vm)?;
        let created = all_create(flags, graph, chosen, &mut sn, (Some(node), size));
        created.map_err(|e| {
            if flags.savevm_cleanup {
                // By name, so that an older snapshot of that name may be the one that goes.
                all_delete(flags, graph, chosen, sn.name.as_bytes()).unwrap_or_default();
            }
            creating(flags, graph, e)
        })?;
        Ok(sn)
    })
}

/// Through 2.4: name and id of the old snapshot are taken over, what has the name is deleted after the machine stopped,
/// and a disk that fails is told of and passed over.
fn savevm_reusing(
    flags: &Flags,
    graph: &mut Graph,
    chosen: &Chosen,
    vm: &mut dyn Vm,
    name: Option<&[u8]>,
) -> Result<QemuSnapshotInfo, Failure> {
    all_can(flags, graph, chosen).map_err(|e| barred(flags, graph, e))?;
    let node = vmstate_node(flags, graph, chosen, None, none::SAVE)?;
    stopped(vm, |vm| {
        let mut sn = fill(flags, vm, name);
        if let Some(name) = name {
            if let Ok(old) = find(flags, graph, node, name) {
                sn.name = old.name;
                sn.id_str = old.id_str;
            }
            delete_existing(flags, graph, chosen, name)?;
        }
        let size = write_state(flags, graph, node, vm)?;
        for bs in &chosen.nodes {
            if !takes_part(flags, graph, chosen, *bs) {
                continue;
            }
            sn.vm_state_size = if *bs == node { size } else { 0 };
            if create(flags, graph, *bs, &mut sn).is_err() {
                let device = graph.device_or_node_name(*bs);
                graph.report(format!("Error while creating snapshot on '{device}'"));
            }
        }
        Ok(sn)
    })
}

fn delete_existing(
    flags: &Flags,
    graph: &mut Graph,
    chosen: &Chosen,
    name: &[u8],
) -> Result<(), Failure> {
    for bs in &chosen.nodes {
        if takes_part(flags, graph, chosen, *bs) && find(flags, graph, *bs, name).is_ok() {
            let deleted = if flags.delete_takes_name {
                delete_by_id_or_name(flags, graph, *bs, name)
            } else {
                delete(flags, graph, *bs, Some(name), None)
            };
            deleted.map_err(|e| deleting(flags, graph, e.on(*bs)))?;
        }
    }
    Ok(())
}

/// The machine goes on afterwards if it ran, also after an error.
fn stopped<T>(vm: &mut dyn Vm, act: impl FnOnce(&mut dyn Vm) -> T) -> T {
    let running = vm.is_running();
    vm.stop();
    let done = act(vm);
    if running {
        vm.start();
    }
    done
}

fn fill(flags: &Flags, vm: &dyn Vm, name: Option<&[u8]>) -> QemuSnapshotInfo {
    let now = vm.now();
    let name = name.map_or_else(
        || {
            let [year, month, day, h, m, s] = local(now.sec, &|sec| vm.utc_offset(sec));
            format!("vm-{year:04}{month:02}{day:02}{h:02}{m:02}{s:02}").into_bytes()
        },
        ToOwned::to_owned,
    );
    QemuSnapshotInfo {
        name: NameStr::new(&name),
        date_sec: now.sec as u32,
        date_nsec: now.nsec / 1000 * 1000,
        vm_clock_nsec: vm.clock_nsec(),
        icount: vm.icount().filter(|_| flags.icount).unwrap_or(ICOUNT_NONE),
        ..QemuSnapshotInfo::default()
    }
}

/// Writes the machine's state to the node; returns its bytes.
fn write_state(
    flags: &Flags,
    graph: &mut Graph,
    node: NodeId,
    vm: &mut dyn Vm,
) -> Result<u64, Failure> {
    let Some(driver) = vmstate_driver(flags, graph, node) else {
        return Err(Failure::new(errno::ENOTSUP, NO_STATE_FILE));
    };
    let mut to = StateWriter {
        driver: driver.as_mut(),
        at: 0,
    };
    let mut buffered = io::BufWriter::with_capacity(BUFFER_BYTES, &mut to);
    let saved = vm.save(&mut buffered).and_then(|()| buffered.flush());
    // What is left of a state that failed must not be written when the buffer goes.
    drop(buffered.into_parts());
    match saved {
        Ok(()) => Ok(to.at),
        Err(e) => {
            let errno = e.raw_os_error().unwrap_or(errno::EIO);
            let text = format!("Error {errno} while writing VM: {e}");
            Err(Failure::new(errno, text))
        }
    }
}

struct StateWriter<'a> {
    driver: &'a mut dyn Driver,
    at: u64,
}

impl Write for StateWriter<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.driver.save_vmstate(self.at, bytes);
        written.map_err(|e| io::Error::from_raw_os_error(e.errno))?;
        self.at += bytes.len() as u64;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

pub(super) fn deleting(flags: &Flags, graph: &Graph, e: Failure) -> Failure {
    worded(flags, graph, e, "Error while deleting snapshot on device")
}

fn creating(flags: &Flags, graph: &Graph, e: Failure) -> Failure {
    worded(flags, graph, e, "Error while creating snapshot on")
}

/// Where the group function named a node the monitor says so; where it set an Error object that says all.
fn worded(flags: &Flags, graph: &Graph, mut e: Failure, doing: &str) -> Failure {
    let Some(node) = e
        .first_bad
        .filter(|_| flags.group_result == GroupResult::FirstBad)
    else {
        return e;
    };
    let device = graph.device_or_node_name(node);
    let text = match e.error.take() {
        Some(error) => [format!("{doing} '{device}': ").as_bytes(), &error.message].concat(),
        None => format!("{doing} '{device}'").into_bytes(),
    };
    e.with(QemuError::new(text))
}
