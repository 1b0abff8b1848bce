//! An export that is shown to clients who may not write to it.

use std::sync::Arc;
use stillpoint_nbd::codec::{Extents, transmission};
use stillpoint_nbd::{Export, ExportInfo, Failure};

/// See the module. What changes a disk is not passed on.
pub struct ReadOnly(pub Arc<dyn Export>);

impl Export for ReadOnly {
    fn info(&self) -> ExportInfo {
        let changes = transmission::SEND_FLUSH
            | transmission::SEND_FUA
            | transmission::SEND_TRIM
            | transmission::SEND_WRITE_ZEROES
            | transmission::SEND_FAST_ZERO;
        let mut info = self.0.info();
        info.flags = info.flags & !changes | transmission::READ_ONLY;
        info
    }

    fn read(&self, buf: &mut [u8], offset: u64) -> Result<(), Failure> {
        self.0.read(buf, offset)
    }

    fn read_now(&self, buf: &mut [u8], offset: u64) -> Result<bool, Failure> {
        self.0.read_now(buf, offset)
    }

    fn cache(&self, offset: u64, len: u64) -> Result<(), Failure> {
        self.0.cache(offset, len)
    }

    fn contexts(&self) -> Vec<String> {
        self.0.contexts()
    }

    fn block_status(
        &self,
        context: &str,
        offset: u64,
        len: u64,
        extents: &mut Extents,
    ) -> Result<(), Failure> {
        self.0.block_status(context, offset, len, extents)
    }
}
