//! Disks for the demo: one that is made up but behaves like a small guest's, and the changes that a day brings.

use std::fs::{File, OpenOptions};
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::unix::fs::FileExt;
use std::path::Path;
use stillpoint_store::{Error, Result};

const MIB: u64 = 1 << 20;
const DISK_BYTES: u64 = 256 * MIB;

/// A disk of 256 MiB: text that compresses, noise that does not, copies of files, zeros and holes.
pub fn make(path: &Path) -> Result<()> {
    (|| {
        let file = File::create_new(path)?;
        file.set_len(DISK_BYTES)?;
        let mut noise = Noise(1);
        for mib in 0..DISK_BYTES / MIB {
            let block = match mib % 8 {
                0 | 1 => noise.text(),
                2 => noise.bytes(),
                // The same library in many places.
                3 => Noise(7 + mib % 3).text(),
                4 if mib < 64 => vec![0; MIB as usize],
                _ => continue,
            };
            file.write_all_at(&block, mib * MIB)?;
        }
        file.sync_all()
    })()
    .map_err(|e| Error::io("making the demo's disk", e).at(path.display()))
}

/// Copies `from`; blocks of zeros become holes.
pub fn copy(from: &Path, to: &Path) -> Result<()> {
    let read = |e| Error::io("copying the image", e).at(from.display());
    let write = |e| Error::io("copying the image to", e).at(to.display());
    let mut source = File::open(from).map_err(read)?;
    // A block device has no length but an end.
    let len = source.seek(SeekFrom::End(0)).map_err(read)?;
    source.rewind().map_err(read)?;
    let copy = File::create_new(to).map_err(write)?;
    copy.set_len(len).map_err(write)?;
    let mut block = vec![0; MIB as usize];
    let mut at = 0;
    while at < len {
        let want = block.len().min((len - at) as usize);
        source.read_exact(&mut block[..want]).map_err(read)?;
        if block[..want].iter().any(|byte| *byte != 0) {
            copy.write_all_at(&block[..want], at).map_err(write)?;
        }
        at += want as u64;
    }
    Ok(())
}

/// Writes over 1 % of the disk in eight places.
pub fn change(path: &Path, seed: u64) -> Result<()> {
    (|| {
        let mut file = OpenOptions::new().write(true).open(path)?;
        let len = file.seek(SeekFrom::End(0))?;
        let mut noise = Noise(seed);
        let piece = (len / 800).min(64 * MIB) as usize;
        for place in 0..8 {
            let text = noise
                .text()
                .into_iter()
                .cycle()
                .take(piece)
                .collect::<Vec<_>>();
            file.seek(SeekFrom::Start(
                len / 8 * place + noise.next() % (len / 16).max(1),
            ))?;
            file.write_all(&text)?;
        }
        file.sync_all()
    })()
    .map_err(|e| Error::io("changing the demo's disk", e).at(path.display()))
}

/// Hash of all bytes.
pub fn hash(path: &Path) -> Result<[u8; 32]> {
    let mut hasher = blake3::Hasher::new();
    File::open(path)
        .and_then(|file| hasher.update_reader(file).map(|_| ()))
        .map_err(|e| Error::io("reading the demo's disk", e).at(path.display()))?;
    Ok(*hasher.finalize().as_bytes())
}

/// Xorshift: the demo is the same every time.
struct Noise(u64);

impl Noise {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn bytes(&mut self) -> Vec<u8> {
        (0..MIB / 8)
            .flat_map(|_| self.next().to_le_bytes())
            .collect()
    }

    /// Lines like those of a log.
    fn text(&mut self) -> Vec<u8> {
        let mut text = Vec::with_capacity(MIB as usize + 64);
        while text.len() < MIB as usize {
            let n = self.next();
            let verb = ["GET", "PUT", "opened", "closed", "retry"][(n % 5) as usize];
            text.extend_from_slice(format!("{:08x} {verb} /srv/{}\n", n >> 32, n % 977).as_bytes());
        }
        text.truncate(MIB as usize);
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::MetadataExt;

    #[test]
    fn the_made_up_disk_is_sparse_and_always_the_same() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let (a, b) = (folder.path().join("a"), folder.path().join("b"));
        make(&a).expect("a disk");
        copy(&a, &b).expect("a copy");
        assert_eq!(hash(&a).expect("a hash"), hash(&b).expect("a hash"));
        let meta = std::fs::metadata(&b).expect("the copy is there");
        assert_eq!(meta.len(), DISK_BYTES);
        assert!(meta.blocks() * 512 < DISK_BYTES, "{} blocks", meta.blocks());
    }

    #[test]
    fn a_day_changes_a_hundredth_of_any_disk() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        for len in [800_000, 512, 0] {
            let path = folder.path().join(len.to_string());
            std::fs::write(&path, vec![0; len]).expect("a disk");
            change(&path, 9).expect("changed");
            let bytes = std::fs::read(&path).expect("it is there");
            let changed = bytes.iter().filter(|byte| **byte != 0).count();
            assert_eq!((bytes.len(), changed), (len, len / 800 * 8));
        }
    }
}
