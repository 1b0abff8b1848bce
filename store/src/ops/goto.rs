//! goto in place: images made to hold a snapshot, one or a group, all or none, writing only what differs.
//!
//! ORDER: the present contents are stored and durable, `goto-begin` is durable, images are written and synced,
//! `goto-end` is durable. Between begin and end both contents of every image stay reachable, so that whoever comes later
//! can finish or undo.

use crate::content::fetch::{WINDOW, Want};
use crate::content::resolve::HashSet;
use crate::disk::DiskFile;
use crate::error::{Error, ErrorKind, Result};
use crate::format::entry::{Content, GotoDevice, GotoRecord, GotoResult, Op, SessionKind};
use crate::format::manifest::Child;
use crate::id::{Hash, Uid};
use crate::manifest::diff::diff;
use crate::manifest::walk::Walker;
use crate::object::Purse;
use crate::ops::ingest::{Input, Writer};
use crate::ops::sink::FileSink;
use crate::progress::Progress;
use crate::store::{Store, may_be_dropped};
use rayon::prelude::*;

/// Times that the beginning is tried when what it relied on goes meanwhile.
const TRIES: usize = 5;
/// Bytes that one task compares when a goto is taken up again.
const COMPARE_BYTES: u64 = 4 << 20;

/// An image and what it is to hold. The caller holds the image's lock for writing.
pub struct Target<'a> {
    /// The device.
    pub device: Uid,
    /// The image.
    pub file: &'a dyn DiskFile,
    /// Block devices cannot change their size.
    pub fixed_size: bool,
    /// Contents that the image probably still has.
    pub parent: Option<Content>,
    /// The device's base, which undoing restores.
    pub base: Option<Uid>,
    /// What it is to hold.
    pub target: Content,
    /// The snapshot that is.
    pub snapshot: Uid,
}

/// What a goto wrote.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Went {
    /// The device.
    pub device: Uid,
    /// Bytes of the disk now.
    pub size: u64,
    /// Bytes read to learn what differs.
    pub read: u64,
    /// Bytes written, zeros included.
    pub written: u64,
}

/// What was begun, and the bytes read of each image.
type Begun = (GotoRecord, Vec<u64>);

