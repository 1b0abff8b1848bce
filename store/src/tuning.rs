//! Sizes and intervals that production never changes and tests do, so that little data makes many packs, entries,
//! checkpoints and steps. What they say changes when something happens, never whether it is right.

use crate::limits::PACK_BYTES_TARGET;
use crate::log;

/// See the module. The default is production's.
#[derive(Debug, Clone, Copy)]
pub struct Tuning {
    /// A pack is sealed before it grows over this; a single frame is always taken. `PACK_BYTES_TARGET` at most.
    pub pack_bytes: u32,
    /// Packs on their way to the disk at a time; each costs its size in memory. With 0 the thread that fills packs also
    /// writes them, which makes a run repeatable.
    pub packs_in_flight: usize,
    /// Durable packs before they are published, so that others find their clusters and a crash loses little.
    pub publish_every: usize,
    /// Bytes of packs that gc rewrites for one entry of the log.
    pub gc_step_bytes: u64,
    /// Hashes that gc marks at a time, of all that are reachable; 32 bytes each.
    pub gc_pass_hashes: u64,
    /// Of the log.
    pub log: log::Options,
}

impl Default for Tuning {
    fn default() -> Self {
        Self {
            pack_bytes: PACK_BYTES_TARGET,
            packs_in_flight: 1,
            publish_every: 8,
            gc_step_bytes: 128 << 20,
            gc_pass_hashes: 1 << 20,
            log: log::Options::default(),
        }
    }
}
