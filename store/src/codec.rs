//! Items <-> frames: compression, checksums, bounds. The only file that names zstd.
//!
//! Encoding cannot fail: what zstd does not make at least a 32nd shorter, or cannot compress at all, is kept raw.
//! Decoding checks every declared size against its limit before it allocates, and the result against what was declared.
//! Contexts of zstd are kept per thread and buffers go round, so that the steady state allocates nothing.

mod remains;
pub(crate) mod spare;

pub use remains::decode_remains;
pub(crate) use remains::sum_of_lengths;

use crate::error::{Error, Result};
use crate::format::entry::PackKind;
use crate::format::pack::{
    FRAME_HEADER_BYTES, FRAME_ITEMS_MAX, FrameEncoding, FrameHeader, bad_frame, frame_checksum,
};
use crate::geometry::Compression;
use crate::limits::FRAME_BYTES_MAX;
use std::cell::RefCell;
use std::io::Cursor;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, PoisonError};
use zstd::bulk::{Compressor, Decompressor};
use zstd::stream::raw::{Decoder, InBuffer, Operation, OutBuffer};
use zstd::zstd_safe::{CParameter, DParameter};

/// A frame as it is stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EncodedFrame {
    /// The whole frame with its header.
    pub bytes: Vec<u8>,
    /// Items in it.
    pub items: u16,
    /// Bytes of all items.
    pub decoded: u32,
}

/// A frame's items.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DecodedFrame {
    data: Vec<u8>,
    lengths: Lengths,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Lengths {
    Equal(usize),
    /// Where each item ends.
    Ends(Vec<u32>),
    /// From where to where an item may be: what is left of a damaged frame.
    Anywhere(Vec<(u32, u32)>),
}

impl DecodedFrame {
    /// Bytes of all items, one after the other.
    pub fn data(&self) -> &[u8] {
        &self.data
    }

    /// The buffer, to be used again.
    pub fn into_data(self) -> Vec<u8> {
        self.data
    }

    /// How many items there are.
    pub fn items(&self) -> usize {
        match &self.lengths {
            Lengths::Equal(bytes) => self.data.len() / bytes,
            Lengths::Ends(ends) => ends.len(),
            Lengths::Anywhere(places) => places.len(),
        }
    }

    /// Item `i`; `None` past the last, which a table may name wrongly.
    pub fn item(&self, i: usize) -> Option<&[u8]> {
        match &self.lengths {
            Lengths::Equal(bytes) => self.data.get(i * bytes..(i + 1) * bytes),
            Lengths::Ends(ends) => {
                let end = *ends.get(i)? as usize;
                let start = if i == 0 { 0 } else { ends[i - 1] as usize };
                self.data.get(start..end)
            }
            Lengths::Anywhere(places) => {
                let (start, end) = *places.get(i)?;
                self.data.get(start as usize..end as usize)
            }
        }
    }

    /// All items in order.
    pub fn iter(&self) -> impl Iterator<Item = &[u8]> + '_ {
        (0..self.items()).filter_map(|i| self.item(i))
    }
}

/// Frames in a row that did not shrink before the next is probed first.
const RAW_BEFORE_PROBING: u32 = 4;
const SAMPLE_BYTES: usize = 16 << 10;
const SAMPLE_PIECES: usize = 4;

/// Notices runs of incompressible frames, so that a small sample decides before time is spent on a whole one. Shared by
/// the threads that encode one stream; a race costs a probe, nothing else.
#[derive(Debug, Default)]
pub struct Prober {
    raw_in_a_row: AtomicU32,
}

impl Prober {
    /// Whether compressing the next frame is worth trying; asks `sample_shrinks` only after a run of raw frames.
    pub fn worth_trying(&self, sample_shrinks: impl FnOnce() -> bool) -> bool {
        self.raw_in_a_row.load(Ordering::Relaxed) < RAW_BEFORE_PROBING || sample_shrinks()
    }

