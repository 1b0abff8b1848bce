//! Graphs: nodes added, connected, taken out.

use crate::boundary::{Outcome, call_int, call_ptr, invalid, of_store};
use crate::error::Error;
use crate::handles::{
    BlockDriverState, GraphHandle, StoreHandle, enter, free_machine, new_machine, own, store,
    with_current, with_node, with_node_state,
};
use crate::text::{null, string};
use std::ffi::{c_char, c_int, c_uint, c_void};
use std::{ptr, slice};
use stillpoint_api::compat::StoreTable;
use stillpoint_api::compat::graph::{DirtyBitmap, Node, Role};
use stillpoint_api::compat::memory::{MemoryTable, Plain};
use stillpoint_api::compat::qcow2::Qcow2;

const CHILD_DATA: c_uint = 1;
const CHILD_METADATA: c_uint = 2;
const CHILD_FILTERED: c_uint = 4;
const CHILD_COW: c_uint = 8;
const CHILD_PRIMARY: c_uint = 16;
const CHILD_ALL: c_uint = 31;

/// A graph without nodes. No thread is in it yet.
#[unsafe(no_mangle)]
pub extern "C" fn stillpoint_graph_new() -> *mut GraphHandle {
    // SAFETY: there is no Error object.
    unsafe {
        call_ptr(
            "stillpoint_graph_new",
            ptr::null_mut(),
            || Ok(new_machine()),
        )
    }
}

/// Frees a graph and detaches its nodes.
#[unsafe(no_mangle)]
pub extern "C" fn stillpoint_graph_free(graph: *mut GraphHandle) {
    let act = || {
        if !graph.is_null() {
            free_machine(graph)?;
        }
        Ok(0)
    };
    // SAFETY: there is no Error object.
    unsafe { call_int("stillpoint_graph_free", ptr::null_mut(), act) };
}

/// From here on this thread is in that graph, NULL for the process's own. Returns the one it was in.
#[unsafe(no_mangle)]
pub extern "C" fn stillpoint_graph_enter(graph: *mut GraphHandle) -> *mut GraphHandle {
    // SAFETY: there is no Error object.
    unsafe { call_ptr("stillpoint_graph_enter", ptr::null_mut(), || enter(graph)) }
}

/// Adds a node to the graph that the thread is in.
fn add(node: Node) -> Outcome<*mut BlockDriverState> {
    with_current(|state, machine| {
        let id = state.graph.add(node).map_err(of_store)?;
        Ok(state.adopt(machine, id))
    })
}

/// Attaches a device of a store as a drive of its name: a node of that name below a backend of that name.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn stillpoint_attach(
    handle: *mut StoreHandle,
    device: *const c_char,
    errp: *mut *mut Error,
) -> *mut BlockDriverState {
    let act = || {
        let system = store(handle)?;
        // SAFETY: a string or NULL, which the caller keeps during the call.
        let device = unsafe { string(device, "device") }?;
        with_current(|state, machine| {
            let id = state.graph.add_device(&system, &device).map_err(of_store)?;
            Ok(state.adopt(machine, id))
        })
    };
    // SAFETY: the header makes it NULL or an `Error **`.
    unsafe { call_ptr("stillpoint_attach", errp, act) }
}

/// Attaches a device of a store as a node of that name without a backend, as `-blockdev` does.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn stillpoint_attach_node(
    handle: *mut StoreHandle,
    device: *const c_char,
    node_name: *const c_char,
    errp: *mut *mut Error,
) -> *mut BlockDriverState {
    let act = || {
        let system = store(handle)?;
        // SAFETY: a string or NULL, which the caller keeps during the call.
        let device = unsafe { string(device, "device") }?;
        // SAFETY: likewise.
        let node_name = unsafe { string(node_name, "node_name") }?;
        let view = system.device(&device).map_err(of_store)?;
        let table = StoreTable::open(system, &device).map_err(of_store)?;
        let mut node = Node::new(&node_name, Box::new(Qcow2::new(table)));
        node.read_only = view.read_only;
        add(node)
    };
    // SAFETY: the header makes it NULL or an `Error **`.
    unsafe { call_ptr("stillpoint_attach_node", errp, act) }
}

/// Adds a disk in memory with snapshots, with a copy of these bytes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn stillpoint_add_memory(
    node_name: *const c_char,
    bytes: *const c_void,
    size: usize,
    errp: *mut *mut Error,
) -> *mut BlockDriverState {
    let act = || {
        // SAFETY: a string or NULL, which the caller keeps during the call.
        let node_name = unsafe { string(node_name, "node_name") }?;
        if isize::try_from(size).is_err() {
            return Err(invalid("size is more than any memory has"));
        }
        let disk = match (size, bytes.is_null()) {
            (0, _) => &[],
            (_, true) => return Err(null("bytes")),
            // SAFETY: the caller has as many bytes there, and keeps them during the call.
            (_, false) => unsafe { slice::from_raw_parts(bytes.cast::<u8>(), size) },
        };
        add(Node::new(
            &node_name,
            Box::new(Qcow2::new(MemoryTable::new(disk))),
        ))
    };
    // SAFETY: the header makes it NULL or an `Error **`.
    unsafe { call_ptr("stillpoint_add_memory", errp, act) }
}

