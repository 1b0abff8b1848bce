//! Several processes on one store, every object call of theirs in an order that a seed decides: writers that find each
//! other's and dying clusters, gcs that drop these, parents deleted while children are made, sessions ended under
//! writers that go on, answers that get lost, indexes that lie. What was acknowledged restores, whatever the order.
//!
//! The store is a folder on the simulated disk. That crashes in between lose nothing is for `crash/hook.rs`.

#![allow(clippy::unwrap_used, reason = "tests")]

mod support;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use stillpoint_api::store::disk::sim::SimDisk;
use stillpoint_api::store::disk::{Disk, OpenMode};
use stillpoint_api::store::index::memory::MemoryHome;
use stillpoint_api::store::object::memory::Gate;
use stillpoint_api::store::ops::gc;
use stillpoint_api::store::progress::Progress;
use stillpoint_api::store::store::Doors;
use stillpoint_api::store::tuning::Tuning;
use stillpoint_api::{Create, Error, ErrorKind, Import, Result, System};
use support::folder::{self, Folder};
use support::{Dice, Picture, SeededWorld, for_seeds, restored, rounds};

/// Different clusters that there are.
const ALPHABET: u8 = 14;
const WRITERS: usize = 2;
/// The two writers, two gcs, a deleter, a reader and a reaper of sessions.
const ACTORS: usize = 7;

/// Lets one actor run at a time. Who goes on is decided, by the seed, whenever the one that ran makes its next call.
struct Turnstile {
    table: Mutex<Table>,
    doors: Vec<Condvar>,
}

struct Table {
    dice: Dice,
    waiting: Vec<usize>,
    running: usize,
    last: usize,
    /// The last one goes on but once in so many times.
    burst: usize,
    chosen: Option<usize>,
}

impl Turnstile {
    fn new(seed: u64) -> Self {
        let mut dice = Dice::new(seed);
        let burst = *dice.pick(&[1, 2, 4, 12, 40]);
        let table = Table {
            dice,
            waiting: Vec::new(),
            running: ACTORS,
            last: 0,
            burst,
            chosen: None,
        };
        Self {
            table: Mutex::new(table),
            doors: (0..ACTORS).map(|_| Condvar::new()).collect(),
        }
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns when it is this actor's turn.
    fn wait(&self, actor: usize) {
        let mut table = self.table();
        table.waiting.push(actor);
        self.leave(&mut table);
        while table.chosen != Some(actor) {
            table = self.doors[actor]
                .wait(table)
                .unwrap_or_else(PoisonError::into_inner);
        }
        table.chosen = None;
    }

    /// This actor runs no more, for now or for good; when it was the last that ran, somebody is chosen.
    fn leave(&self, table: &mut Table) {
        table.running -= 1;
        if table.running > 0 || table.waiting.is_empty() {
            return;
        }
        // In the order of arrival a run would not repeat: actors start together.
        table.waiting.sort_unstable();
        let Table { dice, waiting, .. } = table;
        let again = waiting.iter().position(|a| *a == table.last);
        let at = match again {
            Some(at) if table.burst > 1 && !dice.one_in(table.burst) => at,
            _ => dice.below(waiting.len()),
        };
        let next = waiting.remove(at);
        (table.running, table.last, table.chosen) = (1, next, Some(next));
        self.doors[next].notify_one();
    }
}

/// Lets the others go on when an actor ends, also by a panic.
struct Presence<'a>(&'a Turnstile);

impl Drop for Presence<'_> {
    fn drop(&mut self) {
        self.0.leave(&mut self.0.table());
    }
}

/// What is known of a snapshot from the answers that actors got.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Known {
    /// Being made.
    Begun,
    Made,
    /// The answer was that it cannot be told.
    Unclear,
    Failed,
    Deleted,
}

/// What every actor knows of: all snapshots by device and name.
#[derive(Default)]
struct Ledger {
    snapshots: BTreeMap<(String, String), (Vec<u8>, Known)>,
    errors: BTreeMap<String, usize>,
    /// What happened, for the assertion that it did.
    events: BTreeMap<&'static str, usize>,
}

/// One process on the store.
#[derive(Clone)]
struct Process {
    objects: Arc<Folder>,
    index: MemoryHome,
}

