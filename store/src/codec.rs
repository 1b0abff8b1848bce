//! Items <-> frames: compression, checksums, bounds. The only file that names zstd.
//!
//! Encoding cannot fail: what zstd does not make at least a 32nd shorter, or cannot compress at all, is kept raw.
//! Decoding checks every declared size against its limit before it allocates, and the result against what was declared.
//! Contexts of zstd are kept per thread and buffers go round, so that the steady state allocates nothing.

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
use zstd::zstd_safe::CParameter;

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
    decode_frame_into(kind, cluster_bytes, bytes, Vec::new())
}

/// `decode_frame` into a buffer that was used before.
pub fn decode_frame_into(
    kind: PackKind,
    cluster_bytes: u32,
    bytes: &[u8],
    mut buffer: Vec<u8>,
) -> Result<DecodedFrame> {
    let header = frame_check(bytes)?;
    if header.stored_bytes(kind) != bytes.len() {
        return Err(bad_frame("it is one of another kind of pack"));
    }
    let (lengths, body) = bytes[FRAME_HEADER_BYTES..].split_at(header.lengths_bytes(kind));
    let lengths = decode_lengths(kind, cluster_bytes, &header, lengths)?;
    buffer.clear();
    // LIMIT: the header was checked to declare 4 MiB at most.
    buffer.reserve_exact(header.decoded as usize);
    match header.encoding {
        FrameEncoding::Raw => buffer.extend_from_slice(body),
        FrameEncoding::Zstd => decompress(body, &mut buffer)?,
    }
    if buffer.len() != header.decoded as usize {
        return Err(bad_frame("it decodes to another size than it declares"));
    }
    Ok(DecodedFrame {
        data: buffer,
        lengths,
    })
}

