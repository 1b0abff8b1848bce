//! Reading and hashing a batch of runs in parallel. A batch owns the one buffer that its bytes stay in until they are
//! compressed.

use super::feed::{Feed, Part, Run};
use super::{BATCH_BYTES, TURN_BYTES};
use crate::content::suspects::Distrusted;
use crate::error::{Error, ErrorKind, Result};
use crate::format::manifest::Child;
use crate::id::Hash;
use crate::index::keeper::Keeper;
use crate::index::{Places, key_of};
use crate::progress::Progress;
use rayon::prelude::*;

/// What a cluster turned out to be.
pub enum Seen {
    /// All zeros.
    Zero,
    /// The parent has it at the same place.
    Parent(Hash),
    /// Something else, and where the index says that it may be.
    Other(Hash, Places),
}

/// A part of an input in a batch.
pub struct Scanned {
    /// Which input.
    pub input: usize,
    /// What it is.
    pub part: Part,
    /// Offset of its bytes in the batch's buffer.
    pub at: usize,
    /// A verdict a cluster; none for holes.
    pub seen: Vec<Seen>,
}

/// Runs of one or more inputs and their bytes.
#[derive(Default)]
pub struct Batch {
    buffer: Vec<u8>,
    used: usize,
    cluster_bytes: usize,
    /// In the order of their input.
    pub parts: Vec<Scanned>,
}

impl Batch {
    /// Nothing left to do.
    pub fn is_empty(&self) -> bool {
        self.parts.is_empty()
    }

    /// The bytes of a cluster.
    pub fn cluster(&self, at: usize) -> &[u8] {
        &self.buffer[at..at + self.cluster_bytes]
    }

    /// Offset of the `i`th cluster of a part.
    pub fn offset(&self, part: &Scanned, i: usize) -> usize {
        part.at + i * self.cluster_bytes
    }

    /// Takes the next parts from the feeds by turns, until the buffer is full or all are dry.
    pub fn fill(&mut self, feeds: &mut [Feed<'_>], cluster_bytes: u32) -> Result<()> {
        self.parts.clear();
        self.used = 0;
        self.cluster_bytes = cluster_bytes as usize;
        let size = u64::from(cluster_bytes);
        let full = |used: usize| used + TURN_BYTES as usize > BATCH_BYTES;
        let mut dry = vec![false; feeds.len()];
        while !full(self.used) && dry.contains(&false) {
            for (input, feed) in feeds.iter_mut().enumerate() {
                let mut turn = 0;
                while !dry[input] && turn < TURN_BYTES && !full(self.used) {
                    let Some(part) = feed.next()? else {
                        dry[input] = true;
                        break;
                    };
                    let bytes = match &part {
                        Part::Run(run) => run.count * size,
                        Part::Empty { .. } => 0,
                    };
                    self.parts.push(Scanned {
                        input,
                        part,
                        at: self.used,
                        seen: Vec::new(),
                    });
                    self.used += bytes as usize;
                    turn += bytes.max(1);
                }
            }
        }
        if self.buffer.len() < self.used {
            self.buffer.resize(self.used, 0);
        }
        Ok(())
    }

    /// Whether there is a cluster that the parent does not have.
    pub fn has_others(&self) -> bool {
        self.parts
            .iter()
            .flat_map(|p| &p.seen)
            .any(|seen| matches!(seen, Seen::Other(..)))
    }

    /// Asks the index again.
    pub fn look_up(&mut self, index: &Keeper) {
        for seen in self.parts.iter_mut().flat_map(|p| &mut p.seen) {
            if let Seen::Other(hash, places) = seen {
                *places = index.lookup(&key_of(hash));
            }
        }
    }

    /// Reads and hashes all runs.
    pub fn scan(
        &mut self,
        feeds: &[Feed<'_>],
        distrusted: &Distrusted,
        index: &Keeper,
        progress: &Progress,
    ) -> Result<()> {
        let mut rest = &mut self.buffer[..self.used];
        let mut tasks = Vec::with_capacity(self.parts.len());
        for part in &mut self.parts {
            let bytes = match &part.part {
                Part::Run(run) => run.count as usize * self.cluster_bytes,
                Part::Empty { .. } => continue,
            };
            let (own, others) = rest.split_at_mut(bytes);
            rest = others;
            tasks.push((part, own));
        }
        let size = self.cluster_bytes;
        tasks.into_par_iter().try_for_each(|(part, bytes)| {
            progress.check()?;
            let Part::Run(run) = &part.part else {
                return Ok(());
            };
            read(&feeds[part.input], run, bytes)?;
            part.seen = bytes
                .chunks_exact(size)
                .enumerate()
                .map(|(i, cluster)| judge(cluster, run.parent.get(i), distrusted, index))
                .collect();
            Progress::add(&progress.bytes_done, bytes.len() as u64);
            Ok(())
        })
    }
}

/// Fills `bytes` with the run; what is past the end of the disk is zeros.
fn read(feed: &Feed<'_>, run: &Run, bytes: &mut [u8]) -> Result<()> {
    let offset = run.first * (bytes.len() as u64 / run.count);
    let there = (feed.size - offset).min(bytes.len() as u64) as usize;
    let n = feed.file.read_at(offset, &mut bytes[..there])?;
    if n < there {
        return Err(Error::new(ErrorKind::Busy, "reading the image")
            .offset(offset + n as u64)
            .detail("it ended before its size: somebody shortened it meanwhile"));
    }
    bytes[there..].fill(0);
    Ok(())
}

fn judge(cluster: &[u8], parent: Option<&Child>, distrusted: &Distrusted, index: &Keeper) -> Seen {
    if is_zero(cluster) {
        return Seen::Zero;
    }
    let hash = Hash::of(cluster);
    if parent == Some(&Child::Hash(hash)) && !distrusted.holds(&hash) {
        return Seen::Parent(hash);
    }
    Seen::Other(hash, index.lookup(&key_of(&hash)))
}

/// Whether all bytes are zero: the first is, and each equals the next.
pub fn is_zero(bytes: &[u8]) -> bool {
    bytes.first().is_none_or(|b| *b == 0)
        && bytes[..bytes.len().max(1) - 1] == bytes[1.min(bytes.len())..]
}

#[cfg(test)]
mod tests {
    use super::is_zero;

    #[test]
    fn zeros_are_told_from_all_else() {
        assert!(is_zero(&[]));
        assert!(is_zero(&[0]));
        assert!(!is_zero(&[1]));
        let mut bytes = vec![0; 4096];
        assert!(is_zero(&bytes));
        for at in [0, 1, 17, 4094, 4095] {
            bytes[at] = 7;
            assert!(!is_zero(&bytes), "byte {at}");
            bytes[at] = 0;
        }
    }
}