struct Arena {
    seed: u64,
    disk: SimDisk,
    tuning: Tuning,
    turnstile: Turnstile,
    ledger: Mutex<Ledger>,
    processes: Vec<Process>,
    /// What the gates see of it; they are in its processes.
    opened: Opened,
}

type Opened = Arc<Mutex<Option<Arc<Arena>>>>;

impl Arena {
    fn ledger(&self) -> MutexGuard<'_, Ledger> {
        self.ledger.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn open(&self, process: &Process, label: usize) -> System {
        let world = SeededWorld::new(self.seed * 100 + label as u64, &format!("actor {label}"));
        let doors = Doors {
            objects: process.objects.clone(),
            local: process.objects.clone(),
            index: Arc::new(process.index.clone()),
            world,
            say: Arc::new(|_| {}),
        };
        System::with_tuning(doors, Arc::new(self.disk.clone()), self.tuning).unwrap()
    }

    fn count(&self, event: &'static str, n: u64) {
        *self.ledger().events.entry(event).or_default() += n as usize;
    }

    /// An answer that is no success must be one that a caller can live with.
    fn note(&self, what: &str, e: &Error) {
        use ErrorKind::{AlreadyExists, Busy, NotFound, Refused};
        let known = matches!(e.kind(), AlreadyExists | Busy | NotFound | Refused);
        assert!(known || is_unclear(e), "{what}: {e:?}");
        if std::env::var_os("STILL_SEED").is_some() {
            eprintln!("{what}: {e:?}");
        }
        let key = format!("{what}: {:?}", e.kind());
        *self.ledger().errors.entry(key).or_default() += 1;
    }
}

/// A caller who hears this is to look before trying again.
fn is_unclear(e: &Error) -> bool {
    e.to_string().contains("is unclear")
}

fn image(device: &str) -> PathBuf {
    PathBuf::from(format!("/images/{device}"))
}

fn device(writer: usize, n: usize) -> String {
    format!("w{writer}-{n}")
}

fn tuning(dice: &mut Dice) -> Tuning {
    let mut tuning = Tuning {
        pack_bytes: *dice.pick(&[1, 9_000, 20_000]),
        packs_in_flight: 0,
        publish_every: 1 + dice.below(3),
        gc_step_bytes: *dice.pick(&[1, 30_000, 1 << 20]),
        ..Tuning::default()
    };
    tuning.log.checkpoint_every = *dice.pick(&[5, 16, 256]);
    tuning.log.entries_kept = *dice.pick(&[3, 1000]);
    tuning
}

/// Gates of one actor: its turn before each call, and now and then a put into the log that fails or whose answer is lost.
fn gates(arena: &Opened, actor: usize, seed: u64) -> (Gate, Gate) {
    let dice = Mutex::new(Dice::new(seed * 1000 + actor as u64));
    let fails = move |call: &str, key: &str| {
        let unlucky = call == "put_new" && key.starts_with("log/");
        unlucky
            && dice
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .one_in(12)
    };
    let fails = Arc::new(fails);
    let lost = |e: bool| {
        if e {
            Err(Error::new(ErrorKind::Io, "testing").detail("the connection broke"))
        } else {
            Ok(())
        }
    };
    let (before, arena) = (fails.clone(), arena.clone());
    let gate: Gate = Arc::new(move |call, key| {
        let arena = arena.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if let Some(arena) = arena {
            arena.turnstile.wait(actor);
        }
        lost(before(call, key))
    });
    let reply: Gate = Arc::new(move |call, key| lost(fails(call, key)));
    (gate, reply)
}

fn process(disk: &SimDisk, number: usize, gates: Option<(Gate, Gate)>) -> Process {
    Process {
        objects: Arc::new(Folder::open(disk, number as u64, gates).unwrap()),
        index: MemoryHome::default(),
    }
}

