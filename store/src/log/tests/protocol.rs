//! Random interleavings of writers, gcs, deleters, sweepers and the dead over one log: nothing is lost with all rules on,
//! and something is with any rule off.
//!
//! The actors are futures that pause between their steps. Inside a step the gates of the object store run steps of the
//! others between any two calls, sometimes many, so that every actor may be asleep anywhere, wake up too late, or never.
//! Disks are sets of 14 clusters and a root spells its set, so that what must be there can be read off the catalog.

use super::actors;
use crate::catalog::{Catalog, Rules};
use crate::error::{Error, ErrorKind, Result};
use crate::format::entry::{Entry, Op};
use crate::format::snapshot::SnapshotRecord;
use crate::id::{Hash, PackName, SessionId, Uid};
use crate::log::{Log, Options, fold};
use crate::object::memory::{Gate, MemoryObjects};
use crate::object::{Objects, get_whole};
use crate::world::{Moment, World};
use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, Waker};

/// A set of clusters.
pub type Set = u16;
/// Clusters that there are.
pub const CLUSTERS: u32 = 14;
const ACTORS: usize = 8;
const STEPS: usize = 300;
/// Gates within gates at most.
const DEPTH: usize = 3;

/// The root whose manifest names `set`.
pub fn root_of(set: Set) -> Hash {
    let mut bytes = [7; 32];
    bytes[..2].copy_from_slice(&set.to_le_bytes());
    Hash(bytes)
}

/// What it names.
pub fn set_of(root: &Hash) -> Set {
    Set::from_le_bytes([root.0[0], root.0[1]])
}

/// splitmix64.
pub struct Dice(u64);

impl Dice {
    pub fn below(&mut self, n: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        ((z ^ (z >> 31)) % n as u64) as usize
    }
}

/// Throws what it threw last time.
struct Steady(AtomicU64);

impl World for Steady {
    fn now(&self) -> Moment {
        Moment { sec: 0, nsec: 0 }
    }
    fn random(&self) -> [u8; 16] {
        u128::from(self.0.fetch_add(1, Ordering::Relaxed)).to_le_bytes()
    }
    fn label(&self) -> String {
        "an actor".into()
    }
}

/// What is true whatever anybody believes: the fold of the entries that came to stand at the end of the log.
struct Truth {
    catalog: Catalog,
    /// Checksum of every entry, from the first on.
    chain: Vec<Hash>,
    /// Entries that took effect.
    done: BTreeSet<(SessionId, u64)>,
    /// Snapshots that ever were.
    put: BTreeSet<Uid>,
    /// What each snapshot was made by; nobody makes two.
    makers: BTreeSet<Uid>,
}

/// A process: its own handle and what it folded last.
pub struct Process {
    pub log: Log,
}

struct Actor {
    future: Pin<Box<dyn Future<Output = ()>>>,
    asleep_until: usize,
}

/// One run.
pub struct Sim {
    dice: RefCell<Dice>,
    pub rules: Rules,
    /// Without gates.
    pub store: MemoryObjects,
    world: Arc<Steady>,
    truth: RefCell<Truth>,
    idle: RefCell<Vec<Process>>,
    actors: RefCell<Vec<Actor>>,
    /// Images between the begin and the end of a goto: what must stay readable.
    pub images: RefCell<BTreeMap<Uid, (Set, Set)>>,
    /// Snapshots made of an image that was being written.
    pub torn: RefCell<BTreeSet<Uid>>,
    depth: Cell<usize>,
    steps: Cell<usize>,
    uids: Cell<u64>,
    violation: RefCell<Option<String>>,
    pub events: RefCell<BTreeMap<&'static str, usize>>,
}

thread_local! {
    /// Where gates, which must be shareable among threads, find the run.
    static RUN: RefCell<Option<Rc<Sim>>> = const { RefCell::new(None) };
}

fn current() -> Option<Rc<Sim>> {
    RUN.with_borrow(Clone::clone)
}

impl Sim {
    fn new(seed: u64, rules: Rules) -> Rc<Self> {
        let truth = Truth {
            catalog: Catalog::default(),
            chain: Vec::new(),
            done: BTreeSet::new(),
            put: BTreeSet::new(),
            makers: BTreeSet::new(),
        };
        Rc::new(Self {
            dice: RefCell::new(Dice(seed)),
            rules,
            store: MemoryObjects::new(),
            world: Arc::new(Steady(AtomicU64::new(0))),
            truth: RefCell::new(truth),
            idle: RefCell::default(),
            actors: RefCell::default(),
            images: RefCell::default(),
            torn: RefCell::default(),
            depth: Cell::new(0),
            steps: Cell::new(0),
            uids: Cell::new(0),
            violation: RefCell::default(),
            events: RefCell::default(),
        })
    }

