//! Images that are held, odd, huge, or none: the program says so, with the right exit code, and stores nothing of them.

mod support;

use nix::sys::stat::Mode;
use std::fs::{self, File};
use std::io::Read;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::process::{Child, Stdio};
use std::thread::sleep;
use std::time::Duration;
use support::{Dice, Home, finish, has, hash_of, make_image, skip, tool};

/// A `qemu-nbd` that has an image open until the value is dropped.
struct Holder(Child);

impl Holder {
    fn of(home: &Home, image: &str, options: &[&str]) -> Self {
        let socket = home.path("nbd.sock");
        let _of_an_earlier_one = fs::remove_file(&socket);
        let mut command = tool("qemu-nbd");
        command.args(options).args(["--format=raw", "--persistent"]);
        command.arg(format!("--socket={}", socket.display()));
        command.arg(home.path(image));
        let child = command.spawn().expect("qemu-nbd starts");
        let holder = Self(child);
        // It listens before it opens the image, and greets after.
        for _ in 0..6000 {
            let mut greeting = [0; 8];
            let greeted =
                UnixStream::connect(&socket).and_then(|mut s| s.read_exact(&mut greeting));
            if greeted.is_ok() {
                return holder;
            }
            sleep(Duration::from_millis(10));
        }
        panic!("qemu-nbd does not listen");
    }
}

impl Drop for Holder {
    fn drop(&mut self) {
        self.0.kill().expect("it is our child");
        self.0.wait().expect("it is our child");
    }
}

fn with_device(len: u64) -> Home {
    let home = Home::new();
    make_image(&home.path("a.raw"), len, &mut Dice::new(7));
    home.ok(&["device", "add", "a", "a.raw"]);
    home
}

#[test]
fn an_image_that_qemu_writes_is_left_alone() {
    if !has("an_image_that_qemu_writes_is_left_alone", &["qemu-nbd"]) {
        return;
    }
    let home = with_device(1 << 20);
    home.ok(&["create", "before"]);
    let before = hash_of(&home.path("a.raw"));
    let holder = Holder::of(&home, "a.raw", &[]);
    for arguments in [
        &["create", "during"][..],
        &["goto", "before"],
        &["import", "a.raw", "--device", "copy"],
    ] {
        let ran = home.run(arguments).code(5);
        ran.says("opening the image")
            .says("another process has the image open")
            .says("shut the virtual machine down");
    }
    drop(holder);
    assert_eq!(home.snapshots(), [("a".into(), "before".into())]);
    assert_eq!(hash_of(&home.path("a.raw")), before);
    home.ok(&["create", "after"]);
    home.ok(&["goto", "before"]);
}

#[test]
fn an_image_that_qemu_reads_can_be_read_and_not_written() {
    let name = "an_image_that_qemu_reads_can_be_read_and_not_written";
    if !has(name, &["qemu-nbd"]) {
        return;
    }
    let home = with_device(1 << 20);
    let holder = Holder::of(&home, "a.raw", &["--read-only"]);
    home.ok(&["create", "during"]);
    home.run(&["goto", "during"])
        .code(5)
        .says("another process has the image open");
    drop(holder);
    home.ok(&["goto", "during"]);
}

#[test]
fn what_is_no_image_is_refused_by_name() {
    let home = Home::new();
    nix::unistd::mkfifo(&home.path("fifo"), Mode::S_IRWXU).expect("a FIFO can be made");
    let _listening = UnixListener::bind(home.path("socket")).expect("a socket can be made");
    let rows = [
        ("fifo", 2, "it is a FIFO, not a disk image"),
        ("socket", 2, "it is a socket, not a disk image"),
        (".", 2, "it is a folder, not a disk image"),
        ("/dev/null", 2, "it is a character device, not a disk image"),
        ("nowhere.raw", 1, "No such file"),
    ];
    for (image, code, why) in rows {
        for arguments in [
            &["device", "add", "a", image][..],
            &["import", image, "--device", "a"],
        ] {
            home.run(arguments).code(code).says(why).says("hint: ");
        }
    }
    let list = home.json(&["device", "list"]);
    assert_eq!(list["devices"], serde_json::json!([]));
}

#[test]
fn an_image_that_became_something_else_is_refused() {
    let home = with_device(1 << 20);
    home.ok(&["create", "one"]);
    let image = home.path("a.raw");
    fs::remove_file(&image).expect("it was there");
    for arguments in [&["create", "two"][..], &["goto", "one"]] {
        home.run(arguments)
            .code(1)
            .says("a.raw")
            .says("No such file");
    }
    nix::unistd::mkfifo(&image, Mode::S_IRWXU).expect("a FIFO can be made");
    for arguments in [&["create", "two"][..], &["goto", "one"]] {
        home.run(arguments).code(2).says("it is a FIFO");
    }
    assert_eq!(home.snapshots(), [("a".into(), "one".into())]);
}

