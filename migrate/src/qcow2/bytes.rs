//! Big-endian integers out of untrusted bytes, and reads that are checked against the file first.

use stillpoint_store::disk::DiskFile;
use stillpoint_store::{Error, Result};

/// The `N` bytes at `at`; `None` past the end.
fn array<const N: usize>(bytes: &[u8], at: usize) -> Option<[u8; N]> {
    bytes.get(at..at.checked_add(N)?)?.try_into().ok()
}

pub(super) fn be16(bytes: &[u8], at: usize) -> Option<u16> {
    array(bytes, at).map(u16::from_be_bytes)
}

pub(super) fn be32(bytes: &[u8], at: usize) -> Option<u32> {
    array(bytes, at).map(u32::from_be_bytes)
}

pub(super) fn be64(bytes: &[u8], at: usize) -> Option<u64> {
    array(bytes, at).map(u64::from_be_bytes)
}

/// Numbers of a table of 64-bit entries.
pub(super) fn be64s(bytes: &[u8]) -> impl Iterator<Item = u64> + '_ {
    let (entries, _rest) = bytes.as_chunks::<8>();
    entries.iter().map(|entry| u64::from_be_bytes(*entry))
}

/// Reads until `buf` is full or the file ends; how many bytes came.
pub(super) fn read_up_to(file: &dyn DiskFile, offset: u64, buf: &mut [u8]) -> Result<usize> {
    let mut done = 0;
    while done < buf.len() {
        match file.read_at(offset + done as u64, &mut buf[done..])? {
            0 => break,
            n => done += n,
        }
    }
    Ok(done)
}

/// Fills `buf`, with zeros past the end of the file, as QEMU reads images.
pub(super) fn read_padded(file: &dyn DiskFile, offset: u64, buf: &mut [u8]) -> Result<()> {
    let done = read_up_to(file, offset, buf)?;
    buf[done..].fill(0);
    Ok(())
}

/// Reads a structure of `len` bytes that must be in the file, whose length `file_len` bounds what is allocated.
pub(super) fn read_table(
    file: &dyn DiskFile,
    file_len: u64,
    offset: u64,
    len: u64,
    doing: &'static str,
) -> Result<Vec<u8>> {
    if offset.checked_add(len).is_none_or(|end| end > file_len) {
        let why = format!("{len} bytes there end past the end of the file, which has {file_len}");
        return Err(Error::corrupt(doing, why).offset(offset));
    }
    let mut bytes = vec![0; len as usize];
    if read_up_to(file, offset, &mut bytes)? < bytes.len() {
        return Err(Error::corrupt(doing, "the file became shorter").offset(offset));
    }
    Ok(bytes)
}
