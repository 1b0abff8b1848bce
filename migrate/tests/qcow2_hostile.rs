//! Images that were made to harm: each gives an error that says what and where, or harmless bytes, in bounded time.

// Tests say what went wrong by the panic, and so do their helpers.
#![allow(clippy::unwrap_used)]

mod support;

use std::io::Read;
use std::path::Path;
use stillpoint_migrate::qcow2::write::{
    Content, Draft, Key, Options, Part, Piece, Pieces, Source, write,
};
use stillpoint_migrate::qcow2::{Compression, Extent, Gate, Header, Image, Snapshot, State};
use stillpoint_migrate::{Error, ErrorKind, Result};
use stillpoint_store::disk::sim::SimDisk;
use stillpoint_store::disk::{Disk, OpenMode};
use stillpoint_store::progress::Progress;
use support::Dice;

const CLUSTER: u64 = 512;
const SIZE: u64 = 100 << 10;

/// A disk with something of every kind.
struct Little;

impl Source for Little {
    fn pieces(&self, part: Part) -> Result<Pieces<'_>> {
        let (seed, len) = match part {
            Part::Active => (1, 40),
            Part::Disk(n) => (n as u8, 20),
            Part::VmState(_) => (9, 5),
        };
        Ok(Box::new((0..len).map(move |n| {
            let content = match n % 4 {
                0 => Content::Zero,
                kind => Content::Data {
                    key: Key([seed + kind as u8; 32]),
                    offset: n,
                },
            };
            Ok(Piece {
                start: n * CLUSTER,
                len: CLUSTER,
                content,
            })
        })))
    }

    fn read(&self, key: &Key, offset: u64, buf: &mut [u8]) -> Result<()> {
        let mut dice = Dice(offset);
        for b in buf {
            *b = if key.0[0] == 3 {
                dice.next() as u8
            } else {
                key.0[0]
            };
        }
        Ok(())
    }
}

fn good(options: &Options) -> Vec<u8> {
    let snapshot = |n: u8| Snapshot {
        id: vec![b'0' + n],
        name: b"name".to_vec(),
        vm_state_size: 5 * CLUSTER,
        ..Snapshot::default()
    };
    let draft = Draft {
        size: SIZE,
        snapshots: vec![snapshot(1), snapshot(2)],
    };
    let disk = SimDisk::new(1);
    let file = disk.open(Path::new("/a"), OpenMode::CreateNew).unwrap();
    write(&*file, &draft, options, &Little, &Progress::default()).unwrap();
    let mut bytes = vec![0; file.len().unwrap() as usize];
    file.read_at(0, &mut bytes).unwrap();
    bytes
}

fn options() -> Options {
    Options {
        cluster_bits: 9,
        ..Options::default()
    }
}

/// Opens an image and touches all that is in it.
fn walk(bytes: &[u8]) -> Result<u64> {
    let disk = SimDisk::new(1);
    let path = Path::new("/a");
    let file = disk.open(path, OpenMode::CreateNew)?;
    file.write_at(0, bytes)?;
    let image = Image::open(&disk, path, &Gate::closed())?;
    let mut steps = walk_state(&image, &image.active()?)?;
    for n in 0..image.top().snapshots().len() {
        let state = image.snapshot(n)?;
        steps += walk_state(&image, &state)?;
        std::io::copy(
            &mut state.read_vm_state().take(1 << 20),
            &mut std::io::sink(),
        )
        .map_err(|e| match e.downcast::<Error>() {
            Ok(e) => e,
            Err(e) => Error::io("reading VM state", e),
        })?;
        for change in image.active()?.changes(&state)? {
            change?;
            steps += 1;
        }
    }
    Ok(steps)
}

fn walk_state(image: &Image, state: &State) -> Result<u64> {
    let mut steps = 0;
    let mut buf = vec![0; 4096];
    for mapped in image.map(state, 0..u64::MAX) {
        let mapped = mapped?.mapped;
        let len = mapped.len.min(buf.len() as u64) as usize;
        image.read(state, mapped.start, &mut buf[..len])?;
        steps += 1;
    }
    Ok(steps)
}

fn header(bytes: &[u8]) -> Header {
    Header::decode(bytes).unwrap()
}

fn be64(bytes: &[u8], at: u64) -> u64 {
    u64::from_be_bytes(bytes[at as usize..at as usize + 8].try_into().unwrap())
}

#[track_caller]
fn refused(bytes: &[u8], kind: ErrorKind, says: &str) {
    let error = walk(bytes).expect_err(says);
    assert_eq!(error.kind(), kind, "{error:?}");
    assert!(
        format!("{error:?}").contains(says),
        "{says:?} not in {error:?}"
    );
}

