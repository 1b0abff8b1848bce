//! Messages of the protocol as bytes and back, both directions, without any I/O.
//!
//! Every decoder takes what has arrived so far and answers with the message and how many bytes it took, with `None` when
//! bytes are still missing, or with [`Malformed`]. Nothing is allocated before the bytes that fill it are there, and no
//! input makes a decoder panic. Numbers are big-endian. Source of all layouts and numbers: `doc/proto.md` of the project
//! `NetworkBlockDevice/nbd` and its branch `extension-ext-header`.

mod extent;
mod fields;
mod hello;
mod numbers;
mod option;
mod option_reply;
mod reply;
mod request;

pub use extent::{Extent, Extents};
pub use fields::{Decoded, Malformed};
pub use hello::{ClientHello, ExportNameReply, ServerHello};
pub use numbers::{STRING_MAX, allocation, chunk_flag};
pub use numbers::{command, flags, handshake, info, option as opt, reply_kind, transmission};
pub use option::{ClientOption, InfoRequest, MetaRequest, OptionHeader};
pub use option_reply::{BlockSizes, Info, OptionError, OptionReply, OptionReplyHeader};
pub use reply::{Chunk, DATA_PREFIX, ReplyHeader, chunk_payload_max, encode_data_header};
pub use request::{Request, StatusPayload};

/// What was negotiated for the transmission phase: how requests and replies look.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Mode {
    /// 28-byte requests, simple replies only.
    Simple,
    /// 28-byte requests, simple replies and chunks.
    Structured,
    /// 32-byte requests with 64-bit lengths, 32-byte chunk headers, no simple replies.
    Extended,
}
