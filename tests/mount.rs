//! `still mount`: the files are the disks, holes are holes, and it goes when it is told to.

mod support;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::fs::{self, File};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};
use support::{Dice, Home, Ran, find, hash_of, is_root, make_image, scribble, skip, tool};

const LONG: Duration = Duration::from_mins(1);

/// Whether FUSE can be had here; says so loudly where it cannot.
fn can_mount(test: &str) -> bool {
    let device = File::options().read(true).write(true).open("/dev/fuse");
    let why = match device {
        Err(e) => format!("/dev/fuse: {e}"),
        Ok(_) if !is_root() && find("fusermount3").is_none() => "missing fusermount3".to_owned(),
        Ok(_) => return true,
    };
    skip(test, &why);
    false
}

/// A running `still mount`. Unmounted and killed when dropped.
struct Mount {
    child: Option<Child>,
    folder: PathBuf,
}

impl Mount {
    fn start(home: &Home) -> Self {
        let folder = home.path("mnt");
        fs::create_dir_all(&folder).expect("a folder");
        let outside = device_of(&folder);
        let mut command = home.command(&["mount", "mnt"]);
        let child = command.stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut mount = Self {
            child: Some(child.spawn().expect("the program starts")),
            folder,
        };
        let since = Instant::now();
        while device_of(&mount.folder) == outside {
            let child = mount.child.as_mut().expect("it runs");
            let ended = child.try_wait().expect("it is our child");
            if ended.is_some() {
                mount.end().code(0);
            }
            assert!(
                ended.is_none() && since.elapsed() < LONG,
                "it does not mount"
            );
            std::thread::sleep(Duration::from_millis(5));
        }
        mount
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    fn signal(&self, signal: Signal) {
        let pid = self.child.as_ref().expect("it runs").id();
        kill(Pid::from_raw(pid.cast_signed()), signal).expect("it runs");
    }

    fn end(&mut self) -> Ran {
        let child = self.child.take().expect("it runs");
        support::finish(child, "still mount".to_owned())
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        if self.child.is_some() {
            self.signal(Signal::SIGTERM);
            eprintln!("{}", self.end().story());
        }
    }
}

fn device_of(folder: &Path) -> u64 {
    fs::metadata(folder).expect("it is there").dev()
}

fn names(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).expect("it can be listed");
    let mut names: Vec<String> = entries
        .map(|e| {
            e.expect("an entry")
                .file_name()
                .to_string_lossy()
                .into_owned()
        })
        .collect();
    names.sort();
    names
}

#[test]
fn every_snapshot_is_a_file_and_new_ones_at_once() {
    if !can_mount("every_snapshot_is_a_file") {
        return;
    }
    let home = Home::new();
    let image = home.path("web1.raw");
    make_image(
        &image,
        (6 << 20) + 512,
        &mut Dice::announced("every_snapshot_is_a_file"),
    );
    home.ok(&["device", "add", "web1", "web1.raw"]);
    home.ok(&["create", "monday"]);
    let (monday, since) = (hash_of(&image), fs::metadata(&image).expect("there").len());
    let mut mount = Mount::start(&home);
    assert_eq!(names(&mount.folder), ["web1"]);
    assert_eq!(names(&mount.path("web1")), ["monday.raw"]);
    let file = mount.path("web1/monday.raw");
    assert_eq!(fs::metadata(&file).expect("there").len(), since);
    scribble(&image, &mut Dice::new(1));
    for name in ["50% of it", "id:1"] {
        home.ok(&["create", name]);
    }
    let all = ["50%25 of it.raw", "id%3A1.raw", "monday.raw"];
    assert_eq!(names(&mount.path("web1")), all);
    assert_eq!(hash_of(&file), monday);
    assert_eq!(hash_of(&mount.path("web1/id:1.raw")), monday, "by its id");
    assert_eq!(hash_of(&mount.path("web1/id%3A1.raw")), hash_of(&image));
    // A name that comes again means another disk.
    home.ok(&["delete", "monday"]);
    assert!(!file.exists());
    home.ok(&["create", "monday"]);
    assert_eq!(hash_of(&file), hash_of(&image));
    for bad in [
        "web1/x.raw",
        "web1/monday",
        "web2",
        "web1/monday.raw/x",
        "web1/%2E%2E.raw",
    ] {
        assert!(!mount.path(bad).exists(), "{bad}");
    }
    assert!(
        File::options().write(true).open(&file).is_err(),
        "read-only"
    );
    mount.signal(Signal::SIGTERM);
    mount.end().code(0);
    assert!(names(&mount.folder).is_empty(), "it is unmounted");
}

#[test]
fn holes_are_holes() {
    if !can_mount("holes_are_holes") {
        return;
    }
    let home = Home::new();
    let image = home.path("web1.raw");
    let file = File::create_new(&image).expect("a new image");
    file.set_len(8 << 20).expect("it can grow");
    for at in [1 << 20, 5 << 20] {
        let bytes = Dice::new(at).bytes(1 << 20);
        file.write_all_at(&bytes, at).expect("it is written");
    }
    home.ok(&["device", "add", "web1", "web1.raw"]);
    home.ok(&["create", "monday"]);
    let mut mount = Mount::start(&home);
    let path = mount.path("web1/monday.raw");
    assert_eq!(map(&path), map(&image));
    assert_eq!(map(&path), [(1 << 20, 2 << 20), (5 << 20, 6 << 20)]);
    let copy = home.path("copy.raw");
    support::run(tool("cp").args([&path, &copy])).code(0);
    let blocks = fs::metadata(&copy).expect("there").blocks();
    assert!(blocks * 512 <= 3 << 20, "cp keeps holes: {blocks} blocks");
    assert_eq!(hash_of(&copy), hash_of(&image));
    mount.signal(Signal::SIGINT);
    mount.end().code(0);
}

