//! Every format in and out, from and to files and pipes, encrypted too.

use crate::support::{Dice, Home, has, hash_of, run};
use crate::tools::{QEMU, img, names};
use std::fs;
use std::os::unix::fs::FileExt;

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
fn luks_and_encrypted_qcow2_images_go_out_with_their_passphrase() {
    if !has("migrate luks", &QEMU) {
        return;
    }
    let mut dice = Dice::announced("migrate luks");
    let home = Home::new();
    fs::write(home.path("raw"), dice.bytes(1 << 20)).expect("written");
    fs::write(home.path("pass"), "secret").expect("written");
    home.ok(&["import", "raw", "--device", "d", "--name", "s"]);
    let export = ["export", "d", "out", "--format", "luks"];
    home.run(&export).code(1).says("--secret-file");
    assert!(!home.path("out").exists());
    let layouts = [
        ("luks", "driver=luks,key-secret=s"),
        (
            "qcow2",
            "driver=qcow2,encrypt.format=luks,encrypt.key-secret=s",
        ),
    ];
    for (format, image) in layouts {
        let export = ["export", "d", format, "--format", format];
        // Another program writes these: never where somebody may go on.
        let left = home.path(&format!("{format}.still-part"));
        fs::write(&left, b"left").expect("written");
        let secret = ["--secret-file", "pass", "--verify"];
        home.ok(&[&export[..], &secret].concat());
        let object = "secret,id=s,file=pass";
        let image = format!("{image},file.driver=file,file.filename={format}");
        let convert = ["convert", "--object", object, "--image-opts", &image];
        img(&home, &[&convert[..], &["-O", "raw", "back"]].concat());
        assert_eq!(hash_of(&home.path("back")), hash_of(&home.path("raw")));
        assert_eq!(fs::read(&left).expect("it stays"), b"left");
    }
    let info = img(&home, &["info", "-f", "qcow2", "qcow2"]);
    assert!(info.contains("encrypted: yes"), "{info}");
    let plain = ["export", "d", "plain", "--secret-file", "pass"];
    home.run(&plain).code(1).says("--format luks");
    let whole = ["--format", "qcow2", "--snapshots", "all"];
    home.run(&[&plain[..], &whole].concat())
        .code(1)
        .says("without snapshots");
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
