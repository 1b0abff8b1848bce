//! The index anew from pack tables.

use crate::error::Result;
use crate::id::{PackName, PackNumber};
use crate::index::keeper::CatchUp;
use crate::store::Store;

impl Store {
    /// Throws every index away that nobody has open, and fills this process's again.
    pub fn rebuild_index(&self) -> Result<CatchUp> {
        let catalog = self.refresh()?;
        let live: Vec<(PackNumber, PackName)> =
            catalog.packs().map(|p| (p.number, p.name)).collect();
        self.keeper
            .rebuild(&live, &mut |name| self.index_entries(&catalog, name))
    }
}
