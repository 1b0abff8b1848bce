//! The folded catalog at a sequence, so that a load need not read the whole log, and old entries can go.
//!
//! ORDER: log durable, checkpoint durable and read back, then older checkpoints and entries removed.

use super::{CHECKPOINT, LOG, Log, State, checkpoint_key, entry_key};
use crate::catalog::{Catalog, Rules};
use crate::error::{Error, Result};
use crate::format::codec;
use crate::format::envelope::{self, EnvelopeKind};
use crate::id::Sequence;
use crate::limits::CHECKPOINT_BYTES_MAX;
use crate::object::{Objects, Purse, get_whole};

const DOING: &str = "reading the checkpoint";

/// Its stored form.
pub fn encode(catalog: &Catalog) -> Vec<u8> {
    let payload = codec::encode(catalog);
    envelope::seal(
        EnvelopeKind::Checkpoint,
        catalog.seq(),
        catalog.tip(),
        &payload,
    )
    .0
}

/// A catalog from its stored form.
pub fn decode(bytes: &[u8], seq: Sequence) -> Result<Catalog> {
    let bad = |why: String| Error::corrupt(DOING, why);
    let envelope =
        envelope::open(EnvelopeKind::Checkpoint, bytes).map_err(|e| bad(e.to_string()))?;
    let catalog: Catalog =
        codec::decode(envelope.payload, CHECKPOINT_BYTES_MAX).map_err(|e| bad(e.to_string()))?;
    if envelope.sequence != seq || catalog.seq() != seq || catalog.tip() != envelope.previous {
        return Err(bad(format!("it is that of entry {}", envelope.sequence)));
    }
    catalog
        .complete()
        .ok_or_else(|| bad("its packs contradict each other".into()))
}

/// The checkpoint at a sequence.
pub fn read(objects: &dyn Objects, seq: Sequence) -> Result<Catalog> {
    let key = checkpoint_key(seq);
    let bytes = get_whole(objects, &key, CHECKPOINT_BYTES_MAX)?;
    decode(&bytes, seq).map_err(|e| e.at(objects.describe(&key)))
}

impl Log {
    /// The entry that made it due is committed whatever becomes of this: a failure costs later loads time.
    pub(super) fn write_checkpoint(&self, state: &mut State) {
        if let Err(e) = self.try_checkpoint(state) {
            drop(e);
        }
    }

    fn try_checkpoint(&self, state: &mut State) -> Result<()> {
        self.make_durable_in(state)?;
        let catalog = checkpointed(state, self.options.rules);
        let seq = catalog.seq();
        self.objects
            .put_new(&checkpoint_key(seq), &[&encode(&catalog)], Purse::Free)?;
        self.objects.sync(CHECKPOINT)?;
        if read(&*self.objects, seq)? != catalog {
            return Err(Error::corrupt(DOING, "it is not what was written"));
        }
        self.trim(seq)
    }

    /// Keeps the two newest checkpoints, all entries after the older one, and the newest entries.
    fn trim(&self, newest: Sequence) -> Result<()> {
        let checkpoints = numbers(&*self.objects, CHECKPOINT)?;
        let Some(older) = checkpoints.iter().rev().find(|seq| **seq < newest) else {
            return Ok(());
        };
        // With a damaged one the entries since the one before are all there is, should the newest be damaged too.
        read(&*self.objects, *older)?;
        for seq in checkpoints.iter().filter(|seq| *seq < older) {
            self.objects.delete(&checkpoint_key(*seq))?;
        }
        let keep_from = (*older + 1).min(newest.saturating_sub(self.options.entries_kept) + 1);
        for seq in numbers(&*self.objects, LOG)?
            .into_iter()
            .take_while(|seq| *seq < keep_from)
        {
            self.objects.delete(&entry_key(seq))?;
        }
        Ok(())
    }
}

#[cfg_attr(
    not(test),
    expect(unused_variables, reason = "only tests switch rules off")
)]
fn checkpointed(state: &State, rules: Rules) -> Catalog {
    let catalog = Catalog::clone(&state.catalog);
    #[cfg(test)]
    if !rules.checkpoint_names {
        return catalog.forget_names();
    }
    catalog
}

fn numbers(objects: &dyn Objects, folder: &str) -> Result<Vec<Sequence>> {
    Ok(objects
        .list_after(folder, "")?
        .iter()
        .filter_map(|name| name.parse().ok())
        .collect())
}
