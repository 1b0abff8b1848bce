//! From an older format of a store to the present one, a version at a time. `HOWTO.md` beside this says how a step is added.
//!
//! A store is never read by guesswork: the engine knows one version, and each step the one that it leads on from. There is
//! only version 1 so far, so that the table is empty.

mod walk;

pub use walk::{Step, Versioned, Walk, Walked};

use std::path::PathBuf;
use std::sync::Arc;
use stillpoint_store::Result;
use stillpoint_store::disk::{Disk, OpenMode};
use stillpoint_store::format::store::{STORE_BYTES_MAX, STORE_KEY, STORE_VERSION, version_of};
use stillpoint_store::{Error, ErrorKind};

/// A store in a folder, whatever its version.
pub struct Folder {
    /// The disk that it is on.
    pub disk: Arc<dyn Disk>,
    /// Where.
    pub path: PathBuf,
}

impl Versioned for Folder {
    fn version(&self) -> Result<u64> {
        let path = self.path.join(STORE_KEY);
        let file = self
            .disk
            .open(&path, OpenMode::Read)
            .map_err(|e| match e.kind() {
                ErrorKind::NotFound => Error::new(ErrorKind::NotFound, "opening the store")
                    .at(self.path.display())
                    .detail("there is no store here")
                    .hint("name another with --store"),
                _ => e,
            })?;
        // LIMIT: one byte more than it may have is enough to see that it has too many.
        let mut bytes = vec![0; file.len()?.min(STORE_BYTES_MAX + 1) as usize];
        let n = file.read_at(0, &mut bytes)?;
        bytes.truncate(n);
        version_of(&bytes).map_err(|e| e.at(path.display()))
    }
}

/// The steps that there are, oldest first.
const STEPS: &[Step<Folder>] = &[];

/// The walk of stores in folders, to the version that the engine knows.
pub fn walk() -> Walk<'static, Folder> {
    Walk {
        steps: STEPS,
        newest: u64::from(STORE_VERSION),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_steps_lead_to_the_version_that_the_engine_knows() {
        walk().check().unwrap();
    }
}
