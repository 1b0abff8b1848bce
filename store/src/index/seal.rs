//! The seal of an index folder: proof that nobody touched its files since this code last left them.
//!
//! sled trusts its files. Where an older log meets newer pages, as after a copy of a running store or a flipped bit in
//! the log's tail, it does not fail: it searches in circles for ever. So a folder is only opened when its seal says that
//! metadata and pages are those of one moment. A folder without a seal is thrown away.

use crate::id::Hash;
use std::fs;
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

const NAME: &str = "seal";
/// LIMIT: metadata is about 30 bytes for some kilobytes of pages; more than this is no index of ours.
const METADATA_BYTES_MAX: u64 = 1 << 30;
const FILES_MAX: usize = 4096;

/// Seals the folder as it is now. Need not survive a crash: then the files' times do not fit either.
pub(super) fn put(folder: &Path) -> io::Result<()> {
    let mark = mark(folder)?;
    let temporary = folder.join("seal.tmp");
    fs::write(&temporary, mark.0)?;
    fs::rename(temporary, folder.join(NAME))
}

/// Removes the seal. ORDER: before the first write that follows.
pub(super) fn lift(folder: &Path) -> io::Result<()> {
    match fs::remove_file(folder.join(NAME)) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => Err(e),
        _ => Ok(()),
    }
}

/// True when the folder is as it was sealed.
pub(super) fn holds(folder: &Path) -> bool {
    let mut sealed = Vec::new();
    let read = fs::File::open(folder.join(NAME)).and_then(|f| f.take(64).read_to_end(&mut sealed));
    read.is_ok() && mark(folder).is_ok_and(|now| now.0[..] == sealed[..])
}

/// Hash of the metadata's bytes and of every file's identity, size and times. A copied or restored folder has other
/// inodes; bytes of pages need no hash, sled checks each.
fn mark(folder: &Path) -> io::Result<Hash> {
    let mut hasher = blake3::Hasher::new();
    for part in ["metadata", "slabs"] {
        let mut names = Vec::new();
        for entry in fs::read_dir(folder.join(part))? {
            names.push(entry?.file_name());
            if names.len() > FILES_MAX {
                return Err(io::ErrorKind::InvalidData.into());
            }
        }
        names.sort();
        for name in names {
            let path = folder.join(part).join(&name);
            let data = fs::symlink_metadata(&path)?;
            if !data.is_file() {
                return Err(io::ErrorKind::InvalidData.into());
            }
            hasher.update(name.as_encoded_bytes());
            for n in [data.ino(), data.size()] {
                hasher.update(&n.to_le_bytes());
            }
            for n in [
                data.mtime(),
                data.mtime_nsec(),
                data.ctime(),
                data.ctime_nsec(),
            ] {
                hasher.update(&n.to_le_bytes());
            }
            if part == "metadata" {
                hasher.update_reader(fs::File::open(&path)?.take(METADATA_BYTES_MAX))?;
            }
        }
    }
    Ok(Hash(*hasher.finalize().as_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folder() -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        for part in ["metadata", "slabs"] {
            fs::create_dir(folder.path().join(part)).unwrap();
            fs::write(folder.path().join(part).join("a"), "one").unwrap();
        }
        put(folder.path()).unwrap();
        assert!(holds(folder.path()));
        folder
    }

    #[test]
    fn a_changed_file_breaks_the_seal() {
        for part in ["metadata", "slabs"] {
            let folder = folder();
            fs::write(folder.path().join(part).join("a"), "three").unwrap();
            assert!(!holds(folder.path()));
        }
    }

    #[test]
    fn a_missing_file_and_a_new_one_break_the_seal() {
        let (less, more) = (folder(), folder());
        fs::remove_file(less.path().join("slabs/a")).unwrap();
        fs::write(more.path().join("slabs/b"), "").unwrap();
        assert!(!holds(less.path()));
        assert!(!holds(more.path()));
    }

    #[test]
    fn a_copy_is_not_sealed() {
        let (from, to) = (folder(), folder());
        fs::copy(from.path().join(NAME), to.path().join(NAME)).unwrap();
        assert!(!holds(to.path()));
    }

    #[test]
    fn a_lifted_seal_does_not_hold() {
        let folder = folder();
        lift(folder.path()).unwrap();
        lift(folder.path()).unwrap();
        assert!(!holds(folder.path()));
    }
}
