//! Bytes of packs that will never count: their session has ended and they are not live. That is permanent, so anybody
//! may remove them at any time.

use crate::error::Result;
use crate::id::{PackName, SessionId};
use crate::progress::Progress;
use crate::store::Store;

impl Store {
    /// Removes packs that were never published and packs that were dropped; returns how many, and their bytes.
    pub(super) fn sweep(&self, progress: &Progress) -> Result<(u64, u64)> {
        let catalog = self.refresh()?;
        // ORDER: what says that they are dead survives a crash before their bytes go.
        self.log.make_durable()?;
        let (mut removed, mut bytes) = (0, 0);
        for folder in self.objects.list_folders("packs")? {
            progress.check()?;
            let Ok(session) = folder.parse::<SessionId>() else {
                continue;
            };
            if !catalog.has_ended(&session) {
                continue;
            }
            for file in self.objects.list_after(&format!("packs/{folder}"), "")? {
                let Some(n) = file.parse().ok().filter(|_| file.len() == 6) else {
                    continue;
                };
                let name = PackName { session, n };
                if catalog.pack(&name).is_none() {
                    bytes += self.objects.size(&name.key()).unwrap_or(0);
                    self.objects.delete(&name.key())?;
                    removed += 1;
                }
            }
        }
        Ok((removed, bytes))
    }
}
