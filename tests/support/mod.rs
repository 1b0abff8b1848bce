//! What the tests of the real program share: running it, the disks they make up, dice, and programs that may be missing.

// Each file of tests is a program of its own and uses a part of this.
#![allow(dead_code)]

use serde_json::Value;
use std::fs::{self, File};
use std::io::Read;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};
use stillpoint_api::compat::Release;

/// A program that is not done by then hangs. Far more than anything here needs.
const HANGS: Duration = Duration::from_mins(3);

/// A folder with a store in it.
pub struct Home {
    folder: tempfile::TempDir,
}

/// How one run of a program ended.
#[derive(Debug)]
pub struct Ran {
    what: String,
    pub status: ExitStatus,
    pub out: Vec<u8>,
    pub err: String,
}

impl Home {
    /// A folder without a store.
    pub fn empty() -> Self {
        let folder = tempfile::tempdir().expect("a folder for the test");
        Self { folder }
    }

    /// A folder with an empty store.
    pub fn new() -> Self {
        let home = Self::empty();
        home.ok(&["init"]);
        home
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub fn store(&self) -> PathBuf {
        self.path("store")
    }

    /// The program, on this store, in this folder.
    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_still"));
        command
            .env_remove("STILL_STORE")
            .current_dir(self.folder.path())
            .stdin(Stdio::null())
            .args(["--store", "store"])
            .args(arguments);
        command
    }

    pub fn run(&self, arguments: &[&str]) -> Ran {
        run(&mut self.command(arguments))
    }

    /// Runs what must succeed.
    #[track_caller]
    pub fn ok(&self, arguments: &[&str]) -> Ran {
        self.run(arguments).code(0)
    }

    /// Runs what must succeed, and reads its answer.
    #[track_caller]
    pub fn json(&self, arguments: &[&str]) -> Value {
        let arguments: Vec<&str> = ["--json"].iter().chain(arguments).copied().collect();
        self.ok(&arguments).json()
    }

    /// The snapshots as (device, name), in the program's order.
    #[track_caller]
    pub fn snapshots(&self) -> Vec<(String, String)> {
        let list = self.json(&["list"]);
        let text = |s: &Value, field| s[field].as_str().expect("text").to_owned();
        let all = list["snapshots"].as_array().expect("an array");
        all.iter()
            .map(|s| (text(s, "device"), text(s, "name")))
            .collect()
    }

    /// Exports and returns the hash of what came out; the file is gone again.
    #[track_caller]
    pub fn export(&self, target: &str) -> blake3::Hash {
        let file = self.path("exported.raw");
        self.ok(&["export", target, "exported.raw"]);
        let hash = hash_of(&file);
        fs::remove_file(file).expect("it was written");
        hash
    }

    /// Files below a folder of the store, sorted.
    pub fn files(&self, below: &str) -> Vec<PathBuf> {
        files_below(&self.store().join(below))
    }

    /// Bytes of a cluster.
    pub fn cluster_bytes(&self) -> u64 {
        let file = fs::read(self.store().join("store.json")).expect("a store has it");
        let file: Value = serde_json::from_slice(&file).expect("it is JSON");
        file["cluster_bytes"].as_u64().expect("a number")
    }

    /// Bytes of all packs.
    pub fn pack_bytes(&self) -> u64 {
        let len = |p: &PathBuf| fs::metadata(p).map_or(0, |m| m.len());
        self.files("packs").iter().map(len).sum()
    }
}

impl Ran {
    #[track_caller]
    pub fn code(self, code: i32) -> Self {
        assert_eq!(self.status.code(), Some(code), "{}", self.story());
        assert!(!self.err.contains("panicked"), "{}", self.story());
        self
    }

    /// Standard error must have this in it.
    #[track_caller]
    pub fn says(self, what: &str) -> Self {
        assert!(self.err.contains(what), "{what:?} not in {}", self.story());
        self
    }

    pub fn text(&self) -> &str {
        std::str::from_utf8(&self.out).expect("output is text")
    }