fn decompress(body: &[u8], buffer: &mut Vec<u8>) -> Result<()> {
    CONTEXTS.with_borrow_mut(|contexts| {
        if contexts.decompressor.is_none() {
            let fresh = Decompressor::new().map_err(|e| Error::io("preparing to decompress", e))?;
            contexts.decompressor = Some(fresh);
        }
        let decompressor = contexts.decompressor.as_mut().expect("made above");
        // Bounded by the buffer's capacity, whatever the bytes say.
        decompressor
            .decompress_to_buffer(body, buffer)
            .map_err(|e| bad_frame("zstd cannot decode it").source(e))?;
        Ok(())
    })
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
mod tests {
    use super::*;
    use proptest::prelude::*;

    const C: u32 = 4096;
    const ZSTD: Compression = Compression::Zstd(3);

    /// Bytes that no compressor shrinks.
    fn noise(seed: u64, bytes: usize) -> Vec<u8> {
        let mut out = vec![0; bytes];
        let mut hasher = blake3::Hasher::new();
        hasher
            .update(&seed.to_le_bytes())
            .finalize_xof()
            .fill(&mut out);
        out
    }

    fn text(seed: u64, bytes: usize) -> Vec<u8> {
        (seed..)
            .flat_map(|n| format!("line {n} of a log\n").into_bytes())
            .take(bytes)
            .collect()
    }

    fn refused(kind: PackKind, bytes: &[u8]) -> String {
        decode_frame(kind, C, bytes).unwrap_err().to_string()
    }

    /// Puts the right checksum into a forged frame.
    fn sign(frame: &mut [u8]) {
        let sum = frame_checksum(frame, &frame[FRAME_HEADER_BYTES..]);
        frame[16..24].copy_from_slice(&sum);
    }

    #[test]
    fn what_shrinks_is_compressed_and_what_does_not_is_raw() {
        for (data, encoding) in [(text(0, 4096), 1), (noise(0, 4096), 0)] {
            let frame = encode_frame(PackKind::Clusters, &[&data, &data[..]], ZSTD);
            // Two equal clusters of noise shrink to one.
            assert_eq!(frame.bytes[4], 1);
            let frame = encode_frame(PackKind::Clusters, &[&data], ZSTD);
            assert_eq!(frame.bytes[4], encoding);
            let read = decode_frame(PackKind::Clusters, C, &frame.bytes).unwrap();
            assert_eq!(read.item(0), Some(&data[..]));
            let plain = encode_frame(PackKind::Clusters, &[&data], Compression::None);
            assert_eq!((plain.bytes[4], plain.bytes.len()), (0, 24 + 4096));
        }
    }

    #[test]
    fn a_frame_that_saves_less_than_a_32nd_is_kept_raw() {
        let mut data = noise(1, 4096);
        data[..100].fill(0);
        assert_eq!(encode_frame(PackKind::Clusters, &[&data], ZSTD).bytes[4], 0);
        data[..200].fill(0);
        let frame = encode_frame(PackKind::Clusters, &[&data], ZSTD);
        assert_eq!(frame.bytes[4], 1);
        assert!(frame.bytes.len() <= 24 + 4096 - 128);
    }

    #[test]
    fn the_largest_frames_are_read_back() {
        let cluster = noise(2, 4096);
        let many = vec![&cluster[..]; 1024];
        let big = noise(3, 4 << 20);
        for items in [&many[..], &[&big[..]]] {
            for (kind, compression) in [
                (PackKind::Clusters, ZSTD),
                (PackKind::Nodes, Compression::None),
            ] {
                let frame = encode_frame(kind, items, compression);
                let cluster_bytes = items[0].len() as u32;
                let read = decode_frame(kind, cluster_bytes, &frame.bytes).unwrap();
                assert!(read.iter().eq(items.iter().copied()));
            }
        }
    }

    #[test]
    fn a_flipped_bit_anywhere_is_found() {
        for (kind, items) in [
            (PackKind::Clusters, vec![text(0, 4096)]),
            (
                PackKind::Nodes,
                vec![noise(0, 30), text(5, 400), noise(1, 8)],
            ),
        ] {
            let items: Vec<&[u8]> = items.iter().map(|i| &i[..]).collect();
            let good = encode_frame(kind, &items, ZSTD).bytes;
            for bit in 0..good.len() * 8 {
                let mut bad = good.clone();
                bad[bit / 8] ^= 1 << (bit % 8);
                assert!(frame_check(&bad).is_err(), "bit {bit}");
                assert!(decode_frame(kind, C, &bad).is_err(), "bit {bit}");
            }
            for cut in [0, 1, 23, 24, good.len() - 1] {
                assert!(decode_frame(kind, C, &good[..cut]).is_err(), "cut at {cut}");
            }
            let longer = [&good[..], &[0]].concat();
            assert!(decode_frame(kind, C, &longer).is_err());
        }
    }

    #[test]
    fn a_forged_frame_that_lies_about_its_sizes_is_refused() {
        let good = encode_frame(PackKind::Clusters, &[&text(0, 8192)], ZSTD).bytes;
        let forge = |at: usize, value: u32| {
            let mut bad = good.clone();
            bad[at..at + 4].copy_from_slice(&value.to_le_bytes());
            sign(&mut bad);
            bad
        };
        let two_items = |mut frame: Vec<u8>, items: u16| {
            frame[6..8].copy_from_slice(&items.to_le_bytes());
            sign(&mut frame);
            frame
        };
        assert!(decode_frame(PackKind::Clusters, C, &two_items(good.clone(), 2)).is_ok());
        let short = two_items(forge(12, 4096), 1);
        assert!(
            refused(PackKind::Clusters, &short).contains("zstd"),
            "decodes to more"
        );
        let long = two_items(forge(12, 12288), 3);
        assert!(
            refused(PackKind::Clusters, &long).contains("another size"),
            "decodes to less"
        );
        assert!(refused(PackKind::Clusters, &two_items(good.clone(), 3)).contains("cluster size"));
        let garbage = forge(24, 0xffff_ffff);
        assert!(refused(PackKind::Clusters, &two_items(garbage, 2)).contains("zstd"));
    }

    #[test]
    fn forged_lengths_of_items_are_refused() {
        let good = encode_frame(PackKind::Nodes, &[&noise(0, 10), &noise(1, 20)], ZSTD).bytes;
        assert_eq!(decode_frame(PackKind::Nodes, C, &good).unwrap().items(), 2);
        for (first, second) in [(10, 19), (10, 21), (0, 30), (30, 0), (u32::MAX, 31)] {
            let mut bad = good.clone();
            bad[24..28].copy_from_slice(&u32::to_le_bytes(first));
            bad[28..32].copy_from_slice(&u32::to_le_bytes(second));
            sign(&mut bad);
            assert!(
                refused(PackKind::Nodes, &bad).contains("lengths"),
                "{first} {second}"
            );
        }
        assert!(refused(PackKind::Clusters, &good).contains("another kind"));
    }

    #[test]
    fn after_four_raw_frames_only_a_sample_is_tried_until_one_shrinks() {
        let prober = Prober::default();
        let asked = |shrinks: bool| {
            let mut asked = false;
            let worth = prober.worth_trying(|| {
                asked = true;
                shrinks
            });
            (asked, worth)
        };
        for _ in 0..4 {
            assert_eq!(asked(false), (false, true));
            prober.note(true);
        }
        assert_eq!(asked(false), (true, false));
        assert_eq!(asked(true), (true, true));
        prober.note(true);
        assert_eq!(
            asked(true),
            (true, true),
            "the frame was raw after all: probes go on"
        );
        prober.note(false);
        assert_eq!(asked(false), (false, true));
    }

    #[test]
    fn a_stream_that_turns_compressible_again_is_compressed_from_its_first_frame_on() {
        let codec = FrameCodec::new(ZSTD);
        for bytes in [1 << 16, 5000, 100, 3] {
            let encoding = |data: &[u8]| {
                let frame = codec.encode_frame(PackKind::Clusters, &[data]);
                let encoding = frame.bytes[4];
                codec.recycle(frame.bytes);
                encoding
            };
            for i in 0..6 {
                assert_eq!(encoding(&noise(i, bytes)), 0);
            }
            if bytes > 99 {
                assert_eq!(encoding(&vec![7; bytes]), 1);
            }
        }
        // What only shrinks outside the first item is found too.
        let (dull, dense) = (vec![0; 4096], noise(9, 4096));
        let mixed = [&dense[..], &dense, &dull, &dull, &dull, &dull, &dull, &dull];
        (0..6).for_each(|_| drop(codec.encode_frame(PackKind::Clusters, &[&dense])));
        assert_eq!(codec.encode_frame(PackKind::Clusters, &mixed).bytes[4], 1);
    }

    proptest! {
        #[test]
        fn what_is_encoded_is_decoded(
            items in prop::collection::vec(prop::collection::vec(0u8..4, 1..300), 1..40),
            level in prop::option::of(1u8..6),
        ) {
            let items: Vec<&[u8]> = items.iter().map(|i| &i[..]).collect();
            let compression = level.map_or(Compression::None, Compression::Zstd);
            let frame = encode_frame(PackKind::Nodes, &items, compression);
            prop_assert_eq!(usize::from(frame.items), items.len());
            let read = decode_frame(PackKind::Nodes, C, &frame.bytes).unwrap();
            prop_assert_eq!(read.data().len(), frame.decoded as usize);
            prop_assert!(read.iter().eq(items.iter().copied()));
            prop_assert!(read.item(items.len()).is_none());
        }

        #[test]
        fn arbitrary_bytes_under_a_good_checksum_never_panic(
            mut bytes in prop::collection::vec(any::<u8>(), 24..200),
            items in 0u16..4, decoded in 0u32..9000, nodes: bool, zstd: bool,
        ) {
            let kind = if nodes { PackKind::Nodes } else { PackKind::Clusters };
            let lengths = if nodes { 4 * usize::from(items) } else { 0 };
            let encoded = bytes.len().saturating_sub(24 + lengths) as u32;
            let encoding = if zstd { FrameEncoding::Zstd } else { FrameEncoding::Raw };
            let header = FrameHeader { encoding, items, encoded, decoded, checksum: [0; 8] };
            bytes[..24].copy_from_slice(&header.encode());
            sign(&mut bytes);
            let _ = decode_frame(kind, C, &bytes);
        }
    }
}
