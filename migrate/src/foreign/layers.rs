//! The files of an image that QEMU reads for us, from the image itself down its backing chain. Each is checked and locked here,
//! and QEMU is told of each by format and path, so that it follows no name, and guesses no format, by itself.

use super::extents;
use super::program::{path_text, run};
use crate::format::Format;
use crate::locked::Locked;
use crate::qcow2::{Encryption, Gate, Role, read_any_header};
use crate::take::LeftOut;
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use stillpoint_store::disk::{Disk, Stamp};
use stillpoint_store::{Error, ErrorKind, Result};

const DOING: &str = "opening the backing chain of";
/// What the passphrase is called in descriptions.
pub(super) const SECRET: &str = "secret0";

/// A file of the chain.
pub(super) struct Layer {
    pub path: PathBuf,
    file: Locked,
    format: String,
    data: Option<PathBuf>,
    encryption: Option<Encryption>,
    below: Option<Below>,
}

/// Name and format of a backing file, as the file above has them.
type Below = (Vec<u8>, Option<String>);

/// See the module.
pub(super) struct Layers<'a> {
    disk: &'a dyn Disk,
    gate: &'a Gate,
    objects: &'a [String],
    /// Never empty once it is open; the image is the first.
    pub chain: Vec<Layer>,
    /// All files that QEMU opens, locked.
    pub files: Vec<Locked>,
    met: Vec<(u64, u64)>,
    pub left_out: Vec<LeftOut>,
}

impl<'a> Layers<'a> {
    /// The image at `path`, which is `file`, and its chain as far as the gate lets it.
    pub fn open(
        disk: &'a dyn Disk,
        gate: &'a Gate,
        objects: &'a [String],
        image: (PathBuf, Locked, &str),
    ) -> Result<Self> {
        let mut all = Self {
            disk,
            gate,
            objects,
            chain: Vec::new(),
            files: Vec::new(),
            met: Vec::new(),
            left_out: Vec::new(),
        };
        let (path, file, format) = image;
        let mut next = Some((path, file, format.to_owned()));
        while let Some((path, file, format)) = next {
            let layer = all.layer(path, file, format)?;
            next = all.below(&layer)?;
            all.chain.push(layer);
        }
        Ok(all)
    }

    /// What QEMU is told of the chain from a layer on.
    pub fn description(&self, from: usize) -> Result<Value> {
        let mut below = Value::Null;
        for layer in self.chain[from..].iter().rev() {
            below = layer.description(below)?;
        }
        Ok(below)
    }

    /// Holds a file, and refuses one that is met again.
    fn hold(&mut self, path: &Path, file: &Locked) -> Result<()> {
        let inode = file.file().stamp()?.inode;
        if self.met.contains(&inode) {
            let why = "the file is in its own backing chain";
            return Err(Error::corrupt(DOING, why).at(path.display()));
        }
        if self.met.len() >= self.gate.depth() {
            let why = format!("the chain is longer than {} files", self.gate.depth());
            return Err(Error::new(ErrorKind::LimitExceeded, DOING)
                .detail(why)
                .at(path.display()));
        }
        self.met.push(inode);
        self.files.push(file.clone());
        Ok(())
    }

    fn layer(&mut self, path: PathBuf, file: Locked, format: String) -> Result<Layer> {
        self.hold(&path, &file)?;
        let mut layer = Layer {
            path,
            file,
            format,
            data: None,
            encryption: None,
            below: None,
        };
        match &*layer.format {
            "raw" => {}
            "qcow2" => self.read_qcow2(&mut layer)?,
            _ => {
                if layer.format == "vmdk" {
                    let file = layer.file.file();
                    let extents = extents::open(self.disk, &layer.path, &*file, self.gate)?;
                    self.files.extend(extents);
                }
                let info = self.inspect(&layer)?;
                let text = |key: &str| info[key].as_str().map(str::to_owned);
                let name = text("backing-filename").map(String::into_bytes);
                layer.below = name.map(|name| (name, text("backing-filename-format")));
            }
        }
        Ok(layer)
    }

