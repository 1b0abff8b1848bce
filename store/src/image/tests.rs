use super::*;
use crate::disk::real::RealDisk;
use crate::disk::sim::SimDisk;
use std::io::Read as _;
use std::process::{Child, Command, Output, Stdio};

fn folder() -> tempfile::TempDir {
    tempfile::tempdir().expect("a temporary folder")
}

/// An image of 1 MiB.
fn image(dir: &Path) -> PathBuf {
    let path = dir.join("disk.img");
    std::fs::write(&path, vec![7; 1 << 20]).expect("a file in a temporary folder");
    path
}

fn refusal(disk: &dyn Disk, path: &Path, access: Access) -> Error {
    Image::open(disk, path, access).expect_err("it must be refused")
}

#[test]
fn an_image_is_read_and_known_to_be_unchanged() -> Result<()> {
    let dir = folder();
    let image = Image::open(&RealDisk, &image(dir.path()), Access::Read)?;
    assert_eq!(image.size(), 1 << 20);
    let mut bytes = vec![0; 1 << 20];
    assert_eq!(image.file().read_at(0, &mut bytes)?, 1 << 20);
    assert!(bytes.iter().all(|b| *b == 7));
    image.check_unchanged()
}

#[test]
fn what_is_no_image_is_named() {
    let dir = folder();
    let fifo = dir.path().join("fifo");
    let mode = rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR;
    rustix::fs::mknodat(rustix::fs::CWD, &fifo, rustix::fs::FileType::Fifo, mode, 0)
        .expect("a FIFO in a temporary folder");
    let socket = dir.path().join("socket");
    let _listener = std::os::unix::net::UnixListener::bind(&socket).expect("a socket");
    let cases = [
        (fifo.as_path(), "it is a FIFO, not a disk image"),
        (socket.as_path(), "it is a socket, not a disk image"),
        (dir.path(), "it is a folder, not a disk image"),
        (
            Path::new("/dev/null"),
            "it is a character device, not a disk image",
        ),
    ];
    for (path, why) in cases {
        for access in [Access::Read, Access::Write] {
            let error = refusal(&RealDisk, path, access);
            assert_eq!(error.kind(), ErrorKind::InvalidInput);
            let text = format!("opening the image {}: {why}", path.display());
            assert_eq!(error.to_string(), text);
        }
    }
    let error = refusal(&RealDisk, &dir.path().join("none"), Access::Read);
    assert_eq!(error.kind(), ErrorKind::NotFound);
    assert!(error.what_next().is_some());
}

#[test]
fn every_change_is_noticed() -> Result<()> {
    type Harm = fn(&Path) -> std::io::Result<()>;
    let harms: [(&str, Harm); 5] = [
        ("written", |path| {
            // The clock of a file system ticks in milliseconds.
            std::thread::sleep(std::time::Duration::from_millis(20));
            let file = std::fs::OpenOptions::new().write(true).open(path)?;
            std::os::unix::fs::FileExt::write_all_at(&file, b"x", 5)
        }),
        ("cut", |path| {
            std::fs::OpenOptions::new()
                .write(true)
                .open(path)?
                .set_len(9)
        }),
        ("removed", |path| std::fs::remove_file(path)),
        ("renamed", |path| {
            std::fs::rename(path, path.with_extension("old"))
        }),
        ("replaced", |path| {
            let new = path.with_extension("new");
            std::fs::copy(path, &new)?;
            std::fs::rename(new, path)
        }),
    ];
    for (what, harm) in harms {
        let dir = folder();
        let path = image(dir.path());
        let image = Image::open(&RealDisk, &path, Access::Read)?;
        image.check_unchanged()?;
        harm(&path).expect("a change in a temporary folder");
        let error = image.check_unchanged().expect_err(what);
        assert_eq!(error.kind(), ErrorKind::Busy, "{what}");
        assert!(
            error
                .to_string()
                .contains("changed while it was being read")
        );
    }
    Ok(())
}

