//! `bdrv_can_snapshot`.

use crate::compat::driver::Op;
use crate::compat::eras::Flags;
use crate::compat::graph::{Graph, NodeId};
use crate::compat::release::Release;

/// 1 or 0: whether the node, or what it falls back to, has a driver that makes snapshots. The driver is asked, not the
/// image: of one with an external data file it says 1, and create fails.
pub fn bdrv_can_snapshot(release: Release, graph: &Graph, bs: NodeId) -> bool {
    can(&release.flags(), graph, bs)
}

pub(super) fn can(flags: &Flags, graph: &Graph, bs: NodeId) -> bool {
    let Some(node) = graph.get(bs) else {
        return false;
    };
    let barred = node.read_only || (flags.can_needs_writable && node.inactive);
    match &node.driver {
        Some(driver) if graph.is_inserted(bs) && !barred => {
            let below = || graph.fallback(flags, bs);
            driver.has(Op::Create) || below().is_some_and(|child| can(flags, graph, child))
        }
        _ => false,
    }
}
