//! The compressed clusters that were decoded last, for those who read them in parts.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use stillpoint_store::Result;

/// Clusters kept: a few more than threads that read side by side.
const KEPT: usize = 8;

/// None: it cannot be decoded.
type Slot = Arc<OnceLock<Option<Vec<u8>>>>;

/// See the module. At most `KEPT` clusters and those that are being copied from, 2 MiB each.
#[derive(Default)]
pub(super) struct Decoded(Mutex<VecDeque<(u64, Slot)>>);

/// A cluster's bytes.
pub(super) struct Cluster(Slot);

impl Decoded {
    /// The cluster that `host` identifies, decoded by `decode` unless somebody did lately.
    pub fn get(&self, host: u64, decode: impl Fn() -> Result<Vec<u8>>) -> Result<Cluster> {
        let slot = self.slot(host);
        if slot.get_or_init(|| decode().ok()).is_none() {
            // What is wrong is found again for everyone who asks.
            decode()?;
        }
        Ok(Cluster(slot))
    }

    fn slot(&self, host: u64) -> Slot {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, slot)) = kept.iter().find(|(at, _)| *at == host) {
            return slot.clone();
        }
        if kept.len() == KEPT {
            kept.pop_front();
        }
        let slot = Slot::default();
        kept.push_back((host, slot.clone()));
        slot
    }
}

impl std::ops::Deref for Cluster {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        self.0.get().and_then(Option::as_deref).unwrap_or_default()
    }
}
