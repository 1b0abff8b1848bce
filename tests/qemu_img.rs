//! `still qemu-img snapshot` as scripts meet it: by release, by path and by name, and under the name `qemu-img`.

mod support;

use std::fs::{self, File};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use stillpoint_store::disk::real::RealDisk;
use stillpoint_store::image::{Access, Image};
use support::{Home, Ran, has, run, tool};

fn with_disk() -> Home {
    let home = Home::new();
    disk(&home, "web1.raw");
    home.ok(&["device", "add", "web1", "web1.raw"]);
    home
}

fn disk(home: &Home, name: &str) {
    let file = File::create_new(home.path(name)).expect("a new image");
    file.set_len(1 << 20).expect("it can grow");
}

fn img(home: &Home, release: &str, arguments: &[&str]) -> Ran {
    let start = ["qemu-img", "snapshot", "--qemu-version", release];
    let mut command = home.command(&start);
    run(command.env("TZ", "UTC").args(arguments))
}

#[track_caller]
fn fails(ran: Ran, with: &str) {
    let ran = ran.code(1);
    assert_eq!(
        (ran.text(), ran.err.as_str()),
        ("", with),
        "{}",
        ran.story()
    );
}

#[test]
fn images_are_found_by_any_path_and_devices_by_name() {
    let home = with_disk();
    symlink("web1.raw", home.path("link")).expect("a new link");
    let absolute = home.path("web1.raw");
    let absolute = absolute.to_str().expect("a plain path");
    for (n, file) in ["web1", "web1.raw", "./web1.raw", "link", absolute]
        .into_iter()
        .enumerate()
    {
        let ran = img(&home, "4.2", &["-c", "same", file]).code(0);
        assert_eq!((ran.text(), ran.err.as_str()), ("", ""));
        let list = img(&home, "4.2", &["-l", file]).code(0);
        assert_eq!(list.text().lines().count(), 2 + n + 1, "{}", list.story());
    }
    let opts = format!("driver=raw,file.driver=file,file.filename={absolute}");
    let list = img(&home, "4.2", &["--image-opts", "-l", &opts]).code(0);
    assert!(list.text().starts_with("Snapshot list:\n"));
}

#[test]
fn a_device_whose_image_is_gone_still_lists() {
    let home = with_disk();
    img(&home, "4.2", &["-c", "a", "web1.raw"]).code(0);
    fs::remove_file(home.path("web1.raw")).expect("it is ours");
    for file in ["web1.raw", "./web1.raw", "web1"] {
        let list = img(&home, "4.2", &["-l", file]).code(0);
        assert!(list.text().contains("1         a "), "{}", list.story());
    }
    img(&home, "4.2", &["-a", "a", "web1.raw"])
        .code(1)
        .says("Could not apply snapshot 'a'");
    img(&home, "4.2", &["-l", "nowhere/web1.raw"])
        .code(1)
        .says("No such file or directory");
}

#[test]
fn a_device_that_is_only_in_the_store_is_taken_by_name() {
    let home = Home::new();
    disk(&home, "a.raw");
    home.ok(&["import", "a.raw", "--device", "kept", "--name", "first"]);
    img(&home, "6.0", &["-c", "second", "kept"]).code(0);
    img(&home, "6.0", &["-a", "first", "kept"]).code(0);
    img(&home, "6.0", &["-d", "first", "kept"]).code(0);
    let list = img(&home, "6.0", &["-l", "kept"]).code(0);
    assert!(list.text().contains("2         second"), "{}", list.story());
    assert!(!list.text().contains("first"), "{}", list.story());
}

