//! QEMU's image locks, so that neither side reads what the other is writing.
//!
//! Whoever uses permission `i` of an image holds a shared lock on byte `100 + i`, and on byte `200 + i` while nobody else
//! may use it. Locks are only ever shared; a conflict is found by asking who else holds the opposite byte, after one's
//! own are taken: of two who race at least one sees the other.

use super::Access;
use crate::error::{Error, ErrorKind, Result};
use nix::errno::Errno;
use nix::fcntl::{FcntlArg, fcntl};
use nix::libc;
use std::fs::File;
use std::path::Path;

const USED: i64 = 100;
const UNSHARED: i64 = 200;

const CONSISTENT_READ: i64 = 0;
const WRITE: i64 = 1;
const WRITE_UNCHANGED: i64 = 2;
const RESIZE: i64 = 3;

/// What an access does to an image, and what it lets nobody else do meanwhile.
struct Claim {
    uses: &'static [i64],
    unshares: &'static [i64],
}

impl Claim {
    fn of(access: Access) -> Self {
        match access {
            Access::Read => Self {
                uses: &[CONSISTENT_READ],
                unshares: &[WRITE, RESIZE],
            },
            Access::Write => Self {
                uses: &[CONSISTENT_READ, WRITE, RESIZE],
                unshares: &[CONSISTENT_READ, WRITE, WRITE_UNCHANGED, RESIZE],
            },
        }
    }
}

fn flock(kind: i32, byte: i64) -> libc::flock {
    libc::flock {
        l_type: kind as libc::c_short,
        l_whence: libc::SEEK_SET as libc::c_short,
        l_start: byte,
        l_len: 1,
        l_pid: 0,
    }
}

/// What came of one step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    Done,
    Conflict,
    /// The file system has no such locks.
    NoLocks,
}

fn step(result: nix::Result<Step>, path: &Path) -> Result<Step> {
    match result {
        Err(Errno::EAGAIN | Errno::EACCES) => Ok(Step::Conflict),
        Err(Errno::ENOLCK | Errno::EINVAL | Errno::ENOSYS | Errno::EOPNOTSUPP) => Ok(Step::NoLocks),
        Err(errno) => Err(Error::io("locking the image", errno.into()).at(path.display())),
        Ok(step) => Ok(step),
    }
}

fn take(file: &File, byte: i64) -> nix::Result<Step> {
    let lock = flock(libc::F_RDLCK, byte);
    fcntl(file, FcntlArg::F_OFD_SETLK(&lock)).map(|_| Step::Done)
}

/// Whether another open file holds the byte.
fn ask(file: &File, byte: i64) -> nix::Result<Step> {
    let mut lock = flock(libc::F_WRLCK, byte);
    fcntl(file, FcntlArg::F_OFD_GETLK(&mut lock))?;
    let free = i32::from(lock.l_type) == libc::F_UNLCK;
    Ok(if free { Step::Done } else { Step::Conflict })
}

/// Takes the locks, until `unlock`. `Busy`, and nothing taken, where somebody's use conflicts. A file system without locks
/// cannot tell, and is let through as QEMU does.
pub(super) fn lock(file: &File, path: &Path, access: Access) -> Result<()> {
    let locked = claim(file, path, access);
    if locked.is_err() {
        unlock(file);
    }
    locked
}

/// Gives the locks back. Closing does it too, but only with the last copy of the file; a child that is just being started
/// has one until it becomes its program.
pub(super) fn unlock(file: &File) {
    let mut all = flock(libc::F_UNLCK, USED);
    all.l_len = UNSHARED + 100 - USED;
    let _closing_does_it = fcntl(file, FcntlArg::F_OFD_SETLK(&all));
}

fn claim(file: &File, path: &Path, access: Access) -> Result<()> {
    let claim = Claim::of(access);
    let ours = claim.uses.iter().map(|i| USED + i);
    for byte in ours.chain(claim.unshares.iter().map(|i| UNSHARED + i)) {
        match step(take(file, byte), path)? {
            Step::Done => {}
            Step::Conflict => return Err(busy(path, byte)),
            Step::NoLocks => return Ok(()),
        }
    }
    let theirs = claim.unshares.iter().map(|i| USED + i);
    for byte in theirs.chain(claim.uses.iter().map(|i| UNSHARED + i)) {
        match step(ask(file, byte), path)? {
            Step::Done => {}
            Step::Conflict => return Err(busy(path, byte)),
            Step::NoLocks => return Ok(()),
        }
    }
    Ok(())
}

/// What a lock held by somebody else on this byte means.
pub(super) fn busy(path: &Path, byte: i64) -> Error {
    let why = if byte == USED + WRITE || byte == USED + RESIZE {
        "another process has the image open for writing"
    } else if byte >= UNSHARED {
        "another process has the image open and does not share it"
    } else {
        "another process has the image open"
    };
    Error::new(ErrorKind::Busy, "opening the image")
        .at(path.display())
        .detail(why)
        .hint("shut the virtual machine down, or end the other program that uses the image, then try again")
}

/// As `lock`, where there are only whole-file locks.
pub(super) fn refused(path: &Path, access: Access) -> Error {
    match access {
        Access::Read => busy(path, USED + WRITE),
        Access::Write => busy(path, USED + CONSISTENT_READ),
    }
}
