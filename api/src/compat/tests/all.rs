//! Results of the group functions, and what they leave behind.

use super::{disk, drives, errno, info, listed, pairs, qcow2, r, releases, table};
use crate::compat::driver::Driver;
use crate::compat::graph::{DirtyBitmap, Graph, NodeId};
use crate::compat::info::QemuSnapshotInfo;
use crate::compat::memory::MemoryTable;
use crate::compat::qcow2::Qcow2;
use crate::compat::release::Release;
use crate::compat::{
    Devices, Failure, bdrv_all_create_snapshot, bdrv_all_delete_snapshot, bdrv_all_find_snapshot,
    bdrv_all_goto_snapshot, bdrv_all_has_snapshot, errno as e,
};

const GROUP: (&str, &str) = ("2.5", "11.1");

fn broken(entries: &[(&str, &str)], errno: i32) -> Box<dyn Driver> {
    let table = MemoryTable {
        broken: Some(errno),
        ..table(entries)
    };
    Box::new(Qcow2::new(table))
}

fn none() -> Devices {
    Devices::default()
}

fn all_create(release: Release, graph: &mut Graph, name: &str) -> Result<(), Failure> {
    let mut sn = QemuSnapshotInfo::named(name.as_bytes());
    bdrv_all_create_snapshot(release, graph, &mut sn, None, 0, &none())
}

/// Through 5.2 the node and the driver's errno; from 6.0 on an Error object and `later`.
#[track_caller]
fn check(release: Release, failed: Failure, bad: NodeId, errno: i32, later: i32, text: &str) {
    if release <= r("5.2") {
        assert_eq!(
            (failed.ret, failed.first_bad),
            (-errno, Some(bad)),
            "{release}"
        );
        return;
    }
    assert_eq!((failed.ret, failed.first_bad), (later, None), "{release}");
    assert_eq!(failed.error.unwrap().to_string(), text, "{release}");
}

#[test]
fn a_create_that_fails_leaves_what_earlier_nodes_made() {
    for release in releases(GROUP.0, GROUP.1) {
        let (mut graph, nodes) = drives(vec![qcow2(&[]), broken(&[], e::ENOSPC), qcow2(&[])]);
        let failed = all_create(release, &mut graph, "s").unwrap_err();
        check(
            release,
            failed,
            nodes[1],
            e::ENOSPC,
            -1,
            "Could not create snapshot 's' on 'd1'",
        );
        assert_eq!(
            listed(release, &mut graph, nodes[0]),
            pairs(&[("1", "s")]),
            "no rollback"
        );
        assert_eq!(
            listed(release, &mut graph, nodes[2]),
            [],
            "it stopped there"
        );
    }
}

#[test]
fn a_goto_that_fails_leaves_earlier_nodes_switched() {
    for release in releases(GROUP.0, GROUP.1) {
        let s = &[("1", "s")];
        let (mut graph, nodes) = drives(vec![qcow2(s), qcow2(&[]), qcow2(s)]);
        let failed = bdrv_all_goto_snapshot(release, &mut graph, b"s", &none()).unwrap_err();
        let error = failed.error.as_ref().map(ToString::to_string);
        let why = "Failed to load snapshot: No such file or directory";
        match release {
            _ if release <= r("2.10") => assert_eq!(error, None),
            _ if release <= r("5.2") => assert_eq!(error.as_deref(), Some(why), "{release}"),
            _ => {}
        }
        let text = format!("Could not load snapshot 's' on 'd1': {why}");
        check(release, failed, nodes[1], e::ENOENT, -1, &text);
        assert_eq!(
            (disk(&mut graph, nodes[0]), disk(&mut graph, nodes[2])),
            (vec![1; 4], vec![0; 4])
        );
    }
}

#[test]
fn a_bitmap_on_one_node_stops_a_group_goto_there_from_2_11_on() {
    for release in releases(GROUP.0, GROUP.1) {
        let s = &[("1", "s")];
        let (mut graph, nodes) = drives(vec![qcow2(s), qcow2(s)]);
        graph
            .get_mut(nodes[1])
            .unwrap()
            .bitmaps
            .push(DirtyBitmap::new("b"));
        let gone = bdrv_all_goto_snapshot(release, &mut graph, b"s", &none());
        if release <= r("2.10") {
            gone.unwrap();
            continue;
        }
        let text = "Could not load snapshot 's' on 'd1': Device has active dirty bitmaps";
        check(release, gone.unwrap_err(), nodes[1], e::EBUSY, -1, text);
        assert_eq!(
            (disk(&mut graph, nodes[0]), disk(&mut graph, nodes[1])),
            (vec![1; 4], vec![0; 4])
        );
    }
}

