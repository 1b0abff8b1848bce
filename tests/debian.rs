//! A real file system of real files, in and out, changed and back, judged by the programs that made it.

mod support;

use nix::unistd::{Whence, lseek};
use std::fs::{self, File};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use support::{Home, has, hash_of, run, tool};

const TOOLS: [&str; 4] = ["mkfs.ext4", "e2fsck", "debugfs", "qemu-img"];
const DISK_BYTES: u64 = 256 << 20;
const CONTENT_BYTES_MAX: u64 = 110 << 20;

/// Regular files below a folder in order of their names, until there are enough bytes.
fn copy_some(from: &Path, to: &Path, left: &mut u64) {
    fs::create_dir_all(to).expect("a folder can be made");
    let Ok(entries) = fs::read_dir(from) else {
        return;
    };
    let mut paths: Vec<PathBuf> = entries.flatten().map(|e| e.path()).collect();
    paths.sort();
    for path in paths {
        let (Ok(meta), Some(name)) = (fs::symlink_metadata(&path), path.file_name()) else {
            continue;
        };
        if meta.is_dir() {
            copy_some(&path, &to.join(name), left);
        } else if meta.is_file() && meta.len() <= *left && fs::copy(&path, to.join(name)).is_ok() {
            *left -= meta.len();
        }
    }
}

fn make_disk(home: &Home) -> PathBuf {
    let content = home.path("content");
    for (folder, bytes) in [
        ("bin", CONTENT_BYTES_MAX / 2),
        ("share/doc", CONTENT_BYTES_MAX / 2),
    ] {
        let mut left = bytes;
        copy_some(
            &Path::new("/usr").join(folder),
            &content.join(folder),
            &mut left,
        );
    }
    let disk = home.path("disk.raw");
    let file = File::create_new(&disk).expect("a new image");
    file.set_len(DISK_BYTES).expect("it can grow");
    // Equal seeds make equal trees, so that a failure can be repeated on the same machine.
    let seed = "12345678-1234-5678-9abc-123456789abc";
    let mut mkfs = tool("mkfs.ext4");
    mkfs.args(["-q", "-F", "-U", seed, "-E", &format!("hash_seed={seed}")])
        .arg("-d")
        .arg(&content)
        .arg(&disk);
    run(&mut mkfs).code(0);
    disk
}

fn check_clean(disk: &Path) {
    run(tool("e2fsck").arg("-fn").arg(disk)).code(0);
}

fn change(disk: &Path, home: &Home) {
    fs::write(home.path("new-file"), vec![b'x'; 3 << 20]).expect("a small file");
    let commands =
        "mkdir /new\nwrite new-file /new/file\nrm /bin/ls\nrm /bin/cp\nsymlink /new/link file\n";
    fs::write(home.path("commands"), commands).expect("a small file");
    let mut debugfs = tool("debugfs");
    debugfs
        .current_dir(home.path("."))
        .args(["-w", "-f", "commands"])
        .arg(disk);
    run(&mut debugfs).code(0);
}

fn identical(a: &Path, b: &Path) {
    let mut compare = tool("qemu-img");
    compare
        .args(["compare", "-f", "raw", "-F", "raw"])
        .arg(a)
        .arg(b);
    let ran = run(&mut compare).code(0);
    assert_eq!(ran.text(), "Images are identical.\n");
}

/// Which clusters hold data, as the file system tells it.
fn data_clusters(path: &Path, cluster: u64) -> Vec<bool> {
    let file = File::open(path).expect("it is there");
    let len = file.metadata().expect("it has a size").len();
    let mut map = vec![false; len.div_ceil(cluster) as usize];
    let mut at = 0;
    while let Ok(start) = lseek(&file, at, Whence::SeekData) {
        let end = lseek(&file, start, Whence::SeekHole).expect("data ends");
        let clusters = start as u64 / cluster..(end as u64).div_ceil(cluster);
        clusters.for_each(|c| map[c as usize] = true);
        at = end;
    }
    map
}

#[test]
fn a_file_system_goes_in_and_comes_out_and_goes_back() {
    if !has("a_file_system_goes_in_and_comes_out_and_goes_back", &TOOLS) {
        return;
    }
    let home = Home::new();
    let disk = make_disk(&home);
    check_clean(&disk);
    let before = hash_of(&disk);
    home.ok(&["device", "add", "root", "disk.raw"]);
    let made = home.json(&["create", "installed"]);
    let stored = made["snapshots"][0]["stored_bytes"]
        .as_u64()
        .expect("a number");
    let on_disk = fs::metadata(&disk).expect("it is there").blocks() * 512;
    assert!(
        stored < on_disk * 3 / 4,
        "{stored} of {on_disk} bytes stored"
    );

    let out = home.path("out.raw");
    home.ok(&["export", "root@installed", "out.raw"]);
    assert_eq!(hash_of(&out), before);
    identical(&disk, &out);
    check_clean(&out);
    let cluster = home.cluster_bytes();
    assert_eq!(data_clusters(&out, cluster), data_clusters(&disk, cluster));

    change(&disk, &home);
    check_clean(&disk);
    let changed = hash_of(&disk);
    assert_ne!(changed, before);
    let again = home.json(&["create", "changed"]);
    let more = again["snapshots"][0]["stored_bytes"]
        .as_u64()
        .expect("a number");
    assert!(more < stored / 10, "{more} bytes more for a small change");

    for (name, hash) in [
        ("installed", before),
        ("changed", changed),
        ("installed", before),
    ] {
        home.ok(&["goto", name]);
        assert_eq!(hash_of(&disk), hash, "{name}");
        check_clean(&disk);
    }
    identical(&disk, &out);
    assert_eq!(home.export("root@changed"), changed);
    home.ok(&["verify"]);
}

#[test]
fn a_stream_is_the_same_disk() {
    if !has("a_stream_is_the_same_disk", &TOOLS) {
        return;
    }
    let home = Home::new();
    let disk = home.path("disk.raw");
    let mut mkfs = tool("mkfs.ext4");
    mkfs.args(["-q", "-F"]).arg(&disk).arg("32M");
    run(&mut mkfs).code(0);
    home.ok(&["import", "disk.raw", "--device", "d", "--name", "v1"]);
    let streamed = home.path("streamed.raw");
    let file = File::create_new(&streamed).expect("a new file");
    let mut export: Command = home.command(&["export", "d@v1", "-"]);
    let status = export.stdout(file).status().expect("the program starts");
    assert!(status.success());
    assert_eq!(hash_of(&streamed), hash_of(&disk));
    check_clean(&streamed);
}
