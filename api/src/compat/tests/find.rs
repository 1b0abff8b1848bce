//! `bdrv_snapshot_find`, `bdrv_snapshot_find_by_id_and_name` and `bdrv_snapshot_list`.

use super::{errno, listed, one, pairs, qcow2, r, raw, releases};
use crate::compat::graph::Node;
use crate::compat::release::Release;
use crate::compat::{
    bdrv_snapshot_find, bdrv_snapshot_find_by_id_and_name, bdrv_snapshot_list, errno as e,
};

const TRAP: &[(&str, &str)] = &[("1", "2"), ("2", "foo"), ("3", "foo")];

#[test]
fn find_is_by_id_or_name_entry_by_entry_through_3_1_and_by_name_from_4_0_on() {
    for release in releases("1.6", "11.1") {
        let (mut graph, bs) = one(qcow2(TRAP));
        let mut find = |name: &[u8]| {
            let found = bdrv_snapshot_find(release, &mut graph, bs, name);
            found.map(|s| s.id_str.to_string()).map_err(|e| -e.ret).ok()
        };
        // Entry by entry: the one named 2 comes before the one with id 2.
        assert_eq!(find(b"2").as_deref(), Some("1"));
        assert_eq!(find(b"foo").as_deref(), Some("2"), "the first of two");
        let by_id = if release <= r("3.1") { Some("3") } else { None };
        assert_eq!(find(b"3").as_deref(), by_id, "{release}");
        assert_eq!(find(b"FOO"), None);
    }
}

#[test]
fn find_is_public_from_1_6_on() {
    for release in releases("1.0", "1.5") {
        let (mut graph, bs) = one(qcow2(TRAP));
        assert_eq!(
            errno(bdrv_snapshot_find(release, &mut graph, bs, b"foo")),
            e::ENOSYS
        );
    }
}

#[test]
fn find_folds_every_failure_to_list_into_enoent() {
    for release in releases("1.6", "11.1") {
        let (mut graph, bs) = one(raw());
        let closed = graph.add(Node::closed("closed")).unwrap();
        assert_eq!(
            errno(bdrv_snapshot_list(release, &mut graph, bs)),
            e::ENOTSUP
        );
        assert_eq!(
            errno(bdrv_snapshot_list(release, &mut graph, closed)),
            e::ENOMEDIUM
        );
        assert_eq!(
            errno(bdrv_snapshot_find(release, &mut graph, bs, b"a")),
            e::ENOENT
        );
        assert_eq!(
            errno(bdrv_snapshot_find(release, &mut graph, closed, b"a")),
            e::ENOENT
        );
    }
}

#[test]
fn find_by_id_and_name_wants_all_that_is_given_from_1_7_on() {
    for release in Release::all() {
        let (mut graph, bs) = one(qcow2(TRAP));
        let mut find = |id: Option<&str>, name: Option<&str>| {
            let (id, name) = (id.map(str::as_bytes), name.map(str::as_bytes));
            bdrv_snapshot_find_by_id_and_name(release, &mut graph, bs, id, name)
        };
        if release < r("1.7") {
            assert_eq!(errno(find(Some("1"), None)), e::ENOSYS, "{release}");
            continue;
        }
        let id = |found: Result<Option<_>, _>| {
            found
                .unwrap()
                .map(|s: crate::compat::QemuSnapshotInfo| s.id_str.to_string())
        };
        assert_eq!(id(find(Some("2"), None)).as_deref(), Some("2"));
        assert_eq!(id(find(None, Some("2"))).as_deref(), Some("1"));
        assert_eq!(id(find(None, Some("foo"))).as_deref(), Some("2"));
        assert_eq!(id(find(Some("3"), Some("foo"))).as_deref(), Some("3"));
        assert_eq!(id(find(Some("1"), Some("foo"))), None);
        assert_eq!(errno(find(None, None)), e::EINVAL, "where QEMU aborts");
    }
}

#[test]
fn find_by_id_and_name_sets_an_error_only_where_the_list_fails() {
    for release in releases("1.7", "11.1") {
        let (mut graph, bs) = one(raw());
        let found = bdrv_snapshot_find_by_id_and_name(release, &mut graph, bs, None, Some(b"a"));
        let failed = found.unwrap_err();
        assert_eq!(failed.ret, 0, "C got false");
        let text = "Failed to get a snapshot list: Operation not supported";
        assert_eq!(failed.error.unwrap().to_string(), text);
    }
}

#[test]
fn a_list_is_in_the_order_of_making_and_deletes_close_the_gaps() {
    for release in Release::all() {
        let (mut graph, bs) = one(qcow2(&[("9", "z"), ("1", "a"), ("5", "m")]));
        assert_eq!(
            listed(release, &mut graph, bs),
            pairs(&[("9", "z"), ("1", "a"), ("5", "m")])
        );
        crate::compat::bdrv_snapshot_delete(release, &mut graph, bs, Some(b"1"), None).unwrap();
        super::create(release, &mut graph, bs, "b").unwrap();
        assert_eq!(
            listed(release, &mut graph, bs),
            pairs(&[("9", "z"), ("5", "m"), ("10", "b")])
        );
        let (mut graph, bs) = one(qcow2(&[]));
        assert_eq!(bdrv_snapshot_list(release, &mut graph, bs).unwrap(), []);
    }
}
