//! Any image as a history that the engine takes in, and what of it cannot be taken.

use crate::foreign;
use crate::format::Format;
use crate::locked::Locked;
use crate::qcow2::{ChainMode, Gate, Image, Past, Snapshot, read_any_header};
use crate::raw::Raw;
use std::path::{Path, PathBuf};
use stillpoint_store::disk::Disk;
use stillpoint_store::history::History;
use stillpoint_store::{Error, ErrorKind, Result};

/// Which of an image's own snapshots.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Wanted {
    /// Every one.
    #[default]
    All,
    /// None.
    None,
    /// Those of a name, or of an id where it says `id:`; `name:` before a name makes any name possible.
    Named(Vec<String>),
}

/// How an image is read.
#[derive(Debug, Clone)]
pub struct Options {
    /// Its format; by default what its bytes say.
    pub format: Option<Format>,
    /// Its own snapshots to take.
    pub snapshots: Wanted,
    /// What becomes of its backing chain.
    pub chain: ChainMode,
    /// Which other files it may name.
    pub gate: Gate,
    /// A file with the passphrase of an encrypted image.
    pub secret: Option<PathBuf>,
}

/// Something that an image has and a store does not take.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LeftOut {
    /// What.
    pub what: &'static str,
    /// Which, and why.
    pub why: String,
}

/// An image that is open and locked.
pub struct Opened {
    /// What is in it.
    pub history: Box<dyn History>,
    /// What it is.
    pub format: Format,
    /// What is not taken.
    pub left_out: Vec<LeftOut>,
}

impl LeftOut {
    pub(crate) fn new(what: &'static str, why: impl Into<String>) -> Self {
        let why = why.into();
        Self { what, why }
    }
}

/// Opens an image and what belongs to it, as far as the gate lets it.
pub fn open(disk: &dyn Disk, path: &Path, options: &Options) -> Result<Opened> {
    let file = Locked::open(disk, path)?;
    let format = match options.format {
        Some(format) => format,
        None => Format::detect(&*file.file())?,
    };
    let (history, left_out): (Box<dyn History>, _) = match format {
        Format::Qcow2 if options.secret.is_some() && is_encrypted(&file)? => {
            options.snapshots.choose(&path.display().to_string(), &[])?;
            foreign::open(disk, path, file, "qcow2", options)?
        }
        Format::Qcow2 => {
            let image = Image::open(disk, path, &options.gate)?;
            let (past, left_out) = Past::new(image, &options.snapshots, options.chain)?;
            (Box::new(past), left_out)
        }
        Format::Raw => {
            options.snapshots.choose(&path.display().to_string(), &[])?;
            (Box::new(Raw(file)), Vec::new())
        }
        Format::Foreign(name) => {
            options.snapshots.choose(&path.display().to_string(), &[])?;
            foreign::open(disk, path, file, name, options)?
        }
    };
    Ok(Opened {
        history,
        format,
        left_out,
    })
}

fn is_encrypted(file: &Locked) -> Result<bool> {
    let (header, _) = read_any_header(&*file.file())?;
    Ok(header.encryption.is_some())
}

impl Wanted {
    /// Places in a snapshot table, in its order. `NotFound` for what no snapshot is called.
    pub(crate) fn choose(&self, image: &str, table: &[Snapshot]) -> Result<Vec<usize>> {
        let names = match self {
            Self::All => return Ok((0..table.len()).collect()),
            Self::None => return Ok(Vec::new()),
            Self::Named(names) => names,
        };
        let is = |snapshot: &Snapshot, name: &str| match name.split_once(':') {
            Some(("id", id)) => snapshot.id == id.as_bytes(),
            Some(("name", name)) => snapshot.name == name.as_bytes(),
            _ => snapshot.name == name.as_bytes(),
        };
        for name in names {
            if !table.iter().any(|s| is(s, name)) {
                let error = Error::new(ErrorKind::NotFound, "choosing snapshots of the image");
                return Err(error
                    .at(image)
                    .detail(format!("it has no snapshot {name}"))
                    .hint("`qemu-img snapshot -l` lists them"));
            }
        }
        let wanted = |n: &usize| names.iter().any(|name| is(&table[*n], name));
        Ok((0..table.len()).filter(wanted).collect())
    }
}
