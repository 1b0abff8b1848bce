//! All states side by side, from the start of the disk to its end.
//!
//! For each L2 table's worth of disk, states are in groups that were the same so far. A group is one table; where its states
//! differ it splits. So a table and its clusters are shared by all that have them, however many states there are.

use super::super::entry::{COMPRESSED, COPIED, OFFSET_MASK};
use super::cells::{Cell, Cells, Id, Recipes};
use super::data::{Batch, zero_word};
use super::leftover::Leftover;
use super::sink::Sink;
use super::source::Source;
use super::space::Space;
use super::{Shape, Written};
use std::collections::HashMap;
use stillpoint_store::Result;
use stillpoint_store::disk::DiskFile;
use stillpoint_store::progress::Progress;

/// Clusters wait until they are as many bytes.
const BATCH_BYTES: u64 = 16 << 20;
/// Disk that is planned at a time.
const WINDOW_BYTES: u64 = 4 << 20;

/// An L2 entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Slot {
    Word(u64),
    /// What the batch has for that number.
    Place(u32),
}

/// States that share an L2 table, and the table as far as it is known.
#[derive(Clone)]
struct Group {
    states: Vec<u32>,
    entries: Vec<Slot>,
    /// Entries before this do not wait for the batch.
    resolved: usize,
}

/// See the module.
pub(super) struct Planner<'a> {
    pub(super) shape: &'a Shape,
    source: &'a dyn Source,
    cells: Vec<Cells<'a>>,
    pub(super) space: Space,
    pub(super) sink: Sink<'a>,
    batch: Batch,
    known: HashMap<Id, u64>,
    /// Tables that are complete but for what the batch has, and the L1 entry that they are for.
    complete: Vec<(u64, Group)>,
    complete_entries: usize,
    /// An L1 table a state, up to the last entry that is used.
    pub(super) l1: Vec<Vec<u64>>,
    pub(super) written: Written,
}

impl<'a> Planner<'a> {
    pub fn new(file: &'a dyn DiskFile, shape: &'a Shape, source: &'a dyn Source) -> Result<Self> {
        let states = shape.states.iter().enumerate();
        let cells = states.map(|(n, state)| Cells::new(source, n, state));
        Ok(Self {
            shape,
            source,
            cells: cells.collect::<Result<_>>()?,
            space: Space::new(shape.geometry, shape.refs_max),
            sink: Sink::new(file, Leftover::new(file, shape)?),
            batch: Batch::default(),
            known: HashMap::new(),
            complete: Vec::new(),
            complete_entries: 0,
            l1: vec![Vec::new(); shape.states.len()],
            written: Written::default(),
        })
    }

    /// Stores data and L2 tables of all states.
    pub fn run(&mut self, progress: &Progress) -> Result<()> {
        let span = self.shape.geometry.table_span();
        let slots = self.shape.states.iter().map(|s| s.l1_entries).max();
        let slots = slots.unwrap_or(0);
        let mut slot = 0;
        while slot < slots {
            let quiet = self.quiet_until(slot * span)?;
            if quiet / span > slot {
                // Tables of nothing but zeros are left out: no backing file shows through.
                slot = quiet / span;
                continue;
            }
            self.slot(slot, progress)?;
            slot += 1;
        }
        self.flush(&mut [], progress)
    }

    /// From `at` to there, no state has data.
    fn quiet_until(&mut self, at: u64) -> Result<u64> {
        let mut quiet = u64::MAX;
        for cells in &mut self.cells {
            quiet = quiet.min(cells.quiet_until(at)?);
            if quiet <= at {
                break;
            }
        }
        Ok(quiet)
    }

    /// States that reach `slot`, no more in a group than a refcount can count.
    fn groups(&self, slot: u64) -> Vec<Group> {
        let reach = |(_, s): &(u32, &super::StateShape)| s.l1_entries > slot;
        let states: Vec<u32> = (0..)
            .zip(&self.shape.states)
            .filter(reach)
            .map(|(n, _)| n)
            .collect();
        let groups = states.chunks(usize::from(self.shape.refs_max));
        groups
            .map(|states| Group {
                states: states.to_vec(),
                entries: Vec::new(),
                resolved: 0,
            })
            .collect()
    }

    fn slot(&mut self, slot: u64, progress: &Progress) -> Result<()> {
        let cluster = self.shape.cluster_bytes();
        let entries = self.shape.geometry.table_entries();
        let window = (WINDOW_BYTES / cluster).clamp(1, entries);
        let mut groups = self.groups(slot);
        let mut first = 0;
        while first < entries {
            let count = window.min(entries - first);
            let start = slot * self.shape.geometry.table_span() + first * cluster;
            let mut next = Vec::with_capacity(groups.len());
            for group in groups {
                self.window(group, start, count, &mut next)?;
            }
            groups = next;
            first += count;
            if self.is_full() {
                self.flush(&mut groups, progress)?;
            }
        }
        self.complete_entries += groups.len() * entries as usize;
        self.complete
            .extend(groups.into_iter().map(|group| (slot, group)));
        if self.is_full() {
            self.flush(&mut [], progress)?;
        }
        Ok(())
    }

    fn is_full(&self) -> bool {
        let jobs = self.batch.len() as u64 * self.shape.cluster_bytes();
        let tables = (self.complete_entries * size_of::<Slot>()) as u64;
        jobs + tables >= BATCH_BYTES
    }

