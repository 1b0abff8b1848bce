//! Images that want files opened which nobody allowed, and other harm.

use crate::support::{Dice, Home, has, run, tool};
use crate::tools::{QEMU, img, scribble};
use serde_json::Value;
use std::fs;

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
