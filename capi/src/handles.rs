//! Handles: what C holds of stores, graphs and nodes. They are numbers in the shape of pointers, given out once and never
//! followed, so that a stale or made-up one is an error and nothing worse.

use crate::boundary::{Outcome, invalid, report};
use crate::text::{c_string, null};
use std::cell::Cell;
use std::collections::HashMap;
use std::ffi::{CString, c_char};
use std::ptr;
use std::sync::{Arc, LazyLock, Mutex, MutexGuard, PoisonError};
use stillpoint_api::System;
use stillpoint_api::compat::{Failure, Graph, NodeId};

/// `BlockDriverState`: a node.
pub enum BlockDriverState {}
/// `StillpointStore`: an open store.
pub enum StoreHandle {}
/// `StillpointGraph`: the nodes of one machine.
pub enum GraphHandle {}

/// The nodes of one machine, under one lock as QEMU's are under its own.
pub struct Machine {
    state: Mutex<State>,
}

/// What is under that lock.
pub struct State {
    /// The nodes.
    pub graph: Graph,
    handles: HashMap<NodeId, usize>,
}

/// What the handle of a node stands for.
pub struct NodeEntry {
    machine: Arc<Machine>,
    id: NodeId,
    /// Texts that C was given; they live as long as the handle.
    texts: Mutex<Vec<CString>>,
}

#[derive(Default)]
struct Handles {
    given: usize,
    stores: HashMap<usize, Arc<System>>,
    machines: HashMap<usize, Arc<Machine>>,
    nodes: HashMap<usize, Arc<NodeEntry>>,
}

/// Taken for a moment only, and while no other lock is asked for.
static HANDLES: LazyLock<Mutex<Handles>> = LazyLock::new(Mutex::default);
/// The machine of threads that entered none.
static DEFAULT: LazyLock<Arc<Machine>> = LazyLock::new(Machine::new);

thread_local! {
    /// Handle of the machine that this thread is in; 0 for the default one.
    static CURRENT: Cell<usize> = const { Cell::new(0) };
}

/// A panic under a lock is an error of the call that it happened in; the next call goes on with what is there.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn handles() -> MutexGuard<'static, Handles> {
    lock(&HANDLES)
}

impl Handles {
    /// Looks like the address of something, and is never 0.
    fn next(&mut self) -> usize {
        self.given += 1;
        self.given * 64
    }
}

fn pointer<T>(handle: usize) -> *mut T {
    ptr::without_provenance_mut(handle)
}

impl Machine {
    fn new() -> Arc<Self> {
        let state = State {
            graph: Graph::new(),
            handles: HashMap::new(),
        };
        Arc::new(Self {
            state: Mutex::new(state),
        })
    }

    /// What the graph reports goes to the text of the last error.
    fn with<T>(
        self: &Arc<Self>,
        act: impl FnOnce(&mut State, &Arc<Self>) -> Outcome<T>,
    ) -> Outcome<T> {
        let mut state = lock(&self.state);
        let done = act(&mut state, self);
        report(state.graph.take_reports());
        done
    }
}

impl State {
    /// Gives out the handle of a node that was just added.
    pub fn adopt(&mut self, machine: &Arc<Machine>, id: NodeId) -> *mut BlockDriverState {
        let entry = NodeEntry {
            machine: machine.clone(),
            id,
            texts: Mutex::default(),
        };
        let mut all = handles();
        let handle = all.next();
        all.nodes.insert(handle, Arc::new(entry));
        self.handles.insert(id, handle);
        pointer(handle)
    }

    /// The handle of a node; NULL for none.
    pub fn handle(&self, id: Option<NodeId>) -> *mut BlockDriverState {
        let handle = id.and_then(|id| self.handles.get(&id));
        handle.map_or(ptr::null_mut(), |handle| pointer(*handle))
    }

    /// Takes a node out; its handle is stale from here on.
    pub fn drop_node(&mut self, id: NodeId) {
        self.graph.remove(id);
        if let Some(handle) = self.handles.remove(&id) {
            handles().nodes.remove(&handle);
        }
    }

    /// Takes everything out, backends too. A call that looked its handle up before this and gets the lock after it finds
    /// its node gone, never another one in its place.
    pub fn clear(&mut self) {
        self.graph.clear();
        let gone = std::mem::take(&mut self.handles);
        let mut all = handles();
        let entries: Vec<_> = gone.values().filter_map(|h| all.nodes.remove(h)).collect();
        drop(all);
        drop(entries);
    }
}

/// The entry of a node's handle.
pub fn node(bs: *mut BlockDriverState) -> Outcome<Arc<NodeEntry>> {
    if bs.is_null() {
        return Err(null("bs"));
    }
    let found = handles().nodes.get(&bs.addr()).cloned();
    found.ok_or_else(detached)
}

fn detached() -> Failure {
    invalid("bs is no node, or one that was detached")
}

