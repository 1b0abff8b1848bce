//! A volume taken over from a host that is gone, or that lost its overlays.

use super::Volumes;
use crate::error::Result;
use crate::id::Uid;
use std::sync::Arc;

impl Volumes<'_> {
    /// Makes the volume this host's as it is in the store: what was written to it since, on whichever host, is given up. Durable
    /// when this returns. The other host, should it live, refuses the volume from then on.
    pub fn adopt(&self, device: &Uid) -> Result<()> {
        self.close(device);
        let mut open = self.opened();
        let volume = self
            .shared
            .open(device, &mut |d| self.shared.take_over(d))?;
        open.insert(*device, Arc::new(volume));
        Ok(())
    }
}
