//! qcow2 images with their snapshots in, and out again.

use crate::support::{Dice, Home, files_below, has};
use crate::tools::{
    QEMU, holds_what_qemu_reads, img, list, names, pretend_savevm, scribble, scribbles,
    works_for_qemu,
};
use serde_json::Value;
use std::fs;
use std::thread::sleep;
use std::time::Duration;

#[test]
fn images_are_written_in_the_version_and_with_the_refcounts_that_are_asked_for() {
    if !has("migrate versions", &QEMU) {
        return;
    }
    let mut dice = Dice::announced("migrate versions");
    let home = Home::new();
    img(&home, &["create", "-q", "-f", "qcow2", "a.qcow2", "5M"]);
    for n in 0..3 {
        scribble(&home, "a.qcow2", &scribbles(&mut dice, 5 << 20, 65536, 12));
        img(&home, &["snapshot", "-c", &format!("s{n}"), "a.qcow2"]);
    }
    home.ok(&["import", "a.qcow2", "--device", "d"]);
    let export = ["export", "d", "--format", "qcow2", "--snapshots", "all"];
    for (n, (compat, bits)) in [("0.10", 16), ("1.1", 2), ("1.1", 64)]
        .into_iter()
        .enumerate()
    {
        let (image, width) = (format!("v{n}.qcow2"), bits.to_string());
        let how = [
            "--compat",
            compat,
            "--refcount-bits",
            &width,
            "--verify",
            &image,
        ];
        home.ok(&[&export[..], &how].concat());
        let info = img(&home, &["info", "--output=json", &image]);
        let info: Value = serde_json::from_str(&info).expect("JSON");
        let data = &info["format-specific"]["data"];
        assert_eq!(data["compat"], compat, "{info}");
        assert_eq!(data["refcount-bits"], bits, "{info}");
        img(&home, &["check", "-q", &image]);
        for snapshot in ["s0", "s1", "s2"] {
            let option = format!("snapshot.name={snapshot}");
            let of = |file: &str, raw: &str| {
                img(&home, &["convert", "-l", &option, "-O", "raw", file, raw]);
                fs::read(home.path(raw)).expect("it is read")
            };
            assert!(
                of("a.qcow2", "old.raw") == of(&image, "new.raw"),
                "{image} {snapshot}"
            );
        }
        works_for_qemu(&home, &image);
    }
    let how = ["--compat", "0.10", "--refcount-bits", "8", "x.qcow2"];
    home.run(&[&export[..], &how].concat())
        .code(2)
        .says("version 2 has neither");
    // QEMU makes and applies no snapshots with such an image.
    home.run(&[&export[..], &["--refcount-bits", "1", "x.qcow2"]].concat())
        .code(2)
        .says("no snapshots");
    home.run(&["export", "d@s0", "x.raw", "--refcount-bits", "8"])
        .says("are for qcow2, not for raw");
    assert!(!home.path("x.qcow2").exists());
}

