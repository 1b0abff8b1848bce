//! What was imported read back and compared with where it came from.

use crate::history::ImportedHistory;
use crate::read::VIEW_CACHE_BYTES;
use crate::system::System;
use rayon::prelude::*;
use std::sync::Arc;
use stillpoint_store::disk::DiskFile;
use stillpoint_store::format::entry::Content;
use stillpoint_store::history::History;
use stillpoint_store::ops::view::Reader;
use stillpoint_store::progress::Progress;
use stillpoint_store::{Error, Result};

/// Bytes that one task compares.
const PIECE_BYTES: u64 = 1 << 20;

impl System {
    /// Reads every state of a history out of the store, VM state too, and compares it with what the image says. `Corrupt` names
    /// the state and the first byte that differs.
    pub fn verify_history(
        &self,
        made: &ImportedHistory,
        history: &dyn History,
        progress: &Progress,
    ) -> Result<()> {
        let reader = self.store.reader(VIEW_CACHE_BYTES)?;
        let count = history.earlier().len();
        for state in 0..=count {
            let snapshot = made.snapshots.get(state);
            let name = snapshot.map_or("the present state", |s| &s.name);
            let content = snapshot.map_or(made.head, |s| s.content);
            compare(&reader, content, &*history.disk(state)?, progress)
                .map_err(|e| e.of(format!("the disk of {name}")))?;
            let vm_state = snapshot.and_then(|s| s.vm_state).filter(|_| state < count);
            if let Some((content, file)) = vm_state.zip(history.vm_state(state)?) {
                compare(&reader, content.content, &*file, progress)
                    .map_err(|e| e.of(format!("the VM state of {name}")))?;
            }
        }
        history.check_unchanged()
    }
}

fn compare(
    reader: &Arc<Reader<'_>>,
    content: Content,
    file: &dyn DiskFile,
    progress: &Progress,
) -> Result<()> {
    const DOING: &str = "comparing what was imported with the image";
    let view = reader.view(content)?;
    let size = file.len()?;
    if view.size() != size {
        let why = format!("the store has {} bytes, the image {size}", view.size());
        return Err(Error::corrupt(DOING, why));
    }
    Progress::add(&progress.bytes_total, size);
    let pieces = size.div_ceil(PIECE_BYTES);
    let differs = (0..pieces).into_par_iter().map_init(
        || (vec![0; PIECE_BYTES as usize], vec![0; PIECE_BYTES as usize]),
        |(a, b), n| {
            progress.check()?;
            let at = n * PIECE_BYTES;
            let len = (size - at).min(PIECE_BYTES) as usize;
            // A run of zeros in both needs no look at its bytes.
            let empty = file.extent(at)?;
            let whole_hole = !empty.data && empty.end >= at + len as u64;
            if whole_hole {
                a[..len].fill(0);
            } else if file.read_at(at, &mut a[..len])? < len {
                return Ok(Some(at));
            }
            view.read_at(at, &mut b[..len])?;
            Progress::add(&progress.bytes_done, len as u64);
            let first = a[..len].iter().zip(&b[..len]).position(|(a, b)| a != b);
            Ok(first
                .filter(|_| a[..len] != b[..len])
                .map(|i| at + i as u64))
        },
    );
    let first = differs.try_reduce(|| None, |a, b| Ok(a.into_iter().chain(b).min()))?;
    match first {
        None => Ok(()),
        Some(at) => Err(Error::corrupt(DOING, "they differ")
            .offset(at)
            .hint("what was imported is in the store: delete it, check the memory of this host, and import again")),
    }
}
