//! The protocol's numbers, under its own names as far as they are words.

/// Longest string that the protocol allows, in bytes.
pub const STRING_MAX: u32 = 4096;

/// Bits of the two flag words that open a connection.
pub mod handshake {
    /// Server and client: unknown options are answered, not dropped.
    pub const FIXED_NEWSTYLE: u16 = 1 << 0;
    /// Server and client: no 124 zero bytes after `EXPORT_NAME`.
    pub const NO_ZEROES: u16 = 1 << 1;
}

/// Options that a client sends before the transmission phase.
pub mod option {
    /// Choose an export and go, without an answer in case of failure.
    pub const EXPORT_NAME: u32 = 1;
    /// Leave.
    pub const ABORT: u32 = 2;
    /// List the exports.
    pub const LIST: u32 = 3;
    /// Go on over TLS.
    pub const STARTTLS: u32 = 5;
    /// Ask about an export.
    pub const INFO: u32 = 6;
    /// Ask about an export and go.
    pub const GO: u32 = 7;
    /// Turn on chunked replies.
    pub const STRUCTURED_REPLY: u32 = 8;
    /// List metadata contexts.
    pub const LIST_META_CONTEXT: u32 = 9;
    /// Choose metadata contexts.
    pub const SET_META_CONTEXT: u32 = 10;
    /// Turn on 64-bit headers.
    pub const EXTENDED_HEADERS: u32 = 11;
}

/// Kinds of option replies that are no errors.
pub mod reply_kind {
    /// Done.
    pub const ACK: u32 = 1;
    /// An export of a list.
    pub const SERVER: u32 = 2;
    /// A piece of information about an export.
    pub const INFO: u32 = 3;
    /// A metadata context.
    pub const META_CONTEXT: u32 = 4;
    /// Set in all kinds that are errors.
    pub const ERROR: u32 = 1 << 31;
}

/// Kinds of information about an export.
pub mod info {
    /// Size and transmission flags.
    pub const EXPORT: u16 = 0;
    /// The canonical name.
    pub const NAME: u16 = 1;
    /// Text for people.
    pub const DESCRIPTION: u16 = 2;
    /// Block sizes.
    pub const BLOCK_SIZE: u16 = 3;
}

/// Transmission flags: what an export can do.
pub mod transmission {
    /// Always set.
    pub const HAS_FLAGS: u16 = 1 << 0;
    /// Writes are refused.
    pub const READ_ONLY: u16 = 1 << 1;
    /// `FLUSH` works.
    pub const SEND_FLUSH: u16 = 1 << 2;
    /// The flag `FUA` works.
    pub const SEND_FUA: u16 = 1 << 3;
    /// A disk that turns.
    pub const ROTATIONAL: u16 = 1 << 4;
    /// `TRIM` works.
    pub const SEND_TRIM: u16 = 1 << 5;
    /// `WRITE_ZEROES` works.
    pub const SEND_WRITE_ZEROES: u16 = 1 << 6;
    /// The flag `DF` works; only with chunked replies.
    pub const SEND_DF: u16 = 1 << 7;
    /// A flush on one connection covers what was completed on all, and reads everywhere see it.
    pub const CAN_MULTI_CONN: u16 = 1 << 8;
    /// `RESIZE` works; not offered here.
    pub const SEND_RESIZE: u16 = 1 << 9;
    /// `CACHE` works.
    pub const SEND_CACHE: u16 = 1 << 10;
    /// The flag `FAST_ZERO` works.
    pub const SEND_FAST_ZERO: u16 = 1 << 11;
    /// `BLOCK_STATUS` may choose among the contexts; only with extended headers.
    pub const BLOCK_STATUS_PAYLOAD: u16 = 1 << 12;
}

/// Commands of the transmission phase.
pub mod command {
    /// Read.
    pub const READ: u16 = 0;
    /// Write; the data follow the header.
    pub const WRITE: u16 = 1;
    /// Disconnect; has no reply.
    pub const DISC: u16 = 2;
    /// Make completed writes durable.
    pub const FLUSH: u16 = 3;
    /// Forget a range.
    pub const TRIM: u16 = 4;
    /// Fetch a range ahead.
    pub const CACHE: u16 = 5;
    /// Make a range read as zeroes.
    pub const WRITE_ZEROES: u16 = 6;
    /// Ask for metadata of a range.
    pub const BLOCK_STATUS: u16 = 7;
}

/// Flags of commands.
pub mod flags {
    /// Durable before it is answered.
    pub const FUA: u16 = 1 << 0;
    /// `WRITE_ZEROES`: allocate, make no hole.
    pub const NO_HOLE: u16 = 1 << 1;
    /// `READ`: one chunk.
    pub const DF: u16 = 1 << 2;
    /// `BLOCK_STATUS`: one extent.
    pub const REQ_ONE: u16 = 1 << 3;
    /// `WRITE_ZEROES`: fail with `ENOTSUP` rather than be as slow as a write.
    pub const FAST_ZERO: u16 = 1 << 4;
    /// Extended headers: the length is that of a payload which follows.
    pub const PAYLOAD_LEN: u16 = 1 << 5;
}

/// Flags of chunks.
pub mod chunk_flag {
    /// The last chunk of its reply.
    pub const DONE: u16 = 1 << 0;
}

/// Flags of extents in the context `base:allocation`.
pub mod allocation {
    /// Not allocated.
    pub const HOLE: u64 = 1 << 0;
    /// Reads as zeroes.
    pub const ZERO: u64 = 1 << 1;
}
