//! Proof that everything restores: every byte of every pack read and checked, then every snapshot's manifest followed to
//! packs that hold it. Remembers packs that were good, so that a verify that was cut off goes on where it was.

use crate::catalog::{Catalog, PackState};
use crate::codec::decode_frame;
use crate::content::suspects::Suspects;
use crate::error::{Error, ErrorKind, Result};
use crate::format::entry::Content;
use crate::format::manifest::Child;
use crate::id::{Hash, PackName, Uid};
use crate::limits::PACK_BYTES_MAX;
use crate::manifest::walk::{Piece, Walker};
use crate::object::get_whole;
use crate::ops::gc::mark::Marks;
use crate::pack::table::Table;
use crate::progress::Progress;
use crate::store::Store;
use rayon::prelude::*;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, PoisonError};

/// Where verify remembers.
const NOTE: &str = "verify";
/// Packs between two notes at least; in large stores a hundredth of the packs.
const NOTE_EVERY: usize = 8;

/// What was found.
#[derive(Debug, Default)]
pub struct Report {
    /// Packs read now.
    pub packs: u64,
    /// Packs that an earlier verify, which was cut off, had found good.
    pub packs_remembered: u64,
    /// Bytes read.
    pub bytes: u64,
    /// Bytes of the packs that are remembered.
    pub bytes_remembered: u64,
    /// Clusters and nodes whose hash was computed.
    pub items: u64,
    /// Snapshots whose manifests were followed.
    pub snapshots: u64,
    /// Damaged packs.
    pub bad_packs: Vec<BadPack>,
    /// Snapshots that cannot be restored whole.
    pub bad_snapshots: Vec<BadSnapshot>,
    /// Heads of devices, and contents that a goto leads from or to, that cannot be had whole.
    pub bad_contents: Vec<BadContent>,
    /// Clusters and nodes that something reachable needs and no live pack yields.
    pub lost: u64,
}

impl Report {
    /// Nothing is damaged. A damaged pack that nothing reachable needs counts as damage too.
    pub fn is_good(&self) -> bool {
        self.bad_packs.is_empty()
            && self.bad_snapshots.is_empty()
            && self.bad_contents.is_empty()
            && self.lost == 0
    }
}

/// A pack and what is wrong in it.
#[derive(Debug)]
pub struct BadPack {
    /// Its key.
    pub key: String,
    /// Offset and reason, in order.
    pub errors: Vec<(u64, String)>,
}

/// A snapshot and what cannot be had of it.
#[derive(Debug)]
pub struct BadSnapshot {
    /// Which.
    pub uid: Uid,
    /// Ranges of bytes of the disk.
    pub extents: Vec<std::ops::Range<u64>>,
    /// Likewise of its VM state.
    pub vm_extents: Vec<std::ops::Range<u64>>,
}

/// Contents that are no snapshot's, and what cannot be had of them.
#[derive(Debug)]
pub struct BadContent {
    /// The device that has them, had them, or is to have them.
    pub device: Uid,
    /// Ranges of bytes of the disk.
    pub extents: Vec<std::ops::Range<u64>>,
}

/// What one pack turned out to be.
struct Read {
    bytes: u64,
    items: u64,
    /// Hashes whose copy here is no good.
    bad: Vec<Hash>,
    /// Offsets of the frames that they are in.
    bad_frames: BTreeSet<u32>,
    errors: Vec<(u64, String)>,
}

impl Store {
    /// Reads everything; see the module. Damage is in the report; an error means that the verify itself could not go on.
    pub fn verify(&self, progress: &Progress) -> Result<Report> {
        let catalog = self.refresh()?;
        let remembered = self.remembered();
        let (known, todo): (Vec<_>, Vec<_>) = catalog
            .packs()
            .cloned()
            .partition(|p| remembered.contains(&p.name));
        let mut report = Report {
            packs_remembered: known.len() as u64,
            bytes_remembered: known.iter().map(|p| u64::from(p.record.size)).sum(),
            ..Report::default()
        };
        Progress::add(
            &progress.bytes_total,
            todo.iter().map(|p| u64::from(p.record.size)).sum(),
        );
        let good = Mutex::new(remembered);
        let results: Vec<(&PackState, Read)> = todo
            .par_iter()
            .map(|pack| {
                progress.check()?;
                let read = self.verify_pack(pack)?;
                Progress::add(&progress.bytes_done, u64::from(pack.record.size));
                if read.errors.is_empty() {
                    self.remember(&good, pack.name, NOTE_EVERY.max(todo.len() / 100));
                }
                Ok((&**pack, read))
            })
            .collect::<Result<_>>()
            .inspect_err(|_| self.put_remembered(&good))?;
        let mut bad = BTreeSet::new();
        let mut suspects = Suspects::default();
        for (pack, read) in results {
            report.packs += 1;
            report.bytes += read.bytes;
            report.items += read.items;
            bad.extend(read.bad);
            if !read.errors.is_empty() {
                if read.bad_frames.is_empty() {
                    suspects.add_whole(pack.name);
                }
                for frame in &read.bad_frames {
                    suspects.add(pack.name, *frame);
                }
                let key = self.objects.describe(&pack.name.key());
                report.bad_packs.push(BadPack {
                    key,
                    errors: read.errors,
                });
            }
        }
        // ORDER: before the snapshots are followed, which may take long and may fail: it is true by now.
        match suspects.note(&*self.local) {
            Err(e) if !suspects.is_empty() => {
                (self.say)(&format!(
                    "the damage is not noted, so that nothing mends it: {e}"
                ));
            }
            _ => {}
        }
        self.verify_snapshots(&catalog, &bad, &mut report, progress)?;
        self.local.put_note(NOTE, &[]).unwrap_or_default();
        Ok(report)
    }

