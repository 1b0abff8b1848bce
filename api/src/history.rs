//! A disk taken in with all its earlier states: one entry, all of them or none.

use crate::commit::Planned;
use crate::create::CreatedDevice;
use crate::draft::name_of;
use crate::import::check_unattached;
use crate::name::{check_device_name, check_snapshot_name};
use crate::system::System;
use std::collections::BTreeMap;
use std::ops::Range;
use stillpoint_store::catalog::Catalog;
use stillpoint_store::disk::DiskFile;
use stillpoint_store::format::entry::{Content, Op, SessionKind};
use stillpoint_store::format::snapshot::SnapshotRecord;
use stillpoint_store::history::{Earlier, History};
use stillpoint_store::id::Uid;
use stillpoint_store::limits::{EXTRA_BYTES_MAX, NAME_BYTES_MAX, SNAPSHOT_ID_BYTES_MAX};
use stillpoint_store::log::salvage::DEVICE_LABEL;
use stillpoint_store::object::Purse;
use stillpoint_store::ops::ingest::{Counts, Ingested, Input, Writer};
use stillpoint_store::progress::Progress;
use stillpoint_store::world::Moment;
use stillpoint_store::{Error, ErrorKind, Result};

/// Changed bytes that are taken in at a time, which bounds memory; a disk that grew by more is read whole.
const CHANGED_BYTES: u64 = 2 << 30;

/// What to take in.
#[derive(Clone, Copy)]
pub struct ImportHistory<'a> {
    /// The states.
    pub history: &'a dyn History,
    /// The device's name: new, or of a device without an image, which gets more snapshots.
    pub device: &'a str,
    /// Name of a snapshot of the present state. Without it there is none where there are earlier states, and one named
    /// after the time where there are none.
    pub name: Option<&'a str>,
}

/// What was taken in.
#[derive(Debug, Clone)]
pub struct ImportedHistory {
    /// The snapshots, oldest first; the present state's is the last if it has one.
    pub snapshots: Vec<CreatedDevice>,
    /// What the device holds now.
    pub head: Content,
    /// What the head cost, apart from a snapshot of it.
    pub head_counts: Counts,
}

/// A state in the store.
struct Taken {
    disk: Ingested,
    vm_state: Option<Ingested>,
    base: Option<usize>,
}

/// What does not change while the entry is tried.
struct Plan<'a> {
    import: &'a ImportHistory<'a>,
    device: Uid,
    now: Moment,
    /// One a snapshot.
    uids: Vec<Uid>,
    /// Of a snapshot that nobody ever sees.
    passing: Uid,
}

impl System {
    /// Takes a disk in with its earlier states: the device, its snapshots and its head are there when this returns, or none
    /// of them. What an import that was interrupted had stored is found again.
    pub fn import_history(
        &self,
        import: &ImportHistory<'_>,
        progress: &Progress,
    ) -> Result<ImportedHistory> {
        check_device_name(import.device)?;
        import.name.map_or(Ok(()), check_snapshot_name)?;
        self.tidy()?;
        let catalog = self.store.refresh()?;
        check_unattached(&catalog, import.device)?;
        let known = catalog.device_named(import.device);
        let extra = usize::from(import.name.is_some() || import.history.earlier().is_empty());
        let plan = Plan {
            import,
            device: known.map_or_else(|| self.store.new_uid(), |d| d.uid),
            now: self.store.now(),
            passing: self.store.new_uid(),
            uids: (0..import.history.earlier().len() + extra)
                .map(|_| self.store.new_uid())
                .collect(),
        };
        // What cannot be is found before anything is read.
        plan.check(&catalog)?;
        let writer = Writer::new(&self.store, SessionKind::Writer, Purse::Free)?;
        let made = self.commit_snapshots(
            writer,
            &mut |writer| self.take_history(writer, &plan, progress),
            &mut |catalog, taken| {
                plan.check(catalog)?;
                let records = plan.records(catalog, taken)?;
                let ops = plan.ops(catalog, &records, taken);
                Ok(Planned { records, ops })
            },
        )?;
        Ok(plan.report(&made.records, &made.taken))
    }

