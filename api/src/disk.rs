//! A disk written out of the store.

use crate::commit::TRIES;
use crate::system::System;
use std::io::Write;
use std::path::{Path, PathBuf};
use stillpoint_store::disk::{DiskFile, FileKind, OpenMode};
use stillpoint_store::format::entry::Content;
use stillpoint_store::image::{Access, Image};
use stillpoint_store::ops::restore::Restored;
use stillpoint_store::progress::Progress;
use stillpoint_store::volume::Volumes;
use stillpoint_store::{Error, ErrorKind, Result};

/// Where a disk goes.
pub enum Output<'a> {
    /// A file that is not there yet, or a block device that is overwritten.
    File(&'a Path),
    /// A stream, holes as zeros.
    Stream(&'a mut dyn Write),
}

/// What becomes of the file that an export left when it was cut off.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Begin {
    /// It is written on.
    WhereItWas,
    /// Nothing: another one is written.
    Anew,
}

/// What was written.
#[derive(Debug, Clone, Copy)]
pub struct Exported {
    /// The disk.
    pub content: Content,
    /// Bytes that an export that was cut off had written.
    pub kept: u64,
    /// Bytes written, zeros included and holes not; of a stream all.
    pub written: u64,
}

impl System {
    /// Writes the snapshot, or the present contents of a device without an image; what was written to a volume is stored
    /// first. A file appears under its name when it is whole and durable; an error leaves none. One that is stopped, or whose
    /// process dies, leaves `<file>.still-part`, which the next export to that name takes up: clusters that have their
    /// hashes there are not written again.
    pub fn export(
        &self,
        reference: &str,
        output: Output<'_>,
        progress: &Progress,
    ) -> Result<Exported> {
        let content = self.present(None, reference, progress)?;
        self.export_content(content, output, progress)
    }

    /// The same through volumes that are open.
    pub fn export_on(
        &self,
        volumes: &Volumes<'_>,
        reference: &str,
        output: Output<'_>,
        progress: &Progress,
    ) -> Result<Exported> {
        let content = self.present(Some(volumes), reference, progress)?;
        self.export_content(content, output, progress)
    }

    /// The same of contents that a snapshot or head names now.
    pub fn export_content(
        &self,
        content: Content,
        output: Output<'_>,
        progress: &Progress,
    ) -> Result<Exported> {
        let mut done = Restored::default();
        match output {
            Output::Stream(out) => {
                self.store.restore_stream(content, out, progress)?;
                done.written = content.size;
            }
            Output::File(path) => match self.disk.kind(path) {
                Ok(FileKind::BlockDevice) => done = self.export_device(content, path, progress)?,
                Ok(FileKind::Folder) => {
                    return Err(Error::invalid("exporting to", "it is a folder")
                        .at(path.display())
                        .hint("name a new file in it"));
                }
                Ok(FileKind::Fifo | FileKind::Socket | FileKind::Other) => {
                    return Err(Error::invalid(
                        "exporting to",
                        "it is no file and no block device",
                    )
                    .at(path.display())
                    .hint("with - for the file the image goes to standard output"));
                }
                Ok(FileKind::File) => return Err(exists(path)),
                Err(e) if e.kind() == ErrorKind::NotFound => {
                    done = self.export_file(content, path, progress)?;
                }
                Err(e) => return Err(e),
            },
        }
        Ok(Exported {
            content,
            kept: done.kept,
            written: done.written,
        })
    }

    fn export_file(&self, content: Content, path: &Path, progress: &Progress) -> Result<Restored> {
        let mut done = Restored::default();
        self.write_file(path, Begin::WhereItWas, &mut |file, _| {
            done = self.store.restore_file(content, file, progress)?;
            Ok(())
        })?;
        Ok(done)
    }

    /// Lets `write` fill a file that is then called `path`, where nothing must be: all of it, durable, or none. `write` is told
    /// the name that the file has meanwhile, and makes its contents durable. With `Begin::WhereItWas` it finds in it what a
    /// call that was stopped or whose process died has left; else it is empty.
    pub fn write_new(
        &self,
        path: &Path,
        begin: Begin,
        write: &mut dyn FnMut(&dyn DiskFile, &Path) -> Result<()>,
    ) -> Result<()> {
        match self.disk.kind(path) {
            Err(e) if e.kind() == ErrorKind::NotFound => self.write_file(path, begin, write),
            Err(e) => Err(e),
            Ok(FileKind::File) => Err(exists(path)),
            Ok(_) => Err(
                Error::invalid("exporting to", "only a new file can be of this format")
                    .at(path.display())
                    .hint("name a file that is not there yet, or export as raw"),
            ),
        }
    }

    fn write_file(
        &self,
        path: &Path,
        begin: Begin,
        write: &mut dyn FnMut(&dyn DiskFile, &Path) -> Result<()>,
    ) -> Result<()> {
        let folder = path
            .parent()
            .filter(|p| !p.as_os_str().is_empty())
            .unwrap_or(Path::new("."));
        if let Err(e) = self.disk.kind(folder) {
            return Err(e.hint("make the folder first"));
        }
        let (part, file, found) = match begin {
            Begin::WhereItWas => {
                let part = part_of(path, "part");
                let (file, found) = self.create_part(&part)?;
                (part, file, found)
            }
            Begin::Anew => {
                self.remove_dead(folder, path);
                let (part, file) = self.create_tmp(path)?;
                (part, file, false)
            }
        };
        let written = write(&*file, &part).and_then(|()| {
            if self.disk.link(&part, path)? {
                return Ok(());
            }
            Err(Error::new(ErrorKind::AlreadyExists, "exporting to")
                .at(path.display())
                .detail("it appeared meanwhile"))
        });
        if let Err(e) = &written
            && begin == Begin::WhereItWas
            && (e.kind() == ErrorKind::Cancelled || found && concerns_no_file(e.kind()))
        {
            return written.map_err(|e| match e.kind() {
                ErrorKind::Cancelled => e.hint(goes_on(&part)),
                _ => e,
            });
        }
        // ORDER: contents durable (in `write`), the name, the folder.
        self.disk.remove(&part)?;
        written?;
        self.disk.sync_folder(folder)
    }

