//! A virtual machine: Debian's kernel, an initrd that runs a job, and disks. Under TCG, since KVM is not everywhere.

use crate::support::{run, tool};
use std::fs::{self, File};
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

/// Programs that the kit and the machine need.
pub const TOOLS: [&str; 6] = [
    "qemu-system-x86_64",
    "mmdebstrap",
    "busybox",
    "mkfs.ext4",
    "e2fsck",
    "apt-get",
];
/// A guest that says nothing for so long hangs.
const HANGS: Duration = Duration::from_mins(3);

/// The folder with kernel, initrd and Debian's disk. Made by the first test that needs it, for all runs of the tests.
pub fn kit() -> PathBuf {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("guest");
    fs::create_dir_all(&folder).expect("a folder can be made");
    let lock = File::create(folder.join("lock")).expect("a lock file");
    lock.lock().expect("others let go of it in the end");
    let kit = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/guest/kit");
    run(Command::new(kit).arg(&folder)).code(0);
    folder
}

/// A machine that is running.
pub struct Machine {
    child: Child,
    lines: Receiver<String>,
    /// What it said so far.
    said: String,
}

impl Machine {
    /// Boots with a shell script as its job, and disks as QEMU's `-drive` takes them: the first is the system's, at /root.
    /// The host is 10.0.2.2.
    pub fn boot(kit: &Path, job: &str, drives: &[String]) -> Self {
        Self::start(
            kit,
            job,
            drives,
            &["-machine", "q35,accel=tcg"],
            "GUEST: up",
        )
    }

    /// As `boot` with more arguments, the machine's type among them. Waits for what the guest says when it boots, or first
    /// when it goes on: the kernel has the initrd by then, and its folder may go.
    pub fn start(kit: &Path, job: &str, drives: &[String], more: &[&str], says: &str) -> Self {
        let folder = tempfile::tempdir().expect("a folder for the job");
        let (script, initrd) = (folder.path().join("job"), folder.path().join("initrd"));
        fs::write(&script, job).expect("a small file");
        let made = run(
            Command::new(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/guest/kit"))
                .arg(kit)
                .arg("job")
                .arg(&script),
        )
        .code(0);
        fs::write(&initrd, &made.out).expect("a small file");
        let mut qemu = tool("qemu-system-x86_64");
        qemu.args(["-cpu", "max", "-m", "256"])
            .args([
                "-nodefaults",
                "-no-reboot",
                "-nographic",
                "-serial",
                "stdio",
            ])
            .args([
                "-netdev",
                "user,id=net",
                "-device",
                "virtio-net-pci,netdev=net",
            ])
            .args(["-append", "console=ttyS0 panic=-1 quiet"])
            .arg("-kernel")
            .arg(kit.join("vmlinuz"))
            .arg("-initrd")
            .arg(&initrd)
            .args(more);
        for drive in drives {
            qemu.arg("-drive").arg(format!("{drive},if=virtio"));
        }
        qemu.stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::inherit());
        let mut child = qemu.spawn().expect("qemu starts");
        let lines = lines_of(&mut child);
        let mut machine = Self {
            child,
            lines,
            said: String::new(),
        };
        machine.wait_for(says);
        machine
    }

    /// What the guest said so far.
    pub fn said(&self) -> &str {
        &self.said
    }

    /// Waits until the guest says this on a line.
    #[track_caller]
    pub fn wait_for(&mut self, what: &str) {
        loop {
            let Ok(line) = self.lines.recv_timeout(HANGS) else {
                panic!("the guest said no more: {}", self.said);
            };
            self.said.push_str(&line);
            if line.contains(what) {
                return;
            }
        }
    }

    /// The power fails.
    pub fn power_off_hard(mut self) {
        self.child.kill().expect("it is our child");
        self.child.wait().expect("it is our child");
    }

    /// Waits until QEMU has ended as it was told.
    #[track_caller]
    pub fn gone(mut self) {
        let status = self.child.wait().expect("it is our child");
        assert!(status.success(), "{status}: {}", self.said);
    }

    /// Waits until the job has ended well and the machine is off; returns what the guest said.
    #[track_caller]
    pub fn finish(mut self) -> String {
        self.said.extend(self.lines.iter());
        let status = self.child.wait().expect("it is our child");
        let well = status.success() && self.said.contains("GUEST: job ended with 0");
        assert!(well, "{status}: {}", self.said);
        std::mem::take(&mut self.said)
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        // A test that failed leaves no machine behind; one that ended is gone already.
        let _gone = self.child.kill();
        let _gone = self.child.wait();
    }
}

fn lines_of(child: &mut Child) -> Receiver<String> {
    let (send, lines) = channel();
    let mut out = BufReader::new(child.stdout.take().expect("it is piped"));
    std::thread::spawn(move || {
        let mut line = Vec::new();
        while out.read_until(b'\n', &mut line).is_ok_and(|n| n > 0) {
            if send
                .send(String::from_utf8_lossy(&line).into_owned())
                .is_err()
            {
                return;
            }
            line.clear();
        }
    });
    lines
}
