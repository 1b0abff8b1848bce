//! The parts of a pack: header, frame header, trailer; blocks of the table are in `block`. See FORMAT.md 7.
//!
//! Every part proves itself with a checksum, so that what is left of a damaged pack can be told from what is not. Table
//! and trailer are sealed with the pack's name: those of another pack do not pass.

use crate::error::{Error, Result};
use crate::format::entry::PackKind;
use crate::id::{PackName, SessionId, Uid};
use crate::limits::{CLUSTER_BYTES_MAX, CLUSTER_BYTES_MIN, FRAME_BYTES_MAX, PACK_BYTES_MAX};

pub use crate::format::block::{BLOCK_BYTES, BLOCK_STRIDE, Block, BlockFrame, entry_number};

/// Bytes of a pack's header.
pub const HEADER_BYTES: usize = 64;
/// Bytes of a frame's header without the lengths.
pub const FRAME_HEADER_BYTES: usize = 24;
/// Bytes of a pack's trailer.
pub const TRAILER_BYTES: usize = 64;
/// Items of a frame at most.
pub const FRAME_ITEMS_MAX: usize = 1024;
/// Bytes of a frame at most, with header and lengths: what is stored raw is the longest.
pub const FRAME_STORED_BYTES_MAX: u32 =
    FRAME_HEADER_BYTES as u32 + 4 * FRAME_ITEMS_MAX as u32 + FRAME_BYTES_MAX;
/// First bytes of a frame.
pub const FRAME_MAGIC: [u8; 4] = 0x4D52_4653u32.to_le_bytes();

const HEADER_MAGIC: &[u8; 8] = b"STILLPAK";
const TRAILER_MAGIC: &[u8; 8] = b"STILLEND";
const VERSION: u32 = 1;

const _: () = assert!(PACK_BYTES_MAX as usize > HEADER_BYTES + TRAILER_BYTES + BLOCK_BYTES);
const _: () = assert!(FRAME_BYTES_MAX / CLUSTER_BYTES_MIN <= FRAME_ITEMS_MAX as u32);

/// First bytes of a pack.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PackHeader {
    /// The pack.
    pub name: PackName,
    /// What it holds.
    pub kind: PackKind,
    /// The store's cluster size.
    pub cluster_bytes: u32,
    /// The store.
    pub store: Uid,
}

impl PackHeader {
    /// The bytes.
    pub fn encode(&self) -> [u8; HEADER_BYTES] {
        let mut out = [0; HEADER_BYTES];
        out[..8].copy_from_slice(HEADER_MAGIC);
        out[8..12].copy_from_slice(&VERSION.to_le_bytes());
        out[12] = match self.kind {
            PackKind::Clusters => 0,
            PackKind::Nodes => 1,
        };
        out[16..36].copy_from_slice(&seal_of(&self.name));
        out[36..40].copy_from_slice(&self.cluster_bytes.to_le_bytes());
        out[40..56].copy_from_slice(&self.store.0);
        let sum = checksum(&[&out[..56]]);
        out[56..].copy_from_slice(&sum[..8]);
        out
    }

    /// Reads a header from the first bytes of a pack.
    pub fn decode(bytes: &[u8]) -> Result<Self> {
        let bytes: &[u8; HEADER_BYTES] = exactly(bytes, bad_header)?;
        check_version(bytes, HEADER_MAGIC, bad_header)?;
        let kind = match bytes[12] {
            0 => PackKind::Clusters,
            1 => PackKind::Nodes,
            _ => return Err(bad_header("the kind is unknown")),
        };
        let session = SessionId {
            opened_at: u64_at(bytes, 16),
            nonce: u64_at(bytes, 24),
        };
        let header = Self {
            name: PackName {
                session,
                n: u32_at(bytes, 32),
            },
            kind,
            cluster_bytes: u32_at(bytes, 36),
            store: Uid(array_at(bytes, 40)),
        };
        // All fields are taken, so encoding gives back every byte: zeros and checksum too.
        if header.encode() != *bytes {
            return Err(bad_header("zeros or checksum do not fit"));
        }
        let c = header.cluster_bytes;
        if !c.is_power_of_two() || !(CLUSTER_BYTES_MIN..=CLUSTER_BYTES_MAX).contains(&c) {
            return Err(bad_header("the cluster size cannot be"));
        }
        Ok(header)
    }
}

/// Where a frame stands in its pack.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FrameRef {
    /// From the pack's first byte.
    pub offset: u32,
    /// Bytes with header and lengths.
    pub bytes: u32,
}

impl FrameRef {
    /// One past its last byte. Cannot overflow after `check`.
    pub fn end(&self) -> u32 {
        self.offset + self.bytes
    }

