//! Compressed clusters in and out. The only file that names flate2 and zstd.
//!
//! Decoding writes into a cluster's worth of memory and no further, whatever the stream claims; contexts are kept a
//! thread.

use flate2::{Compress, Decompress, FlushCompress, FlushDecompress, Status};
use std::cell::RefCell;
use zstd::bulk::{Compressor, Decompressor};
use zstd::zstd_safe::find_frame_compressed_size;

/// How clusters of an image are compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Compression {
    /// Raw deflate.
    Zlib,
    /// A zstd frame. Only in version 3.
    Zstd,
}

/// qcow2 promises its readers that no match reaches further back.
const WINDOW_BITS: u8 = 12;

thread_local! {
    static INFLATE: RefCell<Decompress> =
        RefCell::new(Decompress::new_with_window_bits(false, 15));
    static UNZSTD: RefCell<Option<Decompressor<'static>>> = const { RefCell::new(None) };
}

/// Fills `out`, a whole cluster, from a stream that may be followed by anything; says what is wrong with it.
pub(super) fn decode(
    compression: Compression,
    input: &[u8],
    out: &mut [u8],
) -> Result<(), &'static str> {
    match compression {
        Compression::Zlib => INFLATE.with_borrow_mut(|inflate| unzlib(inflate, input, out)),
        Compression::Zstd => unzstd(input, out),
    }
}

/// Fills `out` from one whole stream, as `Encoder` makes them, that may be followed by anything; the bytes of the stream.
pub(super) fn decode_exactly(
    compression: Compression,
    input: &[u8],
    out: &mut [u8],
) -> Option<usize> {
    match compression {
        Compression::Zlib => INFLATE.with_borrow_mut(|inflate| {
            inflate.reset(false);
            let end = inflate.decompress(input, out, FlushDecompress::Finish);
            let whole = matches!(end, Ok(Status::StreamEnd));
            (whole && inflate.total_out() == out.len() as u64).then(|| inflate.total_in() as usize)
        }),
        Compression::Zstd => {
            if !has_small_window(input, out.len()) {
                return None;
            }
            let len = find_frame_compressed_size(input).ok()?;
            unzstd(input.get(..len)?, out).is_ok().then_some(len)
        }
    }
}

/// Whether a zstd frame needs no dictionary and no window longer than a cluster (RFC 8878, 3.1.1.1): QEMU decodes in a
/// stream, which refuses long ones.
fn has_small_window(frame: &[u8], cluster: usize) -> bool {
    let Some([descriptor, window]) = frame.get(4..6) else {
        return false;
    };
    let (single_segment, dictionary) = (descriptor & 0x20 != 0, descriptor & 3 != 0);
    let base = 1_u64 << (10 + (window >> 3));
    let long = base + base / 8 * u64::from(window & 7) > (cluster as u64).max(1 << 10);
    // The window of a single segment is what it decodes to: a cluster.
    !dictionary && (single_segment || !long)
}

fn unzlib(inflate: &mut Decompress, input: &[u8], out: &mut [u8]) -> Result<(), &'static str> {
    inflate.reset(false);
    // Full before the stream's end is fine: a cluster is all that is asked for.
    let end = inflate.decompress(input, out, FlushDecompress::Finish);
    match end {
        Ok(_) if inflate.total_out() == out.len() as u64 => Ok(()),
        Ok(_) => Err("the deflate stream is too short for a cluster"),
        Err(_) => Err("this is no deflate stream"),
    }
}

fn unzstd(mut input: &[u8], out: &mut [u8]) -> Result<(), &'static str> {
    const BAD: &str = "this is no zstd frame of a cluster";
    let mut done = 0;
    // One frame in all that QEMU writes; a stream of several is allowed. Each consumes input, so this ends.
    while done < out.len() {
        let frame = find_frame_compressed_size(input).map_err(|_| BAD)?;
        let (frame, rest) = input.split_at_checked(frame).ok_or(BAD)?;
        if frame.is_empty() {
            return Err(BAD);
        }
        done += UNZSTD.with_borrow_mut(|context| {
            let context = match context {
                Some(context) => context,
                None => context.insert(Decompressor::new().map_err(|_| "zstd has no memory")?),
            };
            context
                .decompress_to_buffer(frame, &mut out[done..])
                .map_err(|_| BAD)
        })?;
        input = rest;
    }
    Ok(())
}

/// Compresses clusters; one a thread.
pub(super) struct Encoder(Context);

enum Context {
    Zlib(Compress),
    Zstd(Box<Compressor<'static>>),
}

impl Encoder {
    /// `level` as the library has it: 0 to 9 for zlib, 1 to 22 for zstd. `None` when there is no memory for it.
    pub fn new(compression: Compression, level: u32) -> Option<Self> {
        Some(Self(match compression {
            Compression::Zlib => {
                let level = flate2::Compression::new(level.min(9));
                let context = Compress::new_with_window_bits(level, false, WINDOW_BITS);
                Context::Zlib(context)
            }
            Compression::Zstd => {
                let level = level.clamp(1, 22).cast_signed();
                Context::Zstd(Box::new(Compressor::new(level).ok()?))
            }
        }))
    }

    /// Compresses a cluster into `out`; `None` when it does not fit: keep it as it is.
    pub fn encode(&mut self, cluster: &[u8], out: &mut [u8]) -> Option<usize> {
        match &mut self.0 {
            Context::Zlib(context) => {
                context.reset();
                let end = context.compress(cluster, out, FlushCompress::Finish);
                matches!(end, Ok(Status::StreamEnd)).then(|| context.total_out() as usize)
            }
            Context::Zstd(context) => context.compress_to_buffer(cluster, out).ok(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(len: usize) -> Vec<u8> {
        (0..len as u64)
            .flat_map(|n| (n * n % 1009).to_le_bytes())
            .take(len)
            .collect()
    }

    #[test]
    fn what_is_encoded_decodes_whatever_follows_it() {
        for compression in [Compression::Zlib, Compression::Zstd] {
            for bytes in [512, 65536, 2 << 20] {
                let cluster = text(bytes);
                let mut encoder = Encoder::new(compression, 1).unwrap();
                let mut stream = vec![0xaa; bytes + 99];
                let len = encoder.encode(&cluster, &mut stream[..bytes - 1]).unwrap();
                let mut back = vec![0; bytes];
                decode(compression, &stream, &mut back).unwrap();
                assert!(back == cluster, "{compression:?} of {bytes} bytes");
                back.fill(0);
                assert_eq!(decode_exactly(compression, &stream, &mut back), Some(len));
                assert!(back == cluster, "{compression:?} of {bytes} bytes");
                let cut = &stream[..len - 1];
                assert_eq!(decode_exactly(compression, cut, &mut back), None);
                assert!(decode(compression, &stream[..len / 2], &mut back).is_err());
                assert!(decode(compression, &[], &mut back).is_err());
            }
        }
    }

    #[test]
    fn noise_is_not_compressed() {
        let mut noise = vec![0; 65536];
        blake3::Hasher::new().finalize_xof().fill(&mut noise);
        for compression in [Compression::Zlib, Compression::Zstd] {
            let mut encoder = Encoder::new(compression, 1).unwrap();
            assert_eq!(encoder.encode(&noise, &mut vec![0; noise.len() - 1]), None);
        }
    }
}
