//! Why a request fails: the error numbers that the protocol has, with text for people.

use std::{fmt, io};

/// Error numbers of the protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub enum Errno {
    /// Not permitted: a write to a read-only export.
    Perm = 1,
    /// The disk failed.
    Io = 5,
    /// Out of memory.
    NoMem = 12,
    /// The request makes no sense.
    Inval = 22,
    /// No space, or past the end.
    NoSpc = 28,
    /// Too much for one answer.
    Overflow = 75,
    /// Not possible, or not possible fast.
    NotSup = 95,
    /// The server is shutting down.
    Shutdown = 108,
}

impl Errno {
    const ALL: [Self; 8] = [
        Self::Perm,
        Self::Io,
        Self::NoMem,
        Self::Inval,
        Self::NoSpc,
        Self::Overflow,
        Self::NotSup,
        Self::Shutdown,
    ];

    /// What a number on the wire means; numbers that the protocol does not have count as [`Errno::Inval`].
    pub fn from_wire(number: u32) -> Self {
        let known = Self::ALL.into_iter().find(|errno| *errno as u32 == number);
        known.unwrap_or(Self::Inval)
    }

    fn text(self) -> &'static str {
        match self {
            Self::Perm => "not permitted",
            Self::Io => "input/output error",
            Self::NoMem => "out of memory",
            Self::Inval => "invalid request",
            Self::NoSpc => "no space left",
            Self::Overflow => "too large",
            Self::NotSup => "not supported",
            Self::Shutdown => "shutting down",
        }
    }
}

/// A request that failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// What goes over the wire in any case.
    pub errno: Errno,
    /// Text for people; reaches clients with chunked replies only. Keep secrets out of it.
    pub message: String,
}

impl Failure {
    /// A failure with its reason.
    pub fn new(errno: Errno, message: impl Into<String>) -> Self {
        Self {
            errno,
            message: message.into(),
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.errno.text())?;
        if self.message.is_empty() {
            Ok(())
        } else {
            write!(f, ": {}", self.message)
        }
    }
}

impl std::error::Error for Failure {}

impl From<Errno> for Failure {
    fn from(errno: Errno) -> Self {
        Self::new(errno, "")
    }
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        let errno = match error.kind() {
            io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => Errno::Perm,
            io::ErrorKind::StorageFull
            | io::ErrorKind::QuotaExceeded
            | io::ErrorKind::FileTooLarge => Errno::NoSpc,
            io::ErrorKind::OutOfMemory => Errno::NoMem,
            io::ErrorKind::InvalidInput => Errno::Inval,
            io::ErrorKind::Unsupported => Errno::NotSup,
            _ => Errno::Io,
        };
        Self::new(errno, error.to_string())
    }
}

impl From<rustix::io::Errno> for Failure {
    fn from(error: rustix::io::Errno) -> Self {
        io::Error::from(error).into()
    }
}