    /// The file that is written to, locked, and whether an export that was cut off has left it.
    fn create_part(&self, part: &Path) -> Result<(Box<dyn DiskFile>, bool)> {
        for _ in 0..TRIES {
            match self.disk.open(part, OpenMode::CreateNew) {
                // Between making and locking it somebody may take it for a leftover.
                Ok(file) if file.try_lock()? && file.is_still_named()? => return Ok((file, false)),
                Err(e) if e.kind() != ErrorKind::AlreadyExists => return Err(e),
                _ => {
                    if let Some(file) = self.take_leftover(part)? {
                        return Ok((file, true));
                    }
                }
            }
        }
        // A link to nothing is there, and nothing is behind it.
        let is_link = matches!(self.disk.kind(part), Err(e) if e.kind() == ErrorKind::NotFound);
        let kind = if is_link {
            ErrorKind::AlreadyExists
        } else {
            ErrorKind::Busy
        };
        Err(in_the_way(part, kind))
    }

    /// A file that nobody else ever writes to, also not a program that was started for an export that died: its name is new.
    fn create_tmp(&self, path: &Path) -> Result<(PathBuf, Box<dyn DiskFile>)> {
        for _ in 0..TRIES {
            let tmp = part_of(path, &format!("tmp-{}", self.store.new_uid()));
            let file = self.disk.open(&tmp, OpenMode::CreateNew)?;
            // Between making and locking it somebody may take it for a dead one.
            if file.try_lock()? && file.is_still_named()? {
                return Ok((tmp, file));
            }
            self.disk.remove(&tmp)?;
        }
        Err(in_the_way(path, ErrorKind::Busy))
    }

    /// The leftover if it can be gone on with. Else its name is removed, and that alone: the same file may already stand
    /// under the name of the export, and is not written to either.
    fn take_leftover(&self, part: &Path) -> Result<Option<Box<dyn DiskFile>>> {
        match self.disk.kind(part) {
            Ok(FileKind::File) => {}
            Ok(_) => return Err(in_the_way(part, ErrorKind::AlreadyExists)),
            Err(e) if e.kind() == ErrorKind::NotFound => return Ok(None),
            Err(e) => return Err(e),
        }
        let file = match self.disk.open(part, OpenMode::Write) {
            Err(e) if e.kind() == ErrorKind::NotFound => return Ok(None),
            opened => opened?,
        };
        if !file.try_lock()? {
            return Err(in_the_way(part, ErrorKind::Busy));
        }
        // With the lock: whoever gives the file its second name has it until the first is gone.
        if file.is_ours_alone()? {
            return Ok(Some(file));
        }
        if file.is_still_named()? {
            self.disk.remove(part)?;
        }
        Ok(None)
    }

    /// Removes what exports that began anew and died have left. What cannot be removed keeps nobody from anything.
    fn remove_dead(&self, folder: &Path, path: &Path) {
        let mut start = path.file_name().unwrap_or_default().to_owned();
        start.push(".still-tmp-");
        let start = start.to_string_lossy();
        let names = self.disk.list(folder).unwrap_or_default();
        for name in names.iter().filter(|name| name.starts_with(&*start)) {
            let dead = folder.join(name);
            let removed = self.disk.open(&dead, OpenMode::Write).and_then(|file| {
                if file.try_lock()? && file.is_still_named()? {
                    self.disk.remove(&dead)?;
                }
                Ok(())
            });
            removed.unwrap_or_default();
        }
    }

    fn export_device(
        &self,
        content: Content,
        path: &Path,
        progress: &Progress,
    ) -> Result<Restored> {
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

fn exists(path: &Path) -> Error {
    Error::new(ErrorKind::AlreadyExists, "exporting to")
        .at(path.display())
        .detail("there is something already")
        .hint("nothing is overwritten: remove it first, or choose another name")
}

fn in_the_way(part: &Path, kind: ErrorKind) -> Error {
    let (why, hint) = if kind == ErrorKind::Busy {
        (
            "another export is writing it",
            "let it end, or choose another name",
        )
    } else {
        (
            "the export is written there first, and something else has the name",
            "remove it, or choose another name",
        )
    };
    Error::new(kind, "exporting to")
        .at(part.display())
        .detail(why)
        .hint(hint)
}

fn goes_on(part: &Path) -> String {
    let part = part.display();
    format!("what was written is in {part}: the same command goes on with it, or remove it")
}

/// What kept an export from being made and says nothing about the file that it goes to: what that holds is still good.
fn concerns_no_file(kind: ErrorKind) -> bool {
    use ErrorKind::{Busy, InvalidInput, LimitExceeded, NotFound, Unsupported};
    matches!(
        kind,
        Busy | InvalidInput | LimitExceeded | NotFound | Unsupported
    )
}

/// `<name>.still-<what>` beside it: a name that nobody else uses, since what has it may be removed.
fn part_of(path: &Path, what: &str) -> PathBuf {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(format!(".still-{what}"));
    path.with_file_name(name)
}
