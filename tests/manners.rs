//! How the program behaves in a shell and under scripts: one JSON document, pipes that close, Ctrl-C, completions and
//! manual pages.

mod support;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::fs;
use std::io::Read;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::os::unix::process::ExitStatusExt;
use std::process::Stdio;
use std::thread::sleep;
use std::time::Duration;
use support::{Dice, Home, Ran, find, finish, hash_of, make_image, run, skip, tool};

fn with_snapshot(len: u64) -> Home {
    let home = Home::new();
    make_image(&home.path("a.raw"), len, &mut Dice::new(7));
    home.ok(&["device", "add", "a", "a.raw"]);
    home.ok(&["create", "one"]);
    home
}

#[test]
fn with_json_every_verb_prints_one_document_and_nothing_else() {
    let home = with_snapshot(1 << 20);
    make_image(&home.path("b.raw"), 1 << 20, &mut Dice::new(8));
    let good: [&[&str]; 30] = [
        &["device", "add", "b", "b.raw"],
        &["device", "list"],
        &["create", "two"],
        &["create"],
        &["list"],
        &["show", "a"],
        &["show", "a@one"],
        &["find", "one"],
        &["diff", "a@one", "a@two"],
        &["goto", "two"],
        &["import", "a.raw", "--device", "i", "--name", "x"],
        &["export", "i@x", "out.raw"],
        &["verify"],
        &["stats"],
        &["stats", "a@one", "b@two"],
        &["qemu-img", "snapshot", "-c", "three", "a"],
        &["qemu-img", "snapshot", "-l", "a.raw"],
        &["qemu-img", "snapshot", "-d", "three", "a"],
        &["eras"],
        &["eras", "4.1", "4.2"],
        &["delete", "two", "--dry-run"],
        &["delete", "two"],
        &["gc", "--dry-run"],
        &["gc", "--all"],
        &["rebuild-index"],
        &["rescue", "saved"],
        &["upgrade"],
        &["summary", "-o", "sum"],
        &["send", "a@one", "--for", "sum", "-o", "bundle"],
        &["receive", "bundle"],
    ];
    for arguments in good {
        let arguments: Vec<&str> = ["--json"].iter().chain(arguments).copied().collect();
        let ran = home.ok(&arguments);
        assert!(ran.json().is_object(), "{}", ran.story());
        assert_eq!(ran.err, "", "{}", ran.story());
    }
    let bad: [(&[&str], i32, &str); 16] = [
        (&["init"], 1, "already_exists"),
        (&["device", "add", "c", "nowhere.raw"], 1, "not_found"),
        (&["create", "one", "--device", "a"], 1, "already_exists"),
        (&["goto", "never"], 3, "not_found"),
        (&["goto"], 2, "usage"),
        (&["delete", "never"], 3, "not_found"),
        (&["export", "a@one", "a.raw"], 1, "already_exists"),
        (&["import", "saved", "--device", "j"], 2, "invalid_input"),
        (&["device", "remove", "a"], 1, "refused"),
        (&["qemu-img", "snapshot", "-a", "never", "a"], 1, "qemu_img"),
        (&["qemu-img", "snapshot", "-l", "-l", "a"], 1, "qemu_img"),
        (&["eras", "4.9"], 2, "invalid_input"),
        (&["send", "a@one"], 2, "invalid_input"),
        (&["receive", "a.raw"], 4, "corrupt"),
        (&["sync", "store", "store"], 1, "refused"),
        (&["sync", "store", "ssh:host"], 2, "invalid_input"),
    ];
    for (arguments, code, kind) in bad {
        let arguments: Vec<&str> = ["--json"].iter().chain(arguments).copied().collect();
        let ran = home.run(&arguments).code(code);
        let error = &ran.json()["error"];
        assert_eq!(error["kind"], kind, "{}", ran.story());
        assert!(error["message"].is_string() && error["causes"].is_array());
        assert_eq!(ran.err, "", "{}", ran.story());
    }
    let fresh = Home::empty();
    assert!(fresh.ok(&["--json", "init"]).json().is_object());
    let none = Home::empty().run(&["--json", "list"]);
    assert_eq!(none.json()["error"]["kind"], "not_found");
}