    /// A number below `n`.
    pub fn below(&self, n: usize) -> usize {
        self.dice.borrow_mut().below(n)
    }

    pub fn percent(&self, p: usize) -> bool {
        self.below(100) < p
    }

    pub fn pick<T: Clone>(&self, from: &[T]) -> Option<T> {
        if from.is_empty() {
            None
        } else {
            Some(from[self.below(from.len())].clone())
        }
    }

    /// `n` clusters at most, one at least.
    pub fn some_set(&self, n: usize) -> Set {
        (0..=self.below(n)).fold(0, |set, _| set | 1 << self.below(CLUSTERS as usize))
    }

    pub fn uid(&self) -> Uid {
        self.uids.set(self.uids.get() + 1);
        Uid(u128::from(self.uids.get()).to_le_bytes())
    }

    pub fn count(&self, event: &'static str) {
        *self.events.borrow_mut().entry(event).or_default() += 1;
    }

    pub fn fail(&self, why: String) {
        self.violation.borrow_mut().get_or_insert(why);
    }

    fn failed(&self) -> bool {
        self.violation.borrow().is_some()
    }

    /// A process that has stood idle with what it knew then, or a new one.
    pub fn process(&self) -> Option<Process> {
        let known = self.idle.borrow().len();
        if known > 0 && self.percent(60) {
            return Some(self.idle.borrow_mut().remove(self.below(known)));
        }
        let before: Gate = Arc::new(|call, key| current().map_or(Ok(()), |s| s.before(call, key)));
        let after: Gate = Arc::new(|call, key| current().map_or(Ok(()), |s| s.after(call, key)));
        let objects = self
            .store
            .fork_handle()
            .with_gate(before)
            .with_reply_gate(after);
        let shared = Arc::new(objects);
        let options = Options {
            checkpoint_every: 4,
            entries_kept: 2,
            rules: self.rules,
        };
        match Log::open_with(shared.clone(), shared, self.world.clone(), options) {
            Ok(log) => Some(Process { log }),
            Err(e) => {
                self.error("opening the log", &e);
                None
            }
        }
    }

    /// The process does nothing for a while.
    pub fn rest(&self, process: Process) {
        let mut idle = self.idle.borrow_mut();
        idle.push(process);
        if idle.len() > 5 {
            idle.remove(0);
        }
    }

    /// An error that no fault explains.
    pub fn error(&self, doing: &str, e: &Error) {
        if e.kind() == ErrorKind::Corrupt {
            self.fail(format!("{doing}: {e:?}"));
        }
    }

    /// Before a call of a gated handle: others go on, or the disk fails.
    fn before(&self, call: &str, key: &str) -> Result<()> {
        let put = call == "put_new" && key.starts_with("log/");
        self.interrupt(if put { 30 } else { 6 });
        if put && self.percent(3) {
            return Err(Error::new(ErrorKind::Io, "testing"));
        }
        Ok(())
    }

    /// After it: what happened becomes true, others go on, or the answer is lost.
    fn after(&self, call: &str, key: &str) -> Result<()> {
        if call != "put_new" || !key.starts_with("log/") {
            return Ok(());
        }
        self.learn(key);
        self.interrupt(15);
        if self.percent(10) {
            self.count("lost reply");
            return Err(Error::new(ErrorKind::Io, "testing"));
        }
        Ok(())
    }

    /// With a chance of `percent` others take steps, mostly few.
    fn interrupt(&self, percent: usize) {
        if self.depth.get() >= DEPTH || !self.percent(percent) {
            return;
        }
        let steps = if self.percent(15) {
            10 + self.below(60)
        } else {
            1 + self.below(4)
        };
        self.depth.set(self.depth.get() + 1);
        for _ in 0..steps {
            self.step();
        }
        self.depth.set(self.depth.get() - 1);
    }

