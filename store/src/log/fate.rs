//! What became of an entry that was put: whoever is slow may have put it into a slot that was trimmed long ago, or have it
//! trimmed before looking again.

use super::{LOG, Log, State, checkpoint, entry_key, fold};
use crate::catalog::Catalog;
use crate::error::{Error, ErrorKind, Result};
use crate::format::entry::{Entry, Op};
use crate::id::Sequence;

/// Who has a slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Slot {
    /// The bytes there are ours.
    pub ours: bool,
    /// The first put was answered: nothing of ours was there before.
    pub clear: bool,
}

/// See the module.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fate {
    /// It is in the log.
    Counted,
    /// It is not and never was.
    Dead,
    /// Nothing that is left tells.
    Unclear,
}

impl Log {
    /// Where a checkpoint is above the entry, the state is that of the checkpoint afterwards. An entry in a dead slot is
    /// removed.
    pub(super) fn fate(
        &self,
        state: &mut State,
        seq: Sequence,
        entry: &Entry,
        slot: Slot,
    ) -> Result<Fate> {
        let by_slot = if slot.ours { Fate::Counted } else { Fate::Dead };
        // Slots are trimmed only below a checkpoint.
        let trimmed = self.options.rules.look_for_checkpoint && self.has_checkpoint_from(seq)?;
        if !trimmed || (!slot.ours && slot.clear) {
            return Ok(by_slot);
        }
        self.reload(state)?;
        let fate = match state.catalog.session(&entry.session) {
            Some(session) if session.counter >= entry.counter => Fate::Counted,
            Some(_) => Fate::Dead,
            None if is_evident(entry, &state.catalog) => Fate::Counted,
            None => self.fate_by_chain(seq, entry, slot)?,
        };
        if fate == Fate::Dead && slot.ours {
            self.objects.delete(&entry_key(seq))?;
            self.objects.sync(LOG)?;
        }
        Ok(fate)
    }

    /// The session has ended, by this entry or by another: then the slot tells, if it is still there.
    fn fate_by_chain(&self, seq: Sequence, entry: &Entry, slot: Slot) -> Result<Fate> {
        let own = fold::read_entry(&*self.objects, seq)?.filter(|own| own.entry == *entry);
        let Some(own) = own else {
            return Ok(Fate::Unclear);
        };
        let next = fold::read_entry(&*self.objects, seq + 1)?;
        let tip = checkpoint::read(&*self.objects, seq).map(|c| c.tip()).ok();
        if tip == Some(own.checksum) || next.is_some_and(|next| next.previous == own.checksum) {
            return Ok(Fate::Counted);
        }
        // Slots are trimmed from the lowest on: were it in the log, what followed it would be there too. Of two puts of
        // ours an earlier one may have counted nevertheless.
        Ok(if slot.clear {
            Fate::Dead
        } else {
            Fate::Unclear
        })
    }
}

/// Whether the state has something that only this entry can have put there.
fn is_evident(entry: &Entry, catalog: &Catalog) -> bool {
    entry.ops.iter().any(|op| match op {
        Op::PutSnapshot { record, .. } => catalog.snapshot(&record.uid).is_some(),
        Op::GotoBegin { record } => catalog.gotos().any(|g| g.uid == record.uid),
        Op::Publish { packs } | Op::Compact { new: packs, .. } => packs.iter().any(|p| {
            let (session, n) = (entry.session, p.n);
            catalog.pack(&crate::id::PackName { session, n }).is_some()
        }),
        _ => false,
    })
}

/// For the caller, who must not start over.
pub(super) fn unclear() -> Error {
    Error::new(ErrorKind::Busy, "committing to the log")
        .detail("whether the entry was counted before others outran it is unclear")
        .hint("look with `still list` before trying again")
}
