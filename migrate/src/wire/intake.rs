//! The receiving side of a bundle and of a sync: what the messages say, taken in, and one entry at the end.

use super::consent::Consent;
use super::draft::{Draft, check_free, check_unmarked};
use super::edits::Edits;
use super::message::{Base, Device, Message, Plan, Step};
use super::outcome::Outcome;
use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::sync::Arc;
use stillpoint_store::catalog::Catalog;
use stillpoint_store::format::entry::Content;
use stillpoint_store::format::snapshot::SnapshotRecord;
use stillpoint_store::id::{Hash, Uid};
use stillpoint_store::log::salvage::DEVICE_LABEL;
use stillpoint_store::ops::ingest::{Arrived, Taker};
use stillpoint_store::progress::Progress;
use stillpoint_store::store::Store;
use stillpoint_store::{Error, ErrorKind, Result};

pub(super) const DOING: &str = "receiving snapshots";
/// LIMIT: bytes of all records and devices, which one log entry must hold.
const RECORDS_BYTES_MAX: usize = 32 << 20;
/// LIMIT: hashes that are remembered as missing; those beyond are asked for the next time.
pub const MISSING_MAX: usize = 1 << 20;

/// How the end was.
pub enum Finished {
    /// Everything is there, in one entry.
    Done(Outcome),
    /// These clusters are neither here nor did they come; nothing was committed. What came is kept.
    Lacking {
        /// Sorted.
        hashes: Vec<Hash>,
        /// All of them, also those that were too many to remember.
        count: u64,
    },
}

/// Contents that are being told.
struct Open {
    step: Step,
    now: Content,
    /// A change could not be made, since a cluster is missing: the rest is only looked through.
    given_up: bool,
}

/// See the module.
pub struct Intake<'a> {
    store: &'a Store,
    taker: Taker<'a>,
    /// Names that devices are given here.
    renames: BTreeMap<String, String>,
    /// Those of which no device came yet.
    unused: BTreeSet<String>,
    consent: Consent,
    /// The devices that were asked for, by the sender's names; all where it is none.
    only: BTreeSet<String>,
    plan: Option<Plan>,
    /// What was here when it began.
    begun: Arc<Catalog>,
    devices: Vec<Device>,
    records: Vec<SnapshotRecord>,
    uids: HashSet<Uid>,
    records_bytes: usize,
    open: Option<Open>,
    /// Roots that devices and snapshots name and that were not told yet.
    untold: HashSet<Hash>,
    /// Roots of contents that are here whole: reachable, or taken in.
    whole: HashSet<Hash>,
    windows: u32,
    missing: BTreeSet<Hash>,
    missing_count: u64,
    clusters: u64,
}

impl<'a> Intake<'a> {
    /// Nothing is written before something arrives that the store lacks. `renames`: devices that get another name here.
    pub fn new(
        store: &'a Store,
        renames: BTreeMap<String, String>,
        consent: Consent,
    ) -> Result<Self> {
        Ok(Self {
            store,
            taker: Taker::new(store)?,
            unused: renames.keys().cloned().collect(),
            renames,
            consent,
            only: BTreeSet::new(),
            plan: None,
            begun: store.catalog(),
            devices: Vec::new(),
            records: Vec::new(),
            uids: HashSet::new(),
            records_bytes: 0,
            open: None,
            untold: HashSet::new(),
            whole: HashSet::new(),
            windows: 0,
            missing: BTreeSet::new(),
            missing_count: 0,
            clusters: 0,
        })
    }

    /// Refuses devices that are not called so at the sender.
    pub fn only(&mut self, names: BTreeSet<String>) {
        self.only = names;
    }

    /// That it was asked for; of a mirror, which deletes, also that it is the one that is called so here.
    fn check_asked(&self, told: &str, here: Option<&str>) -> Result<()> {
        if self.only.is_empty() {
            return Ok(());
        }
        let refused = Error::new(ErrorKind::Refused, DOING);
        if !self.only.contains(told) {
            let why = format!("device {told:?} comes, which nobody asked for");
            return Err(refused.detail(why));
        }
        let name = self.renames.get(told).map_or(told, String::as_str);
        match here.filter(|here| self.planned().mirror && *here != name) {
            None => Ok(()),
            Some(here) => Err(refused
                .detail(format!("device {told:?} of the sender is {here:?} here"))
                .hint(format!("if that is meant, say --as {told}={here}"))),
        }
    }

