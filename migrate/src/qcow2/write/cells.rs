//! Pieces -> clusters of the image that is written, each with a name for what is in it.

use super::source::{Content, Key, Part, Piece, Pieces, Source};
use super::{StateShape, invalid};
use std::collections::HashMap;
use std::collections::hash_map::Entry;
use stillpoint_store::Result;

/// Names the content of a cluster: half a BLAKE3 of what it is made of.
pub(super) type Id = [u8; 16];

/// A cluster.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Cell {
    Hole,
    Zero,
    Data(Id),
}

/// Bytes of a cluster.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stretch {
    Zeros(u64),
    Data { key: Key, offset: u64, len: u64 },
}

/// What the clusters of a window are made of.
pub(super) type Recipes = HashMap<Id, Vec<Stretch>>;

/// The clusters of one state, in order: its disk, and behind it the VM state.
pub(super) struct Cells<'a> {
    disk: Stream<'a>,
    vm: Option<Stream<'a>>,
    vm_start: u64,
    scratch: Vec<Stretch>,
}

struct Stream<'a> {
    pieces: Pieces<'a>,
    /// Added to what the pieces say.
    base: u64,
    end: u64,
    /// The next piece that is no hole.
    next: Option<Piece>,
    /// Where the pieces before it end.
    at: u64,
}

impl Stream<'_> {
    /// The piece that ends behind `at`, and is no hole.
    fn peek(&mut self, at: u64) -> Result<Option<Piece>> {
        while self.next.is_none_or(|p| p.start + p.len <= at) {
            let Some(piece) = self.pieces.next().transpose()? else {
                self.next = None;
                return Ok(None);
            };
            let start = self.base.saturating_add(piece.start);
            let end = start.saturating_add(piece.len);
            if start < self.at || end > self.end {
                return Err(invalid(format!(
                    "the piece at byte {} is out of order, or past the end",
                    piece.start
                )));
            }
            self.at = end;
            let piece = Piece { start, ..piece };
            self.next = (piece.content != Content::Hole && piece.len > 0).then_some(piece);
        }
        Ok(self.next)
    }
}

impl<'a> Cells<'a> {
    pub fn new(source: &'a dyn Source, n: usize, shape: &StateShape) -> Result<Self> {
        let stream = |part, base, end| {
            Ok(Stream {
                pieces: source.pieces(part)?,
                base,
                end,
                next: None,
                at: base,
            })
        };
        let disk = match n {
            0 => Part::Active,
            n => Part::Disk(n - 1),
        };
        let vm = if n > 0 && shape.vm_size > 0 {
            let end = shape.vm_start + shape.vm_size;
            Some(stream(Part::VmState(n - 1), shape.vm_start, end)?)
        } else {
            None
        };
        Ok(Self {
            disk: stream(disk, 0, shape.size)?,
            vm,
            vm_start: shape.vm_start,
            scratch: Vec::new(),
        })
    }

    /// The stream that has `at`: VM state starts at a boundary of tables, so no cluster has both.
    fn stream(&mut self, at: u64) -> &mut Stream<'a> {
        match &mut self.vm {
            Some(vm) if at >= self.vm_start => vm,
            _ => &mut self.disk,
        }
    }

    /// From `at` to there all is holes or zeros; `u64::MAX` for to the end.
    pub fn quiet_until(&mut self, at: u64) -> Result<u64> {
        let vm_start = self.vm.as_ref().map(|_| self.vm_start);
        let found = self.stream(at).peek(at)?;
        Ok(match found {
            Some(Piece {
                start,
                len,
                content,
            }) => match content {
                Content::Data { .. } => start.max(at),
                Content::Zero | Content::Hole => start + len,
            },
            None => vm_start.filter(|start| at < *start).unwrap_or(u64::MAX),
        })
    }

    /// Appends the `count` clusters from `start` on, and what those are made of that `recipes` does not know.
    pub fn cut(
        &mut self,
        start: u64,
        count: u64,
        cluster: u64,
        cells: &mut Vec<Cell>,
        recipes: &mut Recipes,
    ) -> Result<()> {
        for n in 0..count {
            let at = start + n * cluster;
            cells.push(self.cell(at, at + cluster, recipes)?);
        }
        Ok(())
    }

    fn cell(&mut self, start: u64, end: u64, recipes: &mut Recipes) -> Result<Cell> {
        let mut scratch = std::mem::take(&mut self.scratch);
        scratch.clear();
        let stream = self.stream(start);
        let (mut at, mut zeros) = (start, false);
        while at < end {
            let piece = stream.peek(at)?.filter(|piece| piece.start < end);
            let Some(piece) = piece else {
                push_zeros(&mut scratch, end - at);
                break;
            };
            if piece.start > at {
                push_zeros(&mut scratch, piece.start - at);
                at = piece.start;
            }
            let len = (piece.start + piece.len).min(end) - at;
            match piece.content {
                Content::Hole => push_zeros(&mut scratch, len),
                Content::Zero => {
                    zeros = true;
                    push_zeros(&mut scratch, len);
                }
                Content::Data { key, offset } => {
                    let offset = offset + (at - piece.start);
                    scratch.push(Stretch::Data { key, offset, len });
                }
            }
            at += len;
        }
        let cell = match scratch[..] {
            [Stretch::Zeros(_)] if zeros => Cell::Zero,
            [] | [Stretch::Zeros(_)] => Cell::Hole,
            _ => {
                let id = id_of(&scratch);
                if let Entry::Vacant(entry) = recipes.entry(id) {
                    entry.insert(scratch.clone());
                }
                Cell::Data(id)
            }
        };
        self.scratch = scratch;
        Ok(cell)
    }
}

/// Neighbouring zeros are one, so that equal clusters get equal names.
fn push_zeros(stretches: &mut Vec<Stretch>, len: u64) {
    match stretches.last_mut() {
        Some(Stretch::Zeros(zeros)) => *zeros += len,
        _ => stretches.push(Stretch::Zeros(len)),
    }
}

fn id_of(stretches: &[Stretch]) -> Id {
    let mut hasher = blake3::Hasher::new();
    for stretch in stretches {
        // Of fixed length each, so that no two lists look the same.
        let mut row = [0; 48];
        match stretch {
            Stretch::Zeros(len) => row[40..].copy_from_slice(&len.to_le_bytes()),
            Stretch::Data { key, offset, len } => {
                row[..32].copy_from_slice(&key.0);
                row[32..40].copy_from_slice(&offset.wrapping_add(1).to_le_bytes());
                row[40..].copy_from_slice(&len.to_le_bytes());
            }
        }
        hasher.update(&row);
    }
    let mut id = [0; 16];
    id.copy_from_slice(&hasher.finalize().as_bytes()[..16]);
    id
}
