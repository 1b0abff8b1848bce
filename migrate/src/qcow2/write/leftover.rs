//! What a writer that was cut off has left in the file. It wrote the same bytes to the same places, as long as it wrote the same
//! image: what is equal is not written again, and from the first difference on the file is cut. So the image becomes the
//! same as in an empty file, whatever was there; compressed bytes of another encoder may stay where they are what they should be.

use super::cells::Stretch;
use super::data::{Stored, is_zero};
use super::source::Source;
use super::space::Space;
use super::{Options, Shape};
use crate::qcow2::Compression;
use crate::qcow2::codec::{Encoder, decode_exactly};
use stillpoint_store::Result;
use stillpoint_store::disk::DiskFile;

/// See the module.
pub(super) struct Leftover<'a> {
    file: &'a dyn DiskFile,
    cluster: u64,
    /// Up to there something was kept.
    end: u64,
    /// Where the last compressed bytes end that were kept.
    open: u64,
    kept: u64,
}

impl<'a> Leftover<'a> {
    /// `None` for an empty file. What is there is no image from now on.
    pub fn new(file: &'a dyn DiskFile, shape: &Shape) -> Result<Option<Self>> {
        if file.is_empty()? {
            return Ok(None);
        }
        let cluster = shape.cluster_bytes();
        file.write_at(0, &vec![0; cluster as usize])?;
        file.sync_and_forget()?;
        Ok(Some(Self {
            file,
            cluster,
            end: cluster,
            open: cluster,
            kept: 0,
        }))
    }

    /// Bytes that were kept.
    pub fn kept(&self) -> u64 {
        self.kept
    }

    /// Whether these bytes are there, and kept.
    pub fn keep(&mut self, offset: u64, bytes: &[u8]) -> Result<bool> {
        // Plain clusters and tables are whole.
        let compressed = !(bytes.len() as u64).is_multiple_of(self.cluster);
        if compressed && offset != self.open && !self.is_clear()? {
            return Ok(false);
        }
        let mut there = vec![0; bytes.len()];
        let n = self.file.read_at(offset, &mut there)?;
        let same = n == bytes.len() && there == bytes;
        if same {
            let end = offset + n as u64;
            self.end = self.end.max(end);
            self.kept += n as u64;
            if compressed {
                self.open = end;
            }
        }
        Ok(same)
    }

    /// Behind the last compressed bytes, to the end of their cluster.
    fn rest(&self) -> Vec<u8> {
        vec![0; (self.open.next_multiple_of(self.cluster) - self.open) as usize]
    }

    fn is_clear(&self) -> Result<bool> {
        let mut rest = self.rest();
        self.file.read_at(self.open, &mut rest)?;
        Ok(rest.iter().all(|b| *b == 0))
    }

    /// Nothing stays but what was kept. Clusters may have been taken behind compressed bytes that still go on.
    pub fn cut(&self) -> Result<()> {
        if self.open < self.end {
            self.file.write_at(self.open, &self.rest())?;
        }
        self.file.set_len(self.end)
    }

    /// Follows what comes next in the file.
    pub fn trail(&self, options: &Options, space: &Space) -> Trail<'a> {
        Trail {
            file: self.file,
            cluster: self.cluster,
            encoder: options
                .compression
                .and_then(|(compression, level)| Encoder::new(compression, level)),
            compression: options.compression.map(|(compression, _)| compression),
            open: space.compressed_end(),
            end: space.bytes(),
        }
    }
}

/// Where the clusters of a batch would be, if they were written before: found without compressing them again.
pub(super) struct Trail<'a> {
    file: &'a dyn DiskFile,
    cluster: u64,
    compression: Option<Compression>,
    encoder: Option<Encoder>,
    /// Where compressed bytes may go on.
    open: u64,
    /// The next cluster to be taken.
    end: u64,
}

impl Trail<'_> {
    /// The next cluster as it is stored; `None` when it is not there, and the trail is lost.
    pub fn next(
        &mut self,
        recipe: &[Stretch],
        places: usize,
        source: &dyn Source,
    ) -> Result<Option<Stored>> {
        let mut there = vec![0; self.cluster as usize];
        if let Some(compression) = self.compression {
            let goes_on = (!self.open.is_multiple_of(self.cluster)).then_some(self.open);
            for at in goes_on.into_iter().chain([self.end]) {
                // Compressed is what is shorter than a cluster.
                let n = self.file.read_at(at, &mut there)?.min(there.len() - 1);
                let mut bytes = vec![0; self.cluster as usize];
                let len = decode_exactly(compression, &there[..n], &mut bytes);
                if let Some(len) = len.filter(|_| is(&bytes, recipe, source)) {
                    self.open = at + len as u64;
                    self.end = self.end.max(self.open.next_multiple_of(self.cluster));
                    there.truncate(len);
                    return Ok(Some(Stored::Compressed(there)));
                }
            }
        }
        let n = self.file.read_at(self.end, &mut there)?;
        if n < there.len() || is_zero(&there) || !is(&there, recipe, source) {
            return Ok(None);
        }
        // It was written without compression, and would be shorter with it.
        let mut out = vec![0; there.len() - 1];
        let shrinks = |encoder: &mut Encoder| encoder.encode(&there, &mut out).is_some();
        if self.encoder.as_mut().is_some_and(shrinks) {
            return Ok(None);
        }
        self.end += self.cluster * places as u64;
        Ok(Some(Stored::Plain(there)))
    }
}

/// Whether a cluster holds what the recipe says, as far as the source can tell.
fn is(mut bytes: &[u8], recipe: &[Stretch], source: &dyn Source) -> bool {
    recipe.iter().all(|stretch| {
        let (Stretch::Zeros(len) | Stretch::Data { len, .. }) = *stretch;
        let Some((here, rest)) = bytes.split_at_checked(len as usize) else {
            return false;
        };
        bytes = rest;
        match stretch {
            Stretch::Zeros(_) => here.iter().all(|b| *b == 0),
            Stretch::Data { key, offset, .. } => source.is(key, *offset, here),
        }
    })
}
