//! `bdrv_snapshot_delete` and `bdrv_snapshot_delete_by_id_or_name`.

use crate::compat::driver::Op;
use crate::compat::eras::{ByIdOrName, Flags};
use crate::compat::errno;
use crate::compat::failure::Failure;
use crate::compat::find::both_null;
use crate::compat::graph::{Graph, NodeId};
use crate::compat::release::Release;

/// Deletes one snapshot: the first in the table with all that is given of id and name. Through 1.6 there is one
/// argument, `id`, taken as id and then as name; `name` is not looked at.
pub fn bdrv_snapshot_delete(
    release: Release,
    graph: &mut Graph,
    bs: NodeId,
    id: Option<&[u8]>,
    name: Option<&[u8]>,
) -> Result<(), Failure> {
    delete(&release.flags(), graph, bs, id, name)
}

pub(super) fn delete(
    flags: &Flags,
    graph: &mut Graph,
    bs: NodeId,
    id: Option<&[u8]>,
    name: Option<&[u8]>,
) -> Result<(), Failure> {
    if flags.delete_takes_name {
        return delete_with_error(flags, graph, bs, id, name);
    }
    let deleted = match delete_with_error(flags, graph, bs, id, None) {
        Err(e) if e.ret == -errno::ENOENT => delete_with_error(flags, graph, bs, None, id),
        done => done,
    };
    deleted.map_err(Failure::without_error)
}

fn delete_with_error(
    flags: &Flags,
    graph: &mut Graph,
    bs: NodeId,
    id: Option<&[u8]>,
    name: Option<&[u8]>,
) -> Result<(), Failure> {
    let device = graph.device_name(bs).to_owned();
    let Some(driver) = graph.driver(bs) else {
        let text = format!("Device '{device}' has no medium");
        return Err(Failure::new(errno::ENOMEDIUM, text));
    };
    if id.is_none() && name.is_none() {
        return Err(both_null());
    }
    if driver.has(Op::Delete) {
        let deleted = driver.delete(flags, id, name);
        return deleted.map_err(|e| graph.fail(e));
    }
    let format = driver.format_name().to_owned();
    match graph.fallback(flags, bs) {
        Some(child) => delete_with_error(flags, graph, child, id, name),
        None => Err(unsupported(
            flags,
            &format,
            &device,
            "internal snapshot deletion",
        )),
    }
}

pub(super) fn unsupported(flags: &Flags, format: &str, device: &str, what: &str) -> Failure {
    let what = if flags.unsupported_feature {
        format!("feature '{what}'")
    } else {
        what.to_owned()
    };
    let text = format!("Block format '{format}' used by device '{device}' does not support {what}");
    Failure::new(errno::ENOTSUP, text)
}

/// Deletes by id; where that gives -ENOENT or -EINVAL, by name. From 1.7 through 3.1; before 2.5 C got no number, only
/// the Error object.
pub fn bdrv_snapshot_delete_by_id_or_name(
    release: Release,
    graph: &mut Graph,
    bs: NodeId,
    id_or_name: &[u8],
) -> Result<(), Failure> {
    let flags = release.flags();
    match flags.delete_by_id_or_name {
        ByIdOrName::Absent => Err(Failure::absent(
            release,
            "bdrv_snapshot_delete_by_id_or_name",
        )),
        ByIdOrName::Void | ByIdOrName::Int => delete_by_id_or_name(&flags, graph, bs, id_or_name),
    }
}

pub(super) fn delete_by_id_or_name(
    flags: &Flags,
    graph: &mut Graph,
    bs: NodeId,
    id_or_name: &[u8],
) -> Result<(), Failure> {
    match delete_with_error(flags, graph, bs, Some(id_or_name), None) {
        Err(e) if e.ret == -errno::ENOENT || e.ret == -errno::EINVAL => {
            delete_with_error(flags, graph, bs, None, Some(id_or_name))
        }
        done => done,
    }
}
