//! A store and images on one simulated disk, an index beside it, and a world without chance.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use stillpoint_api::store::disk::sim::{CrashMode, SimDisk};
use stillpoint_api::store::disk::{Disk, OpenMode};
use stillpoint_api::store::geometry::{Compression, Geometry};
use stillpoint_api::store::id::{Hash, Uid};
use stillpoint_api::store::index::memory::MemoryHome;
use stillpoint_api::store::object::local::{LocalObjects, Reserve};
use stillpoint_api::store::object::{Local, Objects};
use stillpoint_api::store::store::{Doors, Store, read_store_file};
use stillpoint_api::store::tuning::Tuning;
use stillpoint_api::store::world::{Moment, World};
use stillpoint_api::{Result, System};

pub const STORE: &str = "/store";
pub const CLUSTER: usize = 4096;
const GEOMETRY: Geometry = Geometry {
    cluster_bytes: CLUSTER as u32,
    frame_bytes: 16384,
    compression: Compression::Zstd(1),
};
/// Small, so that a test that fills the disk soon meets its end.
const RESERVE: Reserve = Reserve {
    entry_files: 4,
    entry_bytes: 64 << 10,
    pack_files: 2,
    pack_bytes: 512 << 10,
};

/// Packs of a few frames, written by the thread that fills them, so that little data makes many calls in one order.
pub fn small() -> Tuning {
    Tuning {
        pack_bytes: 48 << 10,
        packs_in_flight: 0,
        publish_every: 2,
        gc_step_bytes: 64 << 10,
        gc_pass_hashes: 16,
        ..Tuning::default()
    }
}

/// Counts instead of a clock, hashes instead of dice.
pub struct CountingWorld {
    seed: u64,
    count: AtomicU64,
}

impl World for CountingWorld {
    fn now(&self) -> Moment {
        Moment {
            sec: 1_700_000_000 + self.count.fetch_add(1, Ordering::Relaxed),
            nsec: 7,
        }
    }

    fn random(&self) -> [u8; 16] {
        let n = self.count.fetch_add(1, Ordering::Relaxed);
        let hash = Hash::of(&[self.seed.to_le_bytes(), n.to_le_bytes()].concat());
        hash.0[..16].try_into().unwrap()
    }

    fn label(&self) -> String {
        "crash test".into()
    }
}

/// A computer: what survives it being switched off, and the index, which need not.
pub struct Machine {
    pub disk: SimDisk,
    pub index: MemoryHome,
    pub tuning: Tuning,
    /// Opened so often: no two openings meet the same chance.
    boots: AtomicU64,
}

impl Machine {
    /// With an empty store and an empty folder for images.
    pub fn new(seed: u64, tuning: Tuning) -> Self {
        let disk = SimDisk::new(seed);
        disk.create_folders(Path::new("/images")).unwrap();
        disk.sync_folder(Path::new("/")).unwrap();
        let store = make_store(&disk, seed).unwrap();
        Self::on(disk, store, tuning)
    }

    /// With the store that is on a disk.
    pub fn on(disk: SimDisk, store: Uid, tuning: Tuning) -> Self {
        Self {
            disk,
            index: MemoryHome::new(store),
            tuning,
            boots: AtomicU64::new(0),
        }
    }

    fn world(&self) -> CountingWorld {
        let seed = self.boots.fetch_add(1, Ordering::Relaxed);
        CountingWorld {
            seed,
            count: AtomicU64::new(0),
        }
    }

    /// Another computer with the same contents. This one works no more, but can be copied again.
    pub fn copy(&self) -> Self {
        self.restart(CrashMode::AllUnsynced, self.index.copy())
    }

    /// What comes up after this one has crashed.
    pub fn restart(&self, mode: CrashMode, index: MemoryHome) -> Self {
        let boots = AtomicU64::new(self.boots.load(Ordering::Relaxed));
        Self {
            disk: self.disk.restart(mode),
            index,
            tuning: self.tuning,
            boots,
        }
    }

    pub fn objects(&self) -> Result<LocalObjects> {
        let disk: Arc<dyn Disk> = Arc::new(self.disk.clone());
        LocalObjects::open(disk, Path::new(STORE), RESERVE, self.world().random())
    }

    pub fn open(&self) -> Result<System> {
        let objects = Arc::new(self.objects()?);
        self.open_over(objects.clone(), objects)
    }

    /// With something between the store and its folder.
    pub fn open_over(&self, objects: Arc<dyn Objects>, local: Arc<dyn Local>) -> Result<System> {
        let doors = Doors {
            objects,
            local,
            index: Arc::new(self.index.clone()),
            world: Arc::new(self.world()),
            say: Arc::new(|_| {}),
        };
        System::with_tuning(doors, Arc::new(self.disk.clone()), self.tuning)
    }

    pub fn read(&self, path: &str) -> Result<Vec<u8>> {
        let file = self.disk.open(Path::new(path), OpenMode::Read)?;
        let mut bytes = vec![0; file.len()? as usize];
        let n = file.read_at(0, &mut bytes)?;
        assert_eq!(n, bytes.len(), "{path} is read whole");
        Ok(bytes)
    }

