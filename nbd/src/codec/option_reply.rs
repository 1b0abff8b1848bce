//! What a server answers to options.

use super::fields::{Fields, put_counted};
use super::{Decoded, Malformed, info, reply_kind};

const MAGIC: u64 = 0x0003_e889_0455_65a9;

/// What stands before the data of an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OptionReplyHeader {
    /// The option that is answered.
    pub option: u32,
    /// A number of [`reply_kind`], or an error.
    pub kind: u32,
    /// Bytes of data that follow; up to the receiver what it accepts.
    pub length: u32,
}

impl OptionReplyHeader {
    /// Bytes on the wire.
    pub const BYTES: usize = 20;

    /// Appends the bytes.
    pub fn encode(self, out: &mut Vec<u8>) {
        out.extend_from_slice(&MAGIC.to_be_bytes());
        out.extend_from_slice(&self.option.to_be_bytes());
        out.extend_from_slice(&self.kind.to_be_bytes());
        out.extend_from_slice(&self.length.to_be_bytes());
    }

    /// Reads one.
    pub fn decode(bytes: &[u8]) -> Decoded<Self> {
        let Some(bytes) = bytes.get(..Self::BYTES) else {
            return Ok(None);
        };
        let mut fields = Fields::new(bytes);
        if fields.u64()? != MAGIC {
            return Err(Malformed("an option reply has the wrong magic"));
        }
        let (option, kind, length) = (fields.u32()?, fields.u32()?, fields.u32()?);
        let header = Self {
            option,
            kind,
            length,
        };
        Ok(Some((header, Self::BYTES)))
    }
}

/// Sizes of requests in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BlockSizes {
    /// Offsets and lengths are multiples of this; a power of two up to 64 KiB.
    pub minimum: u32,
    /// What works best; a power of two of 512 at least.
    pub preferred: u32,
    /// Longest data of one read or write.
    pub maximum: u32,
}

/// A piece of information about an export.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Info {
    /// Size in bytes and bits of [`transmission`](super::transmission).
    Export(u64, u16),
    /// The canonical name.
    Name(String),
    /// Text for people.
    Description(String),
    /// Block sizes.
    BlockSize(BlockSizes),
    /// A kind that is not known here.
    Unknown(u16),
}

/// Why an option fails, as the numbers of the protocol without the error bit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub enum OptionError {
    /// The option is not known.
    Unsupported = 1,
    /// Not for this client.
    Policy = 2,
    /// Malformed, or not now.
    Invalid = 3,
    /// Not on this machine.
    Platform = 4,
    /// TLS first.
    TlsRequired = 5,
    /// No such export.
    Unknown = 6,
    /// The server is shutting down.
    Shutdown = 7,
    /// Ask for the block sizes first.
    BlockSizeRequired = 8,
    /// Too much data.
    TooBig = 9,
    /// Extended headers are on.
    ExtendedHeadersRequired = 10,
}

impl OptionError {
    const ALL: [Self; 10] = [
        Self::Unsupported,
        Self::Policy,
        Self::Invalid,
        Self::Platform,
        Self::TlsRequired,
        Self::Unknown,
        Self::Shutdown,
        Self::BlockSizeRequired,
        Self::TooBig,
        Self::ExtendedHeadersRequired,
    ];

    /// The error of a reply's kind; what is not known counts as unsupported. `None` when it is no error.
    pub fn of_kind(kind: u32) -> Option<Self> {
        let code = (kind & reply_kind::ERROR != 0).then_some(kind & !reply_kind::ERROR)?;
        let known = Self::ALL.into_iter().find(|error| *error as u32 == code);
        Some(known.unwrap_or(Self::Unsupported))
    }
}

/// An answer with its data.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum OptionReply {
    /// Done; nothing more comes for this option.
    Ack,
    /// An export of a list: its name, and text for people.
    Server(String, String),
    /// Something about an export.
    Info(Info),
    /// A metadata context: the id that stands for it in the transmission phase, and its name.
    MetaContext(u32, String),
    /// Failed, with text for people.
    Error(OptionError, String),
    /// A kind that is not known here.
    Unknown(u32),
}

