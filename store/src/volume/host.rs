//! What this host keeps for volumes: its name in their records, a folder and a lock for each.

use super::overlay::PART;
use crate::disk::{Disk, DiskFile, FileKind, OpenMode};
use crate::error::{Error, ErrorKind, Result};
use crate::format::overlay::OverlayName;
use crate::id::{Uid, parse_hex};
use crate::store::Store;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Somebody may make or remove a lock file between two steps; this often in a row nobody does by accident.
const TRIES: u32 = 8;

/// See the module.
pub struct Host {
    /// Where it all is.
    pub disk: Arc<dyn Disk>,
    folder: PathBuf,
}

impl Host {
    /// Of the store's `local` folder.
    pub fn of(store: &Store) -> Result<Self> {
        let local = store.local.folder().ok_or_else(|| {
            Error::new(ErrorKind::Unsupported, "using volumes")
                .at(store.describe())
                .detail("this store has no folder of its own on this host")
        })?;
        Ok(Self {
            disk: local.disk,
            folder: local.path,
        })
    }

    /// The host's name; `None` while it has none.
    pub fn id(&self) -> Result<Option<Uid>> {
        let path = self.folder.join("id");
        let file = match self.disk.open(&path, OpenMode::Read) {
            Err(e) if e.kind() == ErrorKind::NotFound => return Ok(None),
            file => file?,
        };
        let mut bytes = [0; 64];
        let n = file.read_at(0, &mut bytes)?;
        let text = std::str::from_utf8(&bytes[..n]).unwrap_or_default();
        let id = parse_hex(text.trim_end_matches('\n')).ok_or_else(|| {
            Error::corrupt("reading this host's id", "it is not 32 hex digits").at(path.display())
        })?;
        Ok(Some(Uid(id)))
    }

    /// The host's name, made from `random` where there is none; durable.
    pub fn id_or_new(&self, random: &mut dyn FnMut() -> Uid) -> Result<Uid> {
        let path = self.folder.join("id");
        for _ in 0..TRIES {
            if let Some(id) = self.id()? {
                return Ok(id);
            }
            let new = random();
            let part = self.folder.join(format!("id.{new}"));
            self.disk.create_folders(&self.folder)?;
            let file = self.disk.open(&part, OpenMode::CreateNew)?;
            let made = file
                .write_at(0, format!("{new}\n").as_bytes())
                .and_then(|()| file.sync())
                .and_then(|()| self.disk.link(&part, &path));
            self.disk.remove(&part)?;
            made?;
            self.disk.sync_folder(&self.folder)?;
        }
        Err(Error::new(ErrorKind::Busy, "naming this host").at(path.display()))
    }

    fn volumes(&self) -> PathBuf {
        self.folder.join("volumes")
    }

    /// The folder of a volume.
    pub fn folder_of(&self, volume: &Uid) -> PathBuf {
        self.volumes().join(volume.to_string())
    }

    /// The file of an overlay.
    pub fn path_of(&self, name: &OverlayName) -> PathBuf {
        let file = format!("{}-{}", name.generation, name.n);
        self.folder_of(&name.volume).join(file)
    }

    /// Takes the lock of a volume, making its folder, whose name is durable then. `Busy` while another process has it.
    pub fn lock(&self, volume: &Uid) -> Result<Box<dyn DiskFile>> {
        let folder = self.folder_of(volume);
        let path = folder.join("lock");
        for _ in 0..TRIES {
            self.make_folder(&folder)?;
            let file = match self.disk.open(&path, OpenMode::Write) {
                Err(e) if e.kind() == ErrorKind::NotFound => {
                    match self.disk.open(&path, OpenMode::CreateNew) {
                        Err(e)
                            if matches!(
                                e.kind(),
                                ErrorKind::AlreadyExists | ErrorKind::NotFound
                            ) =>
                        {
                            continue;
                        }
                        file => file?,
                    }
                }
                file => file?,
            };
            if !file.try_lock()? {
                break;
            }
            // A volume that was removed takes its lock file along.
            if file.is_still_named()? {
                return Ok(file);
            }
        }
        Err(Error::new(ErrorKind::Busy, "opening a volume")
            .at(folder.display())
            .detail("another process has it open")
            .hint("end the server or command that uses it, then try again"))
    }

    fn make_folder(&self, folder: &Path) -> Result<()> {
        let is_new = !matches!(self.disk.kind(folder), Ok(FileKind::Folder));
        if is_new {
            self.disk.create_folders(folder)?;
        }
        // ORDER: what lies in a folder is as durable as the folder's own name. Of one that is there too: whoever made it may have
        // been killed before this.
        let synced = self
            .disk
            .sync_folder(&self.volumes())
            .and_then(|()| self.disk.sync_folder(&self.folder));
        if is_new && synced.is_err() {
            // A later sync need not make durable what this one was to: the next try makes it anew.
            self.disk.remove_folder(folder).unwrap_or_default();
        }
        synced
    }

    /// Generations and numbers of the overlays that are there, sorted.
    pub fn overlays(&self, volume: &Uid) -> Result<Vec<(u64, u64)>> {
        let names = self.disk.list(&self.folder_of(volume))?;
        let mut found: Vec<_> = names.iter().filter_map(|name| parse(name)).collect();
        found.sort_unstable();
        Ok(found)
    }

    /// Volumes that have a folder.
    pub fn with_folder(&self) -> Result<Vec<Uid>> {
        let names = self.disk.list(&self.volumes())?;
        Ok(names
            .iter()
            .filter_map(|name| parse_hex(name).map(Uid))
            .collect())
    }

    /// Removes overlays that were not made to their end. Under the volume's lock.
    pub fn remove_parts(&self, volume: &Uid) -> Result<()> {
        let folder = self.folder_of(volume);
        for name in self.disk.list(&folder)? {
            let path = folder.join(name);
            if path.extension().is_some_and(|e| e == PART) {
                self.disk.remove(&path)?;
            }
        }
        Ok(())
    }

    /// Removes files of overlays; nobody needs to know when.
    pub fn remove(&self, paths: &[PathBuf]) -> Result<()> {
        paths.iter().try_for_each(|path| self.disk.remove(path))
    }

    /// The same for what nobody reads any more: what cannot be removed now is so when its volume is opened next.
    pub fn remove_sometime(&self, paths: &[PathBuf]) {
        for path in paths {
            self.disk.remove(path).unwrap_or_default();
        }
    }

    /// Removes the folder of a volume that is no more, whose lock the caller holds.
    pub fn remove_folder(&self, volume: &Uid) -> Result<()> {
        let folder = self.folder_of(volume);
        for name in self.disk.list(&folder)? {
            if name != "lock" {
                self.disk.remove(&folder.join(name))?;
            }
        }
        // ORDER: last, so that nobody takes what is left for a volume that lost its overlays.
        self.disk.remove(&folder.join("lock"))?;
        self.disk.remove_folder(&folder)
    }
}

fn parse(name: &str) -> Option<(u64, u64)> {
    let (generation, n) = name.split_once('-')?;
    let number = |text: &str| {
        let number = text.parse::<u64>().ok()?;
        (number.to_string() == text).then_some(number)
    };
    Some((number(generation)?, number(n)?))
}
