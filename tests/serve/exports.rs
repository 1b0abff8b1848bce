//! What there is, under which names, and that it is the disk.

use crate::server::{Server, run_tool};
use crate::support::{Dice, Home, has, hash_of, make_image, scribble};
use serde_json::Value;
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;

/// Names that a server lists.
fn listed(server: &Server) -> Vec<String> {
    let uri = server.uri("");
    let info = run_tool("nbdinfo", &["--list", "--json", &uri]).json();
    let all = info["exports"].as_array().expect("an array").iter();
    all.map(|e| e["export-name"].as_str().expect("a name").to_owned())
        .collect()
}

#[test]
fn every_snapshot_is_listed_and_new_ones_at_once() {
    if !has("every_snapshot_is_listed", &["nbdinfo"]) {
        return;
    }
    let home = Home::new();
    for name in ["web1", "web2"] {
        make_image(&home.path(name), 1 << 20, &mut Dice::new(7));
        home.ok(&["device", "add", name, name]);
    }
    home.ok(&["create", "monday"]);
    let server = Server::start(&home, &[]);
    assert_eq!(listed(&server), ["web1@monday", "web2@monday"]);
    home.ok(&["create", "tuesday", "--device", "web2"]);
    home.ok(&["import", "web1", "--device", "copy", "--name", "v1"]);
    let all = [
        "copy",
        "copy@v1",
        "web1@monday",
        "web2@monday",
        "web2@tuesday",
    ];
    assert_eq!(listed(&server), all);
    home.ok(&["delete", "monday"]);
    assert_eq!(listed(&server), ["copy", "copy@v1", "web2@tuesday"]);
    server.stop().code(0);
}

