//! info snapshots.

use super::{all_nodes, none, vmstate_node};
use crate::compat::all::{Chosen, all_find, takes_part};
use crate::compat::dump::{UtcOffset, table};
use crate::compat::eras::Flags;
use crate::compat::failure::Failure;
use crate::compat::graph::{Graph, NodeId};
use crate::compat::info::{IdStr, QemuSnapshotInfo};
use crate::compat::list::list;
use crate::compat::release::Release;

/// The snapshots that all disks have; from 2.7 on also, disk by disk, those that only some have.
pub fn info_snapshots(
    release: Release,
    graph: &mut Graph,
    offset: UtcOffset<'_>,
) -> Result<Vec<u8>, Failure> {
    let flags = release.flags();
    let chosen = all_nodes(graph);
    let node = vmstate_node(&flags, graph, &chosen, None, none::INFO)?;
    let of_vmstate = list(&flags, graph, node)?;
    if flags.hmp_partial_lists {
        return Ok(two_kinds(&flags, graph, &chosen, of_vmstate, offset));
    }
    // By id: what has it for a name counts too, as in any find of these releases.
    let everywhere =
        |s: &QemuSnapshotInfo| all_find(&flags, graph, &chosen, s.id_str.as_bytes()).is_ok();
    let common: Vec<QemuSnapshotInfo> = of_vmstate.into_iter().filter(everywhere).collect();
    if common.is_empty() {
        return Ok(NOTHING.to_vec());
    }
    Ok(table(&flags, &common, offset))
}

const NOTHING: &[u8] = b"There is no snapshot available.\n";

/// The disks that take part with their lists; one that cannot be listed has none.
fn disks(
    flags: &Flags,
    graph: &mut Graph,
    chosen: &Chosen,
) -> Vec<(NodeId, Vec<QemuSnapshotInfo>)> {
    let nodes = chosen.nodes.iter().copied();
    let nodes: Vec<NodeId> = nodes
        .filter(|n| takes_part(flags, graph, chosen, *n))
        .collect();
    let listed = |n| (n, list(flags, graph, n).unwrap_or_default());
    nodes.into_iter().map(listed).collect()
}

fn two_kinds(
    flags: &Flags,
    graph: &mut Graph,
    chosen: &Chosen,
    of_vmstate: Vec<QemuSnapshotInfo>,
    offset: UtcOffset<'_>,
) -> Vec<u8> {
    let mut partial = disks(flags, graph, chosen);
    if partial.iter().all(|(_, all)| all.is_empty()) {
        return NOTHING.to_vec();
    }
    let mut common = Vec::new();
    for sn in of_vmstate {
        if all_find(flags, graph, chosen, sn.name.as_bytes()).is_ok() {
            partial
                .iter_mut()
                .for_each(|(_, all)| all.retain(|s| s.name != sn.name));
            // Ids differ from disk to disk.
            common.push(QemuSnapshotInfo {
                id_str: IdStr::from("--"),
                ..sn
            });
        }
    }
    let mut out = b"List of snapshots present on all disks:\n".to_vec();
    if common.is_empty() {
        out.extend_from_slice(b"None\n");
    } else {
        out.extend(table(flags, &common, offset));
    }
    for (node, all) in partial.iter().filter(|(_, all)| !all.is_empty()) {
        let device = graph.device_or_node_name(*node);
        let title = format!("\nList of partial (non-loadable) snapshots on '{device}':\n");
        out.extend_from_slice(title.as_bytes());
        out.extend(table(flags, all, offset));
    }
    out
}
