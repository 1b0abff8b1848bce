//! One state of an image: the active one or a snapshot's, with its disk and its VM state.

use super::entry::L2Entry;
use super::l1::L1;
use super::layer::Table;
use super::{Kind, Layer, Map, Snapshot};
use std::io;
use std::ops::Range;
use std::sync::Arc;
use stillpoint_store::{Error, Result};

/// See the module. Cheap to clone.
#[derive(Debug, Clone)]
pub struct State {
    layer: Arc<Layer>,
    l1: Arc<L1>,
    size: u64,
    /// Where the VM state is, in the guest's address space: behind the disk, at the boundary of an L1 entry.
    vm: Range<u64>,
}

impl State {
    /// The state that a guest would see now.
    pub fn active(layer: &Arc<Layer>) -> Result<Self> {
        let header = layer.header();
        Ok(Self {
            layer: layer.clone(),
            l1: layer.read_l1(header.l1)?.into(),
            size: header.size,
            vm: 0..0,
        })
    }

    /// The state of snapshot `n` in the table's order.
    pub fn snapshot(layer: &Arc<Layer>, n: usize) -> Result<Self> {
        let Some(snapshot) = layer.snapshots().get(n) else {
            let why = format!("there is no snapshot {n} in the table");
            return Err(Error::invalid("reading a snapshot of", why).at(layer.path()));
        };
        Ok(Self {
            layer: layer.clone(),
            l1: layer.read_l1(snapshot.l1)?.into(),
            size: snapshot.disk_size.unwrap_or(layer.header().size),
            vm: vm_state(layer, snapshot)?,
        })
    }

    /// Bytes of the disk.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Bytes of VM state; 0: none.
    pub fn vm_state_size(&self) -> u64 {
        self.vm.end - self.vm.start
    }

    /// The file.
    pub fn layer(&self) -> &Arc<Layer> {
        &self.layer
    }

    /// What stands in `range` of the disk, in order and without gaps; neighbours of one kind that follow each other in the
    /// file come as one. Ends with the first error, or at the end of the disk.
    pub fn map(&self, range: Range<u64>) -> Map {
        Map::new(self.clone(), range.start..range.end.min(self.size), 0)
    }

    /// As `map`, of the VM state. What is unallocated there reads as zeros, whatever the backing file has.
    pub fn map_vm_state(&self, range: Range<u64>) -> Map {
        let Range { start: base, end } = self.vm;
        let at = |offset: u64| base.saturating_add(offset);
        Map::new(self.clone(), at(range.start)..at(range.end).min(end), base)
    }

    /// The VM state from its first byte to its last.
    pub fn read_vm_state(&self) -> VmStateReader {
        VmStateReader {
            map: self.map_vm_state(0..self.vm_state_size()),
            current: None,
            layer: self.layer.clone(),
        }
    }

    /// Ranges of this disk that `older`, a state of the same file, may map otherwise, in order. Tables that both share are
    /// neither read nor told. What lies in one of the two disks only is told.
    pub fn changes(&self, older: &Self) -> Result<Changes> {
        if !Arc::ptr_eq(&self.layer, &older.layer) {
            let why = "the two states are of different files";
            return Err(Error::invalid("comparing states of a qcow2 image", why));
        }
        Ok(Changes {
            new: self.clone(),
            old: older.clone(),
            at: 0,
        })
    }

    /// How much this state differs from another of the same file, by a few of its tables, the same whatever it is compared with,
    /// so that each is read once. Says which of several is nearest, nothing else.
    pub(super) fn distance(&self, other: &Self, samples: usize) -> Result<u64> {
        const ENTRY: u64 = 1 << 24;
        let differs = |slot: &u64| self.l1.get(*slot) != other.l1.get(*slot);
        let used: Vec<u64> = self.l1.used().map(|(slot, _)| slot).collect();
        let only_there = other.l1.used().map(|(slot, _)| slot);
        let only_there = only_there.filter(|slot| self.l1.get(*slot) == 0).count();
        let mut distance = (used.iter().copied().filter(differs).count() + only_there) as u64;
        let step = used.len().div_ceil(samples.max(1)).max(1);
        for slot in used.iter().step_by(step).copied().filter(differs) {
            let entries = match (self.table(slot)?, other.table(slot)?) {
                (Some(a), Some(b)) => a.iter().zip(b.iter()).filter(|(a, b)| a != b).count() as u64,
                _ => self.layer.geometry().table_entries(),
            };
            distance += entries * ENTRY;
        }
        Ok(distance)
    }

    /// The L2 table of a slot of the L1 table; `None` where nothing is allocated.
    pub(super) fn table(&self, slot: u64) -> Result<Option<Table>> {
        match self.l1.get(slot) {
            0 => Ok(None),
            offset => self.layer.read_l2(offset),
        }
    }

    /// The first slot from `slot` on that has an L2 table.
    pub(super) fn next_used(&self, slot: u64) -> Option<u64> {
        self.l1.next_used(slot)
    }
}