/// The good image with bytes changed.
#[track_caller]
fn poked(at: u64, with: &[u8], kind: ErrorKind, says: &str) {
    let mut bytes = good(&options());
    bytes[at as usize..at as usize + with.len()].copy_from_slice(with);
    refused(&bytes, kind, says);
}

use ErrorKind::{Corrupt, InvalidInput, LimitExceeded, Unsupported};

#[test]
fn the_good_image_is_good() {
    assert!(walk(&good(&options())).unwrap() > 40);
}

#[test]
fn a_header_that_cannot_be_is_refused() {
    let word = |n: u32| n.to_be_bytes();
    let long = |n: u64| n.to_be_bytes();
    poked(0, b"QFI\xfa", InvalidInput, "no qcow2");
    poked(4, &word(1), Unsupported, "version 1");
    poked(4, &word(4), Unsupported, "version 4");
    for bits in [0, 8, 22, 64, u32::MAX] {
        poked(20, &word(bits), Corrupt, "clusters of");
    }
    poked(24, &long(u64::MAX), Corrupt, "a disk of");
    poked(24, &long(1 << 40), Corrupt, "too small");
    poked(32, &word(1), Unsupported, "AES");
    poked(32, &word(2), Unsupported, "LUKS");
    poked(32, &word(3), Unsupported, "encryption method 3");
    poked(36, &word(u32::MAX), Corrupt, "L1 table of 4294967295");
    poked(36, &word(0), Corrupt, "too small");
    poked(36, &word(1 << 22), Corrupt, "past the end");
    poked(40, &long(0), Corrupt, "L1 table");
    poked(40, &long(513), Corrupt, "L1 table");
    poked(40, &long(1 << 62), Corrupt, "past the end");
    poked(48, &long(512 + 256), Corrupt, "refcount table");
    poked(56, &word(u32::MAX), Corrupt, "refcount table");
    poked(60, &word(65537), Corrupt, "65537 snapshots");
    poked(60, &word(65536), Corrupt, "snapshot");
    poked(64, &long(1 << 50), Corrupt, "it is longer than");
    poked(64, &long(3), Corrupt, "snapshot table");
    poked(72, &long(1 << 63), Unsupported, "bit 63");
    poked(
        72,
        &long(1 << 2),
        Corrupt,
        "snapshots in an image with a data file",
    );
    poked(72, &long(1 << 3), Corrupt, "compression type");
    poked(72, &long(1 << 4), Corrupt, "too small for extended");
    poked(96, &word(7), Corrupt, "refcounts of 2^7");
    for len in [0, 96, 105, 520, u32::MAX] {
        poked(100, &word(len), Corrupt, "a header of");
    }
    poked(104, &[1], Corrupt, "compression type");
    poked(104, &[2], Unsupported, "compression type 2");
}

#[test]
fn names_and_extensions_that_cannot_be_are_refused() {
    let extension = |id: u32, len: u32, data: &[u8]| {
        let mut bytes = [id.to_be_bytes(), len.to_be_bytes()].concat();
        bytes.extend(data);
        bytes
    };
    poked(112, &extension(1, 500, b""), Corrupt, "too long");
    poked(112, &extension(1, u32::MAX, b""), Corrupt, "too long");
    poked(
        112,
        &extension(0x0537_be77, 16, &[0; 16]),
        Unsupported,
        "LUKS",
    );
    let bitmaps = |count: u32, size: u64, offset: u64| {
        let data = [
            &count.to_be_bytes()[..],
            &[0; 4],
            &size.to_be_bytes(),
            &offset.to_be_bytes(),
        ];
        let mut bytes = good(&options());
        bytes[95] = 1;
        let extension = extension(0x2385_2875, 24, &data.concat());
        bytes[112..112 + extension.len()].copy_from_slice(&extension);
        bytes
    };
    refused(&bitmaps(70_000, 100, 512), LimitExceeded, "70000 bitmaps");
    refused(&bitmaps(1, u64::MAX, 512), LimitExceeded, "bitmaps");
    refused(&bitmaps(1, 100, 1 << 40), Corrupt, "past the end");
    refused(&bitmaps(1, 100, u64::MAX), Corrupt, "past the end");
    refused(&bitmaps(60_000, 64, 512), Corrupt, "cut off");
    let mut bytes = good(&options());
    bytes[8..20].copy_from_slice(&[0, 0, 0, 0, 0, 0, 1, 0x80, 0, 0, 0, 9]);
    bytes[0x180..0x189].copy_from_slice(b"/dev/zero");
    refused(&bytes, ErrorKind::NotFound, "as its backing file");
    bytes[0x180..0x189].copy_from_slice(b"./././//a");
    refused(&bytes, InvalidInput, "not allowed");
    bytes[16..20].copy_from_slice(&1024_u32.to_be_bytes());
    refused(&bytes, Corrupt, "name of the backing file");
}

