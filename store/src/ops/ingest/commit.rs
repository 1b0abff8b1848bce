//! What makes a writer's packs count: publishing them, the one entry at the end, and beginning again where something that it
//! relied on went meanwhile.

use super::writer::{Relied, Writer, record_copy};
use crate::catalog::{Catalog, Invalid};
use crate::error::{Error, Result};
use crate::format::entry::{Op, PackKind, PackRecord};
use crate::format::snapshot::SnapshotRecord;
use crate::id::{Hash, PackName, Sequence};
use crate::index::key_of;
use crate::log::{Durability, invalid};
use std::sync::Arc;

impl Writer<'_> {
    /// Publishes the packs that are durable and indexes them, so that others find what is in them.
    pub fn publish(&mut self) -> Result<()> {
        let Some(session) = &mut self.session else {
            return Ok(());
        };
        if self.landed.is_empty() {
            return Ok(());
        }
        let packs: Vec<PackRecord> = self.landed.iter().map(|p| p.record).collect();
        let catalog = self
            .store
            .log
            .commit(session, self.purse, Durability::Later, &mut |_| {
                Ok(vec![Op::Publish {
                    packs: packs.clone(),
                }])
            })?;
        self.published(&catalog)
    }

    fn published(&mut self, catalog: &Arc<Catalog>) -> Result<()> {
        for pack in std::mem::take(&mut self.landed) {
            let Some(number) = catalog.pack(&pack.name).map(|p| p.number) else {
                continue;
            };
            let fresh = match pack.record.kind {
                PackKind::Clusters => &mut self.fresh,
                PackKind::Nodes => &mut self.fresh_nodes,
            };
            for (hash, _) in &pack.entries {
                fresh.remove(hash);
            }
            let mut places: Vec<_> = pack.entries.iter().map(|(h, e)| (key_of(h), *e)).collect();
            places.sort_unstable();
            self.store.keeper.insert_pack(number, &pack.name, &places);
        }
        self.tables.follow(catalog.clone());
        self.nodes.follow(catalog)
    }

    /// Puts a copy of a snapshot's record beside the nodes, for `rescue`. Does nothing when nothing else is stored.
    pub fn store_record(&mut self, record: &SnapshotRecord) -> Result<()> {
        if self.session.is_none() && self.nodes_frame.is_empty() {
            return Ok(());
        }
        let bytes = record_copy(record);
        let hash = Hash::of(&bytes);
        self.store_node(hash, bytes)
    }

    /// Commits: the rest of the packs, what was relied on, and the ops of `plan` in one entry, which is durable when this
    /// returns. `plan` is asked again for each state that the entry is tried on.
    ///
    /// Fails with `Busy` when what was relied on has gone meanwhile: then `forget` and ingest again.
    pub fn finish(
        &mut self,
        plan: &mut dyn FnMut(&Catalog) -> Result<Vec<Op>>,
    ) -> Result<Arc<Catalog>> {
        self.flush()?;
        let mut first = Vec::new();
        if !self.landed.is_empty() {
            first.push(Op::Publish {
                packs: self.landed.iter().map(|p| p.record).collect(),
            });
        }
        if !self.relied.packs.is_empty() || !self.relied.roots.is_empty() {
            let packs = self.relied.packs.iter().copied().collect();
            first.push(Op::Rely {
                packs,
                roots: self.relied.roots.iter().copied().collect(),
            });
        }
        let Some(mut session) = self.session.take() else {
            return self
                .store
                .log
                .commit_alone(self.kind, self.purse, &mut |catalog, _| {
                    Ok([first.clone(), plan(catalog)?].concat())
                });
        };
        let committed =
            self.store
                .log
                .commit(&mut session, self.purse, Durability::Now, &mut |catalog| {
                    Ok([first.clone(), plan(catalog)?, vec![Op::Close]].concat())
                });
        match committed {
            Ok(catalog) => {
                self.store.log.ended(session);
                self.published(&catalog)?;
                Ok(catalog)
            }
            Err(e) => {
                self.session = Some(session);
                Err(e)
            }
        }
    }

    /// What this writer last saw.
    pub fn catalog(&self) -> Arc<Catalog> {
        self.store.log.current()
    }

    /// Replaces packs: what was stored since the last time becomes live, `dropped` stop to be, in one durable entry.
    pub fn compact(
        &mut self,
        base: Sequence,
        dropped: &[PackName],
        kept: Vec<PackName>,
    ) -> Result<()> {
        self.flush()?;
        let new = self.landed.iter().map(|p| p.record).collect();
        let op = Op::Compact {
            base,
            new,
            dropped: dropped.to_vec(),
            kept,
        };
        let Some(session) = &mut self.session else {
            let mut plan = |_: &Catalog, _| Ok(vec![op.clone()]);
            return self
                .store
                .log
                .commit_alone(self.kind, self.purse, &mut plan)
                .map(|_| ());
        };
        let plan = &mut |_: &Catalog| Ok(vec![op.clone()]);
        let catalog = self
            .store
            .log
            .commit(session, self.purse, Durability::Now, plan)?;
        self.published(&catalog)
    }

    /// Ends the session without publishing what was stored since.
    pub fn discard(mut self) -> Result<()> {
        while !self.flights.is_empty() {
            self.land()?;
        }
        match self.session.take() {
            Some(session) => self.store.log.close(session, self.purse),
            None => Ok(()),
        }
    }

    /// After `finish` failed: forgets what it relied on, keeps its own packs. True if that can have been the reason.
    pub fn forget(&mut self, error: &Error) -> Result<bool> {
        let gone = matches!(
            invalid(error),
            Some(Invalid::RootNotReachable(_) | Invalid::PackNotLive(_))
        );
        if gone {
            self.start_over(Relied::default())?;
        }
        Ok(gone)
    }

    /// After reading back what was taken in failed: the same, if something that it relied on has gone.
    pub fn forget_gone(&mut self) -> Result<bool> {
        let now = self.store.log.refresh()?;
        let gone = self.relied.packs.iter().any(|p| now.pack(p).is_none())
            || self.relied.roots.iter().any(|r| !now.reachable(r));
        if gone {
            self.start_over(Relied::default())?;
        }
        Ok(gone)
    }

    pub(super) fn relied(&self) -> Relied {
        self.relied.clone()
    }

    pub(super) fn refreshed(&self) -> Result<Arc<Catalog>> {
        self.store.log.refresh()
    }

    /// Back to having relied on this. What is in packs stays; what an ingest that failed half way noted as stored, and
    /// did not store, is forgotten.
    pub(super) fn start_over(&mut self, relied: Relied) -> Result<()> {
        self.relied = relied;
        self.parents.forget();
        self.flush()?;
        self.publish()?;
        self.fresh.clear();
        self.fresh_nodes.clear();
        let catalog = self.store.log.refresh()?;
        self.nodes.follow(&catalog)?;
        self.tables.follow(catalog);
        Ok(())
    }

    /// Gives up: publishes what is durable, so that the next try finds it, and closes the session.
    pub fn abandon(mut self) -> Result<()> {
        self.close()
    }

    /// The same of one that may still be asked what it stored.
    pub(super) fn close(&mut self) -> Result<()> {
        while !self.flights.is_empty() {
            self.land()?;
        }
        self.publish()?;
        match self.session.take() {
            Some(session) => self.store.log.close(session, self.purse),
            None => Ok(()),
        }
    }
}