#[test]
fn quiet_is_quiet() {
    let home = with_snapshot(1 << 20);
    for arguments in [
        &["-q", "create", "two"][..],
        &["-q", "gc"],
        &["-q", "verify"],
    ] {
        let ran = home.ok(arguments);
        assert_eq!((ran.text(), ran.err.as_str()), ("", ""), "{}", ran.story());
    }
    assert!(
        !home.ok(&["-q", "list"]).out.is_empty(),
        "that is an answer"
    );
}

/// Reads a few bytes of what the program prints and closes the pipe.
fn read_a_little(home: &Home, arguments: &[&str], bytes: usize) -> Ran {
    let mut command = home.command(arguments);
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().expect("the program starts");
    let mut out = child.stdout.take().expect("it is piped");
    let mut some = vec![0; bytes];
    out.read_exact(&mut some).expect("it prints as much");
    drop(out);
    finish(child, format!("{arguments:?}, its reader gone"))
}

#[test]
fn a_reader_that_goes_away_is_met_with_silence() {
    let home = with_snapshot(8 << 20);
    for arguments in [&["list"][..], &["stats"], &["--json", "list"], &["verify"]] {
        let ran = read_a_little(&home, arguments, 0).code(0);
        assert_eq!(ran.err, "", "{}", ran.story());
    }
    for bytes in [0, 1, 100_000] {
        // What was sent is not whole, and a script with pipefail may want to know.
        let ran = read_a_little(&home, &["export", "a@one", "-"], bytes).code(1);
        assert_eq!(ran.err, "", "{}", ran.story());
    }
    let ran = read_a_little(&home, &["list", "--device", "nobody"], 0).code(3);
    assert!(ran.err.contains("nobody"));
    home.ok(&["verify"]);
}

#[test]
fn damage_is_damage_also_when_nobody_reads_of_it_to_the_end() {
    let home = with_snapshot(1 << 20);
    for pack in home.files("packs") {
        let file = fs::File::options().write(true).open(pack);
        file.and_then(|f| f.write_all_at(&[0x55; 64], 8192))
            .expect("it can be damaged");
    }
    for arguments in [&["verify"][..], &["--json", "verify"], &["verify", "a@one"]] {
        let ran = read_a_little(&home, arguments, 0).code(4);
        assert_eq!(ran.err, "", "{}", ran.story());
    }
    let full = fs::File::options().write(true).open("/dev/full");
    let mut command = home.command(&["verify"]);
    command.stdout(full.expect("Linux has it"));
    command.stderr(Stdio::piped());
    let child = command.spawn().expect("the program starts");
    finish(child, "verify > /dev/full".into())
        .code(4)
        .says("standard output");
}

/// Sends SIGINT as soon as `begun` says so; true when the program was still at work then.
fn interrupt(home: &Home, arguments: &[&str], begun: &dyn Fn() -> bool) -> bool {
    let mut command = home.command(arguments);
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().expect("the program starts");
    while !begun() && child.try_wait().expect("it is our child").is_none() {
        sleep(Duration::from_micros(200));
    }
    if child.try_wait().expect("it is our child").is_none() {
        kill(Pid::from_raw(child.id().cast_signed()), Signal::SIGINT).expect("it is our child");
    }
    let ran = finish(child, format!("{arguments:?}, interrupted"));
    let code = ran.status.code();
    // It may not have come as far as looking out for signals.
    let at_once = ran.status.signal() == Some(Signal::SIGINT as i32);
    assert!(at_once || matches!(code, Some(0 | 130)), "{}", ran.story());
    assert!(!ran.err.contains("panicked"), "{}", ran.story());
    code == Some(130)
}

/// A store with a device that holds `mib` of data that does not compress.
fn with_bulk(mib: u64) -> Home {
    let home = Home::new();
    let image = fs::File::create_new(home.path("a.raw")).expect("a new image");
    let mut dice = Dice::new(77);
    for at in 0..mib {
        image
            .write_all_at(&dice.bytes(1 << 20), at << 20)
            .expect("it can be written");
    }
    home.ok(&["device", "add", "a", "a.raw"]);
    home
}

