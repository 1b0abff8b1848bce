//! The functions over devices of a real store: what qemu-iotests 015, 029, 058 and 217 check, groups, locks, VM state.

mod like_memory;
mod vm_state;
mod volumes;

use super::StoreTable;
use crate::OpenOptions;
use crate::compat::graph::{Graph, NodeId};
use crate::compat::info::QemuSnapshotInfo;
use crate::compat::release::Release;
use crate::compat::{
    Devices, SnapshotArgument, bdrv_all_create_snapshot, bdrv_all_find_snapshot,
    bdrv_all_goto_snapshot, bdrv_snapshot_create, bdrv_snapshot_delete, bdrv_snapshot_goto,
    bdrv_snapshot_list, bdrv_snapshot_load_tmp, bdrv_snapshot_load_tmp_by_id_or_name, errno as e,
    parse_snapshot_argument,
};
use crate::system::System;
use crate::{Create, Import, compat};
use std::fs;
use std::path::PathBuf;
use std::sync::Arc;
use stillpoint_store::disk::Disk;
use stillpoint_store::disk::real::RealDisk;
use stillpoint_store::geometry::Geometry;
use stillpoint_store::image::{Access, Image};
use stillpoint_store::ops::gc;
use stillpoint_store::progress::Progress;

const SIZE: usize = 256 << 10;

/// A store with attached raw images d0, d1, ... in a graph.
struct Host {
    folder: tempfile::TempDir,
    system: Arc<System>,
    graph: Graph,
    nodes: Vec<NodeId>,
}

fn r(text: &str) -> Release {
    text.parse().unwrap()
}

impl Host {
    fn new(disks: usize) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let store = folder.path().join("store");
        System::init(&store, Geometry::DEFAULT).unwrap();
        let system = Arc::new(System::open(&store, OpenOptions::default()).unwrap());
        let mut host = Self {
            folder,
            system,
            graph: Graph::new(),
            nodes: Vec::new(),
        };
        for n in 0..disks {
            let name = format!("d{n}");
            host.write(n, 0);
            host.system
                .device_add(&name, &host.image(n), "raw", false)
                .unwrap();
            host.nodes
                .push(host.graph.add_device(&host.system, &name).unwrap());
        }
        host
    }

    fn image(&self, n: usize) -> PathBuf {
        self.folder.path().join(format!("d{n}.raw"))
    }

    /// What the guest did: the whole disk is of this byte.
    fn write(&self, n: usize, byte: u8) {
        fs::write(self.image(n), vec![byte; SIZE]).unwrap();
    }

    fn holds(&self, n: usize) -> Vec<u8> {
        fs::read(self.image(n)).unwrap()
    }

    fn create(&mut self, release: &str, n: usize, name: &[u8]) -> String {
        let mut sn = QemuSnapshotInfo::named(name);
        bdrv_snapshot_create(r(release), &mut self.graph, self.nodes[n], &mut sn).unwrap();
        sn.id_str.to_string()
    }

    fn goto(&mut self, release: &str, n: usize, name: &[u8]) -> Result<(), compat::Failure> {
        bdrv_snapshot_goto(r(release), &mut self.graph, self.nodes[n], name)
    }

    fn list(&mut self, n: usize) -> Vec<(String, Vec<u8>)> {
        let all = bdrv_snapshot_list(r("4.2"), &mut self.graph, self.nodes[n]).unwrap();
        let pair = |s: &QemuSnapshotInfo| (s.id_str.to_string(), s.name.as_bytes().to_vec());
        all.iter().map(pair).collect()
    }

    fn read(&mut self, n: usize) -> Vec<u8> {
        let driver = self.graph.driver(self.nodes[n]).unwrap();
        let mut bytes = vec![0xee; driver.size().unwrap() as usize];
        driver.read_at(0, &mut bytes).unwrap();
        bytes
    }
}

