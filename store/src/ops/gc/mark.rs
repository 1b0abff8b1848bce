//! What is reachable, as a bitmap a pack: exact, bounded in memory, from manifests and pack tables alone.
//!
//! Hashes are taken in as many passes over the manifests as keep one pass's set within a budget; a store of 1 TiB takes
//! a few. Of several copies of a hash the one in the pack with the lowest number counts, unless a verify found it bad.

use crate::catalog::Catalog;
use crate::content::nodes::Nodes;
use crate::content::resolve::{HashSet as Hashes, readable};
use crate::content::suspects::Suspects;
use crate::error::{Error, Result};
use crate::format::entry::PackKind;
use crate::format::manifest::{Child, Node};
use crate::id::{Hash, PackNumber};
use crate::manifest::nodes::each_readable_node;
use crate::ops::ingest::record_copy;
use crate::pack::table::Table;
use crate::progress::Progress;
use crate::store::Store;
use std::collections::{BTreeMap, BTreeSet, HashSet};

/// Passes are told apart by the first two bytes of a hash.
const PASSES_MAX: u64 = 1 << 16;

/// One pack's part of what is reachable.
#[derive(Debug, Clone, Default)]
pub struct PackMarks {
    live: Vec<u64>,
    /// Entries that are reachable and counted here.
    pub live_entries: u32,
    /// Packs that hold the counted copies of what is reachable here too.
    pub elsewhere: BTreeSet<PackNumber>,
    /// The table could not be read: nothing is known of what is in it.
    pub unreadable: bool,
    /// A verify found bad copies in it.
    pub suspect: bool,
    /// One of them is the only copy of something reachable: the pack cannot be rewritten, and may not go.
    pub stuck: bool,
}

impl PackMarks {
    /// Whether the entry is reachable and counted in this pack.
    pub fn is_live(&self, entry: u32) -> bool {
        self.live
            .get(entry as usize / 64)
            .is_some_and(|word| word >> (entry % 64) & 1 == 1)
    }

    fn mark(&mut self, entry: u32) {
        let word = entry as usize / 64;
        if self.live.len() <= word {
            self.live.resize(word + 1, 0);
        }
        self.live[word] |= 1 << (entry % 64);
        self.live_entries += 1;
    }
}

/// What is reachable from some roots.
#[derive(Debug, Default)]
pub struct Marks {
    /// Every live pack of the catalog that was marked by.
    pub packs: BTreeMap<PackNumber, PackMarks>,
    /// Reachable hashes that no live pack lists.
    pub missing: BTreeSet<Hash>,
    /// Nodes that could not be read in some pass, and why; what lies below is not wholly marked.
    pub broken: BTreeMap<Hash, Error>,
}

impl Store {
    /// Marks all that is reachable from `roots`, and the copies of the records of the snapshots in `catalog` that
    /// `keeps_record` wants.
    pub(crate) fn mark(
        &self,
        catalog: &Catalog,
        roots: &[Hash],
        keeps_record: &dyn Fn(&crate::id::Uid) -> bool,
        progress: &Progress,
    ) -> Result<Marks> {
        let nodes = Nodes::new(
            (&self.log, &self.keeper),
            self.objects.clone(),
            catalog,
            self.geometry().cluster_bytes,
        );
        let mut marks = Marks::default();
        let suspects = Suspects::noted(&*self.local);
        let clusters: u64 = of_kind(catalog, PackKind::Clusters)
            .map(|p| u64::from(p.record.entries))
            .sum();
        let most = self.tuning.gc_pass_hashes;
        let passes = clusters.div_ceil(most).clamp(1, PASSES_MAX);
        let mut all_nodes = HashSet::new();
        for pass in 0..passes {
            progress.check()?;
            let range = pass * PASSES_MAX / passes..(pass + 1) * PASSES_MAX / passes;
            all_nodes = HashSet::new();
            // What one pass could not read is missing from what it marked, even if the next one could.
            let hashes = leaves(
                &nodes,
                roots,
                (range, most),
                &mut all_nodes,
                &mut marks.broken,
            );
            let search = Search::new(catalog, PackKind::Clusters, &suspects);
            let lost = self.find_all(search, &hashes, &mut marks)?;
            marks.missing.extend(lost);
        }
        let records = catalog.snapshots().filter(|s| keeps_record(&s.record.uid));
        let copies = records.map(|s| Hash::of(&record_copy(&s.record))).collect();
        let search = Search::new(catalog, PackKind::Nodes, &suspects);
        let all_nodes = Hashes::new(all_nodes.into_iter().collect());
        let lost = self.find_all(search, &all_nodes, &mut marks)?;
        marks.missing.extend(lost);
        // A copy of a record is for `rescue` alone: that it is not there stops nobody.
        self.find_all(search, &Hashes::new(copies), &mut marks)?;
        Ok(marks)
    }

