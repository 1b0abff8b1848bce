//! Images in and out of the real program, judged by the real qemu-img. 100 random images; 3000 with `STILL_ROUNDS=full`, any
//! number with `STILL_ROUNDS=<n>`.

mod support;

use serde_json::Value;
use std::fs;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::thread::sleep;
use std::time::Duration;
use support::{Dice, Home, files_below, has, hash_of, make_image, run, tool};

const QEMU: [&str; 3] = ["qemu-img", "qemu-io", "qemu-nbd"];

/// A program of qemu-utils in the folder of the home; what it printed.
#[track_caller]
fn qemu(home: &Home, program: &str, arguments: &[&str]) -> String {
    let mut command = tool(program);
    command.current_dir(home.path("")).args(arguments);
    run(&mut command).code(0).text().to_owned()
}

#[track_caller]
fn img(home: &Home, arguments: &[&str]) -> String {
    qemu(home, "qemu-img", arguments)
}

/// Commands of qemu-io on a qcow2; what QEMU cannot do, such as compressing a cluster again, is left out. False: QEMU would have
/// overwritten a table of its own and writes the image no more; what is in it is whole.
///
/// QEMU 10.0 goes on in the cluster where its last compressed bytes are, even when that was freed meanwhile and is a table
/// now. What is compressed after something else is therefore written by a program of its own.
fn scribble(home: &Home, image: &str, commands: &[String]) -> bool {
    let compresses = |command: &String| command.starts_with("write -c");
    let parts = commands.chunk_by(|before, next| compresses(before) || !compresses(next));
    parts.into_iter().all(|part| {
        let mut command = tool("qemu-io");
        command.current_dir(home.path("")).args(["-f", "qcow2"]);
        for one in part {
            command.args(["-c", one]);
        }
        let ran = run(command.arg(image));
        assert!(ran.status.code().is_some(), "{}", ran.story());
        !ran.err.contains("Marking image as corrupt")
    })
}

/// Random writes, zeros and discards.
fn scribbles(dice: &mut Dice, size: u64, cluster: u64, n: u64) -> Vec<String> {
    let one = |dice: &mut Dice| {
        let len = (512 << dice.below(10)).min(size);
        let at = dice.below(size - len + 1) & !511;
        let byte = dice.below(250) + 1;
        match dice.below(5) {
            0 => format!("write -z {at} {len}"),
            1 => format!("discard {at} {len}"),
            2 | 3 => format!("write -P {byte} {at} {len}"),
            _ => {
                let at = dice.below(size / cluster) * cluster;
                format!("write -c -P {byte} {at} {cluster}")
            }
        }
    };
    (0..n).map(|_| one(dice)).collect()
}

/// `snapshot -l` without the padding.
fn list(home: &Home, image: &str) -> Vec<String> {
    let said = img(home, &["snapshot", "-l", image]);
    let words = |line: &str| line.split_whitespace().collect::<Vec<_>>().join(" ");
    said.lines().map(words).collect()
}

/// Names of the snapshots of a device, in order.
fn names(home: &Home, device: &str) -> Vec<String> {
    let listed = home.json(&["list", "--device", device]);
    let all = listed["snapshots"].as_array().expect("an array").iter();
    all.map(|s| s["name"].as_str().expect("text").to_owned())
        .collect()
}

/// The states of the device are what QEMU reads of the image.
#[track_caller]
fn holds_what_qemu_reads(home: &Home, device: &str, image: &str) {
    let in_image = list(home, image);
    let in_image: Vec<&str> = in_image
        .iter()
        .filter_map(|l| l.split(' ').nth(1))
        .collect();
    // The store names a snapshot of an image without any.
    let known = |name: &String| in_image.contains(&name.as_str());
    for name in names(home, device).into_iter().filter(known) {
        let option = format!("snapshot.name={name}");
        let oracle = ["convert", "-f", "qcow2", "-O", "raw", "-l"];
        img(
            home,
            &[&oracle[..], &[&option, image, "oracle.raw"]].concat(),
        );
        // QEMU reads as many bytes as the disk has now.
        home.ok(&["export", &format!("{device}@{name}"), "ours.raw", "--quiet"]);
        let ours = fs::read(home.path("ours.raw")).expect("it was exported");
        let theirs = fs::read(home.path("oracle.raw")).expect("it was converted");
        let len = ours.len().min(theirs.len());
        assert!(ours[..len] == theirs[..len], "{image}: snapshot {name}");
        fs::remove_file(home.path("ours.raw")).expect("it is there");
    }
    img(
        home,
        &["convert", "-f", "qcow2", "-O", "raw", image, "oracle.raw"],
    );
    assert_eq!(
        home.export(device),
        hash_of(&home.path("oracle.raw")),
        "{image}"
    );
}