#[test]
fn iotest_015_over_a_store() {
    let mut host = Host::new(1);
    host.write(0, 1);
    assert_eq!(host.create("4.2", 0, b"snap1"), "1");
    host.write(0, 2);
    assert_eq!(host.create("4.2", 0, b"snap2"), "2");
    host.write(0, 3);
    for (name, byte) in [(b"snap1", 1), (b"snap2", 2), (b"snap1", 1)] {
        host.goto("4.2", 0, name).unwrap();
        assert!(host.holds(0) == vec![byte; SIZE]);
    }
    let bs = host.nodes[0];
    bdrv_snapshot_delete(r("4.2"), &mut host.graph, bs, Some(b"1"), None).unwrap();
    assert_eq!(host.list(0), [("2".into(), b"snap2".to_vec())]);
    assert!(host.holds(0) == vec![1; SIZE], "what was gone to stays");
}

#[test]
fn iotest_029_over_a_store() {
    for (release, goes) in [("5.0", false), ("5.1", true)] {
        let mut host = Host::new(1);
        fs::write(host.image(0), vec![1; SIZE / 2]).unwrap();
        host.create(release, 0, b"foo");
        host.write(0, 2);
        let gone = host.goto(release, 0, b"foo");
        let expected = if goes {
            vec![1; SIZE / 2]
        } else {
            vec![2; SIZE]
        };
        assert!(
            gone.is_ok() == goes && host.holds(0) == expected,
            "{release}"
        );
        assert_eq!(gone.err().map(|f| f.ret), (!goes).then_some(-e::ENOTSUP));
        assert_eq!(host.graph.take_reports().len(), usize::from(!goes));
    }
}

#[test]
fn iotest_058_over_a_store() {
    let mut host = Host::new(1);
    host.write(0, 1);
    host.create("4.2", 0, b"sn1");
    fs::write(host.image(0), vec![2; SIZE + 4096]).unwrap();
    host.graph.get_mut(host.nodes[0]).unwrap().read_only = true;
    for argument in [&b"sn1"[..], b"1", b"snapshot.name=sn1", b"snapshot.id=1"] {
        let (release, bs) = (r("4.2"), host.nodes[0]);
        match parse_snapshot_argument(release, argument).unwrap() {
            SnapshotArgument::IdOrName(word) => {
                bdrv_snapshot_load_tmp_by_id_or_name(release, &mut host.graph, bs, &word).unwrap();
            }
            SnapshotArgument::Options { id, name } => {
                let (id, name) = (id.as_deref(), name.as_deref());
                bdrv_snapshot_load_tmp(release, &mut host.graph, bs, id, name).unwrap();
            }
        }
        // The size stays that of the image; beyond the snapshot there are zeros.
        let shown = host.read(0);
        assert!(shown == [vec![1; SIZE], vec![0; 4096]].concat());
        assert!(
            host.holds(0) == vec![2; SIZE + 4096],
            "the device is not touched"
        );
    }
}

/// Another process deletes all snapshots of that name and frees what they had.
fn delete_elsewhere(host: &Host, name: &str) {
    let store = host.folder.path().join("store");
    let system = System::open(&store, OpenOptions::default()).unwrap();
    let all = gc::Options {
        all: true,
        dry_run: false,
    };
    let progress = Progress::default();
    system.delete(name, &[], false, &progress).unwrap();
    system.store().gc(all, &progress).unwrap();
}

/// With VM state, which is of this byte.
fn save(host: &mut Host, name: &[u8], byte: u8) {
    let bs = host.nodes[0];
    let driver = host.graph.driver(bs).unwrap();
    driver.save_vmstate(0, &vec![byte; 50_000]).unwrap();
    let mut sn = QemuSnapshotInfo {
        vm_state_size: 50_000,
        ..QemuSnapshotInfo::named(name)
    };
    bdrv_snapshot_create(r("4.2"), &mut host.graph, bs, &mut sn).unwrap();
}

fn vm_state(host: &mut Host) -> Vec<u8> {
    let driver = host.graph.driver(host.nodes[0]).unwrap();
    let mut state = vec![0xee; driver.vmstate_len().unwrap() as usize];
    driver.load_vmstate(0, &mut state).unwrap();
    state
}

