//! savevm, delvm, info snapshots.

use super::{Machine, drives, listed, message, pairs, qcow2, r, raw, releases, table};
use crate::compat::driver::Driver;
use crate::compat::graph::{Graph, NodeId};
use crate::compat::info::ICOUNT_NONE;
use crate::compat::memory::MemoryTable;
use crate::compat::monitor::{
    delvm, info_snapshots, loadvm, savevm, snapshot_delete, snapshot_save,
};
use crate::compat::qcow2::Qcow2;
use crate::compat::release::Release;
use crate::compat::{
    QemuSnapshotInfo, bdrv_is_snapshot, bdrv_snapshot_dump, bdrv_snapshot_list, bdrv_snapshots,
    errno as e, snapshot_list,
};

fn last(release: Release, graph: &mut Graph, bs: NodeId) -> QemuSnapshotInfo {
    *bdrv_snapshot_list(release, graph, bs)
        .unwrap()
        .last()
        .unwrap()
}

fn broken(entries: &[(&str, &str)]) -> Box<dyn Driver> {
    let table = MemoryTable {
        broken: Some(e::ENOSPC),
        ..table(entries)
    };
    Box::new(Qcow2::new(table))
}

fn reports(graph: &mut Graph) -> Vec<String> {
    let lines = graph.take_reports();
    lines
        .into_iter()
        .map(|l| String::from_utf8(l).unwrap())
        .collect()
}

#[test]
fn a_save_has_the_state_on_one_node_and_the_clocks_on_all() {
    for release in Release::all() {
        let (mut graph, nodes) = drives(vec![qcow2(&[]), qcow2(&[])]);
        let mut vm = Machine::new("ram");
        savevm(release, &mut graph, &mut vm, Some(b"s")).unwrap();
        let (first, second) = (
            last(release, &mut graph, nodes[0]),
            last(release, &mut graph, nodes[1]),
        );
        assert_eq!(
            (first.vm_state_size, second.vm_state_size),
            (3, 0),
            "{release}"
        );
        assert_eq!(
            (first.date_sec, first.date_nsec),
            (1_795_207_046, 123_456_000)
        );
        assert_eq!(first.vm_clock_nsec, 42);
        let icount = if release >= r("5.2") { 77 } else { ICOUNT_NONE };
        assert_eq!(first.icount, icount, "{release}");
        assert!(vm.running, "it goes on");
    }
}

#[test]
fn a_save_without_a_name_is_named_by_local_time_and_deletes_nothing() {
    for release in Release::all() {
        let (mut graph, nodes) = drives(vec![qcow2(&[("1", "vm-20261120213726")])]);
        savevm(release, &mut graph, &mut Machine::new("ram"), None).unwrap();
        let name = "vm-20261120213726";
        assert_eq!(
            listed(release, &mut graph, nodes[0]),
            pairs(&[("1", name), ("2", name)])
        );
    }
}

#[test]
fn through_2_4_name_and_id_of_the_old_one_are_taken_over() {
    for release in releases("1.0", "2.4") {
        let (mut graph, nodes) = drives(vec![qcow2(&[("7", "old"), ("8", "x")])]);
        let mut vm = Machine::new("ram");
        // By id: the new one is called as the old one was.
        savevm(release, &mut graph, &mut vm, Some(b"7")).unwrap();
        let id = if release <= r("2.3") { "7" } else { "9" };
        assert_eq!(
            listed(release, &mut graph, nodes[0]),
            pairs(&[("8", "x"), (id, "old")]),
            "{release}"
        );
    }
}

/// 407bc15033: through 2.3 the id that the first disk chose is asked of the second.
#[test]
fn through_2_3_an_id_taken_on_another_disk_is_told_of_and_passed_over() {
    for release in releases("1.0", "2.4") {
        let (mut graph, nodes) = drives(vec![qcow2(&[]), qcow2(&[("1", "other")]), qcow2(&[])]);
        savevm(release, &mut graph, &mut Machine::new("ram"), Some(b"s")).unwrap();
        let on_second = listed(release, &mut graph, nodes[1]);
        if release <= r("2.3") {
            assert_eq!(on_second, pairs(&[("1", "other")]));
            assert_eq!(
                reports(&mut graph),
                ["Error while creating snapshot on 'd1'"],
                "{release}"
            );
        } else {
            assert_eq!(on_second, pairs(&[("1", "other"), ("2", "s")]));
        }
        assert_eq!(
            listed(release, &mut graph, nodes[2]).len(),
            1,
            "the next disk is done"
        );
    }
}

