//! A store in memory with devices on a real disk, and dice.

use std::fs;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use stillpoint_api::{Create, Output, System, VmBytes, VmState};
use stillpoint_migrate::Result;
use stillpoint_migrate::bundle::{self, Receive, Received, Send};
use stillpoint_migrate::wire::Outcome;
use stillpoint_store::catalog::Catalog;
use stillpoint_store::disk::real::RealDisk;
use stillpoint_store::format::snapshot::SnapshotRecord;
use stillpoint_store::geometry::{Compression, Geometry};
use stillpoint_store::index::memory::MemoryHome;
use stillpoint_store::object::memory::MemoryObjects;
use stillpoint_store::progress::Progress;
use stillpoint_store::store::{Doors, Store};
use stillpoint_store::tuning::Tuning;
use stillpoint_store::world::{Moment, World};

/// Bytes of a cluster.
pub const C: usize = 4096;

/// Four clusters a frame, so that many are wanted in part.
pub const GEOMETRY: Geometry = Geometry {
    cluster_bytes: 4096,
    frame_bytes: 16384,
    compression: Compression::Zstd(1),
};

/// SplitMix64.
pub struct Dice(u64);

impl Dice {
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub fn roll(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }
}

/// The bytes of one of many contents, every third of which compresses.
pub fn letter(n: u64) -> Vec<u8> {
    let mut dice = Dice::new(n + 1000);
    if n.is_multiple_of(3) {
        return dice.roll().to_le_bytes().repeat(C / 8);
    }
    (0..C / 8).flat_map(|_| dice.roll().to_le_bytes()).collect()
}

/// A disk of letters.
pub fn disk(letters: impl IntoIterator<Item = u64>) -> Vec<u8> {
    letters.into_iter().flat_map(letter).collect()
}

struct Seeded(Mutex<Dice>);

impl World for Seeded {
    fn now(&self) -> Moment {
        Moment {
            sec: 1_700_000_000 + self.0.lock().unwrap().roll() % 1_000_000,
            nsec: 5,
        }
    }

    fn random(&self) -> [u8; 16] {
        let mut dice = self.0.lock().unwrap();
        let (a, b) = (dice.roll(), dice.roll());
        std::array::from_fn(|i| if i < 8 { a } else { b }.to_le_bytes()[i % 8])
    }

    fn label(&self) -> String {
        "transfer".into()
    }
}

/// See the module.
pub struct Host {
    folder: tempfile::TempDir,
    pub objects: MemoryObjects,
    index: MemoryHome,
    world: Arc<Seeded>,
    pub system: System,
}

impl Host {
    pub fn new(seed: u64) -> Self {
        Self::of(seed, GEOMETRY)
    }

    pub fn of(seed: u64, geometry: Geometry) -> Self {
        let objects = MemoryObjects::new();
        let world = Arc::new(Seeded(Mutex::new(Dice::new(seed))));
        Store::create(&objects, &*world, geometry).unwrap();
        let index = MemoryHome::default();
        let system = open(&objects, &index, &world);
        let folder = tempfile::tempdir().unwrap();
        Self {
            folder,
            objects,
            index,
            world,
            system,
        }
    }

    /// Another process on the same store, after this one ended.
    pub fn reopened(&self) -> System {
        open(&self.objects.fork_handle(), &self.index, &self.world)
    }

    /// The same, and what it reads: the keys, one a call.
    pub fn watched(&self) -> (System, Arc<Mutex<Vec<String>>>) {
        let reads: Arc<Mutex<Vec<String>>> = Arc::default();
        let noted = reads.clone();
        let note = move |call: &str, key: &str| {
            if call.contains("get") || call.contains("read") {
                noted.lock().unwrap().push(key.into());
            }
            Ok(())
        };
        let objects = self.objects.fork_handle().with_gate(Arc::new(note));
        (open(&objects, &self.index, &self.world), reads)
    }

    pub fn image(&self, device: &str) -> PathBuf {
        self.folder.path().join(device)
    }