#[test]
fn snapshots_go_in_and_come_out_as_they_were() {
    if !has("migrate snapshots", &QEMU) {
        return;
    }
    let mut dice = Dice::announced("migrate snapshots");
    let layouts = [
        ("compat=1.1", 65536),
        ("compat=0.10", 4096),
        ("compat=1.1,compression_type=zstd", 65536),
        ("compat=1.1,extended_l2=on", 131_072),
        ("compat=1.1,refcount_bits=64", 512),
        ("compat=1.1,refcount_bits=8", 2 << 20),
    ];
    for (layout, cluster) in layouts {
        let home = Home::new();
        let size = 5 << 20;
        let options = format!("{layout},cluster_size={cluster}");
        img(
            &home,
            &[
                "create", "-q", "-f", "qcow2", "-o", &options, "a.qcow2", "5M",
            ],
        );
        for n in 0..4 {
            scribble(&home, "a.qcow2", &scribbles(&mut dice, size, cluster, 12));
            if n == 0 {
                scribble(&home, "a.qcow2", &["write -b -P 77 0 300k".into()]);
            }
            img(&home, &["snapshot", "-c", &format!("s{n}"), "a.qcow2"]);
            if n == 0 {
                pretend_savevm(&home.path("a.qcow2"), 300 << 10);
            }
            if n == 2 {
                img(&home, &["snapshot", "-a", "s1", "a.qcow2"]);
            }
        }
        if !layout.contains("0.10") {
            img(&home, &["resize", "-q", "-f", "qcow2", "a.qcow2", "7M"]);
            scribble(&home, "a.qcow2", &["write -P 9 5M 1M".into()]);
        }
        home.ok(&["import", "a.qcow2", "--device", "d", "--verify"]);
        assert_eq!(names(&home, "d"), ["s0", "s1", "s2", "s3"], "{layout}");
        holds_what_qemu_reads(&home, "d", "a.qcow2");
        for (n, compress) in ["", "zlib", "zstd"].into_iter().enumerate() {
            let image = format!("out{n}.qcow2");
            let mut export = vec!["export", "d", &image, "--format", "qcow2"];
            export.extend(["--snapshots", "all", "--verify"]);
            if !compress.is_empty() {
                export.extend(["--compress", compress]);
            }
            home.ok(&export);
            assert_eq!(list(&home, "a.qcow2"), list(&home, &image), "{layout}");
            let compare = ["compare", "-q", "-f", "qcow2", "-F", "qcow2"];
            img(&home, &[&compare[..], &["a.qcow2", &image]].concat());
            let device = format!("again{n}");
            home.ok(&["import", &image, "--device", &device, "--verify"]);
            holds_what_qemu_reads(&home, &device, "a.qcow2");
            works_for_qemu(&home, &image);
        }
    }
}

#[test]
fn vm_state_and_every_field_survive_the_trip() {
    if !has("migrate fields", &QEMU) {
        return;
    }
    let home = Home::new();
    img(&home, &["create", "-q", "-f", "qcow2", "a.qcow2", "3M"]);
    scribble(
        &home,
        "a.qcow2",
        &["write -b -P 77 0 300k".into(), "write -P 3 0 1M".into()],
    );
    img(&home, &["snapshot", "-c", "running", "a.qcow2"]);
    pretend_savevm(&home.path("a.qcow2"), 300 << 10);
    home.ok(&["import", "a.qcow2", "--device", "d", "--verify"]);
    let listed = &home.json(&["list"])["snapshots"][0];
    let expected = [
        ("id", Value::from("1")),
        ("name", Value::from("running")),
        ("date", Value::from("2001-09-09T01:46:41.123456789Z")),
        ("vm_clock_nsec", Value::from(98_765_432_100_u64)),
        ("vm_state_bytes", Value::from(300 << 10)),
        ("icount", Value::from(4242)),
    ];
    let fields = expected.each_ref().map(|(field, _)| *field);
    for (field, value) in expected {
        assert_eq!(listed[field], value, "{field}");
    }
    home.ok(&["export", "--vm-state", "d@running", "ram.bin"]);
    let ram = fs::read(home.path("ram.bin")).expect("it was exported");
    assert_eq!(ram, vec![77; 300 << 10]);
    let export = [
        "export",
        "d",
        "b.qcow2",
        "--format",
        "qcow2",
        "--snapshots",
        "running",
    ];
    home.ok(&[&export[..], &["--verify"]].concat());
    assert_eq!(list(&home, "a.qcow2"), list(&home, "b.qcow2"));
    home.ok(&["import", "b.qcow2", "--device", "again"]);
    let again = &home.json(&["list", "--device", "again"])["snapshots"][0];
    for field in fields {
        assert_eq!(again[field], listed[field], "{field}");
    }
}

