//! What is reachable, as a bitmap a pack: exact, bounded in memory, from manifests and pack tables alone.
//!
//! Hashes are taken in as many passes over the manifests as keep one pass's set within a budget; a store of 1 TiB takes
//! a few. Of several copies of a hash the one in the pack with the lowest number counts, always.

use crate::catalog::Catalog;
use crate::content::nodes::Nodes;
use crate::content::resolve::{HashSet as Hashes, readable};
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

/// Hashes of one pass: 32 MiB.
const PASS_HASHES: u64 = 1 << 20;

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
    /// Nodes that could not be read, and why; what lies below is not marked.
    pub broken: Vec<(Hash, Error)>,
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
            &self.log,
            self.objects.clone(),
            catalog,
            self.geometry().cluster_bytes,
        )?;
        let mut marks = Marks::default();
        let clusters: u64 = of_kind(catalog, PackKind::Clusters)
            .map(|p| u64::from(p.record.entries))
            .sum();
        let passes = clusters.div_ceil(PASS_HASHES).clamp(1, 1 << 16) as u32;
        let mut all_nodes = HashSet::new();
        for pass in 0..passes {
            progress.check()?;
            let range = (pass << 16) / passes..((pass + 1) << 16) / passes;
            all_nodes = HashSet::new();
            marks.broken.clear();
            let hashes = leaves(&nodes, roots, range, &mut all_nodes, &mut marks.broken);
            self.find_all(catalog, PackKind::Clusters, &hashes, &mut marks, true)?;
        }
        let records = catalog.snapshots().filter(|s| keeps_record(&s.record.uid));
        let copies = records.map(|s| Hash::of(&record_copy(&s.record))).collect();
        self.find_all(
            catalog,
            PackKind::Nodes,
            &Hashes::new(all_nodes.into_iter().collect()),
            &mut marks,
            true,
        )?;
        self.find_all(
            catalog,
            PackKind::Nodes,
            &Hashes::new(copies),
            &mut marks,
            false,
        )?;
        Ok(marks)
    }

    fn find_all(
        &self,
        catalog: &Catalog,
        kind: PackKind,
        set: &Hashes,
        marks: &mut Marks,
        must_exist: bool,
    ) -> Result<()> {
        let mut found: Vec<Option<PackNumber>> = vec![None; set.hashes().len()];
        for pack in of_kind(catalog, kind) {
            let own = marks.packs.entry(pack.number).or_default();
            let Some(table) = readable(Table::read(&*self.objects, pack.name, &pack.record))?
            else {
                own.unreadable = true;
                continue;
            };
            for (entry, hash, ..) in table.entries() {
                let Some(at) = set.position(hash) else {
                    continue;
                };
                match found[at] {
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
        if must_exist {
            let lost = set.hashes().iter().zip(&found).filter(|(_, f)| f.is_none());
            marks.missing.extend(lost.map(|(h, _)| *h));
        }
        Ok(())
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
    range: std::ops::Range<u32>,
    visited: &mut HashSet<Hash>,
    broken: &mut Vec<(Hash, Error)>,
) -> Hashes {
    let mut hashes: Vec<Hash> = Vec::new();
    for root in roots {
        let mut take = |_: &Hash, node: &Node| {
            if node.level() != 0 {
                return Ok(());
            }
            for child in node.children() {
                if let Child::Hash(hash) = child
                    && range.contains(&(u32::from(hash.0[0]) << 8 | u32::from(hash.0[1])))
                {
                    hashes.push(hash);
                }
            }
            // Disks that share clusters but no nodes would fill this with copies.
            if hashes.len() as u64 > 2 * PASS_HASHES {
                hashes.sort_unstable();
                hashes.dedup();
            }
            Ok(())
        };
        let walked = each_readable_node(nodes, *root, visited, &mut take, &mut |hash, e| {
            broken.push((*hash, e));
            Ok(())
        });
        if let Err(e) = walked {
            broken.push((*root, e));
        }
    }
    Hashes::new(hashes)
}