#[test]
fn from_2_5_on_the_old_one_is_gone_before_the_new_one_can_fail() {
    for release in Release::all() {
        let (mut graph, nodes) = drives(vec![qcow2(&[("1", "s"), ("2", "t")])]);
        let mut vm = Machine {
            fails: true,
            ..Machine::new("ram")
        };
        assert!(savevm(release, &mut graph, &mut vm, Some(b"s")).is_err());
        assert_eq!(
            listed(release, &mut graph, nodes[0]),
            pairs(&[("2", "t")]),
            "{release}"
        );
        assert!(vm.running);
    }
}

/// 6ca080453e: `savevm 1` destroyed the snapshot with id 1, whatever its name.
#[test]
fn from_2_5_through_3_1_a_save_deletes_what_has_its_name_as_an_id() {
    for release in releases("2.5", "11.1") {
        let (mut graph, nodes) = drives(vec![qcow2(&[("1", "0")])]);
        savevm(release, &mut graph, &mut Machine::new("ram"), Some(b"1")).unwrap();
        let left = listed(release, &mut graph, nodes[0]);
        let expected = if release <= r("3.1") {
            pairs(&[("1", "1")])
        } else {
            pairs(&[("1", "0"), ("2", "1")])
        };
        assert_eq!(left, expected, "{release}");
    }
}

#[test]
fn what_a_failed_save_made_stays_through_5_2_and_is_deleted_from_6_0_on() {
    for release in releases("2.5", "11.1") {
        let (mut graph, nodes) = drives(vec![qcow2(&[]), broken(&[])]);
        let failed = savevm(release, &mut graph, &mut Machine::new("ram"), Some(b"s"));
        assert!(failed.is_err());
        let stays = usize::from(release <= r("5.2"));
        assert_eq!(
            listed(release, &mut graph, nodes[0]).len(),
            stays,
            "{release}"
        );
    }
}

/// The clean-up goes by name and hits the first entry: an older one that a job left alone.
#[test]
fn the_clean_up_may_hit_an_older_snapshot_of_that_name() {
    for release in releases("6.0", "11.1") {
        let (mut graph, nodes) = drives(vec![qcow2(&[("4", "s")]), broken(&[])]);
        let mut vm = Machine::new("ram");
        let failed = snapshot_save(release, &mut graph, &mut vm, b"s", "d0", &["d0", "d1"]);
        assert_eq!(
            message(failed).as_deref(),
            Some("Could not create snapshot 's' on 'd1'")
        );
        assert_eq!(
            listed(release, &mut graph, nodes[0]),
            pairs(&[("5", "s")]),
            "the old one went"
        );
    }
}

#[test]
fn the_job_refuses_only_what_all_nodes_have() {
    for release in releases("6.0", "11.1") {
        let s = &[("1", "s")];
        let (mut graph, nodes) = drives(vec![qcow2(s), qcow2(s), qcow2(&[])]);
        let mut vm = Machine::new("ram");
        let mut save =
            |devices: &[&str]| snapshot_save(release, &mut graph, &mut vm, b"s", "d0", devices);
        let text = "Snapshot 's' already exists in one or more devices";
        assert_eq!(message(save(&["d0", "d1"])).as_deref(), Some(text));
        save(&["d0", "d2"]).unwrap();
        assert_eq!(
            listed(release, &mut graph, nodes[0]),
            pairs(&[("1", "s"), ("2", "s")])
        );
        snapshot_delete(release, &mut graph, b"s", &["d0"]).unwrap();
        assert_eq!(listed(release, &mut graph, nodes[0]), pairs(&[("2", "s")]));
        assert_eq!(listed(release, &mut graph, nodes[1]).len(), 1);
    }
}

