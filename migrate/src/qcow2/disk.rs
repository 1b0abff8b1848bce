//! A disk or VM state of an image as a file that is read.

use super::chain::ChainMap;
use super::{Image, Kind, Mapped, State};
use crate::read_only::Bytes;
use std::ops::Range;
use stillpoint_store::Result;
use stillpoint_store::disk::Extent;

/// Neighbouring ranges are looked at as one extent up to here: the engine asks again from there.
const EXTENT_BYTES: u64 = 64 << 20;

/// Which bytes of an image.
#[derive(Debug, Clone)]
pub(super) enum What {
    /// The disk of a state of the image itself.
    Disk(State),
    /// Its VM state.
    VmState(State),
    /// What the chain makes from a link on.
    Link(usize),
}

/// See the module.
pub(super) struct Part<'a> {
    pub image: &'a Image,
    pub what: What,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Sort {
    Hole,
    Zeros,
    Data,
}

impl Part<'_> {
    fn size(&self) -> u64 {
        match &self.what {
            What::Disk(state) => state.size(),
            What::VmState(state) => state.vm_state_size(),
            What::Link(link) => self.image.links()[*link].size(),
        }
    }

    fn map(&self, range: Range<u64>) -> ChainMap<'_> {
        match &self.what {
            What::Disk(state) => self.image.map(state, range),
            What::VmState(state) => self.image.map_vm_state(state, range),
            What::Link(link) => self.image.map_link(*link, range),
        }
    }

    fn sort(mapped: &Mapped) -> Sort {
        match mapped.kind {
            Kind::Unallocated => Sort::Hole,
            Kind::Zero => Sort::Zeros,
            Kind::Data { .. } | Kind::Compressed { .. } => Sort::Data,
        }
    }

    /// What is at `offset`, and up to where all is of that sort as far as was looked.
    fn run(&self, offset: u64) -> Result<Option<(Sort, u64)>> {
        let mut found: Option<(Sort, u64)> = None;
        for mapped in self.map(offset..self.size()) {
            let mapped = mapped?.mapped;
            let sort = Self::sort(&mapped);
            if found.is_some_and(|(first, end)| sort != first || end - offset >= EXTENT_BYTES) {
                break;
            }
            found = Some((sort, mapped.end()));
        }
        Ok(found)
    }
}

impl Bytes for Part<'_> {
    fn len(&self) -> Result<u64> {
        Ok(self.size())
    }

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> Result<usize> {
        let end = offset.saturating_add(buf.len() as u64).min(self.size());
        let n = end.saturating_sub(offset) as usize;
        let map = self.map(offset..end.max(offset));
        self.image.read_map(map, offset, &mut buf[..n])?;
        Ok(n)
    }

    fn extent(&self, offset: u64) -> Result<Extent> {
        let run = self.run(offset)?;
        let (sort, end) = run.unwrap_or((Sort::Hole, offset));
        Ok(Extent {
            start: offset,
            end,
            data: sort != Sort::Hole,
        })
    }

    fn is_zeros(&self, extent: &Extent) -> Result<bool> {
        let first = self.map(extent.start..extent.end).next().transpose()?;
        // An extent has one sort all through.
        Ok(first.is_some_and(|m| Self::sort(&m.mapped) == Sort::Zeros))
    }
}
