//! `bdrv_snapshot_goto`.

use super::{disk, errno, info, message, one, qcow2, r, raw, table};
use crate::compat::driver::Driver;
use crate::compat::graph::{DirtyBitmap, Graph, Node, NodeId, Role};
use crate::compat::memory::{MemoryTable, Plain};
use crate::compat::qcow2::Qcow2;
use crate::compat::release::Release;
use crate::compat::{bdrv_snapshot_find, bdrv_snapshot_goto, errno as e};

#[test]
fn goto_takes_its_argument_as_id_first_and_then_as_name_in_every_release() {
    for release in Release::all() {
        let (mut graph, bs) = one(qcow2(&[("1", "2"), ("2", "foo")]));
        bdrv_snapshot_goto(release, &mut graph, bs, b"2").unwrap();
        assert_eq!(
            disk(&mut graph, bs),
            [2; 4],
            "{release}: the one with id 2, named foo"
        );
        if release >= r("4.0") {
            let found = bdrv_snapshot_find(release, &mut graph, bs, b"2").unwrap();
            assert_eq!(found.id_str.to_string(), "1", "find means the one named 2");
        }
        bdrv_snapshot_goto(release, &mut graph, bs, b"foo").unwrap();
        assert_eq!(disk(&mut graph, bs), [2; 4]);
        bdrv_snapshot_goto(release, &mut graph, bs, b"1").unwrap();
        assert_eq!(disk(&mut graph, bs), [1; 4]);
    }
}

#[test]
fn of_two_with_a_name_goto_takes_the_first() {
    let (mut graph, bs) = one(qcow2(&[("5", "a"), ("4", "a")]));
    bdrv_snapshot_goto(r("4.2"), &mut graph, bs, b"a").unwrap();
    assert_eq!(disk(&mut graph, bs), [1; 4]);
}

/// Errors are in an Error object from 2.11 on.
#[track_caller]
fn check(release: Release, failed: Result<(), crate::compat::Failure>, number: i32, text: &str) {
    let failed = failed.unwrap_err();
    assert_eq!(failed.ret, -number, "{release}");
    let shown = failed.error.map(|e| e.to_string());
    let expected = (release >= r("2.11")).then(|| text.to_owned());
    assert_eq!(shown, expected, "{release}");
}

#[test]
fn what_goto_refuses_it_refuses_with_number_and_text() {
    for release in Release::all() {
        let (mut graph, bs) = one(qcow2(&[("1", "a")]));
        let closed = graph.add(Node::closed("closed")).unwrap();
        let plain = graph.add(Node::new("plain", raw())).unwrap();
        let mut goto = |bs, name: &[u8]| bdrv_snapshot_goto(release, &mut graph, bs, name);
        check(
            release,
            goto(closed, b"a"),
            e::ENOMEDIUM,
            "Block driver is closed",
        );
        check(
            release,
            goto(plain, b"a"),
            e::ENOTSUP,
            "Block driver does not support snapshots",
        );
        let text = "Failed to load snapshot: No such file or directory";
        check(release, goto(bs, b"nix"), e::ENOENT, text);
        check(release, goto(bs, b""), e::ENOENT, text);
    }
}

#[test]
fn any_dirty_bitmap_blocks_goto_from_2_11_on() {
    for release in Release::all() {
        for count in 1..3 {
            let (mut graph, bs) = one(qcow2(&[("1", "a")]));
            let bitmaps = &mut graph.get_mut(bs).unwrap().bitmaps;
            bitmaps.resize(count, DirtyBitmap::new("b"));
            let gone = bdrv_snapshot_goto(release, &mut graph, bs, b"a");
            if release < r("2.11") {
                assert!(gone.is_ok(), "{release}");
                continue;
            }
            check(release, gone, e::EBUSY, "Device has active dirty bitmaps");
            assert_eq!(disk(&mut graph, bs), [0; 4]);
            // Before anything else: also where there is no such snapshot.
            assert_eq!(
                errno(bdrv_snapshot_goto(release, &mut graph, bs, b"nix")),
                e::EBUSY
            );
        }
    }
}

fn sized(fixed: bool) -> (Graph, NodeId) {
    let mut table = MemoryTable {
        fixed_size: fixed,
        ..table(&[])
    };
    table.insert(info("1", "small"), &[1; 2]);
    table.insert(info("2", "large"), &[2; 6]);
    one(Box::new(Qcow2::new(table)))
}

#[test]
fn another_size_is_refused_through_5_0_and_taken_on_from_5_1_on() {
    for release in Release::all() {
        for (name, bytes) in [(&b"small"[..], &[1; 2][..]), (b"large", &[2; 6])] {
            let (mut graph, bs) = sized(false);
            let gone = bdrv_snapshot_goto(release, &mut graph, bs, name);
            if release >= r("5.1") {
                gone.unwrap();
                assert_eq!(disk(&mut graph, bs), bytes, "{release}");
                continue;
            }
            check(
                release,
                gone,
                e::ENOTSUP,
                "Failed to load snapshot: Operation not supported",
            );
            assert_eq!(graph.take_reports().len(), 1, "a message on stderr");
            assert_eq!(disk(&mut graph, bs), [0; 4]);
        }
    }
}

