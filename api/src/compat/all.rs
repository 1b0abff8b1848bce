//! The group functions, `bdrv_all_*`, from 2.5 on. They stop at the first node that fails and undo nothing: nodes that
//! were done stay done, in every release. The native API does better.

use crate::compat::can::can;
use crate::compat::create::create;
use crate::compat::delete::{delete, delete_by_id_or_name};
use crate::compat::eras::{DeviceFilter, Flags, GroupDeleteKey, GroupDeleteRet, GroupResult};
use crate::compat::errno;
use crate::compat::failure::{Failure, QemuError};
use crate::compat::find::find;
use crate::compat::goto::goto;
use crate::compat::graph::{Graph, NodeId};
use crate::compat::info::QemuSnapshotInfo;
use crate::compat::release::Release;

/// `has_devices, devices`: the list that group functions take from 6.0 on. The default is none, as for earlier releases.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Devices {
    /// `has_devices`.
    pub has: bool,
    /// Node names; an empty list is C's NULL. Where `has` is false but names are given, the nodes are those of no list,
    /// but none is left out.
    pub names: Vec<String>,
}

impl Devices {
    /// A list.
    pub fn list(names: &[&str]) -> Self {
        Self {
            has: true,
            names: names.iter().map(ToString::to_string).collect(),
        }
    }
}

/// The nodes that a group function goes over, and whether the filter has a say.
pub(super) struct Chosen {
    pub nodes: Vec<NodeId>,
    pub filtered: bool,
}

/// The nodes of a call; checks that the release has the function and the list.
fn begin(
    release: Release,
    graph: &Graph,
    function: &str,
    devices: &Devices,
) -> Result<(Flags, Chosen), Failure> {
    let flags = release.flags();
    if !flags.group_api {
        return Err(Failure::absent(release, function));
    }
    if !flags.group_devices_param && *devices != Devices::default() {
        return Err(Failure::absent(
            release,
            &format!("device list for {function}"),
        ));
    }
    Ok((flags, choose(graph, devices)?))
}

pub(super) fn choose(graph: &Graph, devices: &Devices) -> Result<Chosen, Failure> {
    let filtered = devices.names.is_empty();
    if !devices.has {
        let nodes = graph.roots();
        return Ok(Chosen { nodes, filtered });
    }
    if filtered {
        return Err(group_failure(
            "At least one device is required for snapshot",
        ));
    }
    let named = |name: &String| {
        let missing = || group_failure(format!("No block device node '{name}'"));
        graph.named(name).ok_or_else(missing)
    };
    let nodes = devices.names.iter().map(named).collect::<Result<_, _>>()?;
    Ok(Chosen { nodes, filtered })
}

/// -1 with an Error object, as from 6.0 on.
fn group_failure(message: impl Into<Vec<u8>>) -> Failure {
    Failure {
        ret: -1,
        ..Failure::errno(0)
    }
    .with(QemuError::new(message))
}

/// F, or `can_snapshot` in the releases that asked that; a node of a list is always in.
pub(super) fn takes_part(flags: &Flags, graph: &Graph, chosen: &Chosen, node: NodeId) -> bool {
    if !chosen.filtered {
        return true;
    }
    match flags.device_filter {
        DeviceFilter::CanSnapshot => can(flags, graph, node),
        DeviceFilter::F => {
            let read_only = graph.get(node).is_none_or(|n| n.read_only);
            let held = graph.has_backend(node) || !graph.has_parents(node);
            graph.is_inserted(node) && !read_only && held
        }
    }
}

/// True, or the first node that bars a snapshot of all: inserted, writable and without snapshots.
pub fn bdrv_all_can_snapshot(
    release: Release,
    graph: &Graph,
    devices: &Devices,
) -> Result<(), Failure> {
    let as_bool = |e: Failure| Failure { ret: 0, ..e };
    let (flags, chosen) = begin(release, graph, "bdrv_all_can_snapshot", devices)
        .map_err(|e| if e.ret == -1 { as_bool(e) } else { e })?;
    all_can(&flags, graph, &chosen)
}

pub(super) fn all_can(flags: &Flags, graph: &Graph, chosen: &Chosen) -> Result<(), Failure> {
    let bars =
        |node: &&NodeId| must_snapshot(flags, graph, chosen, **node) && !can(flags, graph, **node);
    let Some(bad) = chosen.nodes.iter().find(bars) else {
        return Ok(());
    };
    let e = Failure::errno(0);
    Err(match flags.group_result {
        GroupResult::FirstBad => e.on(*bad),
        GroupResult::Errp => {
            let name = graph.device_or_node_name(*bad);
            let text = format!("Device '{name}' is writable but does not support snapshots");
            e.with(QemuError::new(text))
        }
    })
}

