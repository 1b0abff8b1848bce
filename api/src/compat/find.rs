//! `bdrv_snapshot_find` and `bdrv_snapshot_find_by_id_and_name`.

use crate::compat::eras::Flags;
use crate::compat::errno;
use crate::compat::failure::{Failure, QemuError};
use crate::compat::graph::{Graph, NodeId};
use crate::compat::info::QemuSnapshotInfo;
use crate::compat::list::list;
use crate::compat::release::Release;

/// The first entry of the table with that name; through 3.1 with that id or name, whichever entry comes first. -ENOENT
/// where there is none, and also for any failure to list. Public from 1.6 on.
pub fn bdrv_snapshot_find(
    release: Release,
    graph: &mut Graph,
    bs: NodeId,
    name: &[u8],
) -> Result<QemuSnapshotInfo, Failure> {
    let flags = release.flags();
    if !flags.find_public {
        return Err(Failure::absent(release, "public bdrv_snapshot_find"));
    }
    find(&flags, graph, bs, name)
}

pub(super) fn find(
    flags: &Flags,
    graph: &mut Graph,
    bs: NodeId,
    name: &[u8],
) -> Result<QemuSnapshotInfo, Failure> {
    let is = |s: &QemuSnapshotInfo| {
        s.name.as_bytes() == name || (flags.find_by_id && s.id_str.as_bytes() == name)
    };
    let missing = || Failure::errno(errno::ENOENT);
    match list(flags, graph, bs) {
        Ok(all) => all.into_iter().find(is).ok_or_else(missing),
        Err(e) => Err(Failure {
            cause: e.cause,
            ..missing()
        }),
    }
}

/// The first entry that has what is given of id and name. C got true or false: `None` is false without an Error object,
/// `Err` false with one. Both NULL, where QEMU aborts, is -EINVAL. From 1.7 on.
pub fn bdrv_snapshot_find_by_id_and_name(
    release: Release,
    graph: &mut Graph,
    bs: NodeId,
    id: Option<&[u8]>,
    name: Option<&[u8]>,
) -> Result<Option<QemuSnapshotInfo>, Failure> {
    let flags = release.flags();
    if !flags.find_id_name {
        return Err(Failure::absent(
            release,
            "bdrv_snapshot_find_by_id_and_name",
        ));
    }
    if id.is_none() && name.is_none() {
        return Err(both_null());
    }
    let all = list(&flags, graph, bs).map_err(|e| {
        let text = format!("Failed to get a snapshot list: {}", e.errno_text());
        Failure { ret: 0, ..e }.with(QemuError::new(text))
    })?;
    let is = |s: &QemuSnapshotInfo| {
        id.is_none_or(|id| s.id_str.as_bytes() == id)
            && name.is_none_or(|name| s.name.as_bytes() == name)
    };
    Ok(all.into_iter().find(is))
}

pub(super) fn both_null() -> Failure {
    Failure::new(errno::EINVAL, "snapshot_id and name are both NULL")
}
