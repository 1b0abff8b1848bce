//! Parts of packs come back as written, and damaged or forged ones are refused.

use super::*;
use proptest::prelude::*;

fn name() -> PackName {
    PackName {
        session: SessionId {
            opened_at: 3,
            nonce: 0x1122_3344_5566_7788,
        },
        n: 9,
    }
}

fn header() -> PackHeader {
    let (kind, store) = (PackKind::Nodes, Uid([5; 16]));
    PackHeader {
        name: name(),
        kind,
        cluster_bytes: 16 << 10,
        store,
    }
}

fn trailer() -> Trailer {
    Trailer {
        table_offset: 5000,
        blocks: 2,
        entries: 150,
        frames: 12,
        decoded: 1 << 20,
    }
}

fn frame() -> FrameHeader {
    let (encoding, checksum) = (FrameEncoding::Zstd, [1; 8]);
    FrameHeader {
        encoding,
        items: 16,
        encoded: 70_000,
        decoded: 262_144,
        checksum,
    }
}

#[test]
fn every_part_is_read_back_as_written() {
    assert_eq!(PackHeader::decode(&header().encode()).unwrap(), header());
    assert_eq!(
        Trailer::decode(&name(), &trailer().encode(&name())).unwrap(),
        trailer()
    );
    assert_eq!(FrameHeader::decode(&frame().encode()).unwrap(), frame());
    assert_eq!(frame().stored_bytes(PackKind::Clusters), 24 + 70_000);
    assert_eq!(frame().stored_bytes(PackKind::Nodes), 24 + 64 + 70_000);
}

#[test]
fn a_flipped_bit_in_header_or_trailer_is_found() {
    let (head, tail) = (header().encode(), trailer().encode(&name()));
    for bit in 0..HEADER_BYTES * 8 {
        let (mut bad_head, mut bad_tail) = (head, tail);
        bad_head[bit / 8] ^= 1 << (bit % 8);
        bad_tail[bit / 8] ^= 1 << (bit % 8);
        assert!(PackHeader::decode(&bad_head).is_err(), "header bit {bit}");
        assert!(
            Trailer::decode(&name(), &bad_tail).is_err(),
            "trailer bit {bit}"
        );
    }
}

#[test]
fn the_trailer_of_another_pack_does_not_pass() {
    let other = PackName { n: 10, ..name() };
    assert!(Trailer::decode(&other, &trailer().encode(&name())).is_err());
}

#[test]
fn the_bytes_are_those_of_the_format() {
    let head = header().encode();
    assert_eq!(&head[..13], b"STILLPAK\x01\0\0\0\x01");
    assert_eq!(head[16..36], seal_of(&name()));
    assert_eq!(head[56..], Hash::of(&head[..56]).0[..8]);
    assert_eq!(&frame().encode()[..8], b"SFRM\x01\0\x10\0");
}

#[test]
fn lengths_over_their_limits_are_refused() {
    let raw = FrameHeader {
        encoding: FrameEncoding::Raw,
        encoded: 4096,
        ..frame()
    };
    let cases = [
        (
            FrameHeader {
                items: 0,
                ..frame()
            },
            false,
        ),
        (
            FrameHeader {
                items: 1024,
                ..frame()
            },
            true,
        ),
        (
            FrameHeader {
                items: 1025,
                ..frame()
            },
            false,
        ),
        (
            FrameHeader {
                decoded: FRAME_BYTES_MAX,
                ..frame()
            },
            true,
        ),
        (
            FrameHeader {
                decoded: FRAME_BYTES_MAX + 1,
                ..frame()
            },
            false,
        ),
        (
            FrameHeader {
                encoded: frame().decoded,
                ..frame()
            },
            false,
        ),
        (
            FrameHeader {
                encoded: 0,
                ..frame()
            },
            false,
        ),
        (
            FrameHeader {
                decoded: 15,
                encoded: 5,
                ..frame()
            },
            false,
        ),
        (
            FrameHeader {
                decoded: 4096,
                ..raw
            },
            true,
        ),
        (
            FrameHeader {
                decoded: 4097,
                ..raw
            },
            false,
        ),
    ];
    for (header, good) in cases {
        assert_eq!(
            FrameHeader::decode(&header.encode()).is_ok(),
            good,
            "{header:?}"
        );
    }
}

#[test]
fn a_trailer_whose_numbers_cannot_be_is_refused_though_its_checksum_fits() {
    let cases = [
        Trailer {
            table_offset: 64,
            ..trailer()
        },
        Trailer {
            table_offset: PACK_BYTES_MAX,
            ..trailer()
        },
        Trailer {
            blocks: 0,
            ..trailer()
        },
        Trailer {
            blocks: u32::MAX,
            ..trailer()
        },
        Trailer {
            entries: 1,
            ..trailer()
        },
        Trailer {
            entries: 256,
            ..trailer()
        },
        Trailer {
            frames: 0,
            ..trailer()
        },
        Trailer {
            frames: 151,
            ..trailer()
        },
        Trailer {
            decoded: u64::MAX,
            ..trailer()
        },
    ];
    for bad in cases {
        assert!(
            Trailer::decode(&name(), &bad.encode(&name())).is_err(),
            "{bad:?}"
        );
    }
}

#[test]
fn places_outside_a_pack_are_refused() {
    let good = |offset, bytes| FrameRef { offset, bytes }.check().is_ok();
    let end = PACK_BYTES_MAX - TRAILER_BYTES as u32;
    assert!(good(64, 100) && good(end - 100, 100) && good(64, FRAME_STORED_BYTES_MAX));
    assert!(!good(63, 100) && !good(end - 99, 100) && !good(u32::MAX, 100));
    assert!(!good(64, 24) && !good(64, FRAME_STORED_BYTES_MAX + 1) && !good(64, u32::MAX));
}

use crate::id::Hash;

proptest! {
    #[test]
    fn arbitrary_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..80)) {
        let _ = PackHeader::decode(&bytes);
        let _ = Trailer::decode(&name(), &bytes);
        if let Ok(header) = FrameHeader::decode(&bytes) {
            prop_assert_eq!(&header.encode()[..], &bytes[..FRAME_HEADER_BYTES]);
        }
    }
}
