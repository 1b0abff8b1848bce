//! The graph of nodes that group functions choose from: QEMU's `BlockDriverState`s with their backends, parents and
//! children.

use crate::compat::driver::{Driver, DriverError};
use crate::compat::eras::Flags;
use crate::compat::failure::Failure;
use std::collections::{BTreeMap, BTreeSet};
use stillpoint_store::{Error, ErrorKind, Result};

/// Nodes one below the other at most. What goes down from a node needs stack for each; backing chains have a few dozen.
pub const DEPTH_MAX: usize = 256;

/// A node of one graph: `BlockDriverState *`. Never used for another node again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeId(usize);

impl NodeId {
    /// For handles in other languages.
    pub fn index(self) -> usize {
        self.0
    }

    /// The node of a handle. One that was never given out behaves as a node without a driver.
    pub fn from_index(index: usize) -> Self {
        Self(index)
    }
}

/// What a child is for its parent, as QEMU's `BDRV_CHILD_*` bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "each is a bit of its own in QEMU"
)]
pub struct Role {
    /// Guest data.
    pub data: bool,
    /// The format's own data.
    pub metadata: bool,
    /// What a filter passes through.
    pub filtered: bool,
    /// A backing file.
    pub cow: bool,
    /// The most important child.
    pub primary: bool,
}

impl Role {
    /// The file below a format: data and metadata, primary.
    pub const IMAGE: Self = Self {
        data: true,
        metadata: true,
        filtered: false,
        cow: false,
        primary: true,
    };
    /// What a filter filters, primary.
    pub const FILTERED: Self = Self {
        data: false,
        metadata: false,
        filtered: true,
        cow: false,
        primary: true,
    };
    /// An external data file.
    pub const DATA: Self = Self {
        data: true,
        metadata: false,
        filtered: false,
        cow: false,
        primary: false,
    };
    /// A backing file.
    pub const COW: Self = Self {
        data: false,
        metadata: false,
        filtered: false,
        cow: true,
        primary: false,
    };
}

/// An edge of the graph.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Child {
    /// The parent's name for it: `file`, `backing`, `data-file`.
    pub name: String,
    /// What it is for.
    pub role: Role,
    /// The node.
    pub node: NodeId,
}

/// A dirty bitmap on a node. Any one blocks goto from 2.11 on, whatever it is doing, since what it says would be wrong
/// afterwards.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DirtyBitmap {
    /// Its name.
    pub name: String,
}

impl DirtyBitmap {
    /// One of that name.
    pub fn new(name: &str) -> Self {
        Self { name: name.into() }
    }
}

/// A node.
#[expect(
    clippy::struct_excessive_bools,
    reason = "each is asked of QEMU's nodes by itself"
)]
pub struct Node {
    /// Its node name.
    pub name: String,
    /// What is behind it; none: closed, "no medium".
    pub driver: Option<Box<dyn Driver>>,
    /// It was opened read-only.
    pub read_only: bool,
    /// It was handed over in a migration: not read-only, and not writable either.
    pub inactive: bool,
    /// The tray has a medium.
    pub inserted: bool,
    /// It was opened as a temporary snapshot (`-snapshot`).
    pub temporary: bool,
    /// The monitor made it (`-blockdev`), so that the group functions see it also without a backend.
    pub monitor_owned: bool,
    /// Its dirty bitmaps.
    pub bitmaps: Vec<DirtyBitmap>,
    children: Vec<Child>,
    /// Once for each edge to it.
    parents: Vec<NodeId>,
}

impl Node {
    /// A writable node with a medium, without children, made by the monitor.
    pub fn new(name: &str, driver: Box<dyn Driver>) -> Self {
        Self {
            driver: Some(driver),
            ..Self::closed(name)
        }
    }

    /// The same without a driver.
    pub fn closed(name: &str) -> Self {
        Self {
            name: name.into(),
            driver: None,
            read_only: false,
            inactive: false,
            inserted: true,
            temporary: false,
            monitor_owned: true,
            bitmaps: Vec::new(),
            children: Vec::new(),
            parents: Vec::new(),
        }
    }

    /// Read-only.
    #[must_use]
    pub fn read_only(mut self) -> Self {
        self.read_only = true;
        self
    }

    /// Made on the way to another node, as the file below a `-drive` is: seen only through a backend.
    #[must_use]
    pub fn implicit(mut self) -> Self {
        self.monitor_owned = false;
        self
    }

    /// Its children.
    pub fn children(&self) -> &[Child] {
        &self.children
    }

    fn next(&self, to: Direction) -> Vec<NodeId> {
        match to {
            Direction::Up => self.parents.clone(),
            Direction::Down => self.children.iter().map(|c| c.node).collect(),
        }
    }
}

/// Along the edges of the graph.
#[derive(Clone, Copy)]
enum Direction {
    /// To parents.
    Up,
    /// To children.
    Down,
}

