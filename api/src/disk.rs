//! A disk written out of the store.

use crate::system::System;
use std::io::Write;
use std::path::{Path, PathBuf};
use stillpoint_store::disk::{FileKind, OpenMode};
use stillpoint_store::format::entry::Content;
use stillpoint_store::image::{Access, Image};
use stillpoint_store::progress::Progress;
use stillpoint_store::{Error, ErrorKind, Result};

/// Where a disk goes.
pub enum Output<'a> {
    /// A file that is not there yet, or a block device that is overwritten.
    File(&'a Path),
    /// A stream, holes as zeros.
    Stream(&'a mut dyn Write),
}

/// What was written.
#[derive(Debug, Clone, Copy)]
pub struct Exported {
    /// The disk.
    pub content: Content,
}

impl System {
    /// Writes the snapshot, or the present contents of a device without an image. A file appears under its name when it
    /// is whole and durable; an error leaves none.
    pub fn export(
        &self,
        reference: &str,
        output: Output<'_>,
        progress: &Progress,
    ) -> Result<Exported> {
        let content = self.resolve(reference)?.0;
        match output {
            Output::Stream(out) => self.store.restore_stream(content, out, progress)?,
            Output::File(path) => match self.disk.kind(path) {
                Ok(FileKind::BlockDevice) => self.export_device(content, path, progress)?,
                Ok(_) => {
                    return Err(Error::new(ErrorKind::AlreadyExists, "exporting to")
                        .at(path.display())
                        .detail("there is something already")
                        .hint("nothing is overwritten: remove it first, or choose another name"));
                }
                Err(e) if e.kind() == ErrorKind::NotFound => {
                    self.export_file(content, path, progress)?
                }
                Err(e) => return Err(e),
            },
        }
        Ok(Exported { content })
    }

    fn export_file(&self, content: Content, path: &Path, progress: &Progress) -> Result<()> {
        let part = part_of(path);
        let file = self.disk.open(&part, OpenMode::CreateNew).map_err(|e| {
            if e.kind() == ErrorKind::AlreadyExists {
                e.hint("an export that was cut off left it, or one is under way; remove it if not")
            } else {
                e
            }
        })?;
        let written = self
            .store
            .restore_file(content, &*file, progress)
            .and_then(|()| {
                if self.disk.link(&part, path)? {
                    return Ok(());
                }
                Err(Error::new(ErrorKind::AlreadyExists, "exporting to")
                    .at(path.display())
                    .detail("it appeared meanwhile"))
            });
        // ORDER: contents durable (in restore_file), the name, the folder.
        self.disk.remove(&part)?;
        written?;
        let folder = path
            .parent()
            .filter(|p| !p.as_os_str().is_empty())
            .unwrap_or(Path::new("."));
        self.disk.sync_folder(folder)
    }

    fn export_device(&self, content: Content, path: &Path, progress: &Progress) -> Result<()> {
        let image = Image::open(&*self.disk, path, Access::Write)?;
        if image.size() < content.size {
            let why = format!(
                "the device has {} bytes, the disk {}",
                image.size(),
                content.size
            );
            return Err(Error::invalid("exporting to", why).at(path.display()));
        }
        self.store.restore_over(content, image.file(), progress)
    }
}

/// `<name>.part` beside it.
fn part_of(path: &Path) -> PathBuf {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".part");
    path.with_file_name(name)
}