impl Store {
    /// Makes every image hold its target. An error rolls all of them back; where that fails too they stay marked, and
    /// `resume_goto` takes it up.
    pub fn goto(&self, targets: &[Target<'_>], progress: &Progress) -> Result<Vec<Went>> {
        let (record, read) = self.begin_goto(targets, progress)?;
        let files: Vec<&dyn DiskFile> = targets.iter().map(|t| t.file).collect();
        let result = self.write_all(&record, &files, GotoResult::Done, progress);
        match result {
            Ok(mut went) => {
                went.iter_mut()
                    .zip(read)
                    .for_each(|(w, read)| w.read = read);
                self.end_goto(record.uid, GotoResult::Done).map(|()| went)
            }
            Err(e) => Err(self.roll_back(&record, &files, e)),
        }
    }

    /// Takes up a goto that was cut off: makes every image hold its target, or what it held before. The files are in
    /// the order of the record's devices, their locks held for writing.
    pub fn resume_goto(
        &self,
        record: &GotoRecord,
        files: &[&dyn DiskFile],
        to: GotoResult,
        progress: &Progress,
    ) -> Result<Vec<Went>> {
        for (device, file) in record.devices.iter().zip(files) {
            self.check_outside(device, *file, progress)?;
        }
        let went = self.write_all(record, files, to, progress)?;
        self.end_goto(record.uid, to).map(|()| went)
    }

    fn begin_goto(&self, targets: &[Target<'_>], progress: &Progress) -> Result<Begun> {
        let uid = self.new_uid();
        let mut writer = Writer::new(self, SessionKind::Writer, Purse::Free)?;
        let begun = self.begin_with(&mut writer, uid, targets, progress);
        if begun.is_err() {
            // What made it fail is what the caller is to hear.
            writer.abandon().unwrap_or_default();
        }
        begun
    }

    fn begin_with(
        &self,
        writer: &mut Writer<'_>,
        uid: Uid,
        targets: &[Target<'_>],
        progress: &Progress,
    ) -> Result<Begun> {
        let mut tries = 0;
        loop {
            let catalog = self.catalog();
            let mut inputs = Vec::with_capacity(targets.len());
            for t in targets {
                let parent = t.parent.filter(|p| catalog.reachable(&p.root));
                inputs.push(Input {
                    file: t.file,
                    size: t.file.len()?,
                    parent,
                    changed: None,
                });
            }
            let ingested = writer.ingest(&inputs, progress)?;
            let devices: Vec<GotoDevice> = targets
                .iter()
                .zip(&ingested)
                .map(|(t, i)| GotoDevice {
                    device: t.device,
                    undo: i.content,
                    undo_base: t.base,
                    target: t.target,
                    snapshot: t.snapshot,
                })
                .collect();
            writer.flush()?;
            writer.publish()?;
            let mut pairs = devices.iter().zip(targets);
            match pairs.try_for_each(|(device, t)| self.check_target(device, t)) {
                Ok(()) => {}
                Err(e) if may_be_dropped(&e) && tries < TRIES && writer.forget_gone()? => {
                    tries += 1;
                    continue;
                }
                Err(e) => return Err(self.or_deleted(e, targets)?),
            }
            let record = GotoRecord { uid, devices };
            match writer.finish(&mut |_| {
                Ok(vec![Op::GotoBegin {
                    record: record.clone(),
                }])
            }) {
                Ok(_) => return Ok((record, ingested.iter().map(|i| i.counts.read).collect())),
                Err(e) if tries < TRIES && writer.forget(&e)? => tries += 1,
                Err(e) => return Err(e),
            }
        }
    }

    /// What failed, or that a target was deleted meanwhile.
    fn or_deleted(&self, e: Error, targets: &[Target<'_>]) -> Result<Error> {
        let now = self.refresh()?;
        if targets.iter().all(|t| now.snapshot(&t.snapshot).is_some()) {
            return Ok(e);
        }
        Ok(Error::new(ErrorKind::NotFound, "going to a snapshot")
            .detail("it was deleted meanwhile; no image was touched")
            .hint("`still list` shows what there is"))
    }

    /// Everything that will be written is there, before anything is.
    fn check_target(&self, device: &GotoDevice, t: &Target<'_>) -> Result<()> {
        if t.fixed_size && device.undo.size != device.target.size {
            let (has, needs) = (device.undo.size, device.target.size);
            let why = format!("the block device has {has} bytes, the snapshot {needs}");
            return Err(Error::invalid("going to a snapshot", why));
        }
        let mut hashes = Vec::new();
        self.each_change(device.undo, device.target, &mut |_, _, child| {
            if let Child::Hash(hash) = child {
                hashes.push(hash);
            }
            if hashes.len() >= WINDOW {
                self.check_there(std::mem::take(&mut hashes))
            } else {
                Ok(())
            }
        })?;
        self.check_there(hashes)
    }

    fn check_there(&self, hashes: Vec<Hash>) -> Result<()> {
        let set = HashSet::new(hashes);
        self.on_settled(|catalog| {
            let found = self.resolver(catalog).find(&set)?;
            let missing = found.iter().filter(|p| p.is_none()).count();
            if missing == 0 {
                return Ok(());
            }
            let why = format!(
                "{missing} clusters of the snapshot are in no live pack; no image was touched"
            );
            Err(Error::corrupt("going to a snapshot", why).hint("`still verify` lists all damage"))
        })
    }

    /// Writes what differs into all images in parallel, and syncs them.
    fn write_all(
        &self,
        record: &GotoRecord,
        files: &[&dyn DiskFile],
        to: GotoResult,
        progress: &Progress,
    ) -> Result<Vec<Went>> {
        let pairs: Vec<_> = record.devices.iter().zip(files).collect();
        let write = |(device, file): &(&GotoDevice, &&dyn DiskFile)| {
            let (old, new) = match to {
                GotoResult::Done => (device.undo, device.target),
                GotoResult::Undone => (device.target, device.undo),
            };
            let written = self.write_changes(old, new, **file, progress)?;
            Ok(Went {
                device: device.device,
                size: new.size,
                read: 0,
                written,
            })
        };
        pairs.par_iter().map(write).collect()
    }

    fn write_changes(
        &self,
        old: Content,
        new: Content,
        file: &dyn DiskFile,
        progress: &Progress,
    ) -> Result<u64> {
        let size = u64::from(self.geometry().cluster_bytes);
        if file.len()? != new.size {
            file.set_len(new.size)?;
            // ORDER: the size is durable before anything is written, so that a crash leaves the old one or the new one,
            // and any other means that somebody else was there.
            file.sync()?;
        }
        let write = |sink: &FileSink<'_>| self.write_difference(old, new, (file, sink), progress);
        FileSink::with(file, size, new.size, write).map(|((), written)| written)
    }

    fn write_difference(
        &self,
        old: Content,
        new: Content,
        (file, sink): (&dyn DiskFile, &FileSink<'_>),
        progress: &Progress,
    ) -> Result<()> {
        let size = u64::from(self.geometry().cluster_bytes);
        let mut fetcher = self.fetcher();
        let (mut wants, mut empties) = (Vec::new(), Vec::new());
        let empty = |(from, to, child): (u64, u64, Child)| match child {
            Child::Hole => file.punch(from, to),
            _ => sink.put_zeros(from, to),
        };
        let mut put = |wants: &mut Vec<Want>, empties: &mut Vec<_>| {
            Progress::add(&progress.bytes_total, wants.len() as u64 * size);
            // Where freed blocks are discarded at once, punching waits for the medium and takes longer than all else.
            let (emptied, damage) = rayon::join(
                || empties.drain(..).try_for_each(empty),
                || fetcher.fetch(wants, sink, progress),
            );
            wants.clear();
            emptied?;
            damage?.into_iter().next().map_or(Ok(()), |d| {
                let e = Error::corrupt("going to a snapshot", "a cluster cannot be read");
                Err(e.offset(d.cluster * size).source(d.why))
            })
        };
        self.each_change(old, new, &mut |cluster, count, child| {
            let (from, to) = (cluster * size, ((cluster + count) * size).min(new.size));
            match child {
                Child::Hash(hash) => wants.push(Want { cluster, hash }),
                _ if from < to => empties.push((from, to, child)),
                _ => {}
            }
            if wants.len() + empties.len() >= WINDOW {
                put(&mut wants, &mut empties)
            } else {
                Ok(())
            }
        })?;
        put(&mut wants, &mut empties)
    }

    /// Calls `f` with (first, count, child of `new`) for all that differs, in order. Holes and zeros come as runs as long
    /// as they are, whatever `old` has there: to punch one hole is dear, however long it is.
    fn each_change(
        &self,
        old: Content,
        new: Content,
        f: &mut dyn FnMut(u64, u64, Child) -> Result<()>,
    ) -> Result<()> {
        let size = u64::from(self.geometry().cluster_bytes);
        let nodes = self.nodes();
        let (a, b) = (old.size.div_ceil(size), new.size.div_ceil(size));
        let mut run: Option<(u64, u64, Child)> = None;
        diff(
            &nodes,
            old.root,
            a,
            &nodes,
            new.root,
            b,
            &mut |c| match &mut run {
                Some((first, count, child))
                    if *first + *count == c.first && *child == c.new && c.new.is_uniform() =>
                {
                    *count += c.count;
                    Ok(())
                }
                _ => match run.replace((c.first, c.count, c.new)) {
                    Some((first, count, child)) => f(first, count, child),
                    None => Ok(()),
                },
            },
        )?;
        run.map_or(Ok(()), |(first, count, child)| f(first, count, child))
    }

    fn end_goto(&self, uid: Uid, result: GotoResult) -> Result<()> {
        let ops = vec![Op::GotoEnd { uid, result }];
        self.log
            .commit_alone(SessionKind::Writer, Purse::Reserve, &mut |_, _| {
                Ok(ops.clone())
            })
            .map(|_| ())
    }

    /// Gives every image back what it held; returns the error to report.
    fn roll_back(&self, record: &GotoRecord, files: &[&dyn DiskFile], error: Error) -> Error {
        // Stopping was asked of the way forward, not of the way back.
        let undone = self
            .write_all(record, files, GotoResult::Undone, &Progress::default())
            .and_then(|_| self.end_goto(record.uid, GotoResult::Undone));
        match undone {
            Ok(()) => error,
            Err(second) => Error::new(error.kind(), "going to a snapshot, and undoing it")
                .detail(format!("{error}; then {second}"))
                .source(error)
                .hint("the devices are marked: mend the cause, then `still goto --undo` or `--finish`"),
        }
    }

    /// Refuses where the image differs from both contents outside of their difference: somebody has written since.
    fn check_outside(
        &self,
        device: &GotoDevice,
        file: &dyn DiskFile,
        progress: &Progress,
    ) -> Result<()> {
        let size = u64::from(self.geometry().cluster_bytes);
        let len = file.len()?;
        let doing = "taking up a goto that was cut off";
        if len != device.undo.size && len != device.target.size {
            let why =
                format!("the image has {len} bytes, neither what it had nor what it was to have");
            return Err(Error::new(ErrorKind::Busy, doing).detail(why));
        }
        let nodes = self.nodes();
        let (undo, target) = (device.undo.size, device.target.size);
        // A last cluster that is not whole is told apart only where both disks end in it at the same byte.
        let common = if undo == target {
            undo.div_ceil(size)
        } else {
            undo.min(target) / size
        };
        let step = COMPARE_BYTES / size;
        Progress::add(&progress.bytes_total, common * size);
        (0..common.div_ceil(step)).into_par_iter().try_for_each(|task| {
            progress.check()?;
            let range = task * step..((task + 1) * step).min(common);
            let mut undo = Walker::new(&nodes, device.undo.root, device.undo.size.div_ceil(size))?;
            let mut target = Walker::new(&nodes, device.target.root, device.target.size.div_ceil(size))?;
            let mut bytes = vec![0; size as usize];
            for cluster in range {
                let (a, b) = (undo.lookup(cluster)?, target.lookup(cluster)?);
                if a != b {
                    continue;
                }
                let n = file.read_at(cluster * size, &mut bytes)?;
                bytes[n..].fill(0);
                let same = match a {
                    Child::Hash(hash) => Hash::of(&bytes) == hash,
                    Child::Hole | Child::Zero => crate::ops::ingest::is_zero(&bytes),
                };
                if !same {
                    let why = "the image was written since the goto was cut off";
                    return Err(Error::new(ErrorKind::Busy, doing).offset(cluster * size).detail(why).hint(
                        "copy the image away; then restore the snapshot with `still export` where you want it",
                    ));
                }
            }
            Progress::add(&progress.bytes_done, COMPARE_BYTES);
            Ok(())
        })
    }
}