/// The images of both writers, each with a snapshot, and the processes; nobody runs yet.
fn set_up(seed: u64) -> (Arc<Arena>, Vec<[Picture; 2]>) {
    let mut dice = Dice::new(seed);
    let disk = SimDisk::new(seed);
    disk.create_folders(&PathBuf::from("/images")).unwrap();
    folder::create(&disk, &SeededWorld::new(seed, "init")).unwrap();
    let opened = Opened::default();
    let process = |actor| {
        let gates = gates(&opened, actor, seed);
        process(&disk, actor, Some(gates))
    };
    let arena = Arc::new(Arena {
        seed,
        disk: disk.clone(),
        tuning: tuning(&mut dice),
        turnstile: Turnstile::new(seed),
        ledger: Mutex::default(),
        processes: (0..ACTORS).map(process).collect(),
        opened: opened.clone(),
    });
    let system = arena.open(&self::process(&disk, 50, None), 50);
    let mut pictures = Vec::new();
    for writer in 0..WRITERS {
        let own = [0, 1].map(|n| {
            let picture = Picture::random(&mut dice, ALPHABET, 12..30);
            let name = device(writer, n);
            picture.paint(&disk, &image(&name));
            system
                .device_add(&name, &image(&name), "raw", false)
                .unwrap();
            picture
        });
        pictures.push(own);
    }
    for (writer, own) in pictures.iter().enumerate() {
        create(
            &arena,
            &system,
            &[(device(writer, 0), own[0].bytes())],
            "first",
        );
    }
    *opened.lock().unwrap() = Some(arena.clone());
    (arena, pictures)
}

fn create(arena: &Arena, system: &System, disks: &[(String, Vec<u8>)], name: &str) {
    for (device, bytes) in disks {
        let key = (device.clone(), name.to_owned());
        arena
            .ledger()
            .snapshots
            .insert(key, (bytes.clone(), Known::Begun));
    }
    let create = Create {
        name: Some(name.into()),
        devices: disks.iter().map(|(device, _)| device.clone()).collect(),
        changed: None,
        ..Create::default()
    };
    let made = system.create(&create, &Progress::default());
    if let Ok(made) = &made {
        arena.count("made", 1);
        arena.count("known", made.devices.iter().map(|d| d.counts.known).sum());
    }
    settle(arena, disks, name, made.map(|_| ()), "create");
}

fn settle(arena: &Arena, disks: &[(String, Vec<u8>)], name: &str, made: Result<()>, what: &str) {
    let known = match &made {
        Ok(()) => Known::Made,
        Err(e) if is_unclear(e) => Known::Unclear,
        Err(_) => Known::Failed,
    };
    if let Err(e) = made {
        arena.note(what, &e);
    }
    for (device, _) in disks {
        let key = (device.clone(), name.to_owned());
        if let Some((_, is @ Known::Begun)) = arena.ledger().snapshots.get_mut(&key) {
            *is = known;
        }
    }
}

fn write(arena: &Arena, writer: usize, mut own: [Picture; 2]) {
    let system = arena.open(&arena.processes[writer], writer);
    let mut dice = Dice::new(arena.seed * 10 + writer as u64);
    for round in 0..4 {
        let name = format!("s{round}");
        let n = dice.below(2);
        match dice.below(6) {
            0 => go(arena, &system, &device(writer, n), &mut own[n], &mut dice),
            1 => import(arena, &system, writer, &own[n], &name),
            _ => {
                own[n].scribble(&mut dice, ALPHABET);
                own[n].paint(&arena.disk, &image(&device(writer, n)));
                let both = if dice.one_in(3) { vec![0, 1] } else { vec![n] };
                let disks: Vec<_> = both
                    .into_iter()
                    .map(|n| (device(writer, n), own[n].bytes()))
                    .collect();
                create(arena, &system, &disks, &name);
            }
        }
    }
}

/// Back to one of the device's snapshots; the image holds it then, or what it held before.
fn go(arena: &Arena, system: &System, device: &str, picture: &mut Picture, dice: &mut Dice) {
    let Ok(all) = system.list(Some(device)) else {
        return;
    };
    if all.is_empty() {
        return;
    }
    let target = dice.pick(&all).name.clone();
    let wanted = arena.ledger().snapshots[&(device.to_owned(), target.clone())]
        .0
        .clone();
    let went = system.goto(&target, &[device.to_owned()], &Progress::default());
    let file = arena.disk.open(&image(device), OpenMode::Read).unwrap();
    let mut held = vec![0; file.len().unwrap() as usize];
    file.read_at(0, &mut held).unwrap();
    match went {
        Ok(_) => {
            assert_eq!(held, wanted, "{device} after goto {target}");
            // What the next scribble starts from need not be what is there: it paints the whole image.
            picture.len = picture.cells.len() * support::C;
        }
        Err(e) => {
            assert_eq!(
                held,
                picture.bytes(),
                "{device} after goto {target} failed: {e:?}"
            );
            arena.note("goto", &e);
            return;
        }
    }
    picture.paint(&arena.disk, &image(device));
}