#[test]
fn a_group_goto_can_pass_the_name_check_and_load_another_snapshot() {
    for release in releases(GROUP.0, GROUP.1) {
        let (mut graph, nodes) = drives(vec![qcow2(&[("1", "2"), ("2", "foo")])]);
        if release <= r("5.2") {
            bdrv_all_find_snapshot(release, &mut graph, b"2").unwrap();
        } else {
            assert!(bdrv_all_has_snapshot(release, &mut graph, b"2", &none()).unwrap());
        }
        bdrv_all_goto_snapshot(release, &mut graph, b"2", &none()).unwrap();
        assert_eq!(
            disk(&mut graph, nodes[0]),
            [2; 4],
            "{release}: the one with id 2"
        );
    }
}

#[test]
fn a_delete_that_fails_leaves_earlier_nodes_without_it() {
    for release in releases(GROUP.0, GROUP.1) {
        let s = &[("1", "s")];
        let (mut graph, nodes) = drives(vec![qcow2(s), broken(s, e::EIO), qcow2(s)]);
        let failed = bdrv_all_delete_snapshot(release, &mut graph, b"s", &none()).unwrap_err();
        let later = if release <= r("10.0") { -1 } else { -e::EIO };
        let text = "Could not delete snapshot 's' on 'd1': Input/output error";
        check(release, failed, nodes[1], e::EIO, later, text);
        assert_eq!(listed(release, &mut graph, nodes[0]), []);
        assert_eq!(listed(release, &mut graph, nodes[2]).len(), 1, "{release}");
    }
}

#[test]
fn a_group_delete_of_what_nobody_has_is_success() {
    for release in releases(GROUP.0, GROUP.1) {
        let (mut graph, nodes) = drives(vec![qcow2(&[("1", "a")]), qcow2(&[])]);
        bdrv_all_delete_snapshot(release, &mut graph, b"nix", &none()).unwrap();
        assert_eq!(listed(release, &mut graph, nodes[0]).len(), 1);
    }
}

#[test]
fn a_group_delete_takes_one_entry_a_node_by_the_releases_key() {
    for release in releases(GROUP.0, GROUP.1) {
        let (mut graph, nodes) = drives(vec![
            qcow2(&[("1", "a"), ("2", "a")]),
            qcow2(&[("1", "b"), ("2", "1"), ("3", "a")]),
        ]);
        bdrv_all_delete_snapshot(release, &mut graph, b"a", &none()).unwrap();
        assert_eq!(
            listed(release, &mut graph, nodes[0]),
            pairs(&[("2", "a")]),
            "the first of two"
        );
        assert_eq!(
            listed(release, &mut graph, nodes[1]),
            pairs(&[("1", "b"), ("2", "1")])
        );
        bdrv_all_delete_snapshot(release, &mut graph, b"1", &none()).unwrap();
        // Through 3.1 "1" is first of all an id.
        let left = if release <= r("3.1") {
            pairs(&[("2", "1")])
        } else {
            pairs(&[("1", "b")])
        };
        assert_eq!(listed(release, &mut graph, nodes[1]), left, "{release}");
    }
}

/// Through 3.1 the entry found and the entry deleted may differ: "2" finds the one named so, and deletes the id.
#[test]
fn a_group_delete_through_3_1_may_delete_another_than_it_found() {
    for release in releases(GROUP.0, GROUP.1) {
        let (mut graph, nodes) = drives(vec![qcow2(&[("1", "2"), ("2", "foo")])]);
        bdrv_all_delete_snapshot(release, &mut graph, b"2", &none()).unwrap();
        let left = if release <= r("3.1") {
            ("1", "2")
        } else {
            ("2", "foo")
        };
        assert_eq!(
            listed(release, &mut graph, nodes[0]),
            pairs(&[left]),
            "{release}"
        );
    }
}

#[test]
fn all_find_names_the_first_that_lacks_it_through_5_2() {
    for release in Release::all() {
        let s = &[("1", "s")];
        let (mut graph, nodes) = drives(vec![qcow2(s), qcow2(&[]), qcow2(&[])]);
        let found = bdrv_all_find_snapshot(release, &mut graph, b"s");
        if !(r("2.5")..=r("5.2")).contains(&release) {
            assert_eq!(errno(found), e::ENOSYS, "{release}");
            continue;
        }
        let failed = found.unwrap_err();
        assert_eq!((failed.ret, failed.first_bad), (-e::ENOENT, Some(nodes[1])));
        // Cleared on success: a caller sees NULL, not what was there before.
        let (mut graph, _) = drives(vec![qcow2(s), qcow2(s)]);
        bdrv_all_find_snapshot(release, &mut graph, b"s").unwrap();
        bdrv_all_find_snapshot(release, &mut Graph::new(), b"s").unwrap();
    }
}