#[test]
fn what_load_tmp_shows_stays_when_another_process_deletes_it_and_runs_gc() {
    let mut host = Host::new(1);
    host.write(0, 1);
    save(&mut host, b"a", 7);
    host.write(0, 2);
    let bs = host.nodes[0];
    host.graph.get_mut(bs).unwrap().read_only = true;
    bdrv_snapshot_load_tmp(r("4.2"), &mut host.graph, bs, None, Some(b"a")).unwrap();
    delete_elsewhere(&host, "a");
    assert!(host.read(0) == vec![1; SIZE]);
    assert!(vm_state(&mut host) == vec![7; 50_000]);
    // Which snapshots there are is asked each time.
    let gone = bdrv_snapshot_load_tmp(r("4.2"), &mut host.graph, bs, None, Some(b"a"));
    assert_eq!(gone.unwrap_err().ret, -e::ENOENT);
}

#[test]
fn what_nobody_shows_any_more_is_given_back() {
    let mut host = Host::new(1);
    host.write(0, 1);
    save(&mut host, b"a", 7);
    let bs = host.nodes[0];
    host.graph.get_mut(bs).unwrap().read_only = true;
    let pins = |host: &Host| host.system.store().refresh().unwrap().sessions().count();
    bdrv_snapshot_load_tmp(r("4.2"), &mut host.graph, bs, None, Some(b"a")).unwrap();
    assert_eq!(pins(&host), 2, "disk and VM state");
    bdrv_snapshot_load_tmp(r("4.2"), &mut host.graph, bs, None, Some(b"a")).unwrap();
    assert_eq!(pins(&host), 2);
    drop(host.graph.remove(bs));
    assert_eq!(pins(&host), 0);
}

#[test]
fn iotest_217_over_a_store() {
    let mut host = Host::new(1);
    host.write(0, 1);
    host.create("4.2", 0, b"foo");
    host.write(0, 2);
    host.create("4.2", 0, b"bar");
    let bs = host.nodes[0];
    bdrv_snapshot_delete(r("4.2"), &mut host.graph, bs, None, Some(b"foo")).unwrap();
    assert_eq!(host.list(0), [("2".into(), b"bar".to_vec())]);
    host.write(0, 3);
    host.goto("4.2", 0, b"bar").unwrap();
    assert!(host.holds(0) == vec![2; SIZE]);
}

#[test]
fn the_store_holds_what_qemu_could_name_and_another_process_sees_it() {
    let mut host = Host::new(1);
    for name in [&b"a"[..], b"a", b"", b"\xff/@\n", &[b'x'; 300]] {
        host.create("4.2", 0, name);
    }
    let store = host.folder.path().join("store");
    let other = Arc::new(System::open(&store, OpenOptions::default()).unwrap());
    let mut graph = Graph::new();
    let bs = graph.add_device(&other, "d0").unwrap();
    let all = bdrv_snapshot_list(r("4.2"), &mut graph, bs).unwrap();
    let names: Vec<&[u8]> = all.iter().map(|s| s.name.as_bytes()).collect();
    assert_eq!(names, [&b"a"[..], b"a", b"", b"\xff/@\n", &[b'x'; 255]]);
    // The first of two goes, in the order of the table.
    bdrv_snapshot_delete(r("4.2"), &mut graph, bs, None, Some(b"a")).unwrap();
    let ids: Vec<String> = host.list(0).into_iter().map(|(id, _)| id).collect();
    assert_eq!(ids, ["2", "3", "4", "5"]);
}

