//! The real qemu-img on a qcow2 image.

use crate::Said;
use crate::support::tool;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::Output;

pub struct Theirs {
    folder: PathBuf,
}

/// Messages do not name the image, so that names need not agree.
const IMAGE: &str = "theirs.qcow2";

impl Theirs {
    pub fn new(folder: &Path, size: u64) -> Self {
        let theirs = Self {
            folder: folder.to_owned(),
        };
        theirs.ok(
            "qemu-img",
            &["create", "-q", "-f", "qcow2", IMAGE, &size.to_string()],
        );
        theirs
    }

    fn run(&self, program: &str, arguments: &[&OsStr]) -> Output {
        let mut command = tool(program);
        command
            .current_dir(&self.folder)
            .env("TZ", "UTC")
            .args(arguments);
        command.output().expect("the program runs")
    }

    fn ok(&self, program: &str, arguments: &[&str]) -> Output {
        let arguments: Vec<&OsStr> = arguments.iter().map(OsStr::new).collect();
        let output = self.run(program, &arguments);
        assert!(output.status.success(), "{arguments:?}: {output:?}");
        output
    }

    pub fn snapshot(&self, action: &str, name: &OsStr) -> Said {
        let mut arguments = vec![OsStr::new("snapshot"), OsStr::new(action)];
        if action != "-l" {
            arguments.push(name);
        }
        arguments.push(OsStr::new(IMAGE));
        let output = self.run("qemu-img", &arguments);
        let code = output.status.code().expect("it ends by itself");
        Said::new(code, &output.stdout, &output.stderr)
    }

    pub fn write(&self, at: u64, byte: u8, len: u64) {
        self.ok(
            "qemu-io",
            &["-c", &format!("write -q -P {byte} {at} {len}"), IMAGE],
        );
    }

    pub fn resize(&self, size: u64) {
        self.ok(
            "qemu-img",
            &["resize", "-q", "--shrink", IMAGE, &size.to_string()],
        );
    }

    /// What `qemu-img compare` says of the image and a raw one.
    pub fn compare(&self, raw: &Path) -> String {
        let raw = raw.to_str().expect("a plain path");
        let words = ["compare", "-f", "raw", "-F", "qcow2", raw, IMAGE].map(OsStr::new);
        let output = self.run("qemu-img", &words);
        String::from_utf8_lossy(&output.stdout).into_owned()
    }
}
