//! The qcow2 writer, judged by the real qemu-img.

// Tests say what went wrong by the panic, and so do their helpers.
#![allow(clippy::unwrap_used)]

mod support;

use std::fs;
use std::io::Read;
use stillpoint_migrate::qcow2::write::{Draft, Options, Written, write};
use stillpoint_migrate::qcow2::{Compression, Copy, Extent, Snapshot};
use stillpoint_store::disk::real::RealDisk;
use stillpoint_store::disk::{Disk, OpenMode};
use stillpoint_store::progress::Progress;
use support::{Bench, Dice, content, has_qemu, same, scribbles};

/// Rewrites an image of the bench with all its snapshots.
#[track_caller]
fn rewrite(bench: &Bench, from: &str, to: &str, options: &Options) -> Written {
    let image = bench.open(from);
    let source = Copy::new(&image).unwrap();
    let _none = fs::remove_file(bench.path(to));
    let file = RealDisk.open(&bench.path(to), OpenMode::CreateNew).unwrap();
    let written = write(
        &*file,
        &source.draft(),
        options,
        &source,
        &Progress::default(),
    )
    .unwrap();
    assert_eq!(file.len().unwrap(), written.file_bytes);
    written
}

/// `snapshot -l` without the padding.
fn list(bench: &Bench, image: &str) -> Vec<String> {
    let said = bench.img(&["snapshot", "-l", image]);
    let words = |line: &str| line.split_whitespace().collect::<Vec<_>>().join(" ");
    said.lines().map(words).collect()
}

fn without_places(snapshots: &[Snapshot]) -> Vec<Snapshot> {
    let of = |s: &Snapshot| Snapshot {
        l1: Extent::default(),
        ..s.clone()
    };
    snapshots.iter().map(of).collect()
}

/// Gives snapshot `n` of an image what only a running VM would: VM state, clocks, icount. The state's bytes must be there.
fn pretend_savevm(bench: &Bench, image: &str, n: usize, vm_state: u64) {
    let opened = bench.open(image);
    let header = opened.top().header().clone();
    let entry_bytes = |s: &Snapshot| 40 + 24 + s.unknown_extra.len() + s.id.len() + s.name.len();
    let before = opened.top().snapshots().iter().take(n);
    let at = before.fold(0, |at, s| at + entry_bytes(s).next_multiple_of(8)) as u64;
    let at = header.snapshots.offset + at;
    let n = n as u64;
    bench.poke(image, at + 16, &(1_000_000_000 + n as u32).to_be_bytes());
    bench.poke(image, at + 20, &(123_456_789 + n as u32).to_be_bytes());
    bench.poke(image, at + 24, &(98_765_432_100 + n).to_be_bytes());
    bench.poke(image, at + 32, &(vm_state as u32).to_be_bytes());
    bench.poke(image, at + 40, &vm_state.to_be_bytes());
    bench.poke(image, at + 56, &(4242 + n).to_be_bytes());
}

/// An image with `count` snapshots, the second with VM state.
fn make(bench: &Bench, dice: &mut Dice, cluster: u64, size: u64, options: &str, count: usize) {
    let options = format!("cluster_size={cluster},{options}");
    bench.img(&[
        "create",
        "-q",
        "-f",
        "qcow2",
        "-o",
        &options,
        "a",
        &size.to_string(),
    ]);
    for n in 0..count {
        bench.scribble("a", &scribbles(dice, size, cluster, true, 10));
        if n == 1 {
            bench.io(
                "a",
                &[
                    "write -b -P 77 0 300k".into(),
                    "write -b -P 78 77k 5k".into(),
                ],
            );
        }
        bench.img(&["snapshot", "-c", &format!("name of {n}"), "a"]);
        pretend_savevm(bench, "a", n, if n == 1 { 300 << 10 } else { 0 });
    }
    bench.scribble("a", &scribbles(dice, size, cluster, false, 6));
}

#[track_caller]
fn check(bench: &Bench, image: &str) {
    // Fails with any corruption or leak.
    bench.img(&["check", "-q", "-f", "qcow2", image]);
}

