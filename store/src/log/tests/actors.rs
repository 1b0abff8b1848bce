//! The actors of `protocol`: each does what an operation of the engine does, reduced to names and sets.

use super::protocol::{CLUSTERS, Process, Set, Sim, root_of, set_of};
use crate::catalog::{Catalog, Invalid, PackState};
use crate::error::{Error, Result};
use crate::format::entry::{
    Content, GotoDevice, GotoRecord, GotoResult, Op, PackKind, PackRecord, SessionKind,
};
use crate::format::snapshot::SnapshotRecord;
use crate::id::{Hash, PackName, SessionId, Uid};
use crate::log::{Durability, Session, invalid, is_unclear};
use crate::object::{Objects, Purse};
use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::Poll;

/// What some seed must have seen, else the runs prove little.
pub const EVENTS: [&str; 15] = [
    "dead slot",
    "crash",
    "lost reply",
    "snapshot",
    "found again",
    "parent gone",
    "expired",
    "session ended",
    "compacted",
    "compact refused",
    "swept",
    "goto",
    "goto finished",
    "head",
    "device moved",
];

const DEVICES: u8 = 6;

/// Lets the others go on.
async fn pause() {
    let mut paused = false;
    std::future::poll_fn(|_| {
        if std::mem::replace(&mut paused, true) {
            Poll::Ready(())
        } else {
            Poll::Pending
        }
    })
    .await;
}

fn device(n: usize) -> Uid {
    Uid([n as u8 + 200; 16])
}

/// The devices exist before anybody acts.
pub fn prepare(sim: &Sim) {
    let Some(process) = sim.process() else { return };
    let ops: Vec<Op> = (0..DEVICES)
        .map(|n| Op::PutDevice {
            uid: device(n.into()),
            name: format!("{n}"),
            attachment: None,
        })
        .collect();
    let done = alone(&process, &mut |_| Ok(ops.clone()));
    done.expect("nobody else is there");
    sim.rest(process);
}

/// An actor of a random kind.
pub fn any(sim: &Rc<Sim>) -> Pin<Box<dyn Future<Output = ()>>> {
    let sim = sim.clone();
    match sim.below(24) {
        0..6 => Box::pin(writer(sim)),
        6..10 => Box::pin(gc(sim)),
        10..13 => Box::pin(deleter(sim)),
        13..15 => Box::pin(sweeper(sim)),
        15..18 => Box::pin(expirer(sim)),
        18..21 => Box::pin(goer(sim)),
        21 => Box::pin(finisher(sim)),
        22 => Box::pin(toucher(sim)),
        _ => Box::pin(header(sim)),
    }
}

fn alone(
    process: &Process,
    plan: &mut dyn FnMut(&Catalog) -> Result<Vec<Op>>,
) -> Result<Arc<Catalog>> {
    process
        .log
        .commit_alone(SessionKind::Writer, Purse::Free, &mut |catalog, _| {
            plan(catalog)
        })
}

fn content(set: Set) -> Content {
    Content {
        root: root_of(set),
        size: 1,
    }
}

fn clusters(set: Set) -> impl Iterator<Item = Set> {
    (0..CLUSTERS)
        .map(|bit| 1 << bit)
        .filter(move |one| set & one != 0)
}

fn roots(catalog: &Catalog) -> Vec<Hash> {
    catalog.snapshots().map(|s| s.record.content.root).collect()
}

/// A session's packs and hits while it takes a set of clusters in.
struct Intake<'a> {
    sim: &'a Sim,
    process: &'a Process,
    session: SessionId,
    /// Packs written and not yet published.
    mine: Vec<PackRecord>,
    written: u32,
    /// Clusters found in packs of others.
    hits: BTreeMap<Set, PackName>,
}

impl<'a> Intake<'a> {
    fn new(sim: &'a Sim, process: &'a Process, session: &Session) -> Self {
        let session = session.id();
        Self {
            sim,
            process,
            session,
            mine: Vec::new(),
            written: 0,
            hits: BTreeMap::new(),
        }
    }

