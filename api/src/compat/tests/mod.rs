//! Every function in every release, against the reference's tables.

mod all;
mod create;
mod delete;
mod find;
mod goto;
mod graph;
mod img;
mod iotests;
mod load_tmp;
mod loadvm;
mod savevm;
mod select;
mod table;

use crate::compat::driver::Driver;
use crate::compat::graph::{Graph, NodeId};
use crate::compat::info::{IdStr, QemuSnapshotInfo};
use crate::compat::memory::{MemoryTable, Plain};
use crate::compat::monitor::Vm;
use crate::compat::qcow2::Qcow2;
use crate::compat::release::Release;
use crate::compat::{Failure, bdrv_snapshot_create, bdrv_snapshot_list};
use std::io::{self, Read, Write};
use stillpoint_store::world::Moment;

fn r(text: &str) -> Release {
    text.parse().unwrap()
}

/// Releases from one to another.
fn releases(first: &str, last: &str) -> impl Iterator<Item = Release> + use<> {
    let (first, last) = (r(first), r(last));
    Release::all().filter(move |release| (first..=last).contains(release))
}

fn info(id: &str, name: &str) -> QemuSnapshotInfo {
    QemuSnapshotInfo {
        id_str: IdStr::from(id),
        ..QemuSnapshotInfo::named(name.as_bytes())
    }
}

/// A qcow2 disk of zeros with snapshots of these ids and names; each snapshot's bytes are its number, from 1 on.
fn table(entries: &[(&str, &str)]) -> MemoryTable {
    let mut table = MemoryTable::new(&[0; 4]);
    for ((id, name), n) in entries.iter().zip(1..) {
        table.insert(info(id, name), &[n; 4]);
    }
    table
}

fn qcow2(entries: &[(&str, &str)]) -> Box<dyn Driver> {
    Box::new(Qcow2::new(table(entries)))
}

fn raw() -> Box<dyn Driver> {
    Box::new(Plain::new("raw", &[0; 4]))
}

/// A graph of drives named d0, d1, ...
fn drives(drivers: Vec<Box<dyn Driver>>) -> (Graph, Vec<NodeId>) {
    let mut graph = Graph::new();
    let add = |(driver, n)| graph.add_drive(&format!("d{n}"), driver).unwrap();
    let nodes = drivers.into_iter().zip(0..).map(add).collect();
    (graph, nodes)
}

fn one(driver: Box<dyn Driver>) -> (Graph, NodeId) {
    let (graph, nodes) = drives(vec![driver]);
    (graph, nodes[0])
}

/// Ids and names in the table's order.
fn listed(release: Release, graph: &mut Graph, bs: NodeId) -> Vec<(String, String)> {
    let all = bdrv_snapshot_list(release, graph, bs).unwrap();
    let pair = |s: QemuSnapshotInfo| (s.id_str.to_string(), s.name.to_string());
    all.into_iter().map(pair).collect()
}

fn pairs(of: &[(&str, &str)]) -> Vec<(String, String)> {
    of.iter().map(|(a, b)| ((*a).into(), (*b).into())).collect()
}

fn create(release: Release, graph: &mut Graph, bs: NodeId, name: &str) -> Result<String, Failure> {
    let mut sn = info("", name);
    bdrv_snapshot_create(release, graph, bs, &mut sn)?;
    Ok(sn.id_str.to_string())
}

/// The disk's bytes.
fn disk(graph: &mut Graph, bs: NodeId) -> Vec<u8> {
    let driver = graph.driver(bs).unwrap();
    let mut bytes = vec![0xee; driver.size().unwrap() as usize];
    driver.read_at(0, &mut bytes).unwrap();
    bytes
}

#[track_caller]
fn errno(failed: Result<impl Sized, Failure>) -> i32 {
    -failed.err().expect("it fails").ret
}

#[track_caller]
fn message(failed: Result<impl Sized, Failure>) -> Option<String> {
    failed.err().expect("it fails").error.map(|e| e.to_string())
}

/// A machine whose state is a text.
struct Machine {
    state: Vec<u8>,
    running: bool,
    icount: Option<u64>,
    fails: bool,
}

impl Machine {
    fn new(state: &str) -> Self {
        Self {
            state: state.into(),
            running: true,
            icount: Some(77),
            fails: false,
        }
    }
}

impl Vm for Machine {
    fn is_running(&self) -> bool {
        self.running
    }

    fn stop(&mut self) {
        self.running = false;
    }

    fn start(&mut self) {
        self.running = true;
    }

    fn now(&self) -> Moment {
        Moment {
            sec: 1_795_207_046,
            nsec: 123_456_789,
        }
    }

    fn utc_offset(&self, _: u64) -> i64 {
        3600
    }

    fn clock_nsec(&self) -> u64 {
        42
    }

    fn icount(&self) -> Option<u64> {
        self.icount
    }

    fn save(&mut self, to: &mut dyn Write) -> io::Result<()> {
        to.write_all(&self.state)?;
        if self.fails {
            Err(io::Error::other("lost"))
        } else {
            Ok(())
        }
    }

    fn load(&mut self, from: &mut dyn Read) -> io::Result<()> {
        self.state.clear();
        from.read_to_end(&mut self.state)?;
        if self.fails {
            Err(io::Error::other("lost"))
        } else {
            Ok(())
        }
    }
}