/// What QEMU finds in `to` is what it finds in `from`, and it can work with it.
#[track_caller]
fn is_a_copy(bench: &Bench, from: &str, to: &str) {
    check(bench, to);
    assert_eq!(list(bench, from), list(bench, to));
    let (old, new) = (bench.open(from), bench.open(to));
    let of = |i: &stillpoint_migrate::qcow2::Image| without_places(i.top().snapshots());
    assert_eq!(of(&old), of(&new));
    bench.img(&["compare", "-q", "-f", "qcow2", "-F", "qcow2", from, to]);
    bench.reads_like_qemu(to);
    for n in 0..old.top().snapshots().len() {
        let (old_state, new_state) = (old.snapshot(n).unwrap(), new.snapshot(n).unwrap());
        same(
            &content(&new, &new_state),
            &content(&old, &old_state),
            "a snapshot",
        );
        let (mut vm_old, mut vm_new) = (Vec::new(), Vec::new());
        old_state.read_vm_state().read_to_end(&mut vm_old).unwrap();
        new_state.read_vm_state().read_to_end(&mut vm_new).unwrap();
        same(&vm_new, &vm_old, "VM state");
    }
}

/// Applies and deletes each snapshot, with a check after each step.
#[track_caller]
fn works_for_qemu(bench: &Bench, image: &str) {
    let ids: Vec<String> = list(bench, image).iter().skip(2).cloned().collect();
    for line in ids {
        let mut words = line.split(' ');
        let id = words.next().expect("an id").to_owned();
        let name = format!("name of {}", id.parse::<u32>().expect("a number") - 1);
        let before = bench.raw(image, Some(&id));
        bench.img(&["snapshot", "-a", &id, image]);
        check(bench, image);
        // Before it was applied, QEMU read as many bytes of it as the disk had then.
        let after = bench.raw(image, None);
        let both = before.len().min(after.len());
        assert!(
            before[..both] == after[..both],
            "{image}: {id} is not what was applied"
        );
        bench.io(
            image,
            &["write -P 99 0 100k".into(), "write -z 200k 70k".into()],
        );
        check(bench, image);
        assert!(
            bench.raw(image, Some(&id)) == after,
            "{image}: {id} changed by a write"
        );
        bench.img(&["snapshot", "-d", &name, image]);
        check(bench, image);
    }
    assert_eq!(list(bench, image), [""; 0]);
}

fn options(version: u32, cluster_bits: u32, refcount_order: u32) -> Options {
    Options {
        version,
        cluster_bits,
        refcount_order,
        ..Options::default()
    }
}

#[test]
fn a_copy_has_all_snapshots_in_every_layout() {
    if !has_qemu("qcow2_write layouts") {
        return;
    }
    let mut dice = Dice::announced("qcow2_write layouts");
    let zlib = Some((Compression::Zlib, 1));
    let zstd = Some((Compression::Zstd, 3));
    let layouts = [
        (4096, "compat=0.10", options(2, 16, 4), None),
        (65536, "compat=1.1", options(2, 9, 4), zlib),
        (65536, "compression_type=zstd", options(3, 16, 4), None),
        (512, "compat=1.1", options(3, 16, 4), zlib),
        (65536, "extended_l2=on", options(3, 12, 3), zstd),
        (65536, "compat=1.1", options(3, 21, 5), zstd),
        (65536, "compat=1.1", options(3, 21, 6), None),
        (4096, "compat=1.1", options(3, 9, 6), zstd),
    ];
    for (cluster, from, options, compression) in layouts {
        let bench = Bench::new();
        make(&bench, &mut dice, cluster, (3 << 20) + 512, from, 3);
        let options = Options {
            compression,
            ..options
        };
        rewrite(&bench, "a", "b", &options);
        is_a_copy(&bench, "a", "b");
        works_for_qemu(&bench, "b");
    }
}

#[test]
fn narrow_refcounts_are_never_exceeded() {
    if !has_qemu("qcow2_write refcounts") {
        return;
    }
    let mut dice = Dice::announced("qcow2_write refcounts");
    let bench = Bench::new();
    make(&bench, &mut dice, 65536, 1 << 20, "compat=1.1", 6);
    for order in [0, 1, 2, 4] {
        for compression in [None, Some((Compression::Zlib, 1))] {
            let options = Options {
                compression,
                ..options(3, 12, order)
            };
            rewrite(&bench, "a", "b", &options);
            is_a_copy(&bench, "a", "b");
            // QEMU itself makes no snapshots with refcounts of one bit.
            if order == 1 {
                works_for_qemu(&bench, "b");
            }
        }
    }
}

