//! The header of a qcow2 file with its extensions. Pure.

use super::bytes::{be32, be64};
use super::codec::Compression;
use super::geometry::{Geometry, L1_ENTRIES_MAX};
use stillpoint_store::{Error, ErrorKind, Result};

/// First bytes of every qcow2 file.
pub(super) const MAGIC: [u8; 4] = *b"QFI\xfb";
/// Bytes of a header of version 2.
pub(super) const V2_BYTES: usize = 72;
/// Smallest header of version 3.
const V3_BYTES_MIN: usize = 104;
/// QEMU opens no longer refcount table.
pub(super) const REFCOUNT_TABLE_BYTES_MAX: u64 = 8 << 20;
/// Entries of a snapshot table.
pub(super) const SNAPSHOTS_MAX: u32 = 65536;
const NAME_BYTES_MAX: usize = 1023;

pub(super) const DIRTY: u64 = 1;
pub(super) const CORRUPT: u64 = 1 << 1;
pub(super) const DATA_FILE: u64 = 1 << 2;
pub(super) const COMPRESSION_TYPE: u64 = 1 << 3;
pub(super) const EXTENDED_L2: u64 = 1 << 4;
const KNOWN_INCOMPATIBLE: u64 = DIRTY | CORRUPT | DATA_FILE | COMPRESSION_TYPE | EXTENDED_L2;
const AUTOCLEAR_BITMAPS: u64 = 1;
const AUTOCLEAR_RAW_DATA_FILE: u64 = 1 << 1;

const EXT_BACKING_FORMAT: u32 = 0xe279_2aca;
const EXT_FEATURE_NAMES: u32 = 0x6803_f857;
const EXT_BITMAPS: u32 = 0x2385_2875;
const EXT_LUKS: u32 = 0x0537_be77;
const EXT_DATA_FILE: u32 = 0x4441_5441;

/// A table in the file.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Extent {
    /// First byte.
    pub offset: u64,
    /// How many there are: entries of the L1 and snapshot tables, clusters of the refcount table, bytes of the bitmap directory.
    pub count: u64,
}

/// How the clusters of an image are encrypted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Encryption {
    /// By the password itself, as QEMU before 2.9 did.
    Aes,
    /// By a key in a LUKS header.
    Luks,
}

/// A header extension that this version does not know.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct UnknownExtension {
    /// Its type.
    pub id: u32,
    /// Bytes of its data.
    pub len: u32,
}

/// Header and extensions, checked as far as they can be without the rest of the file.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(clippy::struct_excessive_bools, reason = "each is a bit of the header")]
pub struct Header {
    /// 2 or 3.
    pub version: u32,
    /// Sizes of clusters and tables.
    pub geometry: Geometry,
    /// Bytes of the disk now.
    pub size: u64,
    /// The active L1 table.
    pub l1: Extent,
    /// The refcount table.
    pub refcount_table: Extent,
    /// Logarithm of the bits of a refcount, 6 at most.
    pub refcount_order: u32,
    /// The snapshot table.
    pub snapshots: Extent,
    /// Name of the backing file as it stands there, not trusted.
    pub backing: Option<Vec<u8>>,
    /// Format of the backing file as it stands there.
    pub backing_format: Option<Vec<u8>>,
    /// Name of the external data file as it stands there; empty when the image has one without saying where.
    pub data_file: Option<Vec<u8>>,
    /// The data file alone is a raw image of the disk.
    pub raw_data_file: bool,
    /// How compressed clusters are compressed.
    pub compression: Compression,
    /// Refcounts may be wrong, since the writer did not close the image. What is mapped is right.
    pub dirty: bool,
    /// QEMU found the image damaged and writes it no more.
    pub corrupt: bool,
    /// Refcounts may be updated late.
    pub lazy_refcounts: bool,
    /// Number of persistent bitmaps and their directory.
    pub bitmaps: Option<(u32, Extent)>,
    /// False: somebody wrote the image who did not know bitmaps, so that they miss changes.
    pub bitmaps_in_step: bool,
    /// Its clusters are encrypted; they are not read here.
    pub encryption: Option<Encryption>,
    /// What else the header has.
    pub unknown_extensions: Vec<UnknownExtension>,
}

