//! What this program, called `qemu-img`, does not do itself: the real qemu-img takes over the process.

use super::NAME;
use std::ffi::OsString;
use std::fs::Metadata;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use stillpoint_store::Error;

/// Says to a second copy of this program, further down in PATH, where in PATH the first one was: `PID:INDEX`. A process
/// keeps its number through exec, so that the search only ever goes forward; a child has another number.
const PASSED: &str = "STILL_QEMU_IMG_PASSED";

/// Where `snapshot` stands, if that is the subcommand.
pub fn snapshot_at(words: &[OsString]) -> Option<usize> {
    let mut at = 1;
    while let Some(word) = words.get(at) {
        match word.to_str() {
            Some("snapshot") => return Some(at),
            Some("-T" | "--trace") => at += 2,
            Some(word) if word.starts_with("--trace=") => at += 1,
            _ => return None,
        }
    }
    None
}

/// Becomes the real qemu-img, with the same words. Returns only if that cannot be.
pub fn exec(words: &[OsString]) -> Error {
    let doing = "passing on to the real qemu-img";
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders: Vec<PathBuf> = std::env::split_paths(&path).collect();
    let own = std::env::current_exe().and_then(std::fs::metadata);
    let own = match own {
        Ok(own) => own,
        Err(e) => return Error::io(doing, e),
    };
    let pid = std::process::id();
    let passed = std::env::var(PASSED).ok();
    let Some((index, real)) = find(&folders, &own, first(passed.as_deref(), pid)) else {
        let none = std::io::Error::new(std::io::ErrorKind::NotFound, "there is none later in PATH");
        return Error::io(doing, none)
            .hint("`still qemu-img snapshot` works without; install qemu-utils for the rest");
    };
    let mut command = Command::new(&real);
    if let [program, arguments @ ..] = words {
        command.arg0(program).args(arguments);
    }
    let error = command.env(PASSED, format!("{pid}:{index}")).exec();
    Error::io(doing, error).at(real.display())
}

/// The first index in PATH to look at.
fn first(passed: Option<&str>, pid: u32) -> usize {
    let by = |text: &str| {
        let (by, index) = text.split_once(':')?;
        (by.parse() == Ok(pid)).then(|| index.parse::<usize>().ok())?
    };
    passed.and_then(by).map_or(0, |index| index + 1)
}

/// The first `qemu-img` behind this program, or the first at all where this program is not in PATH. Never this program,
/// by whatever name or link.
fn find(folders: &[PathBuf], own: &Metadata, from: usize) -> Option<(usize, PathBuf)> {
    let is_own = |m: &Metadata| (m.dev(), m.ino()) == (own.dev(), own.ino());
    let program = |folder: &Path| {
        let file = folder.join(NAME);
        let found = std::fs::metadata(&file).ok()?;
        let runs = found.is_file() && found.permissions().mode() & 0o111 != 0;
        runs.then_some((file, found))
    };
    let all: Vec<_> = folders.iter().map(|f| program(f)).collect();
    let here = all
        .iter()
        .position(|p| p.as_ref().is_some_and(|(_, m)| is_own(m)));
    let from = from.max(here.map_or(0, |here| here + 1));
    let behind = all.into_iter().enumerate().skip(from);
    behind
        .filter_map(|(index, p)| Some((index, p?)))
        .find(|(_, (_, m))| !is_own(m))
        .map(|(index, (file, _))| (index, file))
}
