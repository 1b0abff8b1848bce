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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compat::graph::{Node, Role};
    use crate::compat::memory::{MemoryTable, Plain};
    use crate::compat::qcow2::Qcow2;

    #[test]
    fn vm_state_goes_to_the_child_where_the_driver_keeps_none() {
        let mut graph = Graph::new();
        let disk = Box::new(Qcow2::new(MemoryTable::new(b"disk")));
        let disk = graph.add(Node::new("disk", disk)).unwrap();
        let top = Box::new(Plain::new("raw", b""));
        let top = graph.add(Node::new("top", top)).unwrap();
        let release = Release::default();
        let alone = bdrv_save_vmstate(release, &mut graph, top, 0, b"x").unwrap_err();
        assert_eq!(alone.ret, -errno::ENOTSUP);

        graph.add_child(top, "file", Role::IMAGE, disk).unwrap();
        bdrv_save_vmstate(release, &mut graph, top, 2, b"state").unwrap();
        let mut back = [9; 8];
        bdrv_load_vmstate(release, &mut graph, disk, 1, &mut back).unwrap();
        assert_eq!(&back, b"\0state\0\0");
    }

    #[test]
    fn a_node_without_a_driver_has_no_medium_for_vm_state() {
        let mut graph = Graph::new();
        let closed = graph.add(Node::closed("closed")).unwrap();
        let loaded = bdrv_load_vmstate(Release::default(), &mut graph, closed, 0, &mut [0]);
        assert_eq!(loaded.unwrap_err().ret, -errno::ENOMEDIUM);
    }
}