    /// Whether nothing is to be stored.
    pub fn is_dry_run(&self) -> bool {
        self.planned().dry_run
    }

    fn planned(&self) -> Plan {
        self.plan.unwrap_or_default()
    }

    /// Clusters asked for that have not arrived.
    pub fn awaited(&self) -> usize {
        self.taker.awaited()
    }

    /// What is common to all streams; the rest is the caller's.
    pub fn take(&mut self, message: Message) -> Result<()> {
        match message {
            Message::Plan(plan) => self.plan(plan),
            Message::Base(base) => self.base(&base),
            Message::Device(device) => self.device(device),
            Message::Snapshot(record) => self.snapshot(record),
            Message::Content(step) => self.begin(step),
            Message::ContentEnd => self.end(),
            Message::Failed(failed) => Err(failed.error()),
            other => Err(other.out_of_turn()),
        }
    }

    /// ORDER: before all else, and once: what was only looked through under one plan is not to be stored under another.
    fn plan(&mut self, plan: Plan) -> Result<()> {
        let first = self.plan.is_none() && self.devices.is_empty() && self.whole.is_empty();
        if !first || self.open.is_some() || self.windows > 0 {
            return Err(Message::Plan(plan).out_of_turn());
        }
        self.consent.check(plan)?;
        self.plan = Some(plan);
        Ok(())
    }

    fn base(&mut self, base: &Base) -> Result<()> {
        let root = base.content.root;
        if self.store.catalog().reachable(&root) {
            self.rely_on(root);
            return Ok(());
        }
        if self.begun.reachable(&root) {
            let why = format!("{} was deleted here meanwhile", base.name);
            return Err(Error::new(ErrorKind::Busy, DOING)
                .detail(why)
                .hint("do it again"));
        }
        let why = format!("it builds on {}, which this store does not have", base.name);
        let hint = "send it without --since, or since a snapshot that both stores have";
        Err(Error::new(ErrorKind::Refused, DOING).detail(why).hint(hint))
    }

    fn rely_on(&mut self, root: Hash) {
        if self.whole.insert(root) {
            self.taker.rely_on(root);
        }
    }

    fn device(&mut self, mut device: Device) -> Result<()> {
        self.count_bytes(device.name.len() + 16 * device.snapshots.len())?;
        let catalog = self.store.catalog();
        let told = device.name.clone();
        self.unused.remove(&told);
        let here = catalog.device(&device.uid).map(|d| d.name.as_str());
        self.check_asked(&told, here)?;
        if let Some(known) = catalog.device(&device.uid) {
            check_unmarked(known.in_goto.is_some(), &known.name)?;
            device.name.clone_from(&known.name);
        } else {
            if let Some(name) = self.renames.get(&told) {
                device.name.clone_from(name);
            }
            stillpoint_api::check_device_name(&device.name)?;
            check_free(&catalog, &device)?;
        }
        if self
            .devices
            .iter()
            .any(|d| d.uid == device.uid || d.name == device.name)
        {
            return Err(Error::corrupt(DOING, "a device comes twice"));
        }
        self.untold.extend(device.head.map(|(head, _)| head.root));
        self.devices.push(device);
        Ok(())
    }

    fn snapshot(&mut self, mut record: SnapshotRecord) -> Result<()> {
        let extra = record.extra.len() + record.id.len() + record.name.len();
        let labels: usize = record.labels.iter().map(|(k, v)| k.len() + v.len()).sum();
        self.count_bytes(256 + extra + labels)?;
        let Some(device) = self.devices.iter().find(|d| d.uid == record.device) else {
            return Err(Error::corrupt(
                DOING,
                "a snapshot is of no device that came",
            ));
        };
        if !self.uids.insert(record.uid) {
            return Err(Error::corrupt(DOING, "a snapshot comes twice"));
        }
        if record.labels.contains_key(DEVICE_LABEL) {
            record
                .labels
                .insert(DEVICE_LABEL.into(), device.name.clone());
        }
        let catalog = self.store.catalog();
        if let Some(known) = catalog.snapshot(&record.uid) {
            let (ours, theirs) = (&known.record, &record);
            if ours.content != theirs.content || ours.vm_state != theirs.vm_state {
                let why = format!("snapshot {} is here with other contents", record.uid);
                return Err(Error::corrupt(DOING, why));
            }
        }
        for root in record.roots().filter(|root| catalog.reachable(root)) {
            self.rely_on(root);
        }
        self.untold.extend(record.roots());
        self.records.push(record);
        Ok(())
    }

