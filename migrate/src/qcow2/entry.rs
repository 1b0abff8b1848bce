//! L1 and L2 entries <-> what they say. Pure.

use super::geometry::{Geometry, SUBCLUSTERS};

/// The refcount is exactly 1. Means something in the active state's tables only, and nothing to a reader.
pub(super) const COPIED: u64 = 1 << 63;
/// The cluster is compressed.
pub(super) const COMPRESSED: u64 = 1 << 62;
/// The cluster reads as zeros (v3, standard entries).
pub(super) const ZERO: u64 = 1;
/// Host offset of a table or cluster.
pub(super) const OFFSET_MASK: u64 = 0x00ff_ffff_ffff_fe00;

/// What stands in a range of a disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Zeros, whatever a backing file has.
    Zero,
    /// Not in this file: the backing file's bytes, or zeros where there is none.
    Unallocated,
    /// Plain bytes of the file (the data file, where there is one) from here on.
    Data {
        /// Byte offset that belongs to the first byte of the range.
        host: u64,
    },
    /// A cluster that is compressed. The range lies within that cluster, at its guest offset modulo the cluster size.
    Compressed {
        /// Byte offset of the compressed bytes, not aligned. It identifies the cluster.
        host: u64,
        /// Upper bound of their length; what follows the stream is not part of it.
        len: u64,
    },
}

/// What decides how entries are read.
#[derive(Debug, Clone, Copy)]
pub(super) struct Rules {
    pub geometry: Geometry,
    pub version: u32,
    pub data_file: bool,
}

/// One L2 entry; `bitmap` is 0 without extended entries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct L2Entry {
    pub word: u64,
    pub bitmap: u64,
}

/// Where compressed bytes are: offset and upper bound of the length.
fn compressed(word: u64, geometry: Geometry) -> Kind {
    let sector_bits = geometry.cluster_bits() - 8;
    let offset_bits = 62 - sector_bits;
    let host = word & ((1 << offset_bits) - 1);
    let sectors = ((word >> offset_bits) & ((1 << sector_bits) - 1)) + 1;
    let len = sectors * 512 - host % 512;
    Kind::Compressed { host, len }
}

/// The word of a compressed cluster; `len` is below the cluster size.
pub(super) fn compressed_word(host: u64, len: u64, geometry: Geometry) -> u64 {
    let offset_bits = 62 - (geometry.cluster_bits() - 8);
    let more_sectors = (host % 512 + len - 1) / 512;
    COMPRESSED | host | more_sectors << offset_bits
}

impl L2Entry {
    /// True when the entry names a host cluster. Offset 0 can be one only in a data file.
    fn host(self, rules: Rules) -> Option<u64> {
        let host = self.word & OFFSET_MASK;
        let here = host != 0 || (rules.data_file && self.word & COPIED != 0);
        here.then_some(host)
    }