/// A `BlockBackend`: what a guest's device or `-drive` holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Backend {
    /// Its name, the "device name"; may be empty.
    pub name: String,
    /// Its root; none: an empty tray.
    pub root: Option<NodeId>,
}

/// All nodes and backends of one QEMU.
#[derive(Default)]
pub struct Graph {
    /// In the order of their adding.
    nodes: BTreeMap<NodeId, Node>,
    /// Nodes that were ever added: no id is given out twice, since handles of nodes that went are still about.
    given: usize,
    backends: Vec<Backend>,
    reports: Vec<Vec<u8>>,
    /// What `bdrv_snapshots` found first.
    pub(super) vmstate_node: Option<NodeId>,
}

impl Graph {
    /// An empty graph.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a node. `AlreadyExists` where another has the name; the empty name may be had by many.
    pub fn add(&mut self, node: Node) -> Result<NodeId> {
        if !node.name.is_empty() && self.named(&node.name).is_some() {
            return Err(Error::new(
                ErrorKind::AlreadyExists,
                format!("adding node {:?}", node.name),
            )
            .detail("there is one of that name"));
        }
        let id = NodeId(self.given);
        self.given += 1;
        self.nodes.insert(id, node);
        Ok(id)
    }

    /// Adds a node below a backend of the same name, as `-drive` does.
    pub fn add_drive(&mut self, name: &str, driver: Box<dyn Driver>) -> Result<NodeId> {
        let node = self.add(Node::new(name, driver).implicit())?;
        self.add_backend(name, Some(node));
        Ok(node)
    }

    /// Adds a backend.
    pub fn add_backend(&mut self, name: &str, root: Option<NodeId>) {
        self.backends.push(Backend {
            name: name.into(),
            root,
        });
    }

    /// Makes one node a child of another. `InvalidInput` for nodes that are not there, or where a node would be below
    /// itself; `AlreadyExists` where the parent has a child of that name; `LimitExceeded` where more than [`DEPTH_MAX`]
    /// nodes would be one below the other.
    pub fn add_child(
        &mut self,
        parent: NodeId,
        name: &str,
        role: Role,
        node: NodeId,
    ) -> Result<()> {
        let bad = |why| Err(Error::invalid("adding a child", why));
        if self.get(node).is_none() {
            return bad("there is no such child");
        }
        if self.below(node).contains(&parent) {
            return bad("a node cannot be below itself");
        }
        let Some(above) = self.get(parent) else {
            return bad("there is no such parent");
        };
        let refuse = |kind, why| Err(Error::new(kind, "adding a child").detail(why));
        if above.children.iter().any(|c| c.name == name) {
            let why = format!("the parent has a child {name:?}");
            return refuse(ErrorKind::AlreadyExists, why);
        }
        if self.height(parent, Direction::Up) + self.height(node, Direction::Down) > DEPTH_MAX {
            let why = format!("more than {DEPTH_MAX} nodes would be one below the other");
            return refuse(ErrorKind::LimitExceeded, why);
        }
        let child = Child {
            name: name.into(),
            role,
            node,
        };
        self.get_mut(parent)
            .into_iter()
            .for_each(|n| n.children.push(child.clone()));
        self.get_mut(node)
            .into_iter()
            .for_each(|n| n.parents.push(parent));
        Ok(())
    }

    /// Takes a node out, with the edges to it; backends that hold it are left with an empty tray.
    pub fn remove(&mut self, node: NodeId) -> Option<Node> {
        let gone = self.nodes.remove(&node)?;
        for child in &gone.children {
            let child = self.nodes.get_mut(&child.node);
            child
                .into_iter()
                .for_each(|n| n.parents.retain(|p| *p != node));
        }
        for parent in &gone.parents {
            let parent = self.nodes.get_mut(parent);
            parent
                .into_iter()
                .for_each(|n| n.children.retain(|c| c.node != node));
        }
        let holding = self.backends.iter_mut().filter(|b| b.root == Some(node));
        holding.for_each(|b| b.root = None);
        Some(gone)
    }

    /// Takes all nodes and backends out. Ids of nodes that went stay used.
    pub fn clear(&mut self) {
        *self = Self {
            given: self.given,
            ..Self::default()
        };
    }

    /// A node.
    pub fn get(&self, node: NodeId) -> Option<&Node> {
        self.nodes.get(&node)
    }

    /// A node, to change it.
    pub fn get_mut(&mut self, node: NodeId) -> Option<&mut Node> {
        self.nodes.get_mut(&node)
    }

    /// The node of that node name.
    pub fn named(&self, name: &str) -> Option<NodeId> {
        let mut all = self.nodes.iter();
        all.find(|(_, n)| n.name == name).map(|(id, _)| *id)
    }