#[test]
fn an_interrupted_create_says_130_and_the_next_goes_on_cheaply() {
    let home = with_bulk(160);
    let begun = || !home.files("packs").is_empty();
    assert!(
        interrupt(&home, &["create", "one"], &begun),
        "it was too fast"
    );
    assert_eq!(home.snapshots(), []);
    home.ok(&["create", "one"]);
    assert_eq!(home.export("a@one"), hash_of(&home.path("a.raw")));
    home.ok(&["verify"]);
    home.ok(&["gc"]);
    let stored = home.pack_bytes();
    assert!(stored < 176 << 20, "{stored} bytes are stored for 160 MiB");
}

#[test]
fn an_interrupted_import_leaves_no_device_and_the_next_goes_on_cheaply() {
    let home = with_bulk(160);
    let begun = || home.files("packs").len() > 1;
    let import = ["import", "a.raw", "--device", "b"];
    assert!(interrupt(&home, &import, &begun), "it was too fast");
    let devices = &home.json(&["device", "list"])["devices"];
    assert_eq!(devices.as_array().map(Vec::len), Some(1), "{devices}");
    let said = home.json(&[&import[..], &["--verify"]].concat());
    // A pack of the first is whole by the time that the next is begun.
    let stored = said["snapshots"][0]["stored_bytes"].as_u64();
    assert!(stored < Some(130 << 20), "{said}");
}

#[test]
fn an_interrupted_export_leaves_no_file_under_its_name_and_the_next_goes_on_with_it() {
    let home = with_bulk(128);
    home.ok(&["create", "one"]);
    let export = ["export", "a@one", "x.raw"];
    let part = || home.path("x.raw.still-part");
    let begun = || fs::metadata(part()).is_ok_and(|meta| meta.blocks() > 16 << 11);
    assert!(interrupt(&home, &export, &begun), "it was too fast");
    assert!(!home.path("x.raw").exists());
    // What was written of something else is not taken for what is wanted.
    let file = fs::File::options().write(true).open(part());
    let file = file.expect("it stays to be gone on with");
    file.write_all_at(&[7; 100], 5000)
        .expect("it can be written");
    drop(file);
    let said = home.json(&export);
    let kept = said["kept_bytes"].as_u64().unwrap_or(0);
    let written = said["written_bytes"].as_u64().unwrap_or(0);
    assert!(kept > 8 << 20 && written > 0, "{said}");
    assert_eq!(kept + written, 128 << 20, "{said}");
    assert_eq!(hash_of(&home.path("x.raw")), hash_of(&home.path("a.raw")));
    assert!(!part().exists());
}

#[test]
fn an_interrupted_export_to_qcow2_becomes_the_same_image() {
    let home = Home::new();
    let image = fs::File::create_new(home.path("a.raw")).expect("a new image");
    let mut dice = Dice::new(78);
    for at in 0..128_u64 {
        // Half of every cluster is noise.
        let mut bytes = dice.bytes(1 << 20);
        bytes
            .chunks_mut(1 << 15)
            .skip(1)
            .step_by(2)
            .for_each(|c| c.fill(at as u8));
        image
            .write_all_at(&bytes, at << 20)
            .expect("it can be written");
    }
    home.ok(&["device", "add", "a", "a.raw"]);
    home.ok(&["create", "one"]);
    for compression in ["zlib", "zstd"] {
        let part = format!("{compression}.still-part");
        let export = [
            "export",
            "a@one",
            compression,
            "--format",
            "qcow2",
            "--compress",
            compression,
        ];
        let begun = || fs::metadata(home.path(&part)).is_ok_and(|meta| meta.len() > 24 << 20);
        assert!(interrupt(&home, &export, &begun), "it was too fast");
        assert!(!home.path(compression).exists());
        // What is wrong with the command costs nothing of it.
        home.run(&[&export[..], &["--cluster-size", "128"]].concat())
            .code(2);
        assert!(home.path(&part).exists());
        let said = home.json(&[&export[..], &["--verify"]].concat());
        let kept = said["kept_bytes"].as_u64();
        assert!(kept > Some(16 << 20), "{said}");
        let mut anew = export;
        anew[2] = "anew";
        let fresh = home.json(&anew);
        assert_eq!(fresh["kept_bytes"], 0);
        assert_eq!(
            hash_of(&home.path(compression)),
            hash_of(&home.path("anew"))
        );
        fs::remove_file(home.path("anew")).expect("it was written");
    }
}

