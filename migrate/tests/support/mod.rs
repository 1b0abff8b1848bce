//! What the tests of image formats share: a folder, real qemu tools, dice, and images made up with them.

// Each file of tests is a program of its own and uses a part of this.
#![allow(dead_code)]
// Tests say what went wrong by the panic, and so do their helpers.
#![allow(clippy::unwrap_used)]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use stillpoint_migrate::qcow2::{Gate, Image, State};
use stillpoint_store::disk::real::RealDisk;

/// A folder with images in it.
pub struct Bench {
    folder: tempfile::TempDir,
}

/// Whether qemu-utils are there. If not it says so loudly, and with CI=true it fails.
pub fn has_qemu(test: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let there = |program: &&str| std::env::split_paths(&path).any(|f| f.join(program).is_file());
    let missing: Vec<&str> = ["qemu-img", "qemu-io", "qemu-nbd"]
        .into_iter()
        .filter(|program| !there(program))
        .collect();
    if !missing.is_empty() {
        eprintln!("SKIP SKIP SKIP {test}: missing {missing:?}");
        let ci = std::env::var_os("CI").is_some_and(|ci| ci == "true");
        assert!(
            !ci,
            "with CI=true nothing is skipped: {test}: missing {missing:?}"
        );
    }
    missing.is_empty()
}

/// Runs a program and returns what it printed; fails the test if it does.
#[track_caller]
pub fn ok(command: &mut Command) -> String {
    let what = format!("{command:?}");
    let out = command.stdin(Stdio::null()).output().expect("it starts");
    let text = String::from_utf8_lossy(&out.stdout).into_owned();
    let err = String::from_utf8_lossy(&out.stderr);
    assert!(out.status.success(), "{what}: {}\n{text}{err}", out.status);
    text
}