    /// A new pack.
    fn store(&mut self, set: Set) {
        if set == 0 {
            return;
        }
        let n = self.written;
        self.written += 1;
        let name = PackName {
            session: self.session,
            n,
        };
        self.sim
            .store
            .set_at_rest(&name.key(), Some(set.to_le_bytes().to_vec()));
        let hash = Hash([0; 32]);
        let kind = PackKind::Clusters;
        self.mine.push(PackRecord {
            n,
            kind,
            hash,
            size: 2,
            entries: 1,
            blocks: 1,
        });
    }

    /// Looks each cluster up in packs that are live as far as this process knows; stores what it does not find.
    fn take_in(&mut self, set: Set) {
        let catalog = self.process.log.current();
        let mut new = 0;
        for one in clusters(set) {
            let holds = |p: &&Arc<PackState>| {
                p.name.session != self.session
                    && self.sim.bytes_of(&p.name).is_some_and(|set| set & one != 0)
            };
            let found: Vec<PackName> = catalog.packs().filter(holds).map(|p| p.name).collect();
            match self.sim.pick(&found) {
                Some(pack) if self.sim.percent(90) => drop(self.hits.insert(one, pack)),
                _ => new |= one,
            }
        }
        self.store(new);
    }

    /// Stores the clusters whose packs were dropped meanwhile; tells which.
    fn store_lost(&mut self) -> Set {
        let Ok(catalog) = self.process.log.refresh() else {
            return 0;
        };
        let gone = |pack: &PackName| catalog.pack(pack).is_none();
        let lost: Set = self
            .hits
            .iter()
            .filter(|(_, p)| gone(p))
            .map(|(one, _)| one)
            .sum();
        self.hits.retain(|_, pack| !gone(pack));
        self.store(lost);
        self.sim.count("found again");
        lost
    }

    fn packs(&self) -> Vec<PackName> {
        BTreeSet::from_iter(self.hits.values().copied())
            .into_iter()
            .collect()
    }

    fn publish(&self) -> Op {
        Op::Publish {
            packs: self.mine.clone(),
        }
    }

    fn rely(&self, parent: Option<Hash>) -> Op {
        Op::Rely {
            packs: self.packs(),
            roots: parent.into_iter().collect(),
        }
    }
}

/// What to do after a commit of an open session failed.
enum After {
    FindAgain,
    ParentGone,
    GiveUp,
}

fn after(sim: &Sim, session: &Session, e: &Error) -> After {
    if is_unclear(e) {
        sim.unclear(&session.id());
    }
    sim.error("committing", e);
    match invalid(e) {
        Some(Invalid::PackNotLive(_)) => After::FindAgain,
        Some(Invalid::RootNotReachable(_)) => After::ParentGone,
        Some(Invalid::SessionNotOpen(_)) => {
            sim.count("session ended");
            After::GiveUp
        }
        _ => After::GiveUp,
    }
}

fn commit(
    process: &Process,
    session: &mut Session,
    plan: &mut dyn FnMut(&Catalog) -> Vec<Op>,
) -> Result<Arc<Catalog>> {
    let plan = &mut |catalog: &Catalog| Ok(plan(catalog));
    process
        .log
        .commit(session, Purse::Free, Durability::Now, plan)
}

fn open(process: &Process, kind: SessionKind, ops: &[Op]) -> Option<Session> {
    process
        .log
        .open_session(kind, Purse::Free, &mut |_| Ok(ops.to_vec()))
        .ok()
}

fn snapshot(sim: &Sim, maker: Uid, device: Uid, set: Set) -> SnapshotRecord {
    SnapshotRecord {
        uid: sim.uid(),
        device,
        id: b"1".to_vec(),
        name: Vec::new(),
        date_sec: 0,
        date_nsec: 0,
        vm_clock_nsec: 0,
        icount: None,
        vm_state: None,
        content: content(set),
        group: Some(maker),
        parent: None,
        extra: Vec::new(),
        labels: BTreeMap::new(),
    }
}

/// Gotos begun on the device that nobody has its image of.
fn begun(catalog: &Catalog, device: &Uid) -> u64 {
    catalog.device(device).map_or(0, |d| d.gotos_begun)
}

