//! A volume given to whichever host opens it next.

use super::Volumes;
use super::turn::Turn;
use crate::error::{Error, ErrorKind, Result};
use crate::format::entry::{HeadOrigin, Op, SessionKind, VolumeRecord};
use crate::id::Uid;
use crate::log::is_unclear;
use crate::object::Purse;
use crate::progress::Progress;

impl Volumes<'_> {
    /// Stores all that the volume holds and lets go of it: no host has overlays of it then, and any may open it. Durable when
    /// this returns. Writes that come meanwhile make it `Busy`.
    pub fn hand_over(&self, device: &Uid, progress: &Progress) -> Result<()> {
        self.absorb(&[*device], progress)?;
        let turns = self.turns(&[*device])?;
        let Some(volume) = turns.first().map(Turn::volume) else {
            return Ok(());
        };
        let _shut = volume.shut();
        let layers = volume.layers();
        if !layers.overlays.iter().all(|o| o.is_empty()) {
            return Err(Error::new(ErrorKind::Busy, "moving a volume")
                .at(device)
                .detail("somebody writes to it")
                .hint("end the server that serves it, or disconnect its client, then try again"));
        }
        let old = volume.chain().record;
        let new = VolumeRecord { host: None, ..old };
        let done = self
            .shared
            .store
            .commit(SessionKind::Writer, Purse::Free, &mut |catalog| {
                let device = catalog.device(device);
                Ok(vec![Op::PutVolume {
                    uid: volume.device(),
                    expect: Some(old.point()),
                    volume: Some(new),
                    head: device.and_then(|d| d.head),
                    base: device.and_then(|d| d.base),
                    origin: HeadOrigin::Existing,
                }])
            });
        if let Err(e) = done {
            // Another host may have it now, which would never see what is written here.
            if is_unclear(&e) {
                volume.end();
            }
            return Err(e);
        }
        volume.end();
        self.opened().remove(device);
        self.shared.host.remove_folder(device)
    }
}
