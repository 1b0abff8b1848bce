//! What a call that failed gave its C caller: a number, perhaps an Error object, perhaps the node.

use crate::compat::errno;
use crate::compat::graph::NodeId;
use crate::compat::release::Release;
use std::fmt;

/// QEMU's Error object, of class `GenericError` as all of this API are. The text is bytes, since names in it need not be
/// UTF-8.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QemuError {
    /// Its text, without a line break at the end.
    pub message: Vec<u8>,
    /// What the user can do next, where the store knows; QEMU's hints are printed on lines of their own.
    pub hint: Option<String>,
}

impl QemuError {
    /// One without a hint.
    pub fn new(message: impl Into<Vec<u8>>) -> Self {
        Self {
            message: message.into(),
            hint: None,
        }
    }

    /// The same with `text` before it.
    #[must_use]
    pub(crate) fn prefixed(mut self, text: &[&[u8]]) -> Self {
        let mut message = text.concat();
        message.append(&mut self.message);
        self.message = message;
        self
    }
}

impl fmt::Display for QemuError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&String::from_utf8_lossy(&self.message))
    }
}

/// What a C caller saw of a call that failed.
pub struct Failure {
    /// What the function returned: a negative errno, or -1 where the release returns that; 0 where it returns false.
    pub ret: i32,
    /// The Error object, where the release sets one.
    pub error: Option<QemuError>,
    /// What `*first_bad_bs` points to, in the releases and functions that have it.
    pub first_bad: Option<NodeId>,
    /// What the store said, which no C caller sees.
    pub cause: Option<stillpoint_store::Error>,
}

impl Failure {
    /// A negative errno alone; `errno` is positive.
    pub(crate) fn errno(errno: i32) -> Self {
        Self {
            ret: -errno,
            error: None,
            first_bad: None,
            cause: None,
        }
    }

    /// An errno and an Error object.
    pub(crate) fn new(errno: i32, message: impl Into<Vec<u8>>) -> Self {
        Self::errno(errno).with(QemuError::new(message))
    }

    /// The release does not have the function: what the linker would have said.
    pub(crate) fn absent(release: Release, function: &str) -> Self {
        Self::new(errno::ENOSYS, format!("QEMU {release} has no {function}"))
    }

    #[must_use]
    pub(crate) fn with(mut self, error: QemuError) -> Self {
        self.error = Some(error);
        self
    }

    /// Without what the release's function has no parameter for.
    #[must_use]
    pub(crate) fn without_error(mut self) -> Self {
        self.error = None;
        self
    }

    #[must_use]
    pub(crate) fn on(mut self, node: NodeId) -> Self {
        self.first_bad = Some(node);
        self
    }

    /// The errno, positive; of a -1 there is none.
    pub fn errno_text(&self) -> String {
        errno::text(-self.ret)
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.error {
            Some(error) => error.fmt(f),
            None => f.write_str(&self.errno_text()),
        }
    }
}

impl fmt::Debug for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({self}", self.ret)?;
        if let Some(node) = self.first_bad {
            write!(f, ", at {node:?}")?;
        }
        match &self.cause {
            Some(cause) => write!(f, "): {cause:?}"),
            None => write!(f, ")"),
        }
    }
}

impl std::error::Error for Failure {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.cause.as_ref().map(|e| e as _)
    }
}