/// Adds a node of a format without snapshots: a raw disk, a filter, a protocol. It has no bytes of its own.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn stillpoint_add_plain(
    node_name: *const c_char,
    format: *const c_char,
    errp: *mut *mut Error,
) -> *mut BlockDriverState {
    let act = || {
        // SAFETY: a string or NULL, which the caller keeps during the call.
        let node_name = unsafe { string(node_name, "node_name") }?;
        // SAFETY: likewise.
        let format = unsafe { string(format, "format") }?;
        add(Node::new(&node_name, Box::new(Plain::new(&format, &[]))))
    };
    // SAFETY: the header makes it NULL or an `Error **`.
    unsafe { call_ptr("stillpoint_add_plain", errp, act) }
}

/// Adds a backend that holds a node, or for NULL an empty tray.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn stillpoint_add_backend(
    name: *const c_char,
    root: *mut BlockDriverState,
    errp: *mut *mut Error,
) -> c_int {
    let act = || {
        // SAFETY: a string or NULL, which the caller keeps during the call.
        let name = unsafe { string(name, "name") }?;
        with_current(|state, machine| {
            let root = (!root.is_null())
                .then(|| own(machine, root, "root"))
                .transpose()?;
            if !name.is_empty() && state.graph.backends().iter().any(|b| b.name == name) {
                return Err(invalid(format!("there is a backend {name:?}")));
            }
            state.graph.add_backend(&name, root);
            Ok(0)
        })
    };
    // SAFETY: the header makes it NULL or an `Error **`.
    unsafe { call_int("stillpoint_add_backend", errp, act) }
}

/// Makes one node a child of another, in a role of `STILLPOINT_CHILD_*` bits.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn stillpoint_add_child(
    parent: *mut BlockDriverState,
    name: *const c_char,
    role: c_uint,
    child: *mut BlockDriverState,
    errp: *mut *mut Error,
) -> c_int {
    let act = || {
        // SAFETY: a string or NULL, which the caller keeps during the call.
        let name = unsafe { string(name, "name") }?;
        if role & !CHILD_ALL != 0 {
            return Err(invalid(format!(
                "role {role:#x} has bits that mean nothing"
            )));
        }
        let role = Role {
            data: role & CHILD_DATA != 0,
            metadata: role & CHILD_METADATA != 0,
            filtered: role & CHILD_FILTERED != 0,
            cow: role & CHILD_COW != 0,
            primary: role & CHILD_PRIMARY != 0,
        };
        with_current(|state, machine| {
            let parent = own(machine, parent, "parent")?;
            let child = own(machine, child, "child")?;
            let added = state.graph.add_child(parent, &name, role, child);
            added.map_err(of_store)?;
            Ok(0)
        })
    };
    // SAFETY: the header makes it NULL or an `Error **`.
    unsafe { call_int("stillpoint_add_child", errp, act) }
}

/// Puts a dirty bitmap on a node.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn stillpoint_add_bitmap(
    bs: *mut BlockDriverState,
    name: *const c_char,
    errp: *mut *mut Error,
) -> c_int {
    let act = || {
        // SAFETY: a string or NULL, which the caller keeps during the call.
        let name = unsafe { string(name, "name") }?;
        with_node(bs, |graph, id| {
            if let Some(node) = graph.get_mut(id) {
                node.bitmaps.push(DirtyBitmap::new(&name));
            }
            Ok(0)
        })
    };
    // SAFETY: the header makes it NULL or an `Error **`.
    unsafe { call_int("stillpoint_add_bitmap", errp, act) }
}

/// Takes the dirty bitmaps of that name off a node; returns how many there were.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn stillpoint_remove_bitmap(
    bs: *mut BlockDriverState,
    name: *const c_char,
    errp: *mut *mut Error,
) -> c_int {
    let act = || {
        // SAFETY: a string or NULL, which the caller keeps during the call.
        let name = unsafe { string(name, "name") }?;
        with_node(bs, |graph, id| {
            let Some(node) = graph.get_mut(id) else {
                return Ok(0);
            };
            let before = node.bitmaps.len();
            node.bitmaps.retain(|b| b.name != name);
            let gone = before - node.bitmaps.len();
            Ok(c_int::try_from(gone).unwrap_or(c_int::MAX))
        })
    };
    // SAFETY: the header makes it NULL or an `Error **`.
    unsafe { call_int("stillpoint_remove_bitmap", errp, act) }
}

/// Closes what is behind a node: from here on it has "no medium". The node stays.
#[unsafe(no_mangle)]
pub extern "C" fn stillpoint_close_node(bs: *mut BlockDriverState) -> c_int {
    let act = || {
        let driver = with_node(bs, |graph, id| {
            Ok(graph.get_mut(id).and_then(|node| node.driver.take()))
        })?;
        drop(driver);
        Ok(0)
    };
    // SAFETY: there is no Error object.
    unsafe { call_int("stillpoint_close_node", ptr::null_mut(), act) }
}

/// Takes a node out of its graph. Its handle, and texts that were had of it, are gone.
#[unsafe(no_mangle)]
pub extern "C" fn stillpoint_detach(bs: *mut BlockDriverState) -> c_int {
    let act = || {
        with_node_state(bs, |state, id| {
            state.drop_node(id);
            Ok(0)
        })
    };
    // SAFETY: there is no Error object.
    unsafe { call_int("stillpoint_detach", ptr::null_mut(), act) }
}

/// Takes all nodes and backends out of the graph that the thread is in.
#[unsafe(no_mangle)]
pub extern "C" fn stillpoint_detach_all() {
    let act = || {
        with_current(|state, _| {
            state.clear();
            Ok(0)
        })
    };
    // SAFETY: there is no Error object.
    unsafe { call_int("stillpoint_detach_all", ptr::null_mut(), act) };
}
