//! The one way from bytes to snapshots: take in, store the records, append the entry. Whoever makes snapshots says what is
//! taken in and what the entry says; that it is done over again, and that an error leaves nothing, is said here.

use crate::system::System;
use std::sync::Arc;
use stillpoint_store::Result;
use stillpoint_store::catalog::Catalog;
use stillpoint_store::format::entry::Op;
use stillpoint_store::format::snapshot::SnapshotRecord;
use stillpoint_store::ops::ingest::Writer;

/// Times that an ingest is repeated because what it relied on has gone.
pub(crate) const TRIES: usize = 5;

/// What an entry is to say in one state.
pub(crate) struct Planned {
    /// The snapshots; a copy of each lies in the packs too.
    pub records: Vec<SnapshotRecord>,
    /// All ops, those that put the snapshots among them.
    pub ops: Vec<Op>,
}

/// What an entry said.
pub(crate) struct Committed<T> {
    /// What was taken in.
    pub taken: T,
    /// The snapshots that there are now.
    pub records: Vec<SnapshotRecord>,
    /// The state with the entry.
    pub catalog: Arc<Catalog>,
}

impl System {
    /// Takes in and commits. `plan` is asked for each state that the entry is tried on, and once before. Durable when this
    /// returns; an error leaves nothing but packs, which the next one finds again.
    pub(crate) fn commit_snapshots<T>(
        &self,
        mut writer: Writer<'_>,
        take: &mut dyn FnMut(&mut Writer<'_>) -> Result<T>,
        plan: &mut dyn FnMut(&Catalog, &T) -> Result<Planned>,
    ) -> Result<Committed<T>> {
        let made = self.try_snapshots(&mut writer, take, plan);
        if made.is_err() {
            // What made it fail is what the caller is to hear.
            writer.abandon().unwrap_or_default();
        }
        made
    }

    fn try_snapshots<T>(
        &self,
        writer: &mut Writer<'_>,
        take: &mut dyn FnMut(&mut Writer<'_>) -> Result<T>,
        plan: &mut dyn FnMut(&Catalog, &T) -> Result<Planned>,
    ) -> Result<Committed<T>> {
        let mut tries = 0;
        loop {
            let taken = take(writer)?;
            let mut records = plan(&self.store.catalog(), &taken)?.records;
            for record in &records {
                writer.store_record(record)?;
            }
            let finished = writer.finish(&mut |catalog| {
                let planned = plan(catalog, &taken)?;
                records = planned.records;
                Ok(planned.ops)
            });
            match finished {
                Ok(catalog) => {
                    return Ok(Committed {
                        taken,
                        records,
                        catalog,
                    });
                }
                Err(e) if tries < TRIES && writer.forget(&e)? => tries += 1,
                Err(e) => return Err(e),
            }
        }
    }
}
