//! The menu as files: `DEVICE/SNAPSHOT.raw` for every snapshot, read-only, by FUSE.
//!
//! A file never changes, so the kernel keeps what it has read for as long as it likes, and is asked again only for names: a
//! snapshot may be deleted and another made of that name. Holes are holes (`SEEK_DATA`, `SEEK_HOLE`).

mod files;
mod tree;

use crate::shelf::Shelf;
use files::Files;
use fuser::{Config, MountOption, Session, SessionACL, SessionUnmounter};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use stillpoint_store::{Error, ErrorKind, Result};

/// A mount. Dropping it unmounts.
pub struct Mount {
    session: Session<Files>,
}

/// Unmounts a [`Mount`] that is at work.
pub struct Unmounter {
    inner: SessionUnmounter,
    folder: PathBuf,
}

impl Mount {
    /// Mounts on a folder that is there. Only the caller's user sees the files, unless `allow_other`.
    pub fn new(shelf: Arc<Shelf>, folder: &Path, allow_other: bool) -> Result<Self> {
        let failed = |e: io::Error| failed(folder, e);
        if !std::fs::metadata(folder).map_err(failed)?.is_dir() {
            return Err(Error::invalid("mounting on", "it is no folder").at(folder.display()));
        }
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let mut config = Config::default();
        config.mount_options = vec![
            MountOption::RO,
            MountOption::NoDev,
            MountOption::NoSuid,
            MountOption::NoExec,
            MountOption::DefaultPermissions,
            MountOption::FSName("stillpoint".to_owned()),
            MountOption::Subtype("still".to_owned()),
        ];
        if allow_other {
            config.acl = SessionACL::All;
        }
        config.n_threads = Some(cores.clamp(2, 8));
        config.clone_fd = true;
        let session = Session::new(Files::new(shelf), folder, &config).map_err(failed)?;
        Ok(Self { session })
    }

    /// What unmounts it while it is served.
    pub fn unmounter(&mut self, folder: &Path) -> Unmounter {
        Unmounter {
            inner: self.session.unmount_callable(),
            folder: folder.to_owned(),
        }
    }

    /// Serves until it is unmounted.
    pub fn serve(self) -> Result<()> {
        let served = self.session.run();
        served.map_err(|e| Error::io("serving files", e))
    }
}

impl Unmounter {
    /// Takes the mount away. Where files of it are in use it goes at once all the same, and they with their last user.
    /// Answers whether nobody used it.
    pub fn unmount(&mut self) -> Result<bool> {
        match self.inner.unmount() {
            Ok(()) => Ok(true),
            Err(e) if e.kind() == io::ErrorKind::ResourceBusy => {
                let detach = rustix::mount::UnmountFlags::DETACH;
                rustix::mount::unmount(&self.folder, detach)
                    .map_err(|e| failed(&self.folder, e.into()))?;
                Ok(false)
            }
            Err(e) => Err(failed(&self.folder, e)),
        }
    }
}

fn failed(folder: &Path, error: io::Error) -> Error {
    match error.kind() {
        io::ErrorKind::NotFound if !folder.exists() => Error::io("mounting on", error)
            .at(folder.display())
            .hint("make the folder first"),
        io::ErrorKind::NotFound | io::ErrorKind::PermissionDenied => {
            Error::new(ErrorKind::Io, "mounting on")
                .at(folder.display())
                .source(error)
                .hint(
                    "FUSE needs /dev/fuse, and for ordinary users fusermount3 of the package fuse3",
                )
        }
        io::ErrorKind::NotConnected => Error::io("mounting on", error)
            .at(folder.display())
            .hint("a dead mount is there: take it away with fusermount3 -u, or umount"),
        _ => Error::io("mounting on", error).at(folder.display()),
    }
}
