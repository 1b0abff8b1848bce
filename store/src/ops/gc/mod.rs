//! Space back: packs that nothing reachable needs go, mostly dead ones are rewritten. Blocks nobody; what others did
//! meanwhile makes an entry invalid, and the marking starts again.
//!
//! ORDER: new packs durable, `compact` durable, the dropped packs' bytes removed.

pub mod mark;
pub mod plan;
mod rewrite;
mod sweep;

use crate::catalog::Catalog;
use crate::error::{Error, ErrorKind, Result};
use crate::format::entry::{PackKind, SessionKind};
use crate::id::{Hash, Uid};
use crate::log::invalid;
use crate::object::Purse;
use crate::ops::ingest::Writer;
use crate::progress::Progress;
use crate::store::{Store, may_be_dropped};
use mark::Marks;
use plan::{Plan, Step, plan};
use rewrite::{Counter, Out, Rewriter};
use std::sync::Arc;

/// Rounds of marking: each follows what others did during the one before.
const ROUNDS: usize = 8;

/// What gc is to do.
#[derive(Debug, Clone, Copy, Default)]
pub struct Options {
    /// Leave nothing dead, instead of at most a tenth.
    pub all: bool,
    /// Only say what would be done.
    pub dry_run: bool,
}

/// What gc did, or would do.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Outcome {
    /// Packs removed that held nothing needed.
    pub dead_packs: u64,
    /// Packs whose live part was copied.
    pub rewritten_packs: u64,
    /// Bytes of all live packs before.
    pub bytes_before: u64,
    /// And after; an estimate in a dry run without `all`.
    pub bytes_after: u64,
    /// Bytes of packs written to keep what was live in others.
    pub bytes_copied: u64,
    /// Bytes that are dead and remain, estimated by entries.
    pub bytes_dead: u64,
    /// Bytes that are there only because sessions are open: what they published, and what they pinned and was deleted since.
    pub bytes_spared: u64,
    /// Packs removed that were never published, or were dropped by a gc that was cut off.
    pub orphans: u64,
    /// Their bytes.
    pub orphan_bytes: u64,
    /// Sessions of processes that died, ended now.
    pub expired: u64,
}

impl Store {
    /// See the module. Where a reachable hash is in no live pack nothing is dropped, and the error says so.
    pub fn gc(&self, options: Options, progress: &Progress) -> Result<Outcome> {
        let mut outcome = Outcome::default();
        if options.dry_run {
            let (plan, bytes_after, pinned) = self.on_settled(|catalog| {
                let marks = self.mark_sound(catalog, progress)?;
                let plan = self.plan(catalog, &marks, options.all);
                let after = self.size_after(&plan, &marks, progress)?;
                Ok((plan, after, self.pinned(catalog, &marks, progress)?))
            })?;
            outcome.note(&plan);
            outcome.bytes_spared += pinned;
            outcome.bytes_before = plan.bytes_before;
            outcome.bytes_after = bytes_after;
            outcome.bytes_copied = outcome.bytes_after + plan.bytes_dropped() - plan.bytes_before;
            outcome.bytes_dead = plan.bytes_left;
            return Ok(outcome);
        }
        outcome.expired = self.log.expire_dead()?.len() as u64;
        self.local.sweep()?;
        // What a gc that was cut off left is room for this one, and may be all the room there is.
        self.clear_away(&mut outcome, progress)?;
        let done = self.rounds(options, &mut outcome, progress);
        let cleared = self.clear_away(&mut outcome, progress);
        done.and(cleared)?;
        let catalog = self.catalog();
        if self.keeper.is_open() {
            self.index_packs(&catalog)?;
        }
        Ok(outcome)
    }

    /// Removes what belongs to nobody, and fills the reserve up again.
    fn clear_away(&self, outcome: &mut Outcome, progress: &Progress) -> Result<()> {
        let (orphans, bytes) = self.sweep(progress)?;
        outcome.orphans += orphans;
        outcome.orphan_bytes += bytes;
        self.objects.refill()
    }

    fn rounds(&self, options: Options, outcome: &mut Outcome, progress: &Progress) -> Result<()> {
        let mut step_bytes = self.tuning.gc_step_bytes;
        for round in 0..ROUNDS {
            let (catalog, marks) = self.on_settled(|catalog| {
                let marks = self.mark_sound(catalog, progress)?;
                Ok((catalog.clone(), marks))
            })?;
            let plan = plan(&catalog, &marks, options.all, step_bytes);
            if round == 0 {
                outcome.bytes_before = plan.bytes_before;
            }
            outcome.bytes_spared = plan.bytes_spared;
            outcome.bytes_after = plan.bytes_before;
            outcome.bytes_dead = plan.bytes_dead;
            if plan.steps.is_empty() {
                outcome.bytes_spared += self.pinned(&catalog, &marks, progress)?;
                break;
            }
            match self.carry_out(&plan, &marks, &catalog, outcome, progress) {
                // A step that copies more than there is room for: what it has written goes, and the next are of one pack each.
                Err(e) if e.kind() == ErrorKind::NoSpace && step_bytes > 0 => {
                    step_bytes = 0;
                    self.clear_away(outcome, progress)?;
                }
                done => done?,
            }
            let after = self.refresh()?;
            outcome.bytes_after = total_bytes(&after);
            outcome.bytes_copied +=
                (outcome.bytes_after + plan.bytes_dropped()).saturating_sub(plan.bytes_before);
        }
        Ok(())
    }

