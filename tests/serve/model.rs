//! Volumes against plain byte arrays by every way there is to read them: over NBD, as files by FUSE, through ends in good order
//! and kills. And on a disk that is full.

use crate::server::Server;
use crate::support::{Dice, Home, find, finish, is_root, run, skip, tool};
use crate::volumes::{change, check, home_with, until_free};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};
use stillpoint_nbd::client::{Connection, Error};
use stillpoint_nbd::{Errno, Failure};

const MIB: u64 = 1 << 20;

/// `still mount`, where FUSE can be had; killed when dropped.
struct Files {
    child: Option<Child>,
    folder: PathBuf,
}

impl Files {
    fn start(home: &Home) -> Option<Self> {
        let device = File::options().read(true).write(true).open("/dev/fuse");
        if device.is_err() || (!is_root() && find("fusermount3").is_none()) {
            skip("the model by FUSE", "missing /dev/fuse or fusermount3");
            return None;
        }
        let folder = home.path("mnt");
        fs::create_dir_all(&folder).expect("a folder");
        let of = || fs::metadata(&folder).expect("it is there").dev();
        let outside = of();
        let mut command = home.command(&["mount", "mnt"]);
        let command = command.stdout(Stdio::piped()).stderr(Stdio::piped());
        let child = Some(command.spawn().expect("the program starts"));
        let since = Instant::now();
        while of() == outside {
            let late = since.elapsed() > Duration::from_mins(1);
            assert!(!late, "it does not mount");
            std::thread::sleep(Duration::from_millis(5));
        }
        Some(Self { child, folder })
    }

    fn hold(&self, snapshots: &BTreeMap<(String, String), Vec<u8>>) {
        for ((device, name), bytes) in snapshots {
            let file = self.folder.join(device).join(format!("{name}.raw"));
            let found = fs::read(&file).expect("it is read");
            assert!(found == *bytes, "{} as a file", file.display());
        }
    }
}

impl Drop for Files {
    fn drop(&mut self) {
        if let Some(child) = self.child.take() {
            let pid = Pid::from_raw(child.id().cast_signed());
            let ended = kill(pid, Signal::SIGTERM);
            eprintln!(
                "{ended:?} {}",
                finish(child, "still mount".to_owned()).story()
            );
        }
    }
}

/// What there is to be. Of a volume that was killed any state since its last flush.
#[derive(Default)]
struct Model {
    volumes: BTreeMap<String, Vec<u8>>,
    snapshots: BTreeMap<(String, String), Vec<u8>>,
}

fn whole(client: &Connection) -> Vec<u8> {
    let size = client.info().size;
    let piece = |at: u64| client.read(at, (size - at).min(MIB) as usize);
    (0..size.div_ceil(MIB))
        .flat_map(|n| piece(n * MIB).expect("it is read"))
        .collect()
}

/// Guests write, and commands come meanwhile.
fn session(home: &Home, server: &Server, model: &mut Model, dice: &mut Dice) {
    for _ in 0..4 {
        let names: Vec<String> = model.volumes.keys().cloned().collect();
        let name = dice.pick(&names).clone();
        let client = server.client(&name);
        let bytes = model.volumes.get_mut(&name).expect("it is there");
        check(&client, bytes);
        for _ in 0..dice.below(20) {
            change(&client, bytes, dice);
        }
        let snapshot = format!("s{}", model.snapshots.len());
        home.ok(&["create", &snapshot, "--device", &name]);
        model.snapshots.insert((name, snapshot), bytes.clone());
        for _ in 0..dice.below(20) {
            change(&client, bytes, dice);
        }
        check(&client, bytes);
    }
}

/// What is done to a volume as a whole.
fn turn(home: &Home, model: &mut Model, dice: &mut Dice, round: u64) {
    let all: Vec<(String, String)> = model.snapshots.keys().cloned().collect();
    let (device, snapshot) = dice.pick(&all).clone();
    let held = model.snapshots[&(device.clone(), snapshot.clone())].clone();
    match round % 3 {
        0 => {
            let clone = format!("c{round}");
            let from = format!("{device}@{snapshot}");
            home.ok(&["volume", "create", &clone, "--from", &from]);
            model.volumes.insert(clone, held);
        }
        1 => {
            until_free(|| home.run(&["goto", &snapshot, "--device", &device]));
            model.volumes.insert(device, held);
        }
        _ => {
            let size = MIB + 512 * dice.below(2 * MIB / 512);
            until_free(|| home.run(&["volume", "resize", &device, &size.to_string()]));
            let bytes = model.volumes.get_mut(&device).expect("it is there");
            bytes.resize(size as usize, 0);
        }
    }
}

