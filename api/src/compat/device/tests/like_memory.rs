//! A device of a store and a disk in memory behave alike under random calls of every release.

use super::{Host, r};
use crate::compat::driver::Driver;
use crate::compat::driver::DriverResult;
use crate::compat::graph::{Graph, NodeId};
use crate::compat::info::IdStr;
use crate::compat::info::QemuSnapshotInfo;
use crate::compat::memory::MemoryTable;
use crate::compat::qcow2::{ChooseId, Entry, Qcow2, Table};
use crate::compat::release::Release;
use crate::compat::{
    Failure, bdrv_snapshot_create, bdrv_snapshot_delete, bdrv_snapshot_find, bdrv_snapshot_goto,
    bdrv_snapshot_list, bdrv_snapshot_load_tmp,
};
use std::fs;
use std::sync::{Arc, Mutex};
use stillpoint_store::id::{Hash, Uid};

const SEQUENCES: u64 = 3;
const CALLS: u64 = 40;
const NAMES: [&[u8]; 7] = [b"1", b"2", b"3", b"a", b"", b"\xff", &[b'x'; 300]];

/// Numbers that look random, the same each time.
struct Dice(u64);

impl Dice {
    fn below(&mut self, n: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        (mixed ^ (mixed >> 27)) % n
    }
}

/// The disk in memory, whose guest is outside.
#[derive(Clone)]
struct Shared(Arc<Mutex<MemoryTable>>);

impl Shared {
    fn with<T>(&self, act: impl FnOnce(&mut MemoryTable) -> T) -> T {
        act(&mut self.0.lock().unwrap())
    }
}

impl Table for Shared {
    fn format_name(&self) -> &'static str {
        "stillpoint"
    }

    fn entries(&mut self) -> DriverResult<Vec<Entry>> {
        self.with(Table::entries)
    }

    fn put(&mut self, info: &QemuSnapshotInfo, id: ChooseId<'_>) -> DriverResult<IdStr> {
        self.with(|t| t.put(info, id))
    }

    fn restore(&mut self, uid: Uid) -> DriverResult<()> {
        self.with(|t| t.restore(uid))
    }

    fn remove(&mut self, uid: Uid) -> DriverResult<()> {
        self.with(|t| t.remove(uid))
    }

    fn size(&mut self) -> DriverResult<u64> {
        self.with(Table::size)
    }

    fn read_at(&mut self, of: Option<Uid>, at: u64, into: &mut [u8]) -> DriverResult<()> {
        self.with(|t| t.read_at(of, at, into))
    }

    fn write_vmstate(&mut self, at: u64, bytes: &[u8]) -> DriverResult<()> {
        self.with(|t| t.write_vmstate(at, bytes))
    }

    fn read_vmstate(&mut self, of: Option<Uid>, at: u64, into: &mut [u8]) -> DriverResult<()> {
        self.with(|t| t.read_vmstate(of, at, into))
    }

    fn vmstate_len(&mut self, of: Option<Uid>) -> DriverResult<u64> {
        self.with(|t| t.vmstate_len(of))
    }

    fn discard_vmstate(&mut self) -> DriverResult<()> {
        self.with(Table::discard_vmstate)
    }
}

/// What is called, with all that it needs.
#[derive(Debug, Clone)]
enum Call {
    Create(Box<QemuSnapshotInfo>),
    Goto(Vec<u8>),
    Delete(Option<Vec<u8>>, Option<Vec<u8>>),
    Find(Vec<u8>),
    LoadTmp(Option<Vec<u8>>, Option<Vec<u8>>),
    SaveState(u64, Vec<u8>),
    /// The guest: a disk of that many bytes, all of them this.
    Write(u8, usize),
}

fn call(dice: &mut Dice) -> Call {
    let name = NAMES[dice.below(7) as usize].to_vec();
    let other = NAMES[dice.below(7) as usize].to_vec();
    let (id, name) = match dice.below(5) {
        0 => (None, None),
        1 => (Some(other), Some(name)),
        2 => (Some(name), None),
        _ => (None, Some(name)),
    };
    let word = name.clone().or_else(|| id.clone()).unwrap_or_default();
    match dice.below(15) {
        0..5 => {
            let sizes = [0, 0, 1, 700, 70_000, 200_000];
            let mut sn = QemuSnapshotInfo::named(&word);
            sn.vm_state_size = sizes[dice.below(6) as usize];
            sn.vm_clock_nsec = dice.below(u64::MAX);
            sn.icount = dice.below(3);
            sn.date_sec = dice.below(1 << 32) as u32;
            if dice.below(2) == 0 {
                sn.id_str = IdStr::new(&id.unwrap_or_default());
            }
            Call::Create(Box::new(sn))
        }
        5..8 => Call::Goto(word),
        8 | 9 => Call::Delete(id, name),
        10 => Call::Find(word),
        11 | 12 => {
            let bytes = vec![dice.below(250) as u8 + 1; dice.below(2000) as usize];
            Call::SaveState(dice.below(80_000), bytes)
        }
        _ => Call::Write(dice.below(250) as u8 + 1, 4096 << (dice.below(8) / 6)),
    }
}

