//! Packs in memory, for the tests of this folder: can be read, and damaged.

use crate::codec::{EncodedFrame, encode_frame};
use crate::error::{Error, ErrorKind, Result};
use crate::format::entry::PackKind;
use crate::geometry::Compression;
use crate::id::{Hash, PackName, SessionId, Uid};
use crate::object::{Objects, Purse, Put};
use crate::pack::writer::{PackBuilder, SealedPack};
use std::collections::BTreeMap;

pub(super) const C: u32 = 4096;
pub(super) const STORE: Uid = Uid([9; 16]);

pub(super) fn name(n: u32) -> PackName {
    PackName {
        session: SessionId {
            opened_at: 12,
            nonce: 0xabcd,
        },
        n,
    }
}

/// A cluster that is unlike all others; every third one compresses.
pub(super) fn cluster(n: u32) -> Vec<u8> {
    let mut out = vec![n as u8; C as usize];
    let random = if n.is_multiple_of(3) { 4 } else { out.len() };
    let mut hasher = blake3::Hasher::new();
    hasher
        .update(&n.to_le_bytes())
        .finalize_xof()
        .fill(&mut out[..random]);
    out
}

/// A frame of clusters, and their hashes.
pub(super) fn frame(clusters: std::ops::Range<u32>) -> (EncodedFrame, Vec<Hash>) {
    let clusters: Vec<Vec<u8>> = clusters.map(cluster).collect();
    let items: Vec<&[u8]> = clusters.iter().map(|c| &c[..]).collect();
    let hashes = items.iter().map(|i| Hash::of(i)).collect();
    (
        encode_frame(PackKind::Clusters, &items, Compression::Zstd(1)),
        hashes,
    )
}

/// A pack of frames with so many clusters each, counted up from 0.
pub(super) fn pack(n: u32, counts: &[u32]) -> SealedPack {
    let mut builder = PackBuilder::new(STORE, name(n), PackKind::Clusters, C);
    let mut next = 0;
    for count in counts {
        let (frame, hashes) = frame(next..next + count);
        builder.push(&frame, &hashes);
        next += count;
    }
    builder.seal()
}

/// Objects that are only read.
#[derive(Default)]
pub(super) struct Shelf(pub BTreeMap<String, Vec<u8>>);

impl Shelf {
    pub(super) fn of(pack: &SealedPack) -> Self {
        Self([(pack.name.key(), pack.bytes.clone())].into())
    }
}

impl Objects for Shelf {
    fn get(&self, key: &str, offset: u64, buf: &mut [u8]) -> Result<usize> {
        let missing = || Error::new(ErrorKind::NotFound, "reading").at(key);
        let bytes = self.0.get(key).ok_or_else(missing)?;
        let rest = bytes.get(offset as usize..).unwrap_or_default();
        let n = rest.len().min(buf.len());
        buf[..n].copy_from_slice(&rest[..n]);
        Ok(n)
    }
    fn size(&self, key: &str) -> Result<u64> {
        Ok(self.0[key].len() as u64)
    }
    fn put_new(&self, _: &str, _: &[&[u8]], _: Purse) -> Result<Put> {
        Err(Error::new(ErrorKind::ReadOnly, "writing"))
    }
    fn list_after(&self, _: &str, _: &str) -> Result<Vec<String>> {
        Ok(Vec::new())
    }
    fn list_folders(&self, _: &str) -> Result<Vec<String>> {
        Ok(Vec::new())
    }
    fn delete(&self, _: &str) -> Result<()> {
        Err(Error::new(ErrorKind::ReadOnly, "deleting"))
    }
    fn sync(&self, _: &str) -> Result<()> {
        Ok(())
    }
    fn refill(&self) -> Result<()> {
        Ok(())
    }
    fn is_read_only(&self) -> bool {
        true
    }
    fn describe(&self, key: &str) -> String {
        format!("shelf/{key}")
    }
}
