//! Overlays over a head, read as one disk. A value that never changes but for what is written to its first overlay: who holds
//! one reads on from it while the chain goes on.

use super::overlay::{Held, Overlay, Piece, Place, What};
use super::{Depth, VolumeExtent};
use crate::error::{Error, ErrorKind, Result};
use crate::format::entry::Content;
use crate::format::overlay::{BLOCK_BYTES, Empty, sum};
use crate::ops::diff::ExtentKind;
use crate::ops::view::{Reader, View};
use std::ops::Range;
use std::sync::{Arc, OnceLock};

const BLOCK: u64 = BLOCK_BYTES as u64;
/// Times that a block is looked up again because it was written again while it was read.
const TRIES: u32 = 1000;

/// Contents in packs, opened when they are first read.
pub struct Head<'a> {
    content: Content,
    view: OnceLock<View<'a>>,
}

impl<'a> Head<'a> {
    /// Of contents that are kept while somebody reads them.
    pub fn new(content: Content) -> Self {
        Self {
            content,
            view: OnceLock::new(),
        }
    }

    /// What it is.
    pub fn content(&self) -> Content {
        self.content
    }

    fn view(&self, readers: &Readers<'a>) -> Result<&View<'a>> {
        if let Some(view) = self.view.get() {
            return Ok(view);
        }
        let view = readers.get()?.view_of_kept(self.content)?;
        Ok(self.view.get_or_init(|| view))
    }
}

/// What heads are read through: given, or made when it is first needed.
pub struct Readers<'a> {
    store: &'a crate::store::Store,
    reader: OnceLock<Arc<Reader<'a>>>,
}

/// Bytes of decoded frames that are kept where nobody has given a reader.
const CACHE_BYTES: usize = 64 << 20;

impl<'a> Readers<'a> {
    /// Of a store.
    pub fn new(store: &'a crate::store::Store, reader: Option<Arc<Reader<'a>>>) -> Self {
        let once = OnceLock::new();
        if let Some(reader) = reader {
            let _empty_until_now = once.set(reader);
        }
        Self {
            store,
            reader: once,
        }
    }

    fn get(&self) -> Result<&Arc<Reader<'a>>> {
        if let Some(reader) = self.reader.get() {
            return Ok(reader);
        }
        let reader = self.store.reader(CACHE_BYTES)?;
        Ok(self.reader.get_or_init(|| reader))
    }
}

/// What lies below the overlays of a volume, for who reads ahead. It keeps nothing: gc may take it at any moment.
pub struct Below<'a> {
    head: Arc<Head<'a>>,
    readers: Arc<Readers<'a>>,
}

impl Below<'_> {
    /// Bytes.
    pub fn size(&self) -> u64 {
        self.head.content.size
    }

    /// As [`View::prefetch`].
    pub fn prefetch(&self, offset: u64, length: u64) -> Result<()> {
        self.head.view(&self.readers)?.prefetch(offset, length)
    }
}

/// See the module.
pub struct Layers<'a> {
    /// The newest first; of a volume there is one at least, which takes the writes.
    pub overlays: Vec<Arc<Overlay>>,
    /// What lies below them; without it there are holes.
    pub head: Option<Arc<Head<'a>>>,
    /// Bytes of the disk.
    pub size: u64,
    /// What the head is read through.
    pub readers: Arc<Readers<'a>>,
}