    /// The one JSON document on standard output.
    #[track_caller]
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.out)
            .unwrap_or_else(|e| panic!("not one JSON document: {e}: {}", self.story()))
    }

    pub fn story(&self) -> String {
        let out = String::from_utf8_lossy(&self.out[..self.out.len().min(4000)]);
        format!("{}: {}\n{out}{}", self.what, self.status, self.err)
    }
}

/// Runs a program to its end and keeps what it says; one that hangs is killed and fails the test.
pub fn run(command: &mut Command) -> Ran {
    let what = format!("{command:?}");
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    let child = command
        .spawn()
        .unwrap_or_else(|e| panic!("{what} does not start: {e}"));
    finish(child, what)
}

/// Waits for a child with both outputs piped.
pub fn finish(mut child: Child, what: String) -> Ran {
    let drain = |stream: Option<Box<dyn Read + Send>>| {
        std::thread::spawn(move || {
            let mut bytes = Vec::new();
            if let Some(mut stream) = stream {
                stream.read_to_end(&mut bytes).expect("a pipe can be read");
            }
            bytes
        })
    };
    let out = drain(child.stdout.take().map(|s| Box::new(s) as _));
    let err = drain(child.stderr.take().map(|s| Box::new(s) as _));
    let since = Instant::now();
    let status = loop {
        if let Some(status) = child.try_wait().expect("it is our child") {
            break status;
        }
        if since.elapsed() > HANGS {
            child.kill().expect("it is our child");
            panic!("{what} hangs");
        }
        sleep(Duration::from_millis(1));
    };
    let err = String::from_utf8_lossy(&err.join().expect("it reads")).into_owned();
    let out = out.join().expect("it reads");
    Ran {
        what,
        status,
        out,
        err,
    }
}

pub fn hash_of(file: &Path) -> blake3::Hash {
    let mut hasher = blake3::Hasher::new();
    let file = File::open(file).unwrap_or_else(|e| panic!("{}: {e}", file.display()));
    std::io::copy(&mut { file }, &mut hasher).expect("it can be read");
    hasher.finalize()
}

/// All files below a folder, sorted; none when there is no such folder.
pub fn files_below(folder: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    let Ok(entries) = fs::read_dir(folder) else {
        return files;
    };
    for entry in entries.flatten() {
        let path = entry.path();
        if path.is_dir() {
            files.extend(files_below(&path));
        } else {
            files.push(path);
        }
    }
    files.sort();
    files
}

/// Random numbers from a seed.
#[derive(Debug, Clone)]
pub struct Dice(u64);

impl Dice {
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// The seed is `STILL_SEED`, or a new one; printed either way, so that a failure can be repeated as far as the
    /// machine's timing lets it.
    pub fn announced(test: &str) -> Self {
        let seed = match std::env::var("STILL_SEED") {
            Ok(seed) => seed.parse().expect("STILL_SEED is a number"),
            Err(_) => u64::from(std::process::id()) ^ now_nanoseconds(),
        };
        eprintln!("{test}: STILL_SEED={seed}");
        Self(seed)
    }

    /// What it began with, as long as nothing was rolled.
    pub fn seed(&self) -> u64 {
        self.0
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

    pub fn one_in(&mut self, n: u64) -> bool {
        self.below(n) == 0
    }

    pub fn pick<'a, T>(&mut self, from: &'a [T]) -> &'a T {
        &from[self.below(from.len() as u64) as usize]
    }

    /// Bytes that do not compress.
    pub fn bytes(&mut self, len: usize) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(len + 8);
        while bytes.len() < len {
            bytes.extend_from_slice(&self.next().to_le_bytes());
        }
        bytes.truncate(len);
        bytes
    }
}

fn now_nanoseconds() -> u64 {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    now.map_or(1, |d| d.as_nanos() as u64)
}

