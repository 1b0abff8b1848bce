//! Files that the descriptor of a vmdk image names: QEMU opens them with the image, so they pass the gate first.

use crate::qcow2::{Gate, Role};
use std::path::Path;
use stillpoint_store::disk::{Disk, DiskFile};
use stillpoint_store::{Error, Result};

/// QEMU reads no longer descriptor.
const DESCRIPTOR_BYTES_MAX: u64 = 20 << 10;
const DESCRIPTOR: &[u8] = b"# Disk DescriptorFile";

/// Refuses an image whose descriptor names a file that was not allowed.
pub(super) fn check(disk: &dyn Disk, path: &Path, file: &dyn DiskFile, gate: &Gate) -> Result<()> {
    let len = file.len()?.min(DESCRIPTOR_BYTES_MAX + 1) as usize;
    let mut text = vec![0; len.max(DESCRIPTOR.len())];
    file.read_at(0, &mut text[..len])?;
    // All other kinds have their bytes in the one file.
    if !text.starts_with(DESCRIPTOR) {
        return Ok(());
    }
    if len as u64 > DESCRIPTOR_BYTES_MAX {
        let why = "its descriptor is longer than 20 KiB";
        return Err(Error::corrupt("reading the vmdk descriptor", why).at(path.display()));
    }
    for name in text.split(|b| *b == b'\n').filter_map(extent_name) {
        gate.resolve(disk, path, name, Role::Extent)?;
    }
    Ok(())
}

/// The name in a line such as `RW 4192256 SPARSE "disk-s001.vmdk"`.
fn extent_name(line: &[u8]) -> Option<&[u8]> {
    let line = line.trim_ascii_start();
    let access = [&b"RW"[..], b"RDONLY", b"NOACCESS"];
    if !access.iter().any(|word| line.starts_with(word)) {
        return None;
    }
    let start = line.iter().position(|b| *b == b'"')? + 1;
    let rest = &line[start..];
    let end = rest.iter().position(|b| *b == b'"').unwrap_or(rest.len());
    Some(&rest[..end])
}

#[cfg(test)]
mod tests {
    use super::extent_name;

    #[test]
    fn names_stand_in_quotes_on_lines_of_extents() {
        let name = |line: &str| extent_name(line.as_bytes()).map(<[u8]>::to_vec);
        assert_eq!(
            name("RW 99 SPARSE \"a b.vmdk\""),
            Some(b"a b.vmdk".to_vec())
        );
        assert_eq!(
            name(" RDONLY 9 FLAT \"/etc/passwd\" 0"),
            Some(b"/etc/passwd".to_vec())
        );
        assert_eq!(name("RW 9 ZERO"), None);
        assert_eq!(name("createType=\"RW\""), None);
    }
}