/// Gives the first snapshot what only a running VM would.
fn pretend_savevm(image: &Path, vm_state: u64) {
    let file = fs::File::options().read(true).write(true).open(image);
    let file = file.expect("it is there");
    let mut at = [0; 8];
    file.read_exact_at(&mut at, 64).expect("a header");
    let at = u64::from_be_bytes(at);
    let put = |offset, bytes: &[u8]| file.write_all_at(bytes, at + offset).expect("written");
    put(16, &1_000_000_001_u32.to_be_bytes());
    put(20, &123_456_789_u32.to_be_bytes());
    put(24, &98_765_432_100_u64.to_be_bytes());
    put(32, &(vm_state as u32).to_be_bytes());
    put(40, &vm_state.to_be_bytes());
    put(56, &4242_u64.to_be_bytes());
}

#[track_caller]
fn works_for_qemu(home: &Home, image: &str) {
    let check = || img(home, &["check", "-q", "-f", "qcow2", image]);
    check();
    for line in list(home, image).iter().skip(2) {
        let name = line.split(' ').nth(1).expect("a name");
        img(home, &["snapshot", "-a", name, image]);
        check();
        img(home, &["snapshot", "-d", name, image]);
        check();
    }
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

#[test]
fn every_format_goes_in_and_out() {
    if !has("migrate matrix", &QEMU) {
        return;
    }
    let mut dice = Dice::announced("migrate matrix");
    let home = Home::new();
    let make = |name: &str, size: u64| {
        let file = fs::File::create(home.path(name)).expect("a new file");
        file.set_len(size).expect("sparse");
        file
    };
    make("empty", 4 << 20);
    let sparse = make("sparse", 9 << 20);
    sparse
        .write_all_at(&dice.bytes(70_000), 5 << 20)
        .expect("written");
    fs::write(home.path("full"), dice.bytes(3 << 20)).expect("written");
    fs::write(home.path("odd"), dice.bytes((1 << 20) + 513)).expect("written");
    let formats = [
        ("raw", ""),
        ("qcow2", ""),
        ("qcow2", "-c"),
        ("vmdk", ""),
        ("vmdk", "-osubformat=streamOptimized"),
        ("vmdk", "-osubformat=twoGbMaxExtentSparse"),
        ("vmdk", "-osubformat=twoGbMaxExtentFlat"),
        ("vmdk", "-osubformat=monolithicFlat"),
        ("vhdx", ""),
        ("vhdx", "-osubformat=fixed"),
        ("vpc", "-oforce_size=on"),
        ("vpc", "-osubformat=fixed,force_size=on"),
        ("vdi", ""),
        ("vdi", "-ostatic=on"),
        ("qed", ""),
        ("qcow", ""),
        ("parallels", ""),
    ];
    for kind in ["empty", "sparse", "full", "odd"] {
        for (n, (format, option)) in formats.into_iter().enumerate() {
            let what = format!("{kind} {format} {option}");
            let image = format!("{kind}{n}.{format}");
            let mut convert = vec!["convert", "-f", "raw", "-O", format];
            convert.extend(Some(option).filter(|o| !o.is_empty()));
            convert.extend([kind, &image]);
            img(&home, &convert);
            let device = format!("{kind}{n}");
            let import = [
                "import",
                &image,
                "--device",
                &device,
                "--allow-backing",
                ".",
            ];
            let said = home.json(&[&import[..], &["--verify"]].concat());
            assert_eq!(said["format"], format, "{what}");
            // Formats that count in sectors end with a whole one.
            let same = |file: &str, of: &str| {
                let compare = ["compare", "-q", "-f", "raw", "-F", of, kind, file];
                img(&home, &compare);
            };
            home.ok(&["export", &device, "back.raw"]);
            same("back.raw", "raw");
            fs::remove_file(home.path("back.raw")).expect("it was written");
            if option.is_empty() {
                let back = format!("back.{format}");
                home.ok(&["export", &device, &back, "--format", format, "--verify"]);
                same(&back, format);
                fs::remove_file(home.path(&back)).expect("it was written");
            }
        }
    }
}

#[test]
fn encrypted_images_need_their_passphrase() {
    if !has("migrate encrypted", &QEMU) {
        return;
    }
    let mut dice = Dice::announced("migrate encrypted");
    let home = Home::new();
    fs::write(home.path("plain"), dice.bytes(1 << 20)).expect("written");
    fs::write(home.path("pass"), "secret").expect("written");
    fs::write(home.path("wrong"), "Secret").expect("written");
    let layouts = [
        ("luks", "key-secret=s,iter-time=10"),
        (
            "qcow2",
            "encrypt.format=luks,encrypt.key-secret=s,encrypt.iter-time=10",
        ),
        ("qcow2", "encrypt.format=aes,encrypt.key-secret=s"),
    ];
    for (n, (format, options)) in layouts.into_iter().enumerate() {
        let object = "secret,id=s,file=pass";
        let convert = ["convert", "--object", object, "-O", format, "-o", options];
        let image = format!("{format}{n}");
        img(&home, &[&convert[..], &["plain", &image]].concat());
        let import = ["import", &image, "--device", &image];
        home.run(&import)
            .code(1)
            .says("encrypted")
            .says("--secret-file");
        let told = options.contains("aes");
        if !told {
            let wrong = [&import[..], &["--secret-file", "wrong"]].concat();
            home.run(&wrong).code(1);
        }
        let said = home.json(&[&import[..], &["--secret-file", "pass", "--verify"]].concat());
        let warned = said.to_string().contains("wrong one is not noticed");
        assert_eq!(warned, told, "{said}");
        assert_eq!(
            home.export(&image),
            hash_of(&home.path("plain")),
            "{options}"
        );
    }
    // One that is not encrypted needs none, and is read with its snapshots.
    img(&home, &["convert", "-O", "qcow2", "plain", "open"]);
    img(&home, &["snapshot", "-c", "s", "open"]);
    home.ok(&[
        "import",
        "open",
        "--device",
        "open",
        "--secret-file",
        "pass",
    ]);
    assert_eq!(names(&home, "open"), ["s"]);
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
fn standard_input_may_be_of_any_format() {
    if !has("migrate stdin", &QEMU) {
        return;
    }
    let mut dice = Dice::announced("migrate stdin");
    let home = Home::new();
    fs::write(home.path("raw"), dice.bytes(1 << 20)).expect("written");
    img(&home, &["convert", "-O", "qcow2", "raw", "a.qcow2"]);
    img(&home, &["snapshot", "-c", "s", "a.qcow2"]);
    img(&home, &["convert", "-O", "vdi", "raw", "a.vdi"]);
    for (image, snapshots) in [("raw", 1), ("a.qcow2", 1), ("a.vdi", 1)] {
        let pipe = fs::File::open(home.path(image)).expect("it is there");
        let mut command = home.command(&["import", "-", "--device", image, "--verify"]);
        run(command.stdin(pipe)).code(0);
        assert_eq!(names(&home, image).len(), snapshots, "{image}");
        assert_eq!(home.export(image), hash_of(&home.path("raw")), "{image}");
    }
    assert_eq!(names(&home, "a.qcow2"), ["s"]);
}

#[test]
fn an_export_says_what_is_in_it_and_what_is_not() {
    if !has("migrate export", &QEMU) {
        return;
    }
    let mut dice = Dice::announced("migrate export");
    let home = Home::new();
    for device in ["d", "e"] {
        fs::write(home.path(device), dice.bytes(1 << 20)).expect("written");
        home.ok(&["device", "add", device, device]);
    }
    home.ok(&["create", "one", "--device", "d"]);
    fs::write(home.path("d"), dice.bytes(1 << 20)).expect("written");
    home.ok(&["create", "two"]);
    let export = ["export", "d@two", "out", "--format", "qcow2", "--snapshots"];
    let plan = home.json(&[&export[..], &["two", "--dry-run"]].concat());
    assert!(!home.path("out").exists());
    assert_eq!(plan["states"].as_array().map(Vec::len), Some(2), "{plan}");
    // What the two states share goes out once.
    assert_eq!(plan["data_bytes"], 1 << 20);
    let said = home.json(&[&export[..], &["two", "--checksums"]].concat());
    let two = hash_of(&home.path("d")).to_hex().to_string();
    assert_eq!(said["checksums"][0]["blake3"], *two, "{said}");
    assert_eq!(said["checksums"][1]["blake3"], *two);
    for (n, what) in ["snapshots", "groups"].into_iter().enumerate() {
        assert_eq!(said["left_out"][n]["what"], what, "{said}");
        assert_eq!(plan["left_out"][n]["what"], what, "{plan}");
    }
    let import = ["import", "out", "--device", "again", "--checksums"];
    let again = home.json(&import);
    assert_eq!(again["checksums"], {
        let mut same = said["checksums"].clone();
        same[1]["state"] = "the present state".into();
        same
    });
    let text = home.ok(&[
        "export",
        "d@one",
        "one.vdi",
        "--format",
        "vdi",
        "--checksums",
    ]);
    let one = home.export("d@one").to_hex().to_string();
    assert!(
        text.text().starts_with(&format!("{one}  d@one\n")),
        "{}",
        text.text()
    );
    assert!(
        text.text()
            .contains("not carried over: snapshots: 2 of the device")
    );
}

#[test]
fn every_format_goes_to_standard_output() {
    if !has("migrate stdout", &QEMU) {
        return;
    }
    let mut dice = Dice::announced("migrate stdout");
    let home = Home::new();
    fs::write(home.path("raw"), dice.bytes(1 << 20)).expect("written");
    home.ok(&["import", "raw", "--device", "d", "--name", "s"]);
    for format in ["raw", "qcow2", "vdi"] {
        let mut export = vec!["export", "d", "-", "--format", format];
        if format == "qcow2" {
            export.extend(["--snapshots", "all", "--compress", "zlib", "--verify"]);
        }
        fs::write(home.path("out"), home.ok(&export).out).expect("written");
        img(
            &home,
            &["compare", "-q", "-f", "raw", "-F", format, "raw", "out"],
        );
    }
    let refused = ["export", "d", "-", "--verify"];
    home.run(&refused).code(2).says("standard output");
}

#[test]
fn a_luks_image_goes_out_with_its_passphrase() {
    if !has("migrate luks", &QEMU) {
        return;
    }
    let mut dice = Dice::announced("migrate luks");
    let home = Home::new();
    fs::write(home.path("raw"), dice.bytes(1 << 20)).expect("written");
    fs::write(home.path("pass"), "secret").expect("written");
    home.ok(&["import", "raw", "--device", "d"]);
    let export = ["export", "d", "out", "--format", "luks"];
    home.run(&export).code(1).says("--secret-file");
    assert!(!home.path("out").exists());
    home.ok(&[&export[..], &["--secret-file", "pass", "--verify"]].concat());
    let object = "secret,id=s,file=pass";
    let image = "driver=luks,key-secret=s,file.driver=file,file.filename=out";
    let compare = ["convert", "--object", object, "--image-opts", image];
    img(&home, &[&compare[..], &["-O", "raw", "back"]].concat());
    assert_eq!(hash_of(&home.path("back")), hash_of(&home.path("raw")));
    let plain = ["export", "d", "plain", "--secret-file", "pass"];
    home.run(&plain).code(1).says("--format luks");
}

#[test]
fn without_qemu_utils_the_package_is_named() {
    let home = Home::new();
    let mut image = b"vhdxfile".to_vec();
    image.resize(1 << 20, 0);
    fs::write(home.path("a.vhdx"), image).expect("written");
    fs::write(home.path("raw"), vec![7; 100_000]).expect("written");
    home.ok(&["import", "raw", "--device", "d"]);
    fs::create_dir(home.path("empty")).expect("a new folder");
    let runs: [&[&str]; 2] = [
        &["import", "a.vhdx", "--device", "x"],
        &["export", "d", "d.vdi", "--format", "vdi"],
    ];
    for arguments in runs {
        let mut command = home.command(arguments);
        let ran = run(command.env("PATH", home.path("empty"))).code(1);
        ran.says("qemu-img")
            .says("not installed")
            .says("install qemu-utils");
    }
    assert!(!home.path("d.vdi").exists());
}

/// However a descriptor is written and wherever it is: what QEMU would open is found.
fn no_vmdk_leads_to_other_files(home: &Home) {
    let secret = home.path("raw").display().to_string();
    let head = "version=1\nCID=1\nparentCID=ffffffff\ncreateType=\"monolithicFlat\"\n";
    let whole = format!("# Disk DescriptorFile\n{head}RW 2 FLAT \"{secret}\" 0\n");
    let over_lines = format!("# Disk DescriptorFile\n{head}\x0bRW 2 FLAT\n\"{secret}\" 0\n");
    let headless = format!("{head}RW 2 FLAT \"{secret}\" 0\n");
    // A sparse header without a size has nothing but a descriptor, in the sector that it names.
    let mut sparse = vec![0; 512];
    sparse[..12].copy_from_slice(b"KDMV\x01\0\0\0\x03\0\0\0");
    sparse[28] = 1;
    sparse.extend(whole.as_bytes());
    sparse.resize(1536, 0);
    let nested = whole
        .replace(&secret, "sparse.vmdk")
        .replace("FLAT", "VMFSSPARSE");
    let prefixed = whole.replace(&secret, "file:raw");
    let files = [
        ("over-lines.vmdk", over_lines.as_bytes(), "was not allowed"),
        ("headless.vmdk", headless.as_bytes(), "was not allowed"),
        ("sparse.vmdk", &sparse, "was not allowed"),
        ("nested.vmdk", nested.as_bytes(), "has a descriptor"),
        ("prefixed.vmdk", prefixed.as_bytes(), "as file:"),
    ];
    for (name, bytes, says) in files {
        fs::write(home.path(name), bytes).expect("written");
        let import = ["import", name, "--format", "vmdk", "--device", "x"];
        let allowed = ["--allow-backing", "sparse.vmdk"];
        let allowed = if name == "nested.vmdk" {
            &allowed[..]
        } else {
            &[]
        };
        let ran = home.run(&[&import[..], allowed].concat()).says(says);
        assert!(matches!(ran.status.code(), Some(1..=4)), "{}", ran.story());
    }
    // Allowed, QEMU reads each of them: so that all these do lead somewhere.
    for name in ["over-lines.vmdk", "headless.vmdk", "sparse.vmdk"] {
        let import = ["import", name, "--format", "vmdk", "--device", "x"];
        let plan = home.json(&[&import[..], &["--allow-backing", "raw", "--dry-run"]].concat());
        assert_eq!(plan["states"][0]["size_bytes"], 1024, "{name}: {plan}");
    }
}

/// A descriptor of a vmdk image that names a file, or nearly, in one of the ways that QEMU may read.
fn random_descriptor(dice: &mut Dice, named: &str) -> Vec<u8> {
    let blanks = [" ", " ", "\t", "\n", "\r\n", "\x0b", "\x0c", "  ", ""];
    let mut text = String::from(*dice.pick(&["# Disk DescriptorFile\n", "\n", "", "#\n"]));
    text += "version=1\nCID=1\nparentCID=ffffffff\ncreateType=\"";
    text += *dice.pick(&["monolithicFlat\"\n", "vmfs\"\n"]);
    for _ in 0..dice.below(3) {
        let more = [
            "\n",
            "# RW 1 FLAT \"x\"\n",
            "ddb.a = \"RW\"\n",
            "RW 1 ZERO\n",
            "\r\n",
        ];
        text += *dice.pick(&more);
    }
    let name = format!(
        "\"{named}{}",
        dice.pick(&["\"", "\"", "\"", "\r\"", "\n", ""])
    );
    let kind = *dice.pick(&["FLAT", "FLAT", "VMFS", "VMFS", "ZERO", "VMFSSPARSE"]);
    let access = *dice.pick(&["RW", "RW", "RW", "RDONLY", "rw"]);
    for word in [access, "2", kind, &name] {
        text += *dice.pick(&blanks[..blanks.len() - usize::from(word == "2")]);
        text += word;
    }
    text += *dice.pick(&[" 0\n", "\t0", " 0\n\n", "", "\n0\n"]);
    if dice.one_in(3) {
        let mut sparse = vec![0; 512];
        sparse[..12].copy_from_slice(b"KDMV\x01\0\0\0\x03\0\0\0");
        sparse[28] = 1 + dice.below(3) as u8;
        sparse.resize(usize::from(sparse[28]) * 512, b' ');
        sparse.extend(text.as_bytes());
        sparse.resize(4096, 0);
        return sparse;
    }
    text.into_bytes()
}

#[test]
fn what_qemu_opens_for_a_vmdk_is_asked_for_first() {
    if !has("migrate descriptors", &QEMU) {
        return;
    }
    let mut dice = Dice::announced("migrate descriptors");
    let home = Home::new();
    fs::write(home.path("secret"), "secret ".repeat(200)).expect("written");
    let named = home.path("secret").display().to_string();
    let mut opened = 0;
    for round in 0..150 {
        let image = random_descriptor(&mut dice, &named);
        fs::write(home.path("image"), &image).expect("written");
        let mut qemu = tool("qemu-img");
        let convert = ["convert", "-f", "vmdk", "-O", "raw", "image", "out"];
        let ran = run(qemu.current_dir(home.path("")).args(convert));
        let out = fs::read(home.path("out")).unwrap_or_default();
        fs::remove_file(home.path("out")).unwrap_or_default();
        let reads = ran.status.success() && out.starts_with(b"secret");
        opened += u64::from(reads);
        let import = [
            "import",
            "image",
            "--format",
            "vmdk",
            "--device",
            "x",
            "--dry-run",
        ];
        let ours = home.run(&import);
        let refused = ours.err.contains("was not allowed");
        let shown = String::from_utf8_lossy(&image).into_owned();
        assert!(
            refused || !reads,
            "round {round}: {shown:?}: {}",
            ours.story()
        );
    }
    assert!(opened > 10, "QEMU opened {opened} of them");
}

fn an_encrypted_image_leads_to_no_other_file(home: &Home) {
    fs::write(home.path("pass"), "secret").expect("written");
    let options = "encrypt.format=luks,encrypt.key-secret=s,encrypt.iter-time=10,data_file=data";
    let create = [
        "create",
        "-q",
        "-f",
        "qcow2",
        "--object",
        "secret,id=s,file=pass",
    ];
    img(
        home,
        &[&create[..], &["-o", options, "encrypted", "1M"]].concat(),
    );
    let import = [
        "import",
        "encrypted",
        "--device",
        "x",
        "--secret-file",
        "pass",
    ];
    home.run(&import)
        .code(2)
        .says("\"data\"")
        .says("was not allowed");
    home.ok(&[&import[..], &["--allow-backing", "data", "--dry-run"]].concat());
}

#[test]
fn hostile_images_open_nothing_and_say_what_is_wrong() {
    if !has("migrate hostile", &QEMU) {
        return;
    }
    let home = Home::new();
    fs::write(home.path("raw"), vec![0; 1 << 20]).expect("written");
    let names = [
        ("/etc/passwd", "was not allowed"),
        ("nbd:localhost:10809", "no protocols"),
        ("json:{\"driver\":\"null-co\"}", "JSON"),
        ("gone.qcow2", "cannot be found"),
        ("self.qcow2", "chain"),
    ];
    for (name, says) in names {
        img(&home, &["create", "-q", "-f", "qcow2", "self.qcow2", "1M"]);
        img(
            &home,
            &[
                "rebase",
                "-u",
                "-f",
                "qcow2",
                "-F",
                "raw",
                "-b",
                name,
                "self.qcow2",
            ],
        );
        let mut import = vec!["import", "self.qcow2", "--device", "x"];
        if name == "self.qcow2" {
            import.extend(["--allow-backing", "."]);
        }
        let ran = home.run(&import).says(says).says("self.qcow2");
        assert!(matches!(ran.status.code(), Some(1..=4)), "{}", ran.story());
    }
    let text = "# Disk DescriptorFile\nversion=1\nCID=1\nparentCID=ffffffff\n\
                createType=\"monolithicFlat\"\nRW 8 FLAT \"/etc/passwd\" 0\n";
    fs::write(home.path("flat.vmdk"), text).expect("written");
    home.run(&["import", "flat.vmdk", "--device", "x"])
        .code(2)
        .says("/etc/passwd")
        .says("was not allowed");
    no_vmdk_leads_to_other_files(&home);
    an_encrypted_image_leads_to_no_other_file(&home);
    img(
        &home,
        &[
            "create", "-q", "-f", "qed", "-b", "raw", "-F", "raw", "over.qed",
        ],
    );
    home.run(&["import", "over.qed", "--device", "x"])
        .code(2)
        .says("was not allowed");
    // Cut off anywhere, an image is refused or read, and nothing is half there.
    img(&home, &["create", "-q", "-f", "qcow2", "cut.qcow2", "1M"]);
    scribble(&home, "cut.qcow2", &["write -P 1 0 256k".into()]);
    img(&home, &["snapshot", "-c", "s", "cut.qcow2"]);
    let whole = fs::read(home.path("cut.qcow2")).expect("it is there");
    for len in [30, 104, 70_000, 140_000, 200_000, 300_000] {
        fs::write(home.path("cut.qcow2"), &whole[..len.min(whole.len())]).expect("written");
        let ran = home.run(&["import", "cut.qcow2", "--device", "x"]);
        assert!(
            matches!(ran.status.code(), Some(1..=4)),
            "{len}: {}",
            ran.story()
        );
    }
    assert_eq!(
        home.json(&["device", "list"])["devices"],
        Value::Array(Vec::new())
    );
}

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