#[test]
fn sizes_that_no_cluster_divides_come_back_exactly() {
    let home = Home::new();
    let sizes = [0, 1, 511, 4095, 4097, 16384, 16385, (1 << 20) + 1];
    for (nth, len) in sizes.into_iter().enumerate() {
        let (image, device) = (format!("{len}.raw"), format!("d{nth}"));
        let bytes = Dice::new(len).bytes(len as usize);
        fs::write(home.path(&image), &bytes).expect("a small file");
        home.ok(&["device", "add", &device, &image]);
    }
    home.ok(&["create", "first"]);
    for (nth, len) in sizes.into_iter().enumerate() {
        let image = home.path(&format!("{len}.raw"));
        let hash = hash_of(&image);
        home.ok(&["export", &format!("d{nth}@first"), "out.raw"]);
        let out = home.path("out.raw");
        assert_eq!(fs::metadata(&out).expect("it is there").len(), len);
        assert_eq!(hash_of(&out), hash, "{len} bytes");
        fs::remove_file(out).expect("it is there");
        // And back from another size.
        let other = Dice::new(99).bytes(len as usize / 2 + 20_000);
        fs::write(image, other).expect("a small file");
    }
    let other: Vec<_> = sizes
        .map(|len| hash_of(&home.path(&format!("{len}.raw"))))
        .into();
    home.ok(&["create", "second"]);
    for (name, hash_at) in [("first", None), ("second", Some(&other)), ("first", None)] {
        home.ok(&["goto", name]);
        for (nth, len) in sizes.into_iter().enumerate() {
            let hash = hash_of(&home.path(&format!("{len}.raw")));
            let first = || blake3::hash(&Dice::new(len).bytes(len as usize));
            assert_eq!(
                hash,
                hash_at.map_or_else(first, |h| h[nth]),
                "{name}, {len}"
            );
        }
    }
    home.ok(&["verify"]);
}

#[test]
fn an_image_that_shrank_between_two_snapshots_is_both() {
    let home = with_device((3 << 20) + 5);
    let image = home.path("a.raw");
    let (long, short) = (hash_of(&image), (1 << 20) + 77);
    home.ok(&["create", "long"]);
    let file = File::options()
        .write(true)
        .open(&image)
        .expect("it is there");
    file.set_len(short).expect("it can be cut");
    drop(file);
    let cut = hash_of(&image);
    home.ok(&["create", "short"]);
    assert_eq!(home.export("a@long"), long);
    assert_eq!(home.export("a@short"), cut);
    home.ok(&["goto", "long"]);
    assert_eq!(hash_of(&image), long);
    home.ok(&["goto", "short"]);
    assert_eq!(hash_of(&image), cut);
}

/// The largest resident size that a process reached, read until it ends.
fn peak_kib(pid: u32) -> Option<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find(|line| line.starts_with("VmHWM:"))?;
    line.split_whitespace().nth(1)?.parse().ok()
}

fn run_within(home: &Home, arguments: &[&str], kib_max: u64) {
    let mut command = home.command(arguments);
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().expect("the program starts");
    let mut peak = 0;
    while child.try_wait().expect("it is our child").is_none() {
        peak = peak.max(peak_kib(child.id()).unwrap_or_default());
        sleep(Duration::from_millis(1));
    }
    finish(child, format!("{arguments:?}")).code(0);
    assert!(peak > 0, "its memory was never seen");
    assert!(peak < kib_max, "{arguments:?} took {peak} KiB of memory");
}

#[test]
fn a_huge_sparse_image_costs_what_is_in_it() {
    // The largest file that ext4 allows is just under 16 TiB.
    let (home, len) = (Home::new(), (16 << 40) - (1 << 20));
    let image = home.path("huge.raw");
    let file = File::create_new(&image).expect("a new file");
    if let Err(e) = file.set_len(len) {
        return support::skip("a_huge_sparse_image_costs_what_is_in_it", &e.to_string());
    }
    for at in [0, 5 << 40, len - 4096] {
        file.write_all_at(&Dice::new(at).bytes(4096), at)
            .expect("a block");
    }
    drop(file);
    let limit = 256 << 10;
    home.ok(&["device", "add", "huge", "huge.raw"]);
    run_within(&home, &["create", "one"], limit);
    run_within(&home, &["create", "two"], limit);
    run_within(&home, &["export", "huge@one", "out.raw"], limit);
    run_within(&home, &["verify"], limit);
    File::options()
        .write(true)
        .open(&image)
        .and_then(|f| f.write_all_at(&[1; 4096], 7 << 40))
        .expect("a block");
    run_within(&home, &["goto", "one"], limit);
    run_within(&home, &["gc", "--all"], limit);
    for file in [home.path("out.raw"), image] {
        check_blocks(&file, len);
    }
}

