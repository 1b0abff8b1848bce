//! The qcow2 reader against images that the real qemu-img made.

mod support;

use std::fs;
use std::io::Read;
use std::path::Path;
use stillpoint_migrate::ErrorKind;
use stillpoint_migrate::qcow2::{Compression, Gate, Image, Kind, Link};
use stillpoint_store::disk::real::RealDisk;
use support::{Bench, Dice, content, has_qemu, same, scribbles};

/// Cluster bytes and further options.
const MATRIX: [(u64, &str); 12] = [
    (512, "compat=0.10"),
    (65536, "compat=0.10"),
    (2 << 20, "compat=0.10"),
    (512, "compat=1.1"),
    (4096, "refcount_bits=1"),
    (4096, "refcount_bits=64,lazy_refcounts=on"),
    (65536, "compat=1.1"),
    (65536, "compression_type=zstd"),
    (2 << 20, "compression_type=zstd"),
    (16384, "extended_l2=on"),
    (65536, "extended_l2=on,compression_type=zstd"),
    (65536, "preallocation=metadata"),
];

fn create(bench: &Bench, name: &str, cluster: u64, options: &str, size: u64) {
    let options = format!("cluster_size={cluster},{options}");
    bench.img(&[
        "create",
        "-q",
        "-f",
        "qcow2",
        "-o",
        &options,
        name,
        &size.to_string(),
    ]);
}

#[test]
fn every_version_cluster_size_and_compression_reads_like_qemu() {
    if !has_qemu("qcow2_read matrix") {
        return;
    }
    let mut dice = Dice::announced("qcow2_read matrix");
    for (n, (cluster, options)) in MATRIX.into_iter().enumerate() {
        let bench = Bench::new();
        let size = (3 << 20) + 512 * dice.below(2048);
        let size = if n == 0 {
            size
        } else {
            size.next_multiple_of(cluster) - 512
        };
        create(&bench, "a", cluster, options, size);
        let snapshots = !options.contains("refcount_bits=1");
        for round in 0..3 {
            let compress = !options.contains("metadata");
            bench.scribble("a", &scribbles(&mut dice, size, cluster, compress, 12));
            bench.reads_like_qemu("a");
            if snapshots || options.contains("refcount_bits=64") {
                bench.img(&["snapshot", "-c", &format!("s{round}"), "a"]);
            }
        }
        bench.scribble("a", &scribbles(&mut dice, size, cluster, false, 8));
        bench.reads_like_qemu("a");
    }
}

#[test]
fn compressed_images_come_as_compressed_ranges() {
    if !has_qemu("qcow2_read compressed") {
        return;
    }
    let bench = Bench::new();
    let text: Vec<u8> = (0..3_000_000_u32).map(|n| (n / 777) as u8).collect();
    fs::write(bench.path("raw"), &text).unwrap();
    for (kind, compression) in [("zlib", Compression::Zlib), ("zstd", Compression::Zstd)] {
        let option = format!("compression_type={kind}");
        bench.img(&["convert", "-c", "-O", "qcow2", "-o", &option, "raw", "a"]);
        let image = bench.open("a");
        assert_eq!(image.top().header().compression, compression);
        let state = image.active().unwrap();
        let kinds: Vec<Kind> = state
            .map(0..state.size())
            .map(|m| m.unwrap().kind)
            .collect();
        assert_eq!(kinds.len(), 3_000_000_usize.div_ceil(65536));
        assert!(kinds.iter().all(|k| matches!(k, Kind::Compressed { .. })));
        let mut padded = text.clone();
        padded.resize(text.len().next_multiple_of(512), 0);
        same(&content(&image, &state), &padded, kind);
    }
}

#[test]
fn snapshots_share_their_host_clusters_and_keep_their_fields() {
    if !has_qemu("qcow2_read snapshots") {
        return;
    }
    let bench = Bench::new();
    create(&bench, "a", 4096, "compat=1.1", 6 << 20);
    bench.io("a", &["write -P 1 0 1M".into(), "write -P 2 5M 1M".into()]);
    bench.img(&["snapshot", "-c", "first", "a"]);
    bench.io(
        "a",
        &["write -P 3 64k 64k".into(), "write -b -P 9 0 100k".into()],
    );
    bench.img(&["snapshot", "-c", "with state", "a"]);
    let table = bench.open("a").top().header().snapshots.offset;
    // The second entry: qemu-img cannot save a VM.
    let second = table + (40 + 24 + 1 + 5_u64).next_multiple_of(8);
    bench.poke("a", second + 16, &7_u32.to_be_bytes());
    bench.poke("a", second + 20, &8_u32.to_be_bytes());
    bench.poke("a", second + 24, &9_u64.to_be_bytes());
    bench.poke("a", second + 40, &(100_u64 << 10).to_be_bytes());
    bench.poke("a", second + 56, &77_u64.to_be_bytes());
    let image = bench.open("a");
    let [first, second] = image.top().snapshots() else {
        panic!("two snapshots");
    };
    assert_eq!((&first.id[..], &first.name[..]), (&b"1"[..], &b"first"[..]));
    assert_eq!((first.vm_state_size, first.disk_size), (0, Some(6 << 20)));
    assert_eq!(
        (&second.id[..], &second.name[..]),
        (&b"2"[..], &b"with state"[..])
    );
    assert_eq!(
        (second.date_sec, second.date_nsec, second.vm_clock_nsec),
        (7, 8, 9)
    );
    assert_eq!((second.icount, second.vm_state_size), (Some(77), 100 << 10));

    let (older, newer) = (image.snapshot(0).unwrap(), image.snapshot(1).unwrap());
    let mut state = Vec::new();
    newer.read_vm_state().read_to_end(&mut state).unwrap();
    assert!(state == vec![9; 100 << 10]);
    assert_eq!(older.read_vm_state().read_to_end(&mut state).unwrap(), 0);
    let changed: Vec<_> = newer.changes(&older).unwrap().map(Result::unwrap).collect();
    assert_eq!((changed.len(), &changed[0]), (1, &(65536..131_072)));
    let all = older.map(5 << 20..6 << 20).map(Result::unwrap);
    assert!(all.eq(newer.map(5 << 20..6 << 20).map(Result::unwrap)));
    bench.reads_like_qemu("a");
}

