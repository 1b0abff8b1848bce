//! Reading the log: a fresh load, and following what others add.

use super::{CHECKPOINT, LOG, Log, State, checkpoint, entry_key};
use crate::catalog::{Catalog, Rules};
use crate::error::{Error, ErrorKind, Result};
use crate::format::codec;
use crate::format::entry::Entry;
use crate::format::envelope::{self, EnvelopeKind};
use crate::id::{Hash, Sequence};
use crate::limits::ENTRY_BYTES_MAX;
use crate::object::{Objects, get_whole};
use std::sync::Arc;

const DOING: &str = "reading the log entry";
const RESCUE: &str =
    "`still rescue` saves what is readable; a copy of this one file from a backup mends the store";

/// An entry as it was read.
pub struct Read {
    /// Its checksum.
    pub checksum: Hash,
    /// Checksum of the entry before.
    pub previous: Hash,
    /// What it says.
    pub entry: Entry,
}

/// The entry at a sequence; `None` where there is none yet.
pub fn read_entry(objects: &dyn Objects, seq: Sequence) -> Result<Option<Read>> {
    let key = entry_key(seq);
    let bytes = match get_whole(objects, &key, ENTRY_BYTES_MAX) {
        Ok(bytes) => bytes,
        Err(e) if e.kind() == ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(e),
    };
    decode_entry(&bytes, seq)
        .map(Some)
        .map_err(|e| e.at(objects.describe(&key)).hint(RESCUE))
}

/// An entry from its bytes.
pub fn decode_entry(bytes: &[u8], seq: Sequence) -> Result<Read> {
    let envelope = envelope::open(EnvelopeKind::Entry, bytes)
        .map_err(|e| Error::corrupt(DOING, e.to_string()))?;
    if envelope.sequence != seq {
        return Err(Error::corrupt(
            DOING,
            format!("it is entry {}", envelope.sequence),
        ));
    }
    let entry = codec::decode(envelope.payload, ENTRY_BYTES_MAX)
        .map_err(|e| Error::corrupt(DOING, e.to_string()))?;
    Ok(Read {
        checksum: envelope.checksum,
        previous: envelope.previous,
        entry,
    })
}

/// The newest checkpoint that is whole, or the empty state, and all entries after it.
pub fn load(objects: &dyn Objects, rules: Rules) -> Result<Catalog> {
    let mut newest = newest_checkpoint(objects)?;
    loop {
        let failed = match try_load(objects, rules) {
            Ok(catalog) => return Ok(catalog),
            Err(e) => e,
        };
        // What was listed may have been trimmed before it was read; then there is a newer checkpoint.
        let now = newest_checkpoint(objects)?;
        if now == newest {
            return Err(failed);
        }
        newest = now;
    }
}

fn newest_checkpoint(objects: &dyn Objects) -> Result<Option<String>> {
    Ok(objects.list_after(CHECKPOINT, "")?.pop())
}

fn try_load(objects: &dyn Objects, rules: Rules) -> Result<Catalog> {
    let (mut catalog, damaged) = base(objects)?;
    let names = objects.list_after(LOG, &format!("{:020}", catalog.seq()))?;
    let last = names
        .iter()
        .filter_map(|n| n.parse::<Sequence>().ok())
        .max()
        .unwrap_or(0);
    loop {
        let seq = catalog.seq() + 1;
        let Some(read) = read_entry(objects, seq)? else {
            return match damaged {
                // The damaged checkpoint is above: entries up to it were there.
                Some((promised, e)) if promised >= seq => Err(e.hint(RESCUE)),
                // Entries go only below a checkpoint: this one was there.
                _ if last >= seq => {
                    let why = format!("entry {seq} is missing, entry {last} is there");
                    let at = objects.describe(&entry_key(seq));
                    Err(Error::corrupt(DOING, why).at(at).hint(RESCUE))
                }
                _ => Ok(catalog),
            };
        };
        if read.previous != catalog.tip() && rules.chain_checked {
            let at = objects.describe(&entry_key(seq));
            let why = "it does not follow the entry before it";
            return Err(Error::corrupt(DOING, why).at(at).hint(RESCUE));
        }
        catalog = catalog.apply(read.checksum, &read.entry, rules).0;
    }
}

/// The newest checkpoint that is whole, or the empty state, and the newest that is not.
fn base(objects: &dyn Objects) -> Result<(Catalog, Option<(Sequence, Error)>)> {
    let mut damaged = None;
    for name in objects.list_after(CHECKPOINT, "")?.iter().rev() {
        let Ok(seq) = name.parse() else { continue };
        match checkpoint::read(objects, seq) {
            Ok(found) => return Ok((found, damaged)),
            Err(e) if e.kind() == ErrorKind::NotFound => {}
            Err(e) => {
                damaged.get_or_insert((seq, e));
            }
        }
    }
    Ok((Catalog::default(), damaged))
}

impl Log {
    /// Folds to the end. Whoever acts on the result may: a checkpoint above means that the slots read may be dead ones,
    /// left over below a trimmed log, and the state is loaded from it.
    pub(super) fn fold_on(&self, state: &mut State) -> Result<()> {
        loop {
            self.fold_forward(state)?;
            if !self.options.rules.look_for_checkpoint || !self.is_outrun(state)? {
                return Ok(());
            }
            self.reload(state)?;
        }
    }

    fn fold_forward(&self, state: &mut State) -> Result<()> {
        let rules = self.options.rules;
        loop {
            let seq = state.catalog.seq() + 1;
            match read_entry(&*self.objects, seq) {
                Ok(Some(read)) if read.previous == state.catalog.tip() || !rules.chain_checked => {
                    let next = state.catalog.apply(read.checksum, &read.entry, rules).0;
                    state.catalog = Arc::new(next);
                }
                // A broken chain: what was folded, or this entry, was in a dead slot. The load tells, or finds damage.
                Ok(Some(_)) => return self.reload(state),
                Ok(None) => return Ok(()),
                Err(e) => {
                    self.reload(state)?;
                    return if state.catalog.seq() >= seq {
                        Ok(())
                    } else {
                        Err(e)
                    };
                }
            }
        }
    }

    /// Whether a checkpoint is above what was folded.
    fn is_outrun(&self, state: &State) -> Result<bool> {
        let after = format!("{:020}", state.catalog.seq());
        Ok(!self.objects.list_after(CHECKPOINT, &after)?.is_empty())
    }

    pub(super) fn reload(&self, state: &mut State) -> Result<()> {
        let catalog = load(&*self.objects, self.options.rules)?;
        state.durable = state.durable.min(catalog.seq());
        state.catalog = Arc::new(catalog);
        Ok(())
    }

    /// Whether there is a checkpoint at this sequence or above.
    pub(super) fn has_checkpoint_from(&self, seq: Sequence) -> Result<bool> {
        Ok(!self
            .objects
            .list_after(CHECKPOINT, &format!("{:020}", seq.saturating_sub(1)))?
            .is_empty())
    }
}
