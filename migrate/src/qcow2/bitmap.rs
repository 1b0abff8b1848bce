//! The directory of persistent bitmaps: what is in it, not what the bitmaps say. Pure.

use super::bytes::{be16, be32};
use stillpoint_store::{Error, Result};

const FIXED_BYTES: usize = 24;
/// QEMU opens no more bitmaps.
pub(super) const BITMAPS_MAX: u32 = 65535;
/// QEMU opens no longer directory.
pub(super) const DIRECTORY_BYTES_MAX: u64 = 65535 * 1024;
const IN_USE: u32 = 1;
const AUTO: u32 = 1 << 1;

/// A persistent dirty bitmap. It belongs to the active state only.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bitmap {
    /// Its name.
    pub name: Vec<u8>,
    /// Bytes of the disk that a bit stands for; `None` for a granularity that is not possible.
    pub granularity: Option<u64>,
    /// It was not saved when the image was last closed, so it is not to be trusted.
    pub in_use: bool,
    /// It records writes whenever the image is open.
    pub auto: bool,
}

fn cut_off() -> Error {
    Error::corrupt("reading the bitmap directory", "it is cut off")
}

impl Bitmap {
    /// Decodes a directory of `count` entries.
    pub(super) fn decode_all(directory: &[u8], count: u32) -> Result<Vec<Self>> {
        let mut all = Vec::new();
        let mut at = 0;
        for _ in 0..count {
            let entry = directory.get(at..).ok_or_else(cut_off)?;
            let flags = be32(entry, 12).ok_or_else(cut_off)?;
            let bits = *entry.get(17).ok_or_else(cut_off)?;
            let name_len = usize::from(be16(entry, 18).ok_or_else(cut_off)?);
            let extra = be32(entry, 20).ok_or_else(cut_off)? as usize;
            let start = FIXED_BYTES + extra;
            let name = entry.get(start..start + name_len).ok_or_else(cut_off)?;
            all.push(Self {
                name: name.to_vec(),
                granularity: 1_u64.checked_shl(u32::from(bits)),
                in_use: flags & IN_USE != 0,
                auto: flags & AUTO != 0,
            });
            at += (start + name_len).next_multiple_of(8);
        }
        Ok(all)
    }
}
