//! What the tests of the C library share: an installed copy of it, the compilers, programs that may be missing.

// Each file of tests is a program of its own and uses a part of this.
#![allow(dead_code)]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// As strict as compilers get without opinions.
pub const STRICT: [&str; 4] = ["-Wall", "-Wextra", "-Werror", "-pedantic"];

/// A release of each era: where it begins, and the last release of all.
pub const ERAS: [&str; 14] = [
    "100", "101", "106", "107", "200", "205", "211", "400", "402", "501", "502", "600", "1001",
    "1101",
];

/// The folder of this crate.
pub fn capi() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The library of this build, installed as users do, and a folder to work in.
pub struct Installed {
    folder: tempfile::TempDir,
}

impl Installed {
    pub fn new() -> Self {
        let folder = tempfile::tempdir().expect("a folder for the test");
        ok(&mut install(&folder.path().join("prefix")));
        Self { folder }
    }

    pub fn prefix(&self) -> PathBuf {
        self.folder.path().join("prefix")
    }

    /// A path in the folder.
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// An empty folder.
    pub fn empty(&self, name: &str) -> PathBuf {
        let path = self.path(name);
        fs::create_dir(&path).expect("it is not there yet");
        path
    }

    /// What pkg-config answers, by words.
    pub fn pkg_config(&self, arguments: &[&str]) -> Vec<String> {
        let mut command = Command::new("pkg-config");
        command
            .env("PKG_CONFIG_PATH", self.prefix().join("lib/pkgconfig"))
            .args(arguments)
            .arg("stillpoint");
        let answer = ok(&mut command);
        answer.split_whitespace().map(str::to_owned).collect()
    }

    /// `cc` with what pkg-config says, so that the program finds the shared library.
    pub fn shared(&self, sources: &[PathBuf], options: &[&str], to: &str) -> PathBuf {
        let program = self.path(to);
        let mut command = Command::new("cc");
        command
            .args(["-std=c11", "-g"])
            .args(STRICT)
            .args(options)
            .args(sources)
            .args(self.pkg_config(&["--cflags", "--libs"]))
            .arg(format!("-Wl,-rpath,{}/lib", self.prefix().display()))
            .arg("-o")
            .arg(&program);
        ok(&mut command);
        program
    }
}

/// The script that installs the library of this build below a prefix.
pub fn install(prefix: &Path) -> Command {
    let this = std::env::current_exe().expect("a test is a program");
    // Cargo puts the libraries that it makes for tests beside them.
    let built = this.parent().expect("it is in a folder");
    let mut install = Command::new(capi().join("../scripts/install-c"));
    install.arg(prefix).arg("--from").arg(built);
    install
}

/// A C source of the tests.
pub fn source(name: &str) -> PathBuf {
    capi().join("tests/c").join(name)
}

/// `-DSTILLPOINT_QEMU_VERSION=402`.
pub fn version(release: &str) -> String {
    format!("-DSTILLPOINT_QEMU_VERSION={release}")
}

/// Runs what must succeed; returns what it said.
#[track_caller]
pub fn ok(command: &mut Command) -> String {
    let Output {
        status,
        stdout,
        stderr,
    } = command
        .output()
        .unwrap_or_else(|e| panic!("{command:?} does not start: {e}"));
    let (out, err) = (
        String::from_utf8_lossy(&stdout),
        String::from_utf8_lossy(&stderr),
    );
    assert!(status.success(), "{command:?}: {status}\n{out}{err}");
    out.into_owned()
}

/// Whether all programs are there. If not it says so loudly, and with CI=true it fails.
pub fn has(test: &str, programs: &[&str]) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let there = |p: &&&str| std::env::split_paths(&path).any(|folder| folder.join(p).is_file());
    let missing: Vec<_> = programs.iter().filter(|p| !there(p)).collect();
    if missing.is_empty() {
        return true;
    }
    eprintln!("SKIP SKIP SKIP {test}: missing {missing:?}");
    let ci = std::env::var_os("CI").is_some_and(|ci| ci == "true");
    assert!(
        !ci,
        "with CI=true nothing is skipped: {test}: missing {missing:?}"
    );
    false
}