#[test]
fn a_snapshot_of_a_smaller_disk_keeps_its_size() {
    if !has_qemu("qcow2_read resize") {
        return;
    }
    let bench = Bench::new();
    create(&bench, "a", 4096, "compat=1.1", 1 << 20);
    bench.io("a", &["write -P 1 0 1M".into()]);
    bench.img(&["snapshot", "-c", "small", "a"]);
    bench.img(&["resize", "-q", "a", "9M"]);
    bench.io("a", &["write -P 2 5M 1M".into()]);
    let image = bench.open("a");
    assert_eq!(image.snapshot(0).unwrap().size(), 1 << 20);
    assert_eq!(image.active().unwrap().size(), 9 << 20);
    bench.reads_like_qemu("a");
}

#[test]
fn a_chain_is_read_through_all_its_files() {
    if !has_qemu("qcow2_read chain") {
        return;
    }
    let bench = Bench::new();
    let mut dice = Dice::announced("qcow2_read chain");
    fs::write(bench.path("base"), vec![5; 1_000_000]).unwrap();
    let of = |below: &str, format: &str, above: &str, size: &str, options: &str| {
        bench.img(&[
            "create", "-q", "-f", "qcow2", "-o", options, "-b", below, "-F", format, above, size,
        ]);
    };
    of("base", "raw", "mid", "3M", "cluster_size=4k");
    bench.scribble("mid", &scribbles(&mut dice, 3 << 20, 4096, true, 9));
    of("mid", "qcow2", "top", "2M", "extended_l2=on");
    bench.scribble("top", &scribbles(&mut dice, 2 << 20, 65536, false, 9));
    bench.img(&["snapshot", "-c", "s", "top"]);
    of("top", "qcow2", "last", "5M", "compat=0.10");
    for image in ["mid", "top", "last"] {
        bench.reads_like_qemu(image);
    }
    let image = bench.open("last");
    assert_eq!(image.links().len(), 4);
    assert!(matches!(image.links()[3], Link::Raw { .. }));
}

#[test]
fn no_file_is_opened_that_was_not_allowed() {
    if !has_qemu("qcow2_read gate") {
        return;
    }
    let bench = Bench::new();
    fs::create_dir(bench.path("in")).unwrap();
    fs::write(bench.path("secret"), "secret").unwrap();
    std::os::unix::fs::symlink(bench.path("secret"), bench.path("in/link")).unwrap();
    let mut gate = Gate::closed();
    gate.allow_folder(&RealDisk, &bench.path("in")).unwrap();
    let named = |name: &str, gate: &Gate| {
        let file = bench.path("in/top");
        let _none = fs::remove_file(&file);
        bench.img(&[
            "create", "-q", "-u", "-f", "qcow2", "-b", name, "-F", "raw", "in/top", "1M",
        ]);
        Image::open(&RealDisk, &file, gate).expect_err(name)
    };
    for name in [
        "/etc/passwd",
        "../secret",
        "link",
        "../in/../secret",
        "file:/etc/passwd",
    ] {
        let error = named(name, &gate);
        assert_eq!(error.kind(), ErrorKind::InvalidInput, "{name}: {error:?}");
        assert!(error.to_string().contains("not allowed"), "{error}");
    }
    for name in [
        "json:{\"driver\":\"null-co\"}",
        "nbd:localhost:10809",
        "ssh://host/file",
    ] {
        assert_eq!(named(name, &gate).kind(), ErrorKind::Unsupported, "{name}");
    }
    fs::write(bench.path("in/base"), "fine").unwrap();
    assert!(
        named("base", &Gate::closed())
            .to_string()
            .contains("not allowed")
    );
    assert_eq!(named("top", &gate).kind(), ErrorKind::Corrupt);
    fs::hard_link(bench.path("in/top"), bench.path("in/other")).unwrap();
    bench.img(&[
        "rebase", "-u", "-f", "qcow2", "-b", "other", "-F", "qcow2", "in/top",
    ]);
    let error = Image::open(&RealDisk, &bench.path("in/top"), &gate).unwrap_err();
    assert!(
        error.to_string().contains("its own backing chain"),
        "{error}"
    );
    gate.allow_file(&RealDisk, &bench.path("secret")).unwrap();
    bench.img(&[
        "rebase", "-u", "-f", "qcow2", "-b", "link", "-F", "raw", "in/top",
    ]);
    Image::open(&RealDisk, &bench.path("in/top"), &gate).unwrap();
    gate.set_depth(1);
    let error = Image::open(&RealDisk, &bench.path("in/top"), &gate).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::LimitExceeded);
    let error = Image::open(&RealDisk, Path::new("/dev/null"), &gate).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidInput);
}

