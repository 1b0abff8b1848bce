//! Images that are based on others.

use crate::support::{Dice, Home, has, hash_of, make_image, run, tool};
use crate::tools::{QEMU, holds_what_qemu_reads, img, names, scribble, scribbles};
use serde_json::Value;

#[test]
fn a_chain_becomes_one_disk_or_a_snapshot_a_file() {
    if !has("migrate chain", &QEMU) {
        return;
    }
    let mut dice = Dice::announced("migrate chain");
    let home = Home::new();
    make_image(&home.path("base.raw"), 2 << 20, &mut dice);
    let create = ["create", "-q", "-f", "qcow2", "-F"];
    img(
        &home,
        &[&create[..], &["raw", "-b", "base.raw", "mid.qcow2", "3M"]].concat(),
    );
    scribble(
        &home,
        "mid.qcow2",
        &scribbles(&mut dice, 3 << 20, 65536, 10),
    );
    img(
        &home,
        &[&create[..], &["qcow2", "-b", "mid.qcow2", "top.qcow2"]].concat(),
    );
    scribble(&home, "top.qcow2", &scribbles(&mut dice, 3 << 20, 65536, 6));
    img(&home, &["snapshot", "-c", "own", "top.qcow2"]);
    scribble(&home, "top.qcow2", &scribbles(&mut dice, 3 << 20, 65536, 6));
    home.run(&["import", "top.qcow2", "--device", "flat"])
        .code(2)
        .says("was not allowed");
    home.ok(&[
        "import",
        "top.qcow2",
        "--device",
        "flat",
        "--allow-backing",
        ".",
        "--verify",
    ]);
    holds_what_qemu_reads(&home, "flat", "top.qcow2");
    let allowed = [
        "--allow-backing",
        "mid.qcow2",
        "--allow-backing",
        "base.raw",
    ];
    let import = [
        "import",
        "top.qcow2",
        "--device",
        "layers",
        "--chain",
        "snapshots",
    ];
    home.ok(&[&import[..], &allowed, &["--verify"]].concat());
    assert_eq!(names(&home, "layers"), ["base.raw", "mid.qcow2", "own"]);
    assert_eq!(
        home.export("layers@base.raw"),
        hash_of(&home.path("base.raw"))
    );
    for (image, target) in [("mid.qcow2", "layers@mid.qcow2"), ("top.qcow2", "layers")] {
        img(&home, &["convert", "-O", "raw", image, "oracle.raw"]);
        assert_eq!(
            home.export(target),
            hash_of(&home.path("oracle.raw")),
            "{target}"
        );
    }
}

#[test]
fn chains_may_change_their_format() {
    if !has("migrate mixed chain", &QEMU) {
        return;
    }
    let mut dice = Dice::announced("migrate mixed chain");
    let home = Home::new();
    make_image(&home.path("raw"), 2 << 20, &mut dice);
    img(&home, &["convert", "-O", "vmdk", "raw", "base.vmdk"]);
    let create = |format: &str, below: (&str, &str), image: &str| {
        let (of, name) = below;
        img(
            &home,
            &["create", "-q", "-f", format, "-F", of, "-b", name, image],
        );
    };
    create("qcow2", ("vmdk", "base.vmdk"), "mid.qcow2");
    scribble(&home, "mid.qcow2", &scribbles(&mut dice, 2 << 20, 65536, 6));
    create("qed", ("qcow2", "mid.qcow2"), "top.qed");
    for image in ["mid.qcow2", "top.qed"] {
        home.run(&[
            "import",
            image,
            "--device",
            "x",
            "--allow-backing",
            "mid.qcow2",
        ])
        .code(2)
        .says("base.vmdk")
        .says("was not allowed");
        let import = ["import", image, "--device", image, "--allow-backing", "."];
        home.ok(&[&import[..], &["--verify"]].concat());
        img(&home, &["convert", "-O", "raw", image, "oracle.raw"]);
        assert_eq!(
            home.export(image),
            hash_of(&home.path("oracle.raw")),
            "{image}"
        );
    }
}

#[test]
fn chains_of_other_formats_become_one_disk_or_a_snapshot_a_file() {
    if !has("migrate foreign chain", &QEMU) {
        return;
    }
    let mut dice = Dice::announced("migrate foreign chain");
    for format in ["vmdk", "qed", "qcow"] {
        let home = Home::new();
        make_image(&home.path("raw"), 2 << 20, &mut dice);
        img(&home, &["convert", "-O", format, "raw", "base"]);
        for (above, below) in [("mid", "base"), ("top", "mid")] {
            let create = [
                "create", "-q", "-f", format, "-F", format, "-b", below, above,
            ];
            img(&home, &create);
            let write = format!(
                "write -P {} {} 100k",
                above.len() + 4,
                dice.below(1000) << 10
            );
            let mut command = tool("qemu-io");
            command.current_dir(home.path(""));
            run(command.args(["-f", format, "-c", &write, above])).code(0);
        }
        let import = ["import", "top", "--device", "flat", "--allow-backing"];
        home.run(&[&import[..], &["mid"]].concat())
            .code(2)
            .says("\"base\"")
            .says("was not allowed");
        let flat = home.json(&[&import[..], &[".", "--verify"]].concat());
        assert_eq!(flat["left_out"][0]["what"], "backing chain", "{flat}");
        let import = [
            "import",
            "top",
            "--device",
            "layers",
            "--chain",
            "snapshots",
            "--name",
            "now",
        ];
        let said = home.json(&[&import[..], &["--allow-backing", ".", "--verify"]].concat());
        assert_eq!(said["left_out"], Value::Array(Vec::new()), "{said}");
        assert_eq!(names(&home, "layers"), ["base", "mid", "now"]);
        let targets = [
            ("base", "layers@base"),
            ("mid", "layers@mid"),
            ("top", "layers@now"),
            ("top", "flat"),
        ];
        for (image, target) in targets {
            img(
                &home,
                &["convert", "-f", format, "-O", "raw", image, "oracle.raw"],
            );
            let oracle = hash_of(&home.path("oracle.raw"));
            assert_eq!(home.export(target), oracle, "{format}: {target}");
        }
    }
}
