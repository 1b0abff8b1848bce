//! What a caller brings: the ranges of each state, and the bytes behind them.

use stillpoint_store::Result;

/// Names some bytes: equal keys are equal bytes. A hash, or a place that does not change.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Key(pub [u8; 32]);

/// What is to be written of an image.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// The disk in its active state.
    Active,
    /// The disk of a snapshot, by its place in the draft.
    Disk(usize),
    /// The VM state of a snapshot.
    VmState(usize),
}

/// What is in a piece.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Content {
    /// Nothing was ever written; reads as zeros.
    Hole,
    /// Zeros.
    Zero,
    /// Bytes `offset` and following of what `key` names.
    Data {
        /// The name.
        key: Key,
        /// First byte of it.
        offset: u64,
    },
}

/// A range of a disk or of VM state.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Piece {
    /// First byte.
    pub start: u64,
    /// Bytes.
    pub len: u64,
    /// What is in it.
    pub content: Content,
}

/// Pieces in order. What they leave out are holes.
pub type Pieces<'a> = Box<dyn Iterator<Item = Result<Piece>> + 'a>;

/// See the module. Ranges of all parts are taken side by side, each once.
pub trait Source: Sync {
    /// The pieces of a part, none past its end.
    fn pieces(&self, part: Part) -> Result<Pieces<'_>>;
    /// Bytes of what a key names, from `offset` on. Called from many threads; once for each cluster of the image that is stored.
    fn read(&self, key: &Key, offset: u64, buf: &mut [u8]) -> Result<()>;
    /// Whether these are bytes `offset` and following of what a key names, if that can be told without reading it. Asked of what
    /// a writer that was cut off has left.
    fn is(&self, _key: &Key, _offset: u64, _bytes: &[u8]) -> bool {
        false
    }
}