fn must_snapshot(flags: &Flags, graph: &Graph, chosen: &Chosen, node: NodeId) -> bool {
    match flags.device_filter {
        DeviceFilter::CanSnapshot => {
            let read_only = graph.get(node).is_none_or(|n| n.read_only);
            graph.is_inserted(node) && !read_only
        }
        DeviceFilter::F => takes_part(flags, graph, chosen, node),
    }
}

/// Deletes one snapshot of that name on each node that has one; that nobody has it is success.
pub fn bdrv_all_delete_snapshot(
    release: Release,
    graph: &mut Graph,
    name: &[u8],
    devices: &Devices,
) -> Result<(), Failure> {
    let (flags, chosen) =
        begin(release, graph, "bdrv_all_delete_snapshot", devices).map_err(|e| {
            let errno_again =
                release.flags().group_delete_ret == GroupDeleteRet::Errno && e.ret == -1;
            let ret = if errno_again { -errno::EINVAL } else { e.ret };
            Failure { ret, ..e }
        })?;
    all_delete(&flags, graph, &chosen, name)
}

pub(super) fn all_delete(
    flags: &Flags,
    graph: &mut Graph,
    chosen: &Chosen,
    name: &[u8],
) -> Result<(), Failure> {
    for node in &chosen.nodes {
        if !takes_part(flags, graph, chosen, *node) {
            continue;
        }
        let Ok(found) = find(flags, graph, *node, name) else {
            continue;
        };
        let deleted = match flags.group_delete_key {
            GroupDeleteKey::IdOrName => delete_by_id_or_name(flags, graph, *node, name),
            GroupDeleteKey::Found => {
                let (id, name) = (found.id_str.as_bytes(), found.name.as_bytes());
                delete(flags, graph, *node, Some(id), Some(name))
            }
        };
        deleted.map_err(|e| delete_failure(flags, graph, *node, name, e))?;
    }
    Ok(())
}

fn delete_failure(flags: &Flags, graph: &Graph, node: NodeId, name: &[u8], e: Failure) -> Failure {
    let prefixed = |e, ret| prefixed(graph, node, b"Could not delete snapshot '", name, e, ret);
    match flags.group_delete_ret {
        GroupDeleteRet::Driver => e.on(node),
        GroupDeleteRet::MinusOne => prefixed(e, -1),
        GroupDeleteRet::Errno => {
            let ret = e.ret;
            prefixed(e, ret)
        }
    }
}

/// `DOING'NAME' on 'DEVICE': TEXT`.
fn prefixed(
    graph: &Graph,
    node: NodeId,
    doing: &[u8],
    name: &[u8],
    mut e: Failure,
    ret: i32,
) -> Failure {
    let device = graph.device_or_node_name(node).as_bytes();
    let error = e.error.take();
    let error = error.unwrap_or_else(|| QemuError::new(e.errno_text()));
    let error = error.prefixed(&[doing, name, b"' on '", device, b"': "]);
    Failure { ret, ..e }.with(error)
}

/// Makes each node hold its snapshot of that name; none is asked first whether it has one.
pub fn bdrv_all_goto_snapshot(
    release: Release,
    graph: &mut Graph,
    name: &[u8],
    devices: &Devices,
) -> Result<(), Failure> {
    let (flags, chosen) = begin(release, graph, "bdrv_all_goto_snapshot", devices)?;
    all_goto(&flags, graph, &chosen, name)
}

pub(super) fn all_goto(
    flags: &Flags,
    graph: &mut Graph,
    chosen: &Chosen,
    name: &[u8],
) -> Result<(), Failure> {
    for node in &chosen.nodes {
        if !takes_part(flags, graph, chosen, *node) {
            continue;
        }
        goto(flags, graph, *node, name).map_err(|e| match flags.group_result {
            GroupResult::FirstBad => e.on(*node),
            GroupResult::Errp => prefixed(graph, *node, b"Could not load snapshot '", name, e, -1),
        })?;
    }
    Ok(())
}

/// Whether every node has it: -ENOENT and the first that does not. From 2.5 through 5.2.
pub fn bdrv_all_find_snapshot(
    release: Release,
    graph: &mut Graph,
    name: &[u8],
) -> Result<(), Failure> {
    let none = Devices::default();
    let (flags, chosen) = begin(release, graph, "bdrv_all_find_snapshot", &none)?;
    if flags.group_result == GroupResult::Errp {
        return Err(Failure::absent(
            release,
            "bdrv_all_find_snapshot, but bdrv_all_has_snapshot",
        ));
    }
    all_find(&flags, graph, &chosen, name)
}