/// Where a snapshot's VM state is; its L1 table must reach there, so that its length is bounded.
fn vm_state(layer: &Layer, snapshot: &Snapshot) -> Result<Range<u64>> {
    const DOING: &str = "reading a snapshot of";
    let geometry = layer.geometry();
    let name = String::from_utf8_lossy(&snapshot.name);
    let bad = |why: String| Err(Error::corrupt(DOING, why).at(layer.path()));
    let size = snapshot.disk_size.unwrap_or(layer.header().size);
    if size > i64::MAX as u64 {
        return bad(format!("snapshot {name:?} has a disk of {size} bytes"));
    }
    if snapshot.vm_state_size == 0 {
        return Ok(0..0);
    }
    let first = geometry.tables_for(size);
    let slots = geometry.tables_for(snapshot.vm_state_size);
    if first + slots > snapshot.l1.count {
        return bad(format!(
            "snapshot {name:?} says that it has {} bytes of VM state, its L1 table of {} entries does not",
            snapshot.vm_state_size, snapshot.l1.count
        ));
    }
    let start = first * geometry.table_span();
    Ok(start..start + snapshot.vm_state_size)
}

/// See `State::read_vm_state`.
#[derive(Debug)]
pub struct VmStateReader {
    map: Map,
    current: Option<Piece>,
    layer: Arc<Layer>,
}

#[derive(Debug)]
struct Piece {
    kind: Kind,
    done: u64,
    len: u64,
    /// The decoded cluster, from the piece's first byte on.
    decoded: Vec<u8>,
}

impl VmStateReader {
    fn next_piece(&mut self) -> Result<Option<Piece>> {
        let Some(mapped) = self.map.next().transpose()? else {
            return Ok(None);
        };
        let mut decoded = Vec::new();
        if let Kind::Compressed { host, len } = mapped.kind {
            let cluster = self.layer.geometry().cluster_bytes();
            decoded.resize(cluster as usize, 0);
            self.layer.decode(host, len, &mut decoded)?;
            decoded.drain(..(mapped.start % cluster) as usize);
        }
        Ok(Some(Piece {
            kind: mapped.kind,
            done: 0,
            len: mapped.len,
            decoded,
        }))
    }

    fn read_some(&mut self, buf: &mut [u8]) -> Result<usize> {
        if self.current.is_none() {
            self.current = self.next_piece()?;
        }
        let Some(piece) = &mut self.current else {
            return Ok(0);
        };
        let n = (piece.len - piece.done).min(buf.len() as u64) as usize;
        let buf = &mut buf[..n];
        match piece.kind {
            Kind::Zero | Kind::Unallocated => buf.fill(0),
            Kind::Data { host } => self.layer.read_host(host + piece.done, buf)?,
            Kind::Compressed { .. } => {
                let at = piece.done as usize;
                buf.copy_from_slice(&piece.decoded[at..at + n]);
            }
        }
        piece.done += n as u64;
        if piece.done == piece.len {
            self.current = None;
        }
        Ok(n)
    }
}

impl io::Read for VmStateReader {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        if buf.is_empty() {
            return Ok(0);
        }
        self.read_some(buf).map_err(io::Error::other)
    }
}

/// See `State::changes`.
#[derive(Debug)]
pub struct Changes {
    new: State,
    old: State,
    at: u64,
}

impl Changes {
    /// From `at` on: where what is the same, or what differs, ends; and which of the two it is.
    fn run(&self, at: u64) -> Result<(u64, bool)> {
        let geometry = self.new.layer.geometry();
        let span = geometry.table_span();
        let both = self.new.size.min(self.old.size);
        if at >= both {
            return Ok((self.new.size, true));
        }
        let slot = at / span;
        // The last cluster that both have may be a whole one in one of them only.
        let end = ((slot + 1) * span).min(both);
        let (new, old) = (self.new.l1.get(slot), self.old.l1.get(slot));
        if new == 0 && old == 0 {
            let next = [&self.new, &self.old].map(|state| state.next_used(slot));
            let next = next.into_iter().flatten().min();
            return Ok((next.map_or(both, |slot| (slot * span).min(both)), false));
        }
        if new == old {
            return Ok((end, false));
        }
        let (new, old) = (self.new.table(slot)?, self.old.table(slot)?);
        let entry = |table: &Option<Table>, i: u64| {
            let nothing = L2Entry { word: 0, bitmap: 0 };
            let entry = table.as_ref().and_then(|t| t.get(i as usize));
            *entry.unwrap_or(&nothing)
        };
        let differs = |i| entry(&new, i) != entry(&old, i);
        let cluster = geometry.cluster_bytes();
        let first = at % span / cluster;
        let last = (end - slot * span).div_ceil(cluster);
        let other = (first..last).find(|i| differs(*i) != differs(first));
        let run = other.map_or(end, |i| slot * span + i * cluster);
        Ok((run, differs(first)))
    }
}

impl Iterator for Changes {
    /// A range of the newer disk.
    type Item = Result<Range<u64>>;

    fn next(&mut self) -> Option<Self::Item> {
        let mut start = None;
        while self.at < self.new.size {
            match self.run(self.at) {
                Err(e) => {
                    self.at = self.new.size;
                    return Some(Err(e));
                }
                Ok((_, false)) if start.is_some() => break,
                Ok((end, differs)) => {
                    if differs {
                        start.get_or_insert(self.at);
                    }
                    self.at = end;
                }
            }
        }
        start.map(|start| Ok(start..self.at))
    }
}