    fn take_history(
        &self,
        writer: &mut Writer<'_>,
        plan: &Plan<'_>,
        progress: &Progress,
    ) -> Result<Vec<Taken>> {
        let catalog = self.store.catalog();
        let known = catalog.device(&plan.device);
        let parent = known.and_then(|d| d.head);
        let parent = parent.filter(|p| catalog.reachable(&p.root));
        let taken = take(writer, plan.import.history, parent, progress);
        // Also of one that could not be read to its end: that somebody changed it says more.
        plan.import.history.check_unchanged()?;
        taken
    }
}

/// Takes in every state, each as its base with changes where it has one.
fn take(
    writer: &mut Writer<'_>,
    history: &dyn History,
    parent: Option<Content>,
    progress: &Progress,
) -> Result<Vec<Taken>> {
    let count = history.earlier().len();
    let mut all: Vec<Taken> = Vec::with_capacity(count + 1);
    for state in 0..=count {
        let file = history.disk(state)?;
        let input = Input {
            file: &*file,
            size: file.len()?,
            parent: parent.filter(|_| state == 0),
            changed: None,
        };
        let base = history.base(state)?;
        let before = base.map(|n| all[n].disk.content);
        let small = |c: &Content| input.size.saturating_sub(c.size) <= CHANGED_BYTES;
        let disk = match base.zip(before.filter(small)) {
            Some((n, before)) => {
                take_changes(writer, history, (state, n), before, &input, progress)?
            }
            None => take_whole(writer, &input, progress)?,
        };
        let vm_state = match history
            .vm_state(state)
            .transpose()
            .filter(|_| state < count)
        {
            Some(file) => Some(take_file(writer, &*file?, progress)?),
            None => None,
        };
        all.push(Taken {
            disk,
            vm_state,
            base,
        });
    }
    Ok(all)
}

fn take_whole(writer: &mut Writer<'_>, input: &Input<'_>, progress: &Progress) -> Result<Ingested> {
    let mut one = writer.ingest(&[*input], progress)?;
    one.pop()
        .ok_or_else(|| Error::invalid("taking a disk in", "nothing came of it"))
}

fn take_file(
    writer: &mut Writer<'_>,
    file: &dyn DiskFile,
    progress: &Progress,
) -> Result<Ingested> {
    let input = Input {
        file,
        size: file.len()?,
        parent: None,
        changed: None,
    };
    take_whole(writer, &input, progress)
}

/// The state `states.0` as `states.1`, which is `before`, with changes.
fn take_changes(
    writer: &mut Writer<'_>,
    history: &dyn History,
    states: (usize, usize),
    before: Content,
    input: &Input<'_>,
    progress: &Progress,
) -> Result<Ingested> {
    let mut changes = Portions {
        ranges: history.changes(states.0, states.1)?,
        rest: None,
    };
    let mut whole = Ingested {
        content: before,
        counts: Counts::default(),
    };
    let mut portion = changes.next()?;
    loop {
        let step = writer.ingest_after(whole.content, input, &portion, progress)?;
        whole.content = step.content;
        whole.counts = sum(whole.counts, step.counts);
        portion = changes.next()?;
        if portion.is_empty() {
            return Ok(whole);
        }
    }
}

fn sum(a: Counts, b: Counts) -> Counts {
    Counts {
        read: a.read + b.read,
        empty: a.empty + b.empty,
        known: a.known + b.known,
        new: a.new + b.new,
        stored: a.stored + b.stored,
        audit_failed: a.audit_failed || b.audit_failed,
    }
}

/// Ranges by no more than `CHANGED_BYTES` at a time.
struct Portions<'a> {
    ranges: stillpoint_store::history::Ranges<'a>,
    rest: Option<Range<u64>>,
}

