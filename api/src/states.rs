//! A device's present contents and its snapshots, for whoever writes them elsewhere.

use crate::select::{Selector, SnapshotRef, device};
use crate::system::System;
use stillpoint_store::Result;
use stillpoint_store::format::entry::Content;
use stillpoint_store::format::snapshot::SnapshotRecord;

/// Which snapshots of a device.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Which<'a> {
    /// None.
    #[default]
    None,
    /// Every one.
    All,
    /// Those that these selectors mean.
    Named(&'a [String]),
}

impl System {
    /// What `reference` means, and with it snapshots of the same device in the order in which they were made.
    pub fn states(
        &self,
        reference: &str,
        which: Which<'_>,
    ) -> Result<(Content, Vec<SnapshotRecord>)> {
        let content = self.resolve(reference)?.0;
        let parsed = SnapshotRef::parse(reference)?;
        let catalog = self.store.refresh()?;
        let d = device(&catalog, &parsed.device)?;
        let all = catalog.snapshots_of(&d.uid);
        let records = all.iter().map(|s| &s.record);
        let chosen = match which {
            Which::None => Vec::new(),
            Which::All => records.cloned().collect(),
            Which::Named(names) => {
                let mut uids = Vec::with_capacity(names.len());
                for name in names {
                    uids.push(Selector::parse(name)?.get(&catalog, d)?.record.uid);
                }
                records.filter(|r| uids.contains(&r.uid)).cloned().collect()
            }
        };
        Ok((content, chosen))
    }
}
