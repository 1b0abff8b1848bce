//! A raw image: one state, and nothing but its bytes.

use crate::locked::Locked;
use stillpoint_store::Result;
use stillpoint_store::disk::DiskFile;
use stillpoint_store::history::{Earlier, History, Ranges};

/// See the module.
pub(crate) struct Raw(pub Locked);

impl History for Raw {
    fn earlier(&self) -> &[Earlier] {
        &[]
    }

    fn disk(&self, _: usize) -> Result<Box<dyn DiskFile + '_>> {
        Ok(self.0.file())
    }

    fn vm_state(&self, _: usize) -> Result<Option<Box<dyn DiskFile + '_>>> {
        Ok(None)
    }

    fn base(&self, _: usize) -> Result<Option<usize>> {
        Ok(None)
    }

    fn changes(&self, _: usize, _: usize) -> Result<Ranges<'_>> {
        Ok(Box::new(std::iter::empty()))
    }

    fn check_unchanged(&self) -> Result<()> {
        self.0.check_unchanged()
    }
}