#[test]
fn every_cut_of_the_file_is_survived() {
    let bytes = good(&options());
    for cut in (0..200).chain((200..bytes.len()).step_by(64)) {
        assert!(walk(&bytes[..cut]).is_err(), "cut to {cut}");
    }
}

#[test]
fn tables_that_point_astray_are_refused() {
    let bytes = good(&options());
    let header = header(&bytes);
    let l1 = header.l1.offset;
    let l2 = be64(&bytes, l1) & !(1 << 63);
    let end = bytes.len() as u64;
    let long = |n: u64| n.to_be_bytes();
    poked(l1, &long(end), Corrupt, "past the end");
    poked(l1 + 8, &long(l2), Corrupt, "is there twice");
    poked(l1, &long(0x00ff_ffff_ffff_fe00), Corrupt, "past the end");
    poked(l2, &long(end), Corrupt, "past the end");
    poked(l2 + 16, &long(1 << 50), Corrupt, "past the end");
    poked(l2, &long(1 << 62 | end), Corrupt, "past the end");
    poked(l2, &long(1 << 62 | 8), Corrupt, "deflate");
    poked(40, &long(header.refcount_table.offset), Corrupt, "overlap");
    poked(64, &long(l1), Corrupt, "snapshot");
    let large = Options {
        cluster_bits: 12,
        ..options()
    };
    for entry_of_l1 in [true, false] {
        let mut bytes = good(&large);
        let l1 = be64(&bytes, 40);
        let l2 = be64(&bytes, l1) & !(1 << 63);
        let at = if entry_of_l1 { l1 } else { l2 } as usize;
        bytes[at..at + 8].copy_from_slice(&(4096_u64 + 512).to_be_bytes());
        refused(
            &bytes,
            Corrupt,
            if entry_of_l1 {
                "boundary"
            } else {
                "not aligned"
            },
        );
    }
    let version_2 = Options {
        version: 2,
        ..options()
    };
    let mut bytes = good(&version_2);
    let l1 = be64(&bytes, 40);
    let l2 = be64(&bytes, l1) & !(1 << 63);
    bytes[l2 as usize + 7] |= 1;
    refused(&bytes, Corrupt, "version 2");
}

#[test]
fn a_snapshot_that_cannot_be_is_refused() {
    let table = header(&good(&options())).snapshots.offset;
    let l1 = be64(&good(&options()), table);
    let active = header(&good(&options())).l1.offset;
    let word = |n: u32| n.to_be_bytes();
    let long = |n: u64| n.to_be_bytes();
    poked(table, &long(l1 + 8), Corrupt, "boundary");
    poked(table, &long(0), Corrupt, "no L1 table");
    poked(table, &long(1 << 60), Corrupt, "past the end");
    poked(table, &long(active), Corrupt, "overlap");
    poked(table + 8, &word(u32::MAX), Corrupt, "L1 table of");
    poked(table + 8, &word(1 << 20), Corrupt, "past the end");
    poked(table + 12, &[0xff; 4], Corrupt, "longer than");
    poked(table + 36, &word(1025), Corrupt, "extra data of 1025");
    poked(table + 36, &word(u32::MAX), Corrupt, "extra data of");
    poked(table + 40, &long(u64::MAX), Corrupt, "VM state");
    poked(table + 40, &long(1 << 20), Corrupt, "VM state");
    poked(table + 48, &long(u64::MAX), Corrupt, "a disk of");
    poked(table + 48, &long(1 << 62), Corrupt, "VM state");
}

#[test]
fn a_stream_never_fills_more_than_its_cluster() {
    for compression in [Compression::Zlib, Compression::Zstd] {
        let bytes = good(&Options {
            cluster_bits: 16,
            compression: Some((compression, 1)),
            ..Options::default()
        });
        // The same stream, which decodes to 64 KiB, in an image of smaller clusters.
        let l1 = be64(&bytes, 40);
        let entry = be64(&bytes, be64(&bytes, l1) & !(1 << 63));
        assert_eq!(
            entry >> 62,
            1,
            "{compression:?} was to compress the first cluster"
        );
        let host = (entry & 0x3f_ffff_ffff_ffff) as usize;
        let stream = &bytes[host..host + 400];
        let mut small = good(&options());
        if compression == Compression::Zstd {
            small[79] |= 1 << 3;
            small[104] = 1;
        }
        let l1 = be64(&small, 40);
        let l2 = (be64(&small, l1) & !(1 << 63)) as usize;
        let at = small.len() as u64;
        small[l2..l2 + 8].copy_from_slice(&(1_u64 << 62 | 1 << 61 | at).to_be_bytes());
        small.extend(stream);
        small.resize(small.len().next_multiple_of(512), 0);
        match (walk(&small), compression) {
            // A deflate stream may go on; a frame says how much is in it.
            (Ok(_), Compression::Zlib) => {}
            (Err(e), Compression::Zstd) => assert_eq!(e.kind(), Corrupt),
            (other, _) => panic!("{compression:?}: {other:?}"),
        }
    }
}

