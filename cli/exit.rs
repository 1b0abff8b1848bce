//! Exit codes: the one table from what went wrong to what a script sees.

use std::error::Error as _;
use stillpoint_store::{Error, ErrorKind};

/// How the process ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// Done as asked.
    Done,
    /// Failed for a reason that has no code of its own.
    Failed,
    /// The command line or a name in it cannot be meant.
    Usage,
    /// No such device or snapshot.
    NotFound,
    /// Stored bytes are not what was stored.
    Corrupt,
    /// Somebody else holds it; later may work.
    Busy,
    /// Stopped by a signal.
    Cancelled,
}

impl Exit {
    /// What the shell sees.
    pub fn code(self) -> u8 {
        match self {
            Self::Done => 0,
            Self::Failed => 1,
            Self::Usage => 2,
            Self::NotFound => 3,
            Self::Corrupt => 4,
            Self::Busy => 5,
            Self::Cancelled => 130,
        }
    }
}

/// Kind, its name in JSON, exit code. A kind that is not here fails with 1.
const TABLE: [(ErrorKind, &str, Exit); 13] = [
    (ErrorKind::Io, "io", Exit::Failed),
    (ErrorKind::Corrupt, "corrupt", Exit::Corrupt),
    (ErrorKind::NotFound, "not_found", Exit::NotFound),
    (ErrorKind::AlreadyExists, "already_exists", Exit::Failed),
    (ErrorKind::Busy, "busy", Exit::Busy),
    (ErrorKind::Refused, "refused", Exit::Failed),
    (ErrorKind::InvalidInput, "invalid_input", Exit::Usage),
    (ErrorKind::Unsupported, "unsupported", Exit::Failed),
    (ErrorKind::LimitExceeded, "limit_exceeded", Exit::Failed),
    (ErrorKind::NoSpace, "no_space", Exit::Failed),
    (ErrorKind::ReadOnly, "read_only", Exit::Failed),
    (ErrorKind::Poisoned, "poisoned", Exit::Failed),
    (ErrorKind::Cancelled, "cancelled", Exit::Cancelled),
];

/// The kind's name in JSON.
pub fn kind_name(kind: ErrorKind) -> &'static str {
    TABLE
        .iter()
        .find(|row| row.0 == kind)
        .map_or("other", |row| row.1)
}

/// How the process ends on `error`. A missing *file*, which the operating system reported, is not a missing snapshot.
pub fn of(error: &Error) -> Exit {
    let from_system = error
        .source()
        .is_some_and(<dyn std::error::Error>::is::<std::io::Error>);
    if error.kind() == ErrorKind::NotFound && from_system {
        return Exit::Failed;
    }
    TABLE
        .iter()
        .find(|row| row.0 == error.kind())
        .map_or(Exit::Failed, |row| row.2)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scripts_can_tell_the_documented_kinds_apart() {
        let code = |kind| of(&Error::new(kind, "doing")).code();
        assert_eq!(code(ErrorKind::Io), 1);
        assert_eq!(code(ErrorKind::InvalidInput), 2);
        assert_eq!(code(ErrorKind::NotFound), 3);
        assert_eq!(code(ErrorKind::Corrupt), 4);
        assert_eq!(code(ErrorKind::Busy), 5);
        assert_eq!(code(ErrorKind::Cancelled), 130);
    }

    #[test]
    fn a_missing_file_is_not_a_missing_snapshot() {
        let missing = std::io::Error::from(std::io::ErrorKind::NotFound);
        assert_eq!(of(&Error::io("opening the image", missing)), Exit::Failed);
    }

    #[test]
    fn no_kind_stands_in_the_table_twice() {
        for (at, row) in TABLE.iter().enumerate() {
            assert!(
                TABLE[at + 1..].iter().all(|r| r.0 != row.0 && r.1 != row.1),
                "{}",
                row.1
            );
        }
    }
}