#[test]
fn a_list_of_many_snapshots_is_read_to_its_end() {
    if !has("a_list_of_many_snapshots", &["nbdinfo"]) {
        return;
    }
    let home = Home::new();
    home.ok(&["volume", "create", "vm", "--size", "1M"]);
    let qmp = format!("unix:{}", home.path("qmp.sock").display());
    let server = Server::start(&home, &["--qmp", &qmp]);
    let stream = UnixStream::connect(home.path("qmp.sock")).expect("it listens");
    let mut answers = BufReader::new(&stream).lines();
    let mut execute = |command: String| {
        (&stream)
            .write_all(command.as_bytes())
            .expect("it is taken");
        answers.next().expect("an answer").expect("a line")
    };
    // The first line is the greeting.
    execute(String::new());
    execute(r#"{"execute":"qmp_capabilities"}"#.to_owned());
    for n in 0..700 {
        execute(format!(
            r#"{{"execute":"x-stillpoint-create","arguments":{{"name":"s{n}"}}}}"#
        ));
    }
    // On one connection it asks for two things of each.
    assert_eq!(listed(&server).len(), 701);
    server.stop().code(0);
}

#[test]
fn a_name_means_one_disk_however_odd_it_is() {
    if !has("a_name_means_one_disk", &["nbdinfo"]) {
        return;
    }
    let home = Home::new();
    let image = home.path("web1");
    make_image(&image, 1 << 20, &mut Dice::new(8));
    home.ok(&["device", "add", "web1", "web1"]);
    let mut hashes = Vec::new();
    // Ids 1 to 5. The last two have the same name, which only QEMU's API makes.
    for name in ["50%", "id:2", "vor dem \u{e9}t\u{e9}"] {
        home.ok(&["create", name]);
        hashes.push(hash_of(&image));
        scribble(&image, &mut Dice::new(hashes.len() as u64));
    }
    for _ in 0..2 {
        home.ok(&["qemu-img", "snapshot", "-c", "twice", "web1"]);
        hashes.push(hash_of(&image));
        scribble(&image, &mut Dice::new(hashes.len() as u64));
    }
    let server = Server::start(&home, &[]);
    let names = [
        "web1@50%25",
        "web1@id%3A2",
        "web1@vor dem \u{e9}t\u{e9}",
        "web1@id:4",
        "web1@id:5",
    ];
    assert_eq!(listed(&server), names);
    for (name, hash) in names.iter().zip(&hashes) {
        let bytes = server.client(name).read(0, 1 << 20).expect("it is read");
        assert_eq!(blake3::hash(&bytes), *hash, "{name}");
    }
    // By id too, whatever it is listed by; by an ambiguous name not.
    let uri = server.uri("web1@id:2");
    run_tool("nbdinfo", &["--size", &uri]);
    for bad in [
        "web1@twice",
        "web1@",
        "web1",
        "web1@50%",
        "../web1",
        "web1@id:9",
        "@",
    ] {
        let uri = server.uri(bad);
        let ran = crate::support::run(crate::support::tool("nbdinfo").arg(&uri));
        assert!(!ran.status.success(), "{bad}: {}", ran.story());
    }
    server.stop().code(0);
}

#[test]
fn what_every_client_reads_is_the_disk() {
    if !has("what_every_client_reads", &["nbdcopy", "qemu-img", "nbdsh"]) {
        return;
    }
    let home = Home::new();
    let image = home.path("web1.raw");
    // An odd size: its end is part of a cluster.
    make_image(
        &image,
        (24 << 20) + 512,
        &mut Dice::announced("what_every_client_reads"),
    );
    home.ok(&["device", "add", "web1", "web1.raw"]);
    home.ok(&["create", "monday"]);
    let server = Server::start(&home, &["--cache", "4M"]);
    let (uri, raw) = (server.uri("web1@monday"), image.display().to_string());
    let copy = home.path("copy.raw").display().to_string();
    run_tool("nbdcopy", &[&uri, &copy]);
    assert_eq!(hash_of(copy.as_ref()), hash_of(&image));
    run_tool(
        "qemu-img",
        &["compare", "-f", "raw", "-F", "raw", &uri, &raw],
    );
    let qcow2 = home.path("copy.qcow2").display().to_string();
    run_tool(
        "qemu-img",
        &[
            "convert", "-f", "raw", "-O", "qcow2", "-m", "8", &uri, &qcow2,
        ],
    );
    run_tool(
        "qemu-img",
        &["compare", "-f", "qcow2", "-F", "raw", &qcow2, &raw],
    );
    let script = "\
import os
size = h.get_size()
with open(os.environ['RAW'], 'rb') as f: disk = f.read()
assert size == len(disk), size
assert h.is_read_only() and h.can_multi_conn() and h.can_cache() and not h.can_trim()
for at, n in ((0, 1), (size - 512, 512), (8191, 2), (12345, 54321), (size - 1, 1)):
    h.cache(n, at)
    assert h.pread(n, at) == disk[at:at + n], (at, n)
";
    let mut nbdsh = crate::support::tool("nbdsh");
    // Its library belongs to the system's own Python.
    let path = std::env::var("PATH").unwrap_or_default();
    nbdsh.env("PATH", format!("/usr/bin:{path}"));
    nbdsh.env("RAW", &raw).args(["-u", &uri, "-c", script]);
    crate::support::run(&mut nbdsh).code(0);
    server.stop().code(0);
}

#[test]
fn what_is_read_while_its_snapshot_is_deleted_stays_until_it_is_closed() {
    let home = Home::new();
    let image = home.path("web1.raw");
    // Noise, so that what is kept can be seen.
    let bytes = Dice::new(3).bytes(4 << 20);
    fs::write(&image, &bytes).expect("it is written");
    home.ok(&["device", "add", "web1", "web1.raw"]);
    home.ok(&["create", "monday"]);
    let server = Server::start(&home, &["--cache", "1M"]);
    let client = server.client("web1@monday");
    home.ok(&["delete", "monday"]);
    let collected = home.json(&["gc", "--all"]);
    // By entries: noise is stored as it is.
    assert!(kept(&collected) >= 4 << 20, "{collected}");
    assert!(client.read(0, bytes.len()).expect("it is there") == bytes);
    drop(client);
    // The server notices in its own time.
    let freed = (0..1000).any(|_| {
        std::thread::sleep(std::time::Duration::from_millis(10));
        kept(&home.json(&["gc", "--all", "--dry-run"])) == 0
    });
    assert!(freed);
    home.ok(&["gc", "--all"]);
    assert!(home.pack_bytes() < 1 << 20);
    server.stop().code(0);
}

fn kept(collected: &Value) -> u64 {
    collected["pinned_bytes"].as_u64().expect("a number")
}

#[test]
fn a_hundred_exports_read_at_once_cost_the_cache_and_a_mebibyte_each() {
    let home = Home::new();
    let image = home.path("web1.raw");
    make_image(&image, 64 << 20, &mut Dice::new(5));
    for n in 0..100 {
        let device = format!("clone{n}");
        home.ok(&["import", "web1.raw", "--device", &device, "--name", "v1"]);
    }
    let cache = 16 << 20;
    let server = Server::start(&home, &["--cache", "16M"]);
    let hash = hash_of(&image);
    // One reader first: what the program itself takes is not counted.
    read_all(&server, "clone0@v1", hash);
    let before = server.peak_rss();
    std::thread::scope(|scope| {
        for n in 0..100 {
            let server = &server;
            scope.spawn(move || read_all(server, &format!("clone{n}@v1"), hash));
        }
    });
    let more = server.peak_rss() - before;
    eprintln!("100 readers took {} KiB more than one", more >> 10);
    assert!(more <= cache + (100 << 20), "{more} bytes");
    server.stop().code(0);
}

fn read_all(server: &Server, export: &str, hash: blake3::Hash) {
    let client = server.client(export);
    let mut hasher = blake3::Hasher::new();
    let (mut at, size) = (0, client.info().size);
    while at < size {
        let n = (size - at).min(256 << 10);
        hasher.update(&client.read(at, n as usize).expect("it is read"));
        at += n;
    }
    assert_eq!(hasher.finalize(), hash, "{export}");
}
