//! Images in: a private qemu-nbd opens one, and is gone when we are.

use super::disk::Disk as NbdDisk;
use super::extents;
use super::program::{description, path_text, run};
use crate::locked::Locked;
use crate::qcow2::Gate;
use crate::read_only::ReadOnly;
use crate::take::LeftOut;
use serde_json::{Value, json};
use std::path::Path;
use stillpoint_nbd::BASE_ALLOCATION;
use stillpoint_nbd::client::{Client, Options};
use stillpoint_store::disk::{Disk, DiskFile};
use stillpoint_store::history::{Earlier, History, Ranges};
use stillpoint_store::{Error, ErrorKind, Result};

const DOING: &str = "reading the image";

/// An image that qemu-nbd has open.
struct Foreign {
    disk: NbdDisk,
    file: Locked,
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
    if format == "vmdk" {
        extents::check(disk, &path, &*file.file(), gate)?;
    }
    let secret_file = secret.map(|s| disk.canonical(s)).transpose()?;
    let needs = matches!(format, "luks" | "qcow2");
    if needs && secret_file.is_none() {
        return Err(Error::new(ErrorKind::Unsupported, DOING)
            .at(path.display())
            .detail("it is encrypted")
            .hint("give a file with the passphrase: --secret-file FILE"));
    }
    let secret_id = secret_file.as_ref().map(|_| "secret0");
    let description = format!("json:{}", description(&path, format, secret_id)?);
    let objects = match &secret_file {
        None => Vec::new(),
        Some(file) => {
            let secret = json!({ "qom-type": "secret", "id": "secret0", "file": path_text(file)? });
            vec!["--object".to_owned(), secret.to_string()]
        }
    };
    let left_out = inspect(&path, &description, &objects)?;
    let connected = connect(&path, &description, &objects)?;
    Ok((
        Box::new(Foreign {
            disk: connected,
            file,
        }),
        left_out,
    ))
}

/// What the image has besides its bytes; a backing file is refused.
fn inspect(path: &Path, description: &str, objects: &[String]) -> Result<Vec<LeftOut>> {
    let mut arguments = vec!["info".to_owned(), "--output=json".to_owned()];
    arguments.extend(objects.iter().cloned());
    arguments.push(description.to_owned());
    let said = run("qemu-img", &arguments).map_err(|e| e.at(path.display()))?;
    let info: Value = serde_json::from_slice(&said)
        .map_err(|e| Error::new(ErrorKind::Io, "reading what qemu-img says").source(e))?;
    if let Some(name) = info["backing-filename"].as_str() {
        return Err(Error::new(ErrorKind::Unsupported, DOING)
            .at(path.display())
            .detail(format!(
                "it is based on {name:?}, and only chains of qcow2 and raw are read"
            ))
            .hint("make a copy that needs no other file, with `qemu-img convert -O qcow2`"));
    }
    let count = info["snapshots"].as_array().map_or(0, Vec::len);
    let mut left_out = Vec::new();
    if count > 0 {
        let why = format!("{count} internal snapshots, which are not read through qemu-nbd");
        left_out.push(LeftOut::new("snapshots", why));
    }
    if info["encrypted"].as_bool() == Some(true) {
        left_out.push(LeftOut::new(
            "encryption",
            "the store's packs are not encrypted",
        ));
    }
    Ok(left_out)
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
        self.file.check_unchanged()
    }
}