    /// Whole pack against the log's hash; every frame decoded, every item against its hash in the table.
    fn verify_pack(&self, pack: &PackState) -> Result<Read> {
        let mut read = Read {
            bytes: 0,
            items: 0,
            bad: Vec::new(),
            bad_frames: BTreeSet::new(),
            errors: Vec::new(),
        };
        let bytes = match get_whole(&*self.objects, &pack.name.key(), u64::from(PACK_BYTES_MAX)) {
            Ok(bytes) => bytes,
            Err(e)
                if e.kind() == ErrorKind::NotFound
                    && self.refresh()?.pack(&pack.name).is_none() =>
            {
                return Ok(read);
            }
            Err(e) => {
                read.errors.push((0, describe(&e)));
                read.bad.extend(self.listed(pack));
                return Ok(read);
            }
        };
        read.bytes = bytes.len() as u64;
        let whole = Hash::of(&bytes) == pack.record.hash;
        let table = match Table::read(&*self.objects, pack.name, &pack.record) {
            Ok(table) => table,
            // Dropped between the two readings.
            Err(e)
                if e.kind() == ErrorKind::NotFound
                    && self.refresh()?.pack(&pack.name).is_none() =>
            {
                return Ok(read);
            }
            Err(e) => {
                read.errors.push((0, describe(&e)));
                return Ok(read);
            }
        };
        let size = self.geometry().cluster_bytes;
        for frame in table.frames() {
            let at = frame.at;
            let slice = bytes
                .get(at.offset as usize..(at.offset + at.bytes) as usize)
                .unwrap_or_default();
            match decode_frame(pack.record.kind, size, slice) {
                Ok(decoded) => {
                    read.items += decoded.items() as u64;
                    for (_, hash, item) in frame.entries() {
                        if decoded
                            .item(usize::from(item))
                            .is_none_or(|b| Hash::of(b) != *hash)
                        {
                            let why = format!("item {item} does not have its hash");
                            read.errors.push((u64::from(at.offset), why));
                            read.bad.push(*hash);
                            read.bad_frames.insert(at.offset);
                        }
                    }
                }
                Err(e) => {
                    read.errors.push((u64::from(at.offset), describe(&e)));
                    read.bad.extend(frame.entries().map(|(_, hash, _)| *hash));
                    read.bad_frames.insert(at.offset);
                }
            }
        }
        if !whole && read.errors.is_empty() {
            read.errors.push((
                0,
                "the pack does not have the hash that the log gives it".into(),
            ));
        }
        Ok(read)
    }

    /// What the pack was to hold, where its table can still be read.
    fn listed(&self, pack: &PackState) -> Vec<Hash> {
        let table = Table::read_lenient(&*self.objects, pack.name, &pack.record);
        table
            .map(|(t, _)| t.entries().map(|(_, hash, ..)| *hash).collect())
            .unwrap_or_default()
    }