/// Takes a disk in, with or without a parent, publishing and pinning on the way, and makes a snapshot of it.
async fn writer(sim: Rc<Sim>) {
    let Some(process) = sim.process() else { return };
    let mut parent = sim
        .pick(&roots(&process.log.current()))
        .filter(|_| sim.percent(60));
    let pins = sim.percent(50);
    pause().await;
    let pin: Vec<Op> = match parent {
        Some(root) if pins => vec![Op::Pin {
            packs: vec![],
            roots: vec![root],
        }],
        _ => vec![],
    };
    let Some(mut session) = open(&process, SessionKind::Writer, &pin) else {
        return;
    };
    pause().await;
    let from_parent = parent.map_or(0, |root| set_of(&root));
    let set = sim.some_set(6) | (from_parent & sim.some_set(8));
    let mut known = set & from_parent;
    let mut intake = Intake::new(&sim, &process, &session);
    // A source that is read once: what was let go cannot be stored again.
    let mut source = set;
    for part in [0x1555, 0x2AAA] {
        intake.take_in(set & !known & part);
        pause().await;
        if sim.percent(30) {
            let publish = intake.publish();
            if commit(&process, &mut session, &mut |_| vec![publish.clone()]).is_err() {
                return;
            }
            intake.mine.clear();
        }
        if sim.percent(25) {
            pause().await;
            let pin = Op::Pin {
                packs: intake.packs(),
                roots: vec![],
            };
            match commit(&process, &mut session, &mut |_| vec![pin.clone()]) {
                Ok(_) => source &= !intake.hits.keys().sum::<Set>(),
                Err(e) => match after(&sim, &session, &e) {
                    After::FindAgain => drop(intake.store_lost()),
                    _ => return,
                },
            }
        }
    }
    let (maker, device) = (sim.uid(), device(sim.below(DEVICES.into())));
    loop {
        pause().await;
        let cheap = parent.filter(|_| !pins);
        let mut uid = None;
        let mut plan = |catalog: &Catalog| {
            let record = snapshot(&sim, maker, device, set);
            uid = Some(record.uid);
            // Nobody writes the image that it read, which no device has.
            let gotos_begun = begun(catalog, &device);
            let put = Op::PutSnapshot {
                record,
                gotos_begun,
            };
            vec![intake.publish(), intake.rely(cheap), put, Op::Close]
        };
        let done = commit(&process, &mut session, &mut plan);
        uid.iter().for_each(|uid| sim.told(uid, &done));
        let Err(e) = done else {
            sim.count("snapshot");
            process.log.ended(session);
            return sim.rest(process);
        };
        match after(&sim, &session, &e) {
            After::FindAgain => {
                let lost = intake.store_lost();
                if lost & !source != 0 {
                    return sim.fail(format!("{} needs bytes that it let go", session.id()));
                }
            }
            After::ParentGone => {
                sim.count("parent gone");
                parent = None;
                intake.take_in(known);
                known = 0;
            }
            After::GiveUp => return,
        }
    }
}

/// Marks, rewrites what is still needed of some packs, drops them.
async fn gc(sim: Rc<Sim>) {
    let Some(process) = sim.process() else { return };
    let Some(mut session) = open(&process, SessionKind::Gc, &[]) else {
        return;
    };
    let catalog = process.log.current();
    let base = catalog.seq();
    let Some((dropped, kept, rewrite)) = choose(&sim, &catalog) else {
        return;
    };
    pause().await;
    let mut intake = Intake::new(&sim, &process, &session);
    intake.store(rewrite);
    pause().await;
    let compact = Op::Compact {
        base,
        new: intake.mine.clone(),
        dropped: dropped.clone(),
        kept: kept.into_iter().collect(),
    };
    if let Err(e) = commit(&process, &mut session, &mut |_| {
        vec![compact.clone(), Op::Close]
    }) {
        after(&sim, &session, &e);
        if invalid(&e).is_some() {
            sim.count("compact refused");
            process.log.close(session, Purse::Free).unwrap_or_default();
        }
        return;
    }
    sim.count("compacted");
    for pack in dropped {
        pause().await;
        sim.remove_pack(&pack);
    }
    sim.rest(process);
}

type Choice = (Vec<PackName>, BTreeSet<PackName>, Set);