#[test]
fn an_interrupted_gc_and_verify_change_nothing_that_is_needed() {
    let home = with_bulk(96);
    home.ok(&["create", "one"]);
    // Every other cluster of what is stored is needed no more.
    let image = fs::File::options()
        .write(true)
        .open(home.path("a.raw"))
        .expect("it is there");
    for at in 0..96 * 16 {
        image
            .write_all_at(&vec![at as u8; 32768], at << 16)
            .expect("it can be written");
    }
    home.ok(&["create", "two"]);
    home.ok(&["delete", "one"]);
    let hash = hash_of(&home.path("a.raw"));
    let packs = home.files("packs");
    let met_gc = interrupt(&home, &["gc", "--all"], &|| home.files("packs") != packs);
    assert_eq!(home.export("a@two"), hash);
    home.ok(&["gc", "--all"]);
    assert!(home.pack_bytes() < 60 << 20, "{}", home.pack_bytes());
    let met_verify = (0..20).any(|nth| {
        interrupt(&home, &["verify"], &|| {
            sleep(Duration::from_millis(nth));
            true
        })
    });
    home.ok(&["verify"]);
    assert_eq!(home.export("a@two"), hash);
    eprintln!("manners: interrupted gc {met_gc}, verify {met_verify}");
}

#[test]
fn an_interrupted_goto_is_as_if_it_had_not_been() {
    let home = with_bulk(64);
    home.ok(&["create", "one"]);
    let image = home.path("a.raw");
    let file = fs::File::options()
        .write(true)
        .open(&image)
        .expect("it is there");
    for at in 0..64 {
        file.write_all_at(&Dice::new(at).bytes(1 << 19), at << 20)
            .expect("it can be written");
    }
    drop(file);
    home.ok(&["create", "two"]);
    let (two, logs) = (hash_of(&image), home.files("log").len());
    let stopped = interrupt(&home, &["goto", "one"], &|| {
        home.files("log").len() > logs + 1
    });
    let list = home.json(&["device", "list"]);
    assert_eq!(list["devices"][0]["goto_unfinished"], false);
    let expected = if stopped { two } else { home.export("a@one") };
    assert_eq!(hash_of(&image), expected);
    home.ok(&["goto", "two"]);
    assert_eq!(hash_of(&image), two);
}

#[test]
fn completion_scripts_parse() {
    let home = Home::empty();
    for (shell, flag) in [("bash", "-n"), ("zsh", "-n"), ("fish", "--no-execute")] {
        let script = home.run(&["completions", shell]).code(0);
        fs::write(home.path(shell), &script.out).expect("a small file");
        // Debian has bash; the others are a nicety that nobody need install for this.
        if find(shell).is_none() {
            eprintln!("SKIP SKIP SKIP completion_scripts_parse: no {shell} here");
            assert_ne!(shell, "bash");
            continue;
        }
        run(tool(shell).arg(flag).arg(home.path(shell))).code(0);
    }
}

#[test]
fn manual_pages_render() {
    let home = Home::empty();
    home.run(&["man", "pages"]).code(0);
    let pages = support::files_below(&home.path("pages"));
    let names: Vec<String> = pages
        .iter()
        .filter_map(|p| Some(p.file_name()?.to_string_lossy().into_owned()))
        .collect();
    for page in [
        "still.1",
        "still-create.1",
        "still-goto.1",
        "still-rebuild-index.1",
    ] {
        assert!(names.iter().any(|name| name == page), "{names:?}");
    }
    if find("man").is_none() && find("mandoc").is_none() {
        return skip("manual_pages_render", "neither man nor mandoc");
    }
    for page in &pages {
        let ran = if find("mandoc").is_some() {
            run(tool("mandoc").arg(page))
        } else {
            run(tool("man").env("MANPAGER", "cat").arg("-l").arg(page))
        };
        let ran = ran.code(0);
        assert!(ran.text().contains("SYNOPSIS"), "{}", ran.story());
    }
}
