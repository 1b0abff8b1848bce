//! Replies of the transmission phase.

use super::fields::Fields;
use super::{Decoded, Extent, Malformed, Mode, STRING_MAX};

const SIMPLE: u32 = 0x6744_6698;
const STRUCTURED: u32 = 0x668e_33ef;
const EXTENDED: u32 = 0x6e8a_278c;

const NONE: u16 = 0;
const OFFSET_DATA: u16 = 1;
const OFFSET_HOLE: u16 = 2;
const BLOCK_STATUS: u16 = 5;
const BLOCK_STATUS_EXT: u16 = 6;
const ERROR: u16 = 0x8001;
const ERROR_OFFSET: u16 = 0x8002;
const ERROR_BIT: u16 = 1 << 15;

/// Most extents that a reply has, by the protocol.
const EXTENTS_MAX: u64 = 1 << 20;
/// Bytes before the data in the payload of a chunk of data.
pub const DATA_PREFIX: usize = 8;

/// What stands before the data of a reply or chunk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReplyHeader {
    /// A simple reply: an error number or 0. The data of a successful read follow.
    Simple {
        /// The request's.
        cookie: u64,
        /// Number of an [`Errno`](crate::Errno), or 0.
        error: u32,
    },
    /// A chunk.
    Chunk {
        /// The request's.
        cookie: u64,
        /// Bits of [`chunk_flag`](super::chunk_flag).
        flags: u16,
        /// For [`Chunk::decode`].
        kind: u16,
        /// The request's, with extended headers only; 0 otherwise.
        offset: u64,
        /// Bytes that follow; check with [`chunk_payload_max`].
        length: u64,
    },
}

impl ReplyHeader {
    /// Reads one.
    pub fn decode(mode: Mode, bytes: &[u8]) -> Decoded<Self> {
        let Some(magic) = bytes.first_chunk() else {
            return Ok(None);
        };
        match (u32::from_be_bytes(*magic), mode) {
            (SIMPLE, Mode::Simple | Mode::Structured) => decode_simple(bytes),
            (STRUCTURED, Mode::Structured) => decode_chunk(mode, 20, bytes),
            (EXTENDED, Mode::Extended) => decode_chunk(mode, 32, bytes),
            (SIMPLE | STRUCTURED | EXTENDED, _) => {
                Err(Malformed("a reply of a kind that was not negotiated"))
            }
            _ => Err(Malformed("a reply has the wrong magic")),
        }
    }

    /// Appends the bytes. `mode` must be one that has such headers; a chunk goes out as an extended one if it is
    /// [`Mode::Extended`], else as a structured one.
    pub fn encode(&self, mode: Mode, out: &mut Vec<u8>) {
        match *self {
            Self::Simple { cookie, error } => {
                out.extend_from_slice(&SIMPLE.to_be_bytes());
                out.extend_from_slice(&error.to_be_bytes());
                out.extend_from_slice(&cookie.to_be_bytes());
            }
            Self::Chunk {
                cookie,
                flags,
                kind,
                offset,
                length,
            } => {
                let extended = mode == Mode::Extended;
                let magic = if extended { EXTENDED } else { STRUCTURED };
                out.extend_from_slice(&magic.to_be_bytes());
                out.extend_from_slice(&flags.to_be_bytes());
                out.extend_from_slice(&kind.to_be_bytes());
                out.extend_from_slice(&cookie.to_be_bytes());
                if extended {
                    out.extend_from_slice(&offset.to_be_bytes());
                    out.extend_from_slice(&length.to_be_bytes());
                } else {
                    let length = u32::try_from(length).unwrap_or(u32::MAX);
                    out.extend_from_slice(&length.to_be_bytes());
                }
            }
        }
    }
}

fn decode_simple(bytes: &[u8]) -> Decoded<ReplyHeader> {
    let Some(bytes) = bytes.get(..16) else {
        return Ok(None);
    };
    let mut fields = Fields::new(&bytes[4..]);
    let (error, cookie) = (fields.u32()?, fields.u64()?);
    Ok(Some((ReplyHeader::Simple { cookie, error }, 16)))
}