    /// Bytes, estimated by entries, that only pins keep.
    fn pinned(&self, catalog: &Catalog, marks: &Marks, progress: &Progress) -> Result<u64> {
        let lasting = catalog.roots_without_pins();
        if catalog.roots().len() == lasting.len() {
            return Ok(0);
        }
        let lasting: Vec<Hash> = lasting.into_iter().collect();
        let without = self.mark(catalog, &lasting, &|_| true, progress)?;
        let dead =
            |marks: &Marks| -> u64 { catalog.packs().map(|p| plan::dead_bytes(p, marks)).sum() };
        Ok(dead(&without).saturating_sub(dead(marks)))
    }

    /// Bytes that `gc --all` would leave if the snapshots that `without` names were deleted.
    pub(crate) fn bytes_without(
        &self,
        without: &dyn Fn(&Uid) -> bool,
        progress: &Progress,
    ) -> Result<u64> {
        self.on_settled(|catalog| {
            let roots = catalog.roots_without(without);
            let marks = self.mark(catalog, &roots, &|uid| !without(uid), progress)?;
            sound(&marks)?;
            self.size_after(&self.plan(catalog, &marks, true), &marks, progress)
        })
    }

    fn plan(&self, catalog: &Catalog, marks: &Marks, all: bool) -> Plan {
        plan(catalog, marks, all, self.tuning.gc_step_bytes)
    }

    pub(crate) fn mark_sound(&self, catalog: &Catalog, progress: &Progress) -> Result<Marks> {
        let marks = self.mark(catalog, &catalog.roots(), &|_| true, progress)?;
        sound(&marks)?;
        Ok(marks)
    }

    /// Does the steps one by one; stops where somebody else came between, and the next round goes on.
    fn carry_out(
        &self,
        plan: &Plan,
        marks: &Marks,
        marked: &Catalog,
        outcome: &mut Outcome,
        progress: &Progress,
    ) -> Result<()> {
        let mut writer = Writer::new(self, SessionKind::Gc, Purse::Reserve)?;
        let done = plan.steps.iter().try_for_each(|step| {
            self.copy_live(step, marks, &mut writer, progress)?;
            // By the state that was marked: one that is not live any more makes the entry invalid.
            let kept = step
                .kept
                .iter()
                .filter_map(|n| marked.pack_numbered(*n).map(|p| p.name))
                .collect();
            let dropped: Vec<_> = step.dropped.iter().map(|p| p.name).collect();
            writer.compact(marked.seq(), &dropped, kept)?;
            for name in &dropped {
                self.objects.delete(&name.key())?;
            }
            let wholly =
                |p: &&Arc<crate::catalog::PackState>| marks.packs[&p.number].live_entries == 0;
            let dead = step.dropped.iter().filter(wholly).count() as u64;
            outcome.dead_packs += dead;
            outcome.rewritten_packs += step.dropped.len() as u64 - dead;
            Ok(())
        });
        writer.discard()?;
        match done {
            Err(e) if invalid(&e).is_some() => Ok(()),
            Err(e) if may_be_dropped(&e) && !self.log.still_holds(marked)? => Ok(()),
            other => other,
        }
    }

    fn copy_live(
        &self,
        step: &Step,
        marks: &Marks,
        out: &mut dyn Out,
        progress: &Progress,
    ) -> Result<()> {
        for kind in [PackKind::Clusters, PackKind::Nodes] {
            let mut rewriter = Rewriter::new(&*self.objects, self.geometry(), kind);
            for pack in step.dropped.iter().filter(|p| p.record.kind == kind) {
                rewriter.copy(pack, marks, out, progress)?;
            }
            rewriter.end(out)?;
        }
        Ok(())
    }

    /// Bytes of all packs once the plan is carried out: the same code, writing nowhere.
    fn size_after(&self, plan: &Plan, marks: &Marks, progress: &Progress) -> Result<u64> {
        let mut bytes = plan.bytes_before;
        for step in &plan.steps {
            let mut counter = Counter::new(
                self.id(),
                self.geometry().cluster_bytes,
                self.tuning.pack_bytes,
            );
            self.copy_live(step, marks, &mut counter, progress)?;
            counter.end();
            bytes = bytes + counter.bytes
                - step
                    .dropped
                    .iter()
                    .map(|p| u64::from(p.record.size))
                    .sum::<u64>();
        }
        Ok(bytes)
    }
}

impl Outcome {
    fn note(&mut self, plan: &Plan) {
        self.dead_packs = plan.dead_packs;
        self.rewritten_packs = plan.rewritten_packs;
        self.bytes_spared = plan.bytes_spared;
    }
}

/// Bytes of all live packs.
pub fn total_bytes(catalog: &Catalog) -> u64 {
    catalog.packs().map(|p| u64::from(p.record.size)).sum()
}

/// Anything reachable that is not there stops all drops: what looks dead may be what is missed.
fn sound(marks: &Marks) -> Result<()> {
    let doing = "finding what is reachable";
    if let Some((root, e)) = marks.broken.first_key_value() {
        let why = format!("manifest {root} cannot be read; nothing was removed: {e}");
        return Err(Error::new(ErrorKind::Corrupt, doing)
            .detail(why)
            .hint("`still verify` lists all damage"));
    }
    let Some(first): Option<&Hash> = marks.missing.first() else {
        return Ok(());
    };
    let n = marks.missing.len();
    let why = format!(
        "{n} reachable clusters or nodes are in no live pack, {first} first; nothing was removed"
    );
    Err(Error::new(ErrorKind::Corrupt, doing)
        .detail(why)
        .hint("`still verify` lists all damage"))
}