impl<'a> Layers<'a> {
    /// See [`Below`].
    pub fn below(&self) -> Option<Below<'a>> {
        Some(Below {
            head: self.head.clone()?,
            readers: self.readers.clone(),
        })
    }

    /// The overlay that takes the writes.
    pub fn top(&self) -> &Arc<Overlay> {
        &self.overlays[0]
    }

    /// What the head is.
    pub fn content(&self) -> Option<Content> {
        self.head.as_ref().map(|head| head.content())
    }

    /// Fills `buf`, which lies within the blocks of the disk.
    pub fn read(&self, offset: u64, buf: &mut [u8]) -> Result<()> {
        self.read_from(0, offset, buf)
    }

    /// As it is seen from the overlay number `depth` down.
    fn read_from(&self, depth: usize, offset: u64, buf: &mut [u8]) -> Result<()> {
        let Some(overlay) = self.overlays.get(depth) else {
            return self.read_head(offset, buf);
        };
        let end = offset + buf.len() as u64;
        for piece in pieces(overlay, &(offset..end)) {
            let bytes = clipped(&piece, &(offset..end));
            let into = &mut buf[(bytes.start - offset) as usize..(bytes.end - offset) as usize];
            match &piece.what {
                What::Absent => self.read_from(depth + 1, bytes.start, into)?,
                What::Empty(_) => into.fill(0),
                What::Data(slot, sums) => {
                    let at = (bytes.start / BLOCK - piece.first) as usize;
                    let run = Stored {
                        overlay,
                        slot: slot + at as u32,
                        sums: &sums[at..],
                    };
                    run.read(bytes.start, into)?;
                }
            }
        }
        Ok(())
    }

    /// The same if everything for it is in memory; `false` otherwise, and then `buf` means nothing.
    pub fn read_cached(&self, offset: u64, buf: &mut [u8]) -> Result<bool> {
        self.read_cached_from(0, offset, buf)
    }

    fn read_cached_from(&self, depth: usize, offset: u64, buf: &mut [u8]) -> Result<bool> {
        let Some(overlay) = self.overlays.get(depth) else {
            let Some(head) = &self.head else {
                buf.fill(0);
                return Ok(true);
            };
            return head.view(&self.readers)?.read_cached(offset, buf);
        };
        let end = offset + buf.len() as u64;
        for piece in pieces(overlay, &(offset..end)) {
            let bytes = clipped(&piece, &(offset..end));
            let into = &mut buf[(bytes.start - offset) as usize..(bytes.end - offset) as usize];
            match &piece.what {
                What::Absent if self.read_cached_from(depth + 1, bytes.start, into)? => {}
                What::Empty(_) => into.fill(0),
                // Whether the kernel has it in memory nobody can tell.
                What::Absent | What::Data(..) => return Ok(false),
            }
        }
        Ok(true)
    }

    fn read_head(&self, offset: u64, buf: &mut [u8]) -> Result<()> {
        let n = match &self.head {
            Some(head) => head.view(&self.readers)?.read_at(offset, buf)?,
            None => 0,
        };
        buf[n..].fill(0);
        Ok(())
    }

    /// What lies in a range of bytes, in order; neighbours may be of one kind. Ends early when `each` says false, which is
    /// then the answer.
    pub fn extents(
        &self,
        range: Range<u64>,
        each: &mut dyn FnMut(VolumeExtent) -> bool,
    ) -> Result<bool> {
        self.extents_from(0, range, each)
    }

    fn extents_from(
        &self,
        depth: usize,
        range: Range<u64>,
        each: &mut dyn FnMut(VolumeExtent) -> bool,
    ) -> Result<bool> {
        let Some(overlay) = self.overlays.get(depth) else {
            return self.head_extents(range, each);
        };
        for piece in pieces(overlay, &range) {
            let bytes = clipped(&piece, &range);
            let kind = match piece.what {
                What::Absent => {
                    if !self.extents_from(depth + 1, bytes, each)? {
                        return Ok(false);
                    }
                    continue;
                }
                What::Empty(Empty::Hole) => ExtentKind::Hole,
                What::Empty(Empty::Zero) => ExtentKind::Zero,
                What::Data(..) => ExtentKind::Data,
            };
            if !each(VolumeExtent::new(bytes, kind, Depth::Overlay)) {
                return Ok(false);
            }
        }
        Ok(true)
    }

    fn head_extents(
        &self,
        range: Range<u64>,
        each: &mut dyn FnMut(VolumeExtent) -> bool,
    ) -> Result<bool> {
        let mut at = range.start;
        if let Some(head) = &self.head {
            let view = head.view(&self.readers)?;
            for extent in view.extents(range.start, range.end - range.start)? {
                let extent = extent?;
                at = extent.start + extent.length;
                let depth = match extent.kind {
                    ExtentKind::Hole => Depth::Nowhere,
                    ExtentKind::Zero | ExtentKind::Data => Depth::Store,
                };
                if !each(VolumeExtent::new(extent.start..at, extent.kind, depth)) {
                    return Ok(false);
                }
            }
        }
        let rest = VolumeExtent::new(at..range.end, ExtentKind::Hole, Depth::Nowhere);
        Ok(at >= range.end || each(rest))
    }
}