    /// Splits a group by what its states have in a window, and adds that to the tables.
    fn window(
        &mut self,
        group: Group,
        start: u64,
        count: u64,
        next: &mut Vec<Group>,
    ) -> Result<()> {
        let cluster = self.shape.cluster_bytes();
        let mut recipes = Recipes::new();
        let mut variants: Vec<(Vec<Cell>, Vec<u32>)> = Vec::new();
        let mut known: HashMap<Id, usize> = HashMap::new();
        let mut cells = Vec::new();
        for state in group.states {
            cells.clear();
            self.cells[state as usize].cut(start, count, cluster, &mut cells, &mut recipes)?;
            let n = *known.entry(name(&cells)).or_insert(variants.len());
            match variants.get_mut(n) {
                Some((_, states)) => states.push(state),
                None => variants.push((cells.clone(), vec![state])),
            }
        }
        let last = variants.len().saturating_sub(1);
        let mut entries = group.entries;
        for (n, (cells, states)) in variants.into_iter().enumerate() {
            let entries = if n == last {
                std::mem::take(&mut entries)
            } else {
                entries.clone()
            };
            let mut group = Group {
                states,
                entries,
                resolved: group.resolved,
            };
            // A group has at most as many states as a refcount can count.
            let refs = group.states.len() as u16;
            for (n, cell) in (0..).zip(cells) {
                let slot = self.place(cell, start + n * cluster, refs, &recipes);
                group.entries.push(slot);
            }
            next.push(group);
        }
        Ok(())
    }

    /// The entry for a cluster at byte `at` that `refs` states refer to.
    fn place(&mut self, cell: Cell, at: u64, refs: u16, recipes: &Recipes) -> Slot {
        let id = match cell {
            Cell::Hole => return Slot::Word(0),
            Cell::Zero => return Slot::Word(zero_word(self.shape)),
            Cell::Data(id) => id,
        };
        if let Some(word) = self.known.get(&id).copied()
            && (word == zero_word(self.shape) || self.space.share(word, refs))
        {
            return Slot::Word(word);
        }
        let refs_max = self.shape.refs_max;
        Slot::Place(self.batch.add(id, at, refs, refs_max, recipes))
    }

    /// Stores what waits: clusters first, then the tables that are complete. `groups` are those that are not.
    fn flush(&mut self, groups: &mut [Group], progress: &Progress) -> Result<()> {
        let before = self.space.bytes();
        let words = self.batch.store(
            self.shape,
            self.source,
            &mut self.space,
            &mut self.sink,
            &mut self.written,
        )?;
        for group in groups {
            group.resolve(&words.of_places);
        }
        for (slot, mut group) in std::mem::take(&mut self.complete) {
            group.resolve(&words.of_places);
            self.write_table(slot, &group)?;
        }
        self.complete_entries = 0;
        for (id, word) in words.reusable {
            // A newer copy counts: the older is referred to as often as it can be.
            if self.known.len() < self.shape.options.remember || self.known.contains_key(&id) {
                self.known.insert(id, word);
            }
        }
        let read = words.read * self.shape.cluster_bytes();
        Progress::add(&progress.bytes_done, read);
        Progress::add(&progress.bytes_stored, self.space.bytes() - before);
        progress.check()
    }

    fn write_table(&mut self, slot: u64, group: &Group) -> Result<()> {
        let zero = zero_word(self.shape);
        let words: Vec<u64> = group.entries.iter().map(Slot::word).collect();
        if words.iter().all(|word| *word == 0 || *word == zero) {
            return Ok(());
        }
        let at = self.space.take(1, group.states.len() as u16);
        // The active state is the first. In a table of its own, clusters with a single reference are flagged.
        let own = group.states == [0];
        let flagged = |word: u64| {
            let plain = own && word & COMPRESSED == 0 && word & OFFSET_MASK != 0;
            let single = plain && self.space.refs_at(word & OFFSET_MASK) == 1;
            if single { word | COPIED } else { word }
        };
        let bytes = words.iter().flat_map(|word| flagged(*word).to_be_bytes());
        let bytes: Vec<u8> = bytes.collect();
        self.sink.put(at, &bytes)?;
        for state in &group.states {
            let l1 = &mut self.l1[*state as usize];
            l1.resize(slot as usize, 0);
            l1.push(at);
        }
        Ok(())
    }
}

impl Slot {
    /// The entry; the batch is stored before this is asked.
    fn word(&self) -> u64 {
        match self {
            Self::Word(word) => *word,
            Self::Place(_) => 0,
        }
    }
}

impl Group {
    fn resolve(&mut self, words: &[u64]) {
        for entry in &mut self.entries[self.resolved..] {
            if let Slot::Place(n) = *entry {
                *entry = Slot::Word(words[n as usize]);
            }
        }
        self.resolved = self.entries.len();
    }
}

/// A name for what a window has.
fn name(cells: &[Cell]) -> Id {
    let mut hasher = blake3::Hasher::new();
    for cell in cells {
        match cell {
            Cell::Hole => hasher.update(&[0]),
            Cell::Zero => hasher.update(&[1]),
            Cell::Data(id) => hasher.update(&[2]).update(id),
        };
    }
    let mut name = [0; 16];
    name.copy_from_slice(&hasher.finalize().as_bytes()[..16]);
    name
}
