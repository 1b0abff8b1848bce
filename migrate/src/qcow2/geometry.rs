//! Sizes that follow from an image's cluster size.

/// Cluster size of an image and what one L2 entry covers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Geometry {
    cluster_bits: u32,
    extended: bool,
}

/// Smallest and largest logarithm of a cluster size, in bytes.
pub(super) const CLUSTER_BITS: std::ops::RangeInclusive<u32> = 9..=21;
/// Extended L2 entries need subclusters of at least a sector.
const CLUSTER_BITS_EXTENDED: u32 = 14;
/// Subclusters of a cluster with extended L2 entries.
pub(super) const SUBCLUSTERS: u64 = 32;
/// QEMU opens no longer L1 table, in entries: 32 MiB.
pub(super) const L1_ENTRIES_MAX: u64 = (32 << 20) / 8;

impl Geometry {
    /// `None` when no image can be so.
    pub fn new(cluster_bits: u32, extended: bool) -> Option<Self> {
        let possible = CLUSTER_BITS.contains(&cluster_bits)
            && (!extended || cluster_bits >= CLUSTER_BITS_EXTENDED);
        possible.then_some(Self {
            cluster_bits,
            extended,
        })
    }

    /// Logarithm of the cluster size.
    pub fn cluster_bits(self) -> u32 {
        self.cluster_bits
    }

    /// True for L2 entries with subclusters.
    pub fn extended(self) -> bool {
        self.extended
    }

    /// Bytes of a cluster: 512 to 2 MiB.
    pub fn cluster_bytes(self) -> u64 {
        1 << self.cluster_bits
    }

    /// Bytes of the smallest piece that can be mapped: a cluster or a subcluster.
    pub fn unit_bytes(self) -> u64 {
        self.cluster_bytes() / if self.extended { SUBCLUSTERS } else { 1 }
    }

    /// Bytes of an L2 entry.
    pub(super) fn entry_bytes(self) -> u64 {
        if self.extended { 16 } else { 8 }
    }

    /// Entries of an L2 table.
    pub fn table_entries(self) -> u64 {
        self.cluster_bytes() / self.entry_bytes()
    }

    /// Bytes of a disk that one L2 table maps.
    pub fn table_span(self) -> u64 {
        self.cluster_bytes() * self.table_entries()
    }

    /// L2 tables that a disk of `size` bytes needs.
    pub fn tables_for(self, size: u64) -> u64 {
        size.div_ceil(self.table_span())
    }

    /// True at a boundary of host clusters.
    pub(super) fn is_aligned(self, offset: u64) -> bool {
        offset.is_multiple_of(self.cluster_bytes())
    }
}
