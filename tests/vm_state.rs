//! VM state through the real program: from a file and from a pipe, and back into both.

#![allow(clippy::unwrap_used, reason = "tests")]

mod support;

use std::fs;
use std::io::Write;
use std::process::Stdio;
use support::{Home, finish};

fn home() -> Home {
    let home = Home::new();
    for device in ["web1", "web2"] {
        fs::write(home.path(device), device.repeat(50_000)).unwrap();
        home.ok(&["device", "add", device, device]);
    }
    home
}

#[test]
fn vm_state_goes_in_from_a_file_and_out_to_one_and_to_a_pipe() {
    let home = home();
    let state: Vec<u8> = (0..300_001u32).map(|i| (i / 97) as u8 ^ i as u8).collect();
    fs::write(home.path("ram"), &state).unwrap();
    let created = home.json(&[
        "create",
        "paused",
        "--vm-state",
        "ram",
        "--vm-device",
        "web2",
        "--vm-clock",
        "61000000000",
        "--icount",
        "9",
    ]);
    assert_eq!(created["snapshots"][0]["vm_state"], serde_json::Value::Null);
    assert_eq!(created["snapshots"][1]["vm_state"]["size_bytes"], 300_001);
    let list = home.json(&["list"]);
    let listed = &list["snapshots"][1];
    assert_eq!(listed["vm_state_bytes"], 300_001);
    assert_eq!(listed["vm_clock_nsec"], 61_000_000_000u64);
    assert_eq!(listed["icount"], 9);
    let shown = home.ok(&["show", "web2@paused"]);
    assert!(
        shown.text().contains("VM clock  00:01:01.000"),
        "{}",
        shown.text()
    );
    let table = home.ok(&["list"]);
    assert!(table.text().contains("ICOUNT"), "{}", table.text());

    let done = home.json(&["export", "--vm-state", "web2@id:1,name:paused", "back"]);
    assert_eq!(done["part"], "vm_state");
    assert_eq!(fs::read(home.path("back")).unwrap(), state);
    assert_eq!(
        home.ok(&["export", "--vm-state", "web2@paused", "-"]).out,
        state
    );
    let none = home
        .run(&["export", "--vm-state", "web1@paused", "-"])
        .code(3);
    assert!(none.err.contains("has none on this device"), "{}", none.err);
    home.ok(&["verify"]);
    home.ok(&["verify", "web2@paused"]);
}

#[test]
fn vm_state_goes_in_from_a_pipe() {
    let home = home();
    let mut command = home.command(&["create", "paused", "--vm-state", "-"]);
    command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let mut pipe = child.stdin.take().unwrap();
    let state = vec![9; 100_000];
    pipe.write_all(&state).unwrap();
    drop(pipe);
    let made = finish(child, "create".into()).code(0);
    assert!(
        made.text().contains("VM state on web1: 97.7 KiB"),
        "{}",
        made.text()
    );
    let back = home.ok(&["export", "--vm-state", "web1@paused", "-"]);
    assert_eq!(back.out, state);
}

#[test]
fn a_pipe_by_its_path_is_refused_and_the_way_to_read_one_is_named() {
    let home = home();
    let pipe = home.path("pipe");
    let made = support::run(std::process::Command::new("mkfifo").arg(&pipe));
    made.code(0);
    home.run(&["create", "paused", "--vm-state", "pipe"])
        .code(2)
        .says("VM state: opening the image")
        .says("`--vm-state -` reads a pipe");
    home.run(&["create", "paused", "--vm-state", "nothing"])
        .code(1)
        .says("VM state: ");
    assert_eq!(home.snapshots(), []);
}

#[test]
fn an_empty_pipe_makes_no_snapshot() {
    let home = home();
    let failed = home
        .run(&["create", "paused", "--vm-state", "/dev/null"])
        .code(2);
    assert!(!failed.err.is_empty());
    home.run(&["create", "paused", "--vm-state", "-"])
        .code(2)
        .says("there is no byte of it");
    home.run(&["create", "paused", "--vm-device", "web1"])
        .code(2);
    assert!(home.snapshots().is_empty());
}
