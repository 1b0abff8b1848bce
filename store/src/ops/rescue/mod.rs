//! What can be saved from a damaged store: no index, no log that must be whole, no table that must be readable. Every
//! pack file is read, every snapshot that any entry, checkpoint or record copy tells of is written out, and what is lost
//! of it is named.

mod heap;
mod write;

use crate::disk::Disk;
use crate::error::{Error, ErrorKind, Result};
use crate::format::entry::Content;
use crate::format::snapshot::SnapshotRecord;
use crate::id::Uid;
use crate::log::salvage::salvage;
use crate::object::Objects;
use crate::progress::Progress;
use crate::store::read_store_file;
use heap::Heap;
use std::collections::BTreeMap;
use std::ops::Range;
use std::path::{Path, PathBuf};
use write::write_disk;

/// One disk that was written out, or could not be.
#[derive(Debug)]
pub struct Saved {
    /// What it is.
    pub record: SnapshotRecord,
    /// It is the snapshot's VM state, not its disk.
    pub vm_state: bool,
    /// Its device's name, where it is known.
    pub device: Option<String>,
    /// Where it was written, or was to be.
    pub path: PathBuf,
    /// Byte ranges that no pack yields; holes in the file. All of it where the file could not be written.
    pub lost: Vec<Range<u64>>,
    /// Why there is no such file, in words; it stands in `Rescued::damage` too.
    pub unwritten: Option<String>,
    /// The log no longer lists it: it may have been deleted on purpose.
    pub unlisted: bool,
}

/// What was found and written.
#[derive(Debug, Default)]
pub struct Rescued {
    /// Disks, in the order in which they were written.
    pub saved: Vec<Saved>,
    /// Damage met in log, checkpoints and packs.
    pub damage: Vec<String>,
    /// Packs read.
    pub packs: u64,
}

/// Writes every snapshot that can be found into `out`, a folder that is empty or not there yet, as
/// `<device>/<id>-<name>.raw`, its VM state beside it as `.vmstate`. Nothing in the store is changed.
///
/// A disk that cannot be written is lost, and the others are still saved.
///
/// # Errors
/// `NoSpace` when the target is full, `Cancelled`, or what keeps the store's folders from being listed. Disks written
/// before stay; nothing is left of the one that was being written.
pub fn rescue(
    objects: &dyn Objects,
    disk: &dyn Disk,
    out: &Path,
    progress: &Progress,
) -> Result<Rescued> {
    let mut rescued = Rescued::default();
    let cluster_bytes = match read_store_file(objects) {
        Ok(file) => Some(file.geometry.cluster_bytes),
        Err(e) => {
            rescued.damage.push(e.to_string());
            None
        }
    };
    let mut salvaged = salvage(objects, &mut rescued.damage)?;
    let (heap, told) = Heap::read(objects, cluster_bytes, progress)?;
    rescued.damage.extend(told.damage);
    rescued.packs = told.packs;
    for record in told.records {
        salvaged.add(record);
    }
    let mut taken = BTreeMap::new();
    for (uid, record) in &salvaged.records {
        let device = salvaged.devices.get(&record.device).cloned();
        let parts = [(false, Some(record.content)), (true, record.vm_state)];
        for (vm_state, content) in parts {
            progress.check()?;
            let Some(content) = content else { continue };
            let path = unused(out, device.as_deref(), record, vm_state, &mut taken);
            let written = write_disk(&heap, content, disk, &path, progress);
            let (lost, unwritten) = lost_or_why(written, content, &path)?;
            rescued.damage.extend(unwritten.clone());
            rescued.saved.push(Saved {
                record: record.clone(),
                vm_state,
                device: device.clone(),
                path,
                lost,
                unwritten,
                unlisted: !salvaged.listed.contains(uid),
            });
        }
    }
    Ok(rescued)
}

/// What of a disk is lost and, where all of it is because it could not be written, why. An error is one that the next disk
/// would meet as well.
fn lost_or_why(
    written: Result<Vec<Range<u64>>>,
    content: Content,
    path: &Path,
) -> Result<(Vec<Range<u64>>, Option<String>)> {
    let e = match written {
        Ok(lost) => return Ok((lost, None)),
        Err(e) => e,
    };
    match e.kind() {
        ErrorKind::Cancelled => Err(e),
        ErrorKind::NoSpace if !is_too_large(&e) => Err(
            e.hint("what was written before stays; name a folder with more space, and start again")
        ),
        _ => {
            let why = format!("{} could not be written: {}", path.display(), in_words(&e));
            let all = std::iter::once(0..content.size).collect();
            Ok((all, Some(why)))
        }
    }
}

/// A file system that cannot have so long a file may have space for others.
fn is_too_large(e: &Error) -> bool {
    let source = std::error::Error::source(e).and_then(|s| s.downcast_ref::<std::io::Error>());
    source.is_some_and(|s| s.kind() == std::io::ErrorKind::FileTooLarge)
}

/// An error with its causes.
fn in_words(e: &Error) -> String {
    let mut words = e.to_string();
    let mut cause = std::error::Error::source(e);
    while let Some(e) = cause {
        words.extend([": ", &e.to_string()]);
        cause = e.source();
    }
    words
}

/// `<device>/<id>-<name>.raw` with everything that is no letter, digit, dot or dash made `_`, and a number where that is
/// taken. Names come from a damaged store: nothing in them may lead elsewhere.
fn unused(
    out: &Path,
    device: Option<&str>,
    record: &SnapshotRecord,
    vm_state: bool,
    taken: &mut BTreeMap<PathBuf, Uid>,
) -> PathBuf {
    let folder = tame(
        device
            .map_or_else(|| format!("device-{}", record.device), Into::into)
            .as_bytes(),
    );
    let stem = format!("{}-{}", tame(&record.id), tame(&record.name));
    let kind = if vm_state { "vmstate" } else { "raw" };
    let mut path = out.join(&folder).join(format!("{stem}.{kind}"));
    let mut n = 1;
    while taken.contains_key(&path) {
        n += 1;
        path = out.join(&folder).join(format!("{stem}.{n}.{kind}"));
    }
    taken.insert(path.clone(), record.uid);
    path
}

fn tame(bytes: &[u8]) -> String {
    let keep = |b: &u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_') || *b == b'.';
    let text: String = bytes
        .iter()
        .take(100)
        .map(|b| if keep(b) { char::from(*b) } else { '_' })
        .collect();
    // A name of dots alone is a place.
    if text.chars().all(|c| c == '.') {
        format!("_{text}")
    } else {
        text
    }
}

#[cfg(test)]
mod tests;