#[test]
fn ids_are_reused_and_collide_as_in_qcow2_while_native_ones_never_come_again() {
    let mut host = Host::new(1);
    assert_eq!(host.create("4.2", 0, b"a"), "1");
    let bs = host.nodes[0];
    bdrv_snapshot_delete(r("4.2"), &mut host.graph, bs, Some(b"1"), None).unwrap();
    assert_eq!(host.create("4.2", 0, b"b"), "1");
    let create = crate::Create {
        name: Some("native".into()),
        ..Default::default()
    };
    let made = host.system.create(&create, &Progress::default()).unwrap();
    assert_eq!(made.devices[0].id, "2");
    let mut sn = QemuSnapshotInfo {
        id_str: "2".into(),
        ..QemuSnapshotInfo::named(b"c")
    };
    let taken = bdrv_snapshot_create(r("2.3"), &mut host.graph, bs, &mut sn).unwrap_err();
    assert_eq!(taken.ret, -e::EEXIST);
    assert_eq!(host.list(0).len(), 2);
}

#[test]
fn the_fields_of_a_snapshot_come_back() {
    let mut host = Host::new(1);
    let bs = host.nodes[0];
    let asked = QemuSnapshotInfo {
        date_sec: u32::MAX,
        date_nsec: 999_999_999,
        vm_clock_nsec: u64::MAX,
        icount: 0,
        ..QemuSnapshotInfo::named(b"s")
    };
    let mut sn = asked;
    bdrv_snapshot_create(r("5.2"), &mut host.graph, bs, &mut sn).unwrap();
    let seen = bdrv_snapshot_list(r("5.2"), &mut host.graph, bs).unwrap()[0];
    assert_eq!(
        seen,
        QemuSnapshotInfo {
            id_str: "1".into(),
            ..asked
        }
    );
}

#[test]
fn an_image_that_somebody_writes_is_busy() {
    let mut host = Host::new(1);
    host.create("4.2", 0, b"s");
    let guest = Image::open(&RealDisk, &host.image(0), Access::Write).unwrap();
    let failed = host.goto("4.2", 0, b"s").unwrap_err();
    assert_eq!(failed.ret, -e::EBUSY);
    let error = failed.error.unwrap();
    assert_eq!(
        error.to_string(),
        "Failed to load snapshot: Device or resource busy"
    );
    assert!(
        failed.cause.is_some() && error.hint.is_some(),
        "the store says more"
    );
    let mut sn = QemuSnapshotInfo::named(b"t");
    let bs = host.nodes[0];
    let failed = bdrv_snapshot_create(r("4.2"), &mut host.graph, bs, &mut sn).unwrap_err();
    assert_eq!((failed.ret, failed.error.is_none()), (-e::EBUSY, true));
    drop(guest);
    host.goto("4.2", 0, b"s").unwrap();
}

#[test]
fn a_group_over_a_store_leaves_what_its_era_left_and_the_native_one_does_not() {
    let mut host = Host::new(3);
    let none = Devices::default();
    let guest = Image::open(&RealDisk, &host.image(1), Access::Write).unwrap();
    let mut sn = QemuSnapshotInfo::named(b"s");
    let made = bdrv_all_create_snapshot(r("4.2"), &mut host.graph, &mut sn, None, 0, &none);
    assert_eq!(made.unwrap_err().first_bad, Some(host.nodes[1]));
    assert_eq!(
        (host.list(0).len(), host.list(1).len(), host.list(2).len()),
        (1, 0, 0)
    );
    let create = crate::Create {
        name: Some("n".into()),
        ..Default::default()
    };
    assert!(host.system.create(&create, &Progress::default()).is_err());
    assert_eq!((host.list(0).len(), host.list(2).len()), (1, 0));
    drop(guest);
    bdrv_all_create_snapshot(r("4.2"), &mut host.graph, &mut sn, None, 0, &none).unwrap();
    bdrv_all_find_snapshot(r("4.2"), &mut host.graph, b"s").unwrap();
    for n in 0..3 {
        host.write(n, 9);
    }
    bdrv_all_goto_snapshot(r("4.2"), &mut host.graph, b"s", &none).unwrap();
    assert!((0..3).all(|n| host.holds(n) == vec![0; SIZE]));
}

