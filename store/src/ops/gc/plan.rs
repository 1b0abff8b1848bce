//! Which packs go and which are rewritten: pure.

use super::mark::{Marks, PackMarks};
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
        Some(m) if m.stuck => 0,
        // All that is reachable was found elsewhere, or gc would not go on.
        Some(m) if m.unreadable && m.suspect => size,
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
            candidates.push(Candidate {
                pack: pack.clone(),
                marks: &marks.packs[&pack.number],
                dead,
            });
        }
    }
    plan.bytes_left = plan.bytes_dead - plan.bytes_spared;
    let mut chosen = choose(candidates, all, plan.bytes_before, &mut plan.bytes_left);
    // A pack that is named as kept cannot be dropped by a later step: those that hold good copies of bad ones wait.
    let mended = chosen.iter().filter(|c| c.is_mended());
    let needed: BTreeSet<_> = mended.flat_map(|c| &c.marks.elsewhere).copied().collect();
    chosen.retain(|c| c.is_mended() || !needed.contains(&c.pack.number));
    plan.cut_into_steps(chosen, step_bytes);
    plan
}

/// A pack that may go.
struct Candidate<'a> {
    pack: Arc<PackState>,
    marks: &'a PackMarks,
    dead: u64,
}

impl Candidate<'_> {
    fn is_wholly_dead(&self) -> bool {
        self.marks.live_entries == 0
    }

    /// Its bad copies have good ones elsewhere: once it is gone the damage is.
    fn is_mended(&self) -> bool {
        self.marks.suspect
    }
}

/// Damaged ones first, then mostly dead ones: they give most for what must be copied.
fn choose<'a>(
    mut all: Vec<Candidate<'a>>,
    every: bool,
    mut total: u64,
    left: &mut u64,
) -> Vec<Candidate<'a>> {
    let share = |c: &Candidate<'_>| c.dead * 1_000_000 / u64::from(c.pack.record.size.max(1));
    all.sort_by_key(|c| (!c.is_mended(), std::cmp::Reverse(share(c)), c.pack.number));
    let mut worth_it = |c: &Candidate<'_>| {
        let go = c.is_wholly_dead() || c.is_mended() || every || *left * DEAD_ONE_IN > total;
        if go {
            *left -= c.dead;
            total -= c.dead;
        }
        go
    };
    let n = all.iter().take_while(|c| worth_it(c)).count();
    all.truncate(n);
    all
}

impl Plan {
    /// Wholly dead packs come first, as they make room. The others go in the order of their numbers. A pack whose copies
    /// justify a drop was itself dropped, and its copies taken over by this gc, in an earlier step or in the same one; or
    /// it is named as kept. What this gc wrote needs no naming: nobody drops packs of an open session.
    fn cut_into_steps(&mut self, chosen: Vec<Candidate<'_>>, step_bytes: u64) {
        let going: BTreeSet<PackNumber> = chosen.iter().map(|c| c.pack.number).collect();
        let (mut first, mut rest): (Vec<_>, Vec<_>) = chosen
            .into_iter()
            .partition(|c| c.is_wholly_dead() && c.marks.elsewhere.is_disjoint(&going));
        first.sort_by_key(|c| c.pack.number);
        rest.sort_by_key(|c| c.pack.number);
        for group in [first, rest] {
            let mut room = 0;
            for c in group {
                let copies = u64::from(c.pack.record.size) - c.dead;
                if copies > room || room == 0 {
                    self.steps.push(Step::default());
                    room = step_bytes.max(copies);
                }
                room -= copies;
                self.add(c);
            }
        }
        let mut gone = BTreeSet::new();
        for step in &mut self.steps {
            gone.extend(step.dropped.iter().map(|p| p.number));
            step.kept.retain(|n| !gone.contains(n));
        }
    }

    /// To the last step.
    fn add(&mut self, c: Candidate<'_>) {
        if c.is_wholly_dead() {
            self.dead_packs += 1;
        } else {
            self.rewritten_packs += 1;
        }
        if let Some(step) = self.steps.last_mut() {
            step.kept.extend(&c.marks.elsewhere);
            step.dropped.push(c.pack);
        }
    }
}