    /// One actor takes one step.
    fn step(&self) {
        if self.failed() || self.steps.get() >= STEPS {
            return;
        }
        self.steps.set(self.steps.get() + 1);
        let now = self.steps.get();
        let (mut actor, crashes) = {
            let mut all = self.actors.borrow_mut();
            let awake: Vec<usize> = (0..all.len())
                .filter(|i| all[*i].asleep_until <= now)
                .collect();
            let Some(chosen) = self.pick(&awake) else {
                return;
            };
            (all.swap_remove(chosen), self.below(1000) < 6)
        };
        if crashes {
            self.count("crash");
            return;
        }
        if self.percent(3) {
            actor.asleep_until = now + 20 + self.below(100);
        }
        let done = actor
            .future
            .as_mut()
            .poll(&mut Context::from_waker(Waker::noop()));
        if done == Poll::Pending {
            self.actors.borrow_mut().push(actor);
        }
    }

    /// The entry that stands at `key` is the next of the true log, or in a dead slot.
    fn learn(&self, key: &str) {
        let mut truth = self.truth.borrow_mut();
        let next = truth.catalog.seq() + 1;
        let seq: u64 = key["log/".len()..].parse().expect("a key of the log");
        let Ok(bytes) = get_whole(&self.store, key, 1 << 20) else {
            return;
        };
        let read = fold::decode_entry(&bytes, seq).expect("whole, it was just put");
        if seq > next {
            return self.fail(format!("entry {seq} was put before entry {next}"));
        }
        if seq < next {
            if truth.chain[seq as usize - 1] != read.checksum {
                self.count("dead slot");
            }
            return;
        }
        if read.previous != truth.catalog.tip() {
            self.fail(format!("entry {seq} does not follow entry {}", next - 1));
        }
        let (catalog, valid) = truth.catalog.apply(read.checksum, &read.entry, self.rules);
        truth.catalog = catalog;
        truth.chain.push(read.checksum);
        if valid.is_ok() {
            self.take_effect(&mut truth, &read.entry);
        }
        drop(truth);
        self.check();
    }

    fn take_effect(&self, truth: &mut Truth, entry: &Entry) {
        if !truth.done.insert((entry.session, entry.counter)) {
            self.fail(format!(
                "{} {} took effect twice",
                entry.session, entry.counter
            ));
        }
        for op in &entry.ops {
            match op {
                Op::PutSnapshot { record, .. } => self.exists(truth, record),
                Op::GotoBegin { record } => {
                    let device = &record.devices[0];
                    let both = (set_of(&device.undo.root), set_of(&device.target.root));
                    self.images.borrow_mut().insert(record.uid, both);
                }
                _ => {}
            }
        }
    }

    fn exists(&self, truth: &mut Truth, record: &SnapshotRecord) {
        truth.put.insert(record.uid);
        let maker = record.group.expect("actors name themselves");
        if !truth.makers.insert(maker) {
            self.fail(format!("{maker:?} made two snapshots"));
        }
        if self.torn.borrow().contains(&record.uid) {
            self.fail(format!(
                "{:?} is of an image that was being written",
                record.uid
            ));
        }
    }

    /// Everything that something holds is in live packs, and live packs have bytes.
    pub fn check(&self) {
        let truth = self.truth.borrow();
        let (catalog, mut have) = (&truth.catalog, 0);
        for pack in catalog.packs() {
            match self.bytes_of(&pack.name) {
                Some(set) => have |= set,
                None => return self.fail(format!("live {} has no bytes", pack.name)),
            }
        }
        let heads = catalog
            .devices()
            .filter_map(|d| d.head.map(|h| set_of(&h.root)));
        let snapshots = catalog.snapshots().map(|s| set_of(&s.record.content.root));
        let images = self.images.borrow();
        let gotos = images.values().map(|(undo, target)| undo | target);
        if let Some(lost) = heads
            .chain(snapshots)
            .chain(gotos)
            .find(|set| set & !have != 0)
        {
            let seq = catalog.seq();
            self.fail(format!(
                "{:014b} lost {:014b} at entry {seq}",
                lost,
                lost & !have
            ));
        }
    }

    /// What a pack holds, if it is there.
    pub fn bytes_of(&self, pack: &PackName) -> Option<Set> {
        let mut bytes = [0; 2];
        self.store.get(&pack.key(), 0, &mut bytes).ok()?;
        Some(Set::from_le_bytes(bytes))
    }

    pub fn remove_pack(&self, pack: &PackName) {
        self.store.set_at_rest(&pack.key(), None);
        self.check();
    }

    /// Whether a goto is writing the device.
    pub fn is_being_written(&self, device: &Uid) -> bool {
        self.truth
            .borrow()
            .catalog
            .device(device)
            .is_some_and(|d| d.in_goto.is_some())
    }