impl OptionReply {
    /// Reads the data that followed a header.
    pub fn decode(kind: u32, data: &[u8]) -> Result<Self, Malformed> {
        if let Some(error) = OptionError::of_kind(kind) {
            return Ok(Self::Error(
                error,
                String::from_utf8_lossy(data).into_owned(),
            ));
        }
        let mut fields = Fields::new(data);
        let read = match kind {
            reply_kind::ACK => Self::Ack,
            reply_kind::SERVER => Self::Server(fields.counted()?, fields.rest()?),
            reply_kind::INFO => {
                let Some(info) = decode_info(&mut fields)? else {
                    let kind = Fields::new(data).u16()?;
                    return Ok(Self::Info(Info::Unknown(kind)));
                };
                Self::Info(info)
            }
            reply_kind::META_CONTEXT => Self::MetaContext(fields.u32()?, fields.rest()?),
            other => return Ok(Self::Unknown(other)),
        };
        fields.end()?;
        Ok(read)
    }

    /// Its kind on the wire.
    pub fn kind(&self) -> u32 {
        match self {
            Self::Ack => reply_kind::ACK,
            Self::Server(..) => reply_kind::SERVER,
            Self::Info(_) => reply_kind::INFO,
            Self::MetaContext(..) => reply_kind::META_CONTEXT,
            Self::Error(error, _) => reply_kind::ERROR | *error as u32,
            Self::Unknown(kind) => *kind,
        }
    }

    /// Appends header and data of an answer to `option`.
    pub fn encode(&self, option: u32, out: &mut Vec<u8>) {
        let mut data = Vec::new();
        match self {
            Self::Ack | Self::Unknown(_) => {}
            Self::Server(name, description) => {
                put_counted(&mut data, name);
                data.extend_from_slice(description.as_bytes());
            }
            Self::Info(info) => encode_info(info, &mut data),
            Self::MetaContext(id, name) => {
                data.extend_from_slice(&id.to_be_bytes());
                data.extend_from_slice(name.as_bytes());
            }
            Self::Error(_, message) => data.extend_from_slice(message.as_bytes()),
        }
        let header = OptionReplyHeader {
            option,
            kind: self.kind(),
            length: u32::try_from(data.len()).unwrap_or(u32::MAX),
        };
        header.encode(out);
        out.extend_from_slice(&data);
    }
}

fn decode_info(fields: &mut Fields<'_>) -> Result<Option<Info>, Malformed> {
    let info = match fields.u16()? {
        info::EXPORT => Info::Export(fields.u64()?, fields.u16()?),
        info::NAME => Info::Name(fields.rest()?),
        info::DESCRIPTION => Info::Description(fields.rest()?),
        info::BLOCK_SIZE => Info::BlockSize(BlockSizes {
            minimum: fields.u32()?,
            preferred: fields.u32()?,
            maximum: fields.u32()?,
        }),
        _ => return Ok(None),
    };
    Ok(Some(info))
}

fn encode_info(of: &Info, data: &mut Vec<u8>) {
    match of {
        Info::Export(size, flags) => {
            data.extend_from_slice(&info::EXPORT.to_be_bytes());
            data.extend_from_slice(&size.to_be_bytes());
            data.extend_from_slice(&flags.to_be_bytes());
        }
        Info::Name(text) => {
            data.extend_from_slice(&info::NAME.to_be_bytes());
            data.extend_from_slice(text.as_bytes());
        }
        Info::Description(text) => {
            data.extend_from_slice(&info::DESCRIPTION.to_be_bytes());
            data.extend_from_slice(text.as_bytes());
        }
        Info::BlockSize(sizes) => {
            data.extend_from_slice(&info::BLOCK_SIZE.to_be_bytes());
            for size in [sizes.minimum, sizes.preferred, sizes.maximum] {
                data.extend_from_slice(&size.to_be_bytes());
            }
        }
        Info::Unknown(kind) => data.extend_from_slice(&kind.to_be_bytes()),
    }
}
