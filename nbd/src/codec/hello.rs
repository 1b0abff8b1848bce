//! The first messages of a connection, and the answer to `EXPORT_NAME`, which has a form of its own.

use super::fields::Fields;
use super::{Decoded, Malformed};

const INIT: u64 = u64::from_be_bytes(*b"NBDMAGIC");
pub(super) const HAVE_OPTION: u64 = u64::from_be_bytes(*b"IHAVEOPT");

/// What a server says first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ServerHello {
    /// Bits of [`handshake`](super::handshake).
    pub flags: u16,
}

impl ServerHello {
    /// Bytes on the wire.
    pub const BYTES: usize = 18;

    /// Appends the bytes.
    pub fn encode(self, out: &mut Vec<u8>) {
        out.extend_from_slice(&INIT.to_be_bytes());
        out.extend_from_slice(&HAVE_OPTION.to_be_bytes());
        out.extend_from_slice(&self.flags.to_be_bytes());
    }

    /// Reads one. The oldstyle handshake is refused.
    pub fn decode(bytes: &[u8]) -> Decoded<Self> {
        let Some(bytes) = bytes.get(..Self::BYTES) else {
            return Ok(None);
        };
        let mut fields = Fields::new(bytes);
        if fields.u64()? != INIT {
            return Err(Malformed("this is no NBD server"));
        }
        if fields.u64()? != HAVE_OPTION {
            return Err(Malformed("the server speaks the oldstyle protocol"));
        }
        let flags = fields.u16()?;
        Ok(Some((Self { flags }, Self::BYTES)))
    }
}

/// What a client answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ClientHello {
    /// Bits of [`handshake`](super::handshake), as far as they are known.
    pub flags: u32,
}

impl ClientHello {
    /// Bytes on the wire.
    pub const BYTES: usize = 4;

    /// Appends the bytes.
    pub fn encode(self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.flags.to_be_bytes());
    }

    /// Reads one. Any flags are taken; it is for the server to leave when it does not know them.
    pub fn decode(bytes: &[u8]) -> Decoded<Self> {
        let Some(bytes) = bytes.first_chunk() else {
            return Ok(None);
        };
        let flags = u32::from_be_bytes(*bytes);
        Ok(Some((Self { flags }, Self::BYTES)))
    }
}

/// The answer to `EXPORT_NAME` when there is such an export; there is none otherwise.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ExportNameReply {
    /// Size of the export in bytes.
    pub size: u64,
    /// Bits of [`transmission`](super::transmission).
    pub flags: u16,
}

impl ExportNameReply {
    const ZEROES: usize = 124;

    /// Appends the bytes; the zeroes follow unless both sides said `NO_ZEROES`.
    pub fn encode(self, no_zeroes: bool, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.size.to_be_bytes());
        out.extend_from_slice(&self.flags.to_be_bytes());
        if !no_zeroes {
            out.extend_from_slice(&[0; Self::ZEROES]);
        }
    }

    /// Reads one.
    pub fn decode(no_zeroes: bool, bytes: &[u8]) -> Decoded<Self> {
        let len = 10 + if no_zeroes { 0 } else { Self::ZEROES };
        let Some(bytes) = bytes.get(..len) else {
            return Ok(None);
        };
        let mut fields = Fields::new(bytes);
        let (size, flags) = (fields.u64()?, fields.u16()?);
        Ok(Some((Self { size, flags }, len)))
    }
}
