//! A bundle on its way out.

use super::summary::Summary;
use crate::wire::edits::WINDOW_MAX;
use crate::wire::message::{Plan, Totals};
use crate::wire::outgoing::{announce, tell_contents};
use crate::wire::plan::{Cargo, Known, Wanted, find};
use crate::wire::{Message, Outgoing, Preamble, Purpose};
use std::io::Write;
use stillpoint_store::codec::EncodedFrame;
use stillpoint_store::format::manifest::Child;
use stillpoint_store::format::snapshot::SnapshotRecord;
use stillpoint_store::id::Hash;
use stillpoint_store::manifest::Run;
use stillpoint_store::ops::give::{Given, Giver};
use stillpoint_store::progress::Progress;
use stillpoint_store::store::Store;
use stillpoint_store::{Error, Result};

/// What is to be sent.
#[derive(Debug, Clone, Default)]
pub struct Send {
    /// Snapshots, as `D@S`.
    pub targets: Vec<String>,
    /// Snapshots that the receiver has: what is in them is left out.
    pub since: Vec<String>,
    /// What else the receiver has.
    pub summary: Option<Summary>,
    /// Changes told at a time; see [`crate::sync::Give`].
    pub window_max: Option<usize>,
}

/// What was sent.
#[derive(Debug, Clone)]
pub struct Sent {
    /// Device, id and name of each snapshot.
    pub snapshots: Vec<(String, Vec<u8>, Vec<u8>)>,
    /// Clusters in it.
    pub clusters: u64,
    /// Bytes of their frames.
    pub frame_bytes: u64,
    /// Bytes of the bundle.
    pub bytes: u64,
}

/// Writes a bundle of the snapshots. They are pinned meanwhile.
pub fn send(store: &Store, send: &Send, out: impl Write, progress: &Progress) -> Result<Sent> {
    Wanted::only_snapshots(&send.targets)?;
    Wanted::only_snapshots(&send.since)?;
    if send.targets.is_empty() {
        return Err(Error::invalid("sending snapshots", "none is named"));
    }
    let catalog = store.refresh()?;
    let wanted = Wanted::parse(&catalog, &send.targets)?;
    let mut known = Known::default();
    if let Some(summary) = &send.summary {
        summary.check_clusters(store.geometry())?;
        // A snapshot that is there comes again all the same: who has it passes it over.
        known.roots.clone_from(&summary.known().roots);
    }
    for since in &send.since {
        if let (_, Some(snapshot)) = find(&catalog, since)? {
            known.roots.extend(snapshot.record.roots());
        }
    }
    let cargo = Cargo::plan(&catalog, &wanted, &known, false);
    let _pin = store.pin(&cargo.contents())?;
    let preamble = Preamble {
        purpose: Purpose::Bundle,
        store: store.id(),
        id: store.new_uid(),
        geometry: store.geometry(),
    };
    let mut sending = Sending {
        store,
        summary: send.summary.as_ref(),
        window_max: send.window_max.unwrap_or(WINDOW_MAX),
        out: Outgoing::begin(out, &preamble)?,
        given: Given::default(),
        totals: Totals::default(),
        frame_bytes: 0,
        progress,
    };
    sending.run(&cargo)?;
    let told = |r: &SnapshotRecord| {
        let device = catalog.device(&r.device).map(|d| d.name.clone());
        (device.unwrap_or_default(), r.id.clone(), r.name.clone())
    };
    Ok(Sent {
        snapshots: cargo.records.iter().map(told).collect(),
        clusters: sending.totals.clusters,
        frame_bytes: sending.frame_bytes,
        bytes: sending.out.bytes(),
    })
}

struct Sending<'a, W> {
    store: &'a Store,
    summary: Option<&'a Summary>,
    window_max: usize,
    out: Outgoing<W>,
    given: Given,
    totals: Totals,
    frame_bytes: u64,
    progress: &'a Progress,
}

impl<W: Write> Sending<'_, W> {
    fn run(&mut self, cargo: &Cargo) -> Result<()> {
        self.put(&Message::Plan(Plan::default()))?;
        announce(cargo, |message| self.put(&message))?;
        let trees = self.store.trees();
        let mut giver = self.store.giver();
        self.totals.contents = cargo.steps.len() as u64;
        let window_max = self.window_max;
        let windows = tell_contents(&trees, &cargo.steps, window_max, &mut |message| {
            if let Message::Edits(edits) = &message {
                self.frames(&mut giver, &edits.runs)?;
            }
            self.put(&message)
        })?;
        self.totals.windows = windows;
        self.put(&Message::End(self.totals))?;
        self.out.flush()
    }

    /// The clusters of a window, before it: who reads it can tell at once whether all are there.
    fn frames(&mut self, giver: &mut Giver<'_>, runs: &[Run]) -> Result<()> {
        let lacks = |hash: &Hash| self.summary.is_none_or(|summary| summary.lacks(hash));
        let hashes = runs.iter().filter_map(|run| match run.child {
            Child::Hash(hash) => Some(hash).filter(lacks),
            Child::Hole | Child::Zero => None,
        });
        let wanted: Vec<Hash> = hashes.collect();
        let size = u64::from(self.store.geometry().cluster_bytes);
        Progress::add(&self.progress.bytes_total, wanted.len() as u64 * size);
        let (out, totals, frame_bytes) = (&mut self.out, &mut self.totals, &mut self.frame_bytes);
        let stored = &self.progress.bytes_stored;
        let mut send = |frame: EncodedFrame| {
            totals.clusters += u64::from(frame.items);
            *frame_bytes += frame.bytes.len() as u64;
            Progress::add(stored, frame.bytes.len() as u64);
            let (kind, payload) = Message::Frame(frame.bytes).encode();
            out.put(kind, 0, &payload)
        };
        giver.frames(wanted, Some(&mut self.given), &mut send, self.progress)
    }

    fn put(&mut self, message: &Message) -> Result<()> {
        let (kind, payload) = message.encode();
        self.out.put(kind, 0, &payload)
    }
}