#[test]
fn what_cannot_change_its_size_is_refused_in_every_release() {
    for release in Release::all() {
        let (mut graph, bs) = sized(true);
        assert_eq!(
            errno(bdrv_snapshot_goto(release, &mut graph, bs, b"small")),
            e::ENOTSUP
        );
        assert_eq!(disk(&mut graph, bs), [0; 4]);
    }
}

/// A raw node over a qcow2 one.
fn layered(reopen_fails: Option<i32>, fails: Option<i32>) -> (Graph, NodeId, NodeId) {
    let top = Plain {
        reopen_fails,
        ..Plain::new("raw", &[])
    };
    let (mut graph, top) = one(Box::new(top));
    let below = MemoryTable {
        broken: fails,
        ..table(&[("1", "a")])
    };
    let below = graph
        .add(Node::new("file", Box::new(Qcow2::new(below))).implicit())
        .unwrap();
    graph.add_child(top, "file", Role::IMAGE, below).unwrap();
    (graph, top, below)
}

#[test]
fn goto_falls_back_to_the_child() {
    for release in Release::all() {
        let (mut graph, top, below) = layered(None, None);
        bdrv_snapshot_goto(release, &mut graph, top, b"a").unwrap();
        assert_eq!(disk(&mut graph, below), [1; 4]);
        assert!(graph.get(top).unwrap().driver.is_some());
    }
}

#[test]
fn a_top_that_cannot_be_opened_again_is_left_without_a_driver() {
    for release in Release::all() {
        let (mut graph, top, below) = layered(Some(e::EIO), None);
        let gone = bdrv_snapshot_goto(release, &mut graph, top, b"a");
        assert_eq!(errno(gone), e::EIO);
        assert!(graph.get(top).unwrap().driver.is_none(), "{release}");
        assert_eq!(disk(&mut graph, below), [1; 4], "the child went");
        assert_eq!(
            errno(bdrv_snapshot_goto(release, &mut graph, top, b"a")),
            e::ENOMEDIUM
        );
    }
}

#[test]
fn when_both_fail_the_reopen_is_reported_through_2_10_and_the_goto_from_2_11_on() {
    for release in Release::all() {
        let (mut graph, top, _) = layered(Some(e::EIO), Some(e::ENOSPC));
        let gone = bdrv_snapshot_goto(release, &mut graph, top, b"a");
        let expected = if release <= r("2.10") {
            e::EIO
        } else {
            e::ENOSPC
        };
        assert_eq!(errno(gone), expected, "{release}");
    }
}

#[test]
fn bitmaps_on_the_child_block_it_too() {
    let (mut graph, top, below) = layered(None, None);
    graph
        .get_mut(below)
        .unwrap()
        .bitmaps
        .push(DirtyBitmap::new("b"));
    let gone = bdrv_snapshot_goto(r("4.2"), &mut graph, top, b"a");
    assert_eq!(
        message(gone).as_deref(),
        Some("Device has active dirty bitmaps")
    );
}

#[test]
fn the_active_vm_state_becomes_the_snapshots() {
    for release in Release::all() {
        let (mut graph, bs) = one(qcow2(&[]));
        let driver = graph.driver(bs).unwrap();
        driver.save_vmstate(0, b"state").unwrap();
        let mut sn = crate::compat::QemuSnapshotInfo {
            vm_state_size: 5,
            ..info("", "a")
        };
        crate::compat::bdrv_snapshot_create(release, &mut graph, bs, &mut sn).unwrap();
        let len = |graph: &mut Graph| graph.driver(bs).unwrap().vmstate_len().unwrap();
        let kept = if release <= r("1.6") { 5 } else { 0 };
        assert_eq!(
            len(&mut graph),
            kept,
            "{release}: discarded after a create from 1.7 on"
        );
        bdrv_snapshot_goto(release, &mut graph, bs, b"a").unwrap();
        let mut state = [0; 5];
        graph
            .driver(bs)
            .unwrap()
            .load_vmstate(0, &mut state)
            .unwrap();
        assert_eq!(&state, b"state");
    }
}

#[test]
fn a_driver_without_operations_says_so() {
    let mut plain = Plain::new("raw", &[]);
    let flags = r("4.2").flags();
    assert_eq!(plain.goto(&flags, b"a").unwrap_err().errno, e::ENOTSUP);
    assert_eq!(plain.save_vmstate(0, b"a").unwrap_err().errno, e::ENOTSUP);
}