fn decode_chunk(mode: Mode, len: usize, bytes: &[u8]) -> Decoded<ReplyHeader> {
    let Some(bytes) = bytes.get(..len) else {
        return Ok(None);
    };
    let mut fields = Fields::new(&bytes[4..]);
    let (flags, kind, cookie) = (fields.u16()?, fields.u16()?, fields.u64()?);
    let (offset, length) = match mode {
        Mode::Extended => (fields.u64()?, fields.u64()?),
        _ => (0, u64::from(fields.u32()?)),
    };
    let header = ReplyHeader::Chunk {
        cookie,
        flags,
        kind,
        offset,
        length,
    };
    Ok(Some((header, len)))
}

/// Longest payload that a chunk of this kind may have as a reply to a request of `requested` bytes. A receiver checks
/// before it allocates.
pub fn chunk_payload_max(kind: u16, requested: u64) -> u64 {
    match kind {
        NONE => 0,
        OFFSET_DATA => requested.saturating_add(DATA_PREFIX as u64),
        OFFSET_HOLE => 12,
        BLOCK_STATUS => 4 + 8 * EXTENTS_MAX,
        BLOCK_STATUS_EXT => 8 + 16 * EXTENTS_MAX,
        _ => u64::from(STRING_MAX) + 14,
    }
}

/// A chunk's data.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Chunk<'a> {
    /// Nothing; ends a reply.
    None,
    /// Data of a read.
    Data(u64, &'a [u8]),
    /// Zeroes of a read: offset and bytes.
    Hole(u64, u32),
    /// Extents of one context, from the offset of the request on.
    Status(u32, Vec<Extent>),
    /// An error number, text for people, and where on the disk, if that is known.
    Error(u32, String, Option<u64>),
    /// A kind that is not known here.
    Unknown(u16),
}

impl<'a> Chunk<'a> {
    /// Reads the payload that followed a header.
    pub fn decode(kind: u16, payload: &'a [u8]) -> Result<Self, Malformed> {
        let mut fields = Fields::new(payload);
        let chunk = match kind {
            NONE => Self::None,
            OFFSET_DATA => {
                let offset = fields.u64()?;
                Self::Data(offset, fields.bytes(fields.left())?)
            }
            OFFSET_HOLE => Self::Hole(fields.u64()?, fields.u32()?),
            BLOCK_STATUS => Self::Status(fields.u32()?, extents_32(&mut fields)?),
            BLOCK_STATUS_EXT => Self::Status(fields.u32()?, extents_64(&mut fields)?),
            kind if kind & ERROR_BIT != 0 => decode_error(kind, &mut fields)?,
            _ => return Ok(Self::Unknown(kind)),
        };
        fields.end()?;
        Ok(chunk)
    }

    /// Appends header and payload of a chunk that answers the request with `cookie` and `offset`. Extents go out with
    /// 64 bits if the mode is [`Mode::Extended`], else with 32.
    pub fn encode(&self, mode: Mode, flags: u16, cookie: u64, offset: u64, out: &mut Vec<u8>) {
        let mut payload = Vec::new();
        let kind = self.encode_payload(mode, &mut payload);
        let header = ReplyHeader::Chunk {
            cookie,
            flags,
            kind,
            offset,
            length: payload.len() as u64,
        };
        header.encode(mode, out);
        out.extend_from_slice(&payload);
    }

    fn encode_payload(&self, mode: Mode, out: &mut Vec<u8>) -> u16 {
        match self {
            Self::None => NONE,
            Self::Data(offset, data) => {
                out.extend_from_slice(&offset.to_be_bytes());
                out.extend_from_slice(data);
                OFFSET_DATA
            }
            Self::Hole(offset, length) => {
                out.extend_from_slice(&offset.to_be_bytes());
                out.extend_from_slice(&length.to_be_bytes());
                OFFSET_HOLE
            }
            Self::Status(context, extents) => {
                out.extend_from_slice(&context.to_be_bytes());
                encode_extents(mode, extents, out)
            }
            Self::Error(error, message, offset) => {
                let len = u16::try_from(message.len()).unwrap_or(u16::MAX);
                out.extend_from_slice(&error.to_be_bytes());
                out.extend_from_slice(&len.to_be_bytes());
                out.extend_from_slice(&message.as_bytes()[..usize::from(len)]);
                let Some(offset) = offset else {
                    return ERROR;
                };
                out.extend_from_slice(&offset.to_be_bytes());
                ERROR_OFFSET
            }
            Self::Unknown(kind) => *kind,
        }
    }
}

