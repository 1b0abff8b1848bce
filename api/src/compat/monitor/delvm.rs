//! delvm and the job snapshot-delete.

use super::savevm::deleting;
use super::{all_nodes, job_nodes, none, vmstate_node};
use crate::compat::all::{Chosen, all_delete, takes_part};
use crate::compat::delete::{delete, delete_by_id_or_name};
use crate::compat::eras::{Flags, SavevmOrder};
use crate::compat::errno;
use crate::compat::failure::Failure;
use crate::compat::graph::Graph;
use crate::compat::release::Release;

/// Deletes a snapshot from all disks. Through 2.4 each disk that fails, or lacks it, is told of and passed over; later the
/// first one that fails ends it, and lacking it is no failure.
pub fn delvm(release: Release, graph: &mut Graph, name: &[u8]) -> Result<(), Failure> {
    let flags = release.flags();
    let chosen = all_nodes(graph);
    if flags.savevm_order == SavevmOrder::Reuse {
        vmstate_node(&flags, graph, &chosen, None, none::LOAD)?;
        delete_each(&flags, graph, &chosen, name);
        return Ok(());
    }
    all_delete(&flags, graph, &chosen, name).map_err(|e| deleting(&flags, graph, e))
}

/// The job snapshot-delete, from 6.0 on.
pub fn snapshot_delete(
    release: Release,
    graph: &mut Graph,
    tag: &[u8],
    devices: &[&str],
) -> Result<(), Failure> {
    let (flags, chosen) = job_nodes(release, graph, "snapshot-delete", devices)?;
    all_delete(&flags, graph, &chosen, tag)
}

fn delete_each(flags: &Flags, graph: &mut Graph, chosen: &Chosen, name: &[u8]) {
    for bs in &chosen.nodes {
        if !takes_part(flags, graph, chosen, *bs) {
            continue;
        }
        let deleted = if flags.delete_takes_name {
            delete_by_id_or_name(flags, graph, *bs, name)
        } else {
            delete(flags, graph, *bs, Some(name), None)
        };
        let Err(e) = deleted else { continue };
        let device = graph.device_or_node_name(*bs);
        let line = if e.ret == -errno::ENOTSUP {
            format!("Snapshots not supported on device '{device}'")
        } else {
            format!("Error {} while deleting snapshot on '{device}'", e.ret)
        };
        graph.report(line);
    }
}
