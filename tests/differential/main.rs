//! `qemu-img snapshot` of the store against the real one on a real qcow2 image: the same random actions, with ids and names
//! that collide, end alike. Compared are exit codes, both outputs of every action (dates masked), and after every apply the
//! bytes and the size of the guest's disk. The release is that of the qemu-img that is installed.
//!
//! 500 sequences of 30 actions; 5000 with `STILL_ROUNDS=full`; any number with `STILL_ROUNDS=<n>`. Every 25th goes through
//! the program `still qemu-img`, the others call what it calls. `STILL_SEED=<n>` repeats the sequence that failed.

mod ours;
#[path = "../support/mod.rs"]
mod support;
mod theirs;

use ours::Ours;
use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use support::{Dice, has, masked};
use theirs::Theirs;

/// Of a sequence.
const ACTIONS: usize = 30;
/// One in so many goes through the program.
const PROGRAM: u64 = 25;
/// A cluster of the qcow2 image.
const CLUSTER: u64 = 64 << 10;

/// What an action left behind.
#[derive(Debug, PartialEq, Eq)]
pub struct Said {
    code: i32,
    out: String,
    err: String,
}

impl Said {
    fn new(code: i32, out: &[u8], err: &[u8]) -> Self {
        Self {
            code,
            out: masked(&String::from_utf8_lossy(out)),
            err: String::from_utf8_lossy(err).into_owned(),
        }
    }
}

/// Names that are ids of others too, that are cut, that are no text.
fn names() -> Vec<Vec<u8>> {
    let plain: [&[u8]; 11] = [
        b"1",
        b"2",
        b"3",
        b"4",
        b"5",
        b"01",
        b"a",
        b"",
        b"b c",
        b"\xc3\xa9",
        b"\xff",
    ];
    let mut names: Vec<Vec<u8>> = plain.iter().map(|n| n.to_vec()).collect();
    names.extend([vec![b'x'; 300], vec![b'x'; 255], b"-l".to_vec()]);
    names
}

/// The same disk twice.
struct Pair {
    ours: Box<dyn Ours>,
    theirs: Theirs,
    dice: Dice,
    names: Vec<Vec<u8>>,
    done: Vec<String>,
    /// How often each thing was really met, to see that the test tests.
    met: BTreeMap<String, u64>,
}

impl Pair {
    fn new(seed: u64, folder: &Path) -> Self {
        let through_program = seed.is_multiple_of(PROGRAM);
        let theirs = Theirs::new(folder, 4 * CLUSTER);
        Self {
            ours: ours::new(folder, 4 * CLUSTER, through_program),
            theirs,
            dice: Dice::new(seed),
            names: names(),
            done: Vec::new(),
            met: BTreeMap::new(),
        }
    }

    fn act(&mut self, action: &str, name: &[u8]) {
        let shown = String::from_utf8_lossy(&name[..name.len().min(20)]);
        self.done.push(format!("{action} {shown:?}"));
        let name = OsStr::from_bytes(name);
        let theirs = self.theirs.snapshot(action, name);
        let ours = self.ours.snapshot(action, name);
        assert_eq!(ours, theirs, "ours, theirs, after {:#?}", self.done);
        let met = format!("{action} exit {}", theirs.code);
        *self.met.entry(met).or_default() += 1;
        if action == "-a" && theirs.code == 0 {
            self.compare();
        }
    }

    fn step(&mut self) {
        let name = self.dice.pick(&self.names).clone();
        match self.dice.below(20) {
            0..7 => self.act("-c", &name),
            7..11 => self.act("-a", &name),
            11..15 => self.act("-d", &name),
            15 | 16 => self.act("-l", b""),
            17 | 18 => self.write(),
            _ => self.resize(),
        }
    }