    /// What a writer was told of its snapshot must be so.
    pub fn told(&self, uid: &Uid, answer: &Result<Arc<Catalog>>) {
        let there = self.truth.borrow().put.contains(uid);
        match answer {
            Ok(_) if !there => self.fail(format!("{uid:?} was acknowledged and is not there")),
            Err(e) if crate::log::invalid(e).is_some() && there => {
                self.fail(format!("{uid:?} was refused and is there"));
            }
            _ => {}
        }
    }

    /// A session that is open always gets a clear answer, since the catalog has its last counter.
    pub fn unclear(&self, session: &SessionId) {
        self.count("unclear");
        let truth = self.truth.borrow();
        if truth.catalog.session(session).is_some() {
            self.fail(format!("{session} is open and was told that nobody knows"));
        }
    }
}

fn run(seed: u64, rules: Rules) -> Outcome {
    let sim = Sim::new(seed, rules);
    RUN.set(Some(sim.clone()));
    actors::prepare(&sim);
    while sim.steps.get() < STEPS && !sim.failed() {
        while sim.actors.borrow().len() < ACTORS {
            let future = actors::any(&sim);
            sim.actors.borrow_mut().push(Actor {
                future,
                asleep_until: 0,
            });
        }
        sim.step();
        if sim
            .actors
            .borrow()
            .iter()
            .all(|a| a.asleep_until > sim.steps.get())
        {
            sim.steps.set(sim.steps.get() + 1);
        }
    }
    RUN.set(None);
    // Actors hold the run; dropped here, they let it go.
    let actors = sim.actors.take();
    drop(actors);
    Outcome {
        violation: sim.violation.take(),
        events: sim.events.take(),
        truth: sim.truth.borrow().catalog.clone(),
        store: sim.store.clone(),
    }
}

/// What a run came to.
struct Outcome {
    violation: Option<String>,
    events: BTreeMap<&'static str, usize>,
    truth: Catalog,
    store: MemoryObjects,
}

/// More on request: 20 times as many.
fn seeds(few: u64) -> std::ops::Range<u64> {
    let full = std::env::var("STILL_ROUNDS").is_ok_and(|rounds| rounds == "full");
    0..if full { few * 20 } else { few }
}

#[test]
fn no_interleaving_loses_anything() {
    let mut events = BTreeMap::<&str, usize>::new();
    for seed in seeds(300) {
        let outcome = run(seed, Rules::default());
        assert_eq!(outcome.violation, None, "seed {seed}");
        let loaded = fold::load(&outcome.store, Rules::default()).unwrap();
        assert!(
            loaded == outcome.truth,
            "seed {seed}: a fresh load is not the truth"
        );
        outcome
            .events
            .into_iter()
            .for_each(|(event, n)| *events.entry(event).or_default() += n);
    }
    println!("{events:?}");
    for event in actors::EVENTS {
        assert!(
            events.contains_key(event),
            "no seed saw {event:?}: {events:?}"
        );
    }
}

/// A rule, and how to switch it off.
type Off = (&'static str, fn(&mut Rules));

/// All but `kept_live` and `kept_named`: it takes a writer between two gcs to need those, so that `catalog` has the script.
const RULES: [Off; 12] = [
    ("roots_reachable", |r| r.roots_reachable = false),
    ("packs_live", |r| r.packs_live = false),
    ("session_open", |r| r.session_open = false),
    ("spare_open", |r| r.spare_open = false),
    ("spare_pinned", |r| r.spare_pinned = false),
    ("spare_named", |r| r.spare_named = false),
    ("counter_newer", |r| r.counter_newer = false),
    ("goto_reachable", |r| r.goto_reachable = false),
    ("gotos_counted", |r| r.gotos_counted = false),
    ("chain_checked", |r| r.chain_checked = false),
    ("look_for_checkpoint", |r| r.look_for_checkpoint = false),
    ("checkpoint_names", |r| r.checkpoint_names = false),
];

#[test]
fn every_rule_that_is_switched_off_loses_something() {
    let mut idle = Vec::new();
    for (name, off) in RULES {
        let mut rules = Rules::default();
        off(&mut rules);
        let found = (0..5000).find_map(|seed| run(seed, rules).violation.map(|why| (seed, why)));
        match found {
            Some((seed, why)) => println!("{name}: seed {seed}: {why}"),
            None => idle.push(name),
        }
    }
    assert_eq!(idle, Vec::<&str>::new(), "no seed noticed");
}
