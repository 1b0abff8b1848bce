//! Who takes part in a group function.

use super::{drives, errno, listed, message, qcow2, r, raw, releases};
use crate::compat::driver::Driver;
use crate::compat::graph::{Graph, Node, NodeId, Role};
use crate::compat::info::QemuSnapshotInfo;
use crate::compat::release::Release;
use crate::compat::{
    Devices, bdrv_all_can_snapshot, bdrv_all_create_snapshot, bdrv_all_find_vmstate_bs,
    bdrv_all_goto_snapshot, errno as e,
};

/// Nodes by what becomes of them.
struct Zoo {
    graph: Graph,
    all: Vec<(&'static str, NodeId)>,
}

/// A qcow2 drive, and one of each that may be passed over; all but the raw one hold the snapshot `s`.
fn zoo(with_raw: bool) -> Zoo {
    let s = || qcow2(&[("1", "s")]);
    let (mut graph, drives) = drives(vec![s(), s(), s()]);
    graph.get_mut(drives[1]).unwrap().read_only = true;
    graph.get_mut(drives[2]).unwrap().inserted = false;
    // A protocol node of -blockdev: the monitor's, below a format node that has the backend.
    let top = graph.add(Node::new("top", s())).unwrap();
    graph.add_backend("", Some(top));
    let protocol = graph.add(Node::new("protocol", raw())).unwrap();
    graph.add_child(top, "file", Role::IMAGE, protocol).unwrap();
    let backing = graph.add(Node::new("backing", s()).read_only()).unwrap();
    graph.add_child(top, "backing", Role::COW, backing).unwrap();
    let below = graph.add(Node::new("below", s())).unwrap();
    graph.add_child(top, "below", Role::COW, below).unwrap();
    let lonely = graph.add(Node::new("lonely", s())).unwrap();
    let mut all = vec![
        ("drive", drives[0]),
        ("read-only", drives[1]),
        ("ejected", drives[2]),
        ("top", top),
        ("protocol", protocol),
        ("backing", backing),
        ("below", below),
        ("lonely", lonely),
    ];
    if with_raw {
        all.push(("raw", graph.add_drive("raw", raw()).unwrap()));
    }
    Zoo { graph, all }
}

impl Zoo {
    fn node(&self, name: &str) -> NodeId {
        self.all.iter().find(|(n, _)| *n == name).unwrap().1
    }

    /// Those that got a second snapshot.
    fn touched(&mut self, release: Release) -> Vec<&'static str> {
        let mut touched = Vec::new();
        for (name, node) in self.all.clone() {
            let has = self
                .graph
                .driver(node)
                .is_some_and(|d| d.has(crate::compat::driver::Op::List));
            if has && listed(release, &mut self.graph, node).len() > 1 {
                touched.push(name);
            }
        }
        touched
    }
}

#[test]
fn all_create_passes_over_what_its_release_passes_over() {
    let none = Devices::default();
    for release in releases("2.5", "11.1") {
        let mut zoo = zoo(false);
        let mut sn = QemuSnapshotInfo::named(b"new");
        bdrv_all_create_snapshot(release, &mut zoo.graph, &mut sn, None, 0, &none).unwrap();
        // By can_snapshot a writable node below another is in, by F it is not; a protocol node is no part of either.
        let expected: &[&str] = if release <= r("4.1") {
            &["drive", "top", "below", "lonely"]
        } else {
            &["drive", "top", "lonely"]
        };
        assert_eq!(zoo.touched(release), expected, "{release}");
    }
}

/// 2.5-4.1 skip a writable raw disk in all but `all_can`; from 4.2 on it is included and fails.
#[test]
fn a_writable_raw_disk_is_skipped_through_4_1_and_fails_from_4_2_on() {
    let none = Devices::default();
    for release in releases("2.5", "11.1") {
        let mut zoo = zoo(true);
        let raw = zoo.node("raw");
        let mut sn = QemuSnapshotInfo::named(b"new");
        let made = bdrv_all_create_snapshot(release, &mut zoo.graph, &mut sn, None, 0, &none);
        let gone = bdrv_all_goto_snapshot(release, &mut zoo.graph, b"s", &none);
        if release <= r("4.1") {
            assert!(made.is_ok() && gone.is_ok(), "{release}");
        } else {
            let (made, gone) = (made.unwrap_err(), gone.unwrap_err());
            let bad = (release <= r("5.2")).then_some(raw);
            assert_eq!((made.first_bad, gone.first_bad), (bad, bad), "{release}");
        }
        assert!(bdrv_all_can_snapshot(release, &zoo.graph, &none).is_err());
        crate::compat::bdrv_all_delete_snapshot(release, &mut zoo.graph, b"s", &none).unwrap();
    }
}

#[test]
fn all_can_is_barred_by_protocol_nodes_of_blockdev_through_4_1() {
    let none = Devices::default();
    for release in releases("2.5", "11.1") {
        let zoo = zoo(false);
        let can = bdrv_all_can_snapshot(release, &zoo.graph, &none);
        if release <= r("4.1") {
            assert_eq!(
                can.unwrap_err().first_bad,
                Some(zoo.node("protocol")),
                "{release}"
            );
        } else {
            can.unwrap();
        }
    }
}

#[test]
fn a_read_only_disk_is_never_reverted() {
    let none = Devices::default();
    for release in releases("2.5", "11.1") {
        let mut zoo = zoo(false);
        bdrv_all_goto_snapshot(release, &mut zoo.graph, b"s", &none).unwrap();
        for (name, byte) in [
            ("drive", 1),
            ("top", 1),
            ("lonely", 1),
            ("read-only", 0),
            ("ejected", 0),
            ("backing", 0),
        ] {
            let node = zoo.node(name);
            assert_eq!(
                super::disk(&mut zoo.graph, node),
                [byte; 4],
                "{release} {name}"
            );
        }
    }
}

