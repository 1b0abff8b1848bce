//! Requests of the transmission phase.

use super::fields::Fields;
use super::{Decoded, Malformed, Mode, command, flags};

const MAGIC: u32 = 0x2560_9513;
const MAGIC_EXTENDED: u32 = 0x21e4_1c71;

/// The header of a request; the data of a write follow it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Request {
    /// Bits of [`flags`].
    pub flags: u16,
    /// A number of [`command`].
    pub command: u16,
    /// The client's name for it, repeated in replies.
    pub cookie: u64,
    /// First byte on the disk.
    pub offset: u64,
    /// Bytes; 32 bits of it without extended headers.
    pub length: u64,
}

impl Request {
    /// Bytes on the wire.
    pub const fn bytes(mode: Mode) -> usize {
        match mode {
            Mode::Simple | Mode::Structured => 28,
            Mode::Extended => 32,
        }
    }

    /// Reads one.
    pub fn decode(mode: Mode, bytes: &[u8]) -> Decoded<Self> {
        let len = Self::bytes(mode);
        let Some(bytes) = bytes.get(..len) else {
            return Ok(None);
        };
        let mut fields = Fields::new(bytes);
        if fields.u32()? != magic(mode) {
            return Err(Malformed("a request has the wrong magic"));
        }
        let request = Self {
            flags: fields.u16()?,
            command: fields.u16()?,
            cookie: fields.u64()?,
            offset: fields.u64()?,
            length: match mode {
                Mode::Extended => fields.u64()?,
                _ => u64::from(fields.u32()?),
            },
        };
        Ok(Some((request, len)))
    }

    /// Appends the bytes. A length over 32 bits needs extended headers.
    pub fn encode(&self, mode: Mode, out: &mut Vec<u8>) -> Result<(), Malformed> {
        let short = u32::try_from(self.length);
        if mode != Mode::Extended && short.is_err() {
            return Err(Malformed("a length over 4 GiB needs extended headers"));
        }
        out.extend_from_slice(&magic(mode).to_be_bytes());
        out.extend_from_slice(&self.flags.to_be_bytes());
        out.extend_from_slice(&self.command.to_be_bytes());
        out.extend_from_slice(&self.cookie.to_be_bytes());
        out.extend_from_slice(&self.offset.to_be_bytes());
        match short {
            Ok(short) if mode != Mode::Extended => out.extend_from_slice(&short.to_be_bytes()),
            _ => out.extend_from_slice(&self.length.to_be_bytes()),
        }
        Ok(())
    }

    /// Bytes that follow the header. A write has them in any case, as in QEMU, whose server takes writes without
    /// `PAYLOAD_LEN` too.
    pub fn payload(&self, mode: Mode) -> u64 {
        let has = self.command == command::WRITE
            || (mode == Mode::Extended && self.flags & flags::PAYLOAD_LEN != 0);
        if has { self.length } else { 0 }
    }

    /// Whether a flag is set.
    pub fn has(&self, flag: u16) -> bool {
        self.flags & flag != 0
    }
}

const fn magic(mode: Mode) -> u32 {
    match mode {
        Mode::Simple | Mode::Structured => MAGIC,
        Mode::Extended => MAGIC_EXTENDED,
    }
}

/// What follows a `BLOCK_STATUS` with `PAYLOAD_LEN`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StatusPayload {
    /// Bytes of the disk that are asked about.
    pub length: u64,
    /// Ids of the contexts that are wanted.
    pub contexts: Vec<u32>,
}

impl StatusPayload {
    /// Reads all of `bytes`.
    pub fn decode(bytes: &[u8]) -> Result<Self, Malformed> {
        let mut fields = Fields::new(bytes);
        let length = fields.u64()?;
        if !fields.left().is_multiple_of(4) {
            return Err(Malformed("a list of contexts has a torn id"));
        }
        let ids = (0..fields.left() / 4).map(|_| fields.u32());
        let contexts = ids.collect::<Result<_, _>>()?;
        Ok(Self { length, contexts })
    }

    /// Appends the bytes.
    pub fn encode(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.length.to_be_bytes());
        for id in &self.contexts {
            out.extend_from_slice(&id.to_be_bytes());
        }
    }
}