    fn write(&mut self) {
        let clusters = self.ours.size() / CLUSTER;
        let at = self.dice.below(clusters) * CLUSTER;
        let byte = self.dice.below(250) as u8 + 1;
        self.done.push(format!("write {byte} at {at}"));
        self.ours.write(at, &vec![byte; CLUSTER as usize]);
        self.theirs.write(at, byte, CLUSTER);
    }

    fn resize(&mut self) {
        let size = (self.dice.below(6) + 1) * CLUSTER;
        self.done.push(format!("resize to {size}"));
        self.ours.resize(size);
        self.theirs.resize(size);
    }

    /// Of another size the program would say so, and be content with zeros.
    fn compare(&self) {
        let says = self.theirs.compare(self.ours.image());
        assert_eq!(says, "Images are identical.\n", "after {:#?}", self.done);
    }

    fn run(&mut self) {
        for _ in 0..ACTIONS {
            self.step();
        }
        self.act("-l", b"");
        self.compare();
    }
}

fn sequence(seed: u64) -> BTreeMap<String, u64> {
    // In memory where the system has such a folder: nothing here is about what survives a crash.
    let memory = Path::new("/dev/shm");
    let folder = if memory.is_dir() {
        tempfile::tempdir_in(memory)
    } else {
        tempfile::tempdir()
    };
    let folder = folder.expect("a folder for the test");
    let mut pair = Pair::new(seed, folder.path());
    pair.run();
    pair.met
}

#[test]
fn random_actions_end_as_with_the_real_qemu_img() {
    if !has("differential", &["qemu-img", "qemu-io"]) {
        return;
    }
    let rounds = match std::env::var("STILL_ROUNDS").as_deref() {
        Ok("full") => 5000,
        Ok(rounds) => rounds.parse().expect("STILL_ROUNDS is full or a number"),
        Err(_) => 500,
    };
    let one = std::env::var_os("STILL_SEED").is_some();
    let first = Dice::announced("differential").seed();
    let (rounds, next) = (if one { 1 } else { rounds }, AtomicU64::new(0));
    let (stop, failed) = (AtomicBool::new(false), Mutex::new(None));
    let met = Mutex::new(BTreeMap::<String, u64>::new());
    let work = || {
        while !stop.load(Ordering::Relaxed) {
            let n = next.fetch_add(1, Ordering::Relaxed);
            if n >= rounds {
                return;
            }
            let seed = first.wrapping_add(n);
            match catch_unwind(AssertUnwindSafe(|| sequence(seed))) {
                Ok(one) => {
                    let mut met = met.lock().expect("nobody panics with it");
                    one.into_iter()
                        .for_each(|(what, n)| *met.entry(what).or_default() += n);
                }
                Err(panic) => {
                    eprintln!("differential: failed; STILL_SEED={seed} repeats it");
                    stop.store(true, Ordering::Relaxed);
                    *failed.lock().expect("nobody panics with it") = Some(panic);
                }
            }
        }
    };
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        (0..threads).for_each(|_| drop(scope.spawn(work)));
    });
    if let Some(panic) = failed.into_inner().expect("nobody panics with it") {
        std::panic::resume_unwind(panic);
    }
    let met = met.into_inner().expect("nobody panics with it");
    eprintln!("differential: {rounds} sequences of {ACTIONS} actions met {met:?}");
    for what in [
        "-c exit 0",
        "-a exit 0",
        "-a exit 1",
        "-d exit 0",
        "-d exit 1",
        "-l exit 0",
    ] {
        assert!(
            rounds < 10 || met.contains_key(what),
            "never {what}: nothing tested"
        );
    }
}

#[test]
fn dates_are_masked_and_nothing_else() {
    let row = |date: &str| format!("1       2026 a 12:0         0 B {date}  0000:00:00.000 0\n");
    assert_eq!(masked(&row("2026-11-21 06:59:27")), row("DATE"));
    assert_eq!(
        masked(&row("2026-11-21_06:59:27")),
        row("2026-11-21_06:59:27")
    );
}