#[test]
fn what_d_takes_its_argument_for_is_the_releases() {
    let home = with_disk();
    // Ids 1 and 2; the first is called like the second.
    img(&home, "4.2", &["-c", "2", "web1"]).code(0);
    img(&home, "4.2", &["-c", "x", "web1"]).code(0);
    img(&home, "4.2", &["-d", "2", "web1"]).code(0);
    let left = home.snapshots();
    assert_eq!(left, [("web1".into(), "x".into())], "4.2 deletes by name");
    img(&home, "4.2", &["-c", "2", "web1"]).code(0);
    img(&home, "3.1", &["-d", "2", "web1"]).code(0);
    let left = home.snapshots();
    assert_eq!(left, [("web1".into(), "2".into())], "3.1 tries ids first");
}

#[test]
fn failures_are_worded_as_the_release_worded_them() {
    let home = with_disk();
    let none = "No such file or directory";
    for (release, action, text) in [
        ("2.10", "-a", format!("apply snapshot 'n': -2 ({none})")),
        (
            "2.11",
            "-a",
            format!("apply snapshot 'n': Failed to load snapshot: {none}"),
        ),
        ("1.6", "-d", format!("delete snapshot 'n': -2 ({none})")),
        (
            "2.5",
            "-d",
            "delete snapshot 'n': (Can't find the snapshot)".into(),
        ),
        (
            "3.1",
            "-d",
            "delete snapshot 'n': Can't find the snapshot".into(),
        ),
        (
            "4.0",
            "-d",
            "delete snapshot 'n': snapshot not found".into(),
        ),
    ] {
        let ran = img(&home, release, &[action, "n", "web1"]);
        fails(ran, &format!("qemu-img: Could not {text}\n"));
    }
    let twice = "qemu-img: Could not open 'no': Could not open 'no': No such file or directory\n";
    fails(img(&home, "4.2", &["-l", "no"]), twice);
    fails(
        img(&home, "1.6", &["-l", "no"]),
        &twice.replacen("Could not open 'no': ", "", 1),
    );
    disk(&home, "other.raw");
    img(&home, "4.2", &["-l", "other.raw"])
        .code(1)
        .says("still device add");
}

#[test]
fn command_lines_that_cannot_be_meant_are_refused_as_the_release_refused_them() {
    let home = with_disk();
    let old = "Try 'qemu-img --help' for more information\n";
    let new = "Try 'qemu-img snapshot --help' for more info\n";
    for (release, arguments, text) in [
        (
            "2.1",
            &["-l", "-c", "a", "web1"][..],
            format!("qemu-img: Cannot mix '-l', '-a', '-c', '-d'\n{old}"),
        ),
        (
            "10.1",
            &["-l", "-l", "web1"],
            format!("qemu-img: Cannot mix '-l', '-a', '-c', '-d'\n{new}"),
        ),
        (
            "4.2",
            &["-l"],
            format!("qemu-img: Expecting one image file name\n{old}"),
        ),
        (
            "4.2",
            &["-l", "web1", "web1"],
            format!("qemu-img: Expecting one image file name\n{old}"),
        ),
        (
            "4.2",
            &["-z", "web1"],
            format!("qemu-img: unrecognized option '-z'\n{old}"),
        ),
        (
            "4.2",
            &["web1", "-c"],
            format!("qemu-img: missing argument for option '-c'\n{old}"),
        ),
        (
            "4.2",
            &["--list", "web1"],
            format!("qemu-img: unrecognized option '--list'\n{old}"),
        ),
        (
            "10.1",
            &["-z", "web1"],
            format!("qemu-img snapshot: invalid option -- 'z'\n{new}"),
        ),
        (
            "10.1",
            &["web1", "-c"],
            format!("qemu-img snapshot: option requires an argument -- 'c'\n{new}"),
        ),
    ] {
        fails(img(&home, release, arguments), &text);
    }
    let shared =
        "qemu-img: Could not open 'web1': force-share=on can only be used with read-only images\n";
    fails(img(&home, "4.2", &["-U", "-c", "a", "web1"]), shared);
    assert!(
        img(&home, "2.0", &["-l", "-c", "a", "web1"])
            .code(1)
            .text()
            .contains("Usage:")
    );
    img(&home, "2.1", &["-z", "web1"])
        .code(0)
        .says("snapshot: invalid option -- 'z'");
    assert_eq!(home.snapshots(), [], "nothing was done");
    let unknown = img(&home, "4.9", &["-l", "web1"]).code(2);
    assert!(
        unknown.err.contains("Q4_2 (4.2-5.0)"),
        "{}",
        unknown.story()
    );
}