#[test]
fn the_data_may_be_in_a_file_of_its_own() {
    if !has_qemu("qcow2_read data file") {
        return;
    }
    let mut dice = Dice::announced("qcow2_read data file");
    for raw in ["on", "off"] {
        let bench = Bench::new();
        let options = format!(
            "data_file={},data_file_raw={raw}",
            bench.path("data").display()
        );
        create(&bench, "a", 65536, &options, 3 << 20);
        bench.io("a", &["write -P 3 0 64k".into()]);
        bench.scribble("a", &scribbles(&mut dice, 3 << 20, 65536, false, 12));
        bench.reads_like_qemu("a");
        let image = bench.open("a");
        assert_eq!(image.top().header().raw_data_file, raw == "on");
        fs::create_dir(bench.path("moved")).unwrap();
        bench.img(&[
            "create",
            "-q",
            "-f",
            "qcow2",
            "-o",
            "data_file=beside",
            "moved/a",
            "1M",
        ]);
        fs::rename(bench.path("beside"), bench.path("moved/beside")).unwrap();
        assert!(bench.open("moved/a").top().header().data_file.is_some());
        let closed = Image::open(&RealDisk, &bench.path("a"), &Gate::closed());
        assert!(closed.unwrap_err().to_string().contains("data file"));
    }
}

#[test]
fn bitmaps_and_features_are_told() {
    if !has_qemu("qcow2_read features") {
        return;
    }
    let bench = Bench::new();
    create(&bench, "a", 65536, "lazy_refcounts=on", 1 << 20);
    bench.img(&["bitmap", "--add", "-g", "32768", "a", "b0"]);
    bench.img(&["bitmap", "--add", "--disable", "a", "another"]);
    let image = bench.open("a");
    let told = image.top().bitmaps().iter();
    let told: Vec<_> = told
        .map(|b| (&b.name[..], b.granularity, b.auto, b.in_use))
        .collect();
    let expected: [(&[u8], _, _, _); 2] = [
        (b"b0", Some(32768), true, false),
        (b"another", Some(65536), false, false),
    ];
    assert_eq!(told, expected);
    assert!(image.top().header().lazy_refcounts && !image.top().header().dirty);
    bench.poke("a", 72, &3_u64.to_be_bytes());
    let image = bench.open("a");
    assert!(image.top().header().dirty && image.top().header().corrupt);
    bench.poke("a", 72, &(1_u64 << 4 << 5).to_be_bytes());
    let error = Image::open(&RealDisk, &bench.path("a"), &Gate::closed()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unsupported);
    assert!(error.to_string().contains("bit 9"), "{error}");
}

#[test]
fn encrypted_images_are_refused_by_name() {
    if !has_qemu("qcow2_read encrypted") {
        return;
    }
    let bench = Bench::new();
    bench.img(&[
        "create",
        "-q",
        "-f",
        "qcow2",
        "--object",
        "secret,id=s,data=hidden",
        "-o",
        "encrypt.format=luks,encrypt.key-secret=s,encrypt.iter-time=10",
        "a",
        "1M",
    ]);
    let error = Image::open(&RealDisk, &bench.path("a"), &Gate::closed()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unsupported);
    assert!(error.to_string().contains("LUKS"), "{error}");
    assert!(
        error
            .what_next()
            .is_some_and(|hint| hint.contains("qemu-nbd"))
    );
}

#[test]
fn a_disk_of_petabytes_is_one_range() {
    if !has_qemu("qcow2_read huge") {
        return;
    }
    let bench = Bench::new();
    create(&bench, "a", 2 << 20, "compat=1.1", 1 << 60);
    bench.io("a", &[format!("write -P 7 {} 2M", 1_u64 << 59)]);
    let image = bench.open("a");
    let state = image.active().unwrap();
    let ranges: Vec<_> = state.map(0..u64::MAX).map(Result::unwrap).collect();
    assert_eq!(ranges.len(), 3);
    assert_eq!((ranges[1].start, ranges[1].len), (1 << 59, 2 << 20));
    assert!(matches!(ranges[1].kind, Kind::Data { .. }));
    assert_eq!(ranges[2].end(), 1 << 60);
}