    /// A snapshot of a device whose image is made to hold the bytes.
    pub fn save(&self, device: &str, name: &str, bytes: &[u8]) {
        self.save_with(device, name, bytes, None);
    }

    /// The same with VM state.
    pub fn save_with(&self, device: &str, name: &str, bytes: &[u8], vm: Option<&[u8]>) {
        let path = self.image(device);
        fs::write(&path, bytes).unwrap();
        if self.catalog().device_named(device).is_none() {
            self.system.device_add(device, &path, "raw", false).unwrap();
        }
        let create = Create {
            name: Some(name.into()),
            devices: vec![device.into()],
            vm_clock_nsec: vm.map_or(0, |_| 77),
            icount: vm.map(|_| 5),
            ..Create::default()
        };
        let mut vm = vm;
        let state = vm.as_mut().map(|bytes| VmState {
            device: None,
            bytes: VmBytes::Stream(bytes),
        });
        self.system
            .create_with(&create, state, &Progress::default())
            .unwrap();
    }

    pub fn catalog(&self) -> Arc<Catalog> {
        self.system.store().refresh().unwrap()
    }

    pub fn store(&self) -> &Store {
        self.system.store()
    }

    /// All records, in the order in which they were put.
    pub fn records(&self) -> Vec<SnapshotRecord> {
        let catalog = self.catalog();
        let mut all: Vec<_> = catalog.snapshots().collect();
        all.sort_by_key(|s| s.order);
        all.iter().map(|s| s.record.clone()).collect()
    }

    pub fn read(&self, target: &str) -> Vec<u8> {
        let mut bytes = Vec::new();
        let out = Output::Stream(&mut bytes);
        self.system
            .export(target, out, &Progress::default())
            .unwrap();
        bytes
    }

    pub fn read_vm(&self, target: &str) -> Vec<u8> {
        let mut bytes = Vec::new();
        self.system
            .read_vm_state(target, &mut bytes, &Progress::default())
            .unwrap();
        bytes
    }

    /// Every byte of every pack checked, every snapshot followed.
    #[track_caller]
    pub fn verify(&self) {
        let report = self.store().verify(&Progress::default()).unwrap();
        assert!(report.is_good(), "{report:?}");
    }

    pub fn send(&self, targets: &[&str], since: &[&str]) -> Vec<u8> {
        let send = Send {
            targets: targets.iter().map(ToString::to_string).collect(),
            since: since.iter().map(ToString::to_string).collect(),
            summary: None,
            window_max: Some(7),
        };
        self.send_as(&send)
    }

    pub fn send_as(&self, send: &Send) -> Vec<u8> {
        let mut bytes = Vec::new();
        let sent = bundle::send(self.store(), send, &mut bytes, &Progress::default()).unwrap();
        assert_eq!(sent.bytes, bytes.len() as u64);
        bytes
    }

    pub fn receive(&self, bundle: &[u8]) -> Result<Received> {
        let from = std::io::Cursor::new(bundle.to_vec());
        bundle::receive(
            self.store(),
            &Receive::default(),
            from,
            &Progress::default(),
        )
    }

    #[track_caller]
    pub fn take(&self, bundle: &[u8]) -> Outcome {
        match self.receive(bundle).unwrap() {
            Received::Whole(outcome) => outcome,
            Received::Lacking { count, .. } => panic!("{count} clusters are lacking"),
        }
    }
}

fn open(objects: &MemoryObjects, index: &MemoryHome, world: &Arc<Seeded>) -> System {
    let doors = Doors {
        objects: Arc::new(objects.clone()),
        local: Arc::new(objects.clone()),
        index: Arc::new(index.clone()),
        world: world.clone(),
        say: Arc::new(|_| {}),
    };
    let tuning = Tuning {
        pack_bytes: 60_000,
        gc_step_bytes: 1,
        ..Tuning::default()
    };
    System::with_tuning(doors, Arc::new(RealDisk), tuning).unwrap()
}
