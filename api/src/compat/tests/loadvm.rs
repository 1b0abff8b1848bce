//! loadvm.

use super::{Machine, disk, drives, info, listed, message, qcow2, r, raw, releases};
use crate::compat::driver::Driver;
use crate::compat::graph::{DirtyBitmap, Graph, NodeId};
use crate::compat::memory::MemoryTable;
use crate::compat::monitor::{loadvm, snapshot_load};
use crate::compat::qcow2::Qcow2;
use crate::compat::release::Release;
use crate::compat::{QemuSnapshotInfo, errno as e};

/// Two disks of zeros with a save `s` of a machine in state `ram`, when the disks were of ones and twos.
fn saved() -> (Graph, Vec<NodeId>) {
    let of = |byte, state: &[u8]| -> Box<dyn Driver> {
        let mut table = MemoryTable::new(&[0; 4]);
        table.vm_state = state.to_vec();
        let vm_state_size = state.len() as u64;
        table.insert(
            QemuSnapshotInfo {
                vm_state_size,
                ..info("1", "s")
            },
            &[byte; 4],
        );
        table.vm_state.clear();
        Box::new(Qcow2::new(table))
    };
    drives(vec![of(1, b"ram"), of(2, b"")])
}

#[test]
fn loadvm_brings_back_disks_and_machine() {
    for release in Release::all() {
        let (mut graph, nodes) = saved();
        let mut vm = Machine::new("other");
        loadvm(release, &mut graph, &mut vm, b"s").unwrap();
        assert_eq!(vm.state, b"ram", "{release}");
        assert!(vm.running);
        assert_eq!(
            (disk(&mut graph, nodes[0]), disk(&mut graph, nodes[1])),
            (vec![1; 4], vec![2; 4])
        );
        assert_eq!(
            listed(release, &mut graph, nodes[0]).len(),
            1,
            "the snapshot stays"
        );
    }
}

#[test]
fn a_disk_only_snapshot_is_refused_before_any_disk_is_touched() {
    for release in Release::all() {
        let (mut graph, nodes) = drives(vec![qcow2(&[("1", "s")]), qcow2(&[("1", "s")])]);
        let failed = loadvm(release, &mut graph, &mut Machine::new("x"), b"s").unwrap_err();
        assert_eq!(failed.ret, -e::EINVAL);
        let text = if release <= r("2.9") {
            "This is a disk-only snapshot. Revert to it offline using qemu-img."
        } else {
            "This is a disk-only snapshot. Revert to it  offline using qemu-img"
        };
        assert_eq!(failed.error.unwrap().to_string(), text, "{release}");
        assert_eq!(disk(&mut graph, nodes[0]), [0; 4]);
    }
}

#[test]
fn one_disk_that_lacks_it_aborts_the_load() {
    for release in Release::all() {
        let (mut graph, nodes) = saved();
        graph.add_drive("d2", qcow2(&[])).unwrap();
        let mut vm = Machine::new("x");
        let failed = loadvm(release, &mut graph, &mut vm, b"s").unwrap_err();
        let text = if release <= r("5.2") {
            "Device 'd2' does not have the requested snapshot 's'"
        } else {
            "Snapshot 's' does not exist in one or more devices"
        };
        assert_eq!(
            (failed.ret, failed.to_string().as_str()),
            (-e::ENOENT, text)
        );
        assert_eq!(vm.state, b"x");
        // A read-only one need not have it.
        let d2 = graph.device("d2").unwrap();
        graph.get_mut(d2).unwrap().read_only = true;
        loadvm(release, &mut graph, &mut vm, b"s").unwrap();
        assert_eq!(disk(&mut graph, nodes[0]), [1; 4], "{release}");
    }
}

#[test]
fn a_writable_raw_disk_bars_it_first_of_all() {
    for release in Release::all() {
        let (mut graph, _) = drives(vec![qcow2(&[]), raw()]);
        let failed = loadvm(release, &mut graph, &mut Machine::new("x"), b"nix");
        let stop = if release <= r("2.9") { "." } else { "" };
        let text = format!("Device 'd1' is writable but does not support snapshots{stop}");
        assert_eq!(message(failed), Some(text), "{release}");
    }
}

#[test]
fn names_are_ids_too_through_3_1_and_the_machine_stays_stopped_after_a_failure() {
    for release in Release::all() {
        let (mut graph, _) = saved();
        let mut vm = Machine::new("x");
        let loaded = loadvm(release, &mut graph, &mut vm, b"1");
        assert_eq!(loaded.is_ok(), release <= r("3.1"), "{release}");
        assert_eq!(vm.running, release <= r("3.1"));
    }
}

#[test]
fn when_the_state_cannot_be_read_the_disks_stay_reverted() {
    for release in Release::all() {
        let (mut graph, nodes) = saved();
        let driver = graph.driver(nodes[0]).unwrap();
        driver.save_vmstate(0, b"junk").unwrap();
        let mut vm = Machine {
            fails: true,
            ..Machine::new("x")
        };
        assert!(loadvm(release, &mut graph, &mut vm, b"s").is_err());
        assert_eq!(disk(&mut graph, nodes[1]), [2; 4], "{release}");
        assert!(!vm.running);
    }
}

#[test]
fn a_bitmap_on_the_second_disk_leaves_the_first_reverted_from_2_11_on() {
    for release in releases("2.11", "11.1") {
        let (mut graph, nodes) = saved();
        graph
            .get_mut(nodes[1])
            .unwrap()
            .bitmaps
            .push(DirtyBitmap::new("b"));
        let mut vm = Machine::new("x");
        let failed = loadvm(release, &mut graph, &mut vm, b"s");
        let text = "Could not load snapshot 's' on 'd1': Device has active dirty bitmaps";
        assert_eq!(message(failed).as_deref(), Some(text), "{release}");
        let disks = (disk(&mut graph, nodes[0]), disk(&mut graph, nodes[1]));
        assert_eq!(disks, (vec![1; 4], vec![0; 4]), "{release}");
        assert_eq!(vm.state, b"x", "{release}: no state was read");
    }
}

#[test]
fn the_job_loads_from_the_nodes_named() {
    for release in releases("6.0", "11.1") {
        let (mut graph, _) = saved();
        let mut vm = Machine::new("x");
        let mut load = |vmstate, devices: &[&str]| {
            snapshot_load(release, &mut graph, &mut vm, b"s", vmstate, devices)
        };
        let text = "This is a disk-only snapshot. Revert to it  offline using qemu-img";
        assert_eq!(message(load("d1", &["d0", "d1"])).as_deref(), Some(text));
        assert!(load("d0", &["nix"]).is_err() && load("d0", &["d1"]).is_err());
        load("d0", &["d0", "d1"]).unwrap();
        assert_eq!(vm.state, b"ram");
    }
}
