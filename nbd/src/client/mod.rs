//! The client: connect, look around, go, and then any number of requests in flight.
//!
//! ```no_run
//! use stillpoint_nbd::client::{Client, Options};
//! let mut client = Client::connect_unix("/run/disk.sock".as_ref(), Options::default())?;
//! let disk = client.go("", &["base:allocation"])?;
//! let ahead: Vec<_> = (0..16).map(|n| disk.start_read(n << 20, 1 << 20)).collect::<Result<_, _>>()?;
//! for pending in ahead {
//!     let data = pending.wait()?;
//!     println!("{} bytes", data.len());
//! }
//! # Ok::<(), stillpoint_nbd::client::Error>(())
//! ```

mod connection;
mod error;
mod handshake;
mod pending;
mod receive;

pub use connection::{Connection, Status};
pub use error::Error;
pub use handshake::{Client, ServerTls};
pub use pending::Pending;

use crate::codec::Mode;
use std::time::Duration;

/// What is wanted of a server.
#[derive(Debug, Clone)]
pub struct Options {
    /// Encryption. Without it nothing is encrypted, and a server that insists on it is refused.
    pub tls: Option<ServerTls>,
    /// The best kind of messages to ask for.
    pub ask: Mode,
    /// The worst to put up with; a server that offers less is refused.
    pub require: Mode,
    /// Longest wait for a connection and its handshake.
    pub handshake: Duration,
    /// Most requests in flight; starting another waits.
    pub requests: usize,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            tls: None,
            ask: Mode::Extended,
            require: Mode::Simple,
            handshake: Duration::from_secs(15),
            requests: 64,
        }
    }
}
