//! What a client asks for before the transmission phase.

use super::fields::{Fields, put_counted};
use super::hello::HAVE_OPTION;
use super::{Decoded, Malformed, opt};

/// What stands before an option's data.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OptionHeader {
    /// A number of [`opt`].
    pub option: u32,
    /// Bytes of data that follow; up to the receiver what it accepts.
    pub length: u32,
}

impl OptionHeader {
    /// Bytes on the wire.
    pub const BYTES: usize = 16;

    /// Appends the bytes.
    pub fn encode(self, out: &mut Vec<u8>) {
        out.extend_from_slice(&HAVE_OPTION.to_be_bytes());
        out.extend_from_slice(&self.option.to_be_bytes());
        out.extend_from_slice(&self.length.to_be_bytes());
    }

    /// Reads one.
    pub fn decode(bytes: &[u8]) -> Decoded<Self> {
        let Some(bytes) = bytes.get(..Self::BYTES) else {
            return Ok(None);
        };
        let mut fields = Fields::new(bytes);
        if fields.u64()? != HAVE_OPTION {
            return Err(Malformed("an option does not start with IHAVEOPT"));
        }
        let (option, length) = (fields.u32()?, fields.u32()?);
        Ok(Some((Self { option, length }, Self::BYTES)))
    }
}

/// Data of `INFO` and `GO`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InfoRequest {
    /// The export; empty is the default one.
    pub name: String,
    /// Numbers of [`info`](super::info) that are wanted.
    pub wanted: Vec<u16>,
}

/// Data of `LIST_META_CONTEXT` and `SET_META_CONTEXT`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MetaRequest {
    /// The export; empty is the default one.
    pub name: String,
    /// Contexts, or patterns of them.
    pub queries: Vec<String>,
}

/// An option with its data.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ClientOption {
    /// Choose an export and go.
    ExportName(String),
    /// Leave.
    Abort,
    /// List the exports.
    List,
    /// Go on over TLS.
    StartTls,
    /// Ask about an export.
    Info(InfoRequest),
    /// Ask about an export and go.
    Go(InfoRequest),
    /// Turn on chunked replies.
    StructuredReply,
    /// List metadata contexts.
    ListMeta(MetaRequest),
    /// Choose metadata contexts.
    SetMeta(MetaRequest),
    /// Turn on 64-bit headers.
    ExtendedHeaders,
    /// An option that is not known here, by its number.
    Unknown(u32),
}

impl ClientOption {
    /// Reads the data that followed a header. Data of unknown options are not looked at.
    pub fn decode(option: u32, data: &[u8]) -> Result<Self, Malformed> {
        let mut fields = Fields::new(data);
        let read = match option {
            opt::EXPORT_NAME => Self::ExportName(fields.rest()?),
            // The protocol lets a server ignore what comes with it, since the client is leaving.
            opt::ABORT => return Ok(Self::Abort),
            opt::LIST => Self::List,
            opt::STARTTLS => Self::StartTls,
            opt::INFO => Self::Info(info_request(&mut fields)?),
            opt::GO => Self::Go(info_request(&mut fields)?),
            opt::STRUCTURED_REPLY => Self::StructuredReply,
            opt::LIST_META_CONTEXT => Self::ListMeta(meta_request(&mut fields)?),
            opt::SET_META_CONTEXT => Self::SetMeta(meta_request(&mut fields)?),
            opt::EXTENDED_HEADERS => Self::ExtendedHeaders,
            other => return Ok(Self::Unknown(other)),
        };
        fields.end()?;
        Ok(read)
    }

    /// Its number.
    pub fn number(&self) -> u32 {
        match self {
            Self::ExportName(_) => opt::EXPORT_NAME,
            Self::Abort => opt::ABORT,
            Self::List => opt::LIST,
            Self::StartTls => opt::STARTTLS,
            Self::Info(_) => opt::INFO,
            Self::Go(_) => opt::GO,
            Self::StructuredReply => opt::STRUCTURED_REPLY,
            Self::ListMeta(_) => opt::LIST_META_CONTEXT,
            Self::SetMeta(_) => opt::SET_META_CONTEXT,
            Self::ExtendedHeaders => opt::EXTENDED_HEADERS,
            Self::Unknown(number) => *number,
        }
    }

    /// Appends header and data.
    pub fn encode(&self, out: &mut Vec<u8>) {
        let mut data = Vec::new();
        match self {
            Self::ExportName(name) => data.extend_from_slice(name.as_bytes()),
            Self::Info(request) | Self::Go(request) => {
                put_counted(&mut data, &request.name);
                let count = u16::try_from(request.wanted.len()).unwrap_or(u16::MAX);
                data.extend_from_slice(&count.to_be_bytes());
                for wanted in request.wanted.iter().take(usize::from(count)) {
                    data.extend_from_slice(&wanted.to_be_bytes());
                }
            }
            Self::ListMeta(request) | Self::SetMeta(request) => {
                put_counted(&mut data, &request.name);
                let count = u32::try_from(request.queries.len()).unwrap_or(u32::MAX);
                data.extend_from_slice(&count.to_be_bytes());
                for query in &request.queries {
                    put_counted(&mut data, query);
                }
            }
            _ => {}
        }
        let length = u32::try_from(data.len()).unwrap_or(u32::MAX);
        let option = self.number();
        OptionHeader { option, length }.encode(out);
        out.extend_from_slice(&data);
    }
}

fn info_request(fields: &mut Fields<'_>) -> Result<InfoRequest, Malformed> {
    let name = fields.counted()?;
    let count = fields.u16()?;
    if fields.left() != usize::from(count) * 2 {
        return Err(Malformed("the number of infos is not what follows"));
    }
    let wanted = (0..count).map(|_| fields.u16()).collect::<Result<_, _>>()?;
    Ok(InfoRequest { name, wanted })
}

fn meta_request(fields: &mut Fields<'_>) -> Result<MetaRequest, Malformed> {
    let name = fields.counted()?;
    let count = fields.u32()?;
    // Each takes its length at least: no list is made for queries that are not there.
    if fields.left() / 4 < count as usize {
        return Err(Malformed("there are fewer queries than announced"));
    }
    let queries = (0..count).map(|_| fields.counted());
    let queries = queries.collect::<Result<_, _>>()?;
    Ok(MetaRequest { name, queries })
}