    /// Every reachable hash is in a live pack, and not only in a bad copy.
    fn verify_snapshots(
        &self,
        catalog: &Catalog,
        suspects: &BTreeSet<Hash>,
        report: &mut Report,
        progress: &Progress,
    ) -> Result<()> {
        report.snapshots = catalog.snapshots().count() as u64;
        let mut lost = BTreeSet::new();
        let mut all_read = true;
        let found = self.on_settled(|now| {
            let marks = self.mark(now, &now.roots(), &|_| false, progress)?;
            // What a node that cannot be read leads to is lost with it, whether or not it has been missed.
            all_read = marks.broken.is_empty();
            let all_there = marks.missing.is_empty() && all_read;
            lost = self.lost(marks, suspects, progress)?;
            if all_there {
                Ok(())
            } else {
                Err(Error::corrupt("verifying", "clusters or nodes are missing"))
            }
        });
        // What is missing is in the report.
        found.or_else(|e| {
            if e.kind() == ErrorKind::Corrupt {
                Ok(())
            } else {
                Err(e)
            }
        })?;
        if lost.is_empty() && all_read {
            return Ok(());
        }
        report.lost = (lost.len() as u64).max(u64::from(!all_read));
        let mut known: BTreeMap<Hash, Vec<std::ops::Range<u64>>> = BTreeMap::new();
        let mut extents_of = |content: Content| {
            let extents = known.entry(content.root);
            extents
                .or_insert_with(|| self.lost_extents(content, &lost))
                .clone()
        };
        for snapshot in catalog.snapshots() {
            let uid = snapshot.record.uid;
            let extents = extents_of(snapshot.record.content);
            let vm_extents = snapshot
                .record
                .vm_state
                .map(&mut extents_of)
                .unwrap_or_default();
            if !extents.is_empty() || !vm_extents.is_empty() {
                report.bad_snapshots.push(BadSnapshot {
                    uid,
                    extents,
                    vm_extents,
                });
            }
        }
        let heads = catalog.devices().filter_map(|d| Some((d.uid, d.head?)));
        let gotos = catalog.gotos().flat_map(|g| &g.devices);
        let both = gotos.flat_map(|d| [(d.device, d.undo), (d.device, d.target)]);
        for (device, content) in heads.chain(both) {
            let extents = extents_of(content);
            if !extents.is_empty() {
                report.bad_contents.push(BadContent { device, extents });
            }
        }
        Ok(())
    }

    /// Hashes that no copy yields: missing ones, and suspects whose every other copy is bad too.
    fn lost(
        &self,
        marks: Marks,
        suspects: &BTreeSet<Hash>,
        progress: &Progress,
    ) -> Result<BTreeSet<Hash>> {
        let mut lost = marks.missing;
        let wants: Vec<_> = suspects
            .iter()
            .map(|hash| crate::content::fetch::Want {
                cluster: 0,
                hash: *hash,
            })
            .collect();
        let nodes = self.nodes();
        let mut fetcher = self.fetcher();
        for damage in fetcher.fetch(&wants, &crate::content::fetch::Nowhere, progress)? {
            if nodes.bytes(&damage.hash).is_err() {
                lost.insert(damage.hash);
            }
        }
        Ok(lost)
    }

    /// Byte ranges of a disk whose cluster is lost, or whose manifest cannot be followed.
    fn lost_extents(&self, content: Content, lost: &BTreeSet<Hash>) -> Vec<std::ops::Range<u64>> {
        let size = u64::from(self.geometry().cluster_bytes);
        let clusters = content.size.div_ceil(size);
        let mut extents: Vec<std::ops::Range<u64>> = Vec::new();
        let mut add = |from: u64, to: u64| {
            let range = from * size..(to * size).min(content.size);
            match extents.last_mut() {
                Some(last) if last.end == range.start => last.end = range.end,
                _ => extents.push(range),
            }
        };
        let nodes = self.nodes();
        let Ok(mut walker) = Walker::new(&nodes, content.root, clusters) else {
            add(0, clusters);
            return extents;
        };
        let mut at = 0;
        while let Some(piece) = walker.next() {
            match piece {
                Ok(Piece::Leaf { first, node, count }) => {
                    for i in 0..count {
                        if matches!(node.child(i as usize), Child::Hash(h) if lost.contains(&h)) {
                            add(first + i, first + i + 1);
                        }
                    }
                }
                Ok(Piece::Uniform { .. }) => {}
                // The walk goes on behind what the unreadable node covers.
                Err(_) => add(at, walker.position()),
            }
            at = walker.position();
        }
        extents
    }

    fn remembered(&self) -> BTreeSet<PackName> {
        let note = self.local.note(NOTE).unwrap_or_default();
        crate::format::codec::decode(&note, note.len() as u64).unwrap_or_default()
    }

    fn remember(&self, good: &Mutex<BTreeSet<PackName>>, name: PackName, every: usize) {
        let due = {
            let mut good = good.lock().unwrap_or_else(PoisonError::into_inner);
            good.insert(name);
            good.len().is_multiple_of(every)
        };
        if due {
            self.put_remembered(good);
        }
    }

    /// A note that cannot be written costs the next verify time, nothing else.
    fn put_remembered(&self, good: &Mutex<BTreeSet<PackName>>) {
        let note =
            crate::format::codec::encode(&*good.lock().unwrap_or_else(PoisonError::into_inner));
        self.local.put_note(NOTE, &note).unwrap_or_default();
    }
}

fn describe(e: &Error) -> String {
    match std::error::Error::source(e) {
        Some(source) => format!("{e}: {source}"),
        None => e.to_string(),
    }
}
