//! `bdrv_save_vmstate` and `bdrv_load_vmstate`: the active VM state, which create keeps and goto brings back.

use crate::compat::driver::{Driver, Op};
use crate::compat::eras::Flags;
use crate::compat::errno;
use crate::compat::failure::Failure;
use crate::compat::graph::{Graph, NodeId};
use crate::compat::release::Release;

/// Writes active VM state at a byte position. It is durable as part of the next snapshot.
pub fn bdrv_save_vmstate(
    release: Release,
    graph: &mut Graph,
    bs: NodeId,
    at: u64,
    bytes: &[u8],
) -> Result<(), Failure> {
    let saved = driver(release, graph, bs)?.save_vmstate(at, bytes);
    saved.map_err(|e| graph.fail(e))
}

/// Reads active VM state from a byte position, or that of the snapshot that `load_tmp` chose; what was never written is
/// zeros.
pub fn bdrv_load_vmstate(
    release: Release,
    graph: &mut Graph,
    bs: NodeId,
    at: u64,
    into: &mut [u8],
) -> Result<(), Failure> {
    let loaded = driver(release, graph, bs)?.load_vmstate(at, into);
    loaded.map_err(|e| graph.fail(e))
}

fn driver(
    release: Release,
    graph: &mut Graph,
    bs: NodeId,
) -> Result<&mut Box<dyn Driver>, Failure> {
    if graph.driver(bs).is_none() {
        return Err(Failure::errno(errno::ENOMEDIUM));
    }
    let found = vmstate_driver(&release.flags(), graph, bs);
    found.ok_or_else(|| Failure::errno(errno::ENOTSUP))
}

/// The driver that holds the node's VM state: its own, or that of the child it falls back to.
pub(super) fn vmstate_driver<'g>(
    flags: &Flags,
    graph: &'g mut Graph,
    mut node: NodeId,
) -> Option<&'g mut Box<dyn Driver>> {
    loop {
        if graph.get(node)?.driver.as_ref()?.has(Op::Create) {
            return graph.driver(node);
        }
        node = graph.fallback(flags, node)?;
    }
}
