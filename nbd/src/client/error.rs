//! What can go wrong for a client.

use crate::codec::{Malformed, OptionError};
use crate::errno::Failure;
use std::{fmt, io};

/// Why a client has no answer.
#[derive(Debug)]
pub enum Error {
    /// The connection failed, or the server left.
    Io(io::Error),
    /// The server sent what no conforming server sends; the connection is of no use any more.
    Protocol(String),
    /// The server refuses an option.
    Refused(OptionError, String),
    /// The server failed a request; the connection is as good as before.
    Failed(Failure),
    /// The server cannot do what is wanted.
    Unsupported(String),
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Io(error) => write!(f, "the NBD connection failed: {error}"),
            Self::Protocol(what) => write!(f, "the NBD server breaks the protocol: {what}"),
            Self::Refused(error, message) if message.is_empty() => {
                write!(f, "the NBD server refuses: {error:?}")
            }
            Self::Refused(_, message) => write!(f, "the NBD server refuses: {message}"),
            Self::Failed(failure) => write!(f, "the NBD server failed a request: {failure}"),
            Self::Unsupported(what) => write!(f, "the NBD server does not offer {what}"),
        }
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Io(error) => Some(error),
            Self::Failed(failure) => Some(failure),
            _ => None,
        }
    }
}

impl From<io::Error> for Error {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            // So the buffered input says what a decoder found.
            io::ErrorKind::InvalidData => Self::Protocol(error.to_string()),
            _ => Self::Io(error),
        }
    }
}

impl From<Malformed> for Error {
    fn from(bad: Malformed) -> Self {
        Self::Protocol(bad.0.to_owned())
    }
}