    /// Refuses what cannot be a frame of any pack.
    pub fn check(&self) -> Result<()> {
        let room = PACK_BYTES_MAX - TRAILER_BYTES as u32;
        let fits = self.offset >= HEADER_BYTES as u32
            && self.offset <= room
            && (FRAME_HEADER_BYTES as u32 + 1..=FRAME_STORED_BYTES_MAX).contains(&self.bytes)
            && self.bytes <= room - self.offset;
        if fits {
            return Ok(());
        }
        let why = format!("{} bytes at {} are no frame", self.bytes, self.offset);
        Err(Error::corrupt("checking a place in a pack", why))
    }
}

/// How a frame's bytes are encoded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FrameEncoding {
    /// As they are.
    Raw,
    /// One zstd frame, shorter than what it decodes to.
    Zstd,
}

/// First bytes of a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FrameHeader {
    /// How the bytes are encoded.
    pub encoding: FrameEncoding,
    /// Items in the frame.
    pub items: u16,
    /// Encoded bytes.
    pub encoded: u32,
    /// Decoded bytes.
    pub decoded: u32,
    /// First bytes of the BLAKE3 of the rest of the frame.
    pub checksum: [u8; 8],
}

impl FrameHeader {
    /// The bytes.
    pub fn encode(&self) -> [u8; FRAME_HEADER_BYTES] {
        let mut out = [0; FRAME_HEADER_BYTES];
        out[..4].copy_from_slice(&FRAME_MAGIC);
        out[4] = match self.encoding {
            FrameEncoding::Raw => 0,
            FrameEncoding::Zstd => 1,
        };
        out[6..8].copy_from_slice(&self.items.to_le_bytes());
        out[8..12].copy_from_slice(&self.encoded.to_le_bytes());
        out[12..16].copy_from_slice(&self.decoded.to_le_bytes());
        out[16..].copy_from_slice(&self.checksum);
        out
    }

    /// Reads the header at the beginning of `bytes`, which may go on, and checks every length against its limit.
    pub fn decode(bytes: &[u8]) -> Result<Self> {
        let Some(bytes) = bytes.get(..FRAME_HEADER_BYTES) else {
            return Err(bad_frame("it is shorter than its header"));
        };
        if bytes[..4] != FRAME_MAGIC || bytes[5] != 0 {
            return Err(bad_frame("the magic is another"));
        }
        let encoding = match bytes[4] {
            0 => FrameEncoding::Raw,
            1 => FrameEncoding::Zstd,
            _ => return Err(bad_frame("the encoding is unknown")),
        };
        let header = Self {
            encoding,
            items: u16::from_le_bytes(array_at(bytes, 6)),
            encoded: u32_at(bytes, 8),
            decoded: u32_at(bytes, 12),
            checksum: array_at(bytes, 16),
        };
        header.check_lengths()?;
        Ok(header)
    }

    fn check_lengths(&self) -> Result<()> {
        if !(1..=FRAME_ITEMS_MAX).contains(&usize::from(self.items)) {
            return Err(bad_frame("the number of items cannot be"));
        }
        if self.decoded < u32::from(self.items) || self.decoded > FRAME_BYTES_MAX {
            return Err(bad_frame("the decoded size cannot be"));
        }
        let fits = match self.encoding {
            FrameEncoding::Raw => self.encoded == self.decoded,
            FrameEncoding::Zstd => self.encoded > 0 && self.encoded < self.decoded,
        };
        if fits {
            Ok(())
        } else {
            Err(bad_frame("the encoded size cannot be"))
        }
    }

    /// Bytes of the lengths that follow the header.
    pub fn lengths_bytes(&self, kind: PackKind) -> usize {
        match kind {
            PackKind::Clusters => 0,
            PackKind::Nodes => 4 * usize::from(self.items),
        }
    }

    /// Bytes of the whole frame.
    pub fn stored_bytes(&self, kind: PackKind) -> usize {
        FRAME_HEADER_BYTES + self.lengths_bytes(kind) + self.encoded as usize
    }
}

/// The checksum that belongs into the header of a frame: over its first 16 bytes and all that follows the header.
pub fn frame_checksum(head: &[u8], body: &[u8]) -> [u8; 8] {
    array_at(&checksum(&[&head[..16], body]), 0)
}

/// Last bytes of a pack.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Trailer {
    /// Where the table begins.
    pub table_offset: u32,
    /// Blocks of the table.
    pub blocks: u32,
    /// Items of all frames.
    pub entries: u32,
    /// Frames.
    pub frames: u32,
    /// Decoded bytes of all frames.
    pub decoded: u64,
}