/// What a caller can tell from it.
fn seen<T: std::fmt::Debug>(done: Result<T, Failure>) -> String {
    match done {
        Ok(value) => format!("{value:?}"),
        Err(e) => format!("{} {:?}", e.ret, e.error.map(|e| e.message)),
    }
}

fn act(release: Release, graph: &mut Graph, bs: NodeId, call: &Call) -> String {
    match call {
        Call::Create(sn) => {
            let mut sn = **sn;
            let made = bdrv_snapshot_create(release, graph, bs, &mut sn);
            format!("{} {sn:?}", seen(made))
        }
        Call::Goto(name) => seen(bdrv_snapshot_goto(release, graph, bs, name)),
        Call::Delete(id, name) => {
            let (id, name) = (id.as_deref(), name.as_deref());
            seen(bdrv_snapshot_delete(release, graph, bs, id, name))
        }
        Call::Find(name) => seen(bdrv_snapshot_find(release, graph, bs, name)),
        Call::LoadTmp(id, name) => {
            graph.get_mut(bs).unwrap().read_only = true;
            let (id, name) = (id.as_deref(), name.as_deref());
            let loaded = bdrv_snapshot_load_tmp(release, graph, bs, id, name);
            graph.get_mut(bs).unwrap().read_only = false;
            seen(loaded)
        }
        Call::SaveState(at, bytes) => {
            let driver = graph.driver(bs).unwrap();
            driver.save_vmstate(*at, bytes).unwrap();
            String::new()
        }
        Call::Write(..) => String::new(),
    }
}

/// Everything that can be read of a node.
fn state(release: Release, graph: &mut Graph, bs: NodeId) -> String {
    let list = seen(bdrv_snapshot_list(release, graph, bs));
    let driver: &mut Box<dyn Driver> = graph.driver(bs).unwrap();
    let mut disk = vec![0xee; 20_000];
    driver.read_at(0, &mut disk).unwrap();
    let mut vm_state = vec![0xee; 90_000];
    driver.load_vmstate(0, &mut vm_state).unwrap();
    let (size, len) = (driver.size().unwrap(), driver.vmstate_len().unwrap());
    let hash = |bytes: &[u8]| Hash::of(bytes);
    format!(
        "{list} {size} {len} {:?} {:?}",
        hash(&disk),
        hash(&vm_state)
    )
}

/// Both, and what was called so far.
struct Pair {
    release: Release,
    host: Host,
    memory: Graph,
    disk: Shared,
    done: Vec<Call>,
    /// Gotos, deletes and load_tmps that did something.
    met: [u32; 3],
}

impl Pair {
    fn new(release: Release) -> Self {
        let host = Host::new(1);
        fs::write(host.image(0), vec![1; 4096]).unwrap();
        let disk = Shared(Arc::new(Mutex::new(MemoryTable::new(&[1; 4096]))));
        let mut memory = Graph::new();
        let driver = Box::new(Qcow2::new(disk.clone()));
        memory.add_drive("d0", driver).unwrap();
        Self {
            release,
            host,
            memory,
            disk,
            done: Vec::new(),
            met: [0; 3],
        }
    }

    fn act(&mut self, call: &Call) {
        self.done.push(call.clone());
        if let Call::Write(byte, len) = *call {
            fs::write(self.host.image(0), vec![byte; len]).unwrap();
            self.disk.with(|t| t.disk = vec![byte; len]);
        }
        let (release, ours) = (self.release, self.host.nodes[0]);
        let theirs = self.memory.named("d0").unwrap();
        let graph = &mut self.host.graph;
        let here = [act(release, graph, ours, call), state(release, graph, ours)];
        let graph = &mut self.memory;
        let there = [
            act(release, graph, theirs, call),
            state(release, graph, theirs),
        ];
        assert_eq!(here, there, "{release}, after {:#?}", self.done);
        let kind = match call {
            Call::Goto(_) => 0,
            Call::Delete(..) => 1,
            Call::LoadTmp(..) => 2,
            _ => return,
        };
        self.met[kind] += u32::from(here[0] == "()");
    }
}

#[test]
fn random_calls_end_alike_over_a_store_and_in_memory() {
    for release in ["1.0", "1.6", "1.7", "2.3", "2.4", "4.2", "5.1", "11.1"] {
        let mut met = [0; 3];
        for seed in 0..SEQUENCES {
            let mut dice = Dice(seed);
            let mut pair = Pair::new(r(release));
            for _ in 0..CALLS {
                pair.act(&call(&mut dice));
            }
            // Last, since a goto alone ends it.
            for name in NAMES {
                pair.act(&Call::LoadTmp(None, Some(name.to_vec())));
                pair.act(&Call::LoadTmp(Some(name.to_vec()), None));
            }
            met.iter_mut().zip(pair.met).for_each(|(all, n)| *all += n);
        }
        assert!(!met.contains(&0), "{release}: {met:?}, nothing tested");
    }
}
