//! Images in: a private qemu-nbd opens one, and is gone when we are.

use super::disk::Disk as NbdDisk;
use super::layers::{Layers, SECRET};
use super::program::{path_text, run};
use crate::locked::Locked;
use crate::qcow2::{ChainMode, Gate, name_of_file};
use crate::read_only::ReadOnly;
use crate::take::{LeftOut, Options as Wanted};
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use stillpoint_nbd::BASE_ALLOCATION;
use stillpoint_nbd::client::{Client, Options};
use stillpoint_store::disk::{Disk, DiskFile};
use stillpoint_store::history::{Earlier, History, Ranges};
use stillpoint_store::{Error, ErrorKind, Result};

const DOING: &str = "reading the image";

/// An image that qemu-nbd has open.
struct Foreign {
    /// The image with all of its chain.
    disk: NbdDisk,
    /// What the files below it make, the lowest first; opened when they are wanted.
    below: Vec<Below>,
    earlier: Vec<Earlier>,
    objects: Vec<String>,
    files: Vec<Locked>,
}

struct Below {
    path: PathBuf,
    description: Value,
}

/// Opens the image, which is locked as `file`: as one state, or as one a file of its chain. What cannot be read is told, or
/// refused.
pub(crate) fn open(
    disk: &dyn Disk,
    path: &Path,
    file: Locked,
    format: &str,
    wanted: &Wanted,
) -> Result<(Box<dyn History>, Vec<LeftOut>)> {
    let path = disk.canonical(path)?;
    let secret = wanted.secret.as_deref();
    if format == "luks" && secret.is_none() {
        return Err(Error::new(ErrorKind::Unsupported, DOING)
            .at(path.display())
            .detail("it is encrypted")
            .hint("give a file with the passphrase: --secret-file FILE"));
    }
    let objects = objects(disk, secret)?;
    let image = (path.clone(), file, format);
    let layers = Layers::open(disk, &wanted.gate, &objects, image)?;
    let mut left_out = layers.left_out.clone();
    let (mut below, mut earlier) = (Vec::new(), Vec::new());
    let count = layers.chain.len();
    if wanted.chain == ChainMode::Snapshots {
        for n in (1..count).rev() {
            let layer = &layers.chain[n];
            earlier.push(name_of_file(&layer.path, &layer.stamp()?, &earlier));
            below.push(Below {
                path: layer.path.clone(),
                description: layers.description(n)?,
            });
        }
    } else if count > 1 {
        let why = format!("{count} files became one disk");
        left_out.push(LeftOut::new("backing chain", why));
    }
    let foreign = Foreign {
        disk: connect(&path, &layers.description(0)?, &objects)?,
        below,
        earlier,
        files: layers.files,
        objects: objects.clone(),
    };
    Ok((Box::new(foreign), left_out))
}

/// What programs are told of the file with the passphrase.
pub(super) fn objects(disk: &dyn Disk, secret: Option<&Path>) -> Result<Vec<String>> {
    let Some(file) = secret else {
        return Ok(Vec::new());
    };
    let file = disk.canonical(file)?;
    let secret = json!({ "qom-type": "secret", "id": SECRET, "file": path_text(&file)? });
    Ok(vec!["--object".to_owned(), secret.to_string()])
}

/// A backing file of a qcow2 image, as a raw file: through qemu-nbd. What that is based on is refused. With it the files
/// that QEMU has open for it, but for its own.
pub(crate) fn open_backing(
    disk: &dyn Disk,
    path: &Path,
    file: Locked,
    format: &str,
    gate: &Gate,
) -> Result<(Box<dyn DiskFile>, Vec<Locked>)> {
    let image = (path.to_owned(), file, format);
    let mut layers = Layers::open(disk, gate, &[], image)?;
    if layers.chain.len() > 1 {
        return Err(Error::new(ErrorKind::Unsupported, DOING)
            .at(path.display())
            .detail("it is a backing file and has one of its own")
            .hint("make a copy that needs no other file, with `qemu-img convert -O qcow2`"));
    }
    let connected = connect(path, &layers.description(0)?, &[])?;
    let extents = layers.files.split_off(1);
    Ok((Box::new(ReadOnly(connected)), extents))
}

/// Starts qemu-nbd on a socket that nobody else reaches and connects to it. It ends with its last connection.
fn connect(path: &Path, description: &Value, objects: &[String]) -> Result<NbdDisk> {
    let failed = |e| Error::io("making a private folder", e);
    let folder = tempfile::tempdir().map_err(failed)?;
    let socket = folder.path().join("s");
    let mut arguments = vec![
        "--read-only".to_owned(),
        // It returns when it listens, and goes on behind.
        "--fork".to_owned(),
        "--shared=1".to_owned(),
        format!("--socket={}", path_text(&socket)?),
    ];
    arguments.extend(objects.iter().cloned());
    arguments.push(format!("json:{description}"));
    run("qemu-nbd", &arguments).map_err(|e| e.at(path.display()))?;
    let nbd = |e| Error::new(ErrorKind::Io, "connecting to qemu-nbd").source(e);
    let client = Client::connect_unix(&socket, Options::default()).map_err(nbd)?;
    let connection = client.go("", &[BASE_ALLOCATION]).map_err(nbd)?;
    Ok(NbdDisk {
        maps: !connection.contexts().is_empty(),
        connection,
        image: path.display().to_string(),
    })
}

impl History for Foreign {
    fn earlier(&self) -> &[Earlier] {
        &self.earlier
    }

    fn disk(&self, state: usize) -> Result<Box<dyn DiskFile + '_>> {
        Ok(match self.below.get(state) {
            Some(below) => {
                let disk = connect(&below.path, &below.description, &self.objects)?;
                Box::new(ReadOnly(disk))
            }
            None => Box::new(ReadOnly(&self.disk)),
        })
    }

    fn vm_state(&self, _: usize) -> Result<Option<Box<dyn DiskFile + '_>>> {
        Ok(None)
    }

    /// QEMU could say what a file has of its own, but not by all versions alike: each state is read whole, and stored once.
    fn base(&self, _: usize) -> Result<Option<usize>> {
        Ok(None)
    }

    fn changes(&self, _: usize, _: usize) -> Result<Ranges<'_>> {
        Ok(Box::new(std::iter::empty()))
    }

    fn check_unchanged(&self) -> Result<()> {
        self.files.iter().try_for_each(Locked::check_unchanged)
    }
}