#[test]
fn a_choice_of_snapshots_is_taken_and_the_present_state_named() {
    if !has("migrate choice", &QEMU) {
        return;
    }
    let home = Home::new();
    img(&home, &["create", "-q", "-f", "qcow2", "a.qcow2", "1M"]);
    for (n, name) in ["one", "two", "one"].into_iter().enumerate() {
        scribble(&home, "a.qcow2", &[format!("write -P {} 0 64k", n + 1)]);
        img(&home, &["snapshot", "-c", name, "a.qcow2"]);
    }
    let none = home.json(&[
        "import",
        "a.qcow2",
        "--device",
        "none",
        "--snapshots",
        "none",
    ]);
    assert_eq!(
        none["snapshots"].as_array().map(Vec::len),
        Some(1),
        "{none}"
    );
    assert_eq!(none["left_out"][0]["what"], "snapshots");
    home.ok(&[
        "import",
        "a.qcow2",
        "--device",
        "some",
        "--snapshots",
        "id:3,two",
        "--name",
        "now",
    ]);
    assert_eq!(names(&home, "some"), ["two", "one", "now"]);
    home.ok(&["import", "a.qcow2", "--device", "all"]);
    assert_eq!(names(&home, "all"), ["one", "two", "one"]);
    // Both of one name can be reached by their ids.
    assert_ne!(home.export("all@id:1"), home.export("all@id:3"));
    let nothing = ["import", "a.qcow2", "--device", "x", "--snapshots", "three"];
    home.run(&nothing).code(3).says("it has no snapshot three");
    home.run(&["import", "a.qcow2", "--device", "all"])
        .code(1)
        .says("has a snapshot of the id");
    let before = files_below(&home.store());
    let plan = home.json(&["import", "a.qcow2", "--device", "plan", "--dry-run"]);
    assert_eq!(plan["states"].as_array().map(Vec::len), Some(4), "{plan}");
    assert_eq!(plan["read_bytes"], 3 * 65536);
    assert_eq!(files_below(&home.store()), before, "a plan changes nothing");
}

#[test]
fn what_snapshots_share_is_read_once() {
    if !has("migrate sharing", &QEMU) {
        return;
    }
    let mut dice = Dice::announced("migrate sharing");
    let home = Home::new();
    let whole: u64 = 20 << 20;
    fs::write(home.path("raw"), dice.bytes(whole as usize)).expect("written");
    for compress in [&[][..], &["-c"]] {
        let image = if compress.is_empty() { "a" } else { "b" };
        let convert = ["convert", "-f", "raw", "-O", "qcow2"];
        img(&home, &[&convert[..], compress, &["raw", image]].concat());
        for n in 0..12 {
            img(&home, &["snapshot", "-c", &format!("s{n}"), image]);
            scribble(
                &home,
                image,
                &[format!("write -P {} {} 64k", n + 1, n << 20)],
            );
        }
        // The present state is far from the last snapshot, and near an old one.
        img(&home, &["snapshot", "-a", "s2", image]);
        let said = home.json(&["import", image, "--device", image]);
        let all = said["snapshots"].as_array().expect("an array").iter();
        let read: u64 = all.filter_map(|s| s["read_bytes"].as_u64()).sum();
        assert_eq!(read, whole + 11 * 65536, "{said}");
    }
}

#[test]
fn an_import_that_is_killed_leaves_nothing_and_can_be_repeated() {
    if !has("migrate kill", &QEMU) {
        return;
    }
    let mut dice = Dice::announced("migrate kill");
    let home = Home::new();
    fs::write(home.path("raw"), dice.bytes(40 << 20)).expect("written");
    img(
        &home,
        &["convert", "-f", "raw", "-O", "qcow2", "raw", "a.qcow2"],
    );
    for n in 0..6 {
        img(&home, &["snapshot", "-c", &format!("s{n}"), "a.qcow2"]);
        let writes: Vec<String> = (0..40)
            .map(|_| format!("write -s raw {} 64k", dice.below(600) << 16))
            .collect();
        scribble(&home, "a.qcow2", &writes);
    }
    for wait in [5, 20, 50, 100, 200, 400] {
        let mut child = home
            .command(&["import", "a.qcow2", "--device", "d", "--quiet"])
            .spawn()
            .expect("it starts");
        sleep(Duration::from_millis(wait + dice.below(20)));
        child.kill().expect("it is ours");
        let ended = child.wait().expect("it ends");
        if ended.success() {
            break;
        }
        let devices = &home.json(&["device", "list"])["devices"];
        if devices.as_array().is_some_and(Vec::is_empty) {
            assert!(home.snapshots().is_empty());
        } else {
            // It was killed after the one entry.
            assert_eq!(home.snapshots().len(), 6);
            break;
        }
    }
    if home.snapshots().is_empty() {
        home.ok(&["import", "a.qcow2", "--device", "d", "--verify"]);
    }
    holds_what_qemu_reads(&home, "d", "a.qcow2");
    home.ok(&["gc", "--all"]);
    home.ok(&["verify"]);
}