impl Bench {
    pub fn new() -> Self {
        let folder = tempfile::tempdir().expect("a folder for the test");
        Self { folder }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// qemu-img in the folder.
    #[track_caller]
    pub fn img(&self, arguments: &[&str]) -> String {
        let mut command = Command::new("qemu-img");
        ok(command.current_dir(self.folder.path()).args(arguments))
    }

    /// qemu-io on an image of the folder, one command after the other.
    #[track_caller]
    pub fn io(&self, image: &str, commands: &[String]) -> String {
        let mut command = Command::new("qemu-io");
        command
            .current_dir(self.folder.path())
            .args(["-f", "qcow2"]);
        for one in commands {
            command.args(["-c", one]);
        }
        let said = ok(command.arg(image));
        assert!(!said.contains("failed"), "{commands:?}: {said}");
        said
    }

    /// Scribbles on an image; what QEMU cannot do (it compresses no cluster that is there already) is left out.
    ///
    /// QEMU 10.0 goes on in the cluster where its last compressed bytes are, even when that was freed meanwhile and is a table
    /// now: then it gives the image up. What is compressed after something else is therefore written by a program of its own.
    #[track_caller]
    pub fn scribble(&self, image: &str, commands: &[String]) {
        let compresses = |command: &String| command.starts_with("write -c");
        for part in commands.chunk_by(|before, next| compresses(before) || !compresses(next)) {
            let mut command = Command::new("qemu-io");
            command
                .current_dir(self.folder.path())
                .args(["-f", "qcow2"]);
            for one in part {
                command.args(["-c", one]);
            }
            let out = command.arg(image).stdin(Stdio::null()).output();
            let out = out.expect("it starts");
            assert!(out.status.code().is_some(), "qemu-io died");
            let said = String::from_utf8_lossy(&out.stderr);
            assert!(
                !said.contains("Marking image as corrupt"),
                "{part:?}: {said}"
            );
        }
    }

    /// What QEMU reads of the active state, or of the snapshot of that id.
    #[track_caller]
    pub fn raw(&self, image: &str, snapshot: Option<&str>) -> Vec<u8> {
        let id = snapshot.map(|id| format!("snapshot.id={id}"));
        let mut arguments = vec!["convert", "-f", "qcow2", "-O", "raw"];
        arguments.extend(id.iter().flat_map(|id| ["-l", id.as_str()]));
        arguments.extend([image, "oracle.raw"]);
        self.img(&arguments);
        fs::read(self.path("oracle.raw")).expect("it was written")
    }

    /// All that the folder has may be opened.
    #[track_caller]
    pub fn open(&self, image: &str) -> Image {
        let mut gate = Gate::closed();
        gate.allow_folder(&RealDisk, self.folder.path())
            .expect("it is there");
        Image::open(&RealDisk, &self.path(image), &gate)
            .unwrap_or_else(|e| panic!("{image}: {e:?}"))
    }

    /// Changes bytes in the middle of a file.
    pub fn poke(&self, image: &str, offset: u64, bytes: &[u8]) {
        poke(&self.path(image), offset, bytes);
    }

    /// All states of the image read as QEMU reads them.
    #[track_caller]
    pub fn reads_like_qemu(&self, image: &str) {
        let ours = self.open(image);
        let raw = self.raw(image, None);
        same(&content(&ours, &ours.active().unwrap()), &raw, image);
        for (n, snapshot) in ours.top().snapshots().iter().enumerate() {
            let id = String::from_utf8(snapshot.id.clone()).expect("qemu-img made it");
            let state = ours.snapshot(n).unwrap();
            let mut content = content(&ours, &state);
            let mut raw = self.raw(image, Some(&id));
            // QEMU reads as many bytes as the disk has now; behind the snapshot's own that is VM state.
            let len = raw.len().min(content.len());
            raw.truncate(len);
            content.truncate(len);
            same(&content, &raw, &format!("{image} snapshot {id}"));
        }
    }
}

pub fn poke(file: &Path, offset: u64, bytes: &[u8]) {
    use std::os::unix::fs::FileExt;
    let file = fs::File::options()
        .write(true)
        .open(file)
        .expect("it is there");
    file.write_all_at(bytes, offset).expect("it can be written");
}

/// All bytes of a disk, by way of the mapping.
#[track_caller]
pub fn content(image: &Image, state: &State) -> Vec<u8> {
    let mut bytes = vec![0xee; state.size() as usize];
    image.read(state, 0, &mut bytes).unwrap();
    bytes
}

/// Fails with the first byte that differs, not with megabytes.
#[track_caller]
pub fn same(ours: &[u8], theirs: &[u8], what: &str) {
    assert_eq!(ours.len(), theirs.len(), "{what}: lengths");
    let differs = ours.iter().zip(theirs).position(|(a, b)| a != b);
    assert_eq!(differs, None, "{what}: first byte that differs");
}

/// Random numbers from a seed.
#[derive(Debug, Clone)]
pub struct Dice(pub u64);

impl Dice {
    /// The seed is `STILL_SEED`, or a new one; printed either way.
    pub fn announced(test: &str) -> Self {
        let given = std::env::var("STILL_SEED").ok();
        let seed = given.map_or_else(
            || {
                let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
                u64::from(std::process::id()) ^ now.map_or(1, |d| d.as_nanos() as u64)
            },
            |seed| seed.parse().expect("STILL_SEED is a number"),
        );
        eprintln!("{test}: STILL_SEED={seed}");
        Self(seed)
    }

    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    pub fn below(&mut self, n: u64) -> u64 {
        self.next() % n
    }
}

/// Random writes, zeros and discards of a disk of `size` bytes, as qemu-io takes them.
pub fn scribbles(dice: &mut Dice, size: u64, cluster: u64, compress: bool, n: u64) -> Vec<String> {
    let one = |dice: &mut Dice| {
        let len = (512 << dice.below(10)).min(size);
        let at = dice.below(size - len + 1) & !511;
        let byte = dice.below(250) + 1;
        match dice.below(if compress { 5 } else { 4 }) {
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
