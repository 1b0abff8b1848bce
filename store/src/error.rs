//! The engine's one error: a kind to act on, a context to read, a source to dig in.
//!
//! Rules: a kind exists only where a caller would act differently; whoever meets the outside attaches operation and
//! path once; causes are never repeated in the outer text but reached through `source()`.

use std::borrow::Cow;
use std::fmt;

/// Result of the engine.
pub type Result<T> = std::result::Result<T, Error>;

/// What a caller can act on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum ErrorKind {
    /// The operating system refused or failed.
    Io,
    /// Stored bytes are not what was stored.
    Corrupt,
    /// No such store, device, snapshot, object or file.
    NotFound,
    /// The name is taken.
    AlreadyExists,
    /// Somebody else holds it, or it changed meanwhile; later may work.
    Busy,
    /// What is there forbids it: something else must be done first, which the hint names. Waiting does not help.
    Refused,
    /// The caller's input cannot be meant.
    InvalidInput,
    /// A newer format, or something that this version does not do.
    Unsupported,
    /// A declared size is over its limit.
    LimitExceeded,
    /// The disk is full.
    NoSpace,
    /// The medium or folder cannot be written.
    ReadOnly,
    /// An earlier write or fsync failed: this handle writes no more.
    Poisoned,
    /// The caller asked to stop.
    Cancelled,
}

/// See the module.
pub struct Error(Box<Inner>);

struct Inner {
    kind: ErrorKind,
    doing: Cow<'static, str>,
    path: Option<String>,
    offset: Option<u64>,
    detail: Option<String>,
    hint: Option<Cow<'static, str>>,
    source: Option<Box<dyn std::error::Error + Send + Sync>>,
}

impl Error {
    /// An error of `kind` met while `doing` something ("reading the pack table").
    pub fn new(kind: ErrorKind, doing: impl Into<Cow<'static, str>>) -> Self {
        Self(Box::new(Inner {
            kind,
            doing: doing.into(),
            path: None,
            offset: None,
            detail: None,
            hint: None,
            source: None,
        }))
    }

    /// An error of the operating system, its kind taken from errno.
    pub fn io(doing: impl Into<Cow<'static, str>>, source: std::io::Error) -> Self {
        use std::io::ErrorKind as Io;
        let kind = match source.kind() {
            Io::NotFound => ErrorKind::NotFound,
            Io::AlreadyExists => ErrorKind::AlreadyExists,
            Io::StorageFull | Io::QuotaExceeded | Io::FileTooLarge => ErrorKind::NoSpace,
            Io::ReadOnlyFilesystem => ErrorKind::ReadOnly,
            Io::ResourceBusy | Io::WouldBlock => ErrorKind::Busy,
            _ => ErrorKind::Io,
        };
        Self::new(kind, doing).source(source)
    }

    /// Damage: `detail` says what is wrong.
    pub fn corrupt(doing: impl Into<Cow<'static, str>>, detail: impl Into<String>) -> Self {
        Self::new(ErrorKind::Corrupt, doing).detail(detail)
    }

    /// Input that cannot be meant: `detail` says why.
    pub fn invalid(doing: impl Into<Cow<'static, str>>, detail: impl Into<String>) -> Self {
        Self::new(ErrorKind::InvalidInput, doing).detail(detail)
    }

    /// Names the file, object or device.
    #[must_use]
    pub fn at(mut self, path: impl fmt::Display) -> Self {
        self.0.path.get_or_insert_with(|| path.to_string());
        self
    }

    /// Says whose it is, before all else.
    #[must_use]
    pub fn of(mut self, whose: impl fmt::Display) -> Self {
        self.0.doing = format!("{whose}: {}", self.0.doing).into();
        self
    }

    /// Names the byte offset.
    #[must_use]
    pub fn offset(mut self, offset: u64) -> Self {
        self.0.offset = Some(offset);
        self
    }

    /// Says what is wrong, in one sentence part.
    #[must_use]
    pub fn detail(mut self, detail: impl Into<String>) -> Self {
        self.0.detail = Some(detail.into());
        self
    }

    /// Says what the user can do next.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<Cow<'static, str>>) -> Self {
        self.0.hint = Some(hint.into());
        self
    }

    /// Attaches the cause.
    #[must_use]
    pub fn source(mut self, source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        self.0.source = Some(source.into());
        self
    }

    /// The kind.
    pub fn kind(&self) -> ErrorKind {
        self.0.kind
    }

    /// What the user can do next, where there is something.
    pub fn what_next(&self) -> Option<&str> {
        self.0.hint.as_deref()
    }

    /// The file, object or device.
    pub fn path(&self) -> Option<&str> {
        self.0.path.as_deref()
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.doing)?;
        if let Some(path) = &self.0.path {
            write!(f, " {path}")?;
        }
        if let Some(offset) = self.0.offset {
            write!(f, " at byte {offset}")?;
        }
        if let Some(detail) = &self.0.detail {
            write!(f, ": {detail}")?;
        }
        Ok(())
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}: {self}", self.0.kind)?;
        match &self.0.source {
            Some(source) => write!(f, ": {source}"),
            None => Ok(()),
        }
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.0.source.as_deref().map(|e| e as _)
    }
}