#[test]
fn a_device_without_an_image_has_its_head_for_a_disk() {
    let mut host = Host::new(1);
    let system = host.system.clone();
    host.write(0, 4);
    let source = host.folder.path().join("other.raw");
    fs::copy(host.image(0), &source).unwrap();
    let import = Import {
        image: &source,
        device: "golden",
        name: Some("v1"),
    };
    system.import(&import, &Progress::default()).unwrap();
    host.nodes
        .push(host.graph.add_device(&system, "golden").unwrap());
    assert!(host.read(1) == vec![4; SIZE]);
    assert_eq!(host.create("4.2", 1, b"v2"), "2");
    host.goto("4.2", 1, b"v1").unwrap();
    assert_eq!(host.list(1).len(), 2);
    // Somebody else gives it other contents.
    fs::write(&source, vec![5; SIZE / 2]).unwrap();
    let v3 = Import {
        name: Some("v3"),
        ..import
    };
    system.import(&v3, &Progress::default()).unwrap();
    assert!(host.read(1) == vec![5; SIZE / 2]);
}

#[test]
fn a_node_is_of_its_device_and_of_no_other_that_has_the_name_now() {
    let mut host = Host::new(1);
    host.system.device_remove("d0").unwrap();
    let other = host.folder.path().join("other.raw");
    fs::write(&other, vec![9; SIZE]).unwrap();
    host.system.device_add("d0", &other, "raw", false).unwrap();
    let progress = Progress::default();
    let theirs = Create {
        name: Some("theirs".into()),
        ..Create::default()
    };
    host.system.create(&theirs, &progress).unwrap();
    fs::write(&other, vec![10; SIZE]).unwrap();
    let (graph, bs) = (&mut host.graph, host.nodes[0]);
    let mut sn = QemuSnapshotInfo::named(b"mine");
    let ret = |done: Result<(), compat::Failure>| done.unwrap_err().ret;
    assert_eq!(
        ret(bdrv_snapshot_create(r("4.2"), graph, bs, &mut sn)),
        -e::ENOMEDIUM
    );
    assert_eq!(
        ret(bdrv_snapshot_goto(r("4.2"), graph, bs, b"theirs")),
        -e::ENOMEDIUM
    );
    assert_eq!(
        ret(bdrv_snapshot_list(r("4.2"), graph, bs).map(drop)),
        -e::ENOMEDIUM
    );
    let read = graph.driver(bs).unwrap().read_at(0, &mut [0; 16]);
    assert_eq!(read.unwrap_err().errno, e::ENOMEDIUM);
    assert!(fs::read(&other).unwrap() == vec![10; SIZE]);
    assert_eq!(host.system.list(Some("d0")).unwrap().len(), 1);
}

#[test]
fn a_device_that_is_not_there_is_an_error_and_one_that_went_is_no_medium() {
    let mut host = Host::new(1);
    assert!(StoreTable::open(host.system.clone(), "nix").is_err());
    host.system.device_remove("d0").unwrap();
    let failed = bdrv_snapshot_list(r("4.2"), &mut host.graph, host.nodes[0]).unwrap_err();
    assert_eq!(failed.ret, -e::ENOMEDIUM);
    assert!(RealDisk.kind(&host.image(0)).is_ok());
}

#[test]
fn an_image_that_is_gone_is_told_from_a_snapshot_that_there_is_not() {
    let mut host = Host::new(1);
    host.create("4.2", 0, b"a");
    fs::remove_file(host.image(0)).unwrap();
    let (graph, bs) = (&mut host.graph, host.nodes[0]);
    let gone = bdrv_snapshot_goto(r("4.2"), graph, bs, b"a").unwrap_err();
    let text = "Failed to load snapshot: No medium found";
    assert_eq!((gone.ret, gone.to_string().as_str()), (-e::ENOMEDIUM, text));
    let made = bdrv_snapshot_create(r("4.2"), graph, bs, &mut QemuSnapshotInfo::named(b"b"));
    assert_eq!(made.unwrap_err().ret, -e::ENOMEDIUM);
    let missing = bdrv_snapshot_goto(r("4.2"), graph, bs, b"nix").unwrap_err();
    assert_eq!(missing.ret, -e::ENOENT);
    // The snapshots are in the store.
    assert_eq!(host.list(0).len(), 1);
}
