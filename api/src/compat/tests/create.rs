//! `bdrv_snapshot_create`: ids, names, refusals.

use super::{create, drives, errno, info, listed, one, pairs, qcow2, r, raw, releases, table};
use crate::compat::graph::{Graph, Node, NodeId};
use crate::compat::info::{ICOUNT_NONE, IdStr, QemuSnapshotInfo};
use crate::compat::memory::MemoryTable;
use crate::compat::qcow2::Qcow2;
use crate::compat::release::Release;
use crate::compat::{
    bdrv_snapshot_create, bdrv_snapshot_delete, bdrv_snapshot_find, bdrv_snapshot_goto,
    bdrv_snapshot_list, errno as e,
};

fn delete_id(release: Release, graph: &mut Graph, bs: NodeId, id: &str) {
    bdrv_snapshot_delete(release, graph, bs, Some(id.as_bytes()), None).unwrap();
}

#[test]
fn the_id_is_the_highest_and_one_and_is_reused_after_the_highest_went() {
    for release in Release::all() {
        let (mut graph, bs) = one(qcow2(&[]));
        assert_eq!(create(release, &mut graph, bs, "a").unwrap(), "1");
        assert_eq!(create(release, &mut graph, bs, "b").unwrap(), "2");
        delete_id(release, &mut graph, bs, "1");
        assert_eq!(create(release, &mut graph, bs, "c").unwrap(), "3");
        delete_id(release, &mut graph, bs, "3");
        delete_id(release, &mut graph, bs, "2");
        assert_eq!(
            create(release, &mut graph, bs, "d").unwrap(),
            "1",
            "{release}"
        );
    }
}

#[test]
fn ids_are_parsed_as_the_release_parsed_numbers() {
    let next = |release: &str, ids: &[&str]| {
        let entries: Vec<(&str, &str)> = ids.iter().map(|id| (*id, "x")).collect();
        let (mut graph, bs) = one(qcow2(&entries));
        create(r(release), &mut graph, bs, "new").unwrap()
    };
    for release in ["1.0", "1.6", "1.7", "4.2", "11.1"] {
        assert_eq!(next(release, &["abc", "", "x9"]), "1");
        assert_eq!(next(release, &["7x", " 12", "+3", "007"]), "13");
    }
    // Through 1.6 ids went through an int.
    assert_eq!(next("1.6", &["2147483647"]), "-2147483648");
    assert_eq!(next("1.6", &["4294967297"]), "2");
    assert_eq!(next("1.6", &["-5"]), "1");
    assert_eq!(next("1.7", &["2147483647"]), "2147483648");
    assert_eq!(next("4.2", &["4294967297"]), "4294967298");
    assert_eq!(next("4.2", &["99999999999999999999"]), "0");
}

#[test]
fn an_id_of_the_caller_is_used_through_2_3_and_overwritten_from_2_4_on() {
    for release in Release::all() {
        let (mut graph, bs) = one(qcow2(&[("1", "a")]));
        let mut sn = info("17", "b");
        bdrv_snapshot_create(release, &mut graph, bs, &mut sn).unwrap();
        let used = release <= r("2.3");
        assert_eq!(
            sn.id_str.to_string(),
            if used { "17" } else { "2" },
            "{release}"
        );
        let mut taken = info("1", "c");
        let made = bdrv_snapshot_create(release, &mut graph, bs, &mut taken);
        match release {
            _ if release == r("1.0") => assert_eq!(errno(made), e::ENOENT),
            _ if used => assert_eq!(errno(made), e::EEXIST, "{release}"),
            _ => assert_eq!(
                (made.is_ok(), taken.id_str.to_string().as_str()),
                (true, "3")
            ),
        }
    }
}

#[test]
fn names_may_be_taken_empty_or_not_utf_8_and_are_cut_at_255_bytes() {
    for release in Release::all() {
        let (mut graph, bs) = one(qcow2(&[]));
        for name in [&b"a"[..], b"a", b"", b"\xff/@\n", &[b'x'; 300]] {
            let mut sn = QemuSnapshotInfo::named(name);
            bdrv_snapshot_create(release, &mut graph, bs, &mut sn).unwrap();
        }
        let names = bdrv_snapshot_list(release, &mut graph, bs).unwrap();
        let names: Vec<&[u8]> = names.iter().map(|s| s.name.as_bytes()).collect();
        assert_eq!(
            names,
            [&b"a"[..], b"a", b"", b"\xff/@\n", &[b'x'; 255]],
            "{release}"
        );
        // The full string reaches nothing.
        assert_eq!(
            errno(bdrv_snapshot_goto(release, &mut graph, bs, &[b'x'; 300])),
            e::ENOENT
        );
        if release >= r("1.6") {
            let find = |graph: &mut Graph, n| {
                bdrv_snapshot_find(release, graph, bs, &vec![b'x'; n]).is_ok()
            };
            assert!(!find(&mut graph, 300) && find(&mut graph, 255), "{release}");
        }
    }
}

#[test]
fn what_the_caller_says_is_stored_within_what_the_release_had() {
    for release in Release::all() {
        let asked = QemuSnapshotInfo {
            vm_state_size: 5,
            date_sec: 4_000_000_000,
            date_nsec: 999_999_999,
            vm_clock_nsec: u64::MAX,
            icount: 9,
            ..info("", "a")
        };
        let (mut graph, bs) = one(qcow2(&[]));
        bdrv_snapshot_create(release, &mut graph, bs, &mut asked.clone()).unwrap();
        // What the release has no room for was not stored: a later one does not see it either.
        let icount = if release >= r("5.2") { 9 } else { ICOUNT_NONE };
        let seen = bdrv_snapshot_list(r("11.1"), &mut graph, bs).unwrap();
        let expected = QemuSnapshotInfo {
            id_str: IdStr::from("1"),
            icount,
            ..asked
        };
        assert_eq!(seen, [expected], "{release}");
    }
}

