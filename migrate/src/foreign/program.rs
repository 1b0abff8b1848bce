//! The programs of qemu-utils.

use std::ffi::OsStr;
use std::io;
use std::path::Path;
use std::process::{Command, Stdio};
use stillpoint_store::{Error, ErrorKind, Result};

/// Longest message of a program that is passed on.
const SAID_CHARS: usize = 2000;

/// Runs a program of qemu-utils to its end and returns what it printed.
pub(super) fn run<S: AsRef<OsStr>>(program: &str, arguments: &[S]) -> Result<Vec<u8>> {
    let mut command = Command::new(program);
    command.args(arguments).stdin(Stdio::null());
    let out = command.output().map_err(|e| failed(program, e))?;
    if out.status.success() {
        return Ok(out.stdout);
    }
    let said = String::from_utf8_lossy(&out.stderr);
    let said: String = said.trim().chars().take(SAID_CHARS).collect();
    Err(Error::new(ErrorKind::Io, format!("running {program}")).detail(said))
}

fn failed(program: &str, e: io::Error) -> Error {
    if e.kind() != io::ErrorKind::NotFound {
        return Error::io(format!("running {program}"), e);
    }
    Error::new(ErrorKind::Unsupported, format!("running {program}"))
        .detail("it is not installed, and this format goes through it")
        .hint(
            "install qemu-utils (Debian, Ubuntu) or qemu-img (Fedora, Arch, openSUSE: qemu-tools)",
        )
}

/// A path as JSON has it. QEMU takes bytes; what is no UTF-8 cannot be said in JSON.
pub(super) fn path_text(path: &Path) -> Result<&str> {
    path.to_str().ok_or_else(|| {
        Error::invalid("naming an image to QEMU", "its name is not UTF-8").at(path.display())
    })
}