impl Portions<'_> {
    /// Empty at the end.
    fn next(&mut self) -> Result<Vec<Range<u64>>> {
        let (mut portion, mut room) = (Vec::new(), CHANGED_BYTES);
        while room > 0 {
            let range = match self.rest.take() {
                Some(rest) => rest,
                None => match self.ranges.next().transpose()? {
                    Some(range) => range,
                    None => break,
                },
            };
            let end = range.end.min(range.start.saturating_add(room));
            self.rest = (end < range.end).then_some(end..range.end);
            room -= end - range.start;
            portion.push(range.start..end);
        }
        Ok(portion)
    }
}

/// A record has less room than some formats.
fn check_lengths(earlier: &Earlier) -> Result<()> {
    let limits = [
        ("id", earlier.id.len(), SNAPSHOT_ID_BYTES_MAX),
        ("name", earlier.name.len(), NAME_BYTES_MAX),
        ("extra data", earlier.extra.len(), EXTRA_BYTES_MAX),
    ];
    let Some((what, len, max)) = limits.into_iter().find(|(_, len, max)| len > max) else {
        return Ok(());
    };
    let start = |bytes: &[u8]| crate::view::text(&bytes[..bytes.len().min(40)]);
    let why = format!(
        "the snapshot with the id {:?} and the name {:?} (their first bytes) has {len} bytes of {what}, {max} are allowed",
        start(&earlier.id),
        start(&earlier.name)
    );
    Err(Error::invalid("importing snapshots", why)
        .hint("leave the snapshot out: name the others with --snapshots"))
}