#[test]
fn usage_of_the_real_program_is_worded_alike() {
    if !has("qemu-img usage", &["qemu-img"]) {
        return;
    }
    let home = with_disk();
    // Debian's 10.0 reads its options as 10.1 does; others may not.
    let theirs = |arguments: &[&str]| {
        let mut command = tool("qemu-img");
        command.arg0("qemu-img").arg("snapshot").args(arguments);
        run(&mut command)
    };
    let new = theirs(&["-l"]).err.contains("'qemu-img snapshot --help'");
    let release = match support::real_release().to_string() {
        release if new && release == "10.0" => "10.1".to_owned(),
        release => release,
    };
    for arguments in [
        &["-l"][..],
        &["-l", "-c", "a", "x"],
        &["-z", "x"],
        &["--zz", "x"],
        &["x", "-c"],
        &["-l", "nowhere"],
        &["-U", "-c", "a", "x", "y"],
    ] {
        let (theirs, ours) = (theirs(arguments), img(&home, &release, arguments));
        assert_eq!(
            ours.status.code(),
            theirs.status.code(),
            "{}",
            theirs.story()
        );
        assert_eq!(ours.err, theirs.err, "{arguments:?}");
    }
}

#[test]
fn without_an_action_10_1_lists_and_others_only_open() {
    let home = with_disk();
    img(&home, "4.2", &["-c", "a", "web1"]).code(0);
    assert_eq!(img(&home, "10.0", &["web1"]).code(0).text(), "");
    let listed = img(&home, "10.1", &["web1"]).code(0);
    assert!(
        listed.text().starts_with("Snapshot list:\nID      TAG "),
        "{}",
        listed.story()
    );
    assert_eq!(
        img(&home, "10.1", &["--list", "-f", "raw", "web1"])
            .code(0)
            .text(),
        listed.text()
    );
    let json = |release| img(&home, release, &["--json", "web1"]).code(0).json();
    assert_eq!(json("10.1")["snapshots"][0]["name"], "a");
    assert!(json("10.0")["snapshots"].is_null());
}

#[test]
fn json_is_one_document_wherever_the_option_stands() {
    let home = with_disk();
    for line in [
        ["--json", "-c", "a", "web1"],
        ["-c", "a", "--json", "web1"],
        ["-a", "a", "web1", "--json"],
    ] {
        let made = img(&home, "4.2", &line).code(0).json();
        assert_eq!(
            (&made["device"], &made["snapshot"]),
            (&"web1".into(), &"a".into())
        );
    }
    let listed = img(&home, "4.2", &["-l", "--json", "web1"]).code(0).json();
    assert_eq!(listed["snapshots"].as_array().map(Vec::len), Some(2));
    for (line, code, what) in [
        (
            ["-a", "nix", "web1", "--json"],
            1,
            "Could not apply snapshot 'nix'",
        ),
        (
            ["-l", "-z", "web1", "--json"],
            1,
            "unrecognized option '-z'",
        ),
        (["-l", "--json", "nix", "-q"], 1, "nix"),
    ] {
        let failed = img(&home, "4.2", &line).code(code);
        let message = failed.json()["error"]["message"].to_string();
        assert!(message.contains(what), "{}", failed.story());
        assert_eq!(failed.err, "", "{}", failed.story());
    }
    let unknown = img(&home, "4.9", &["-l", "--json", "web1"]).code(2);
    assert!(
        unknown.json()["error"]["message"]
            .to_string()
            .contains("Q4_2")
    );
}

