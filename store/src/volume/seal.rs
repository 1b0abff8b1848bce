//! Snapshots of volumes: sealed in one instant, stored while guests go on, and then the head of each.

use super::Volumes;
use super::disk::Volume;
use super::frozen::Frozen;
use super::layers::{Head, Layers};
use super::overlay::{Overlay, union};
use super::turn::Turn;
use crate::catalog::{Catalog, DeviceState};
use crate::error::{Error, ErrorKind, Result};
use crate::format::entry::{ChainPoint, Content, HeadOrigin, Op, SessionKind, VolumeRecord};
use crate::format::overlay::BLOCK_BYTES;
use crate::format::snapshot::SnapshotRecord;
use crate::id::Uid;
use crate::object::Purse;
use crate::ops::ingest::{Ingested, Input, Writer};
use crate::progress::Progress;
use std::collections::BTreeMap;
use std::ops::Range;
use std::path::PathBuf;
use std::sync::Arc;

/// Times that an ingest is repeated because what it relied on has gone.
const TRIES: usize = 5;

/// The records of a group, one a device in the order of the devices; asked again for each state that is tried.
pub type Records<'r> = &'r mut dyn FnMut(&Catalog, &[Ingested]) -> Result<Vec<SnapshotRecord>>;

/// Volumes as they were at one instant, in the order in which they were named. Nobody else changes their chains while it lives;
/// guests write on.
pub struct Sealed<'a> {
    volumes: Vec<SealedVolume<'a>>,
    _turns: Vec<Turn<'a>>,
}

struct SealedVolume<'a> {
    volume: Arc<Volume<'a>>,
    frozen: Frozen<'a>,
    size: u64,
    head: Option<Content>,
    /// Where the chain was, and the last overlay that is in.
    expect: ChainPoint,
    through: u64,
    /// Byte ranges outside of which the head has it all.
    dirty: Vec<Range<u64>>,
}

impl<'a> Volumes<'a> {
    /// Seals volumes: of two writes to any of them, the second of which was sent when the first had been acknowledged, what is
    /// sealed never has the second without the first. Guests are held for as long as it takes to put other overlays in place.
    pub fn seal(&self, devices: &[Uid]) -> Result<Sealed<'a>> {
        let turns = self.turns(devices)?;
        for turn in &turns {
            turn.volume().prepare_spare()?;
        }
        // ORDER: all gates are shut before the first overlay is switched, and opened when the last one is.
        let shut: Vec<_> = turns.iter().map(|turn| turn.volume().shut()).collect();
        let sealed: Vec<_> = turns.iter().map(|turn| turn.volume().switch()).collect();
        drop(shut);
        let made = turns.iter().zip(sealed);
        let mut made: BTreeMap<Uid, SealedVolume<'a>> = made
            .map(|(turn, frozen)| (turn.volume().device(), turn.volume().sealed(frozen)))
            .collect();
        let volumes = devices.iter().filter_map(|d| made.remove(d)).collect();
        Ok(Sealed {
            volumes,
            _turns: turns,
        })
    }

    /// A snapshot of each of the volumes, all of one instant, in one entry. Durable when this returns.
    pub fn snapshot_group(
        &self,
        devices: &[Uid],
        records: Records<'_>,
        progress: &Progress,
    ) -> Result<Vec<Ingested>> {
        let sealed = self.seal(devices)?;
        sealed.store(self.shared.store, progress, &mut |catalog, taken| {
            let records = records(catalog, taken)?;
            let contents: Vec<Content> = taken.iter().map(|t| t.content).collect();
            let bases: Vec<Option<Uid>> = records.iter().map(|r| Some(r.uid)).collect();
            let put = |record: &SnapshotRecord| Op::PutSnapshot {
                record: record.clone(),
                gotos_begun: catalog.device(&record.device).map_or(0, |d| d.gotos_begun),
            };
            let mut ops: Vec<Op> = records.iter().map(put).collect();
            ops.extend(sealed.ops(catalog, &contents, &bases));
            Ok((ops, records))
        })
    }

    /// Stores what the volumes' overlays hold, without a snapshot: their contents are in their heads then. Durable when
    /// this returns.
    pub fn absorb(&self, devices: &[Uid], progress: &Progress) -> Result<Vec<Content>> {
        let sealed = self.seal(devices)?;
        let taken = sealed.store(self.shared.store, progress, &mut |catalog, taken| {
            let contents: Vec<Content> = taken.iter().map(|t| t.content).collect();
            let bases = vec![None; contents.len()];
            Ok((sealed.ops(catalog, &contents, &bases), Vec::new()))
        })?;
        Ok(taken.iter().map(|t| t.content).collect())
    }
}