#[test]
fn jobs_are_there_from_6_0_on() {
    for release in releases("1.0", "5.2") {
        let (mut graph, _) = drives(vec![qcow2(&[])]);
        let mut vm = Machine::new("ram");
        let saved = snapshot_save(release, &mut graph, &mut vm, b"s", "d0", &["d0"]);
        assert_eq!(saved.unwrap_err().ret, -e::ENOSYS);
        assert!(snapshot_delete(release, &mut graph, b"s", &["d0"]).is_err());
    }
}

#[test]
fn a_writable_raw_disk_bars_savevm_in_every_release() {
    for release in Release::all() {
        let (mut graph, nodes) = drives(vec![qcow2(&[]), raw()]);
        let failed = savevm(release, &mut graph, &mut Machine::new("ram"), Some(b"s"));
        let stop = if release <= r("2.9") { "." } else { "" };
        let text = format!("Device 'd1' is writable but does not support snapshots{stop}");
        assert_eq!(message(failed), Some(text), "{release}");
        assert_eq!(listed(release, &mut graph, nodes[0]), []);
    }
}

#[test]
fn delvm_tells_of_each_disk_that_fails_through_2_4_and_stops_at_the_first_later() {
    for release in Release::all() {
        let s = &[("1", "s")];
        let (mut graph, nodes) = drives(vec![broken(s), qcow2(&[]), qcow2(s)]);
        let deleted = delvm(release, &mut graph, b"s");
        let told = reports(&mut graph);
        if release <= r("2.4") {
            deleted.unwrap();
            assert_eq!(told[0], "Error -28 while deleting snapshot on 'd0'");
            assert_eq!(
                told[1], "Error -2 while deleting snapshot on 'd1'",
                "{release}"
            );
            assert_eq!(listed(release, &mut graph, nodes[2]), []);
        } else {
            assert!(deleted.is_err() && told.is_empty());
            assert_eq!(listed(release, &mut graph, nodes[2]).len(), 1, "{release}");
        }
    }
}

#[test]
fn delvm_takes_ids_through_3_1_and_tags_from_4_0_on() {
    for release in Release::all() {
        let (mut graph, nodes) = drives(vec![qcow2(&[("1", "a"), ("2", "1")])]);
        delvm(release, &mut graph, b"1").unwrap();
        let left = if release <= r("3.1") {
            ("2", "1")
        } else {
            ("1", "a")
        };
        assert_eq!(
            listed(release, &mut graph, nodes[0]),
            pairs(&[left]),
            "{release}"
        );
    }
}

fn shown(release: Release, graph: &mut Graph) -> String {
    String::from_utf8(info_snapshots(release, graph, &|_| 0).unwrap()).unwrap()
}

#[test]
fn info_shows_what_all_disks_have_by_id_through_2_6() {
    for release in releases("1.0", "2.6") {
        let (mut graph, _) = drives(vec![qcow2(&[("1", "a"), ("2", "b")]), qcow2(&[("2", "c")])]);
        let text = shown(release, &mut graph);
        let rows: Vec<&str> = text.lines().collect();
        assert!(
            rows.len() == 2 && rows[0].starts_with("ID") && rows[1].starts_with("2 "),
            "{text}"
        );
        let (mut graph, _) = drives(vec![qcow2(&[("1", "a")]), qcow2(&[])]);
        assert_eq!(
            shown(release, &mut graph),
            "There is no snapshot available.\n"
        );
    }
}