    /// Marks one copy of each hash; returns those that no live pack lists.
    fn find_all(&self, search: Search<'_>, set: &Hashes, marks: &mut Marks) -> Result<Vec<Hash>> {
        let mut found: Vec<Option<PackNumber>> = vec![None; set.hashes().len()];
        for pack in of_kind(search.catalog, search.kind) {
            let own = marks.packs.entry(pack.number).or_default();
            own.suspect = search.suspects.touch(&pack.name);
            let Some(table) = readable(Table::read(&*self.objects, pack.name, &pack.record))?
            else {
                own.unreadable = true;
                continue;
            };
            for (entry, hash, frame, _) in table.entries() {
                let Some(at) = set.position(hash) else {
                    continue;
                };
                match found[at] {
                    _ if search.suspects.hold(&pack.name, frame.offset) => {}
                    None => {
                        found[at] = Some(pack.number);
                        own.mark(entry);
                    }
                    Some(other) if other != pack.number => {
                        own.elsewhere.insert(other);
                    }
                    Some(_) => {}
                }
            }
        }
        if !search.suspects.is_empty() {
            self.find_suspect(search, set, &mut found, marks)?;
        }
        let lost = set.hashes().iter().zip(&found).filter(|(_, f)| f.is_none());
        Ok(lost.map(|(hash, _)| *hash).collect())
    }

    /// A bad copy where there is none better: its pack is stuck. For the others it is said where the better one is.
    fn find_suspect(
        &self,
        search: Search<'_>,
        set: &Hashes,
        found: &mut [Option<PackNumber>],
        marks: &mut Marks,
    ) -> Result<()> {
        let touched =
            of_kind(search.catalog, search.kind).filter(|p| search.suspects.touch(&p.name));
        for pack in touched {
            let own = marks.packs.entry(pack.number).or_default();
            let Some(table) = readable(Table::read(&*self.objects, pack.name, &pack.record))?
            else {
                continue;
            };
            for (entry, hash, frame, _) in table.entries() {
                let Some(at) = set.position(hash) else {
                    continue;
                };
                match found[at] {
                    _ if !search.suspects.hold(&pack.name, frame.offset) => {}
                    None => {
                        found[at] = Some(pack.number);
                        own.stuck = true;
                        own.mark(entry);
                    }
                    Some(other) if other != pack.number => {
                        own.elsewhere.insert(other);
                    }
                    Some(_) => {}
                }
            }
        }
        Ok(())
    }
}

/// Where copies are looked for.
#[derive(Clone, Copy)]
struct Search<'a> {
    catalog: &'a Catalog,
    kind: PackKind,
    suspects: &'a Suspects,
}

impl<'a> Search<'a> {
    fn new(catalog: &'a Catalog, kind: PackKind, suspects: &'a Suspects) -> Self {
        Self {
            catalog,
            kind,
            suspects,
        }
    }
}

fn of_kind(
    catalog: &Catalog,
    kind: PackKind,
) -> impl Iterator<Item = &std::sync::Arc<crate::catalog::PackState>> {
    let mut packs: Vec<_> = catalog.packs().filter(|p| p.record.kind == kind).collect();
    packs.sort_by_key(|p| p.number);
    packs.into_iter()
}

/// Cluster hashes below the roots whose first two bytes are in `range`.
fn leaves(
    nodes: &Nodes<'_>,
    roots: &[Hash],
    (range, most): (std::ops::Range<u64>, u64),
    visited: &mut HashSet<Hash>,
    broken: &mut BTreeMap<Hash, Error>,
) -> Hashes {
    let mut hashes: Vec<Hash> = Vec::new();
    for root in roots {
        let mut take = |_: &Hash, node: &Node| {
            if node.level() != 0 {
                return Ok(());
            }
            for child in node.children() {
                if let Child::Hash(hash) = child
                    && range.contains(&(u64::from(hash.0[0]) << 8 | u64::from(hash.0[1])))
                {
                    hashes.push(hash);
                }
            }
            // Disks that share clusters but no nodes would fill this with copies.
            if hashes.len() as u64 > 2 * most {
                hashes.sort_unstable();
                hashes.dedup();
            }
            Ok(())
        };
        let walked = each_readable_node(nodes, *root, visited, &mut take, &mut |hash, e| {
            broken.insert(*hash, e);
            Ok(())
        });
        if let Err(e) = walked {
            broken.insert(*root, e);
        }
    }
    Hashes::new(hashes)
}
