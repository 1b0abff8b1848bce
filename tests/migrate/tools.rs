//! The programs of QEMU on images in the folder of a home, and what they find there.

use crate::support::{Dice, Home, hash_of, run, tool};
use std::fs;
use std::os::unix::fs::FileExt;
use std::path::Path;

/// What the tests here need.
pub const QEMU: [&str; 3] = ["qemu-img", "qemu-io", "qemu-nbd"];

/// A program of qemu-utils in the folder of the home; what it printed.
#[track_caller]
pub fn qemu(home: &Home, program: &str, arguments: &[&str]) -> String {
    let mut command = tool(program);
    command.current_dir(home.path("")).args(arguments);
    run(&mut command).code(0).text().to_owned()
}

#[track_caller]
pub fn img(home: &Home, arguments: &[&str]) -> String {
    qemu(home, "qemu-img", arguments)
}

/// Commands of qemu-io on a qcow2; what QEMU cannot do, such as compressing a cluster again, is left out. False: QEMU would have
/// overwritten a table of its own and writes the image no more; what is in it is whole.
///
/// QEMU 10.0 goes on in the cluster where its last compressed bytes are, even when that was freed meanwhile and is a table
/// now. What is compressed after something else is therefore written by a program of its own.
pub fn scribble(home: &Home, image: &str, commands: &[String]) -> bool {
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
pub fn scribbles(dice: &mut Dice, size: u64, cluster: u64, n: u64) -> Vec<String> {
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
pub fn list(home: &Home, image: &str) -> Vec<String> {
    let said = img(home, &["snapshot", "-l", image]);
    let words = |line: &str| line.split_whitespace().collect::<Vec<_>>().join(" ");
    said.lines().map(words).collect()
}

/// Names of the snapshots of a device, in order.
pub fn names(home: &Home, device: &str) -> Vec<String> {
    let listed = home.json(&["list", "--device", device]);
    let all = listed["snapshots"].as_array().expect("an array").iter();
    all.map(|s| s["name"].as_str().expect("text").to_owned())
        .collect()
}

/// The states of the device are what QEMU reads of the image.
#[track_caller]
pub fn holds_what_qemu_reads(home: &Home, device: &str, image: &str) {
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
pub fn pretend_savevm(image: &Path, vm_state: u64) {
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
pub fn works_for_qemu(home: &Home, image: &str) {
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
