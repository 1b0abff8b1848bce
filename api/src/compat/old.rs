//! What block.h declared through 1.5 and no header later: `bdrv_snapshots`, `bdrv_is_snapshot`, `bdrv_snapshot_dump`.

use crate::compat::all::all_find_vmstate;
use crate::compat::dump::{UtcOffset, header, row};
use crate::compat::eras::Flags;
use crate::compat::failure::Failure;
use crate::compat::graph::{Graph, NodeId};
use crate::compat::info::QemuSnapshotInfo;
use crate::compat::monitor::all_nodes;
use crate::compat::release::Release;

/// The node that VM state goes to: the first that can snapshot, and from then on the same one for as long as it has a
/// driver, whatever becomes of it. `None` is C's NULL.
pub fn bdrv_snapshots(release: Release, graph: &mut Graph) -> Result<Option<NodeId>, Failure> {
    let flags = release.flags();
    if !flags.block_h {
        return Err(Failure::absent(release, "bdrv_snapshots"));
    }
    remembered(&flags, graph)
}

pub(super) fn remembered(flags: &Flags, graph: &mut Graph) -> Result<Option<NodeId>, Failure> {
    let has_driver = |n: &NodeId| graph.get(*n).is_some_and(|n| n.driver.is_some());
    if let Some(node) = graph.vmstate_node.filter(has_driver) {
        return Ok(Some(node));
    }
    let found = all_find_vmstate(flags, graph, &all_nodes(graph), None)?;
    graph.vmstate_node = found;
    Ok(found)
}

/// Whether the node was opened as a temporary snapshot (`-snapshot`): 1 or 0.
pub fn bdrv_is_snapshot(release: Release, graph: &Graph, bs: NodeId) -> Result<bool, Failure> {
    if !release.flags().block_h {
        return Err(Failure::absent(release, "bdrv_is_snapshot"));
    }
    Ok(graph.get(bs).is_some_and(|n| n.temporary))
}

/// A line of a snapshot list without a line break; the header for `None`, which is C's NULL.
pub fn bdrv_snapshot_dump(
    release: Release,
    sn: Option<&QemuSnapshotInfo>,
    offset: UtcOffset<'_>,
) -> Result<Vec<u8>, Failure> {
    let flags = release.flags();
    if !flags.block_h {
        return Err(Failure::absent(release, "bdrv_snapshot_dump in its header"));
    }
    Ok(sn.map_or_else(|| header(&flags), |sn| row(&flags, sn, offset)))
}