/// Readers share, a writer does not, also among ourselves.
fn check_sharing(disk: &dyn Disk, path: &Path) -> Result<()> {
    let one = Image::open(disk, path, Access::Read)?;
    let two = Image::open(disk, path, Access::Read)?;
    assert_eq!(refusal(disk, path, Access::Write).kind(), ErrorKind::Busy);
    drop((one, two));
    let writer = Image::open(disk, path, Access::Write)?;
    for access in [Access::Read, Access::Write] {
        let error = refusal(disk, path, access);
        assert_eq!(error.kind(), ErrorKind::Busy);
        assert!(error.what_next().is_some());
    }
    let error = refusal(disk, path, Access::Read);
    assert!(error.to_string().contains("open for writing"), "{error}");
    drop(writer);
    Image::open(disk, path, Access::Write)?;
    Ok(())
}

#[test]
fn readers_share_and_a_writer_is_alone() -> Result<()> {
    let dir = folder();
    check_sharing(&RealDisk, &image(dir.path()))?;
    let sim = SimDisk::new(1);
    sim.open(Path::new("/a"), OpenMode::CreateNew)?;
    check_sharing(&sim, Path::new("/a"))
}

#[test]
fn an_image_on_a_simulated_disk_is_watched_too() -> Result<()> {
    let sim = SimDisk::new(1);
    let path = Path::new("/a");
    let file = sim.open(path, OpenMode::CreateNew)?;
    file.write_at(0, b"x")?;
    let image = Image::open(&sim, path, Access::Read)?;
    image.check_unchanged()?;
    file.write_at(0, b"y")?;
    assert_eq!(
        image.check_unchanged().err().map(|e| e.kind()),
        Some(ErrorKind::Busy)
    );
    Ok(())
}

/// A program of QEMU; `None`, loudly, where it is not installed. In CI it must be.
fn qemu(tool: &str) -> Option<Command> {
    let there = Command::new(tool)
        .arg("--version")
        .stdout(Stdio::null())
        .status()
        .is_ok();
    if there {
        return Some(Command::new(tool));
    }
    let ci = std::env::var_os("CI").is_some_and(|ci| ci == "true");
    assert!(!ci, "{tool} must be installed in CI");
    eprintln!("SKIP SKIP SKIP: {tool} is not installed, image locks are NOT tested against it");
    None
}

fn run(mut command: Command, args: &[&str], path: &Path) -> Output {
    command
        .args(args)
        .arg(path)
        .output()
        .expect("it was found a moment ago")
}

/// A qemu-nbd that serves an image until it is dropped.
struct Server(Child);

impl Server {
    fn start(mut command: Command, args: &[&str], path: &Path) -> Self {
        let socket = path.with_extension("sock");
        command
            .args(["-t", "-f", "raw", "-k"])
            .arg(&socket)
            .args(args)
            .arg(path);
        let mut server = Self(command.spawn().expect("it was found a moment ago"));
        // It listens before it has opened the image, and greets after.
        while !greets(&socket) {
            let ended = server.0.try_wait().expect("it is our child");
            assert!(ended.is_none(), "qemu-nbd ended: {ended:?}");
            std::thread::sleep(std::time::Duration::from_millis(5));
        }
        server
    }
}

fn greets(socket: &Path) -> bool {
    let mut magic = [0; 8];
    std::os::unix::net::UnixStream::connect(socket)
        .and_then(|mut stream| stream.read_exact(&mut magic))
        .is_ok_and(|()| magic == *b"NBDMAGIC")
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ended_already = self.0.kill();
        let _ended_already = self.0.wait();
    }
}

#[test]
fn an_image_that_qemu_writes_is_refused() -> Result<()> {
    let Some(nbd) = qemu("qemu-nbd") else {
        return Ok(());
    };
    let dir = folder();
    let path = image(dir.path());
    let server = Server::start(nbd, &[], &path);
    let error = refusal(&RealDisk, &path, Access::Read);
    assert_eq!(error.kind(), ErrorKind::Busy);
    assert!(
        error
            .to_string()
            .contains("another process has the image open for writing"),
        "{error}"
    );
    assert_eq!(
        refusal(&RealDisk, &path, Access::Write).kind(),
        ErrorKind::Busy
    );
    drop(server);
    Image::open(&RealDisk, &path, Access::Read)?.check_unchanged()
}

