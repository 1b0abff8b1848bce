//! `bdrv_snapshot_goto`.

use crate::compat::driver::Op;
use crate::compat::eras::Flags;
use crate::compat::errno;
use crate::compat::failure::Failure;
use crate::compat::graph::{Graph, NodeId};
use crate::compat::release::Release;

/// Makes the node hold a snapshot. The driver resolves the argument as id first and then as name, in every release, also
/// where find is by name only. Sets an Error object from 2.11 on.
pub fn bdrv_snapshot_goto(
    release: Release,
    graph: &mut Graph,
    bs: NodeId,
    id_or_name: &[u8],
) -> Result<(), Failure> {
    goto(&release.flags(), graph, bs, id_or_name)
}

pub(super) fn goto(
    flags: &Flags,
    graph: &mut Graph,
    bs: NodeId,
    id_or_name: &[u8],
) -> Result<(), Failure> {
    let gone = goto_with_error(flags, graph, bs, id_or_name);
    gone.map_err(|e| {
        if flags.goto_errp {
            e
        } else {
            e.without_error()
        }
    })
}

fn goto_with_error(
    flags: &Flags,
    graph: &mut Graph,
    bs: NodeId,
    id_or_name: &[u8],
) -> Result<(), Failure> {
    if graph.driver(bs).is_none() {
        return Err(Failure::new(errno::ENOMEDIUM, "Block driver is closed"));
    }
    let bitmaps = graph.get(bs).is_some_and(|n| !n.bitmaps.is_empty());
    if bitmaps && flags.goto_bitmap_refusal {
        return Err(Failure::new(
            errno::EBUSY,
            "Device has active dirty bitmaps",
        ));
    }
    if let Some(driver) = graph.driver(bs).filter(|d| d.has(Op::Goto)) {
        let gone = driver.goto(flags, id_or_name);
        return gone.map_err(|e| graph.fail_of(e, "Failed to load snapshot"));
    }
    match graph.fallback(flags, bs) {
        Some(child) => goto_below(flags, graph, bs, child, id_or_name),
        None => Err(Failure::new(
            errno::ENOTSUP,
            "Block driver does not support snapshots",
        )),
    }
}

/// The top is closed meanwhile; one that cannot be opened again is left without a driver.
fn goto_below(
    flags: &Flags,
    graph: &mut Graph,
    bs: NodeId,
    child: NodeId,
    id_or_name: &[u8],
) -> Result<(), Failure> {
    if let Some(driver) = graph.driver(bs) {
        driver.close();
    }
    let gone = goto_with_error(flags, graph, child, id_or_name);
    let reopened = graph.driver(bs).map_or(Ok(()), |d| d.reopen());
    let Err(e) = reopened else {
        return gone;
    };
    if let Some(node) = graph.get_mut(bs) {
        node.driver = None;
    }
    let e = graph.fail_of(e, "Could not open the node again");
    match gone {
        Err(first) if flags.goto_error_wins => Err(first),
        _ => Err(e),
    }
}
