//! `bdrv_snapshot_list`.

use crate::compat::driver::Op;
use crate::compat::eras::Flags;
use crate::compat::errno;
use crate::compat::failure::Failure;
use crate::compat::graph::{Graph, NodeId};
use crate::compat::info::QemuSnapshotInfo;
use crate::compat::release::Release;

/// All snapshots of the node in the order of its table, which is that of their making. C got their count and an array;
/// NULL for none. -ENOMEDIUM without a driver, -ENOTSUP without snapshots.
pub fn bdrv_snapshot_list(
    release: Release,
    graph: &mut Graph,
    bs: NodeId,
) -> Result<Vec<QemuSnapshotInfo>, Failure> {
    list(&release.flags(), graph, bs)
}

pub(super) fn list(
    flags: &Flags,
    graph: &mut Graph,
    bs: NodeId,
) -> Result<Vec<QemuSnapshotInfo>, Failure> {
    let Some(driver) = graph.driver(bs) else {
        return Err(Failure::errno(errno::ENOMEDIUM));
    };
    if driver.has(Op::List) {
        let listed = driver.list(flags);
        return listed.map_err(|e| graph.fail(e));
    }
    match graph.fallback(flags, bs) {
        Some(child) => list(flags, graph, child),
        None => Err(Failure::errno(errno::ENOTSUP)),
    }
}