fn import(arena: &Arena, system: &System, writer: usize, picture: &Picture, name: &str) {
    let (path, device) = (
        PathBuf::from(format!("/images/import-{writer}")),
        format!("i{writer}"),
    );
    picture.paint(&arena.disk, &path);
    let disks = [(device.clone(), picture.bytes())];
    let key = (device.clone(), name.to_owned());
    arena
        .ledger()
        .snapshots
        .insert(key, (picture.bytes(), Known::Begun));
    let import = Import {
        image: &path,
        device: &device,
        name: Some(name),
    };
    let made = system.import(&import, &Progress::default());
    settle(arena, &disks, name, made.map(|_| ()), "import");
}

fn collect(arena: &Arena, actor: usize, all: bool) {
    let system = arena.open(&arena.processes[actor], actor);
    for _ in 0..3 {
        let options = gc::Options {
            all,
            dry_run: false,
        };
        match system.store().gc(options, &Progress::default()) {
            Ok(done) => {
                arena.count("dropped", done.dead_packs + done.rewritten_packs);
                arena.count("orphans", done.orphans);
            }
            Err(e) => arena.note("gc", &e),
        }
    }
}

fn delete(arena: &Arena, actor: usize) {
    let system = arena.open(&arena.processes[actor], actor);
    let mut dice = Dice::new(arena.seed * 10 + actor as u64);
    for _ in 0..5 {
        let Ok(all) = system.list(None) else { continue };
        if all.is_empty() {
            continue;
        }
        let victim = dice.pick(&all).clone();
        match system.delete(
            &victim.name,
            std::slice::from_ref(&victim.device),
            false,
            &Progress::default(),
        ) {
            Ok(_) => {
                let key = (victim.device, victim.name);
                arena.ledger().snapshots.get_mut(&key).unwrap().1 = Known::Deleted;
            }
            Err(e) => {
                if is_unclear(&e) {
                    let key = (victim.device, victim.name);
                    arena.ledger().snapshots.get_mut(&key).unwrap().1 = Known::Unclear;
                }
                arena.note("delete", &e);
            }
        }
    }
}

fn read(arena: &Arena, actor: usize) {
    let system = arena.open(&arena.processes[actor], actor);
    let mut dice = Dice::new(arena.seed * 10 + actor as u64);
    for _ in 0..4 {
        let Ok(all) = system.list(None) else { continue };
        if all.is_empty() {
            continue;
        }
        let wanted = dice.pick(&all).clone();
        let bytes = arena.ledger().snapshots[&(wanted.device.clone(), wanted.name.clone())]
            .0
            .clone();
        match restored(&system, &format!("{}@{}", wanted.device, wanted.name)) {
            Ok(read) => assert!(read == bytes, "{wanted:?} was read wrong"),
            Err(e) => arena.note("export", &e),
        }
    }
}

/// Takes the locks of others away as if their processes had died, ends their sessions, and turns their indexes.
fn reap(arena: &Arena, actor: usize) {
    let own = &arena.processes[actor];
    let system = arena.open(own, actor);
    let mut dice = Dice::new(arena.seed * 10 + actor as u64);
    for _ in 0..6 {
        let victim = &arena.processes[dice.below(ACTORS)];
        match dice.below(3) {
            0 => victim.objects.kill(),
            1 => victim.index.lie(),
            _ => {}
        }
        match system.store().expire_dead() {
            Ok(n) => arena.count("expired", n as u64),
            Err(e) => arena.note("expire", &e),
        }
    }
}

