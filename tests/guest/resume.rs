//! A guest that QEMU saved with its memory goes on from there, before its image was in a store and after.

use crate::machine::{Machine, TOOLS, kit};
use crate::support::{Home, has, run, tool};
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

/// Counts, in memory and on the disk, and fails if the two are ever apart. The word is nowhere but in memory.
const COUNT: &str = "
word=$(dd if=/dev/urandom bs=16 count=1 2>/dev/null | md5sum | cut -c1-32)
n=0
while true; do
    n=$((n + 1))
    printf %-511s $n | dd of=/dev/vda bs=512 conv=fsync,notrunc 2>/dev/null
    echo 3 > /proc/sys/vm/drop_caches
    disk=$(dd if=/dev/vda bs=511 count=1 2>/dev/null)
    test $disk -eq $n || echo GUEST: the disk is at $disk, not at $n
    echo at $n, $word.
done
";
/// Of one release: VM state fits no other machine.
const MACHINE: [&str; 2] = ["-machine", "pc-q35-7.2,accel=tcg"];

fn drive(image: &Path) -> [String; 1] {
    [format!("file={},format=qcow2", image.display())]
}

/// What a command of the monitor answers.
fn monitor(socket: &Path, command: &str) -> String {
    until_prompt(&mut ask(socket, command))
}

fn quit(socket: &Path) {
    let mut rest = Vec::new();
    let ended = ask(socket, "quit").read_to_end(&mut rest);
    ended.expect("QEMU closes it");
}

fn ask(socket: &Path, command: &str) -> UnixStream {
    let mut stream = UnixStream::connect(socket).expect("QEMU listens");
    stream
        .set_read_timeout(Some(Duration::from_mins(2)))
        .expect("a socket");
    until_prompt(&mut stream);
    writeln!(stream, "{command}").expect("QEMU listens");
    stream
}

fn until_prompt(stream: &mut UnixStream) -> String {
    let (mut said, mut byte) = (String::new(), [0]);
    while !said.ends_with("(qemu) ") {
        stream.read_exact(&mut byte).expect("QEMU answers");
        said.push(char::from(byte[0]));
    }
    said
}

/// The last number that the guest told of, and its word.
fn last(machine: &Machine) -> (u64, String) {
    let lines = machine.said().lines().rev();
    let mut told = lines.filter_map(|l| l.strip_prefix("at ")?.trim_end().split_once(", "));
    let (number, word) = told.next().expect("it counts");
    (number.parse().expect("a number"), word.to_owned())
}

/// Goes on from a saved state and counts a little; what it said first, and its word.
fn resume(kit: &Path, image: &Path, state: &str, more: &[&str]) -> (Machine, u64, String) {
    let load = [&MACHINE[..], &["-loadvm", state], more].concat();
    let mut machine = Machine::start(kit, COUNT, &drive(image), &load, "at ");
    let (first, word) = last(&machine);
    machine.wait_for(&format!("at {}, {word}", first + 3));
    let said = machine.said();
    assert!(
        !said.contains("GUEST"),
        "it goes on, and does not boot: {said}"
    );
    (machine, first, word)
}

#[test]
fn a_guest_goes_on_from_a_vm_state_that_was_in_a_store() {
    if !has("guest resume", &TOOLS) || !has("guest resume", &["qemu-img"]) {
        return;
    }
    let (kit, home) = (kit(), Home::new());
    let image = home.path("vm.qcow2");
    let img = |arguments: &[&str]| {
        run(tool("qemu-img").current_dir(home.path("")).args(arguments)).code(0)
    };
    img(&["create", "-q", "-f", "qcow2", "vm.qcow2", "64M"]);
    let socket = home.path("monitor");
    let listen = format!("unix:{},server=on,wait=off", socket.display());
    let more = [&MACHINE[..], &["-monitor", &listen]].concat();
    let mut machine = Machine::start(&kit, COUNT, &drive(&image), &more, "GUEST: up");
    machine.wait_for("at 5,");
    let said = monitor(&socket, "savevm live");
    assert!(!said.contains("Error"), "{said}");
    let (saved_by, word) = last(&machine);
    machine.wait_for(&format!("at {}, {word}", saved_by + 5));
    machine.power_off_hard();

    home.ok(&["import", "vm.qcow2", "--device", "vm", "--verify"]);
    let snapshot = &home.json(&["list"])["snapshots"][0];
    assert!(
        snapshot["vm_state_bytes"].as_u64() > Some(10 << 20),
        "{snapshot}"
    );
    let (machine, first, known) = resume(&kit, &image, "live", &[]);
    machine.power_off_hard();
    assert_eq!(known, word);
    assert!((5..=saved_by + 1).contains(&first), "{first}, {saved_by}");

    for (out, compress) in [("out.qcow2", ""), ("small.qcow2", "zstd")] {
        let mut export = vec![
            "export",
            "vm",
            out,
            "--format",
            "qcow2",
            "--snapshots",
            "all",
        ];
        export.extend(["--verify"]);
        if !compress.is_empty() {
            export.extend(["--compress", compress]);
        }
        home.ok(&export);
        img(&["check", "-q", "-f", "qcow2", out]);
        let listen = ["-monitor", &listen];
        let (machine, again, known) = resume(&kit, &home.path(out), "live", &listen);
        assert_eq!((again, known), (first, word.clone()), "{out}");
        // QEMU works on with what we wrote.
        let said = monitor(&socket, "savevm later");
        assert!(!said.contains("Error"), "{said}");
        // Cut off, QEMU itself leaves leaks behind.
        quit(&socket);
        machine.gone();
        img(&["check", "-q", "-f", "qcow2", out]);
        let (machine, later, known) = resume(&kit, &home.path(out), "later", &[]);
        machine.power_off_hard();
        assert!(later >= first + 3 && known == word, "{out}: {later}");
    }
}
