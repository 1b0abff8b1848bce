//! The index anew from pack tables.

use crate::error::Result;
use crate::id::{PackName, PackNumber};
use crate::index::keeper::CatchUp;
use crate::progress::Progress;
use crate::store::Store;

impl Store {
    /// Throws every index away that nobody has open, and fills this process's again.
    /// Stopped half way it is a cache with gaps, which the next ingest fills.
    pub fn rebuild_index(&self, progress: &Progress) -> Result<CatchUp> {
        let catalog = self.refresh()?;
        let bytes = catalog.packs().map(|p| u64::from(p.record.size)).sum();
        Progress::add(&progress.bytes_total, bytes);
        let live: Vec<(PackNumber, PackName)> =
            catalog.packs().map(|p| (p.number, p.name)).collect();
        self.keeper.rebuild(&live, &mut |name| {
            progress.check()?;
            let entries = self.index_entries(&catalog, name)?;
            let size = catalog.pack(name).map_or(0, |p| u64::from(p.record.size));
            Progress::add(&progress.bytes_done, size);
            Ok(entries)
        })
    }
}