/// Ops for what was taken in, and the records among them.
type Planned = (Vec<Op>, Vec<SnapshotRecord>);

impl Sealed<'_> {
    /// What to take in: one a volume, to be trusted as to what has changed.
    pub fn inputs(&self) -> Vec<Input<'_>> {
        self.volumes.iter().map(SealedVolume::input).collect()
    }

    /// Puts the volumes' heads on what was taken in; `bases` are the snapshots of it. Nothing for a volume whose chain has
    /// moved since, which `catalog` tells. For the entry that stores what was taken in.
    pub fn ops(&self, catalog: &Catalog, contents: &[Content], bases: &[Option<Uid>]) -> Vec<Op> {
        let all = self.volumes.iter().zip(contents).zip(bases);
        all.filter_map(|((v, content), base)| v.op(catalog, *content, *base))
            .collect()
    }

    /// The entry is durable: the volumes go on from their new heads, and overlays that those have are removed.
    pub fn settle(self, catalog: &Catalog) -> Result<()> {
        self.settle_all(catalog)
    }

    fn settle_all(&self, catalog: &Catalog) -> Result<()> {
        let mut settled = Ok(());
        for volume in &self.volumes {
            let done = volume.settle(catalog);
            settled = settled.and(done);
        }
        settled
    }

    /// Takes all of it in and commits what `plan` says.
    fn store(
        &self,
        store: &crate::store::Store,
        progress: &Progress,
        plan: &mut dyn FnMut(&Catalog, &[Ingested]) -> Result<Planned>,
    ) -> Result<Vec<Ingested>> {
        let mut writer = Writer::new(store, SessionKind::Writer, Purse::Free)?;
        let done = self.store_with(&mut writer, progress, plan);
        if done.is_err() {
            // What made it fail is what the caller is to hear.
            writer.abandon().unwrap_or_default();
        }
        done
    }

    fn store_with(
        &self,
        writer: &mut Writer<'_>,
        progress: &Progress,
        plan: &mut dyn FnMut(&Catalog, &[Ingested]) -> Result<Planned>,
    ) -> Result<Vec<Ingested>> {
        let mut tries = 0;
        loop {
            let taken = writer.ingest_known(&self.inputs(), &|_| true, progress)?;
            for record in plan(&writer.catalog(), &taken)?.1 {
                writer.store_record(&record)?;
            }
            match writer.finish(&mut |catalog| Ok(plan(catalog, &taken)?.0)) {
                Ok(catalog) => {
                    self.settle_all(&catalog)?;
                    return Ok(taken);
                }
                Err(e) if tries < TRIES && writer.forget(&e)? => tries += 1,
                Err(e) => return Err(e),
            }
        }
    }
}

impl<'a> Volume<'a> {
    /// An overlay that can take the writes at once, unless there is one.
    fn prepare_spare(&self) -> Result<()> {
        let record = {
            let chain = self.chain();
            if chain.spare.is_some() {
                return Ok(());
            }
            chain.record
        };
        let n = self.layers().top().name().n + 1;
        let spare = self.shared.new_overlay(&self.device(), &record, n)?;
        self.chain().spare = Some(spare);
        Ok(())
    }

    /// The spare overlay takes the writes from now on, unless nothing was written to the one before. Nothing is in flight.
    /// Returns what nobody writes to any more.
    fn switch(&self) -> Layers<'a> {
        let layers = self.layers();
        let mut chain = self.chain();
        if layers.top().is_empty() {
            return with(&layers, layers.overlays[1..].to_vec(), layers.head.clone());
        }
        if let Some(spare) = chain.spare.take() {
            layers.top().seal();
            let mut overlays = layers.overlays.clone();
            overlays.insert(0, spare);
            self.set_layers(with(&layers, overlays, layers.head.clone()));
        }
        with(&layers, layers.overlays.clone(), layers.head.clone())
    }

    fn sealed(self: &Arc<Self>, frozen: Layers<'a>) -> SealedVolume<'a> {
        let record = self.chain().record;
        let newest = frozen.overlays.first();
        SealedVolume {
            volume: self.clone(),
            size: frozen.size,
            head: frozen.content(),
            expect: record.point(),
            through: newest.map_or(record.absorbed, |o| o.name().n),
            dirty: dirty(&frozen.overlays, frozen.size),
            frozen: Frozen::new(Arc::new(frozen)),
        }
    }
}

