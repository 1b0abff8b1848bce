//! The NBD protocol: a codec without I/O, a server over anything that is an [`Export`], and a client.
//!
//! Fixed newstyle with structured replies, block status, extended headers and TLS. Plain threads: what serves the
//! requests is synchronous and bound by the processor, and a request that needs no waiting is answered on the thread
//! that read it, which no hand-over to a pool can match. The codec stands on its own for those who prefer otherwise.
//!
//! Not there: the oldstyle handshake, `RESIZE`, and TLS with pre-shared keys, which rustls lacks.

pub mod client;
pub mod codec;
mod errno;
mod export;
pub mod server;
pub mod tls;
mod transport;
mod uri;

pub use errno::{Errno, Failure};
pub use export::{BASE_ALLOCATION, Export, ExportInfo, Exports, Listed, OpenError, Peer, ZeroMode};
pub use export::{FileExport, MemoryExport, Named};
pub use uri::{Address, Uri};
