//! `bdrv_snapshot_load_tmp` and `bdrv_snapshot_load_tmp_by_id_or_name`.

use crate::compat::delete::unsupported;
use crate::compat::driver::Op;
use crate::compat::eras::Flags;
use crate::compat::errno;
use crate::compat::failure::Failure;
use crate::compat::find::both_null;
use crate::compat::graph::{Graph, NodeId};
use crate::compat::release::Release;

/// From here on reads of the node are of a snapshot; its size stays. The node must be read-only, and no child is asked in
/// its place. Through 1.7 there is one argument, `name`, taken as id and then as name; `id` is not looked at.
pub fn bdrv_snapshot_load_tmp(
    release: Release,
    graph: &mut Graph,
    bs: NodeId,
    id: Option<&[u8]>,
    name: Option<&[u8]>,
) -> Result<(), Failure> {
    let flags = release.flags();
    if flags.load_tmp_full {
        return load_tmp(&flags, graph, bs, id, name);
    }
    let loaded = match load_tmp(&flags, graph, bs, name, None) {
        Err(e) if e.ret == -errno::ENOENT => load_tmp(&flags, graph, bs, None, name),
        done => done,
    };
    loaded.map_err(Failure::without_error)
}

fn load_tmp(
    flags: &Flags,
    graph: &mut Graph,
    bs: NodeId,
    id: Option<&[u8]>,
    name: Option<&[u8]>,
) -> Result<(), Failure> {
    let device = graph.device_name(bs).to_owned();
    let read_only = graph.get(bs).is_some_and(|n| n.read_only);
    let Some(driver) = graph.driver(bs) else {
        let text = format!("Device '{device}' has no medium");
        return Err(Failure::new(errno::ENOMEDIUM, text));
    };
    if id.is_none() && name.is_none() {
        return Err(both_null());
    }
    if !read_only {
        return Err(Failure::new(errno::EINVAL, "Device is not readonly"));
    }
    if driver.has(Op::LoadTmp) {
        let loaded = driver.load_tmp(flags, id, name);
        return loaded.map_err(|e| graph.fail(e));
    }
    let what = "temporarily loading internal snapshots";
    Err(unsupported(flags, driver.format_name(), &device, what))
}

/// Loads by id; where that gives -ENOENT or -EINVAL, by name. From 2.0 on.
pub fn bdrv_snapshot_load_tmp_by_id_or_name(
    release: Release,
    graph: &mut Graph,
    bs: NodeId,
    id_or_name: &[u8],
) -> Result<(), Failure> {
    let flags = release.flags();
    if !flags.load_tmp_full {
        return Err(Failure::absent(
            release,
            "bdrv_snapshot_load_tmp_by_id_or_name",
        ));
    }
    match load_tmp(&flags, graph, bs, Some(id_or_name), None) {
        Err(e) if e.ret == -errno::ENOENT || e.ret == -errno::EINVAL => {
            load_tmp(&flags, graph, bs, None, Some(id_or_name))
        }
        done => done,
    }
}
