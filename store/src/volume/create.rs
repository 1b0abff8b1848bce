//! A new volume: empty, or on contents that are in the store, which costs the same however large they are.

use super::Volumes;
use crate::catalog::Catalog;
use crate::error::{Error, ErrorKind, Result};
use crate::format::entry::{Content, HeadOrigin, Op, SessionKind, VolumeRecord};
use crate::id::Uid;
use crate::log::is_unclear;
use crate::object::Purse;

/// What to make.
#[derive(Debug, Clone, Copy)]
pub struct NewVolume<'n> {
    /// The name of the new device.
    pub name: &'n str,
    /// What it holds.
    pub source: Source,
}

/// What a new volume holds.
#[derive(Debug, Clone, Copy)]
pub enum Source {
    /// Holes, so many bytes.
    Empty(u64),
    /// Contents that something in the store has.
    Content {
        /// They.
        content: Content,
        /// The snapshot that they are of.
        base: Option<Uid>,
    },
}

impl Volumes<'_> {
    /// Removes what was left of volumes that never came to be, or are no more.
    fn sweep(&self) -> Result<()> {
        let (store, host) = (self.shared.store, &self.shared.host);
        let is_volume = |catalog: &Catalog, uid: &Uid| {
            let device = catalog.device(uid);
            device.is_some_and(|d| d.volume.is_some())
        };
        let catalog = store.refresh()?;
        let strays = host.with_folder()?.into_iter();
        for uid in strays.filter(|uid| !is_volume(&catalog, uid)) {
            // Whoever is just making it has its lock.
            let Ok(_lock) = host.lock(&uid) else { continue };
            if !is_volume(&*store.refresh()?, &uid) {
                // ORDER: what is removed on the strength of the log is so with a log that survives a crash.
                store.log.make_durable()?;
                host.remove_folder(&uid)?;
            }
        }
        Ok(())
    }

    /// Makes a device that is a volume. Durable when this returns.
    pub fn create(&self, new: &NewVolume<'_>) -> Result<Uid> {
        let store = self.shared.store;
        let uid = store.new_uid();
        let (head, base, size) = match new.source {
            Source::Empty(size) => (None, None, size),
            Source::Content { content, base } => (Some(content), base, content.size),
        };
        let host = self.shared.host.id_or_new(&mut || store.new_uid())?;
        self.sweep()?;
        let record = VolumeRecord {
            generation: 1,
            absorbed: 0,
            size,
            host: Some(host),
        };
        let _lock = self.shared.host.lock(&uid)?;
        let made = self.shared.new_overlay(&uid, &record, 1).and_then(|_| {
            store.commit(SessionKind::Writer, Purse::Free, &mut |catalog| {
                if catalog.device_named(new.name).is_some() {
                    let doing = format!("making volume {:?}", new.name);
                    return Err(Error::new(ErrorKind::AlreadyExists, doing)
                        .detail("there is a device of that name already")
                        .hint("`still device list` shows all"));
                }
                let put = Op::PutDevice {
                    uid,
                    name: new.name.into(),
                    attachment: None,
                };
                let volume = Op::PutVolume {
                    uid,
                    expect: None,
                    volume: Some(record),
                    head,
                    base: base.filter(|b| catalog.snapshot(b).is_some()),
                    origin: HeadOrigin::Existing,
                };
                Ok(vec![put, volume])
            })
        });
        if let Err(e) = &made
            && !is_unclear(e)
        {
            // What made it fail is what the caller is to hear.
            self.shared.host.remove_folder(&uid).unwrap_or_default();
        }
        made.map(|()| uid)
    }
}