fn bad(why: impl Into<String>) -> Error {
    Error::corrupt("reading the qcow2 header", why)
}

fn short() -> Error {
    bad("the header is cut off")
}

fn unsupported(why: impl Into<String>) -> Error {
    Error::new(ErrorKind::Unsupported, "reading the qcow2 header").detail(why)
}

impl Header {
    /// True when a file that starts so claims to be qcow2.
    pub fn is_magic(bytes: &[u8]) -> bool {
        bytes.starts_with(&MAGIC)
    }

    /// Logarithm of the cluster size that the first 24 bytes claim, if it is possible: the header lies in one cluster.
    pub(super) fn peek_cluster_bits(bytes: &[u8]) -> Option<u32> {
        be32(bytes, 20).filter(|bits| super::geometry::CLUSTER_BITS.contains(bits))
    }

    /// Decodes the first cluster of a file, or as much of it as the file has. `Unsupported` for features that nobody here
    /// knows, by name; `Corrupt` for what cannot be.
    pub fn decode(bytes: &[u8]) -> Result<Self> {
        if !Self::is_magic(bytes) {
            return Err(Error::invalid(
                "reading the qcow2 header",
                "this is no qcow2 file",
            ));
        }
        let version = be32(bytes, 4).ok_or_else(short)?;
        if version != 2 && version != 3 {
            return Err(unsupported(format!("version {version} of qcow2")));
        }
        let cluster_bits = be32(bytes, 20).ok_or_else(short)?;
        let Some(standard) = Geometry::new(cluster_bits, false) else {
            return Err(bad(format!("clusters of 2^{cluster_bits} bytes")));
        };
        // All of the header and its extensions is in the first cluster.
        let bytes = &bytes[..bytes.len().min(standard.cluster_bytes() as usize)];
        let encryption = match be32(bytes, 32).ok_or_else(short)? {
            0 => None,
            1 => Some(Encryption::Aes),
            2 => Some(Encryption::Luks),
            n => return Err(unsupported(format!("encryption method {n}"))),
        };
        let features = Features::decode(bytes, version)?;
        features.check(bytes)?;
        let mut header = Self::fields(bytes, version, standard, &features)?;
        header.encryption = encryption;
        let name = header.decode_backing_name(bytes)?;
        header.extensions(bytes, &features, name.map_or(bytes.len(), |at| at as usize))?;
        header.check()?;
        Ok(header)
    }

    /// `Unsupported` where the clusters are encrypted.
    pub(super) fn check_readable(&self) -> Result<()> {
        let method = match self.encryption {
            None => return Ok(()),
            Some(Encryption::Aes) => "AES",
            Some(Encryption::Luks) => "LUKS",
        };
        let error = unsupported(format!("the image is encrypted ({method})"));
        Err(error.hint("give a file with the passphrase (--secret-file FILE): then it is read through qemu-nbd"))
    }

    fn fields(bytes: &[u8], version: u32, standard: Geometry, f: &Features) -> Result<Self> {
        let word = |at| be64(bytes, at).ok_or_else(short);
        let half = |at| be32(bytes, at).map(u64::from).ok_or_else(short);
        let extended = f.incompatible & EXTENDED_L2 != 0;
        let geometry = Geometry::new(standard.cluster_bits(), extended);
        Ok(Self {
            version,
            geometry: geometry
                .ok_or_else(|| bad("clusters are too small for extended L2 entries"))?,
            size: word(24)?,
            l1: Extent {
                offset: word(40)?,
                count: half(36)?,
            },
            refcount_table: Extent {
                offset: word(48)?,
                count: half(56)?,
            },
            refcount_order: f.refcount_order,
            snapshots: Extent {
                offset: word(64)?,
                count: half(60)?,
            },
            backing: None,
            backing_format: None,
            data_file: (f.incompatible & DATA_FILE != 0).then(Vec::new),
            raw_data_file: f.autoclear & AUTOCLEAR_RAW_DATA_FILE != 0,
            compression: f.compression,
            dirty: f.incompatible & DIRTY != 0,
            corrupt: f.incompatible & CORRUPT != 0,
            lazy_refcounts: f.compatible & 1 != 0,
            bitmaps: None,
            bitmaps_in_step: f.autoclear & AUTOCLEAR_BITMAPS != 0,
            encryption: None,
            unknown_extensions: Vec::new(),
        })
    }

