//! What this host keeps beside the objects: locks of sessions, and notes.

use super::{LocalObjects, TRIES, is_key_part, is_no_space};
use crate::disk::{DiskFile, OpenMode};
use crate::error::{Error, ErrorKind, Result};
use crate::id::SessionId;
use crate::object::{Lease, Local, LocalFolder, Objects};
use std::path::{Path, PathBuf};

/// A note longer than this is none of ours.
const NOTE_BYTES_MAX: u64 = 16 << 20;

/// The locked file of a session; the system unlocks it when the process ends, however that happens.
struct FileLease {
    _locked: Box<dyn DiskFile>,
}

impl Lease for FileLease {}

impl LocalObjects {
    fn session_path(&self, session: SessionId) -> PathBuf {
        self.root.join("sessions").join(session.to_string())
    }

    fn open_or_create(&self, path: &Path) -> Result<Box<dyn DiskFile>> {
        let gone = |e: &Error| e.kind() == ErrorKind::NotFound;
        match self.disk.open(path, OpenMode::Write) {
            Err(e) if gone(&e) => {}
            file => return file,
        }
        match self.disk.open(path, OpenMode::CreateNew) {
            Err(e) if gone(&e) => {
                self.disk.create_folders(&self.root.join("sessions"))?;
                self.disk.open(path, OpenMode::CreateNew)
            }
            file => file,
        }
    }

    fn note_path(&self, name: &str) -> Result<PathBuf> {
        if !is_key_part(name) {
            return Err(Error::invalid(
                "naming a note",
                format!("{name:?} is not a name"),
            ));
        }
        Ok(self.root.join("local/notes").join(name))
    }

    fn read_note(&self, name: &str) -> Result<Vec<u8>> {
        let file = self.disk.open(&self.note_path(name)?, OpenMode::Read)?;
        let len = file.len()?;
        if len > NOTE_BYTES_MAX {
            return Err(Error::new(ErrorKind::LimitExceeded, "reading a note"));
        }
        let mut bytes = vec![0; len as usize];
        let n = file.read_at(0, &mut bytes)?;
        bytes.truncate(n);
        Ok(bytes)
    }
}

impl Local for LocalObjects {
    fn hold(&self, session: SessionId) -> Result<Option<Box<dyn Lease>>> {
        self.check_writable("locking", "sessions")?;
        let path = self.session_path(session);
        for _ in 0..TRIES {
            let mut opened = self.open_or_create(&path);
            if is_no_space(&opened) && self.sacrifice(2) {
                opened = self.open_or_create(&path);
            }
            let file = match opened {
                // Somebody made it between the two tries.
                Err(e) if e.kind() == ErrorKind::AlreadyExists => continue,
                file => file?,
            };
            if !file.try_lock()? {
                return Ok(None);
            }
            // The file may have been forgotten, and made anew, before it was locked: then this is the lock of nothing.
            if file.is_still_named()? {
                return Ok(Some(Box::new(FileLease { _locked: file })));
            }
        }
        Err(Error::new(ErrorKind::Busy, "locking")
            .at(path.display())
            .detail("the lock file is being replaced again and again"))
    }

    fn forget(&self, session: SessionId) -> Result<()> {
        self.check_writable("removing", "sessions")?;
        self.disk.remove(&self.session_path(session))
    }

    fn sweep(&self) -> Result<usize> {
        // A session that is open keeps no more than the right to its file: who holds it next makes it anew.
        Ok(self.sweep_folder("tmp")? + self.sweep_folder("sessions")?)
    }

    fn note(&self, name: &str) -> Option<Vec<u8>> {
        self.read_note(name).ok()
    }

    fn folder(&self) -> Option<LocalFolder> {
        Some(LocalFolder {
            disk: self.disk.clone(),
            path: self.root.join("local"),
        })
    }

    fn put_note(&self, name: &str, bytes: &[u8]) -> Result<()> {
        let path = self.note_path(name)?;
        self.check_writable("writing", "local/notes")?;
        let Some(temporary) = self.temporary()? else {
            return Err(Error::new(ErrorKind::Busy, "writing").at(self.describe("local/notes")));
        };
        let done = temporary.file.write_at(0, bytes).and_then(|()| {
            self.disk.create_folders(&self.root.join("local/notes"))?;
            self.disk.rename(&temporary.path, &path)
        });
        if done.is_err() {
            self.drop_temporary(&temporary);
        }
        done
    }
}