    fn count_bytes(&mut self, more: usize) -> Result<()> {
        self.records_bytes += more;
        if self.records_bytes <= RECORDS_BYTES_MAX {
            return Ok(());
        }
        Err(Error::new(ErrorKind::LimitExceeded, DOING)
            .detail("there are more snapshots than one log entry can hold")
            .hint("send them a device, or some snapshots, at a time"))
    }

    fn begin(&mut self, step: Step) -> Result<()> {
        if self.open.is_some() {
            return Err(Error::corrupt(
                DOING,
                "contents begin before the ones before them end",
            ));
        }
        self.check_renames()?;
        if !self.is_dry_run() {
            self.taker.claim()?;
        }
        // LIMIT: so there are no more contents than snapshots and heads.
        if !self.untold.remove(&step.content.root) {
            let why = "contents come that nothing has, or twice";
            return Err(Error::corrupt(DOING, why));
        }
        let mut given_up = false;
        let now = match step.base {
            Some(base) if self.whole.contains(&base.root) => {
                if !self.is_dry_run() {
                    self.taker.check_size(base)?;
                }
                base
            }
            // What it builds on is among what could not be taken in.
            Some(base) if self.missing_count > 0 => {
                given_up = true;
                base
            }
            Some(_) => {
                return Err(Error::corrupt(DOING, "contents build on what did not come"));
            }
            None if self.is_dry_run() => Content {
                root: Hash([0; 32]),
                size: 0,
            },
            None => self.taker.empty(step.content.size)?,
        };
        self.open = Some(Open {
            step,
            now,
            given_up,
        });
        Ok(())
    }

    /// Refuses other names for devices that do not come.
    fn check_renames(&self) -> Result<()> {
        let Some(name) = self.unused.first() else {
            return Ok(());
        };
        let why = format!("no device {name:?} comes, which is to have another name here");
        Err(Error::invalid(DOING, why).hint("look at --as"))
    }

    /// Changes of which all clusters are here or were asked for; returns for each hash whether it was asked for now, or would
    /// be if this were no dry run.
    pub fn ask(&mut self, edits: &Edits) -> Result<Vec<bool>> {
        self.check_window(edits)?;
        if self.is_dry_run() {
            let lacking = self.taker.count(&edits.hashes())?;
            return self.apply(edits).map(|()| lacking);
        }
        let lacking = self.taker.ask(&edits.hashes())?;
        self.apply(edits)?;
        Ok(lacking)
    }

    /// Changes whose clusters came before them, if they came.
    pub fn check(&mut self, edits: &Edits) -> Result<()> {
        self.check_window(edits)?;
        let missing = self.taker.missing(&edits.hashes())?;
        if !missing.is_empty() {
            if let Some(open) = &mut self.open {
                open.given_up = true;
            }
            for hash in missing {
                if self.missing.len() < MISSING_MAX {
                    self.missing_count += u64::from(self.missing.insert(hash));
                } else {
                    self.missing_count += u64::from(!self.missing.contains(&hash));
                }
            }
        }
        self.apply(edits)
    }

    fn check_window(&mut self, edits: &Edits) -> Result<()> {
        if edits.window != self.windows {
            return Err(Error::corrupt(DOING, "a window is missing"));
        }
        self.windows = self.windows.wrapping_add(1);
        Ok(())
    }

    fn apply(&mut self, edits: &Edits) -> Result<()> {
        let Some(open) = &mut self.open else {
            return Err(Error::corrupt(DOING, "changes of no contents"));
        };
        if open.given_up || self.plan.is_some_and(|plan| plan.dry_run) {
            return Ok(());
        }
        let size = open.step.content.size;
        open.now = self
            .taker
            .edit(open.now, size, edits.runs.iter().copied())?;
        // What was found here and is counted on now must not go while the rest is on its way.
        self.taker.hold()
    }

    fn end(&mut self) -> Result<()> {
        let Some(open) = self.open.take() else {
            return Err(Error::corrupt(DOING, "contents end that did not begin"));
        };
        if open.given_up {
            return Ok(());
        }
        if !self.is_dry_run() {
            // Without any change the size may still be another.
            let now = if open.now.size == open.step.content.size {
                open.now
            } else {
                let none = std::iter::empty();
                self.taker.edit(open.now, open.step.content.size, none)?
            };
            if now.root != open.step.content.root {
                let why = "the manifest that was told is not the one that the snapshot names";
                return Err(Error::corrupt(DOING, why));
            }
        }
        self.whole.insert(open.step.content.root);
        Ok(())
    }