fn act(arena: &Arena, actor: usize, pictures: &[[Picture; 2]]) {
    match actor {
        0 | 1 => write(arena, actor, pictures[actor].clone()),
        2 => collect(arena, actor, true),
        3 => collect(arena, actor, false),
        4 => delete(arena, actor),
        5 => read(arena, actor),
        _ => reap(arena, actor),
    }
}

/// One interleaving. Each actor has one thread for everything, so that the seed decides all.
fn run(seed: u64) -> (BTreeMap<String, usize>, BTreeMap<&'static str, usize>) {
    let (arena, pictures) = set_up(seed);
    std::thread::scope(|scope| {
        let actors: Vec<_> = (0..ACTORS)
            .map(|actor| {
                let (arena, pictures) = (&arena, &pictures);
                scope.spawn(move || {
                    let pool = rayon::ThreadPoolBuilder::new()
                        .num_threads(1)
                        .build()
                        .unwrap();
                    pool.install(|| {
                        let _present = Presence(&arena.turnstile);
                        arena.turnstile.wait(actor);
                        act(arena, actor, pictures);
                    });
                })
            })
            .collect();
        for actor in actors {
            if let Err(panic) = actor.join() {
                std::panic::resume_unwind(panic);
            }
        }
    });
    check(&arena);
    // The circle would keep every run in memory.
    arena.opened.lock().unwrap().take();
    let ledger = arena.ledger();
    (ledger.errors.clone(), ledger.events.clone())
}

/// What is there is what the answers said, restores, and still does when gc has taken the rest.
fn check(arena: &Arena) {
    let process = process(&arena.disk, 60, None);
    for dead in &arena.processes {
        dead.objects.kill();
    }
    let system = arena.open(&process, 60);
    check_snapshots(arena, &system);
    let report = system.store().verify(&Progress::default()).unwrap();
    assert!(report.is_good(), "{report:?}");
    let all = gc::Options {
        all: true,
        dry_run: false,
    };
    let done = system.store().gc(all, &Progress::default()).unwrap();
    assert_eq!(
        done.bytes_spared, 0,
        "nobody is left who could keep anything"
    );
    check_snapshots(arena, &system);
    let report = system.store().verify(&Progress::default()).unwrap();
    assert!(report.is_good(), "after gc: {report:?}");
    let catalog = system.store().refresh().unwrap();
    assert_eq!(catalog.sessions().count(), 0);
    let live: Vec<String> = catalog.packs().map(|p| p.name.key()).collect();
    let there = process.objects.keys("packs/");
    assert_eq!(there, live, "packs that are there, and packs that live");
}

fn check_snapshots(arena: &Arena, system: &System) {
    let listed: Vec<_> = system
        .list(None)
        .unwrap()
        .into_iter()
        .map(|s| (s.device, s.name))
        .collect();
    let ledger = arena.ledger();
    for (key, (bytes, known)) in &ledger.snapshots {
        let there = listed.contains(key);
        let expected = *known == Known::Made || (*known == Known::Unclear && there);
        assert_eq!(there, expected, "{key:?} is {known:?}");
        if there {
            let read = restored(system, &format!("{}@{}", key.0, key.1)).unwrap();
            assert!(read == *bytes, "{key:?} is not what it was");
        }
    }
    assert!(listed.iter().all(|key| ledger.snapshots.contains_key(key)));
}

#[test]
fn whatever_the_order_what_was_acknowledged_restores() {
    let errors = Mutex::new(BTreeMap::<String, usize>::new());
    let events = Mutex::new(BTreeMap::<&str, usize>::new());
    let seeds = rounds(1000, 3);
    for_seeds(seeds, |seed| {
        let (failed, happened) = run(seed);
        for (what, n) in failed {
            *errors.lock().unwrap().entry(what).or_default() += n;
        }
        for (what, n) in happened {
            *events.lock().unwrap().entry(what).or_default() += n;
        }
    });
    let events = events.into_inner().unwrap();
    println!("{events:?}, {:?}", errors.lock().unwrap());
    for event in ["made", "known", "dropped", "orphans", "expired"] {
        let n = events.get(event).copied().unwrap_or_default();
        assert!(
            n as u64 >= seeds / 10,
            "{event} only {n} times in {seeds} runs"
        );
    }
}
