//! Files that the descriptor of a vmdk image names: QEMU opens them with the image, so they pass the gate first.
//!
//! What QEMU would find in a descriptor must be found here too, whatever the descriptor looks like; what is found besides does
//! no harm.

use crate::locked::Locked;
use crate::qcow2::{Gate, Role};
use std::path::Path;
use stillpoint_store::disk::{Disk, DiskFile};
use stillpoint_store::{Error, ErrorKind, Result};

const DOING: &str = "reading the vmdk descriptor";
/// QEMU reads one byte less.
const DESCRIPTOR_BYTES_MAX: u64 = 1 << 20;
/// Of a name, QEMU reads no more.
const NAME_BYTES_MAX: usize = 511;
/// Where a sparse header has the disk's size, and where the sector of its descriptor.
const CAPACITY_AT: usize = 12;
const DESCRIPTOR_AT: usize = 28;

/// Opens and locks the files that the descriptor of an image names. Refuses one that was not allowed.
pub(super) fn open(
    disk: &dyn Disk,
    path: &Path,
    file: &dyn DiskFile,
    gate: &Gate,
) -> Result<Vec<Locked>> {
    let mut extents = Vec::new();
    let Some(text) = descriptor(file).map_err(|e| e.at(path.display()))? else {
        return Ok(extents);
    };
    for name in names(&text) {
        let extent = resolve(disk, path, name, gate)?;
        let locked = Locked::open(disk, &extent)?;
        if has_no_size(&start(&*locked.file())?) {
            let why = "it is an extent and has a descriptor, which names more files";
            return Err(Error::new(ErrorKind::Unsupported, DOING)
                .detail(why)
                .at(extent.display()));
        }
        extents.push(locked);
    }
    Ok(extents)
}

fn resolve(disk: &dyn Disk, path: &Path, name: &[u8], gate: &Gate) -> Result<std::path::PathBuf> {
    let bad = |why: &str| Err(Error::corrupt(DOING, why).at(path.display()));
    if name.len() > NAME_BYTES_MAX {
        return bad("the name of an extent is longer than 511 bytes");
    }
    // QEMU would look for it in its own folder, and not beside the image.
    if name.starts_with(b"file:") {
        return bad("an extent is named as file:, which no program writes");
    }
    gate.resolve(disk, path, name, Role::Extent)
}

fn start(file: &dyn DiskFile) -> Result<Vec<u8>> {
    read(file, 0, 64)
}

fn read(file: &dyn DiskFile, at: u64, most: u64) -> Result<Vec<u8>> {
    let len = file.len()?.saturating_sub(at).min(most) as usize;
    let mut bytes = vec![0; len];
    let n = file.read_at(at, &mut bytes)?;
    bytes.truncate(n);
    Ok(bytes)
}

fn le64(bytes: &[u8], at: usize) -> u64 {
    let word = bytes.get(at..).and_then(<[u8]>::first_chunk);
    word.map_or(0, |word| u64::from_le_bytes(*word))
}

/// A sparse header without a disk: all there is is its descriptor.
fn has_no_size(start: &[u8]) -> bool {
    start.starts_with(b"KDMV") && le64(start, CAPACITY_AT) == 0
}

/// The descriptor that names files, if the image has one. QEMU takes for one whatever is no sparse image.
fn descriptor(file: &dyn DiskFile) -> Result<Option<Vec<u8>>> {
    let start = start(file)?;
    let at = if has_no_size(&start) {
        let sector = le64(&start, DESCRIPTOR_AT);
        let at = sector.checked_mul(512).filter(|at| *at < i64::MAX as u64);
        at.ok_or_else(|| Error::corrupt(DOING, format!("it is at sector {sector}")))?
    } else if start.starts_with(b"KDMV") || start.starts_with(b"COWD") {
        return Ok(None);
    } else {
        0
    };
    read(file, at, DESCRIPTOR_BYTES_MAX).map(Some)
}

/// The names on lines such as `RW 4192256 SPARSE "disk-s001.vmdk"`.
fn names(text: &[u8]) -> impl Iterator<Item = &[u8]> {
    let text = text.split(|b| *b == 0).next().unwrap_or_default();
    let ends = text.iter().enumerate().filter(|(_, b)| **b == b'\n');
    let starts = std::iter::once(0).chain(ends.map(|(at, _)| at + 1));
    starts.filter_map(|at| extent_name(&text[at..]))
}

/// The name in an extent that begins here. QEMU begins one at each line, but to it a line's end within one is a blank.
fn extent_name(text: &[u8]) -> Option<&[u8]> {
    let blank = |b: &u8| b.is_ascii_whitespace() || *b == 0x0b;
    let first = text.iter().position(|b| !blank(b))?;
    let text = &text[first..];
    let access = [&b"RW"[..], b"RDONLY", b"NOACCESS"];
    let text = access.iter().find_map(|word| text.strip_prefix(*word))?;
    let quote = text.iter().position(|b| *b == b'"')?;
    let (before, name) = text.split_at(quote);
    // Size and kind stand between, with or without a blank.
    if before.split(blank).filter(|word| !word.is_empty()).count() > 2 {
        return None;
    }
    let name = &name[1..];
    let end = name.iter().position(|b| matches!(b, b'"' | b'\n' | b'\r'));
    Some(&name[..end.unwrap_or(name.len())])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(text: &str) -> Vec<String> {
        let text = text.as_bytes();
        names(text)
            .map(|n| String::from_utf8_lossy(n).into_owned())
            .collect()
    }

    #[test]
    fn names_stand_in_quotes_on_lines_of_extents() {
        assert_eq!(found("RW 99 SPARSE \"a b.vmdk\""), ["a b.vmdk"]);
        assert_eq!(
            found("x=\"y\"\n RDONLY 9 FLAT \"/etc/passwd\" 0"),
            ["/etc/passwd"]
        );
        assert_eq!(found("RW 9 ZERO"), [""; 0]);
        assert_eq!(found("createType=\"RW\""), [""; 0]);
        assert_eq!(found("RW 1 ZERO\n# RW 1 FLAT \"x\"\nb=\"RW\""), [""; 0]);
        assert_eq!(found("a\0\nRW 9 FLAT \"b\""), [""; 0]);
    }

    #[test]
    fn what_qemu_takes_for_an_extent_is_found_however_it_is_written() {
        for text in [
            "RW 2 FLAT\n\"/x\" 0",
            "RW\n2\nFLAT\r\n\t\"/x\" 0",
            "\x0b\x0c RW 2 VMFSSPARSE\"/x\"",
            "# text\n\nRW 2 FLAT \"/x\r\" 0",
            "RW 2 VMFS \"/x\nmore",
        ] {
            assert!(found(text).contains(&"/x".to_owned()), "{text:?}");
        }
    }
}
