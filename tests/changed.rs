//! `create --changed`: a good map saves reading, and none of the bad ones costs a byte.

mod support;

use serde_json::{Value, json};
use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::process::Child;
use std::thread::sleep;
use std::time::Duration;
use support::{Dice, Home, Ran, has, hash_of, run, tool};

const MIB: u64 = 1 << 20;
const LEN: u64 = 16 * MIB;

/// A device with snapshot `one` of an image that is all data, or half a hole.
fn with_one(data: u64) -> Home {
    let home = Home::new();
    let image = File::create_new(home.path("a.raw")).expect("a new image");
    image.set_len(LEN).expect("it can be long");
    image
        .write_all_at(&Dice::new(5).bytes(data as usize), 0)
        .expect("it can be written");
    home.ok(&["device", "add", "a", "a.raw"]);
    home.ok(&["create", "one"]);
    home
}

fn write(home: &Home, at: u64) {
    let image = File::options().write(true).open(home.path("a.raw"));
    image
        .and_then(|f| f.write_all_at(&Dice::new(at + 99).bytes(65536), at))
        .expect("it can be written");
}

/// A map as QEMU prints one: what changed is what has no data.
fn map(home: &Home, changed: &[(u64, u64)]) {
    let extent = |start: u64, length: u64, data: bool| json!({"start": start, "length": length, "zero": false, "data": data});
    let (mut at, mut all) = (0, Vec::new());
    for (start, length) in changed {
        all.push(extent(at, start - at, true));
        all.push(extent(*start, *length, false));
        at = start + length;
    }
    all.push(extent(at, LEN - at, true));
    all.retain(|e| e["length"] != 0);
    fs::write(home.path("map.json"), Value::from(all).to_string()).expect("a small file");
}

fn create(home: &Home, name: &str, more: &[&str]) -> Ran {
    let arguments = [&["--json", "create", name, "--changed", "map.json"], more].concat();
    home.run(&arguments)
}

fn read_bytes(ran: &Ran) -> u64 {
    ran.json()["snapshots"][0]["read_bytes"]
        .as_u64()
        .expect("a number")
}

#[test]
fn only_what_the_map_says_is_read() {
    let home = with_one(LEN);
    write(&home, 3 * MIB);
    map(&home, &[(3 * MIB, 65536)]);
    let ran = create(&home, "two", &["--since", "one"]).code(0);
    assert_eq!(ran.err, "");
    assert!(read_bytes(&ran) < MIB, "{}", ran.story());
    assert_eq!(home.export("a@two"), hash_of(&home.path("a.raw")));
    // What a goto came from is as good.
    home.ok(&["goto", "one"]);
    write(&home, 9 * MIB);
    map(&home, &[(9 * MIB, 65536)]);
    let ran = create(&home, "three", &[]).code(0);
    assert!(read_bytes(&ran) < MIB, "{}", ran.story());
    assert_eq!(home.export("a@three"), hash_of(&home.path("a.raw")));
    home.ok(&["verify"]);
}

#[test]
fn a_map_relative_to_a_snapshot_that_is_gone_is_not_believed() {
    let home = with_one(LEN);
    write(&home, 3 * MIB);
    home.ok(&["create", "two"]);
    home.ok(&["delete", "two"]);
    write(&home, 9 * MIB);
    // Since `two`: what differs from `one` besides is so little that an audit hardly meets it.
    map(&home, &[(9 * MIB, 65536)]);
    create(&home, "three", &["--since", "two"]).code(3);
    let ran = create(&home, "three", &[])
        .code(0)
        .says("the snapshot that a comes from is gone: everything is read");
    assert_eq!(read_bytes(&ran), LEN);
    assert_eq!(home.export("a@three"), hash_of(&home.path("a.raw")));
}

#[test]
fn a_map_since_another_snapshot_than_the_image_comes_from_is_refused() {
    let home = with_one(LEN);
    write(&home, 3 * MIB);
    home.ok(&["create", "two"]);
    map(&home, &[(9 * MIB, 65536)]);
    let ran = create(&home, "three", &["--since", "one"]).code(2);
    let text = ran.text();
    assert!(text.contains("not since") && text.contains("two"), "{text}");
    // Equal contents are the same, whatever their names.
    home.ok(&["create", "same"]);
    create(&home, "three", &["--since", "two"]).code(0);
    home.run(&["create", "four", "--since", "two"]).code(2);
}