/// One volume is written, then the server is killed: it holds what it did at some moment since the last flush.
fn crash(server: &Server, model: &mut Model, dice: &mut Dice) -> (String, Vec<Vec<u8>>) {
    let names: Vec<String> = model.volumes.keys().cloned().collect();
    for name in &names {
        server.client(name).flush().expect("a flush");
    }
    let name = dice.pick(&names).clone();
    let client = server.client(&name);
    let mut states = vec![model.volumes[&name].clone()];
    for _ in 0..dice.below(15) {
        let mut next = states[states.len() - 1].clone();
        change(&client, &mut next, dice);
        states.push(next);
    }
    server.signal(Signal::SIGKILL);
    (name, states)
}

#[test]
fn volumes_and_their_snapshots_are_what_plain_arrays_are_by_nbd_and_as_files() {
    let home = home_with(&["a", "b"], "2M");
    let mut dice = Dice::announced("volumes_and_their_snapshots");
    let mut model = Model::default();
    for name in ["a", "b"] {
        let empty = vec![0; 2 * MIB as usize];
        model.volumes.insert(name.to_owned(), empty);
    }
    let files = Files::start(&home);
    let rounds = match std::env::var("STILL_ROUNDS").as_deref() {
        Err(_) => 6,
        Ok("full") => 40,
        Ok(rounds) => rounds.parse().expect("STILL_ROUNDS is full or a number"),
    };
    for round in 0..rounds {
        let server = Server::start(&home, &["--cache", "2M"]);
        session(&home, &server, &mut model, &mut dice);
        turn(&home, &mut model, &mut dice, round);
        for (name, bytes) in &model.volumes {
            check(&server.client(name), bytes);
        }
        if round % 2 == 0 {
            server.stop().code(0);
        } else {
            let (name, states) = crash(&server, &mut model, &mut dice);
            drop(server);
            let server = Server::start(&home, &[]);
            let found = whole(&server.client(&name));
            assert!(states.contains(&found), "{name} after a kill");
            model.volumes.insert(name, found);
            server.stop().code(0);
        }
        if let Some(files) = &files {
            files.hold(&model.snapshots);
        }
    }
    for (name, bytes) in &model.volumes {
        assert_eq!(home.export(name), blake3::hash(bytes), "{name}");
    }
    home.ok(&["verify"]);
}

/// A small file system of its own for overlays. Taken away when dropped.
struct Small(PathBuf);

impl Drop for Small {
    fn drop(&mut self) {
        let _ = tool("umount").arg("-l").arg(&self.0).status();
    }
}

#[test]
fn a_guest_hears_that_the_disk_is_full_and_its_volume_is_whole() {
    let test = "a_guest_hears_that_the_disk_is_full";
    if !is_root() {
        skip(test, "only the superuser makes file systems of a size");
        return;
    }
    let home = Home::new();
    let folder = home.store().join("local/volumes");
    fs::create_dir_all(&folder).expect("a folder");
    let mut mount = tool("mount");
    mount.args(["-t", "tmpfs", "-o", "size=6m", "none"]);
    let mounted = run(mount.arg(&folder));
    if !mounted.status.success() {
        skip(test, &mounted.story());
        return;
    }
    let small = Small(folder);
    home.ok(&["volume", "create", "vm", "--size", "64M"]);
    let server = Server::start(&home, &[]);
    let client = server.client("vm");
    let mut model = vec![0; 64 * MIB as usize];
    let mut dice = Dice::announced(test);
    let refused = (0..64 * MIB / 65_536).find_map(|n| {
        let (at, bytes) = (n * 65_536, dice.bytes(60_000));
        match client.write(at, &bytes, n % 8 == 7) {
            Ok(()) => {
                model[at as usize..][..60_000].copy_from_slice(&bytes);
                None
            }
            Err(e) => Some(e),
        }
    });
    let full = matches!(
        &refused,
        Some(Error::Failed(Failure {
            errno: Errno::NoSpc,
            ..
        }))
    );
    assert!(full, "{refused:?}");
    client.flush().expect("what was written can be flushed");
    check(&client, &model);
    // What is stored makes room again.
    home.ok(&["create", "s"]);
    let bytes = dice.bytes(60_000);
    client.write(32 * MIB, &bytes, true).expect("there is room");
    model[32 * MIB as usize..][..60_000].copy_from_slice(&bytes);
    check(&client, &model);
    drop(client);
    server.stop().code(0);
    assert_eq!(home.export("vm"), blake3::hash(&model));
    drop(small);
}
