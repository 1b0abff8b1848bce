//! Errors as QMP has them: a class that few programs look at, and a text that all of them show.

use serde_json::{Value, json};
use stillpoint_store::{Error, ErrorKind};

/// Class of an error.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Class {
    /// Nearly everything.
    GenericError,
    /// No such command, or not now.
    CommandNotFound,
    /// No such device; since 2.8 only in some commands.
    DeviceNotFound,
}

impl Class {
    fn name(self) -> &'static str {
        match self {
            Self::GenericError => "GenericError",
            Self::CommandNotFound => "CommandNotFound",
            Self::DeviceNotFound => "DeviceNotFound",
        }
    }
}

/// A command that failed.
#[derive(Debug)]
pub struct QmpError {
    class: Class,
    desc: String,
    /// What the store said, where it did.
    kind: Option<ErrorKind>,
    hint: Option<String>,
}

impl QmpError {
    /// A `GenericError`.
    pub fn new(desc: impl Into<String>) -> Self {
        Self::of(Class::GenericError, desc)
    }

    /// An error of a class.
    pub fn of(class: Class, desc: impl Into<String>) -> Self {
        Self {
            class,
            desc: desc.into(),
            kind: None,
            hint: None,
        }
    }

    /// The same text after what was being done.
    #[must_use]
    pub fn after(mut self, doing: &str) -> Self {
        self.desc = format!("{doing}{}", self.desc);
        self
    }

    /// Its text.
    pub fn desc(&self) -> &str {
        &self.desc
    }

    /// The object under `error`. What clients of QEMU do not know is under a name of our own.
    pub fn to_json(&self) -> Value {
        let mut error = json!({ "class": self.class.name(), "desc": self.desc });
        if let Some(kind) = self.kind {
            error["x-stillpoint"] = json!({ "kind": kind_name(kind), "hint": self.hint });
        }
        error
    }
}

impl From<Error> for QmpError {
    fn from(error: Error) -> Self {
        Self {
            class: Class::GenericError,
            desc: crate::nbd::chain(&error),
            kind: Some(error.kind()),
            hint: error.what_next().map(ToOwned::to_owned),
        }
    }
}

/// Kinds by their names on the wire.
const KINDS: [(ErrorKind, &str); 13] = [
    (ErrorKind::Io, "io"),
    (ErrorKind::Corrupt, "corrupt"),
    (ErrorKind::NotFound, "not_found"),
    (ErrorKind::AlreadyExists, "already_exists"),
    (ErrorKind::Busy, "busy"),
    (ErrorKind::Refused, "refused"),
    (ErrorKind::InvalidInput, "invalid_input"),
    (ErrorKind::Unsupported, "unsupported"),
    (ErrorKind::LimitExceeded, "limit_exceeded"),
    (ErrorKind::NoSpace, "no_space"),
    (ErrorKind::ReadOnly, "read_only"),
    (ErrorKind::Poisoned, "poisoned"),
    (ErrorKind::Cancelled, "cancelled"),
];

fn kind_name(kind: ErrorKind) -> &'static str {
    let found = KINDS.iter().find(|row| row.0 == kind);
    found.map_or("other", |row| row.1)
}

/// The kind of that name.
pub fn kind_named(name: &str) -> Option<ErrorKind> {
    KINDS.iter().find(|row| row.1 == name).map(|row| row.0)
}
