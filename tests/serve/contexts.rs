//! Block status: what is allocated, what changed, how long ago.

use crate::server::{Server, run_tool};
use crate::support::{Dice, Home, has};
use serde_json::Value;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;

/// Larger than any cluster or block of a file system here.
const PART: u64 = 64 << 10;

/// A disk of parts, some of them data.
fn make(path: &Path, parts: u64, dice: &mut Dice) {
    let file = File::create_new(path).expect("a new image");
    file.set_len(parts * PART).expect("it can grow");
    for part in 0..parts {
        if dice.one_in(3) {
            write(path, part, dice);
        }
    }
}

fn write(path: &Path, part: u64, dice: &mut Dice) {
    let file = File::options().write(true).open(path).expect("it is there");
    let bytes = dice.bytes(PART as usize);
    file.write_all_at(&bytes, part * PART)
        .expect("it is written");
}

/// What nbdinfo says of a context: (offset, length, type) with neighbours of a kind joined.
fn map(uri: &str, context: &str) -> Vec<(u64, u64, u64)> {
    let option = format!("--map={context}");
    let answer = run_tool("nbdinfo", &["--json", &option, uri]).json();
    let all = answer.as_array().expect("an array").iter();
    let number = |e: &Value, field| e[field].as_u64().expect("a number");
    joined(all.map(|e| (number(e, "offset"), number(e, "length"), number(e, "type"))))
}

fn joined(all: impl Iterator<Item = (u64, u64, u64)>) -> Vec<(u64, u64, u64)> {
    let mut out: Vec<(u64, u64, u64)> = Vec::new();
    for (start, length, kind) in all {
        match out.last_mut() {
            Some(last) if last.2 == kind => last.1 += length,
            _ => out.push((start, length, kind)),
        }
    }
    out
}

/// What qemu-img maps: zeros that are no data are 3, data 0.
fn qemu_map(target: &str) -> Vec<(u64, u64, u64)> {
    let answer = run_tool("qemu-img", &["map", "-f", "raw", "--output=json", target]).json();
    let all = answer.as_array().expect("an array").iter();
    joined(all.map(|e| {
        let flag = |name, bit| if e[name] == true { bit } else { 0 };
        let hole = u64::from(e["data"] == false);
        let kind = flag("zero", 2) | hole;
        let number = |field: &str| e[field].as_u64().expect("a number");
        (number("start"), number("length"), kind)
    }))
}

#[test]
fn block_status_equals_the_map_of_the_image() {
    if !has("block_status_equals", &["nbdinfo", "qemu-img"]) {
        return;
    }
    let home = Home::new();
    let image = home.path("web1.raw");
    make(&image, 500, &mut Dice::announced("block_status_equals"));
    home.ok(&["device", "add", "web1", "web1.raw"]);
    home.ok(&["create", "monday"]);
    let server = Server::start(&home, &[]);
    let uri = server.uri("web1@monday");
    let own = qemu_map(&image.display().to_string());
    assert!(own.len() > 10, "{own:?}");
    assert_eq!(qemu_map(&uri), own);
    assert_eq!(map(&uri, "base:allocation"), own);
    server.stop().code(0);
}

#[test]
fn a_bitmap_is_what_differs_from_its_snapshot() {
    if !has("a_bitmap_is_what_differs", &["nbdinfo", "qemu-img"]) {
        return;
    }
    let home = Home::new();
    let image = home.path("web1.raw");
    let mut dice = Dice::announced("a_bitmap_is_what_differs");
    make(&image, 300, &mut dice);
    home.ok(&["device", "add", "web1", "web1.raw"]);
    home.ok(&["create", "monday"]);
    for day in ["tuesday", "wednesday"] {
        for _ in 0..20 {
            write(&image, dice.below(300), &mut dice);
        }
        home.ok(&["create", day]);
    }
    let server = Server::start(&home, &[]);
    for (base, disk) in [
        ("monday", "wednesday"),
        ("tuesday", "wednesday"),
        ("wednesday", "monday"),
    ] {
        let context = format!("qemu:dirty-bitmap:{base}");
        let told = map(&server.uri(&format!("web1@{disk}")), &context);
        let (a, b) = (format!("web1@{base}"), format!("web1@{disk}"));
        let diff = home.json(&["diff", &a, &b]);
        let changed = diff["extents"].as_array().expect("an array").iter();
        let number = |e: &Value, field| e[field].as_u64().expect("a number");
        let changed = changed.map(|e| (number(e, "start"), number(e, "length"), 1));
        let dirty: Vec<_> = told.iter().copied().filter(|e| e.2 == 1).collect();
        assert_eq!(dirty, joined_touching(changed), "{base} to {disk}");
        let covered: u64 = told.iter().map(|e| e.1).sum();
        assert_eq!(covered, 300 * PART);
    }
    depths(&server);
    // As QEMU's own clients read it: what is dirty is no data to them.
    let image = format!(
        "driver=nbd,server.type=unix,server.path={},export=web1@wednesday,\
         x-dirty-bitmap=qemu:dirty-bitmap:tuesday",
        server.socket.display()
    );
    let told = run_tool(
        "qemu-img",
        &["map", "--output=json", "--image-opts", &image],
    )
    .json();
    let dirty = told.as_array().expect("an array").iter();
    let dirty = dirty.filter(|e| e["data"] == false);
    let dirty: u64 = dirty.map(|e| e["length"].as_u64().expect("a number")).sum();
    let ours = map(&server.uri("web1@wednesday"), "qemu:dirty-bitmap:tuesday");
    let ours: u64 = ours.iter().filter(|e| e.2 == 1).map(|e| e.1).sum();
    assert!(dirty == ours && ours > 0, "{dirty} {ours}");
    server.stop().code(0);
}

/// Extents that touch are one, in whatever kinds the store tells them apart.
fn joined_touching(all: impl Iterator<Item = (u64, u64, u64)>) -> Vec<(u64, u64, u64)> {
    let mut out: Vec<(u64, u64, u64)> = Vec::new();
    for (start, length, kind) in all {
        match out.last_mut() {
            Some(last) if last.0 + last.1 == start => last.1 += length,
            _ => out.push((start, length, kind)),
        }
    }
    out
}

/// The depth says which snapshots had something else.
fn depths(server: &Server) {
    let disk = server.uri("web1@wednesday");
    let depths = map(&disk, "qemu:allocation-depth");
    let of = |context: &str| map(&disk, context);
    let at = |map: &[(u64, u64, u64)], byte| {
        let found = map.iter().find(|e| (e.0..e.0 + e.1).contains(&byte));
        found.expect("the whole disk is told").2
    };
    let (hole, since_2, since_1) = (
        of("base:allocation"),
        of("qemu:dirty-bitmap:tuesday"),
        of("qemu:dirty-bitmap:monday"),
    );
    let mut met = [0; 4];
    for part in 0..300 {
        let byte = part * PART;
        let wanted = match (at(&hole, byte), at(&since_2, byte), at(&since_1, byte)) {
            (3, _, _) => 0,
            (_, 1, _) => 1,
            (_, _, 1) => 2,
            _ => 3,
        };
        assert_eq!(at(&depths, byte), wanted, "part {part}");
        met[wanted as usize] += 1;
    }
    assert!(met.iter().all(|n| *n > 0), "{met:?}");
}