#[test]
fn dates_are_in_local_time() {
    let home = with_disk();
    img(&home, "4.2", &["-c", "a", "web1"]).code(0);
    let list = |zone: &str| {
        let mut command = home.command(&["--json", "qemu-img", "snapshot", "-l", "web1"]);
        let json = run(command.env("TZ", zone)).code(0).json();
        let mut command = home.command(&["qemu-img", "snapshot", "-l", "web1"]);
        let text = run(command.env("TZ", zone)).code(0).text().to_owned();
        let clock = text
            .lines()
            .last()
            .expect("a row")
            .split_whitespace()
            .nth(5);
        let clock: Vec<u64> = clock
            .expect("a time of day")
            .split(':')
            .map(|n| n.parse().expect("a number"))
            .collect();
        let date = json["snapshots"][0]["date-sec"].as_u64().expect("a number");
        (date % 86400, clock[0] * 3600 + clock[1] * 60 + clock[2])
    };
    let (date, utc) = list("UTC");
    assert_eq!(date, utc);
    assert_eq!(list("XYZ-05:30").1, (utc + 19_800) % 86_400);
}

#[test]
fn a_busy_image_is_told_in_the_releases_words_and_the_stores() {
    let home = with_disk();
    img(&home, "4.2", &["-c", "a", "web1"]).code(0);
    let image = home.path("web1.raw");
    let held = Image::open(&RealDisk, &image, Access::Write).expect("nobody else has it");
    let ran = img(&home, "4.2", &["-a", "a", "web1"]);
    drop(held);
    let ran = ran.code(1).says("  because: ").says("  hint: ");
    let first = "qemu-img: Could not apply snapshot 'a': Failed to load snapshot: Device or resource busy\n";
    assert!(ran.err.starts_with(first), "{}", ran.story());
}

/// A folder with a program called qemu-img in it.
fn folder(home: &Home, name: &str) -> PathBuf {
    let folder = home.path(name);
    fs::create_dir(&folder).expect("a new folder");
    folder
}

/// Says what it was called with, and ends with 7.
fn script(folder: &Path) {
    let file = folder.join("qemu-img");
    let text = "#!/bin/sh\nprintf 'real:'\nprintf ' <%s>' \"$@\"\nexit 7\n";
    fs::write(&file, text).expect("it can be written");
    fs::set_permissions(&file, fs::Permissions::from_mode(0o755)).expect("it is ours");
}

/// The program under the name qemu-img, found in the first folder.
fn called(home: &Home, path: &[&Path], arguments: &[&str]) -> Ran {
    run(&mut calling(home, path, arguments))
}

fn calling(home: &Home, path: &[&Path], arguments: &[&str]) -> std::process::Command {
    let path = std::env::join_paths(path).expect("plain paths");
    let mut command = std::process::Command::new(home.path("first/qemu-img"));
    command
        .current_dir(home.path(""))
        .env_remove("STILL_QEMU_VERSION")
        .env("STILL_STORE", home.store())
        .env("PATH", path)
        .args(arguments);
    command
}

#[test]
fn called_qemu_img_it_serves_its_devices_and_passes_the_rest_on() {
    let home = with_disk();
    let (first, second) = (folder(&home, "first"), folder(&home, "second"));
    symlink(env!("CARGO_BIN_EXE_still"), first.join("qemu-img")).expect("a new link");
    script(&second);
    disk(&home, "other.raw");
    // A file, and also the name of a device: whoever calls qemu-img means files.
    disk(&home, "both");
    home.ok(&["import", "other.raw", "--device", "both"]);
    let path = [first.as_path(), &second];

    called(&home, &path, &["snapshot", "-c", "a", "web1.raw"]).code(0);
    let list = called(&home, &path, &["snapshot", "-l", "web1.raw"]).code(0);
    assert!(
        list.text().starts_with("Snapshot list:\n"),
        "{}",
        list.story()
    );
    called(
        &home,
        &path,
        &["-T", "events", "snapshot", "-d", "a", "web1"],
    )
    .code(0);

    for (arguments, seen) in [
        (&["info", "web1.raw"][..], "real: <info> <web1.raw>"),
        (&["--version"], "real: <--version>"),
        (
            &["snapshot", "-l", "other.raw"],
            "real: <snapshot> <-l> <other.raw>",
        ),
        (&["snapshot", "-l", "both"], "real: <snapshot> <-l> <both>"),
        (
            &["snapshot", "--new-option"],
            "real: <snapshot> <--new-option>",
        ),
        (
            &["convert", "-O", "raw", "a b", ""],
            "real: <convert> <-O> <raw> <a b> <>",
        ),
    ] {
        assert_eq!(called(&home, &path, arguments).code(7).text(), seen);
    }
}