#[test]
fn what_is_the_same_is_read_and_stored_once() {
    if !has_qemu("qcow2_write sharing") {
        return;
    }
    let bench = Bench::new();
    let cluster = 64 << 10;
    bench.img(&["create", "-q", "-f", "qcow2", "a", "2G"]);
    bench.io("a", &["write -P 1 0 8M".into(), "write -P 2 1G 64k".into()]);
    for n in 0..20 {
        bench.img(&["snapshot", "-c", &format!("s{n}"), "a"]);
        bench.io("a", &[format!("write -P 3 {} 64k", n * cluster)]);
    }
    let written = rewrite(&bench, "a", "b", &Options::default());
    assert_eq!(written.read_clusters, 129 + 20);
    check(&bench, "b");
    // Data, one table for each snapshot that differs and one for the end of all, one L1 table each, and the rest.
    assert_eq!(written.file_bytes / cluster, 149 + 21 + 1 + 21 + 4);
    let compressed = Options {
        compression: Some((Compression::Zstd, 1)),
        ..Options::default()
    };
    let written = rewrite(&bench, "a", "c", &compressed);
    assert_eq!(written.compressed_clusters, 149);
    check(&bench, "c");
    bench.img(&["compare", "-q", "a", "c"]);
}

#[test]
fn equal_compressed_clusters_are_shared_wherever_they_are() {
    if !has_qemu("qcow2_write elsewhere") {
        return;
    }
    let bench = Bench::new();
    let twice = Twice;
    let draft = Draft {
        size: 600 * 65536,
        snapshots: Vec::new(),
    };
    let zlib = Some((Compression::Zlib, 1));
    for (name, remember, compression, read, compressed) in [
        ("a", 1000, zlib, 300, 300),
        ("b", 0, zlib, 600, 600),
        ("c", 1000, None, 600, 0),
    ] {
        let file = RealDisk
            .open(&bench.path(name), OpenMode::CreateNew)
            .unwrap();
        let options = Options {
            remember,
            compression,
            ..Options::default()
        };
        let written = write(&*file, &draft, &options, &twice, &Progress::default()).unwrap();
        assert_eq!(written.read_clusters, read);
        assert_eq!(written.compressed_clusters, compressed);
        check(&bench, name);
        bench.reads_like_qemu(name);
        bench.io(name, &["write -P 5 0 1M".into()]);
        check(&bench, name);
        bench.reads_like_qemu(name);
    }
}

/// A disk of 300 different clusters that come twice, the second time when the first was written already.
struct Twice;

impl stillpoint_migrate::qcow2::write::Source for Twice {
    fn pieces(
        &self,
        _: stillpoint_migrate::qcow2::write::Part,
    ) -> stillpoint_migrate::Result<stillpoint_migrate::qcow2::write::Pieces<'_>> {
        use stillpoint_migrate::qcow2::write::{Content, Key, Piece};
        Ok(Box::new((0..600).map(|n| {
            let key = Key([(n % 300 / 2) as u8 + 1; 32]);
            Ok(Piece {
                start: n * 65536,
                len: 65536,
                content: Content::Data { key, offset: n % 2 },
            })
        })))
    }

    fn read(
        &self,
        key: &stillpoint_migrate::qcow2::write::Key,
        offset: u64,
        buf: &mut [u8],
    ) -> stillpoint_migrate::Result<()> {
        buf.fill(key.0[0]);
        buf[0] = offset as u8;
        Ok(())
    }
}