#[test]
fn a_map_that_lies_where_the_audit_looks_is_not_believed() {
    let home = with_one(LEN);
    let image = File::options().write(true).open(home.path("a.raw"));
    image
        .and_then(|f| f.write_all_at(&Dice::new(6).bytes(LEN as usize), 0))
        .expect("it can be written");
    map(&home, &[(0, 65536)]);
    let ran = create(&home, "two", &[]).code(0);
    assert!(
        ran.err.contains("the change map was wrong"),
        "{}",
        ran.story()
    );
    assert_eq!(home.export("a@two"), hash_of(&home.path("a.raw")));
}

#[test]
fn plain_maps_of_an_image_are_not_taken_for_maps_of_changes() {
    let test = "plain_maps_of_an_image_are_not_taken_for_maps_of_changes";
    if !has(test, &["qemu-img"]) {
        return;
    }
    for (data, code) in [(LEN, 0), (LEN / 2, 2)] {
        let home = with_one(data);
        write(&home, 3 * MIB);
        let mut command = tool("qemu-img");
        command.args(["map", "--output=json", "-f", "raw"]);
        let plain = run(command.arg(home.path("a.raw"))).code(0);
        fs::write(home.path("map.json"), &plain.out).expect("a small file");
        let ran = create(&home, "two", &[]).code(code);
        if code == 0 {
            assert!(ran.err.contains("everything is read"), "{}", ran.story());
            assert_eq!(home.export("a@two"), hash_of(&home.path("a.raw")));
        } else {
            assert!(
                ran.text().contains("no map of a dirty bitmap"),
                "{}",
                ran.story()
            );
            assert_eq!(home.snapshots(), [("a".into(), "one".into())]);
        }
    }
}

/// Shows the bitmap of the image until the value is dropped.
struct Shown(Child);

impl Drop for Shown {
    fn drop(&mut self) {
        self.0.kill().expect("it is our child");
        self.0.wait().expect("it is our child");
    }
}

/// The command that `create --help` has, on a real dirty bitmap.
#[test]
fn a_dirty_bitmap_of_qemu_is_a_good_map() {
    let test = "a_dirty_bitmap_of_qemu_is_a_good_map";
    if !has(test, &["qemu-img", "qemu-io", "qemu-nbd"]) {
        return;
    }
    let home = with_one(LEN);
    let (raw, qcow2) = (home.path("a.raw"), home.path("a.qcow2"));
    let convert = ["convert", "-f", "raw", "-O", "qcow2"];
    run(tool("qemu-img").args(convert).arg(&raw).arg(&qcow2)).code(0);
    run(tool("qemu-img")
        .args(["bitmap", "--add"])
        .arg(&qcow2)
        .arg("b"))
    .code(0);
    run(tool("qemu-io")
        .args(["-c", "write -P 7 3M 64k"])
        .arg(&qcow2))
    .code(0);
    let back = ["convert", "-n", "-f", "qcow2", "-O", "raw"];
    run(tool("qemu-img").args(back).arg(&qcow2).arg(&raw)).code(0);
    let socket = home.path("web1.sock");
    let mut serve = tool("qemu-nbd");
    serve.args(["-r", "-f", "qcow2", "-B", "b", "-x", "web1", "--persistent"]);
    serve
        .arg(format!("--socket={}", socket.display()))
        .arg(&qcow2);
    let shown = Shown(serve.spawn().expect("qemu-nbd starts"));
    let options = format!(
        "driver=nbd,server.type=unix,server.path={},export=web1,x-dirty-bitmap=qemu:dirty-bitmap:b",
        socket.display()
    );
    let mut command = tool("qemu-img");
    command.args(["map", "--output=json", "--image-opts", &options]);
    // It listens a moment after it starts.
    let mut made = run(&mut command);
    for _ in 0..600 {
        if made.status.success() {
            break;
        }
        sleep(Duration::from_millis(10));
        made = run(&mut command);
    }
    drop(shown);
    fs::write(home.path("map.json"), &made.code(0).out).expect("a small file");
    let ran = create(&home, "two", &["--since", "one"]).code(0);
    assert!(read_bytes(&ran) < MIB, "{}", ran.story());
    assert_eq!(ran.err, "");
    assert_eq!(home.export("a@two"), hash_of(&raw));
}