#[test]
fn info_shows_common_and_partial_lists_from_2_7_on() {
    for release in releases("2.7", "11.1") {
        let (mut graph, _) = drives(vec![
            qcow2(&[("1", "a"), ("2", "only")]),
            qcow2(&[("7", "a"), ("8", "else")]),
        ]);
        let text = shown(release, &mut graph);
        let starts: Vec<&str> = text
            .lines()
            .map(|l| l.split("  ").next().unwrap())
            .collect();
        assert_eq!(
            starts,
            [
                "List of snapshots present on all disks:",
                "ID",
                "--",
                "",
                "List of partial (non-loadable) snapshots on 'd0':",
                "ID",
                "2",
                "",
                "List of partial (non-loadable) snapshots on 'd1':",
                "ID",
                "8",
            ],
            "{release}"
        );
        let (mut graph, _) = drives(vec![qcow2(&[]), qcow2(&[("1", "a")])]);
        let text = shown(release, &mut graph);
        assert!(
            text.starts_with("List of snapshots present on all disks:\nNone\n\nList of partial")
        );
        let (mut graph, _) = drives(vec![qcow2(&[])]);
        assert_eq!(
            shown(release, &mut graph),
            "There is no snapshot available.\n"
        );
    }
}

#[test]
fn through_1_5_the_node_of_the_vm_state_is_remembered() {
    for release in Release::all() {
        let (mut graph, nodes) = drives(vec![qcow2(&[]), qcow2(&[])]);
        if release >= r("1.6") {
            assert_eq!(
                bdrv_snapshots(release, &mut graph).unwrap_err().ret,
                -e::ENOSYS
            );
            continue;
        }
        let mut pick = || bdrv_snapshots(release, &mut graph).unwrap();
        assert_eq!(pick(), Some(nodes[0]));
        graph.get_mut(nodes[0]).unwrap().read_only = true;
        let mut pick = || bdrv_snapshots(release, &mut graph).unwrap();
        assert_eq!(
            pick(),
            Some(nodes[0]),
            "{release}: also where it could not any more"
        );
        graph.remove(nodes[0]);
        let mut pick = || bdrv_snapshots(release, &mut graph).unwrap();
        assert_eq!(pick(), Some(nodes[1]));
        graph.get_mut(nodes[1]).unwrap().temporary = true;
        assert!(bdrv_is_snapshot(release, &graph, nodes[1]).unwrap());
        assert!(!bdrv_is_snapshot(release, &graph, nodes[0]).unwrap());
        assert_eq!(bdrv_snapshots(release, &mut Graph::new()).unwrap(), None);
    }
}

#[test]
fn through_1_5_a_line_of_a_list_can_be_had() {
    for release in Release::all() {
        let line = |sn| bdrv_snapshot_dump(release, sn, &|_| 0);
        if release >= r("1.6") {
            assert!(line(None).is_err(), "{release}");
            continue;
        }
        let sn = QemuSnapshotInfo {
            id_str: "1".into(),
            ..QemuSnapshotInfo::named(b"a")
        };
        let lines = [line(None).unwrap(), line(Some(&sn)).unwrap(), vec![]].join(&b'\n');
        let list = snapshot_list(release, &[sn], &|_| 0);
        assert_eq!(list, [b"Snapshot list:\n", &lines[..]].concat());
    }
}

#[test]
fn without_a_disk_that_can_each_command_says_so_in_its_words_through_5_2() {
    for release in releases("1.0", "5.2") {
        let (mut graph, mut vm) = (Graph::new(), Machine::new("ram"));
        let failed = info_snapshots(release, &mut graph, &|_| 0);
        let text = "No available block device supports snapshots";
        assert_eq!(message(failed).as_deref(), Some(text), "{release}");
        let failed = savevm(release, &mut graph, &mut vm, Some(b"s"));
        let text = "No block device can accept snapshots";
        assert_eq!(message(failed).as_deref(), Some(text), "{release}");
        let failed = loadvm(release, &mut graph, &mut vm, b"s");
        let text = "No block device supports snapshots";
        assert_eq!(message(failed).as_deref(), Some(text), "{release}");
        // From 2.5 on what nobody has is deleted.
        let deleted = delvm(release, &mut graph, b"s").map_err(|e| e.to_string());
        let says = (release <= r("2.4")).then(|| text.to_owned());
        assert_eq!(deleted.err(), says, "{release}");
    }
    for release in releases("6.0", "11.1") {
        let failed = info_snapshots(release, &mut Graph::new(), &|_| 0);
        let text = "no block device can store vmstate for snapshot";
        assert_eq!(message(failed).as_deref(), Some(text), "{release}");
    }
}