impl Trailer {
    /// The bytes, sealed with the pack's name.
    pub fn encode(&self, name: &PackName) -> [u8; TRAILER_BYTES] {
        let mut out = [0; TRAILER_BYTES];
        out[..8].copy_from_slice(TRAILER_MAGIC);
        out[8..12].copy_from_slice(&VERSION.to_le_bytes());
        out[12..16].copy_from_slice(&self.table_offset.to_le_bytes());
        out[16..20].copy_from_slice(&self.blocks.to_le_bytes());
        out[20..24].copy_from_slice(&self.entries.to_le_bytes());
        out[24..28].copy_from_slice(&self.frames.to_le_bytes());
        out[32..40].copy_from_slice(&self.decoded.to_le_bytes());
        let sum = checksum(&[&out[..48], &seal_of(name)]);
        out[48..].copy_from_slice(&sum[..16]);
        out
    }

    /// Reads the trailer of the pack `name`.
    pub fn decode(name: &PackName, bytes: &[u8]) -> Result<Self> {
        let bytes: &[u8; TRAILER_BYTES] = exactly(bytes, bad_trailer)?;
        check_version(bytes, TRAILER_MAGIC, bad_trailer)?;
        let trailer = Self {
            table_offset: u32_at(bytes, 12),
            blocks: u32_at(bytes, 16),
            entries: u32_at(bytes, 20),
            frames: u32_at(bytes, 24),
            decoded: u64_at(bytes, 32),
        };
        if trailer.encode(name) != *bytes {
            return Err(bad_trailer("zeros or checksum do not fit"));
        }
        trailer.check()?;
        Ok(trailer)
    }

    /// Bytes of the whole pack.
    pub fn pack_bytes(&self) -> u64 {
        u64::from(self.table_offset)
            + u64::from(self.blocks) * BLOCK_BYTES as u64
            + TRAILER_BYTES as u64
    }

    fn check(&self) -> Result<()> {
        let fits = self.table_offset as usize > HEADER_BYTES + FRAME_HEADER_BYTES
            && self.pack_bytes() <= u64::from(PACK_BYTES_MAX)
            && self.blocks > 0
            && self.entries >= self.blocks
            && u64::from(self.entries) < u64::from(self.blocks) * u64::from(BLOCK_STRIDE)
            && (1..=self.entries).contains(&self.frames)
            && self.decoded <= u64::from(self.frames) * u64::from(FRAME_BYTES_MAX);
        if fits {
            Ok(())
        } else {
            Err(bad_trailer("its numbers do not fit together"))
        }
    }
}

/// Refuses another magic, and another version by its number. The bytes are those of a header or trailer.
fn check_version(bytes: &[u8; 64], magic: &[u8], bad: fn(&str) -> Error) -> Result<()> {
    if bytes[..8] != *magic {
        return Err(bad("the magic is another"));
    }
    match u32_at(bytes, 8) {
        VERSION => Ok(()),
        version => Err(bad(&format!(
            "it has format version {version}, this program knows {VERSION}"
        ))),
    }
}

/// What table and trailer are sealed with: bytes 16 to 35 of the header.
pub(super) fn seal_of(name: &PackName) -> [u8; 20] {
    let mut out = [0; 20];
    out[..8].copy_from_slice(&name.session.opened_at.to_le_bytes());
    out[8..16].copy_from_slice(&name.session.nonce.to_le_bytes());
    out[16..].copy_from_slice(&name.n.to_le_bytes());
    out
}

/// BLAKE3 of `parts` one after the other.
pub(super) fn checksum(parts: &[&[u8]]) -> [u8; 32] {
    let mut hasher = blake3::Hasher::new();
    for part in parts {
        hasher.update(part);
    }
    *hasher.finalize().as_bytes()
}

/// The `N` bytes at `at`, which the caller knows to be there.
pub(super) fn array_at<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    let mut out = [0; N];
    out.copy_from_slice(&bytes[at..at + N]);
    out
}

pub(super) fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(array_at(bytes, at))
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(array_at(bytes, at))
}

/// The bytes as an array of the structure's size.
pub(super) fn exactly<const N: usize>(bytes: &[u8], bad: fn(&str) -> Error) -> Result<&[u8; N]> {
    bytes.try_into().map_err(|_| bad("it has another size"))
}

fn bad_header(why: &str) -> Error {
    Error::corrupt("reading a pack's header", why)
}

/// Damage of a frame, for all who read frames.
pub(crate) fn bad_frame(why: &str) -> Error {
    Error::corrupt("reading a frame", why)
}

fn bad_trailer(why: &str) -> Error {
    Error::corrupt("reading a pack's trailer", why)
}

#[cfg(test)]
mod tests;