    /// Our own reader says which other files it has.
    fn read_qcow2(&mut self, layer: &mut Layer) -> Result<()> {
        let (header, _) =
            read_any_header(&*layer.file.file()).map_err(|e| e.at(layer.path.display()))?;
        if let Some(name) = &header.data_file {
            let data = self
                .gate
                .resolve(self.disk, &layer.path, name, Role::Data)?;
            let file = Locked::open(self.disk, &data)?;
            self.hold(&data, &file)?;
            layer.data = Some(data);
        }
        let lossy = |format: Vec<u8>| String::from_utf8_lossy(&format).into_owned();
        layer.encryption = header.encryption;
        let format = header.backing_format.map(lossy);
        layer.below = header.backing.map(|name| (name, format));
        if self.chain.is_empty() {
            self.inspect(layer)?;
        }
        Ok(())
    }

    fn below(&self, above: &Layer) -> Result<Option<(PathBuf, Locked, String)>> {
        let Some((name, format)) = &above.below else {
            return Ok(None);
        };
        let path = self
            .gate
            .resolve(self.disk, &above.path, name, Role::Backing)?;
        let file = Locked::open(self.disk, &path)?;
        let format = match format.as_deref() {
            Some("file" | "host_device") => Format::Raw,
            Some(format) => Format::named(format).map_err(|e| e.at(path.display()))?,
            None => Format::detect(&*file.file())?,
        };
        Ok(Some((path, file, format.to_string())))
    }

    /// What qemu-img says of a layer alone.
    fn inspect(&mut self, layer: &Layer) -> Result<Value> {
        let mut arguments = vec!["info".to_owned(), "--output=json".to_owned()];
        arguments.extend(self.objects.iter().cloned());
        arguments.push(format!("json:{}", layer.description(Value::Null)?));
        let said = run("qemu-img", &arguments).map_err(|e| e.at(layer.path.display()))?;
        let info = serde_json::from_slice(&said)
            .map_err(|e| Error::new(ErrorKind::Io, "reading what qemu-img says").source(e))?;
        if self.chain.is_empty() {
            self.left_out = left_out(&info);
            if layer.encryption == Some(Encryption::Aes) {
                let why = "this encryption has no check of it, so that a wrong one is not noticed";
                self.left_out
                    .push(LeftOut::new("proof of the passphrase", why));
            }
        }
        Ok(info)
    }
}

impl Layer {
    /// Change marks of the file.
    pub fn stamp(&self) -> Result<Stamp> {
        self.file.file().stamp()
    }

    /// `below` is what QEMU is told of the backing file; null: to open none, whatever the image says.
    fn description(&self, below: Value) -> Result<Value> {
        let file = |path: &Path| {
            let name = path_text(path)?;
            Ok::<_, Error>(json!({ "driver": "file", "filename": name, "read-only": true }))
        };
        let mut all = json!({
            "driver": self.format,
            "read-only": true,
            "file": file(&self.path)?,
        });
        if self.format != "raw" {
            all["backing"] = below;
        }
        if let Some(data) = &self.data {
            all["data-file"] = file(data)?;
        }
        match self.encryption {
            _ if self.format == "luks" => all["key-secret"] = json!(SECRET),
            None => {}
            Some(Encryption::Luks) => {
                all["encrypt"] = json!({ "format": "luks", "key-secret": SECRET });
            }
            Some(Encryption::Aes) => {
                all["encrypt"] = json!({ "format": "aes", "key-secret": SECRET });
            }
        }
        Ok(all)
    }
}

/// What the image has besides its bytes.
fn left_out(info: &Value) -> Vec<LeftOut> {
    let count = info["snapshots"].as_array().map_or(0, Vec::len);
    let mut left_out = Vec::new();
    if count > 0 {
        let why = format!("{count} internal snapshots, which are not read through qemu-nbd");
        left_out.push(LeftOut::new("snapshots", why));
    }
    let bitmaps = &info["format-specific"]["data"]["bitmaps"];
    for bitmap in bitmaps.as_array().into_iter().flatten() {
        let why = format!("{}: the next backup starts anew", bitmap["name"]);
        left_out.push(LeftOut::new("bitmap", why));
    }
    if info["encrypted"].as_bool() == Some(true) {
        let why = "the store's packs are not encrypted";
        left_out.push(LeftOut::new("encryption", why));
    }
    left_out
}