/// Does something with a node, under its machine's lock.
pub fn with_node<T>(
    bs: *mut BlockDriverState,
    act: impl FnOnce(&mut Graph, NodeId) -> Outcome<T>,
) -> Outcome<T> {
    with_node_state(bs, |state, id| act(&mut state.graph, id))
}

/// The same, with the handles of the machine.
pub fn with_node_state<T>(
    bs: *mut BlockDriverState,
    act: impl FnOnce(&mut State, NodeId) -> Outcome<T>,
) -> Outcome<T> {
    node(bs)?.with(act)
}

impl NodeEntry {
    /// The node may have gone between the look at its handle and the machine's lock: it is asked for again.
    fn with<T>(&self, act: impl FnOnce(&mut State, NodeId) -> Outcome<T>) -> Outcome<T> {
        self.machine.with(|state, _| {
            if !state.handles.contains_key(&self.id) {
                return Err(detached());
            }
            act(state, self.id)
        })
    }
}

/// Does something with the machine that the thread is in.
pub fn with_current<T>(act: impl FnOnce(&mut State, &Arc<Machine>) -> Outcome<T>) -> Outcome<T> {
    let machine = match CURRENT.get() {
        0 => DEFAULT.clone(),
        handle => machine(pointer(handle))?,
    };
    machine.with(act)
}

/// A node of the machine that the thread is in.
pub fn own(machine: &Arc<Machine>, bs: *mut BlockDriverState, what: &str) -> Outcome<NodeId> {
    let entry = node(bs).map_err(|_| invalid(format!("{what} is NULL or no node")))?;
    if !Arc::ptr_eq(&entry.machine, machine) {
        return Err(invalid(format!("{what} is a node of another graph")));
    }
    Ok(entry.id)
}

/// A text of a node, for as long as its handle lives.
pub fn keep_text(bs: *mut BlockDriverState, text: &str) -> Outcome<*const c_char> {
    let entry = node(bs)?;
    let text = c_string(text.as_bytes().to_vec());
    let mut texts = lock(&entry.texts);
    if let Some(kept) = texts.iter().find(|kept| **kept == text) {
        return Ok(kept.as_ptr());
    }
    let at = text.as_ptr();
    texts.push(text);
    Ok(at)
}

/// A new machine without nodes.
pub fn new_machine() -> *mut GraphHandle {
    let machine = Machine::new();
    let mut all = handles();
    let handle = all.next();
    all.machines.insert(handle, machine);
    pointer(handle)
}

fn machine(graph: *mut GraphHandle) -> Outcome<Arc<Machine>> {
    let found = handles().machines.get(&graph.addr()).cloned();
    found.ok_or_else(|| invalid("graph is none, or one that was freed"))
}

/// Takes a machine away with all its nodes. Threads that are in it find it gone.
pub fn free_machine(graph: *mut GraphHandle) -> Outcome<()> {
    let found = machine(graph)?;
    handles().machines.remove(&graph.addr());
    lock(&found.state).clear();
    Ok(())
}

/// From here on the thread is in that machine, or in the default one for NULL; returns the one it was in.
pub fn enter(graph: *mut GraphHandle) -> Outcome<*mut GraphHandle> {
    if !graph.is_null() {
        machine(graph)?;
    }
    let before = CURRENT.replace(graph.addr());
    Ok(pointer(before))
}

/// Gives out the handle of a store.
pub fn new_store(system: System) -> *mut StoreHandle {
    let mut all = handles();
    let handle = all.next();
    all.stores.insert(handle, Arc::new(system));
    pointer(handle)
}

/// The store of a handle.
pub fn store(handle: *mut StoreHandle) -> Outcome<Arc<System>> {
    if handle.is_null() {
        return Err(null("store"));
    }
    let found = handles().stores.get(&handle.addr()).cloned();
    found.ok_or_else(|| invalid("store is none, or one that was closed"))
}

/// Forgets the handle. The store is closed when its last node is detached.
pub fn close_store(handle: *mut StoreHandle) {
    let gone = handles().stores.remove(&handle.addr());
    // Outside the lock: closing may wait for the disk.
    drop(gone);
}

#[cfg(test)]
mod tests {
    use super::*;
    use stillpoint_api::compat::errno::EINVAL;
    use stillpoint_api::compat::graph::Node;

    fn add(machine: &Arc<Machine>, name: &str) -> *mut BlockDriverState {
        let added = machine.with(|state, machine| {
            let id = state.graph.add(Node::closed(name)).unwrap();
            Ok(state.adopt(machine, id))
        });
        added.unwrap()
    }

    #[test]
    fn a_handle_that_was_looked_up_before_its_node_went_acts_on_no_other_node() {
        let machine = Machine::new();
        let entry = node(add(&machine, "a")).unwrap();
        lock(&machine.state).clear();
        let b = add(&machine, "b");
        let mut acted_on = None;
        let done = entry.with(|state, id| {
            acted_on = state.graph.get(id).map(|n| n.name.clone());
            Ok(())
        });
        assert_eq!((done.unwrap_err().ret, acted_on), (-EINVAL, None));
        assert!(node(b).is_ok());
    }
}
