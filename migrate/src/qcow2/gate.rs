//! Which files an image may make us open: those that the user named, and those in folders that the user allowed.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use stillpoint_store::disk::Disk;
use stillpoint_store::{Error, ErrorKind, Result};

/// Files in a chain unless the gate says otherwise.
pub const CHAIN_DEPTH_MAX: usize = 64;

/// What a file is for the image that names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Role {
    Backing,
    Data,
    Extent,
}

impl Role {
    fn name(self) -> &'static str {
        match self {
            Self::Backing => "backing file",
            Self::Data => "data file",
            Self::Extent => "extent file",
        }
    }
}

/// What backing and data files may be opened; none, by default. The image itself needs no permission: the user named it.
#[derive(Debug, Clone)]
pub struct Gate {
    files: Vec<PathBuf>,
    folders: Vec<PathBuf>,
    depth: usize,
}

impl Default for Gate {
    fn default() -> Self {
        Self::closed()
    }
}

impl Gate {
    /// No other file.
    pub fn closed() -> Self {
        Self {
            files: Vec::new(),
            folders: Vec::new(),
            depth: CHAIN_DEPTH_MAX,
        }
    }

    /// Allows a file; links are followed now.
    pub fn allow_file(&mut self, disk: &dyn Disk, file: &Path) -> Result<()> {
        self.files.push(disk.canonical(file)?);
        Ok(())
    }

    /// Allows all files in and below a folder; links in it that lead out of it are not followed.
    pub fn allow_folder(&mut self, disk: &dyn Disk, folder: &Path) -> Result<()> {
        self.folders.push(disk.canonical(folder)?);
        Ok(())
    }

    /// Files in a chain, the image included.
    pub fn set_depth(&mut self, depth: usize) {
        self.depth = depth;
    }

    /// See `set_depth`.
    pub fn depth(&self) -> usize {
        self.depth
    }

    /// The file that `image` calls `name`, if it may be opened: without links, so that what was checked is what is opened.
    /// `Unsupported` for what is no file name, `InvalidInput` for a file that is not allowed.
    pub(crate) fn resolve(
        &self,
        disk: &dyn Disk,
        image: &Path,
        name: &[u8],
        role: Role,
    ) -> Result<PathBuf> {
        let what = role.name();
        let shown = String::from_utf8_lossy(name);
        let name = file_name(name).map_err(|why| {
            let why = format!("the image names {shown:?} as its {what}: {why}");
            Error::new(ErrorKind::Unsupported, "opening the backing chain of")
                .detail(why)
                .at(image.display())
                .hint("make a copy that needs no other file, with `qemu-img convert` or `qemu-img rebase`")
        })?;
        let beside = disk.canonical(&image.parent().unwrap_or(Path::new("")).join(name));
        // QEMU takes names of data files from its own folder (10.0, observed), people from the image's.
        let found = match beside {
            Err(e) if e.kind() == ErrorKind::NotFound && role == Role::Data => disk.canonical(name),
            found => found,
        };
        let real = found.map_err(|e| {
            let why = format!("the image names {shown:?} as its {what}, which cannot be found");
            let error = Error::new(e.kind(), "opening the backing chain of");
            error.detail(why).at(image.display()).source(e)
        })?;
        let allowed =
            self.files.contains(&real) || self.folders.iter().any(|f| real.starts_with(f));
        if allowed {
            return Ok(real);
        }
        let why =
            format!("the image names {shown:?} as its {what}, which was not allowed to be opened");
        Err(Error::invalid("opening the backing chain of", why)
            .at(image.display())
            .hint(format!(
                "allow it with --allow-backing {} if the image is to be trusted with it",
                real.display()
            )))
    }
}

/// A plain file name, or why it is none. A colon before the first slash makes a protocol of it, as it does for QEMU.
fn file_name(name: &[u8]) -> std::result::Result<&Path, &'static str> {
    let name = name.strip_prefix(b"file:").unwrap_or(name);
    let before_slash = name.split(|b| *b == b'/').next().unwrap_or_default();
    if name.is_empty() {
        Err("that is no name")
    } else if name.contains(&0) {
        Err("a name does not have NUL in it")
    } else if name.starts_with(b"json:") {
        Err("descriptions in JSON are not followed")
    } else if before_slash.contains(&b':') {
        Err("only files are opened, no protocols")
    } else {
        Ok(Path::new(OsStr::from_bytes(name)))
    }
}