    /// Notes how a frame ended that was tried, or was not worth it.
    pub fn note(&self, kept_raw: bool) {
        if !kept_raw {
            self.raw_in_a_row.store(0, Ordering::Relaxed);
        } else if self.raw_in_a_row.load(Ordering::Relaxed) < RAW_BEFORE_PROBING {
            self.raw_in_a_row.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// Encodes one stream of frames from many threads: a prober and buffers that go round.
#[derive(Debug)]
pub struct FrameCodec {
    compression: Compression,
    prober: Prober,
    spare: Mutex<Vec<Vec<u8>>>,
}

/// Buffers kept for reuse: enough for the frames in flight of a small machine, at most 16 times 4 MiB.
const SPARE_MAX: usize = 16;

impl FrameCodec {
    /// A codec for one stream.
    pub fn new(compression: Compression) -> Self {
        Self {
            compression,
            prober: Prober::default(),
            spare: Mutex::default(),
        }
    }

    /// Encodes `items`: 1 to 1024, none empty, 4 MiB together at most; equally long in cluster packs.
    pub fn encode_frame(&self, kind: PackKind, items: &[&[u8]]) -> EncodedFrame {
        let mut spare = self.spare.lock().unwrap_or_else(PoisonError::into_inner);
        let buffer = spare.pop().unwrap_or_default();
        drop(spare);
        encode(kind, items, self.compression, Some(&self.prober), buffer)
    }

    /// Gives the buffer of a frame back that has been copied into its pack.
    pub fn recycle(&self, buffer: Vec<u8>) {
        let mut spare = self.spare.lock().unwrap_or_else(PoisonError::into_inner);
        if spare.len() < SPARE_MAX {
            spare.push(buffer);
        }
    }
}

/// Encodes one frame on its own, as `FrameCodec::encode_frame` does.
pub fn encode_frame(kind: PackKind, items: &[&[u8]], compression: Compression) -> EncodedFrame {
    encode(kind, items, compression, None, Vec::new())
}

fn encode(
    kind: PackKind,
    items: &[&[u8]],
    compression: Compression,
    prober: Option<&Prober>,
    mut bytes: Vec<u8>,
) -> EncodedFrame {
    let decoded: usize = items.iter().map(|item| item.len()).sum();
    assert!(
        (1..=FRAME_ITEMS_MAX).contains(&items.len()),
        "a frame has 1 to 1024 items"
    );
    assert!(
        decoded <= FRAME_BYTES_MAX as usize,
        "a frame has 4 MiB at most"
    );
    let lengths_bytes = if kind == PackKind::Nodes {
        4 * items.len()
    } else {
        0
    };
    let body_at = FRAME_HEADER_BYTES + lengths_bytes;
    bytes.clear();
    bytes.reserve(body_at + decoded);
    bytes.resize(FRAME_HEADER_BYTES, 0);
    if kind == PackKind::Nodes {
        bytes.extend(
            items
                .iter()
                .flat_map(|item| (item.len() as u32).to_le_bytes()),
        );
    }
    let encoding = match compression {
        Compression::Zstd(level) if compress(level, items, decoded, prober, &mut bytes) => {
            FrameEncoding::Zstd
        }
        _ => {
            for item in items {
                bytes.extend_from_slice(item);
            }
            FrameEncoding::Raw
        }
    };
    let encoded = (bytes.len() - body_at) as u32;
    let (items, decoded) = (items.len() as u16, decoded as u32);
    let mut header = FrameHeader {
        encoding,
        items,
        encoded,
        decoded,
        checksum: [0; 8],
    };
    header.checksum = frame_checksum(&header.encode(), &bytes[FRAME_HEADER_BYTES..]);
    bytes[..FRAME_HEADER_BYTES].copy_from_slice(&header.encode());
    EncodedFrame {
        bytes,
        items,
        decoded,
    }
}

/// What a thread keeps between frames.
#[derive(Default)]
struct Contexts {
    compressor: Option<(u8, Compressor<'static>)>,
    decompressor: Option<Decompressor<'static>>,
    /// For the beginnings of frames.
    decoder: Option<Decoder<'static>>,
    /// Items of a frame side by side, as zstd wants them.
    gathered: Vec<u8>,
    /// Where the compressed sample goes.
    sample: Vec<u8>,
}

thread_local! {
    static CONTEXTS: RefCell<Contexts> = RefCell::default();
}

/// Appends the compressed items to `out` and returns true, or leaves `out` as it was.
fn compress(
    level: u8,
    items: &[&[u8]],
    decoded: usize,
    prober: Option<&Prober>,
    out: &mut Vec<u8>,
) -> bool {
    CONTEXTS.with_borrow_mut(|contexts| {
        let Contexts {
            compressor,
            gathered,
            sample,
            ..
        } = contexts;
        let Some(compressor) = compressor_of(compressor, level) else {
            return false;
        };
        let worth_trying = prober
            .is_none_or(|p| p.worth_trying(|| sample_shrinks(compressor, items, gathered, sample)));
        let kept = worth_trying && {
            let data = gather(items, gathered);
            compress_into(compressor, data, decoded - decoded.div_ceil(32), out)
        };
        if let Some(prober) = prober {
            prober.note(!kept);
        }
        kept
    })
}

/// This thread's compressor for `level`. Without one, for want of memory, frames are raw.
fn compressor_of<'a>(
    slot: &'a mut Option<(u8, Compressor<'static>)>,
    level: u8,
) -> Option<&'a mut Compressor<'static>> {
    if slot.as_ref().is_none_or(|(at, _)| *at != level) {
        let mut fresh = Compressor::new(i32::from(level)).ok()?;
        // The frame's header has both already.
        fresh
            .set_parameter(CParameter::ContentSizeFlag(false))
            .ok()?;
        fresh.set_parameter(CParameter::ChecksumFlag(false)).ok()?;
        *slot = Some((level, fresh));
    }
    slot.as_mut().map(|(_, compressor)| compressor)
}

/// The items side by side; copied only where there are several.
fn gather<'a>(items: &[&'a [u8]], gathered: &'a mut Vec<u8>) -> &'a [u8] {
    if let [only] = items {
        return only;
    }
    gathered.clear();
    for item in items {
        gathered.extend_from_slice(item);
    }
    gathered
}

/// Appends `data` to `out` in at most `limit` bytes and returns true, or leaves `out` as it was.
fn compress_into(
    compressor: &mut Compressor<'_>,
    data: &[u8],
    limit: usize,
    out: &mut Vec<u8>,
) -> bool {
    let at = out.len();
    // zstd writes behind the cursor as far as the buffer has capacity, and gives up where that is too little.
    let mut end = Cursor::new(&mut *out);
    end.set_position(at as u64);
    let kept = compressor
        .compress_to_buffer(data, &mut end)
        .is_ok_and(|n| n <= limit);
    if !kept {
        out.truncate(at);
    }
    kept
}

/// Whether a few pieces from all over the frame shrink.
fn sample_shrinks(
    compressor: &mut Compressor<'_>,
    items: &[&[u8]],
    gathered: &mut Vec<u8>,
    sample: &mut Vec<u8>,
) -> bool {
    let piece = SAMPLE_BYTES / SAMPLE_PIECES;
    gathered.clear();
    for i in 0..SAMPLE_PIECES {
        let item = items[i * items.len() / SAMPLE_PIECES];
        // A lone item gives all the pieces; of several each gives its middle.
        let (i, of) = if items.len() < SAMPLE_PIECES {
            (i, SAMPLE_PIECES)
        } else {
            (1, 3)
        };
        let at = item.len().saturating_sub(piece) * i / (of - 1);
        gathered.extend_from_slice(&item[at..item.len().min(at + piece)]);
    }
    sample.clear();
    sample.reserve(SAMPLE_BYTES);
    compress_into(
        compressor,
        gathered,
        gathered.len() - gathered.len().div_ceil(32),
        sample,
    )
}

/// Proves a whole frame by its checksum without decoding it.
pub fn frame_check(bytes: &[u8]) -> Result<FrameHeader> {
    let header = FrameHeader::decode(bytes)?;
    if ![PackKind::Clusters, PackKind::Nodes]
        .iter()
        .any(|k| header.stored_bytes(*k) == bytes.len())
    {
        return Err(bad_frame("its lengths do not fit its size"));
    }
    if frame_checksum(bytes, &bytes[FRAME_HEADER_BYTES..]) != header.checksum {
        return Err(bad_frame("the checksum does not fit"));
    }
    Ok(header)
}

/// Checks and decodes a whole frame of a pack of `kind` in a store with clusters of `cluster_bytes`.
pub fn decode_frame(kind: PackKind, cluster_bytes: u32, bytes: &[u8]) -> Result<DecodedFrame> {
    let mut buffer = Vec::new();
    let header = frame_check(bytes)?;
    if header.stored_bytes(kind) != bytes.len() {
        return Err(bad_frame("it is one of another kind of pack"));
    }
    let (lengths, body) = bytes[FRAME_HEADER_BYTES..].split_at(header.lengths_bytes(kind));
    let lengths = decode_lengths(kind, cluster_bytes, &header, lengths)?;
    decode_body(&header, body, header.decoded as usize, &mut buffer)?;
    Ok(DecodedFrame {
        data: buffer,
        lengths,
    })
}

/// Decodes the first `items` clusters of a frame, or as many as it has. For callers that check the hash of each cluster
/// that they use: the frame's checksum, which costs time and proves nothing beyond that, is not looked at.
pub fn decode_clusters(
    cluster_bytes: u32,
    bytes: &[u8],
    items: usize,
    mut buffer: Vec<u8>,
) -> Result<DecodedFrame> {
    let header = FrameHeader::decode(bytes)?;
    if header.stored_bytes(PackKind::Clusters) != bytes.len() {
        return Err(bad_frame("its lengths do not fit its size"));
    }
    let lengths = decode_lengths(PackKind::Clusters, cluster_bytes, &header, &[])?;
    let wanted = items.min(usize::from(header.items)) * cluster_bytes as usize;
    decode_body(&header, &bytes[FRAME_HEADER_BYTES..], wanted, &mut buffer)?;
    Ok(DecodedFrame {
        data: buffer,
        lengths,
    })
}

/// Leaves the first `wanted` bytes of what the body holds in `buffer`; all of them only if that is what the header declares.
fn decode_body(
    header: &FrameHeader,
    body: &[u8],
    wanted: usize,
    buffer: &mut Vec<u8>,
) -> Result<()> {
    // LIMIT: the header was checked to declare 4 MiB at most.
    if header.encoding == FrameEncoding::Zstd && wanted < header.decoded as usize {
        decompress_start(body, wanted, buffer)?;
    } else {
        buffer.clear();
        buffer.reserve_exact(wanted);
        match header.encoding {
            FrameEncoding::Raw => buffer.extend_from_slice(body.get(..wanted).unwrap_or(body)),
            FrameEncoding::Zstd => decompress(body, buffer)?,
        }
    }
    if buffer.len() != wanted {
        return Err(bad_frame("it decodes to another size than it declares"));
    }
    Ok(())
}

fn decompress(body: &[u8], buffer: &mut Vec<u8>) -> Result<()> {
    CONTEXTS.with_borrow_mut(|contexts| {
        let decompressor = made(&mut contexts.decompressor, Decompressor::new)?;
        // Bounded by the buffer's capacity, whatever the bytes say.
        decompressor
            .decompress_to_buffer(body, buffer)
            .map_err(cannot_decode)?;
        Ok(())
    })
}

/// Decodes until the buffer has `wanted` bytes and looks no further.
fn decompress_start(body: &[u8], wanted: usize, buffer: &mut Vec<u8>) -> Result<()> {
    spare::fit(buffer, wanted);
    CONTEXTS.with_borrow_mut(|contexts| {
        let decoder = made(&mut contexts.decoder, || {
            let mut fresh = Decoder::new()?;
            // LIMIT: no frame needs a window larger than itself, and a larger one would be allocated.
            fresh.set_parameter(DParameter::WindowLogMax(FRAME_BYTES_MAX.ilog2()))?;
            Ok(fresh)
        })?;
        decoder.reinit().map_err(cannot_decode)?;
        let mut from = InBuffer::around(body);
        let mut to = OutBuffer::around(&mut buffer[..]);
        while to.pos() < wanted {
            let before = (from.pos(), to.pos());
            decoder.run(&mut from, &mut to).map_err(cannot_decode)?;
            if before == (from.pos(), to.pos()) {
                return Err(bad_frame("it decodes to another size than it declares"));
            }
        }
        Ok(())
    })
}

fn made<T>(slot: &mut Option<T>, make: impl FnOnce() -> std::io::Result<T>) -> Result<&mut T> {
    match slot {
        Some(made) => Ok(made),
        None => Ok(slot.insert(make().map_err(|e| Error::io("preparing to decompress", e))?)),
    }
}

fn cannot_decode(e: std::io::Error) -> Error {
    bad_frame("zstd cannot decode it").source(e)
}

fn decode_lengths(
    kind: PackKind,
    cluster_bytes: u32,
    header: &FrameHeader,
    bytes: &[u8],
) -> Result<Lengths> {
    if kind == PackKind::Clusters {
        if cluster_bytes == 0
            || u64::from(header.items) * u64::from(cluster_bytes) != u64::from(header.decoded)
        {
            return Err(bad_frame("its items are not of the store's cluster size"));
        }
        return Ok(Lengths::Equal(cluster_bytes as usize));
    }
    let mut ends = Vec::with_capacity(usize::from(header.items));
    let mut end = 0u32;
    for length in bytes.as_chunks::<4>().0 {
        let length = u32::from_le_bytes(*length);
        end = match end.checked_add(length) {
            Some(end) if length > 0 && end <= header.decoded => end,
            _ => return Err(bad_frame("the lengths of its items cannot be")),
        };
        ends.push(end);
    }
    if end != header.decoded {
        return Err(bad_frame("the lengths of its items do not add up"));
    }
    Ok(Lengths::Ends(ends))
}

#[cfg(test)]
mod tests;