#[test]
fn an_image_that_qemu_reads_can_be_read_but_not_written() -> Result<()> {
    let Some(nbd) = qemu("qemu-nbd") else {
        return Ok(());
    };
    let dir = folder();
    let path = image(dir.path());
    let server = Server::start(nbd, &["-r"], &path);
    Image::open(&RealDisk, &path, Access::Read)?.check_unchanged()?;
    assert_eq!(
        refusal(&RealDisk, &path, Access::Write).kind(),
        ErrorKind::Busy
    );
    drop(server);
    Image::open(&RealDisk, &path, Access::Write)?;
    Ok(())
}

#[test]
fn qemu_refuses_what_we_hold() -> Result<()> {
    // Not `info` of a raw image: it reads nothing, and takes no lock even against QEMU itself.
    let img = || qemu("qemu-img");
    let (Some(mut create), Some(info), Some(map), Some(map_again), Some(io)) =
        (img(), img(), img(), img(), qemu("qemu-io"))
    else {
        return Ok(());
    };
    let dir = folder();
    let path = image(dir.path());
    let locked = |out: &Output| {
        let text = String::from_utf8_lossy(&out.stderr).into_owned();
        assert!(!out.status.success() && text.contains(" lock"), "{text}");
    };
    let held = Image::open(&RealDisk, &path, Access::Write)?;
    locked(&run(map, &["map", "-f", "raw"], &path));
    drop(held);
    let qcow2 = dir.path().join("disk.qcow2");
    let made = create
        .args(["create", "-q", "-f", "qcow2"])
        .arg(&qcow2)
        .arg("1M")
        .status();
    assert!(made.expect("it was found a moment ago").success());
    let held = Image::open(&RealDisk, &qcow2, Access::Write)?;
    locked(&run(info, &["info"], &qcow2));
    drop(held);
    let held = Image::open(&RealDisk, &path, Access::Read)?;
    locked(&run(io, &["-f", "raw", "-c", "write 0 512"], &path));
    let out = run(map_again, &["map", "-f", "raw"], &path);
    assert!(
        out.status.success(),
        "{}",
        String::from_utf8_lossy(&out.stderr)
    );
    held.check_unchanged()
}

/// A child that is being started has copies of all open files until it becomes its program; a lock that ended only with
/// the last copy would outlive its owner by that moment.
#[test]
fn a_lock_ends_with_its_owner_even_where_copies_of_the_file_live_on() -> Result<()> {
    let dir = folder();
    let path = image(dir.path());
    let held = Image::open(&RealDisk, &path, Access::Write)?;
    let copy = held.file().as_real().expect("a real file").try_clone();
    drop(held);
    let held = Image::open(&RealDisk, &path, Access::Read)?;
    let refused = RealDisk.open(&path, OpenMode::Write)?;
    let other_copy = refused.as_real().expect("a real file").try_clone();
    let file = refused.as_real().expect("a real file");
    assert!(lock::lock(file, &path, Access::Write).is_err());
    drop(held);
    Image::open(&RealDisk, &path, Access::Write)?;
    drop((copy, other_copy));
    Ok(())
}

#[test]
fn an_image_that_this_user_may_not_open_is_told_with_what_to_do() {
    for (access, words) in [
        (Access::Read, "may not read it"),
        (Access::Write, "may not write it"),
    ] {
        let denied = std::io::Error::from(std::io::ErrorKind::PermissionDenied);
        let error = super::explain(Error::io("opening", denied).at("a.raw"), access);
        assert_eq!(error.kind(), ErrorKind::Io);
        assert!(error.to_string().contains(words), "{error}");
        assert!(
            error
                .what_next()
                .is_some_and(|hint| hint.contains("permissions"))
        );
    }
}