#[test]
fn a_list_overrides_the_filter_and_its_order_counts_from_6_0_on() {
    for release in releases("6.0", "11.1") {
        let mut zoo = zoo(true);
        let list = Devices::list(&["lonely", "d1"]);
        let mut sn = QemuSnapshotInfo::named(b"new");
        bdrv_all_create_snapshot(release, &mut zoo.graph, &mut sn, None, 0, &list).unwrap();
        // d1 is read-only, and a list takes it all the same.
        assert_eq!(zoo.touched(release), ["read-only", "lonely"]);
        let can = bdrv_all_can_snapshot(release, &zoo.graph, &Devices::list(&["d0", "raw"]));
        let text = "Device 'raw' is writable but does not support snapshots";
        assert_eq!(message(can).as_deref(), Some(text), "{release}");
        let picked = bdrv_all_find_vmstate_bs(
            release,
            &zoo.graph,
            None,
            &Devices::list(&["raw", "lonely", "d0"]),
        );
        assert_eq!(picked.unwrap(), Some(zoo.node("lonely")));
    }
}

#[test]
fn a_node_named_twice_gets_two_snapshots() {
    for release in releases("6.0", "11.1") {
        let mut zoo = zoo(false);
        let list = Devices::list(&["d0", "d0"]);
        let mut sn = QemuSnapshotInfo::named(b"new");
        bdrv_all_create_snapshot(release, &mut zoo.graph, &mut sn, None, 0, &list).unwrap();
        let d0 = zoo.node("drive");
        assert_eq!(listed(release, &mut zoo.graph, d0).len(), 3);
    }
}

#[test]
fn an_empty_list_and_an_unknown_node_are_errors() {
    for release in releases("6.0", "11.1") {
        let zoo = zoo(false);
        let can = |devices: &Devices| bdrv_all_can_snapshot(release, &zoo.graph, devices);
        let empty = can(&Devices {
            has: true,
            names: vec![],
        });
        assert_eq!(
            message(empty).as_deref(),
            Some("At least one device is required for snapshot")
        );
        let unknown = can(&Devices::list(&["d0", "nix"]));
        assert_eq!(
            message(unknown).as_deref(),
            Some("No block device node 'nix'")
        );
    }
}

/// The pointer decides, not the bool: all nodes, and none left out.
#[test]
fn names_without_has_devices_mean_every_node_unfiltered() {
    for release in releases("6.0", "11.1") {
        let zoo = zoo(false);
        let devices = Devices {
            has: false,
            names: vec!["anything".into()],
        };
        let can = bdrv_all_can_snapshot(release, &zoo.graph, &devices);
        let text = "Device 'd1' is writable but does not support snapshots";
        assert_eq!(
            message(can).as_deref(),
            Some(text),
            "{release}: even though it is read-only"
        );
    }
}

#[test]
fn a_list_before_6_0_and_a_group_before_2_5_are_not_there() {
    for release in releases("1.0", "5.2") {
        let zoo = zoo(false);
        let can = bdrv_all_can_snapshot(release, &zoo.graph, &Devices::list(&["d0"]));
        assert_eq!(errno(can), e::ENOSYS, "{release}");
    }
    for release in releases("1.0", "2.4") {
        let mut zoo = zoo(false);
        let none = Devices::default();
        assert_eq!(
            errno(bdrv_all_can_snapshot(release, &zoo.graph, &none)),
            e::ENOSYS
        );
        assert_eq!(
            errno(bdrv_all_goto_snapshot(release, &mut zoo.graph, b"s", &none)),
            e::ENOSYS
        );
    }
}

#[test]
fn the_vm_state_goes_to_the_first_that_takes_part_and_can() {
    let none = Devices::default();
    for release in releases("2.5", "11.1") {
        let pick = |drivers: Vec<Box<dyn Driver>>| {
            let (graph, nodes) = drives(drivers);
            let found = bdrv_all_find_vmstate_bs(release, &graph, None, &none);
            found.map(|node| node.and_then(|n| nodes.iter().position(|m| *m == n)))
        };
        assert_eq!(pick(vec![raw(), qcow2(&[]), qcow2(&[])]).unwrap(), Some(1));
        let nobody = pick(vec![raw()]);
        if release <= r("5.2") {
            assert_eq!(nobody.unwrap(), None, "{release}: NULL");
        } else {
            let text = "no block device can store vmstate for snapshot";
            assert_eq!(message(nobody).as_deref(), Some(text));
        }
    }
}

#[test]
fn from_6_0_on_the_node_of_the_vm_state_can_be_named() {
    for release in releases("6.0", "11.1") {
        let zoo = zoo(true);
        let none = Devices::default();
        let pick = |name| bdrv_all_find_vmstate_bs(release, &zoo.graph, Some(name), &none);
        assert_eq!(pick("lonely").unwrap(), Some(zoo.node("lonely")));
        let text = "vmstate block device 'raw' does not support snapshots";
        assert_eq!(message(pick("raw")).as_deref(), Some(text));
        let text = "vmstate block device 'nix' does not exist";
        assert_eq!(message(pick("nix")).as_deref(), Some(text));
        // A read-only one is met, and does not take part.
        assert!(pick("d1").is_err());
        let listed =
            bdrv_all_find_vmstate_bs(release, &zoo.graph, Some("lonely"), &Devices::list(&["d0"]));
        assert!(listed.is_err(), "only among the list");
    }
    let zoo = zoo(false);
    let named = bdrv_all_find_vmstate_bs(r("5.2"), &zoo.graph, Some("d0"), &Devices::default());
    assert_eq!(errno(named), e::ENOSYS);
}
