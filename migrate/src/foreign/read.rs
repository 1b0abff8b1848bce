//! Images in: a private qemu-nbd opens one, and is gone when we are.

use super::disk::Disk as NbdDisk;
use super::extents;
use super::program::{description, path_text, run};
use crate::format::Format;
use crate::locked::Locked;
use crate::qcow2::{Gate, Image, Role};
use crate::read_only::ReadOnly;
use crate::take::LeftOut;
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
    disk: NbdDisk,
    files: Vec<Locked>,
}

/// Opens the image, which is locked as `file`, as one state: what of it cannot be read is told, or refused.
pub(crate) fn open(
    disk: &dyn Disk,
    path: &Path,
    file: Locked,
    format: &str,
    gate: &Gate,
    secret: Option<&Path>,
) -> Result<(Box<dyn History>, Vec<LeftOut>)> {
    let path = disk.canonical(path)?;
    let secret_file = secret.map(|s| disk.canonical(s)).transpose()?;
    let needs = matches!(format, "luks" | "qcow2");
    if needs && secret_file.is_none() {
        return Err(Error::new(ErrorKind::Unsupported, DOING)
            .at(path.display())
            .detail("it is encrypted")
            .hint("give a file with the passphrase: --secret-file FILE"));
    }
    let secret_id = secret_file.as_ref().map(|_| "secret0");
    let mut description = description(&path, format, secret_id)?;
    let objects = match &secret_file {
        None => Vec::new(),
        Some(file) => {
            let secret = json!({ "qom-type": "secret", "id": "secret0", "file": path_text(file)? });
            vec!["--object".to_owned(), secret.to_string()]
        }
    };
    let mut chain = Chain {
        disk,
        gate,
        files: vec![(path.clone(), file)],
        left_out: Vec::new(),
    };
    let based = chain.check(format, &description, &objects)?;
    if based && let Some(fields) = description.as_object_mut() {
        // All files that it leads to were checked: QEMU may follow it.
        fields.remove("backing");
    }
    let description = format!("json:{description}");
    let connected = connect(&path, &description, &objects)?;
    let Chain {
        files, left_out, ..
    } = chain;
    let files = files.into_iter().map(|(_, file)| file).collect();
    Ok((
        Box::new(Foreign {
            disk: connected,
            files,
        }),
        left_out,
    ))
}

/// A backing file of a qcow2 image, as a raw file: through qemu-nbd. What that is based on is refused.
pub(crate) fn open_backing(
    disk: &dyn Disk,
    path: &Path,
    file: Locked,
    format: &str,
    gate: &Gate,
) -> Result<Box<dyn DiskFile>> {
    let description = description(path, format, None)?;
    let mut chain = Chain {
        disk,
        gate,
        files: vec![(path.to_owned(), file)],
        left_out: Vec::new(),
    };
    if chain.check(format, &description, &[])? {
        return Err(Error::new(ErrorKind::Unsupported, DOING)
            .at(path.display())
            .detail("it is a backing file and has one of its own")
            .hint("make a copy that needs no other file, with `qemu-img convert -O qcow2`"));
    }
    let connected = connect(path, &format!("json:{description}"), &[])?;
    Ok(Box::new(ReadOnly(connected)))
}

/// The files that QEMU would open with an image, each locked.
struct Chain<'a> {
    disk: &'a dyn Disk,
    gate: &'a Gate,
    files: Vec<(PathBuf, Locked)>,
    left_out: Vec<LeftOut>,
}

impl Chain<'_> {
    /// Sees that all files which the one of the chain leads to may be opened; whether there are any.
    fn check(&mut self, format: &str, description: &Value, objects: &[String]) -> Result<bool> {
        let (mut format, mut description) = (format.to_owned(), description.clone());
        loop {
            let Some((path, file)) = self.files.last().cloned() else {
                return Ok(false);
            };
            if format == "vmdk" {
                extents::check(self.disk, &path, &*file.file(), self.gate)?;
            }
            let info = inspect(&path, &format!("json:{description}"), objects)?;
            if self.files.len() == 1 {
                self.left_out = left_out(&info);
            }
            let Some(name) = info["backing-filename"].as_str() else {
                return Ok(self.files.len() > 1);
            };
            let next = self.open(&path, name)?;
            let said = info["backing-filename-format"].as_str().map(str::to_owned);
            format = match said {
                Some(format) => format,
                None => Format::detect(&*next.file())?.to_string(),
            };
            let (path, _) = &self.files[self.files.len() - 1];
            match &*format {
                "raw" | "file" => return Ok(true),
                // The rest of the chain is opened once by us, and so checked.
                "qcow2" => {
                    Image::open(self.disk, path, self.gate)?;
                    return Ok(true);
                }
                format => description = super::program::description(path, format, None)?,
            }
        }
    }

    fn open(&mut self, from: &Path, name: &str) -> Result<Locked> {
        const DOING: &str = "opening the backing chain of";
        let path = self
            .gate
            .resolve(self.disk, from, name.as_bytes(), Role::Backing)?;
        if self.files.iter().any(|(met, _)| *met == path) {
            let why = "the file is in its own backing chain";
            return Err(Error::corrupt(DOING, why).at(path.display()));
        }
        if self.files.len() >= self.gate.depth() {
            let why = format!("the chain is longer than {} files", self.gate.depth());
            return Err(Error::new(ErrorKind::LimitExceeded, DOING).detail(why));
        }
        let file = Locked::open(self.disk, &path)?;
        self.files.push((path, file.clone()));
        Ok(file)
    }
}

/// What qemu-img says of an image that it opens alone.
fn inspect(path: &Path, description: &str, objects: &[String]) -> Result<Value> {
    let mut arguments = vec!["info".to_owned(), "--output=json".to_owned()];
    arguments.extend(objects.iter().cloned());
    arguments.push(description.to_owned());
    let said = run("qemu-img", &arguments).map_err(|e| e.at(path.display()))?;
    serde_json::from_slice(&said)
        .map_err(|e| Error::new(ErrorKind::Io, "reading what qemu-img says").source(e))
}

/// What the image has besides its bytes.
fn left_out(info: &Value) -> Vec<LeftOut> {
    let count = info["snapshots"].as_array().map_or(0, Vec::len);
    let mut left_out = Vec::new();
    if count > 0 {
        let why = format!("{count} internal snapshots, which are not read through qemu-nbd");
        left_out.push(LeftOut::new("snapshots", why));
    }
    if info["encrypted"].as_bool() == Some(true) {
        let why = "the store's packs are not encrypted";
        left_out.push(LeftOut::new("encryption", why));
    }
    if info["backing-filename"].is_string() {
        left_out.push(LeftOut::new("backing chain", "its files became one disk"));
    }
    left_out
}

/// Starts qemu-nbd on a socket that nobody else reaches and connects to it. It ends with its last connection.
fn connect(path: &Path, description: &str, objects: &[String]) -> Result<NbdDisk> {
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
    arguments.push(description.to_owned());
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
        &[]
    }

    fn disk(&self, _: usize) -> Result<Box<dyn DiskFile + '_>> {
        Ok(Box::new(ReadOnly(&self.disk)))
    }

    fn vm_state(&self, _: usize) -> Result<Option<Box<dyn DiskFile + '_>>> {
        Ok(None)
    }

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