#[test]
fn sizes_and_places_of_vm_state_survive_resizes_and_chains() {
    if !has_qemu("qcow2_write resizes") {
        return;
    }
    let mut dice = Dice::announced("qcow2_write resizes");
    let bench = Bench::new();
    fs::write(bench.path("base"), vec![5; 700_000]).unwrap();
    bench.img(&[
        "create",
        "-q",
        "-f",
        "qcow2",
        "-o",
        "cluster_size=4k",
        "-b",
        "base",
        "-F",
        "raw",
        "a",
        "3M",
    ]);
    bench.io("a", &["write -b -P 77 0 300k".into()]);
    bench.img(&["snapshot", "-c", "name of 0", "a"]);
    pretend_savevm(&bench, "a", 0, 300 << 10);
    bench.img(&["resize", "-q", "a", "11M"]);
    bench.scribble("a", &scribbles(&mut dice, 11 << 20, 4096, true, 9));
    bench.io("a", &["write -b -P 78 0 3M".into()]);
    bench.img(&["snapshot", "-c", "name of 1", "a"]);
    pretend_savevm(&bench, "a", 1, 3 << 20);
    for bits in [9, 16] {
        rewrite(&bench, "a", "b", &options(3, bits, 4));
        is_a_copy(&bench, "a", "b");
        let image = bench.open("b");
        assert_eq!(image.snapshot(0).unwrap().size(), 3 << 20);
        assert_eq!(image.links().len(), 1);
        // It is locked while it is open.
        drop(image);
        works_for_qemu(&bench, "b");
    }
    let image = bench.open("a");
    let source = Copy::new(&image).unwrap();
    let file = RealDisk
        .open(&bench.path("c"), OpenMode::CreateNew)
        .unwrap();
    let error = write(
        &*file,
        &source.draft(),
        &options(2, 16, 4),
        &source,
        &Progress::default(),
    );
    assert!(error.unwrap_err().to_string().contains("version 2"));
}

#[test]
fn a_disk_of_petabytes_is_a_small_file() {
    if !has_qemu("qcow2_write huge") {
        return;
    }
    let bench = Bench::new();
    bench.img(&[
        "create",
        "-q",
        "-f",
        "qcow2",
        "-o",
        "cluster_size=2M",
        "a",
        "256P",
    ]);
    bench.io("a", &[format!("write -P 7 {} 2M", 1_u64 << 57)]);
    rewrite(&bench, "a", "b", &options(3, 21, 4));
    check(&bench, "b");
    let image = bench.open("b");
    let state = image.active().unwrap();
    let ranges: Vec<_> = state.map(0..u64::MAX).map(Result::unwrap).collect();
    assert_eq!(
        (ranges.len(), ranges[1].start, ranges[1].len),
        (3, 1 << 57, 2 << 20)
    );
    let error = {
        let file = RealDisk
            .open(&bench.path("c"), OpenMode::CreateNew)
            .unwrap();
        let source = Copy::new(&image).unwrap();
        write(
            &*file,
            &source.draft(),
            &options(3, 16, 4),
            &source,
            &Progress::default(),
        )
    };
    assert!(
        error
            .unwrap_err()
            .what_next()
            .is_some_and(|hint| hint.contains("larger clusters"))
    );
}

#[test]
fn qemu_nbd_serves_a_snapshot_that_we_wrote() {
    if !has_qemu("qcow2_write nbd") {
        return;
    }
    let mut dice = Dice::announced("qcow2_write nbd");
    let bench = Bench::new();
    make(&bench, &mut dice, 65536, 2 << 20, "compat=1.1", 2);
    rewrite(&bench, "a", "b", &Options::default());
    let expected = bench.raw("a", Some("1"));
    let socket = bench.path("s").display().to_string();
    let mut server = std::process::Command::new("qemu-nbd");
    let b = bench.path("b").display().to_string();
    server.args([
        "-r",
        "-f",
        "qcow2",
        "-l",
        "snapshot.name=name of 0",
        "-k",
        &socket,
        &b,
    ]);
    let mut server = server.spawn().expect("qemu-nbd starts");
    while !bench.path("s").exists() {
        assert!(
            server.try_wait().expect("our child").is_none(),
            "qemu-nbd ended"
        );
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    let uri = format!("nbd+unix:///?socket={socket}");
    bench.img(&["convert", "-f", "raw", "-O", "raw", &uri, "served"]);
    assert!(server.wait().expect("our child").success());
    same(
        &fs::read(bench.path("served")).unwrap(),
        &expected,
        "served",
    );
}
