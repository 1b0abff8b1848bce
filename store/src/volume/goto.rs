//! goto: other contents below, and a new generation of overlays over them.

use super::Volumes;
use super::disk::Volume;
use super::layers::{Head, Layers};
use super::overlay::Overlay;
use super::turn::{Turn, of};
use crate::catalog::Catalog;
use crate::error::{Error, ErrorKind, Result};
use crate::format::entry::{Content, HeadOrigin, Op, SessionKind, VolumeRecord};
use crate::id::Uid;
use crate::object::Purse;
use std::path::PathBuf;
use std::sync::Arc;

/// A volume and what it is to hold.
#[derive(Debug, Clone, Copy)]
pub struct GotoVolume {
    /// The volume.
    pub device: Uid,
    /// What it is to hold; something in the store has it.
    pub content: Content,
    /// The snapshot that is.
    pub snapshot: Uid,
}

/// What a volume is to be: its record, what lies below, and the first overlay of the new generation.
pub(super) struct Next {
    pub(super) record: VolumeRecord,
    pub(super) head: Option<Content>,
    pub(super) overlay: Arc<Overlay>,
}

impl Volumes<'_> {
    /// Gives the volumes other contents, all or none; what was written to them since their last snapshot is gone. Durable
    /// when this returns. Whether somebody uses them now is for the caller to ask: writes wait meanwhile, and those that
    /// follow go to the new contents.
    pub fn goto_group(&self, targets: &[GotoVolume]) -> Result<()> {
        let devices: Vec<Uid> = targets.iter().map(|t| t.device).collect();
        let turns = self.turns(&devices)?;
        let mut nexts = Vec::with_capacity(targets.len());
        for t in targets {
            let volume = of(&turns, &t.device).ok_or_else(|| twice(&t.device))?;
            nexts.push(volume.next_generation(Some(t.content), t.content.size)?);
        }
        let _shut: Vec<_> = turns.iter().map(|turn| turn.volume().shut()).collect();
        let ops: Vec<Op> = targets
            .iter()
            .zip(&nexts)
            .filter_map(|(t, next)| {
                let volume = of(&turns, &t.device)?;
                let expect = Some(volume.chain().record.point());
                Some(Op::PutVolume {
                    uid: t.device,
                    expect,
                    volume: Some(next.record),
                    head: next.head,
                    base: Some(t.snapshot),
                    origin: HeadOrigin::Existing,
                })
            })
            .collect();
        let store = self.shared.store;
        let plan = &mut |catalog: &Catalog| {
            check_there(catalog, targets)?;
            Ok(ops.clone())
        };
        let done = store.commit(SessionKind::Writer, Purse::Free, plan);
        let pairs: Vec<_> = targets.iter().map(|t| t.device).zip(nexts).collect();
        self.shared.gone_on(&turns, pairs, done)
    }
}

fn twice(device: &Uid) -> Error {
    Error::invalid("going to a snapshot", "the volume is named twice").at(device)
}

fn check_there(catalog: &Catalog, targets: &[GotoVolume]) -> Result<()> {
    match targets
        .iter()
        .find(|t| catalog.snapshot(&t.snapshot).is_none())
    {
        None => Ok(()),
        Some(_) => Err(Error::new(ErrorKind::NotFound, "going to a snapshot")
            .detail("it was deleted meanwhile; nothing was changed")
            .hint("`still list` shows what there is")),
    }
}

impl Volume<'_> {
    /// The first overlay of the next generation, durable; nothing is in force yet.
    pub(super) fn next_generation(&self, head: Option<Content>, size: u64) -> Result<Next> {
        let old = self.chain().record;
        let record = VolumeRecord {
            generation: old.generation.saturating_add(1),
            absorbed: 0,
            size,
            ..old
        };
        let overlay = self.shared.new_overlay(&self.device(), &record, 1)?;
        Ok(Next {
            record,
            head,
            overlay,
        })
    }

    /// The entry is durable: what the old generation had is removed. Nothing is in flight. Cannot fail: the others of the group
    /// must go on as well, and what is not removed now is when the volume is opened next.
    fn begin(&self, next: Next) {
        let layers = self.layers();
        let mut chain = self.chain();
        let old = layers.overlays.iter().chain(chain.spare.as_ref());
        let old: Vec<PathBuf> = old.map(|o| o.path().to_owned()).collect();
        (chain.record, chain.spare) = (next.record, None);
        self.set_layers(Layers {
            overlays: vec![next.overlay],
            head: next.head.map(|head| Arc::new(Head::new(head))),
            size: next.record.size,
            readers: layers.readers.clone(),
        });
        self.shared.host.remove(&old);
    }
}

impl<'a> super::open::Shared<'a> {
    /// After the entry that was to begin new generations: they are in force, or nothing has changed. Where nobody knows, the
    /// volumes are written no more until they are opened again.
    pub(super) fn gone_on(
        &self,
        turns: &[Turn<'a>],
        nexts: Vec<(Uid, Next)>,
        done: Result<()>,
    ) -> Result<()> {
        let volume = |device: &Uid| of(turns, device);
        let Err(e) = done else {
            for (device, next) in nexts {
                if let Some(volume) = volume(&device) {
                    volume.begin(next);
                }
            }
            return Ok(());
        };
        let known = !crate::log::is_unclear(&e)
            && self.store.refresh().is_ok_and(|catalog| {
                let unmoved = |(device, _): &(Uid, Next)| {
                    let now = catalog.device(device).and_then(|d| d.volume);
                    now.map(|r| r.point()) == volume(device).map(|v| v.chain().record.point())
                };
                nexts.iter().all(unmoved)
            });
        for (device, next) in &nexts {
            if known {
                // What stays is removed when the volume is opened next.
                let path = [next.overlay.path().to_owned()];
                self.host.remove(&path);
            } else if let Some(volume) = volume(device) {
                volume.end();
            }
        }
        Err(e)
    }
}