/// Appends header and offset of a chunk with `length` bytes of data, which the caller appends; `at` is where on the disk
/// they are from, `offset` the request's.
pub fn encode_data_header(
    mode: Mode,
    flags: u16,
    cookie: u64,
    offset: u64,
    (at, length): (u64, usize),
    out: &mut Vec<u8>,
) {
    let header = ReplyHeader::Chunk {
        cookie,
        flags,
        kind: OFFSET_DATA,
        offset,
        length: (length + DATA_PREFIX) as u64,
    };
    header.encode(mode, out);
    out.extend_from_slice(&at.to_be_bytes());
}

/// 32-bit extents cannot be longer than 4 GiB; a longer one is sent shortened and ends the list, which clients allow for.
fn encode_extents(mode: Mode, extents: &[Extent], out: &mut Vec<u8>) -> u16 {
    if mode == Mode::Extended {
        let count = u32::try_from(extents.len()).unwrap_or(u32::MAX);
        out.extend_from_slice(&count.to_be_bytes());
        for extent in extents {
            out.extend_from_slice(&extent.length.to_be_bytes());
            out.extend_from_slice(&extent.flags.to_be_bytes());
        }
        return BLOCK_STATUS_EXT;
    }
    for extent in extents {
        // A multiple of every block size there is, so that the next request is aligned.
        let length = u32::try_from(extent.length).unwrap_or(u32::MAX - 0xffff);
        let flags = extent.flags as u32;
        out.extend_from_slice(&length.to_be_bytes());
        out.extend_from_slice(&flags.to_be_bytes());
        if u64::from(length) < extent.length {
            break;
        }
    }
    BLOCK_STATUS
}

fn extents_32(fields: &mut Fields<'_>) -> Result<Vec<Extent>, Malformed> {
    if fields.left() == 0 || !fields.left().is_multiple_of(8) {
        return Err(Malformed("a list of extents is empty or torn"));
    }
    let mut extents = Vec::with_capacity(fields.left() / 8);
    while fields.left() > 0 {
        let (length, flags) = (u64::from(fields.u32()?), u64::from(fields.u32()?));
        extents.push(extent(length, flags)?);
    }
    Ok(extents)
}

fn extents_64(fields: &mut Fields<'_>) -> Result<Vec<Extent>, Malformed> {
    let count = fields.u32()? as usize;
    if count == 0 || fields.left() / 16 != count || !fields.left().is_multiple_of(16) {
        return Err(Malformed("the number of extents is not what follows"));
    }
    let pairs = (0..count).map(|_| extent(fields.u64()?, fields.u64()?));
    pairs.collect()
}

fn extent(length: u64, flags: u64) -> Result<Extent, Malformed> {
    if length == 0 {
        return Err(Malformed("an extent is empty"));
    }
    Ok(Extent { length, flags })
}

fn decode_error(kind: u16, fields: &mut Fields<'_>) -> Result<Chunk<'static>, Malformed> {
    let error = fields.u32()?;
    if error == 0 {
        return Err(Malformed("an error without a number"));
    }
    let len = fields.u16()?;
    let message = fields.bytes(usize::from(len))?;
    let message = String::from_utf8_lossy(message).into_owned();
    let offset = match kind {
        ERROR_OFFSET => Some(fields.u64()?),
        ERROR => None,
        _ => {
            // Errors of kinds to come start like these; the rest is not ours to judge.
            fields.bytes(fields.left())?;
            None
        }
    };
    Ok(Chunk::Error(error, message, offset))
}
