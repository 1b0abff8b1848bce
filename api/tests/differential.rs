//! The compatibility layer against the real `qemu-img` on a real qcow2 image: the same random steps, the same results,
//! lists and bytes. That program behaves as QEMU 10.0 here.

#![expect(
    clippy::unwrap_used,
    reason = "a test says what went wrong by its panic"
)]

mod support;

use std::ffi::OsStr;
use std::fs::File;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::process::{Command, Output};
use std::sync::Arc;
use stillpoint_api::compat::{Graph, ImgAction, ImgOutput, NodeId, Release, img_snapshot};
use stillpoint_api::store::geometry::Geometry;
use stillpoint_api::store::world::Moment;
use stillpoint_api::{OpenOptions, System};
use support::{Dice, rounds};

/// In one sequence.
const STEPS: usize = 30;
const CLUSTER: u64 = 64 << 10;

/// Names that are ids of others too.
const NAMES: [&[u8]; 8] = [b"1", b"2", b"3", b"4", b"a", b"", b"b c", b"\xc3\xa9"];

/// The same disk twice.
struct Pair {
    folder: tempfile::TempDir,
    graph: Graph,
    bs: NodeId,
    release: Release,
}

impl Pair {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let store = folder.path().join("store");
        System::init(&store, Geometry::DEFAULT).unwrap();
        let system = Arc::new(System::open(&store, OpenOptions::default()).unwrap());
        let raw = folder.path().join("disk.raw");
        File::create_new(&raw)
            .unwrap()
            .set_len(4 * CLUSTER)
            .unwrap();
        system.device_add("disk", &raw, "raw", false).unwrap();
        let mut graph = Graph::new();
        let bs = graph.add_device(&system, "disk").unwrap();
        let release = Release::new(10, 0).unwrap();
        let pair = Self {
            folder,
            graph,
            bs,
            release,
        };
        assert!(
            pair.img(&["create", "-q", "-f", "qcow2", "disk.qcow2", "256K"])
                .status
                .success()
        );
        pair
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn run(&self, program: &str, arguments: &[&OsStr]) -> Output {
        let mut command = Command::new(program);
        command
            .current_dir(self.folder.path())
            .env("TZ", "UTC")
            .args(arguments);
        command.output().unwrap()
    }

    fn img(&self, arguments: &[&str]) -> Output {
        let arguments: Vec<&OsStr> = arguments.iter().map(OsStr::new).collect();
        self.run("qemu-img", &arguments)
    }

    fn snapshot(&self, action: &str, name: &[u8]) -> Output {
        let image = OsStr::new("disk.qcow2");
        let arguments = ["snapshot", action].map(OsStr::new);
        self.run(
            "qemu-img",
            &[arguments[0], arguments[1], OsStr::from_bytes(name), image],
        )
    }

    fn write(&self, dice: &mut Dice) {
        let disk = File::options()
            .write(true)
            .open(self.path("disk.raw"))
            .unwrap();
        let clusters = disk.metadata().unwrap().len() / CLUSTER;
        let at = dice.below(clusters as usize) as u64 * CLUSTER;
        let byte = dice.below(250) as u8 + 1;
        disk.write_all_at(&vec![byte; CLUSTER as usize], at)
            .unwrap();
        let write = format!("write -q -P {byte} {at} {CLUSTER}");
        let arguments = ["-c", &write, "disk.qcow2"].map(OsStr::new);
        assert!(self.run("qemu-io", &arguments).status.success());
    }

    fn resize(&self, dice: &mut Dice) {
        let size = (dice.below(6) as u64 + 1) * CLUSTER;
        let disk = File::options()
            .write(true)
            .open(self.path("disk.raw"))
            .unwrap();
        disk.set_len(size).unwrap();
        let done = self.img(&["resize", "-q", "--shrink", "disk.qcow2", &size.to_string()]);
        assert!(done.status.success(), "{done:?}");
    }

    /// The same action on our side.
    fn ours(&mut self, action: ImgAction<'_>) -> ImgOutput {
        let now = Moment { sec: 0, nsec: 0 };
        img_snapshot(self.release, &mut self.graph, self.bs, action, now, &|_| 0)
    }

    /// Does one step to both; returns what was done.
    fn step(&mut self, dice: &mut Dice) -> String {
        let name = dice.pick(&NAMES).to_vec();
        let shown = String::from_utf8_lossy(&name).into_owned();
        let (action, theirs) = match dice.below(10) {
            0..4 => (ImgAction::Create(&name), self.snapshot("-c", &name)),
            4..6 => (ImgAction::Apply(&name), self.snapshot("-a", &name)),
            6..8 => (ImgAction::Delete(&name), self.snapshot("-d", &name)),
            8 => {
                self.write(dice);
                return "write".into();
            }
            _ => {
                self.resize(dice);
                return "resize".into();
            }
        };
        let ours = self.ours(action);
        let step = format!("{action:?} {shown:?}");
        assert_eq!(
            theirs.status.code(),
            Some(i32::from(ours.exit)),
            "{step}: {theirs:?} {ours:?}"
        );
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        assert_eq!(text(&ours.stderr), text(&theirs.stderr), "{step}");
        assert_eq!(text(&ours.stdout), text(&theirs.stdout), "{step}");
        step
    }

    fn check(&mut self, done: &[String]) {
        let ours = self.ours(ImgAction::List).stdout;
        let theirs = self.img(&["snapshot", "-l", "disk.qcow2"]);
        assert_eq!(masked(&ours), masked(&theirs.stdout), "after {done:#?}");
        // Of another size it would say so, and be content with zeros.
        let same = self.img(&[
            "compare",
            "-f",
            "raw",
            "-F",
            "qcow2",
            "disk.raw",
            "disk.qcow2",
        ]);
        let says = String::from_utf8_lossy(&same.stdout);
        assert_eq!(says, "Images are identical.\n", "after {done:#?}");
    }
}

/// The list without its dates, which are of different moments.
fn masked(list: &[u8]) -> String {
    let text = String::from_utf8_lossy(list).into_owned();
    let mask = |line: &str| match line.find(" 19").or_else(|| line.find(" 20")) {
        Some(at) if line.len() > at + 20 => format!("{} DATE{}", &line[..at], &line[at + 20..]),
        _ => line.to_owned(),
    };
    text.lines().map(mask).collect::<Vec<_>>().join("\n")
}

fn has_programs() -> bool {
    let there = |p: &str| Command::new(p).arg("--version").output().is_ok();
    let all = ["qemu-img", "qemu-io"].into_iter().all(there);
    if !all {
        eprintln!("SKIP SKIP SKIP differential: qemu-img or qemu-io is missing");
        let ci = std::env::var_os("CI").is_some_and(|ci| ci == "true");
        assert!(!ci, "with CI=true nothing is skipped");
    }
    all
}

#[test]
fn random_steps_end_as_with_the_real_qemu_img() {
    if !has_programs() {
        return;
    }
    for seed in 0..rounds(12, 42) {
        let mut dice = Dice::new(seed);
        let mut pair = Pair::new();
        let mut done = vec![format!("seed {seed}")];
        for _ in 0..STEPS {
            done.push(pair.step(&mut dice));
            pair.check(&done);
        }
    }
}
