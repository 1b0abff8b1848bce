//! What an import would read, without reading it.

use crate::system::System;
use std::ops::Range;
use stillpoint_store::Result;
use stillpoint_store::disk::DiskFile;
use stillpoint_store::history::History;

/// What is known of a state before it is read.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Estimate {
    /// Bytes of the disk.
    pub size: u64,
    /// Bytes that would be read of it: those that are data, and not the same in the state that it is based on.
    pub read: u64,
    /// Bytes of its VM state.
    pub vm_state: u64,
}

impl System {
    /// One a state, the present one last. The bytes that the store would grow by are no more than those read, with what
    /// compression and clusters that are there already save.
    pub fn estimate_history(&self, history: &dyn History) -> Result<Vec<Estimate>> {
        let count = history.earlier().len();
        (0..=count).map(|state| estimate(history, state)).collect()
    }
}

fn estimate(history: &dyn History, state: usize) -> Result<Estimate> {
    let file = history.disk(state)?;
    let size = file.len()?;
    let mut read = 0;
    match history.base(state)? {
        None => read += data_in(&*file, 0..size)?,
        Some(base) => {
            for range in history.changes(state, base)? {
                read += data_in(&*file, range?)?;
            }
        }
    }
    let vm_state = match history.vm_state(state)? {
        Some(file) => file.len()?,
        None => 0,
    };
    Ok(Estimate {
        size,
        read,
        vm_state,
    })
}

fn data_in(file: &dyn DiskFile, range: Range<u64>) -> Result<u64> {
    let (mut at, mut bytes) = (range.start, 0);
    while at < range.end {
        let extent = file.extent(at)?;
        if extent.end <= at {
            break;
        }
        let end = extent.end.min(range.end);
        if extent.data && !file.is_zeros(&extent)? {
            bytes += end - at;
        }
        at = end;
    }
    Ok(bytes)
}
