//! What stands behind a node: QEMU's `BlockDriver`, as far as snapshots go.

use crate::compat::eras::Flags;
use crate::compat::errno;
use crate::compat::failure::{Failure, QemuError};
use crate::compat::info::QemuSnapshotInfo;
use stillpoint_store::Error;

/// A snapshot operation that a driver may lack; then its node's fallback child is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "named like the methods")]
pub enum Op {
    Create,
    Goto,
    Delete,
    List,
    LoadTmp,
}

/// Why a driver's operation failed.
#[derive(Debug)]
pub struct DriverError {
    /// Positive.
    pub errno: i32,
    /// Text for the Error object, from drivers that set one themselves.
    pub message: Option<Vec<u8>>,
    /// What the driver wrote to standard error.
    pub report: Option<Vec<u8>>,
    /// What the store said.
    pub cause: Option<Error>,
}

/// Result of a driver's operation.
pub type DriverResult<T> = Result<T, DriverError>;

impl DriverError {
    /// An error number, positive, and nothing else.
    pub fn errno(errno: i32) -> Self {
        Self {
            errno,
            message: None,
            report: None,
            cause: None,
        }
    }

    /// A number and a text for the Error object.
    pub fn new(errno: i32, message: impl Into<Vec<u8>>) -> Self {
        Self {
            message: Some(message.into()),
            ..Self::errno(errno)
        }
    }

    /// What a C caller sees, with its own text in the Error object or none.
    pub(super) fn into_failure(self) -> Failure {
        let hint = self.hint();
        let error = self.message.map(|message| QemuError {
            hint,
            ..QemuError::new(message)
        });
        Failure {
            error,
            cause: self.cause,
            ..Failure::errno(self.errno)
        }
    }

    /// What a C caller sees, with `doing` and the errno's text in the Error object.
    pub(super) fn into_failure_of(self, doing: &str) -> Failure {
        let hint = self.hint();
        let text = format!("{doing}: {}", errno::text(self.errno));
        let error = QemuError {
            hint,
            ..QemuError::new(text)
        };
        Failure {
            cause: self.cause,
            ..Failure::errno(self.errno).with(error)
        }
    }

    fn hint(&self) -> Option<String> {
        let hint = self.cause.as_ref().and_then(Error::what_next);
        hint.map(ToOwned::to_owned)
    }
}

impl From<Error> for DriverError {
    fn from(cause: Error) -> Self {
        let errno = errno::of_medium(&cause);
        Self {
            cause: Some(cause),
            ..Self::errno(errno)
        }
    }
}

/// A driver. Every operation is told how the release behaves. What it lacks it need not write: see `has`.
pub trait Driver: Send {
    /// The format's name, for messages.
    fn format_name(&self) -> &str;

    /// Whether it has the operation; by default none.
    fn has(&self, _op: Op) -> bool {
        false
    }

    /// Makes a snapshot of the disk and, if `sn.vm_state_size` is not 0, of that much of the active VM state. Writes
    /// `sn.id_str`. Durable when this returns.
    fn create(&mut self, _flags: &Flags, _sn: &mut QemuSnapshotInfo) -> DriverResult<()> {
        Err(DriverError::errno(errno::ENOTSUP))
    }

    /// Makes disk and active VM state those of a snapshot, resolved as id and then as name. Durable when this returns.
    fn goto(&mut self, _flags: &Flags, _id_or_name: &[u8]) -> DriverResult<()> {
        Err(DriverError::errno(errno::ENOTSUP))
    }

    /// Deletes one snapshot: the first that has all that is given. Durable when this returns.
    fn delete(
        &mut self,
        _flags: &Flags,
        _id: Option<&[u8]>,
        _name: Option<&[u8]>,
    ) -> DriverResult<()> {
        Err(DriverError::errno(errno::ENOTSUP))
    }

    /// All snapshots in the order of the table.
    fn list(&mut self, _flags: &Flags) -> DriverResult<Vec<QemuSnapshotInfo>> {
        Err(DriverError::errno(errno::ENOTSUP))
    }

    /// From here on reads are of a snapshot. The disk's size stays as it is.
    fn load_tmp(
        &mut self,
        _flags: &Flags,
        _id: Option<&[u8]>,
        _name: Option<&[u8]>,
    ) -> DriverResult<()> {
        Err(DriverError::errno(errno::ENOTSUP))
    }

    /// Writes active VM state at a byte position. It is durable as part of the next snapshot.
    fn save_vmstate(&mut self, _at: u64, _bytes: &[u8]) -> DriverResult<()> {
        Err(DriverError::errno(errno::ENOTSUP))
    }

    /// Reads active VM state from a byte position; what was never written is zeros.
    fn load_vmstate(&mut self, _at: u64, _into: &mut [u8]) -> DriverResult<()> {
        Err(DriverError::errno(errno::ENOTSUP))
    }

    /// Bytes of active VM state.
    fn vmstate_len(&mut self) -> DriverResult<u64> {
        Err(DriverError::errno(errno::ENOTSUP))
    }

    /// Bytes of the disk.
    fn size(&mut self) -> DriverResult<u64>;

    /// Reads the disk, or the snapshot that `load_tmp` chose; what lies beyond its end is zeros.
    fn read_at(&mut self, at: u64, into: &mut [u8]) -> DriverResult<()>;

    /// A goto on the child below is about to change everything.
    fn close(&mut self) {}

    /// Opens again after `close`. On an error the node has no driver any more.
    fn reopen(&mut self) -> DriverResult<()> {
        Ok(())
    }
}
