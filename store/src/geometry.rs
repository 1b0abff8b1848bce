//! How a store cuts disks: cluster and frame size, and how it compresses.

use crate::error::{Error, Result};
use crate::limits::{CLUSTER_BYTES_MAX, CLUSTER_BYTES_MIN, FRAME_BYTES_MAX};
use serde::{Deserialize, Serialize};

/// Fixed at `init`, the same for every disk of a store.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Geometry {
    /// Bytes of a cluster: a power of two, 4 KiB to 1 MiB.
    pub cluster_bytes: u32,
    /// Bytes of a full frame before compression: a multiple of the cluster, 4 MiB at most.
    pub frame_bytes: u32,
    /// How frames are compressed.
    pub compression: Compression,
}

/// How frames are compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Compression {
    /// Not at all.
    None,
    /// zstd at this level, 1 to 19.
    Zstd(u8),
}

impl Geometry {
    /// What `init` takes when nothing is said; store/DESIGN.md has the measurement behind it.
    pub const DEFAULT: Self = Self {
        cluster_bytes: 8 << 10,
        frame_bytes: 1 << 20,
        compression: Compression::Zstd(6),
    };

    /// Refuses what the format cannot hold.
    pub fn check(self) -> Result<Self> {
        let doing = "checking the store's geometry";
        let c = self.cluster_bytes;
        if !c.is_power_of_two() || !(CLUSTER_BYTES_MIN..=CLUSTER_BYTES_MAX).contains(&c) {
            let why = format!("cluster size {c} is not a power of two from 4 KiB to 1 MiB");
            return Err(Error::invalid(doing, why));
        }
        let f = self.frame_bytes;
        if f < c || f > FRAME_BYTES_MAX || !f.is_multiple_of(c) {
            let why = format!("frame size {f} is not a multiple of the cluster size up to 4 MiB");
            return Err(Error::invalid(doing, why));
        }
        if let Compression::Zstd(level) = self.compression
            && !(1..=19).contains(&level)
        {
            return Err(Error::invalid(
                doing,
                format!("zstd level {level} is not from 1 to 19"),
            ));
        }
        Ok(self)
    }

    /// Clusters of a full frame.
    pub fn clusters_per_frame(&self) -> usize {
        (self.frame_bytes / self.cluster_bytes) as usize
    }

    /// Clusters that a disk of `bytes` has; the last may be partly past the end and is padded with zeros.
    pub fn clusters(&self, bytes: u64) -> u64 {
        bytes.div_ceil(u64::from(self.cluster_bytes))
    }
}
