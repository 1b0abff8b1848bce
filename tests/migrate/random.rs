//! Random images.

use crate::support::{Dice, Home, has, make_image};
use crate::tools::{QEMU, holds_what_qemu_reads, img, scribble, scribbles};
use std::fs;

#[test]
fn random_images_read_as_qemu_reads_them() {
    if !has("migrate random", &QEMU) {
        return;
    }
    let rounds = match std::env::var("STILL_ROUNDS").ok().as_deref() {
        None => 100,
        Some("full") => 3000,
        Some(n) => n.parse().expect("STILL_ROUNDS is full or a number"),
    };
    let mut dice = Dice::announced("migrate random");
    let mut home = Home::new();
    let mut given_up = 0;
    for round in 0..rounds {
        if round % 50 == 49 {
            home = Home::new();
        }
        let image = format!("r{round}.qcow2");
        given_up += u64::from(!random_image(&home, &image, &mut dice));
        let device = format!("d{round}");
        let import = ["import", &image, "--device", &device];
        home.ok(&[&import[..], &["--allow-backing", "."]].concat());
        holds_what_qemu_reads(&home, &device, &image);
        fs::remove_file(home.path(&image)).expect("it is there");
    }
    // What QEMU gives up early is compared too, but has less in it.
    assert!(given_up * 50 <= rounds + 100, "{given_up} of {rounds}");
}

/// An image with up to three snapshots; false: QEMU gave it up.
fn random_image(home: &Home, image: &str, dice: &mut Dice) -> bool {
    let cluster = 512_u64 << dice.below(9);
    let size = (2 + dice.below(64)) * 65536 + 512 * dice.below(3);
    let layouts = [
        "compat=0.10",
        "compat=1.1",
        "compat=1.1,compression_type=zstd",
        "compat=1.1,extended_l2=on",
        "compat=1.1,refcount_bits=32,lazy_refcounts=on",
    ];
    let layout = *dice.pick(&layouts);
    let extended = layout.contains("extended");
    let cluster = if extended {
        cluster.max(16384)
    } else {
        cluster
    };
    let options = format!("{layout},cluster_size={cluster}");
    let create = ["create", "-q", "-f", "qcow2", "-o", &options];
    let based = dice.one_in(4);
    if based {
        for (name, size) in [("below.raw", size / 2), ("other.raw", size + 1000)] {
            fs::remove_file(home.path(name)).unwrap_or_default();
            make_image(&home.path(name), size, dice);
        }
    }
    let below: &[&str] = if based {
        &["-F", "raw", "-b", "below.raw"]
    } else {
        &[]
    };
    img(
        home,
        &[&create[..], below, &[image, &size.to_string()]].concat(),
    );
    let mut there: Vec<String> = Vec::new();
    for n in 0..dice.below(4) {
        if !scribble(home, image, &scribbles(dice, size, cluster, 5)) {
            return false;
        }
        there.push(format!("s{n}"));
        img(home, &["snapshot", "-c", &there[there.len() - 1], image]);
        if dice.one_in(3) {
            let back: &String = dice.pick(&there);
            img(home, &["snapshot", "-a", back, image]);
        }
        if there.len() > 1 && dice.one_in(4) {
            let gone = there.swap_remove(dice.below(there.len() as u64) as usize);
            img(home, &["snapshot", "-d", &gone, image]);
        }
        if dice.one_in(4) && !layout.contains("0.10") {
            let larger = (size + 512 * dice.below(5000)).to_string();
            let resize = ["resize", "-q", "--shrink", "-f", "qcow2", image, &larger];
            img(home, &resize);
        }
        if based && dice.one_in(4) {
            let onto = *dice.pick(&["other.raw", "below.raw", ""]);
            img(
                home,
                &["rebase", "-f", "qcow2", "-F", "raw", "-b", onto, image],
            );
        }
    }
    // QEMU applies no snapshot and changes no size where there are bitmaps.
    if dice.one_in(4) && !layout.contains("0.10") {
        img(home, &["bitmap", "--add", image, "b0"]);
    }
    scribble(home, image, &scribbles(dice, size, cluster, 4))
}