/// Bytes as a disk has them: of a few kinds that return, some compressible, some not. Equal seeds are equal blocks, so
/// that disks share clusters.
pub fn block(seed: u64, len: usize) -> Vec<u8> {
    if seed.is_multiple_of(3) {
        Dice::new(seed).bytes(len)
    } else {
        let line = format!("line {seed} of some log file, as there are many\n");
        line.bytes().cycle().take(len).collect()
    }
}

/// A disk of `len` bytes: data, zeros and holes.
pub fn make_image(path: &Path, len: u64, dice: &mut Dice) {
    let file = File::create_new(path).expect("a new image");
    file.set_len(len).expect("it can grow");
    for _ in 0..len.div_ceil(256 << 10) {
        scribble(path, dice);
    }
}

/// Overwrites a part of a disk, in place.
pub fn scribble(path: &Path, dice: &mut Dice) {
    let file = File::options()
        .write(true)
        .open(path)
        .expect("the image is there");
    let len = file.metadata().expect("it has a size").len();
    let size = (4096 << dice.below(7)).min(len);
    let start = dice.below(len - size + 1) & !4095;
    let bytes = match dice.below(8) {
        0 => vec![0; size as usize],
        1 => dice.bytes(size as usize),
        _ => block(dice.below(500), size as usize),
    };
    file.write_all_at(&bytes, start).expect("it can be written");
}

/// A list of snapshots with `DATE` for the first date of a line: 19 characters, and no name here looks like one.
pub fn masked(list: &str) -> String {
    let is_date = |word: &str| {
        let shape = |(at, c): (usize, char)| match at {
            4 | 7 => c == '-',
            10 => c == ' ',
            13 | 16 => c == ':',
            _ => c.is_ascii_digit(),
        };
        word.chars().enumerate().all(shape)
    };
    let mask = |line: &str| {
        let ends = (19..=line.len()).filter(|end| line.is_char_boundary(*end));
        let mut dates = ends.filter_map(|end| Some((end - 19, line.get(end - 19..end)?)));
        match dates.find(|(_, word)| is_date(word)) {
            Some((at, _)) => format!("{}DATE{}\n", &line[..at], &line[at + 19..]),
            None => format!("{line}\n"),
        }
    };
    list.lines().map(mask).collect()
}

/// Whether all programs are there. If not it says so loudly, and with CI=true it fails.
pub fn has(test: &str, programs: &[&str]) -> bool {
    let missing: Vec<&&str> = programs.iter().filter(|p| find(p).is_none()).collect();
    missing.is_empty() || {
        skip(test, &format!("missing {missing:?}"));
        false
    }
}

/// Says loudly that a test is skipped; with CI=true it fails.
pub fn skip(test: &str, why: &str) {
    eprintln!("SKIP SKIP SKIP {test}: {why}");
    let ci = std::env::var_os("CI").is_some_and(|ci| ci == "true");
    assert!(!ci, "with CI=true nothing is skipped: {test}: {why}");
}

/// Where a program is; mkfs and its kin are not on the path of ordinary users.
pub fn find(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let usual = ["/usr/sbin", "/sbin"].map(PathBuf::from);
    std::env::split_paths(&path)
        .chain(usual)
        .map(|folder| folder.join(program))
        .find(|file| file.is_file())
}

/// A program that `has` found.
pub fn tool(program: &str) -> Command {
    let path = find(program).unwrap_or_else(|| panic!("{program} is there"));
    let mut command = Command::new(path);
    command.stdin(Stdio::null());
    command
}

/// The release of the qemu-img that is installed.
pub fn real_release() -> Release {
    let said = run(tool("qemu-img").arg("--version")).code(0);
    let version = said.text().split_whitespace().nth(2).unwrap_or_default();
    let release: Vec<&str> = version.split('.').take(2).collect();
    let release = release.join(".").parse();
    release.unwrap_or_else(|e| panic!("{}: {e}", said.story()))
}

/// Whether this is the superuser, by the owner of our own process.
pub fn is_root() -> bool {
    use std::os::unix::fs::MetadataExt;
    fs::metadata("/proc/self").is_ok_and(|process| process.uid() == 0)
}
