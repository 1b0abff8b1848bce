//! Snapshots deleted, on one, some or all devices, in one entry. Their bytes are freed by gc.

use crate::select::Selector;
use crate::system::{System, check_unmarked, choose_snapshots};
use std::collections::BTreeSet;
use stillpoint_store::catalog::Catalog;
use stillpoint_store::format::entry::{Op, SessionKind};
use stillpoint_store::id::Uid;
use stillpoint_store::object::Purse;
use stillpoint_store::progress::Progress;
use stillpoint_store::{Error, ErrorKind, Result};

/// What was deleted, or would be.
#[derive(Debug, Clone)]
pub struct Deleted {
    /// The snapshots.
    pub snapshots: Vec<DeletedSnapshot>,
    /// Bytes that `gc --all` would free more than it would anyway; only in a dry run, where it is worked out.
    pub frees: Option<u64>,
}

/// One of them.
#[derive(Debug, Clone)]
pub struct DeletedSnapshot {
    /// The device's name.
    pub device: String,
    /// The snapshot's id.
    pub id: String,
    /// Its name.
    pub name: String,
}

impl System {
    /// Deletes the snapshot on the named devices, which must all have it, or on every device that has it.
    pub fn delete(
        &self,
        snapshot: &str,
        devices: &[String],
        dry_run: bool,
        progress: &Progress,
    ) -> Result<Deleted> {
        let selector = Selector::parse(snapshot)?;
        let mut deleted = Deleted {
            snapshots: Vec::new(),
            frees: None,
        };
        if dry_run {
            let catalog = self.store.refresh()?;
            let (uids, snapshots) = plan(&catalog, &selector, devices)?;
            deleted.snapshots = snapshots;
            let held = self
                .store
                .held_by(&uids.into_iter().collect::<BTreeSet<_>>(), progress)?;
            deleted.frees = Some(held.would_free.saturating_sub(held.garbage));
            return Ok(deleted);
        }
        self.store
            .commit(SessionKind::Writer, Purse::Reserve, &mut |catalog| {
                let (uids, snapshots) = plan(catalog, &selector, devices)?;
                deleted.snapshots = snapshots;
                Ok(uids
                    .into_iter()
                    .map(|uid| Op::DeleteSnapshot { uid })
                    .collect())
            })?;
        Ok(deleted)
    }
}

fn plan(
    catalog: &Catalog,
    selector: &Selector,
    devices: &[String],
) -> Result<(Vec<Uid>, Vec<DeletedSnapshot>)> {
    let (mut uids, mut snapshots) = (Vec::new(), Vec::new());
    for (d, found) in choose_snapshots(catalog, selector, devices)? {
        check_unmarked(&[d])?;
        uids.push(found.record.uid);
        snapshots.push(DeletedSnapshot {
            device: d.name.clone(),
            id: crate::view::text(&found.record.id),
            name: crate::view::text(&found.record.name),
        });
    }
    if uids.is_empty() {
        return Err(
            Error::new(ErrorKind::NotFound, format!("deleting snapshot {selector}"))
                .detail("no device has one")
                .hint("`still list` shows what there is"),
        );
    }
    Ok((uids, snapshots))
}