/// Where data are: (from, to).
fn map(path: &Path) -> Vec<(u64, u64)> {
    use rustix::fs::{SeekFrom, seek};
    let file = File::open(path).expect("there");
    let mut out = Vec::new();
    let mut at = 0;
    while let Ok(data) = seek(&file, SeekFrom::Data(at)) {
        let hole = seek(&file, SeekFrom::Hole(data)).expect("the end is a hole");
        out.push((data, hole));
        at = hole;
    }
    out
}

#[test]
fn what_was_read_once_is_in_the_kernel_and_asks_the_program_no_more() {
    if !can_mount("read_once") {
        return;
    }
    let home = Home::new();
    let image = home.path("web1.raw");
    make_image(&image, 5 << 20, &mut Dice::announced("read_once"));
    home.ok(&["device", "add", "web1", "web1.raw"]);
    home.ok(&["create", "monday"]);
    let mut mount = Mount::start(&home);
    let path = mount.path("web1/monday.raw");
    let open = || File::open(&path).expect("there");
    let bytes = |file: &File| {
        let mut bytes = vec![0; 5 << 20];
        file.read_exact_at(&mut bytes, 0).map(|()| bytes)
    };
    let first = open();
    let there = fs::read(&image).expect("there");
    assert!(bytes(&first).expect("readable") == there);
    // Opening asks, so that each gets its right disk; reading does not.
    let second = open();
    mount.signal(Signal::SIGSTOP);
    let (said, heard) = std::sync::mpsc::channel();
    let reader = std::thread::spawn(move || said.send([bytes(&first), bytes(&second)]));
    let read = heard.recv_timeout(LONG);
    mount.signal(Signal::SIGCONT);
    let sent = reader.join().expect("it reads");
    assert!(sent.is_ok() && read.is_ok(), "it waited for the program");
    for read in read.into_iter().flatten() {
        assert!(read.expect("readable") == there);
    }
    mount.signal(Signal::SIGTERM);
    mount.end().code(0);
}

#[test]
fn readers_at_once_read_the_same_while_the_snapshot_is_deleted() {
    if !can_mount("readers_at_once") {
        return;
    }
    let home = Home::new();
    let image = home.path("web1.raw");
    make_image(&image, 32 << 20, &mut Dice::new(6));
    home.ok(&["device", "add", "web1", "web1.raw"]);
    home.ok(&["create", "monday"]);
    let mut mount = Mount::start(&home);
    let (path, hash) = (mount.path("web1/monday.raw"), hash_of(&image));
    let open = File::open(&path).expect("there");
    home.ok(&["delete", "monday"]);
    home.ok(&["gc", "--all"]);
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                let mut hasher = blake3::Hasher::new();
                let mut bytes = vec![0; 100_000];
                let mut at = 0;
                loop {
                    let n = open.read_at(&mut bytes, at).expect("it is read");
                    if n == 0 {
                        break;
                    }
                    hasher.update(&bytes[..n]);
                    at += n as u64;
                }
                assert_eq!(hasher.finalize(), hash);
            });
        }
    });
    drop(open);
    mount.signal(Signal::SIGTERM);
    mount.end().code(0);
    assert_eq!(home.json(&["gc", "--dry-run"])["pinned_bytes"], 0);
}

#[test]
fn a_loop_device_and_a_file_system_can_stand_on_a_file() {
    let test = "a_loop_device";
    if !can_mount(test) || !support::has(test, &["mkfs.ext4", "mount", "umount"]) {
        return;
    }
    if !is_root() {
        skip(test, "only the superuser makes loop devices");
        return;
    }
    let home = Home::new();
    let folder = home.path("files");
    fs::create_dir_all(folder.join("below")).expect("a folder");
    fs::write(folder.join("below/hello"), "hello").expect("it is written");
    let (image, files) = (home.path("web1.raw"), folder.display().to_string());
    File::create_new(&image)
        .and_then(|f| f.set_len(16 << 20))
        .expect("an image");
    let mut mkfs = tool("mkfs.ext4");
    support::run(mkfs.args(["-q", "-d", &files]).arg(&image)).code(0);
    home.ok(&["device", "add", "web1", "web1.raw"]);
    home.ok(&["create", "monday"]);
    let mut mount = Mount::start(&home);
    let inside = home.path("inside");
    fs::create_dir(&inside).expect("a folder");
    let mut command = tool("mount");
    command
        .args(["-o", "loop,ro,noload"])
        .arg(mount.path("web1/monday.raw"))
        .arg(&inside);
    let mounted = support::run(&mut command);
    if !mounted.status.success() {
        skip(test, &mounted.story());
        return;
    }
    let hello = fs::read(inside.join("below/hello"));
    support::run(tool("umount").arg(&inside)).code(0);
    assert_eq!(hello.expect("it is read"), b"hello");
    mount.signal(Signal::SIGTERM);
    mount.end().code(0);
}

#[test]
fn somebody_else_may_unmount_it_and_a_missing_folder_is_said() {
    let test = "somebody_else_may_unmount";
    if !can_mount(test) {
        return;
    }
    let home = Home::new();
    home.run(&["mount", "nowhere"])
        .code(1)
        .says("make the folder first");
    let mut mount = Mount::start(&home);
    let program = if is_root() { "umount" } else { "fusermount3" };
    let mut command = tool(program);
    if !is_root() {
        command.arg("-u");
    }
    support::run(command.arg(&mount.folder)).code(0);
    mount.end().code(0);
}