    /// The root of the backend of that name.
    pub fn device(&self, name: &str) -> Option<NodeId> {
        self.backends.iter().find(|b| b.name == name)?.root
    }

    /// All backends.
    pub fn backends(&self) -> &[Backend] {
        &self.backends
    }

    /// Name of the first backend that holds the node, or the empty string.
    pub fn device_name(&self, node: NodeId) -> &str {
        let holder = self.backends.iter().find(|b| b.root == Some(node));
        holder.map_or("", |b| &b.name)
    }

    /// The same, or the node name where no backend has a name.
    pub fn device_or_node_name(&self, node: NodeId) -> &str {
        match self.device_name(node) {
            "" => self.get(node).map_or("", |n| &n.name),
            name => name,
        }
    }

    /// Roots of backends, then nodes of the monitor that no backend holds: QEMU's `bdrv_next`, each node once.
    pub fn roots(&self) -> Vec<NodeId> {
        let mut roots: Vec<NodeId> = Vec::new();
        for root in self.backends.iter().filter_map(|b| b.root) {
            if !roots.contains(&root) {
                roots.push(root);
            }
        }
        let owned = self.nodes.iter().filter(|(_, n)| n.monitor_owned);
        let owned: Vec<NodeId> = owned
            .map(|(id, _)| *id)
            .filter(|id| !roots.contains(id))
            .collect();
        roots.extend(owned);
        roots
    }

    /// What QEMU wrote to standard error since this was called last, a line each.
    pub fn take_reports(&mut self) -> Vec<Vec<u8>> {
        std::mem::take(&mut self.reports)
    }

    pub(super) fn driver(&mut self, node: NodeId) -> Option<&mut Box<dyn Driver>> {
        self.get_mut(node)?.driver.as_mut()
    }

    /// What the caller sees of a driver's error; what the driver printed is printed.
    pub(super) fn fail(&mut self, mut error: DriverError) -> Failure {
        self.reports.extend(error.report.take());
        error.into_failure()
    }

    /// The same with `doing` and the errno's text in the Error object.
    pub(super) fn fail_of(&mut self, mut error: DriverError, doing: &str) -> Failure {
        self.reports.extend(error.report.take());
        error.into_failure_of(doing)
    }

    pub(super) fn report(&mut self, line: impl Into<Vec<u8>>) {
        self.reports.push(line.into());
    }

    /// Whether the node has a driver and a medium, and so has everything below it.
    pub fn is_inserted(&self, node: NodeId) -> bool {
        let has = |id: &NodeId| {
            self.get(*id)
                .is_some_and(|n| n.driver.is_some() && n.inserted)
        };
        self.below(node).iter().all(has)
    }

    /// Whether any other node has it as a child.
    pub fn has_parents(&self, node: NodeId) -> bool {
        self.get(node).is_some_and(|n| !n.parents.is_empty())
    }

    /// Whether a backend holds it.
    pub fn has_backend(&self, node: NodeId) -> bool {
        self.backends.iter().any(|b| b.root == Some(node))
    }

    /// The node and all below it, each met once however many ways lead there.
    fn below(&self, node: NodeId) -> BTreeSet<NodeId> {
        let mut met = BTreeSet::from([node]);
        let mut waiting = vec![node];
        while let Some(id) = waiting.pop() {
            let children = self.get(id).into_iter().flat_map(|n| &n.children);
            waiting.extend(children.map(|c| c.node).filter(|id| met.insert(*id)));
        }
        met
    }

    /// Nodes on the longest way up or down, this one included.
    fn height(&self, node: NodeId, to: Direction) -> usize {
        self.height_of(node, to, &mut BTreeMap::new())
    }

    /// No deeper than `DEPTH_MAX`, which `add_child` sees to; what is known of a node is not asked twice.
    fn height_of(&self, id: NodeId, to: Direction, known: &mut BTreeMap<NodeId, usize>) -> usize {
        if let Some(height) = known.get(&id) {
            return *height;
        }
        let mut highest = 0;
        for next in self.get(id).into_iter().flat_map(|n| n.next(to)) {
            highest = highest.max(self.height_of(next, to, known));
        }
        known.insert(id, highest + 1);
        highest + 1
    }

    /// The child that an operation goes on with where the driver lacks it.
    pub(super) fn fallback(&self, flags: &Flags, node: NodeId) -> Option<NodeId> {
        let children = &self.get(node)?.children;
        if !flags.fallback_primary {
            return children.iter().find(|c| c.name == "file").map(|c| c.node);
        }
        let primary = children.iter().position(|c| c.role.primary)?;
        let counts = |r: Role| r.data || r.metadata || r.filtered;
        let mut others = (0..).zip(children).filter(|(i, _)| *i != primary);
        let alone = !others.any(|(_, c)| counts(c.role));
        alone.then(|| children[primary].node)
    }
}
