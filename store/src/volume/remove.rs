//! The end of a volume.

use super::Volumes;
use super::turn::Turn;
use crate::error::Result;
use crate::format::entry::{HeadOrigin, Op, SessionKind};
use crate::id::Uid;
use crate::log::is_unclear;
use crate::object::Purse;

impl Volumes<'_> {
    /// Removes a volume, with what was written to it and is in no snapshot. Snapshots stay, and with them the device; without
    /// any the device goes too. Durable when this returns.
    pub fn remove(&self, device: &Uid) -> Result<()> {
        let turns = self.turns(&[*device])?;
        let Some(volume) = turns.first().map(Turn::volume) else {
            return Ok(());
        };
        let _shut = volume.shut();
        let expect = Some(volume.chain().record.point());
        let done = self
            .shared
            .store
            .commit(SessionKind::Writer, Purse::Reserve, &mut |catalog| {
                if catalog.snapshots_of(device).is_empty() {
                    return Ok(vec![Op::RemoveDevice { uid: *device }]);
                }
                Ok(vec![Op::PutVolume {
                    uid: *device,
                    expect,
                    volume: None,
                    head: None,
                    base: None,
                    origin: HeadOrigin::Existing,
                }])
            });
        if let Err(e) = done {
            // What would be written to it now may be nobody's.
            if is_unclear(&e) {
                volume.end();
            }
            return Err(e);
        }
        volume.end();
        self.opened().remove(device);
        // ORDER: after the entry. The lock is held until the last user of the volume is gone.
        self.shared.host.remove_folder(device)
    }
}