/// Packs to drop, packs that have what is needed of them, and what none has.
fn choose(sim: &Sim, catalog: &Catalog) -> Option<Choice> {
    let marked = catalog
        .roots()
        .iter()
        .fold(0, |set, root| set | set_of(root));
    let spared = |p: &&Arc<PackState>| {
        (sim.rules.spare_open && catalog.session(&p.name.session).is_some())
            || (sim.rules.spare_pinned && catalog.pinned(&p.name))
    };
    let mut packs: Vec<(PackName, Set)> = catalog
        .packs()
        .filter(|p| !spared(p))
        .filter_map(|p| Some((p.name, sim.bytes_of(&p.name)?)))
        .collect();
    for i in (1..packs.len()).rev() {
        packs.swap(i, sim.below(i + 1));
    }
    let (mut dropped, mut kept, mut rewrite) = (Vec::new(), BTreeSet::new(), 0);
    for (name, set) in packs.iter().take(1 + sim.below(5)) {
        if kept.contains(name) {
            continue;
        }
        for one in clusters(set & marked) {
            let other = |(q, holds): &&(PackName, Set)| {
                q != name && !dropped.contains(q) && holds & one != 0
            };
            let others: Vec<PackName> = packs.iter().filter(other).map(|(q, _)| *q).collect();
            match sim.pick(&others) {
                Some(pack) => drop(kept.insert(pack)),
                None => rewrite |= one,
            }
        }
        dropped.push(*name);
    }
    (!dropped.is_empty()).then_some((dropped, kept, rewrite))
}

async fn deleter(sim: Rc<Sim>) {
    let Some(process) = sim.process() else { return };
    let victims: Vec<Uid> = process
        .log
        .current()
        .snapshots()
        .map(|s| s.record.uid)
        .collect();
    let Some(uid) = sim.pick(&victims) else {
        return sim.rest(process);
    };
    pause().await;
    let done = alone(&process, &mut |_| Ok(vec![Op::DeleteSnapshot { uid }]));
    done.err().iter().for_each(|e| sim.error("deleting", e));
    sim.rest(process);
}

/// Removes packs that are not live and whose session has ended, by a listing that is older than what it knows.
async fn sweeper(sim: Rc<Sim>) {
    let Some(process) = sim.process() else { return };
    let mut listing = Vec::new();
    for folder in sim.store.list_folders("packs").unwrap_or_default() {
        let Ok(session) = folder.parse::<SessionId>() else {
            continue;
        };
        let names = sim
            .store
            .list_after(&format!("packs/{folder}"), "")
            .unwrap_or_default();
        listing.extend(names.iter().map(|n| PackName {
            session,
            n: n.parse().expect("a number"),
        }));
    }
    pause().await;
    let catalog = match process.log.refresh() {
        Ok(catalog) => catalog,
        Err(e) => return sim.error("refreshing", &e),
    };
    pause().await;
    for pack in listing {
        // The decision is permanent; when it is carried out does not matter.
        if catalog.has_ended(&pack.session) && catalog.pack(&pack).is_none() {
            sim.count("swept");
            sim.remove_pack(&pack);
        }
        if sim.percent(30) {
            pause().await;
        }
    }
    sim.rest(process);
}

/// Ends sessions of the dead, and one of somebody who is only slow: locks get lost.
async fn expirer(sim: Rc<Sim>) {
    let Some(process) = sim.process() else { return };
    if sim.percent(30) {
        process
            .log
            .expire_dead()
            .err()
            .iter()
            .for_each(|e| sim.error("expiring", e));
        pause().await;
    }
    let open: Vec<SessionId> = process
        .log
        .current()
        .sessions()
        .map(|(id, _)| *id)
        .collect();
    let Some(session) = sim.pick(&open) else {
        return sim.rest(process);
    };
    pause().await;
    match alone(&process, &mut |_| Ok(vec![Op::Expire { session }])) {
        Ok(_) => sim.count("expired"),
        Err(e) => sim.error("expiring", &e),
    }
    sim.rest(process);
}