#[test]
fn called_qemu_img_it_never_calls_itself() {
    let home = with_disk();
    let (first, second) = (folder(&home, "first"), folder(&home, "second"));
    symlink(env!("CARGO_BIN_EXE_still"), first.join("qemu-img")).expect("a new link");
    // The same program by another link; then a copy, which no inode tells.
    symlink(env!("CARGO_BIN_EXE_still"), second.join("qemu-img")).expect("a new link");
    let copy = folder(&home, "copy");
    fs::copy(env!("CARGO_BIN_EXE_still"), copy.join("qemu-img")).expect("there is room");
    let last = folder(&home, "last");
    let around = [first.as_path(), &copy, &second, &copy, &first, &last];
    called(&home, &around, &["info", "x"])
        .code(1)
        .says("there is none later in PATH");
    called(&home, &around, &["snapshot", "-l", "x"])
        .code(1)
        .says("qemu-img: Could not open 'x'");
    script(&last);
    assert_eq!(
        called(&home, &around, &["info"]).code(7).text(),
        "real: <info>"
    );
}

#[test]
fn eras_says_what_differs_to_people_and_to_programs() {
    let home = Home::empty();
    let table = home.ok(&["eras"]);
    assert!(table.text().contains("Q4_2"), "{}", table.story());
    let between = home.json(&["eras", "2.10", "2.11"]);
    let axes = between["axes"].as_array().expect("an array");
    let names: Vec<&str> = axes.iter().filter_map(|a| a["name"].as_str()).collect();
    assert!(names.contains(&"goto_bitmap_refusal"), "{names:?}");
    let one = home.json(&["eras", "4.2"]);
    assert_eq!(one["era"], "Q4_2");
    let all = home.json(&["eras"]);
    assert_eq!(all["default"], "4.2");
    assert_eq!(
        all["axes"].as_array().map(Vec::len),
        one["axes"].as_array().map(Vec::len)
    );
    home.run(&["eras", "4.7"]).code(2).says("Q4_2 (4.2-5.0)");
}

#[test]
fn called_qemu_img_it_keeps_nobody_from_other_images_whatever_is_wrong_with_it() {
    let home = with_disk();
    let (first, second) = (folder(&home, "first"), folder(&home, "second"));
    symlink(env!("CARGO_BIN_EXE_still"), first.join("qemu-img")).expect("a new link");
    script(&second);
    disk(&home, "other.raw");
    let path = [first.as_path(), &second];
    let others = &["snapshot", "-l", "other.raw"];
    let seen = "real: <snapshot> <-l> <other.raw>";

    let mut command = calling(&home, &path, others);
    let ran = run(command.env("STILL_QEMU_VERSION", "4.2.1")).code(7);
    assert_eq!(ran.text(), seen);
    let mut command = calling(&home, &path, &["snapshot", "-l", "web1.raw"]);
    run(command.env("STILL_QEMU_VERSION", "4.2.1"))
        .code(1)
        .says("4.2.1");

    fs::write(home.store().join("store.json"), "{").expect("it is ours");
    assert_eq!(called(&home, &path, others).code(7).text(), seen);
    called(&home, &path, &["snapshot", "-l", "web1"])
        .code(1)
        .says("store.json");
}
