//! The qcow2 reader against the imago crate, which shares no line with it or with QEMU, on random images with what it
//! knows: neither zstd nor extended L2 entries. 150 of them; as many as `STILL_ROUNDS` says, `full` for 3000.

// Tests say what went wrong by the panic, and so do their helpers.
#![allow(clippy::unwrap_used)]

mod support;

use imago::file::File;
use imago::qcow2::Qcow2;
use imago::{FormatAccess, FormatDriverBuilder, PermissiveImplicitOpenGate};
use std::fs;
use stillpoint_migrate::qcow2::Kind;
use support::{Bench, Dice, content, has_qemu, same, scribbles};

/// What imago reads of the active state; it reads no snapshots.
fn imago(bench: &Bench, image: &str) -> Vec<u8> {
    let path = bench.path(image);
    let opened = Qcow2::<File>::builder_path(path).open(PermissiveImplicitOpenGate::default());
    let disk = FormatAccess::new(opened.unwrap());
    let mut bytes = vec![0xee; disk.size() as usize];
    disk.read(&mut bytes[..], 0).unwrap();
    bytes
}

/// Bytes that are compressed in the active state.
fn compressed(bench: &Bench, image: &str) -> u64 {
    let state = bench.open(image).active().unwrap();
    let all = state.map(0..state.size()).map(Result::unwrap);
    all.filter(|m| matches!(m.kind, Kind::Compressed { .. }))
        .map(|m| m.len)
        .sum()
}

fn make(bench: &Bench, dice: &mut Dice) {
    let layouts = [
        "compat=0.10",
        "compat=1.1",
        "compat=1.1,lazy_refcounts=on",
        "compat=1.1,refcount_bits=8",
    ];
    let layout = layouts[dice.below(4) as usize];
    let cluster = 512 << dice.below(9);
    let size = (2 + dice.below(40)) * 65536 + 512 * dice.below(3);
    let options = format!("{layout},cluster_size={cluster}");
    let below: &[&str] = match dice.below(3) {
        0 => &["-F", "raw", "-b", "below"],
        1 => &["-F", "qcow2", "-b", "middle"],
        _ => &[],
    };
    let create = ["create", "-q", "-f", "qcow2", "-o", &options];
    bench.img(&[&create[..], below, &["a", &size.to_string()]].concat());
    for n in 0..dice.below(3) {
        bench.scribble("a", &scribbles(dice, size, cluster, true, 6));
        bench.img(&["snapshot", "-c", &n.to_string(), "a"]);
        if dice.below(3) == 0 {
            bench.img(&["snapshot", "-a", "0", "a"]);
        }
    }
    bench.scribble("a", &scribbles(dice, size, cluster, true, 6));
}

#[test]
fn random_images_read_as_another_reader_reads_them() {
    if !has_qemu("qcow2_imago") {
        return;
    }
    let rounds = match std::env::var("STILL_ROUNDS").ok().as_deref() {
        None => 150,
        Some("full") => 3000,
        Some(n) => n.parse().unwrap(),
    };
    let mut dice = Dice::announced("qcow2_imago");
    let bench = Bench::new();
    let noise: Vec<u8> = (0..900_000).map(|_| dice.next() as u8).collect();
    fs::write(bench.path("below"), noise).unwrap();
    let create = ["create", "-q", "-f", "qcow2", "-F", "raw", "-b", "below"];
    bench.img(&[&create[..], &["middle", "2M"]].concat());
    bench.scribble("middle", &scribbles(&mut dice, 2 << 20, 65536, true, 9));
    let mut packed = 0;
    for round in 0..rounds {
        make(&bench, &mut dice);
        packed += compressed(&bench, "a");
        let image = bench.open("a");
        let ours = content(&image, &image.active().unwrap());
        same(&ours, &imago(&bench, "a"), &format!("round {round}"));
    }
    assert!(packed > 0, "there was something to decompress");
}
