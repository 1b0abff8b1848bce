//! `bdrv_snapshot_create`.

use crate::compat::driver::Op;
use crate::compat::eras::Flags;
use crate::compat::errno;
use crate::compat::failure::Failure;
use crate::compat::graph::{Graph, NodeId};
use crate::compat::info::QemuSnapshotInfo;
use crate::compat::release::Release;

/// Makes a snapshot of the node as `sn` says, and writes its id there. Neither read-only nodes nor names that are taken
/// are refused at this level. -ENOMEDIUM without a driver, -ENOTSUP without snapshots.
pub fn bdrv_snapshot_create(
    release: Release,
    graph: &mut Graph,
    bs: NodeId,
    sn: &mut QemuSnapshotInfo,
) -> Result<(), Failure> {
    create(&release.flags(), graph, bs, sn)
}

pub(super) fn create(
    flags: &Flags,
    graph: &mut Graph,
    bs: NodeId,
    sn: &mut QemuSnapshotInfo,
) -> Result<(), Failure> {
    let Some(driver) = graph.driver(bs) else {
        return Err(Failure::errno(errno::ENOMEDIUM));
    };
    if driver.has(Op::Create) {
        let created = driver.create(flags, sn);
        return created.map_err(|e| graph.fail(e).without_error());
    }
    match graph.fallback(flags, bs) {
        Some(child) => create(flags, graph, child, sn),
        None => Err(Failure::errno(errno::ENOTSUP)),
    }
}