/// Goes to a snapshot: takes in what the image holds, begins, writes, ends or crashes.
async fn goer(sim: Rc<Sim>) {
    let Some(process) = sim.process() else { return };
    let device = device(sim.below(DEVICES.into()));
    let catalog = process.log.current();
    let targets: Vec<(Uid, Hash)> = catalog
        .snapshots()
        .map(|s| (s.record.uid, s.record.content.root))
        .collect();
    let Some((target, root)) = sim.pick(&targets) else {
        return sim.rest(process);
    };
    let Some(mut session) = open(&process, SessionKind::Writer, &[]) else {
        return;
    };
    let undo = sim.some_set(4);
    let mut intake = Intake::new(&sim, &process, &session);
    intake.take_in(undo);
    let uid = sim.uid();
    let target = GotoDevice {
        device,
        undo: content(undo),
        undo_base: None,
        target: Content { root, size: 1 },
        snapshot: target,
    };
    let begin = Op::GotoBegin {
        record: GotoRecord {
            uid,
            devices: vec![target],
        },
    };
    loop {
        pause().await;
        let ops = || vec![intake.publish(), intake.rely(None), begin.clone()];
        let Err(e) = commit(&process, &mut session, &mut |_| ops()) else {
            break;
        };
        match after(&sim, &session, &e) {
            After::FindAgain => drop(intake.store_lost()),
            _ => return,
        }
    }
    sim.count("goto");
    // Until the end both contents must stay readable, which the run sees to.
    for _ in 0..sim.below(12) {
        pause().await;
    }
    if sim.percent(40) {
        return;
    }
    end_goto(&sim, &process, uid);
    process.log.close(session, Purse::Free).unwrap_or_default();
    sim.rest(process);
}

fn end_goto(sim: &Sim, process: &Process, uid: Uid) {
    sim.images.borrow_mut().remove(&uid);
    let result = if sim.percent(50) {
        GotoResult::Done
    } else {
        GotoResult::Undone
    };
    let done = alone(process, &mut |_| Ok(vec![Op::GotoEnd { uid, result }]));
    done.err()
        .iter()
        .for_each(|e| sim.error("ending a goto", e));
}

/// Ends a goto that somebody else began, and may still be at.
async fn finisher(sim: Rc<Sim>) {
    let Some(process) = sim.process() else { return };
    let Ok(catalog) = process.log.refresh() else {
        return;
    };
    let under_way: Vec<Uid> = catalog.gotos().map(|g| g.uid).collect();
    if let Some(uid) = sim.pick(&under_way) {
        pause().await;
        end_goto(&sim, &process, uid);
        sim.count("goto finished");
    }
    sim.rest(process);
}

/// Makes a snapshot of a device's own image, by what it knew of gotos before it read.
async fn toucher(sim: Rc<Sim>) {
    let Some(process) = sim.process() else { return };
    let device = device(sim.below(DEVICES.into()));
    let catalog = process.log.current();
    if catalog.device(&device).is_none_or(|d| d.in_goto.is_some()) {
        return sim.rest(process);
    }
    let gotos_begun = begun(&catalog, &device);
    let Some(mut session) = open(&process, SessionKind::Writer, &[]) else {
        return;
    };
    for _ in 0..sim.below(6) {
        pause().await;
    }
    let torn = sim.is_being_written(&device);
    let set = sim.some_set(3);
    let mut intake = Intake::new(&sim, &process, &session);
    intake.store(set);
    pause().await;
    let maker = sim.uid();
    let mut plan = |_: &Catalog| {
        let record = snapshot(&sim, maker, device, set);
        if torn {
            sim.torn.borrow_mut().insert(record.uid);
        }
        vec![
            intake.publish(),
            Op::PutSnapshot {
                record,
                gotos_begun,
            },
            Op::Close,
        ]
    };
    if let Err(e) = commit(&process, &mut session, &mut plan) {
        if matches!(
            invalid(&e),
            Some(Invalid::DeviceInGoto(_) | Invalid::GotoSince(_))
        ) {
            sim.count("device moved");
        }
        after(&sim, &session, &e);
    }
    sim.rest(process);
}

/// Puts a device's head on the root of a snapshot that it once saw.
async fn header(sim: Rc<Sim>) {
    let Some(process) = sim.process() else { return };
    let device = device(sim.below(DEVICES.into()));
    let Some(root) = sim.pick(&roots(&process.log.current())) else {
        return sim.rest(process);
    };
    pause().await;
    let head = Some(Content { root, size: 1 }).filter(|_| sim.percent(70));
    match alone(&process, &mut |_| {
        Ok(vec![Op::PutHead {
            uid: device,
            head,
            base: None,
        }])
    }) {
        Ok(_) => sim.count("head"),
        Err(e) => sim.error("putting a head", &e),
    }
    sim.rest(process);
}