/// What an overlay says of the blocks that a range of bytes touches.
fn pieces(overlay: &Overlay, range: &Range<u64>) -> Vec<Piece> {
    let (first, end) = (range.start / BLOCK, range.end.div_ceil(BLOCK));
    let mut pieces = Vec::new();
    overlay.pieces(first, end - first, &mut |piece| pieces.push(piece));
    pieces
}

fn clipped(piece: &Piece, range: &Range<u64>) -> Range<u64> {
    let (from, to) = (piece.first * BLOCK, (piece.first + piece.count) * BLOCK);
    from.max(range.start)..to.min(range.end)
}

/// Reads blocks and checks their sums.
pub fn verify(overlay: &Overlay, first: u64, slot: u32, sums: &[u64]) -> Result<()> {
    let mut bytes = vec![0; BLOCK_BYTES];
    for ((block, slot), sum) in (first..).zip(slot..).zip(sums.chunks(1)) {
        let stored = Stored {
            overlay,
            slot,
            sums: sum,
        };
        stored.read_blocks(block, &mut bytes)?;
    }
    Ok(())
}

/// Blocks that follow each other on the disk and in an overlay.
struct Stored<'r> {
    overlay: &'r Overlay,
    slot: u32,
    sums: &'r [u64],
}

impl Stored<'_> {
    /// Reads bytes from `offset` on, which lies in the first block.
    fn read(&self, offset: u64, into: &mut [u8]) -> Result<()> {
        let skip = (offset % BLOCK) as usize;
        if skip == 0 && into.len().is_multiple_of(BLOCK_BYTES) {
            return self.read_blocks(offset / BLOCK, into);
        }
        let mut whole = vec![0; (skip + into.len()).next_multiple_of(BLOCK_BYTES)];
        self.read_blocks(offset / BLOCK, &mut whole)?;
        into.copy_from_slice(&whole[skip..skip + into.len()]);
        Ok(())
    }

    fn read_blocks(&self, first: u64, into: &mut [u8]) -> Result<()> {
        let whole = self.overlay.read_slots(self.slot, into)?;
        let slots = (self.slot..).zip(self.sums);
        for ((bytes, block), (slot, wanted)) in
            into.chunks_exact_mut(BLOCK_BYTES).zip(first..).zip(slots)
        {
            if !whole || sum(bytes) != *wanted {
                let place = Place { slot, sum: *wanted };
                self.read_again(block, place, bytes)?;
            }
        }
        Ok(())
    }

    /// A block that was not what it must be: its slot may have been given to another while it was read, since it was written
    /// again. Only one that is still said to be there is damaged.
    fn read_again(&self, block: u64, mut tried: Place, into: &mut [u8]) -> Result<()> {
        let mut same = 0;
        for _ in 0..TRIES {
            let held = self.overlay.get(block);
            same += u32::from(held == Some(Held::Data(tried)));
            match held {
                // Once it may have gone and come back, bytes and slot, while it was read.
                Some(Held::Data(place)) if place == tried && same > 1 => {
                    return Err(Error::corrupt("reading an overlay", "a block has not its checksum")
                        .at(self.overlay.path().display())
                        .offset(u64::from(place.slot) * BLOCK)
                        .hint("snapshots are not touched by this; `still goto` takes the volume back to one"));
                }
                Some(Held::Data(place)) => {
                    let whole = self.overlay.read_slots(place.slot, into)?;
                    if whole && sum(into) == place.sum {
                        return Ok(());
                    }
                    tried = place;
                }
                // It was data a moment ago, and an overlay forgets nothing.
                Some(Held::Empty(_)) | None => {
                    into.fill(0);
                    return Ok(());
                }
            }
        }
        Err(Error::new(ErrorKind::Busy, "reading an overlay")
            .at(self.overlay.path().display())
            .detail("a block is written again as fast as it is read"))
    }
}