    /// Makes the file hold these bytes as a guest would, durably. Of clusters of zeros, some are holes.
    pub fn write(&self, path: &str, bytes: &[u8]) -> Result<()> {
        let path = Path::new(path);
        let file = match self.disk.open(path, OpenMode::Write) {
            Ok(file) => file,
            Err(_) => self.disk.open(path, OpenMode::CreateNew)?,
        };
        file.set_len(bytes.len() as u64)?;
        let mut old = vec![0; CLUSTER];
        for (i, cluster) in bytes.chunks(CLUSTER).enumerate() {
            let at = (i * CLUSTER) as u64;
            let there = &mut old[..cluster.len()];
            file.read_at(at, there)?;
            let is_hole = i % 2 == 0 && cluster.iter().all(|b| *b == 0);
            if there != cluster || (!is_hole && !file.extent(at)?.data) {
                file.write_at(at, cluster)?;
            }
        }
        file.sync()?;
        self.disk.sync_folder(Path::new("/images"))
    }

    /// Paths of all files below a prefix.
    pub fn paths(&self, prefix: &str) -> Vec<String> {
        let all = self.disk.snapshot_paths();
        let all = all
            .into_iter()
            .map(|path| path.to_string_lossy().into_owned());
        all.filter(|path| path.starts_with(prefix)).collect()
    }
}

/// Makes an empty store; returns its name.
pub fn make_store(disk: &SimDisk, seed: u64) -> Result<Uid> {
    let world = CountingWorld {
        seed,
        count: AtomicU64::new(0),
    };
    let folder: Arc<dyn Disk> = Arc::new(disk.clone());
    let objects = LocalObjects::create(folder, Path::new(STORE), RESERVE, world.random())?;
    Store::create(&objects, &world, GEOMETRY).map(|file| file.id)
}

/// The name of the store that is there.
pub fn store_there(disk: &SimDisk) -> Result<Uid> {
    let folder: Arc<dyn Disk> = Arc::new(disk.clone());
    let objects = LocalObjects::open(folder, Path::new(STORE), RESERVE, [0; 16])?;
    read_store_file(&objects).map(|file| file.id)
}

/// splitmix64.
pub struct Dice(pub u64);

impl Dice {
    pub fn roll(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    pub fn below(&mut self, n: u64) -> u64 {
        self.roll() % n
    }
}

/// A disk of so many bytes: zeros, clusters that many disks share, and clusters that none other has, some of which
/// compress.
pub fn painted(seed: u64, bytes: usize) -> Vec<u8> {
    let mut dice = Dice(seed.wrapping_mul(0x1_0001));
    let mut out = Vec::with_capacity(bytes + CLUSTER);
    while out.len() < bytes {
        match dice.below(8) {
            0 | 1 => out.extend(std::iter::repeat_n(0, CLUSTER)),
            2 | 3 => noise(&mut out, 1000 + dice.below(5), CLUSTER),
            4 => noise(&mut out, dice.roll(), 64),
            _ => noise(&mut out, dice.roll(), CLUSTER),
        }
    }
    out.truncate(bytes);
    out
}

/// One cluster: so much noise, over and over.
fn noise(out: &mut Vec<u8>, seed: u64, period: usize) {
    let mut dice = Dice(seed);
    let once: Vec<u8> = (0..period / 8)
        .flat_map(|_| dice.roll().to_le_bytes())
        .collect();
    out.extend(once.iter().cycle().take(CLUSTER));
}

/// The same disk after the guest has written here and there; every third time it has another size.
pub fn repainted(old: &[u8], seed: u64) -> Vec<u8> {
    let mut dice = Dice(seed);
    let mut new = old.to_vec();
    match seed % 3 {
        0 => new.truncate(old.len() - 3 * CLUSTER - 700),
        1 => new.extend(painted(seed, 2 * CLUSTER + 300)),
        _ => {}
    }
    let clusters = (new.len() / CLUSTER) as u64;
    for n in 0..=(clusters / 5) {
        let at = dice.below(clusters) as usize * CLUSTER;
        new[at..at + CLUSTER].copy_from_slice(&painted(seed * 100 + n, CLUSTER));
    }
    new
}

/// Runs on a pool of one thread, so that the same calls come in the same order each time.
pub fn alone<T: Send>(test: impl FnOnce() -> T + Send) -> T {
    rayon::ThreadPoolBuilder::new()
        .num_threads(1)
        .build()
        .unwrap()
        .install(test)
}

pub fn seed() -> u64 {
    std::env::var("STILL_SEED")
        .ok()
        .and_then(|seed| seed.parse().ok())
        .unwrap_or(1)
}

/// The points from 1 to `n` to visit: all, or about `limit` spread evenly from a seeded start.
pub fn points(n: u64, limit: u64) -> Vec<u64> {
    points_of_pairs(n, limit, u64::MAX)
}

/// The same where each is paired with others, so that even a full run visits only about `most`.
pub fn points_of_pairs(n: u64, limit: u64, most: u64) -> Vec<u64> {
    let full = std::env::var("STILL_ROUNDS").is_ok_and(|rounds| rounds == "full");
    let stride = n.div_ceil(if full { most } else { limit }).max(1);
    (1 + seed() % stride..=n).step_by(stride as usize).collect()
}
