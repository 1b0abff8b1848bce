//! A disk with earlier states of itself, in a format that the engine does not know: what whoever reads that format brings.

use crate::disk::DiskFile;
use crate::error::Result;
use crate::world::Moment;
use std::ops::Range;

/// Byte ranges in order, apart from each other.
pub type Ranges<'a> = Box<dyn Iterator<Item = Result<Range<u64>>> + 'a>;

/// An earlier state, byte for byte as its format has it: any id, any name, any number of equal ones.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Earlier {
    /// Its id; empty where its format has none.
    pub id: Vec<u8>,
    /// Its name.
    pub name: Vec<u8>,
    /// When it was made.
    pub date: Moment,
    /// VM clock since boot, nanoseconds.
    pub vm_clock_nsec: u64,
    /// Instruction count, where the VM counted.
    pub icount: Option<u64>,
    /// Extra data that nobody here knows.
    pub extra: Vec<u8>,
}

/// See the module. States have numbers: those of `earlier` from 0 on, the oldest first, and behind them the present one.
/// Files that are given are only read.
pub trait History: Sync {
    /// The earlier states, oldest first.
    fn earlier(&self) -> &[Earlier];
    /// The disk of a state. Its bytes do not change; runs of zeros that are known without reading are extents of their own.
    fn disk(&self, state: usize) -> Result<Box<dyn DiskFile + '_>>;
    /// The VM state of an earlier state, if it has some.
    fn vm_state(&self, state: usize) -> Result<Option<Box<dyn DiskFile + '_>>>;
    /// The state before this one that it shares most with; always one of a smaller number.
    fn base(&self, state: usize) -> Result<Option<usize>>;
    /// Where the disk of `state` may differ from that of `base`. What is left out is the same, or past the end of one of the two.
    fn changes(&self, state: usize, base: usize) -> Result<Ranges<'_>>;
    /// `Busy` if anybody has changed what was read.
    fn check_unchanged(&self) -> Result<()>;
}
