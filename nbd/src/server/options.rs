//! How a server behaves, and what it allows.

use rustls::ServerConfig;
use std::sync::Arc;
use std::time::Duration;

/// Whether connections are encrypted.
#[derive(Debug, Clone, Default)]
pub enum Tls {
    /// Never.
    #[default]
    Off,
    /// If the client wants it.
    Allowed(Arc<ServerConfig>),
    /// Always: before it, nothing but the wish to start it is answered.
    Required(Arc<ServerConfig>),
}

impl Tls {
    pub(super) fn config(&self) -> Option<&Arc<ServerConfig>> {
        match self {
            Self::Off => None,
            Self::Allowed(config) | Self::Required(config) => Some(config),
        }
    }
}

/// What peers may cost. Memory of a connection is bounded by twice `bytes` (requests and their answers) and 1 MiB a worker,
/// and by `long_reads` for all of them together.
#[derive(Debug, Clone)]
pub struct Limits {
    /// Connections at once. Of further ones each takes the place of the one that has been shaking hands for longest; where none
    /// is, it is closed at once.
    pub connections: usize,
    /// Longest wait for an option in a handshake, and for all of it up to TLS where TLS is required.
    pub handshake: Duration,
    /// Most options in a handshake. A client that looks at every export before it leaves sends a few for each.
    pub options: u32,
    /// Longest data of an option, in bytes; longer data up to 32 MiB are skipped and refused, more ends the connection.
    pub option_bytes: u32,
    /// Longest data of a read or write, in bytes. The protocol asks for 32 MiB at least.
    pub payload: u32,
    /// Requests in flight a connection; more are not read.
    pub requests: usize,
    /// Bytes of requests in flight a connection.
    pub bytes: usize,
    /// Bytes of all connections for reads of more than 2 MiB that must be answered in one piece: without chunked replies, or
    /// with `DF`. Further ones wait. A single one may have more.
    pub long_reads: usize,
    /// Threads a connection may have besides its own; they start as they are needed.
    pub workers: usize,
    /// Longest that a peer may take nothing of what it asked for. Idle peers are never dropped.
    pub stall: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        Self {
            connections: 256,
            handshake: Duration::from_secs(15),
            options: 1 << 18,
            option_bytes: 64 << 10,
            payload: 32 << 20,
            requests: 64,
            bytes: 32 << 20,
            long_reads: 128 << 20,
            workers: cores.clamp(4, 16),
            stall: Duration::from_mins(5),
        }
    }
}

/// How a server behaves.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// Encryption.
    pub tls: Tls,
    /// What peers may cost.
    pub limits: Limits,
}
