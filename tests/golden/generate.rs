//! Makes the golden store: the same bytes each time.

use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use stillpoint_api::store::disk::real::RealDisk;
use stillpoint_api::store::disk::sim::SimDisk;
use stillpoint_api::store::disk::{Disk, OpenMode};
use stillpoint_api::store::geometry::{Compression, Geometry};
use stillpoint_api::store::id::Hash;
use stillpoint_api::store::index::memory::MemoryHome;
use stillpoint_api::store::log;
use stillpoint_api::store::object::local::{LocalObjects, Reserve};
use stillpoint_api::store::progress::Progress;
use stillpoint_api::store::store::{Doors, Store};
use stillpoint_api::store::tuning::Tuning;
use stillpoint_api::store::world::{Moment, World};
use stillpoint_api::{Create, System};

pub const CLUSTER: usize = 4096;
/// What of a store is the format: everything else is of the process that has it open.
pub const STORED: [&str; 4] = ["store.json", "log", "checkpoint", "packs"];

/// Counts instead of a clock, hashes instead of dice.
pub struct CountingWorld(AtomicU64);

impl CountingWorld {
    pub fn new() -> Self {
        Self(AtomicU64::new(0))
    }
}

impl World for CountingWorld {
    fn now(&self) -> Moment {
        let n = self.0.fetch_add(1, Ordering::Relaxed);
        Moment {
            sec: 1_700_000_000 + n,
            nsec: 5,
        }
    }

    fn random(&self) -> [u8; 16] {
        let hash = Hash::of(&self.0.fetch_add(1, Ordering::Relaxed).to_le_bytes());
        let mut random = [0; 16];
        random.copy_from_slice(&hash.0[..16]);
        random
    }

    fn label(&self) -> String {
        "golden".into()
    }
}

/// What device `a` held at its `n`th snapshot: text, noise, zeros, a tail that is no whole cluster.
pub fn a(n: u8) -> Vec<u8> {
    let mut bytes = vec![0; 40 * CLUSTER + 123];
    for (i, cluster) in bytes.chunks_mut(CLUSTER).enumerate() {
        let i = i as u8;
        match i % 5 {
            0 => {}
            1 if i < 20 => noise(u64::from(i), cluster),
            _ => text(if i % 8 == 3 { n } else { 1 }, i, cluster),
        }
    }
    bytes
}

/// What device `b` held: a large hole, so that the manifest has several levels.
pub fn b() -> Vec<u8> {
    let mut bytes = vec![0; 5 << 20];
    text(1, 2, &mut bytes[2 * CLUSTER..3 * CLUSTER]);
    let end = bytes.len();
    text(9, 9, &mut bytes[end - CLUSTER..]);
    bytes
}

fn text(n: u8, i: u8, out: &mut [u8]) {
    let line = format!("cluster {i} as of {n}, a line like any other.\n");
    out.iter_mut()
        .zip(line.bytes().cycle())
        .for_each(|(to, from)| *to = from);
}

fn noise(seed: u64, out: &mut [u8]) {
    for (i, part) in (0u64..).zip(out.chunks_mut(32)) {
        let hash = Hash::of(&[seed.to_le_bytes(), i.to_le_bytes()].concat());
        part.copy_from_slice(&hash.0[..part.len()]);
    }
}

/// Writes an image; clusters of zeros are holes in every third place, and zeros in the others.
fn image(disk: &SimDisk, path: &str, bytes: &[u8]) {
    let path = Path::new(path);
    disk.remove(path).expect("the simulated disk works");
    let file = disk
        .open(path, OpenMode::CreateNew)
        .expect("it is not there");
    file.set_len(bytes.len() as u64).expect("there is room");
    for (i, cluster) in bytes.chunks(CLUSTER).enumerate() {
        let empty = cluster.iter().all(|b| *b == 0);
        if !empty || (bytes.len() < 1 << 20 && i % 3 != 0) {
            file.write_at((i * CLUSTER) as u64, cluster)
                .expect("there is room");
        }
    }
}

/// Makes the store in `folder`, and leaves of it what is the format.
pub fn generate(folder: &Path) {
    let pool = rayon::ThreadPoolBuilder::new().num_threads(1).build();
    pool.expect("one thread starts").install(|| make(folder));
    for entry in fs::read_dir(folder).expect("it was made") {
        let entry = entry.expect("it can be listed");
        if !STORED.iter().any(|name| entry.file_name() == *name) {
            fs::remove_dir_all(entry.path()).expect("it is ours");
        }
    }
}

fn make(folder: &Path) {
    let world = CountingWorld::new();
    let reserve = Reserve {
        entry_files: 0,
        entry_bytes: 0,
        pack_files: 0,
        pack_bytes: 0,
    };
    let objects = LocalObjects::create(Arc::new(RealDisk), folder, reserve, world.random());
    let objects = Arc::new(objects.expect("the folder is new"));
    let geometry = Geometry {
        cluster_bytes: CLUSTER as u32,
        frame_bytes: 4 * CLUSTER as u32,
        compression: Compression::Zstd(3),
    };
    let file = Store::create(&*objects, &world, geometry).expect("the folder is new");
    let doors = Doors {
        objects: objects.clone(),
        local: objects,
        index: Arc::new(MemoryHome::new(file.id)),
        world: Arc::new(world),
        say: Arc::new(|line| panic!("nothing is to be said: {line}")),
    };
    let tuning = Tuning {
        packs_in_flight: 0,
        log: log::Options {
            checkpoint_every: 8,
            ..log::Options::default()
        },
        ..Tuning::default()
    };
    let disk = SimDisk::new(1);
    disk.create_folders(Path::new("/images"))
        .expect("it is empty");
    let system = System::with_tuning(doors, Arc::new(disk.clone()), tuning);
    fill(&system.expect("it was just made"), &disk);
}

fn fill(system: &System, disk: &SimDisk) {
    let progress = Progress::default();
    let create = |name: &str, devices: &[&str]| {
        let create = Create {
            name: Some(name.into()),
            devices: devices.iter().map(ToString::to_string).collect(),
            changed: None,
            ..Create::default()
        };
        system.create(&create, &progress).expect("it can be made");
    };
    for (device, bytes, read_only) in [("a", a(1), false), ("b", b(), true)] {
        let path = format!("/images/{device}.raw");
        image(disk, &path, &bytes);
        let added = system.device_add(device, Path::new(&path), "raw", read_only);
        added.expect("it is a new device");
    }
    create("one", &[]);
    image(disk, "/images/a.raw", &a(2));
    create("two", &["a"]);
    image(disk, "/images/a.raw", &a(3));
    create("three", &["a"]);
    let on_a = ["a".to_string()];
    let deleted = system.delete("two", &on_a, false, &progress);
    deleted.expect("it was made");
    system.goto("one", &on_a, &progress).expect("it was made");
}
