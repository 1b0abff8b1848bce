//! `bdrv_snapshot_delete` and `bdrv_snapshot_delete_by_id_or_name`.

use super::{errno, listed, message, one, pairs, qcow2, r, raw, releases};
use crate::compat::graph::{Graph, Node, NodeId, Role};
use crate::compat::release::Release;
use crate::compat::{
    Failure, bdrv_snapshot_delete, bdrv_snapshot_delete_by_id_or_name, errno as e,
};

const TRAP: &[(&str, &str)] = &[("1", "2"), ("2", "a"), ("3", "a")];

fn delete(
    release: Release,
    graph: &mut Graph,
    bs: NodeId,
    id: Option<&str>,
    name: Option<&str>,
) -> Result<(), Failure> {
    let (id, name) = (id.map(str::as_bytes), name.map(str::as_bytes));
    bdrv_snapshot_delete(release, graph, bs, id, name)
}

#[test]
fn through_1_6_the_argument_is_an_id_and_then_a_name() {
    for release in releases("1.0", "1.6") {
        let (mut graph, bs) = one(qcow2(TRAP));
        delete(release, &mut graph, bs, Some("2"), None).unwrap();
        assert_eq!(
            listed(release, &mut graph, bs),
            pairs(&[("1", "2"), ("3", "a")])
        );
        delete(release, &mut graph, bs, Some("2"), None).unwrap();
        assert_eq!(
            listed(release, &mut graph, bs),
            pairs(&[("3", "a")]),
            "{release}"
        );
        let failed = delete(release, &mut graph, bs, Some("2"), None).unwrap_err();
        assert_eq!((failed.ret, failed.error), (-e::ENOENT, None));
    }
}

#[test]
fn from_1_7_on_the_first_entry_with_all_that_is_given_goes_and_no_other() {
    for release in releases("1.7", "11.1") {
        let left = |id, name| {
            let (mut graph, bs) = one(qcow2(TRAP));
            delete(release, &mut graph, bs, id, name).unwrap();
            let left = listed(release, &mut graph, bs);
            left.into_iter()
                .map(|(id, _)| id)
                .collect::<Vec<_>>()
                .concat()
        };
        assert_eq!(left(Some("2"), None), "13");
        assert_eq!(left(None, Some("2")), "23");
        assert_eq!(left(None, Some("a")), "13", "the first of two");
        assert_eq!(left(Some("3"), Some("a")), "12");
        let (mut graph, bs) = one(qcow2(TRAP));
        let failed = delete(release, &mut graph, bs, Some("1"), Some("a"));
        assert_eq!(message(failed).as_deref(), Some("Can't find the snapshot"));
        assert_eq!(
            errno(delete(release, &mut graph, bs, None, Some("3"))),
            e::ENOENT
        );
        assert_eq!(listed(release, &mut graph, bs), pairs(TRAP));
    }
}

#[test]
fn what_delete_refuses_it_refuses_in_order() {
    for release in releases("1.7", "11.1") {
        let (mut graph, bs) = one(qcow2(TRAP));
        let closed = graph.add(Node::closed("closed")).unwrap();
        graph.add_backend("tray", Some(closed));
        let mut plain = |bs, id| delete(release, &mut graph, bs, id, None).unwrap_err();
        let failed = plain(closed, None);
        assert_eq!(failed.ret, -e::ENOMEDIUM, "before the arguments");
        assert_eq!(
            failed.error.unwrap().to_string(),
            "Device 'tray' has no medium"
        );
        let failed = plain(bs, None);
        assert_eq!(failed.ret, -e::EINVAL);
        assert_eq!(
            failed.error.unwrap().to_string(),
            "snapshot_id and name are both NULL"
        );
    }
}

#[test]
fn a_format_without_snapshots_is_named() {
    for release in releases("1.7", "11.1") {
        let (mut graph, bs) = one(raw());
        let error = delete(release, &mut graph, bs, Some("1"), None)
            .unwrap_err()
            .error
            .unwrap();
        let what = if release <= r("2.3") {
            "feature 'internal snapshot deletion'"
        } else {
            "internal snapshot deletion"
        };
        let text = format!("Block format 'raw' used by device 'd0' does not support {what}");
        assert_eq!(error.to_string(), text);
    }
}

#[test]
fn delete_falls_back_to_the_child() {
    for release in Release::all() {
        let (mut graph, top) = one(raw());
        let below = graph
            .add(Node::new("below", qcow2(TRAP)).implicit())
            .unwrap();
        graph.add_child(top, "file", Role::IMAGE, below).unwrap();
        delete(release, &mut graph, top, Some("2"), None).unwrap();
        assert_eq!(listed(release, &mut graph, top).len(), 2, "{release}");
    }
}

#[test]
fn delete_by_id_or_name_is_there_from_1_7_through_3_1() {
    for release in Release::all() {
        let (mut graph, bs) = one(qcow2(TRAP));
        let mut delete =
            |name: &[u8]| bdrv_snapshot_delete_by_id_or_name(release, &mut graph, bs, name);
        if !(r("1.7")..=r("3.1")).contains(&release) {
            assert_eq!(errno(delete(b"1")), e::ENOSYS, "{release}");
            continue;
        }
        delete(b"2").unwrap();
        delete(b"2").unwrap();
        delete(b"a").unwrap();
        assert_eq!(
            message(delete(b"a")).as_deref(),
            Some("Can't find the snapshot")
        );
        assert_eq!(errno(delete(b"")), e::ENOENT);
        assert_eq!(listed(release, &mut graph, bs), []);
    }
}