    /// The offset of the name, where extensions end.
    fn decode_backing_name(&mut self, bytes: &[u8]) -> Result<Option<u64>> {
        let offset = be64(bytes, 8).ok_or_else(short)?;
        let len = be32(bytes, 16).ok_or_else(short)? as usize;
        if offset == 0 {
            return Ok(None);
        }
        let inside = usize::try_from(offset).ok();
        let name = inside.and_then(|at| bytes.get(at..at.checked_add(len)?));
        match name {
            Some(name) if len <= NAME_BYTES_MAX => {
                self.backing = (len > 0).then(|| name.to_vec());
                Ok(Some(offset))
            }
            _ => Err(bad(format!(
                "the name of the backing file, {len} bytes at byte {offset}, is not in the first cluster or too long"
            ))),
        }
    }

    fn extensions(&mut self, bytes: &[u8], features: &Features, end: usize) -> Result<()> {
        let mut at = features.header_bytes;
        // Each step is at least 8 bytes, so this ends.
        while at + 8 <= end {
            let (Some(id), Some(len)) = (be32(bytes, at), be32(bytes, at + 4)) else {
                break;
            };
            if id == 0 {
                break;
            }
            let data = bytes
                .get(at + 8..end)
                .and_then(|rest| rest.get(..len as usize))
                .ok_or_else(|| bad(format!("extension {id:#010x} has {len} bytes: too long")))?;
            self.extension(id, data)?;
            at += 8 + data.len().next_multiple_of(8);
        }
        Ok(())
    }

    fn extension(&mut self, id: u32, data: &[u8]) -> Result<()> {
        match id {
            EXT_BACKING_FORMAT => self.backing_format = Some(data.to_vec()),
            EXT_LUKS => self.encryption = Some(Encryption::Luks),
            EXT_DATA_FILE if self.data_file.is_some() => {
                if data.len() > NAME_BYTES_MAX {
                    return Err(bad("the name of the data file is too long"));
                }
                self.data_file = Some(data.to_vec());
            }
            // Names are for unknown features, which were refused; a data file's name without its feature says nothing.
            EXT_FEATURE_NAMES | EXT_DATA_FILE => {}
            EXT_BITMAPS => {
                let short = || bad("the bitmaps extension is cut off");
                let count = be32(data, 0).ok_or_else(short)?;
                let directory = Extent {
                    offset: be64(data, 16).ok_or_else(short)?,
                    count: be64(data, 8).ok_or_else(short)?,
                };
                self.bitmaps = Some((count, directory));
            }
            _ => self.unknown_extensions.push(UnknownExtension {
                id,
                len: data.len() as u32,
            }),
        }
        Ok(())
    }

    /// Bounds that need no file.
    fn check(&self) -> Result<()> {
        let geometry = self.geometry;
        if self.size > i64::MAX as u64 {
            return Err(bad(format!("a disk of {} bytes", self.size)));
        }
        if self.l1.count > L1_ENTRIES_MAX {
            return Err(bad(format!("an L1 table of {} entries", self.l1.count)));
        }
        if self.l1.count < geometry.tables_for(self.size) {
            return Err(bad(format!(
                "an L1 table of {} entries is too small for {} bytes",
                self.l1.count, self.size
            )));
        }
        let table_bytes = self.refcount_table.count * geometry.cluster_bytes();
        if table_bytes > REFCOUNT_TABLE_BYTES_MAX {
            return Err(bad(format!("a refcount table of {table_bytes} bytes")));
        }
        if self.snapshots.count > u64::from(SNAPSHOTS_MAX) {
            return Err(bad(format!("{} snapshots", self.snapshots.count)));
        }
        if self.data_file.is_some() && self.snapshots.count > 0 {
            return Err(bad("snapshots in an image with a data file"));
        }
        let tables = [
            ("L1 table", self.l1),
            ("refcount table", self.refcount_table),
            ("snapshot table", self.snapshots),
        ];
        for (what, table) in tables {
            if table.count > 0 && (table.offset == 0 || !geometry.is_aligned(table.offset)) {
                let why = format!("the {what} is at byte {}", table.offset);
                return Err(bad(why));
            }
        }
        Ok(())
    }
}

