//! Which format an image is of, by its first and last bytes.

use std::fmt;
use stillpoint_store::disk::DiskFile;
use stillpoint_store::{Error, Result};

/// A format that can be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// Plain bytes.
    Raw,
    /// QEMU's own, with internal snapshots.
    Qcow2,
    /// One that QEMU reads for us; its name there.
    Foreign(&'static str),
}

/// What qemu-img calls the formats that are read through it.
const FOREIGN: [&str; 8] = [
    "vmdk",
    "vhdx",
    "vpc",
    "vdi",
    "qed",
    "parallels",
    "luks",
    "qcow",
];

/// Where a format has its magic, the magic, and its name.
const MAGICS: [(usize, &[u8], &str); 12] = [
    (0, b"KDMV", "vmdk"),
    (0, b"COWD", "vmdk"),
    (0, b"# Disk DescriptorFile", "vmdk"),
    (0, b"vhdxfile", "vhdx"),
    (0, b"conectix", "vpc"),
    (0, b"QED\0", "qed"),
    (0, b"LUKS\xba\xbe", "luks"),
    // The text before it is the writer's name.
    (64, b"\x7f\x10\xda\xbe", "vdi"),
    (0, b"WithoutFreeSpace", "parallels"),
    (0, b"WithouFreSpacExt", "parallels"),
    // The first version is a format of its own.
    (0, b"QFI\xfb\0\0\0\x01", "qcow"),
    (0, b"QFI\xfb", "qcow2"),
];

impl Format {
    /// The format of that name, as qemu-img has it.
    pub fn named(name: &str) -> Result<Self> {
        let foreign = FOREIGN.into_iter().find(|f| *f == name);
        match name {
            "raw" => Ok(Self::Raw),
            "qcow2" => Ok(Self::Qcow2),
            "vhd" => Ok(Self::Foreign("vpc")),
            _ => foreign.map(Self::Foreign).ok_or_else(|| {
                let why = format!("{name:?} is no format that is known here");
                Error::invalid("choosing a format", why)
                    .hint(format!("raw, qcow2, {}", FOREIGN.join(", ")))
            }),
        }
    }

    /// The format that the bytes of a file are of; what is none of the others is raw.
    pub fn detect(file: &dyn DiskFile) -> Result<Self> {
        let mut start = [0; 512];
        let n = read_up_to(file, 0, &mut start)?;
        if let Some(found) = Self::of_start(&start[..n]) {
            return Ok(found);
        }
        // A fixed VHD is plain bytes with a footer.
        let len = file.len()?;
        let mut end = [0; 512];
        if len >= 1024 && len.is_multiple_of(512) {
            read_up_to(file, len - 512, &mut end)?;
        }
        if end.starts_with(b"conectix") {
            return Ok(Self::Foreign("vpc"));
        }
        Ok(Self::Raw)
    }

    fn of_start(start: &[u8]) -> Option<Self> {
        let found = MAGICS
            .iter()
            .find(|(at, magic, _)| start.get(*at..).is_some_and(|s| s.starts_with(magic)));
        let (_, _, name) = found?;
        Self::named(name).ok()
    }
}

impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Raw => "raw",
            Self::Qcow2 => "qcow2",
            Self::Foreign(name) => name,
        })
    }
}

fn read_up_to(file: &dyn DiskFile, offset: u64, buf: &mut [u8]) -> Result<usize> {
    let len = file.len()?.saturating_sub(offset).min(buf.len() as u64) as usize;
    file.read_at(offset, &mut buf[..len])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_is_one_that_is_shown() {
        for name in [
            "raw",
            "qcow2",
            "vmdk",
            "vhdx",
            "vpc",
            "vdi",
            "qed",
            "parallels",
            "luks",
            "qcow",
        ] {
            assert_eq!(Format::named(name).unwrap().to_string(), name);
        }
        assert_eq!(Format::named("vhd").unwrap().to_string(), "vpc");
        assert!(Format::named("tar").is_err());
    }

    #[test]
    fn magics_name_formats() {
        for (at, magic, name) in MAGICS {
            let mut start = vec![0; 512];
            start[at..at + magic.len()].copy_from_slice(magic);
            assert_eq!(Format::of_start(&start), Format::named(name).ok(), "{name}");
        }
        assert_eq!(Format::of_start(&[0; 512]), None);
        assert_eq!(Format::of_start(b""), None);
    }
}
