//! What a server serves: a disk behind [`Export`], and disks by their names behind [`Exports`].

mod file;
mod memory;
mod named;

pub use file::FileExport;
pub use memory::MemoryExport;
pub use named::Named;

use crate::codec::{BlockSizes, Extents, OptionError, transmission};
use crate::errno::{Errno, Failure};
use std::sync::Arc;

/// Name of the metadata context that says what is allocated and what reads as zeroes.
pub const BASE_ALLOCATION: &str = "base:allocation";

/// What is told to a client about an export when it opens it. It holds for the whole connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExportInfo {
    /// Bytes.
    pub size: u64,
    /// Bits of [`transmission`]: what works. Those that depend on the connection are added by the server.
    pub flags: u16,
    /// Block sizes; the maximum is lowered to what the server takes.
    pub block: BlockSizes,
    /// Text for people; may be empty.
    pub description: String,
}

impl ExportInfo {
    const BLOCK: BlockSizes = BlockSizes {
        minimum: 1,
        preferred: 4096,
        maximum: u32::MAX,
    };

    /// A disk that cannot be written; several connections see the same.
    pub fn read_only(size: u64) -> Self {
        Self {
            size,
            flags: transmission::READ_ONLY
                | transmission::CAN_MULTI_CONN
                | transmission::SEND_CACHE,
            block: Self::BLOCK,
            description: String::new(),
        }
    }

    /// A disk with everything that [`Export`] has, but for `CAN_MULTI_CONN` and `SEND_FAST_ZERO`, which are promises
    /// of the implementation.
    pub fn writable(size: u64) -> Self {
        Self {
            size,
            flags: transmission::SEND_FLUSH
                | transmission::SEND_FUA
                | transmission::SEND_TRIM
                | transmission::SEND_WRITE_ZEROES
                | transmission::SEND_CACHE,
            block: Self::BLOCK,
            description: String::new(),
        }
    }

    /// With more flags.
    #[must_use]
    pub fn with(mut self, flags: u16) -> Self {
        self.flags |= flags;
        self
    }

    /// Whether a flag is set.
    pub fn has(&self, flag: u16) -> bool {
        self.flags & flag != 0
    }
}

/// How zeroes are to be written.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ZeroMode {
    /// Durable on return.
    pub fua: bool,
    /// Allocated: later writes there must not fail for lack of space.
    pub no_hole: bool,
    /// Fail with [`Errno::NotSup`], at once and with nothing changed, rather than be as slow as a write.
    pub fast: bool,
}

/// A disk.
///
/// Calls come from several threads at once. The server checks before each call that the range is within
/// [`ExportInfo::size`] and aligned, that the export is writable, and that the operation is one of its flags.
/// Overlapping calls in flight may take effect in any order, as on a disk. A call that panics is answered with an
/// input/output error.
pub trait Export: Send + Sync {
    /// Size and abilities; asked for once a connection.
    fn info(&self) -> ExportInfo;

    /// Fills `buf` from `offset` on.
    fn read(&self, buf: &mut [u8], offset: u64) -> Result<(), Failure>;

    /// Fills `buf` if that takes no waiting for a disk and no long computation, and answers `true`; answers `false` at
    /// once otherwise. `true` keeps the request on the thread of its connection, which is the fastest way.
    fn read_now(&self, _buf: &mut [u8], _offset: u64) -> Result<bool, Failure> {
        Ok(false)
    }

    /// Writes; with `fua` the data are durable on return. A request of more than 1 MiB comes in several calls, and a
    /// [`Export::flush`] after them if it is to be durable.
    fn write(&self, _data: &[u8], _offset: u64, _fua: bool) -> Result<(), Failure> {
        Err(Errno::Perm.into())
    }

    /// Whether a write without `fua` returns without waiting for a disk, as into the page cache. Such writes stay on the
    /// thread of the connection.
    fn writes_at_once(&self) -> bool {
        false
    }

    /// Makes a range read as zeroes.
    fn write_zeroes(&self, _offset: u64, _len: u64, _mode: ZeroMode) -> Result<(), Failure> {
        Err(Errno::Perm.into())
    }

    /// The contents of a range are of no use to the client; they may become anything.
    fn trim(&self, _offset: u64, _len: u64, _fua: bool) -> Result<(), Failure> {
        Err(Errno::Perm.into())
    }

    /// Makes all writes durable that had been completed on any connection before the call.
    fn flush(&self) -> Result<(), Failure> {
        Ok(())
    }

    /// The client will read a range soon. A hint; may return before anything is done.
    fn cache(&self, _offset: u64, _len: u64) -> Result<(), Failure> {
        Ok(())
    }

    /// The metadata contexts there are, most useful first.
    fn contexts(&self) -> Vec<String> {
        vec![BASE_ALLOCATION.to_owned()]
    }

    /// Pushes what a context, one of [`Export::contexts`], says of the range of `len` bytes at `offset`, from its start on,
    /// until [`Extents::push`] answers `false`. May stop early after the first; what is left is asked for again. If
    /// nothing is pushed, the range has the flags 0, which in `base:allocation` says "data".
    fn block_status(
        &self,
        _context: &str,
        _offset: u64,
        _len: u64,
        _extents: &mut Extents,
    ) -> Result<(), Failure> {
        Ok(())
    }
}

/// Who is connected.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Peer {
    /// Address, or `unix`.
    pub address: String,
    /// Whether the connection is encrypted.
    pub tls: bool,
    /// The client's own certificate in DER, which was checked; `None` without mutual authentication.
    pub certificate: Option<Vec<u8>>,
}

/// An export in a list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listed {
    /// What a client asks for.
    pub name: String,
    /// Text for people; may be empty.
    pub description: String,
}

/// Why an export cannot be opened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OpenError {
    /// What goes over the wire.
    pub kind: OptionError,
    /// Text for people; reaches the client.
    pub message: String,
}

impl OpenError {
    /// There is no export of that name.
    pub fn unknown(name: &str) -> Self {
        Self {
            kind: OptionError::Unknown,
            message: format!("there is no export {name:?}"),
        }
    }

    /// There is, but not for this client, or not now.
    pub fn refused(message: impl Into<String>) -> Self {
        Self {
            kind: OptionError::Policy,
            message: message.into(),
        }
    }
}

/// Disks by their names. Names come from untrusted peers: any UTF-8 of up to 4096 bytes without NUL.
pub trait Exports: Send + Sync {
    /// What there is for this peer.
    fn list(&self, peer: &Peer) -> Vec<Listed>;

    /// The export of that name; the empty name is the default export. A connection holds on to the value until its last
    /// request is done.
    fn open(&self, name: &str, peer: &Peer) -> Result<Arc<dyn Export>, OpenError>;

    /// The same for a mere question: only [`Export::info`] and [`Export::contexts`] are called, and it is dropped at once.
    fn ask(&self, name: &str, peer: &Peer) -> Result<Arc<dyn Export>, OpenError> {
        self.open(name, peer)
    }
}