    /// A frame, of which what was asked for is stored.
    pub fn answer(&mut self, frame: Arrived, progress: &Progress) -> Result<()> {
        let before = self.taker.stored_bytes();
        let kept = self.taker.answer(frame)?;
        self.count(kept, before, progress);
        Ok(())
    }

    /// A frame, of which what the store lacks is stored.
    pub fn offer(&mut self, frame: Arrived, progress: &Progress) -> Result<()> {
        let before = self.taker.stored_bytes();
        let kept = self.taker.offer(frame)?;
        self.count(kept, before, progress);
        Ok(())
    }

    fn count(&mut self, kept: u64, before: u64, progress: &Progress) {
        self.clusters += kept;
        let bytes = kept * u64::from(self.store.geometry().cluster_bytes);
        Progress::add(&progress.bytes_done, bytes);
        Progress::add(&progress.bytes_stored, self.taker.stored_bytes() - before);
    }

    /// Clusters that would have come: a dry run leaves nothing.
    pub fn dry(self, asked: u64) -> Result<Outcome> {
        self.check_renames()?;
        let catalog = self.store.catalog();
        let mut outcome = Outcome {
            clusters: asked,
            ..Outcome::default()
        };
        let mut draft = self.draft();
        draft.ops(&catalog, &mut outcome)?;
        self.taker.discard()?;
        Ok(outcome)
    }

    /// One durable entry with all snapshots, unless something is missing.
    pub fn finish(mut self) -> Result<Finished> {
        match self.commit() {
            Ok(Some(outcome)) => Ok(Finished::Done(outcome)),
            Ok(None) => {
                let hashes = std::mem::take(&mut self.missing).into_iter().collect();
                let count = self.missing_count;
                self.taker.keep()?;
                Ok(Finished::Lacking { hashes, count })
            }
            Err(e) => Err(self.give_up(e)),
        }
    }

    /// `None` where something is missing.
    fn commit(&mut self) -> Result<Option<Outcome>> {
        if self.open.is_some() {
            return Err(Error::corrupt(DOING, "it ends in the middle of contents"));
        }
        self.check_renames()?;
        if self.missing_count > 0 {
            return Ok(None);
        }
        self.check_contents()?;
        let catalog = self.store.catalog();
        let new = |r: &&SnapshotRecord| catalog.snapshot(&r.uid).is_none();
        let mut draft = self.draft();
        let mut outcome = Outcome::default();
        if draft.ops(&catalog, &mut outcome)?.is_empty() {
            self.taker.end()?;
            return Ok(Some(outcome));
        }
        let fresh: Vec<SnapshotRecord> = self.records.iter().filter(new).cloned().collect();
        self.taker.commit(&fresh, &mut |catalog| {
            outcome = Outcome::default();
            draft.ops(catalog, &mut outcome)
        })?;
        outcome.clusters = self.clusters;
        outcome.stored_bytes = self.taker.stored_bytes();
        Ok(Some(outcome))
    }

    /// All that is to count is here, in the size that it says. Also what is here already, since that may go meanwhile.
    fn check_contents(&self) -> Result<()> {
        let heads = self
            .devices
            .iter()
            .filter_map(|d| d.head.map(|head| head.0));
        let heads = heads.filter(|head| self.whole.contains(&head.root));
        let own = |r: &SnapshotRecord| std::iter::once(r.content).chain(r.vm_state);
        let all: HashSet<Content> = self.records.iter().flat_map(own).chain(heads).collect();
        for content in all {
            if !self.whole.contains(&content.root) {
                return Err(Error::corrupt(DOING, "a snapshot's contents did not come"));
            }
            self.taker.check_size(content)?;
        }
        Ok(())
    }

    /// Gives up; what arrived is found by the next try. Returns the error that the caller is to hear.
    pub fn give_up(self, error: Error) -> Error {
        let error = self.taker.explain(error);
        let ended = if self.is_dry_run() {
            self.taker.discard()
        } else {
            self.taker.keep()
        };
        // What made it fail comes before what came of giving up.
        ended.unwrap_or_default();
        error
    }

    fn draft(&self) -> Draft {
        Draft {
            mirror: self.planned().mirror,
            begun: self.begun.clone(),
            devices: self.devices.clone(),
            records: self.records.clone(),
            whole: self.whole.clone(),
        }
    }
}
