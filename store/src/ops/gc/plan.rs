//! Which packs go and which are rewritten: pure.

use super::mark::Marks;
use crate::catalog::{Catalog, PackState};
use crate::id::PackNumber;
use std::collections::BTreeSet;
use std::sync::Arc;

/// Dead bytes, of all pack bytes, that gc leaves alone: one in this many.
const DEAD_ONE_IN: u64 = 10;

/// Packs that stop to be live in one entry.
#[derive(Debug, Clone, Default)]
pub struct Step {
    /// Wholly dead, or rewritten first.
    pub dropped: Vec<Arc<PackState>>,
    /// Packs that hold what is reachable in the dropped ones too.
    pub kept: BTreeSet<PackNumber>,
}

/// What gc will do.
#[derive(Debug, Clone, Default)]
pub struct Plan {
    /// In order: wholly dead packs first.
    pub steps: Vec<Step>,
    /// Packs dropped without a copy.
    pub dead_packs: u64,
    /// Packs rewritten.
    pub rewritten_packs: u64,
    /// Bytes of all packs now.
    pub bytes_before: u64,
    /// Bytes that are dead now, estimated by entries.
    pub bytes_dead: u64,
    /// Bytes of dead packs that a session that is open, or a pin, keeps.
    pub bytes_spared: u64,
    /// Dead bytes that the plan leaves.
    pub bytes_left: u64,
}

impl Plan {
    /// Bytes of the packs that stop to be live.
    pub fn bytes_dropped(&self) -> u64 {
        self.steps
            .iter()
            .flat_map(|s| &s.dropped)
            .map(|p| u64::from(p.record.size))
            .sum()
    }
}

/// Bytes of the pack that nothing reachable needs, by its share of entries.
pub fn dead_bytes(pack: &PackState, marks: &Marks) -> u64 {
    let (size, entries) = (
        u64::from(pack.record.size),
        u64::from(pack.record.entries.max(1)),
    );
    match marks.packs.get(&pack.number) {
        Some(m) if !m.unreadable => {
            size * (entries - u64::from(m.live_entries).min(entries)) / entries
        }
        _ => 0,
    }
}

/// Drops what is dead and picks what is worth rewriting; with `all`, every pack that has anything dead in it.
/// About `step_bytes` are rewritten for one entry of the log.
pub fn plan(catalog: &Catalog, marks: &Marks, all: bool, step_bytes: u64) -> Plan {
    let mut plan = Plan::default();
    let mut candidates = Vec::new();
    for pack in catalog.packs() {
        let dead = dead_bytes(pack, marks);
        plan.bytes_before += u64::from(pack.record.size);
        plan.bytes_dead += dead;
        if dead == 0 {
            continue;
        }
        if catalog.pinned(&pack.name) || catalog.session(&pack.name.session).is_some() {
            plan.bytes_spared += dead;
        } else {
            candidates.push((pack.clone(), dead));
        }
    }
    // Mostly dead ones first: they give most for what must be copied. Ties by number, so that plans can be compared.
    let share = |(pack, dead): &(Arc<PackState>, u64)| {
        dead * 1_000_000 / u64::from(pack.record.size.max(1))
    };
    candidates.sort_by_key(|c| (std::cmp::Reverse(share(c)), c.0.number));
    let mut left = plan.bytes_dead - plan.bytes_spared;
    let mut total = plan.bytes_before;
    let mut chooser = Chooser {
        marks,
        dropped: BTreeSet::new(),
        kept: BTreeSet::new(),
        copied: 0,
        step_bytes,
    };
    for (pack, dead) in candidates {
        let wholly = marks
            .packs
            .get(&pack.number)
            .is_some_and(|m| m.live_entries == 0);
        if !wholly && !all && left * DEAD_ONE_IN <= total {
            break;
        }
        if !chooser.add(&mut plan, pack, wholly, dead) {
            continue;
        }
        left -= dead;
        total -= dead;
    }
    plan.bytes_left = left;
    plan
}

struct Chooser<'a> {
    marks: &'a Marks,
    dropped: BTreeSet<PackNumber>,
    kept: BTreeSet<PackNumber>,
    copied: u64,
    step_bytes: u64,
}

impl Chooser<'_> {
    /// False where the pack justifies another drop of this plan, or is justified by one: a later round takes it.
    fn add(&mut self, plan: &mut Plan, pack: Arc<PackState>, wholly: bool, dead: u64) -> bool {
        let Some(own) = self.marks.packs.get(&pack.number) else {
            return false;
        };
        if self.kept.contains(&pack.number) || !own.elsewhere.is_disjoint(&self.dropped) {
            return false;
        }
        let copied = u64::from(pack.record.size) - dead;
        let fits = self.copied + copied <= self.step_bytes;
        if plan.steps.is_empty() || (!wholly && (!fits || plan.rewritten_packs == 0)) {
            plan.steps.push(Step::default());
            self.copied = 0;
        }
        self.copied += copied;
        self.dropped.insert(pack.number);
        self.kept.extend(&own.elsewhere);
        *(if wholly {
            &mut plan.dead_packs
        } else {
            &mut plan.rewritten_packs
        }) += 1;
        if let Some(step) = plan.steps.last_mut() {
            step.kept.extend(&own.elsewhere);
            step.dropped.push(pack);
        }
        true
    }
}