pub(super) fn all_find(
    flags: &Flags,
    graph: &mut Graph,
    chosen: &Chosen,
    name: &[u8],
) -> Result<(), Failure> {
    for node in &chosen.nodes {
        if takes_part(flags, graph, chosen, *node) {
            find(flags, graph, *node, name).map_err(|e| e.on(*node))?;
        }
    }
    Ok(())
}

/// 1, 0 or -1: whether every node has it. From 6.0 on.
pub fn bdrv_all_has_snapshot(
    release: Release,
    graph: &mut Graph,
    name: &[u8],
    devices: &Devices,
) -> Result<bool, Failure> {
    if release.flags().group_result != GroupResult::Errp {
        return Err(Failure::absent(release, "bdrv_all_has_snapshot"));
    }
    let (flags, chosen) = begin(release, graph, "bdrv_all_has_snapshot", devices)?;
    Ok(all_find(&flags, graph, &chosen, name).is_ok())
}

/// Makes a snapshot on each node, on the one of the VM state with `vm_state_size`, on the others with 0. The VM state's
/// node need not pass the filter, but is met only where it is gone over. `sn` is changed from node to node.
pub fn bdrv_all_create_snapshot(
    release: Release,
    graph: &mut Graph,
    sn: &mut QemuSnapshotInfo,
    vm_state_bs: Option<NodeId>,
    vm_state_size: u64,
    devices: &Devices,
) -> Result<(), Failure> {
    let (flags, chosen) = begin(release, graph, "bdrv_all_create_snapshot", devices)?;
    all_create(&flags, graph, &chosen, sn, (vm_state_bs, vm_state_size))
}

pub(super) fn all_create(
    flags: &Flags,
    graph: &mut Graph,
    chosen: &Chosen,
    sn: &mut QemuSnapshotInfo,
    (vm_state_bs, vm_state_size): (Option<NodeId>, u64),
) -> Result<(), Failure> {
    for node in &chosen.nodes {
        if vm_state_bs == Some(*node) {
            sn.vm_state_size = vm_state_size;
        } else if takes_part(flags, graph, chosen, *node) {
            sn.vm_state_size = 0;
        } else {
            continue;
        }
        create(flags, graph, *node, sn).map_err(|e| match flags.group_result {
            GroupResult::FirstBad => e.on(*node),
            GroupResult::Errp => {
                let device = graph.device_or_node_name(*node).as_bytes();
                let name = sn.name.as_bytes();
                let text = [
                    b"Could not create snapshot '",
                    name,
                    b"' on '",
                    device,
                    b"'",
                ]
                .concat();
                Failure { ret: -1, ..e }.with(QemuError::new(text))
            }
        })?;
    }
    Ok(())
}

/// The node that VM state goes to: the first that takes part and can, or from 6.0 on the one of that node name. C got
/// NULL for `None`, and for an error, which from 6.0 on has an Error object.
pub fn bdrv_all_find_vmstate_bs(
    release: Release,
    graph: &Graph,
    vmstate_bs: Option<&str>,
    devices: &Devices,
) -> Result<Option<NodeId>, Failure> {
    let (flags, chosen) = begin(release, graph, "bdrv_all_find_vmstate_bs", devices)
        .map_err(|e| Failure { ret: 0, ..e })?;
    if vmstate_bs.is_some() && !flags.group_devices_param {
        return Err(Failure::absent(release, "choice of the VM state's node"));
    }
    all_find_vmstate(&flags, graph, &chosen, vmstate_bs)
}

pub(super) fn all_find_vmstate(
    flags: &Flags,
    graph: &Graph,
    chosen: &Chosen,
    vmstate_bs: Option<&str>,
) -> Result<Option<NodeId>, Failure> {
    let fits = |node: NodeId| takes_part(flags, graph, chosen, node) && can(flags, graph, node);
    let failed = |text: String| Err(Failure::errno(0).with(QemuError::new(text)));
    let Some(name) = vmstate_bs else {
        return match chosen.nodes.iter().find(|n| fits(**n)) {
            Some(node) => Ok(Some(*node)),
            None if flags.group_result == GroupResult::FirstBad => Ok(None),
            None => failed("no block device can store vmstate for snapshot".into()),
        };
    };
    let is = |n: &&NodeId| graph.get(**n).is_some_and(|n| n.name == name);
    match chosen.nodes.iter().find(is) {
        Some(node) if fits(*node) => Ok(Some(*node)),
        Some(_) => failed(format!(
            "vmstate block device '{name}' does not support snapshots"
        )),
        None => failed(format!("vmstate block device '{name}' does not exist")),
    }
}