#[test]
fn bytes_of_vm_state_were_32_bits_in_1_0() {
    let bytes = (1 << 32) + 5;
    let asked = QemuSnapshotInfo {
        vm_state_size: bytes,
        ..info("", "a")
    };
    for release in Release::all() {
        let (mut graph, bs) = one(qcow2(&[]));
        let made = bdrv_snapshot_create(release, &mut graph, bs, &mut asked.clone());
        let mut table = MemoryTable::new(&[]);
        table.insert(asked, &[]);
        let (mut listing, node) = one(Box::new(Qcow2::new(table)));
        let seen = bdrv_snapshot_list(release, &mut listing, node).unwrap();
        if release == r("1.0") {
            made.unwrap();
            let stored = bdrv_snapshot_list(r("11.1"), &mut graph, bs).unwrap();
            assert_eq!((stored[0].vm_state_size, seen[0].vm_state_size), (5, 5));
        } else {
            // More than a table in memory takes: it was asked for all of them.
            assert_eq!(errno(made), e::EFBIG, "{release}");
            assert_eq!(seen[0].vm_state_size, bytes, "{release}");
        }
    }
}

#[test]
fn nodes_without_a_driver_or_without_snapshots_are_refused_by_number_alone() {
    for release in Release::all() {
        let (mut graph, nodes) = drives(vec![raw()]);
        let closed = graph.add(Node::closed("closed")).unwrap();
        let unknown = NodeId::from_index(99);
        for (bs, expected) in [
            (nodes[0], e::ENOTSUP),
            (closed, e::ENOMEDIUM),
            (unknown, e::ENOMEDIUM),
        ] {
            let failed =
                bdrv_snapshot_create(release, &mut graph, bs, &mut info("", "a")).unwrap_err();
            assert_eq!((failed.ret, failed.error), (-expected, None), "{release}");
        }
    }
}

#[test]
fn neither_read_only_nor_dirty_bitmaps_stop_create() {
    let (mut graph, bs) = one(qcow2(&[]));
    graph.get_mut(bs).unwrap().read_only = true;
    graph
        .get_mut(bs)
        .unwrap()
        .bitmaps
        .push(crate::compat::graph::DirtyBitmap::new("b"));
    for release in ["1.0", "4.2", "11.1"] {
        assert!(create(r(release), &mut graph, bs, "a").is_ok());
    }
}

#[test]
fn a_data_file_is_refused_by_create_goto_delete_and_list_from_4_0_on() {
    for release in releases("4.0", "11.1") {
        let table = MemoryTable {
            data_file: true,
            ..table(&[("1", "a")])
        };
        let (mut graph, bs) = one(Box::new(Qcow2::new(table)));
        assert!(
            crate::compat::bdrv_can_snapshot(release, &graph, bs),
            "the driver is asked"
        );
        assert_eq!(errno(create(release, &mut graph, bs, "b")), e::ENOTSUP);
        assert_eq!(
            errno(bdrv_snapshot_list(release, &mut graph, bs)),
            e::ENOTSUP
        );
        assert_eq!(
            errno(bdrv_snapshot_goto(release, &mut graph, bs, b"a")),
            e::ENOTSUP
        );
        let failed = bdrv_snapshot_delete(release, &mut graph, bs, None, Some(b"a")).unwrap_err();
        assert_eq!(
            (failed.ret, failed.error),
            (-e::ENOTSUP, None),
            "no Error object"
        );
    }
}

#[test]
fn a_full_table_is_refused_from_2_0_on() {
    let full = || {
        let mut table = MemoryTable::new(&[]);
        (0..65_536).for_each(|_| table.insert(info("5", "x"), &[]));
        one(Box::new(Qcow2::new(table)))
    };
    let (mut graph, bs) = full();
    assert_eq!(errno(create(r("2.0"), &mut graph, bs, "a")), e::EFBIG);
    assert_eq!(errno(create(r("11.1"), &mut graph, bs, "a")), e::EFBIG);
    assert_eq!(create(r("1.7"), &mut graph, bs, "a").unwrap(), "6");
}

/// An entry is 40 bytes, the extra data, id and name, made a multiple of 8; the new one has room for an id of 20 bytes.
#[test]
fn a_table_of_64_mib_is_full_from_2_0_on() {
    let create_beside = |release: &str, unknown_extra| {
        let mut table = table(&[("1", "x")]);
        table.kept[0].entry.unknown_extra = unknown_extra;
        let (mut graph, bs) = one(Box::new(Qcow2::new(table)));
        create(r(release), &mut graph, bs, "a").map_err(|e| -e.ret)
    };
    for (release, extra_written) in [("2.0", 16), ("4.2", 16), ("5.2", 24), ("11.1", 24)] {
        let new = (40_u64 + extra_written + 20 + 1).next_multiple_of(8);
        let most = (64 << 20) - new - (40 + extra_written + 1 + 1);
        assert_eq!(create_beside(release, most), Ok("2".into()), "{release}");
        assert_eq!(create_beside(release, most + 1), Err(e::EFBIG), "{release}");
    }
    assert_eq!(create_beside("1.7", 64 << 20), Ok("2".into()));
}

#[test]
fn a_failed_create_changes_nothing() {
    let table = MemoryTable {
        broken: Some(e::ENOSPC),
        ..table(&[("1", "a")])
    };
    let (mut graph, bs) = one(Box::new(Qcow2::new(table)));
    for release in Release::all() {
        assert_eq!(errno(create(release, &mut graph, bs, "b")), e::ENOSPC);
        assert_eq!(listed(release, &mut graph, bs), pairs(&[("1", "a")]));
    }
}