    /// What the entry says of the bytes from `within` its cluster on, and how many bytes it says it of; or what is wrong
    /// with it.
    pub fn kind(self, within: u64, rules: Rules) -> Result<(Kind, u64), &'static str> {
        let Rules { geometry, .. } = rules;
        let rest = geometry.cluster_bytes() - within;
        if self.word & COMPRESSED != 0 {
            if rules.data_file {
                return Err("a compressed cluster in an image with a data file");
            }
            return Ok((compressed(self.word & !COPIED, geometry), rest));
        }
        let host = self.host(rules);
        if host.is_some_and(|host| !geometry.is_aligned(host)) {
            return Err("the offset of a cluster is not aligned");
        }
        if geometry.extended() {
            return self.subcluster(host, within, geometry);
        }
        let kind = match host {
            _ if self.word & ZERO != 0 && rules.version >= 3 => Kind::Zero,
            _ if self.word & ZERO != 0 => return Err("a cluster of zeros in version 2"),
            Some(host) => Kind::Data {
                host: host + within,
            },
            None => Kind::Unallocated,
        };
        Ok((kind, rest))
    }

    fn subcluster(
        self,
        host: Option<u64>,
        within: u64,
        geometry: Geometry,
    ) -> Result<(Kind, u64), &'static str> {
        let allocated = self.bitmap as u32;
        let zero = (self.bitmap >> 32) as u32;
        if allocated & zero != 0 {
            return Err("a subcluster is both allocated and zeros");
        }
        let bytes = geometry.unit_bytes();
        let first = within / bytes;
        let bits = |i: u64| (allocated >> i & 1, zero >> i & 1);
        let same = (first..SUBCLUSTERS)
            .take_while(|i| bits(*i) == bits(first))
            .count() as u64;
        let kind = match (bits(first), host) {
            ((1, _), Some(host)) => Kind::Data {
                host: host + within,
            },
            ((1, _), None) => return Err("subclusters are allocated, but no cluster is"),
            ((_, 1), _) => Kind::Zero,
            _ => Kind::Unallocated,
        };
        Ok((kind, (first + same) * bytes - within))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rules(bits: u32, extended: bool) -> Rules {
        Rules {
            geometry: Geometry::new(bits, extended).unwrap(),
            version: 3,
            data_file: false,
        }
    }

    fn kind(word: u64, bitmap: u64, rules: Rules) -> Result<(Kind, u64), &'static str> {
        L2Entry { word, bitmap }.kind(0, rules)
    }

    #[test]
    fn a_compressed_word_reads_as_it_was_made() {
        for bits in super::super::geometry::CLUSTER_BITS {
            let rules = rules(bits, false);
            let max = rules.geometry.cluster_bytes() - 1;
            for (host, len) in [
                (512, 1),
                (1023, 1),
                (1023, max),
                (700_000_511, max),
                (99, 200),
            ] {
                let word = compressed_word(host, len, rules.geometry);
                let Ok((
                    Kind::Compressed {
                        host: at,
                        len: most,
                    },
                    _,
                )) = kind(word, 0, rules)
                else {
                    panic!("{word:#x} is not compressed");
                };
                assert_eq!(at, host);
                assert!(most >= len && most < len + 512, "{len} became {most}");
            }
        }
    }

    #[test]
    fn flags_mean_what_the_version_says() {
        let v3 = rules(16, false);
        let v2 = Rules { version: 2, ..v3 };
        let whole = 65536;
        assert_eq!(kind(0, 0, v3), Ok((Kind::Unallocated, whole)));
        assert_eq!(kind(0x5_0001, 0, v3), Ok((Kind::Zero, whole)));
        assert!(kind(0x5_0001, 0, v2).is_err() && kind(0x5_0200, 0, v2).is_err());
        let data = Kind::Data { host: 0x5_0000 };
        assert_eq!(kind(COPIED | 0x5_0000, 0, v3), Ok((data, whole)));
        let file = Rules {
            data_file: true,
            ..v3
        };
        let start = Kind::Data { host: 0 };
        assert_eq!(kind(COPIED, 0, file), Ok((start, whole)));
        assert_eq!(kind(COPIED, 0, v3), Ok((Kind::Unallocated, whole)));
        assert!(kind(COMPRESSED | 0x5_0000, 0, file).is_err());
    }

    #[test]
    fn subclusters_come_in_runs() {
        let rules = rules(16, true);
        let bitmap = 0b0011 | 0b1100 << 32;
        let entry = L2Entry {
            word: 0x5_0000,
            bitmap,
        };
        let data = Kind::Data { host: 0x5_0000 };
        assert_eq!(entry.kind(0, rules), Ok((data, 4096)));
        let data = Kind::Data { host: 0x5_0400 };
        assert_eq!(entry.kind(1024, rules), Ok((data, 3072)));
        assert_eq!(entry.kind(4096, rules), Ok((Kind::Zero, 4096)));
        assert_eq!(entry.kind(8192, rules), Ok((Kind::Unallocated, 57344)));
        assert!(kind(0x5_0000, 1 | 1 << 32, rules).is_err() && kind(0, 1, rules).is_err());
    }
}