fn check_blocks(path: &Path, len: u64) {
    let file = File::open(path).expect("it is there");
    assert_eq!(file.metadata().expect("it has a size").len(), len);
    let mut block = vec![0; 4096];
    for at in [0, 5 << 40, len - 4096] {
        file.read_exact_at(&mut block, at).expect("it can be read");
        assert_eq!(block, Dice::new(at).bytes(4096), "at {at}");
    }
    file.read_exact_at(&mut block, 7 << 40)
        .expect("it can be read");
    assert!(block.iter().all(|b| *b == 0));
    let on_disk = file.metadata().expect("it has a size").blocks() * 512;
    assert!(on_disk < 1 << 20, "{on_disk} bytes: the holes were filled");
}

#[test]
fn names_that_are_not_there_and_names_that_are_taken() {
    let home = with_device(1 << 20);
    home.ok(&["create", "one"]);
    let unknown: [&[&str]; 11] = [
        &["create", "two", "--device", "nobody"],
        &["list", "--device", "nobody"],
        &["show", "nobody"],
        &["show", "a@never"],
        &["find", "never"],
        &["diff", "a@one", "a@never"],
        &["goto", "never"],
        &["goto", "--undo"],
        &["delete", "never"],
        &["export", "a@id:99", "x.raw"],
        &["verify", "a@never"],
    ];
    for arguments in unknown {
        home.run(arguments).code(3);
    }
    assert!(!home.path("x.raw").exists());
    let taken: [&[&str]; 4] = [
        &["create", "one"],
        &["device", "add", "a", "a.raw"],
        &["import", "a.raw", "--device", "a"],
        &["init"],
    ];
    for arguments in taken {
        home.run(arguments).code(1);
    }
    home.run(&["export", "a@one", "a.raw"])
        .code(1)
        .says("nothing is overwritten");
    home.run(&["device", "remove", "a"])
        .code(1)
        .says("it has 1 snapshot\n");
    let usage: [&[&str]; 5] = [
        &["goto"],
        &["nonsense"],
        &["create", "a/b", "c"],
        &["create", ""],
        &["export", "a@one"],
    ];
    for arguments in usage {
        home.run(arguments).code(2);
    }
    assert_eq!(home.snapshots(), [("a".into(), "one".into())]);
}

/// With root and loop devices only: they are the one block device that a test can make.
#[test]
fn a_block_device_is_read_gone_to_and_exported_to() {
    let name = "a_block_device_is_read_gone_to_and_exported_to";
    if !support::is_root() {
        return skip(name, "only root can make a loop device");
    }
    let home = Home::new();
    make_image(&home.path("disk.raw"), 4 << 20, &mut Dice::new(3));
    let mut attach = tool("losetup");
    attach.args(["--find", "--show"]).arg(home.path("disk.raw"));
    let attached = support::run(&mut attach);
    if !attached.status.success() {
        return skip(name, &attached.story());
    }
    let device = attached.text().trim().to_owned();
    let detach = Detach(device.clone());
    let before = hash_of(Path::new(&device));
    home.ok(&["device", "add", "disk", &device]);
    home.ok(&["create", "one"]);
    let opened = File::options().write(true).open(&device);
    let opened = opened.expect("root may write it");
    opened
        .write_all_at(&Dice::new(1).bytes(1 << 20), 1 << 20)
        .and_then(|()| opened.sync_all())
        .expect("it can be written");
    drop(opened);
    home.ok(&["goto", "one"]);
    assert_eq!(hash_of(Path::new(&device)), before);
    home.ok(&["import", "disk.raw", "--device", "copy", "--name", "x"]);
    File::options()
        .write(true)
        .open(&device)
        .and_then(|f| f.write_all_at(&[9; 8192], 0))
        .expect("it can be written");
    home.ok(&["export", "disk@one", &device]);
    assert_eq!(hash_of(Path::new(&device)), before);
    drop(detach);
}

struct Detach(String);

impl Drop for Detach {
    fn drop(&mut self) {
        let _nothing_else_to_do = tool("losetup").args(["--detach", &self.0]).status();
    }
}