#[test]
fn all_has_is_one_zero_or_an_error_from_6_0_on() {
    for release in Release::all() {
        let s = &[("1", "s")];
        let (mut graph, _) = drives(vec![qcow2(s), qcow2(&[("1", "t"), ("2", "s")])]);
        let mut has = |name: &[u8], devices: &Devices| {
            bdrv_all_has_snapshot(release, &mut graph, name, devices)
        };
        if release < r("6.0") {
            assert_eq!(errno(has(b"s", &none())), e::ENOSYS, "{release}");
            continue;
        }
        assert!(has(b"s", &none()).unwrap() && !has(b"t", &none()).unwrap());
        assert!(has(b"t", &Devices::list(&["d1"])).unwrap());
        assert_eq!(has(b"s", &Devices::list(&["nix"])).unwrap_err().ret, -1);
    }
}

#[test]
fn only_the_node_of_the_vm_state_has_a_size_and_ids_differ_between_disks() {
    for release in releases(GROUP.0, GROUP.1) {
        let (mut graph, nodes) = drives(vec![qcow2(&[("6", "x")]), qcow2(&[])]);
        graph
            .driver(nodes[1])
            .unwrap()
            .save_vmstate(0, b"state")
            .unwrap();
        let mut sn = info("99", "s");
        let made =
            bdrv_all_create_snapshot(release, &mut graph, &mut sn, Some(nodes[1]), 5, &none());
        made.unwrap();
        let size = |graph: &mut Graph, n| {
            let all = crate::compat::bdrv_snapshot_list(release, graph, n).unwrap();
            let last = all.last().unwrap();
            (last.id_str.to_string(), last.vm_state_size)
        };
        assert_eq!(size(&mut graph, nodes[0]), ("7".into(), 0), "{release}");
        assert_eq!(size(&mut graph, nodes[1]), ("1".into(), 5));
        assert_eq!(
            (sn.id_str.to_string().as_str(), sn.vm_state_size),
            ("1", 5),
            "sn is changed"
        );
    }
}

#[test]
fn the_node_of_the_vm_state_is_not_put_to_the_test_but_must_be_met() {
    for release in releases(GROUP.0, GROUP.1) {
        let (mut graph, nodes) = drives(vec![qcow2(&[]), qcow2(&[])]);
        graph.get_mut(nodes[1]).unwrap().read_only = true;
        let mut sn = info("", "s");
        bdrv_all_create_snapshot(release, &mut graph, &mut sn, Some(nodes[1]), 3, &none()).unwrap();
        assert_eq!(
            listed(release, &mut graph, nodes[1]).len(),
            1,
            "{release}: read-only, and in"
        );
        if release >= r("6.0") {
            let list = Devices::list(&["d0"]);
            bdrv_all_create_snapshot(release, &mut graph, &mut sn, Some(nodes[1]), 3, &list)
                .unwrap();
            assert_eq!(
                listed(release, &mut graph, nodes[1]).len(),
                1,
                "not in the list"
            );
        }
    }
}

#[test]
fn a_list_that_cannot_be_is_minus_one_and_an_errno_in_delete_from_10_1_on() {
    for release in releases("6.0", "11.1") {
        let (mut graph, _) = drives(vec![qcow2(&[])]);
        let list = Devices::list(&["nix"]);
        let failed = bdrv_all_goto_snapshot(release, &mut graph, b"s", &list).unwrap_err();
        assert_eq!(failed.ret, -1);
        let failed = bdrv_all_delete_snapshot(release, &mut graph, b"s", &list).unwrap_err();
        assert_eq!(
            failed.ret,
            if release <= r("10.0") { -1 } else { -e::EINVAL },
            "{release}"
        );
    }
}

#[test]
fn names_that_are_not_utf_8_come_back_in_messages_as_they_are() {
    let (mut graph, _) = drives(vec![qcow2(&[])]);
    let failed = bdrv_all_goto_snapshot(r("6.0"), &mut graph, b"\xff", &none()).unwrap_err();
    let message = failed.error.unwrap().message;
    assert!(message.starts_with(b"Could not load snapshot '\xff' on 'd0': "));
}
