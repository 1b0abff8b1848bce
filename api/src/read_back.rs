//! What is in the store compared with an image, after an import or an export.

use crate::create::CreatedDevice;
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

const DOING: &str = "comparing the image with the store";
const SECTOR: u64 = 512;
/// Bytes that one task compares.
const PIECE_BYTES: u64 = 1 << 20;

/// A state in the store, to be compared with one of a history.
#[derive(Debug, Clone)]
pub struct Kept {
    /// What it is called in messages.
    pub name: String,
    /// The disk.
    pub disk: Content,
    /// The VM state.
    pub vm_state: Option<Content>,
}

impl System {
    /// Reads states out of the store, VM state too, and compares each with that of a history, all of which are there: the present
    /// one is the last. `Corrupt` names the state and the first byte that differs.
    pub fn compare_history(
        &self,
        kept: &[Kept],
        history: &dyn History,
        progress: &Progress,
    ) -> Result<()> {
        let count = history.earlier().len();
        if kept.len() != count + 1 {
            let why = format!("{} states are there, not {}", count + 1, kept.len());
            return Err(Error::corrupt(DOING, why));
        }
        let reader = self.store.reader(VIEW_CACHE_BYTES)?;
        for (state, kept) in kept.iter().enumerate() {
            let name = &kept.name;
            compare(&reader, kept.disk, &*history.disk(state)?, progress)
                .map_err(|e| e.of(format!("the disk of {name}")))?;
            match (kept.vm_state, history.vm_state(state)?) {
                (None, None) => {}
                (Some(content), Some(file)) => compare(&reader, content, &*file, progress)
                    .map_err(|e| e.of(format!("the VM state of {name}")))?,
                _ => {
                    let why = "one of the two has no VM state";
                    return Err(Error::corrupt(DOING, why).of(name));
                }
            }
        }
        history.check_unchanged()
    }
}

impl ImportedHistory {
    /// The states, for `System::compare_history`.
    pub fn kept(&self, history: &dyn History) -> Vec<Kept> {
        let earlier = self.snapshots.iter().take(history.earlier().len());
        let one = |s: &CreatedDevice| Kept {
            name: s.name.clone(),
            disk: s.content,
            vm_state: s.vm_state.map(|vm| vm.content),
        };
        let present = Kept {
            name: "the present state".into(),
            disk: self.head,
            vm_state: None,
        };
        earlier.map(one).chain([present]).collect()
    }
}

fn compare(
    reader: &Arc<Reader<'_>>,
    content: Content,
    file: &dyn DiskFile,
    progress: &Progress,
) -> Result<()> {
    let view = reader.view(content)?;
    let size = file.len()?;
    // Formats that count in sectors end with a whole one; what is past the end is to be zeros.
    if view.size() > size || size - view.size() >= SECTOR {
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
            if file.read_at(at, &mut a[..len])? < len {
                return Ok(Some(at));
            }
            let there = view.read_at(at, &mut b[..len])?;
            b[there..len].fill(0);
            Progress::add(&progress.bytes_done, len as u64);
            if a[..len] == b[..len] {
                return Ok(None);
            }
            let first = a.iter().zip(&*b).position(|(a, b)| a != b);
            Ok(first.map(|i| at + i as u64))
        },
    );
    let first = differs.try_reduce(|| None, |a, b| Ok(a.into_iter().chain(b).min()))?;
    match first {
        None => Ok(()),
        Some(at) => Err(Error::corrupt(DOING, "they differ").offset(at).hint(
            "do not trust either before `still verify` and `qemu-img check` have looked at both",
        )),
    }
}