impl Plan<'_> {
    fn earlier(&self) -> &[Earlier] {
        self.import.history.earlier()
    }

    /// Whether there is a snapshot of the present state.
    fn has_present(&self) -> bool {
        self.uids.len() > self.earlier().len()
    }

    /// Refuses ids and names that the device has already. Among themselves they may be what they were.
    fn check(&self, catalog: &Catalog) -> Result<()> {
        check_unattached(catalog, self.import.device)?;
        let clash = |what: &str, of: &[u8]| {
            let of = crate::view::text(of);
            Err(Error::new(ErrorKind::AlreadyExists, "importing snapshots")
                .detail(format!(
                    "device {:?} has a snapshot of the {what} {of:?}",
                    self.import.device
                ))
                .hint("choose another device, or other snapshots with --snapshots"))
        };
        let there = catalog.snapshots_of(&self.device);
        for earlier in self.earlier() {
            check_lengths(earlier)?;
            for known in &there {
                if !earlier.id.is_empty() && known.record.id == earlier.id {
                    return clash("id", &earlier.id);
                }
                if known.record.name == earlier.name {
                    return clash("name", &earlier.name);
                }
            }
        }
        match self.import.name {
            Some(name) if self.is_taken(catalog, name) => clash_name(name),
            _ => Ok(()),
        }
    }

    fn is_taken(&self, catalog: &Catalog, name: &str) -> bool {
        let there = catalog.snapshots_of(&self.device);
        there.iter().any(|s| s.record.name == name.as_bytes())
            || self.earlier().iter().any(|s| s.name == name.as_bytes())
    }

    /// The present state as a snapshot.
    fn present(&self, catalog: &Catalog) -> Earlier {
        let name = self.import.name.map_or_else(
            || {
                let name = name_of(self.now);
                let numbered = (2..u32::MAX).map(|n| format!("{name}-{n}"));
                let mut names = std::iter::once(name.clone()).chain(numbered);
                names.find(|n| !self.is_taken(catalog, n)).unwrap_or(name)
            },
            Into::into,
        );
        Earlier {
            id: Vec::new(),
            name: name.into_bytes(),
            date: self.now,
            vm_clock_nsec: 0,
            icount: None,
            extra: Vec::new(),
        }
    }

    fn records(&self, catalog: &Catalog, taken: &[Taken]) -> Result<Vec<SnapshotRecord>> {
        let present = self.has_present().then(|| self.present(catalog));
        let before = catalog.device(&self.device);
        let number = |id: &[u8]| std::str::from_utf8(id).ok()?.parse::<u64>().ok();
        let ids: Vec<u64> = self
            .earlier()
            .iter()
            .filter_map(|e| number(&e.id))
            .collect();
        let mut free = catalog.free_ids(&self.device, &ids);
        let mut records = Vec::with_capacity(self.uids.len());
        let states = self.earlier().iter().chain(&present);
        for ((fields, taken), uid) in states.zip(taken).zip(&self.uids) {
            let id = if fields.id.is_empty() {
                // There are more numbers than snapshots.
                free.next().unwrap_or(u64::MAX).to_string().into_bytes()
            } else {
                fields.id.clone()
            };
            let record = SnapshotRecord {
                uid: *uid,
                device: self.device,
                id,
                name: fields.name.clone(),
                date_sec: fields.date.sec,
                date_nsec: fields.date.nsec,
                vm_clock_nsec: fields.vm_clock_nsec,
                icount: fields.icount,
                vm_state: taken.vm_state.map(|vm| vm.content),
                content: taken.disk.content,
                group: None,
                parent: taken
                    .base
                    .map_or(before.and_then(|d| d.base), |n| self.uids.get(n).copied()),
                extra: fields.extra.clone(),
                labels: BTreeMap::from([(DEVICE_LABEL.into(), self.import.device.to_owned())]),
            };
            record
                .check()
                .map_err(|e| e.hint("leave the snapshot out with --snapshots"))?;
            records.push(record);
        }
        Ok(records)
    }

    fn ops(&self, catalog: &Catalog, records: &[SnapshotRecord], taken: &[Taken]) -> Vec<Op> {
        let known = catalog.device(&self.device);
        let mut ops = vec![Op::PutDevice {
            uid: self.device,
            name: self.import.device.to_owned(),
            attachment: None,
        }];
        let gotos_begun = known.map_or(0, |d| d.gotos_begun);
        ops.extend(records.iter().map(|record| Op::PutSnapshot {
            record: record.clone(),
            gotos_begun,
        }));
        let present = taken.last();
        let base = if self.has_present() {
            self.uids.last().copied()
        } else {
            present.and_then(|t| self.uids.get(t.base?).copied())
        };
        // A head can only be put on what a snapshot holds in that state: one that the same entry takes away again.
        let passing = records
            .last()
            .zip(present)
            .filter(|_| !self.has_present())
            .map(|(record, present)| SnapshotRecord {
                uid: self.passing,
                id: Vec::new(),
                content: present.disk.content,
                vm_state: None,
                ..record.clone()
            });
        let uid = passing.as_ref().map(|record| record.uid);
        ops.extend(passing.map(|record| Op::PutSnapshot {
            record,
            gotos_begun,
        }));
        ops.push(Op::PutHead {
            uid: self.device,
            head: present.map(|t| t.disk.content),
            base,
        });
        ops.extend(uid.map(|uid| Op::DeleteSnapshot { uid }));
        ops
    }

    fn report(&self, records: &[SnapshotRecord], taken: &[Taken]) -> ImportedHistory {
        let one = |(r, t): (&SnapshotRecord, &Taken)| CreatedDevice {
            device: self.import.device.to_owned(),
            uid: r.uid,
            id: crate::view::text(&r.id),
            name: crate::view::text(&r.name),
            content: t.disk.content,
            counts: t.disk.counts,
            vm_state: t.vm_state,
        };
        let present = &taken[self.earlier().len()];
        ImportedHistory {
            snapshots: records.iter().zip(taken).map(one).collect(),
            head: present.disk.content,
            head_counts: if self.has_present() {
                Counts::default()
            } else {
                present.disk.counts
            },
        }
    }
}

fn clash_name(name: &str) -> Result<()> {
    Err(Error::new(
        ErrorKind::AlreadyExists,
        format!("making snapshot {name:?}"),
    )
    .detail("the device, or the image, has one of that name")
    .hint("choose another name"))
}