#[test]
fn no_random_damage_panics_or_takes_long() {
    let mut dice = Dice::announced("qcow2_hostile damage");
    let compressed = Options {
        compression: Some((Compression::Zlib, 1)),
        ..options()
    };
    let images = [good(&options()), good(&compressed)];
    let (mut fine, mut bad) = (0, 0);
    for round in 0..3000 {
        let mut bytes = images[round % 2].clone();
        let h = header(&bytes);
        let table = |at: Extent| at.offset;
        let starts = [
            0,
            0,
            table(h.l1),
            table(h.snapshots),
            be64(&bytes, table(h.l1)) & !(1 << 63),
        ];
        for _ in 0..=dice.below(3) {
            let start = starts[dice.below(5) as usize];
            let at = (start + dice.below(130)) as usize % bytes.len();
            bytes[at] = match dice.below(3) {
                0 => 0xff,
                1 => 0,
                _ => dice.next() as u8,
            };
        }
        match walk(&bytes) {
            // Ranges are no more than entries that fit in the file, for each of its states.
            Ok(steps) => {
                fine += 1;
                assert!(steps < bytes.len() as u64, "{steps} steps");
            }
            Err(_) => bad += 1,
        }
    }
    assert!(fine > 100 && bad > 100, "{fine} fine, {bad} refused");
}

/// `count` snapshots, each with an L1 table of 32 MiB that is a hole but for its last entry: L2 tables of nothing but holes.
fn nearly_nothing(path: &Path, count: u64) {
    const ENTRIES: u64 = 1 << 22;
    const SPAN: u64 = CLUSTER * CLUSTER / 8;
    let snapshot = |n: u64, l1: u64| {
        let id = (n + 1).to_string();
        let mut entry = Vec::new();
        entry.extend(l1.to_be_bytes());
        entry.extend((ENTRIES as u32).to_be_bytes());
        entry.extend([0, id.len() as u8, 0, 1]);
        entry.extend([0; 20]);
        entry.extend(16_u32.to_be_bytes());
        entry.extend([0; 8]);
        entry.extend((ENTRIES * SPAN).to_be_bytes());
        entry.extend(id.bytes());
        entry.push(b'n');
        entry.resize(entry.len().next_multiple_of(8), 0);
        entry
    };
    let table_at = 3 * CLUSTER;
    let bytes: u64 = (0..count).map(|n| snapshot(n, 0).len() as u64).sum();
    let tables = (table_at + bytes).next_multiple_of(4096);
    let l1 = |n: u64| tables + n * ENTRIES * 8;
    let l2 = |n: u64| l1(count) + n * 4096;
    let file = std::fs::File::create(path).unwrap();
    let put = |at: u64, bytes: &[u8]| {
        std::os::unix::fs::FileExt::write_all_at(&file, bytes, at).unwrap();
    };
    let mut header = good(&options())[..112].to_vec();
    header[24..32].copy_from_slice(&SPAN.to_be_bytes());
    header[36..40].copy_from_slice(&1_u32.to_be_bytes());
    header[40..48].copy_from_slice(&CLUSTER.to_be_bytes());
    header[48..56].copy_from_slice(&(2 * CLUSTER).to_be_bytes());
    header[60..64].copy_from_slice(&(count as u32).to_be_bytes());
    header[64..72].copy_from_slice(&table_at.to_be_bytes());
    put(0, &header);
    let table: Vec<u8> = (0..count).flat_map(|n| snapshot(n, l1(n))).collect();
    put(table_at, &table);
    for n in 0..count {
        put(l1(n + 1) - 8, &l2(n).to_be_bytes());
    }
    file.set_len(l2(count)).unwrap();
}

#[test]
fn memory_is_bounded_by_what_the_file_takes_and_not_by_its_length() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a");
    // 97 GiB, of which 13 MiB are there.
    nearly_nothing(&path, 3000);
    let disk = stillpoint_store::disk::real::RealDisk;
    let image = Image::open(&disk, &path, &Gate::closed()).unwrap();
    let states: Vec<State> = (0..3000).map(|n| image.snapshot(n).unwrap()).collect();
    let mut steps = 0;
    for pair in states.windows(2) {
        steps += pair[1].map(0..u64::MAX).count();
        steps += pair[1].changes(&pair[0]).unwrap().count();
    }
    assert!(steps < 4 * 3000, "{steps} steps");
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let peak = status.lines().find_map(|l| l.strip_prefix("VmHWM:"));
    let peak = peak.and_then(|l| l.trim().strip_suffix(" kB"));
    let peak: u64 = peak.unwrap().parse().unwrap();
    assert!(peak < 500 << 10, "{peak} KiB");
}