/// What version 2 does not have.
struct Features {
    incompatible: u64,
    compatible: u64,
    autoclear: u64,
    refcount_order: u32,
    header_bytes: usize,
    compression: Compression,
}

impl Features {
    fn decode(bytes: &[u8], version: u32) -> Result<Self> {
        if version == 2 {
            return Ok(Self {
                incompatible: 0,
                compatible: 0,
                autoclear: 0,
                refcount_order: 4,
                header_bytes: V2_BYTES,
                compression: Compression::Zlib,
            });
        }
        let word = |at| be64(bytes, at).ok_or_else(short);
        let half = |at| be32(bytes, at).ok_or_else(short);
        let header_bytes = half(100)? as usize;
        if header_bytes < V3_BYTES_MIN
            || header_bytes > bytes.len()
            || !header_bytes.is_multiple_of(8)
        {
            return Err(bad(format!("a header of {header_bytes} bytes")));
        }
        let refcount_order = half(96)?;
        if refcount_order > 6 {
            return Err(bad(format!("refcounts of 2^{refcount_order} bits")));
        }
        let type_byte = if header_bytes > V3_BYTES_MIN {
            bytes.get(V3_BYTES_MIN).copied().unwrap_or(0)
        } else {
            0
        };
        let compression = match type_byte {
            0 => Compression::Zlib,
            1 => Compression::Zstd,
            n => return Err(unsupported(format!("compression type {n}"))),
        };
        Ok(Self {
            incompatible: word(72)?,
            compatible: word(80)?,
            autoclear: word(88)?,
            refcount_order,
            header_bytes,
            compression,
        })
    }

    /// Refuses unknown features by the names that the file itself gives them.
    fn check(&self, bytes: &[u8]) -> Result<()> {
        let unknown = self.incompatible & !KNOWN_INCOMPATIBLE;
        if unknown != 0 {
            let names: Vec<String> = (0..64u8)
                .filter(|bit| unknown >> bit & 1 != 0)
                .map(|bit| self.name_of(bytes, bit))
                .collect();
            let why = format!(
                "the image needs features that are not known here: {}",
                names.join(", ")
            );
            return Err(unsupported(why));
        }
        let typed = self.incompatible & COMPRESSION_TYPE != 0;
        if typed != (self.compression != Compression::Zlib) {
            return Err(bad(
                "the compression type and its feature bit contradict each other",
            ));
        }
        Ok(())
    }

    /// Incompatible feature `bit`, with its name if the feature name table has it.
    fn name_of(&self, bytes: &[u8], bit: u8) -> String {
        let mut at = self.header_bytes;
        while let (Some(id), Some(len)) = (be32(bytes, at), be32(bytes, at + 4)) {
            let data = bytes
                .get(at + 8..)
                .and_then(|rest| rest.get(..len as usize));
            let Some(data) = data.filter(|_| id != 0) else {
                break;
            };
            let (rows, _rest) = data.as_chunks::<48>();
            let row = rows.iter().find(|row| row[0] == 0 && row[1] == bit);
            if let Some(row) = row.filter(|_| id == EXT_FEATURE_NAMES) {
                let name = row[2..].split(|b| *b == 0).next().unwrap_or_default();
                return format!("bit {bit} ({:?})", String::from_utf8_lossy(name));
            }
            at += 8 + data.len().next_multiple_of(8);
        }
        format!("bit {bit}")
    }
}
