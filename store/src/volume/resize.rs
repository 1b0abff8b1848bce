//! Another size. Growing changes the size alone; shrinking gives up what lies behind, and so begins a new generation.

use super::Volumes;
use super::disk::Volume;
use super::frozen::Frozen;
use super::layers::Layers;
use super::seal::dirty;
use super::turn::Turn;
use crate::error::Result;
use crate::format::entry::{Content, HeadOrigin, Op, SessionKind, VolumeRecord};
use crate::id::Uid;
use crate::object::Purse;
use crate::ops::ingest::{Input, Writer};
use crate::progress::Progress;
use std::sync::Arc;

/// Times that an ingest is repeated because what it relied on has gone.
const TRIES: usize = 5;

impl<'a> Volumes<'a> {
    /// Gives the volume another size: what it grows by are holes. Durable when this returns. To shrink it, what it holds is
    /// stored first, and writes wait; whether somebody uses it is for the caller to ask.
    pub fn resize(&self, device: &Uid, size: u64, progress: &Progress) -> Result<()> {
        let turns = self.turns(&[*device])?;
        let Some(volume) = turns.first().map(Turn::volume) else {
            return Ok(());
        };
        if size >= volume.size() {
            return self.grow(volume, size);
        }
        let _shut = volume.shut();
        let mut writer = Writer::new(self.shared.store, SessionKind::Writer, Purse::Free)?;
        let shrunk = self.shrink(&mut writer, &turns, volume, size, progress);
        if shrunk.is_err() {
            // What made it fail is what the caller is to hear.
            writer.abandon().unwrap_or_default();
        }
        shrunk
    }

    fn grow(&self, volume: &Arc<Volume<'_>>, size: u64) -> Result<()> {
        let old = volume.chain().record;
        let new = VolumeRecord { size, ..old };
        self.shared
            .store
            .commit(SessionKind::Writer, Purse::Free, &mut |catalog| {
                let device = catalog.device(&volume.device());
                Ok(vec![Op::PutVolume {
                    uid: volume.device(),
                    expect: Some(old.point()),
                    volume: Some(new),
                    head: device.and_then(|d| d.head),
                    base: device.and_then(|d| d.base),
                    origin: HeadOrigin::Existing,
                }])
            })?;
        // ORDER: no write is under way that took the last block for all that is behind the old end; it would undo one of there.
        let _shut = volume.shut();
        volume.chain().record = new;
        let layers = volume.layers();
        volume.set_layers(Layers {
            overlays: layers.overlays.clone(),
            head: layers.head.clone(),
            size,
            readers: layers.readers.clone(),
        });
        Ok(())
    }

    /// Nothing is in flight. The head takes in all overlays, cut at the new size.
    fn shrink(
        &self,
        writer: &mut Writer<'_>,
        turns: &[Turn<'a>],
        volume: &Arc<Volume<'a>>,
        size: u64,
        progress: &Progress,
    ) -> Result<()> {
        let layers = volume.layers();
        let frozen = Frozen::cut(layers.clone(), size);
        let dirty = dirty(&layers.overlays, size);
        let input = Input {
            file: &frozen,
            size,
            parent: layers.content(),
            changed: Some(&dirty),
        };
        let mut next = volume.next_generation(None, size)?;
        let expect = Some(volume.chain().record.point());
        let mut tries = 0;
        let done = loop {
            let taken = writer.ingest_known(&[input], &|_| true, progress)?;
            let content = Content {
                size,
                ..taken[0].content
            };
            next.head = Some(content);
            let finished = writer.finish(&mut |catalog| {
                Ok(vec![Op::PutVolume {
                    uid: volume.device(),
                    expect,
                    volume: Some(next.record),
                    head: next.head,
                    base: catalog.device(&volume.device()).and_then(|d| d.base),
                    origin: HeadOrigin::Stored,
                }])
            });
            match finished {
                Err(e) if tries < TRIES && writer.forget(&e)? => tries += 1,
                done => break done.map(drop),
            }
        };
        self.shared
            .gone_on(turns, vec![(volume.device(), next)], done)
    }
}
