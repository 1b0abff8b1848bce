//! Frames that are encoded come back, and forged ones do not get far.

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

#[test]
fn the_beginning_of_a_frame_decodes_to_the_beginning_of_the_whole() {
    let size = C as usize;
    let data = [text(1, 40 * size), noise(1, 24 * size)].concat();
    let items: Vec<&[u8]> = data.chunks(size).collect();
    for compression in [Compression::None, Compression::Zstd(6)] {
        let frame = encode_frame(PackKind::Clusters, &items, compression);
        let mut buffer = Vec::new();
        for wanted in [1, 17, 63, 64, 1000] {
            let read = decode_clusters(C, &frame.bytes, wanted, buffer).unwrap();
            let bytes = wanted.min(64) * size;
            assert!(read.data() == &data[..bytes], "{wanted} of {compression:?}");
            assert!(read.item(wanted).is_none());
            buffer = read.into_data();
        }
    }
}

#[test]
fn the_beginning_of_a_bad_frame_is_an_error_or_has_other_bytes_but_never_more() {
    let size = C as usize;
    let data = text(1, 16 * size);
    let items: Vec<&[u8]> = data.chunks(size).collect();
    let good = encode_frame(PackKind::Clusters, &items, Compression::Zstd(6)).bytes;
    let mut seen_error = false;
    for bit in 0..good.len() * 8 {
        let mut bad = good.clone();
        bad[bit / 8] ^= 1 << (bit % 8);
        match decode_clusters(C, &bad, 5, Vec::new()) {
            Ok(read) => assert!(read.data().len() <= 5 * size, "bit {bit}"),
            Err(_) => seen_error = true,
        }
    }
    assert!(seen_error);
    for cut in 0..good.len() {
        assert!(
            decode_clusters(C, &good[..cut], 5, Vec::new()).is_err(),
            "cut at {cut}"
        );
    }
}
