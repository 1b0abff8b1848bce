//! The reserve: preallocated files which let delete and gc write on a full disk.

use super::{LocalObjects, Temporary, is_no_space};
use crate::disk::OpenMode;
use crate::error::{Error, ErrorKind, Result};
use std::path::PathBuf;

/// How many files of which size are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reserve {
    /// Files for log entries and other small objects.
    pub entry_files: u32,
    /// Bytes of each.
    pub entry_bytes: u64,
    /// Files for packs.
    pub pack_files: u32,
    /// Bytes of each.
    pub pack_bytes: u64,
}

impl Default for Reserve {
    /// A handful of entries, and the two packs that gc has under way at a time.
    fn default() -> Self {
        let pack_bytes = u64::from(crate::limits::PACK_BYTES_MAX);
        Self {
            entry_files: 4,
            entry_bytes: 1 << 20,
            pack_files: 2,
            pack_bytes,
        }
    }
}

impl Reserve {
    /// No reserve: for tests and for stores that are only read.
    pub const NONE: Self = Self {
        entry_files: 0,
        entry_bytes: 0,
        pack_files: 0,
        pack_bytes: 0,
    };

    fn entries(self) -> impl Iterator<Item = (String, u64)> {
        (0..self.entry_files).map(move |n| (format!("entry-{n}"), self.entry_bytes))
    }

    fn packs(self) -> impl Iterator<Item = (String, u64)> {
        (0..self.pack_files).map(move |n| (format!("pack-{n}"), self.pack_bytes))
    }

    /// Small ones first, so that a small object never takes a large file while it need not.
    fn files(self) -> impl Iterator<Item = (String, u64)> {
        self.entries().chain(self.packs())
    }
}

impl LocalObjects {
    fn reserve_path(&self, name: &str) -> PathBuf {
        self.root.join("reserve").join(name)
    }

    /// Takes a reserve file of at least `bytes` for our own, under a name of `tmp/`.
    fn take_reserve(&self, bytes: u64) -> Result<Option<Temporary>> {
        for (name, size) in self.reserve.files().filter(|(_, size)| *size >= bytes) {
            let path = self.temporary_name();
            // Whoever renames it has it, alone: only then is it opened, under a name that nobody else uses.
            match self.disk.rename(&self.reserve_path(&name), &path) {
                Err(e) if e.kind() == ErrorKind::NotFound => continue,
                renamed => renamed?,
            }
            // ORDER: before anything is written into it, the name in `reserve/` must be gone for good. Else a crash could
            // bring it back as a second name of an object, which the next taker would overwrite.
            self.disk.sync_folder(&self.root.join("reserve"))?;
            let file = match self.disk.open(&path, OpenMode::Write) {
                Err(e) if e.kind() == ErrorKind::NotFound => continue,
                file => file?,
            };
            if !file.try_lock()? {
                continue;
            }
            let taken = Temporary { path, file };
            // Shorter: made for another configuration, or not ours. It is of no use.
            if taken.file.len()? >= size {
                return Ok(Some(taken));
            }
            self.drop_temporary(&taken);
        }
        Ok(None)
    }

    /// As `written`, in place of a reserve file. `full` is what the disk said.
    pub(super) fn written_in_reserve(
        &self,
        parts: &[&[u8]],
        full: Error,
    ) -> Result<Option<Temporary>> {
        let bytes = parts.iter().map(|part| part.len() as u64).sum();
        let Some(taken) = self.take_reserve(bytes)? else {
            return Err(
                full.hint("free some space on the store's disk; its own reserve is used up")
            );
        };
        // Written before it is cut: cutting first would give the space to whoever is faster.
        let done = super::write_parts(taken.file.as_ref(), parts)
            .and_then(|()| taken.file.set_len(bytes))
            .and_then(|()| taken.file.sync());
        if let Err(e) = done {
            self.drop_temporary(&taken);
            return Err(e);
        }
        Ok(Some(taken))
    }

    /// Gives up one entry file so that the file system can make a folder or a name, if more than `keep` are left.
    pub(super) fn sacrifice(&self, keep: usize) -> bool {
        let there: Vec<PathBuf> = self
            .reserve
            .entries()
            .map(|(name, _)| self.reserve_path(&name))
            .filter(|path| self.disk.kind(path).is_ok())
            .collect();
        match there.last() {
            Some(path) if there.len() > keep => self.disk.remove(path).is_ok(),
            _ => false,
        }
    }

    pub(super) fn refill_reserve(&self) -> Result<()> {
        let mut made = false;
        for (name, bytes) in self.reserve.files() {
            if self.disk.kind(&self.reserve_path(&name)).is_ok() {
                continue;
            }
            let one = self.make_reserve(&name, bytes);
            if is_no_space(&one) {
                break;
            }
            one?;
            made = true;
        }
        if made {
            self.disk.sync_folder(&self.root.join("reserve"))
        } else {
            Ok(())
        }
    }

    fn make_reserve(&self, name: &str, bytes: u64) -> Result<()> {
        let Some(temporary) = self.temporary()? else {
            return Ok(());
        };
        // Linked only when it is complete: who takes it cuts it to size, and must not find it growing.
        let file = &temporary.file;
        let made = file
            .allocate(bytes)
            .and_then(|()| file.sync())
            .and_then(|()| {
                self.disk.create_folders(&self.root.join("reserve"))?;
                self.disk.link(&temporary.path, &self.reserve_path(name))
            });
        self.drop_temporary(&temporary);
        made.map(|_| ())
    }
}