impl Volume<'_> {
    /// Goes on from where the log has the volume, should an entry stand whose answer was lost. In the volume's turn.
    pub(super) fn catch_up(&self, catalog: &Catalog) -> Result<()> {
        let (old, top) = (self.chain().record, self.layers().top().name().n);
        let device = catalog.device(&self.device());
        match device.and_then(|d| d.volume.map(|record| (d, record))) {
            Some((_, record)) if record == old => {}
            Some((device, record))
                if (record.generation, record.host) == (old.generation, old.host)
                    && (old.absorbed..top).contains(&record.absorbed) =>
            {
                // ORDER: what is removed on the strength of the log is so with a log that survives a crash.
                self.shared.store.log.make_durable()?;
                self.go_on(device, record);
            }
            // Removed, or taken over: what was written here since is in nobody's chain.
            _ => self.end(),
        }
        Ok(())
    }

    /// The head has more of the chain, and the entry that says so is durable.
    fn go_on(&self, device: &DeviceState, record: VolumeRecord) {
        self.chain().record = record;
        let layers = self.layers();
        let (old, kept): (Vec<_>, Vec<_>) = layers
            .overlays
            .iter()
            .cloned()
            .partition(|o| o.name().n <= record.absorbed);
        let head = device.head.map(|head| Arc::new(Head::new(head)));
        self.set_layers(Layers {
            size: record.size,
            ..with(&layers, kept, head)
        });
        // ORDER: after the entry, which is durable. Who reads them yet has them open.
        let paths: Vec<PathBuf> = old.iter().map(|o| o.path().to_owned()).collect();
        self.shared.host.remove_sometime(&paths);
    }
}

/// The layers with other overlays and another head.
fn with<'a>(
    layers: &Layers<'a>,
    overlays: Vec<Arc<Overlay>>,
    head: Option<Arc<Head<'a>>>,
) -> Layers<'a> {
    Layers {
        overlays,
        head,
        size: layers.size,
        readers: layers.readers.clone(),
    }
}

/// Bytes that the overlays hold something of.
pub(super) fn dirty(overlays: &[Arc<Overlay>], size: u64) -> Vec<Range<u64>> {
    let block = BLOCK_BYTES as u64;
    let held = overlays.iter().fold(Vec::new(), |all, overlay| {
        union(all.into_iter(), overlay.held().into_iter())
    });
    held.into_iter()
        .map(|run| run.start * block..(run.end * block).min(size))
        .filter(|run| run.start < run.end)
        .collect()
}

impl SealedVolume<'_> {
    fn input(&self) -> Input<'_> {
        Input {
            file: &self.frozen,
            size: self.size,
            parent: self.head,
            changed: Some(&self.dirty),
        }
    }

    fn op(&self, catalog: &Catalog, content: Content, base: Option<Uid>) -> Option<Op> {
        let device = catalog.device(&self.volume.device())?;
        let record = device.volume.filter(|r| r.point() == self.expect)?;
        Some(Op::PutVolume {
            uid: device.uid,
            expect: Some(self.expect),
            volume: Some(VolumeRecord {
                absorbed: self.through,
                ..record
            }),
            head: Some(content),
            base: base.or(device.base),
            origin: HeadOrigin::Stored,
        })
    }

    fn settle(&self, catalog: &Catalog) -> Result<()> {
        let gone = || {
            Error::new(ErrorKind::Busy, "taking a snapshot of a volume")
                .detail("the volume was removed meanwhile")
        };
        let device = catalog.device(&self.volume.device()).ok_or_else(gone)?;
        let record = device.volume.ok_or_else(gone)?;
        let now = ChainPoint {
            absorbed: self.through,
            ..self.expect
        };
        if record.point() != now {
            return Ok(());
        }
        self.volume.go_on(device, record);
        Ok(())
    }
}
