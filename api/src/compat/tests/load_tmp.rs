//! `bdrv_snapshot_load_tmp`, by id or name too, and the options.

use super::{disk, errno, message, one, qcow2, r, raw, releases, table};
use crate::compat::graph::{Graph, Node, NodeId, Role};
use crate::compat::memory::MemoryTable;
use crate::compat::qcow2::Qcow2;
use crate::compat::release::Release;
use crate::compat::{
    SnapshotArgument, bdrv_snapshot_load_tmp, bdrv_snapshot_load_tmp_by_id_or_name, errno as e,
    parse_snapshot_argument,
};

const TRAP: &[(&str, &str)] = &[("1", "2"), ("2", "foo"), ("3", "foo")];

fn read_only(table: MemoryTable) -> (Graph, NodeId) {
    let (mut graph, bs) = one(Box::new(Qcow2::new(table)));
    graph.get_mut(bs).unwrap().read_only = true;
    (graph, bs)
}

#[test]
fn reads_are_of_the_snapshot_and_the_size_stays() {
    for release in Release::all() {
        let mut small = table(&[]);
        small.insert(super::info("1", "small"), &[7; 2]);
        small.insert(super::info("2", "large"), &[8; 9]);
        let (mut graph, bs) = read_only(small);
        let mut load = |name: &[u8]| {
            bdrv_snapshot_load_tmp(release, &mut graph, bs, None, Some(name)).unwrap();
            disk(&mut graph, bs)
        };
        assert_eq!(load(b"small"), [7, 7, 0, 0]);
        assert_eq!(load(b"large"), [8; 4], "{release}");
    }
}

#[test]
fn through_1_7_there_is_one_argument_and_only_numbers_come_back() {
    for release in releases("1.0", "1.7") {
        let (mut graph, bs) = read_only(table(TRAP));
        bdrv_snapshot_load_tmp(release, &mut graph, bs, None, Some(b"2")).unwrap();
        assert_eq!(disk(&mut graph, bs), [2; 4], "as id first");
        let failed = bdrv_snapshot_load_tmp(release, &mut graph, bs, None, Some(b"x")).unwrap_err();
        assert_eq!((failed.ret, failed.error), (-e::ENOENT, None));
        let by_either = bdrv_snapshot_load_tmp_by_id_or_name(release, &mut graph, bs, b"2");
        assert_eq!(errno(by_either), e::ENOSYS);
    }
}

#[test]
fn from_2_0_on_id_and_name_are_told_apart() {
    for release in releases("2.0", "11.1") {
        let (mut graph, bs) = read_only(table(TRAP));
        let mut load = |id: Option<&str>, name: Option<&str>| {
            let (id, name) = (id.map(str::as_bytes), name.map(str::as_bytes));
            bdrv_snapshot_load_tmp(release, &mut graph, bs, id, name)
                .map(|()| disk(&mut graph, bs)[0])
        };
        assert_eq!(load(Some("2"), None).unwrap(), 2);
        assert_eq!(load(None, Some("2")).unwrap(), 1);
        assert_eq!(load(Some("3"), Some("foo")).unwrap(), 3);
        assert_eq!(
            message(load(Some("1"), Some("foo"))).as_deref(),
            Some("Can't find snapshot")
        );
        assert_eq!(errno(load(None, Some("1"))), e::ENOENT);
        let text = "snapshot_id and name are both NULL";
        assert_eq!(message(load(None, None)).as_deref(), Some(text));
        bdrv_snapshot_load_tmp_by_id_or_name(release, &mut graph, bs, b"2").unwrap();
        assert_eq!(disk(&mut graph, bs), [2; 4], "id first");
        bdrv_snapshot_load_tmp_by_id_or_name(release, &mut graph, bs, b"foo").unwrap();
        let missing = bdrv_snapshot_load_tmp_by_id_or_name(release, &mut graph, bs, b"x");
        assert_eq!(message(missing).as_deref(), Some("Can't find snapshot"));
    }
}

#[test]
fn a_writable_node_is_refused_after_the_arguments_were_looked_at() {
    for release in releases("2.0", "11.1") {
        let (mut graph, bs) = one(qcow2(TRAP));
        let closed = graph.add(Node::closed("closed")).unwrap();
        let mut load = |bs, id| bdrv_snapshot_load_tmp(release, &mut graph, bs, id, None);
        assert_eq!(errno(load(closed, None)), e::ENOMEDIUM);
        assert_eq!(
            message(load(bs, None)).as_deref(),
            Some("snapshot_id and name are both NULL")
        );
        assert_eq!(
            message(load(bs, Some(b"1"))).as_deref(),
            Some("Device is not readonly")
        );
        let second = bdrv_snapshot_load_tmp_by_id_or_name(release, &mut graph, bs, b"1");
        assert_eq!(message(second).as_deref(), Some("Device is not readonly"));
    }
}

#[test]
fn no_child_is_asked() {
    for release in releases("2.0", "11.1") {
        let (mut graph, top) = one(raw());
        graph.get_mut(top).unwrap().read_only = true;
        let below = graph
            .add(Node::new("below", qcow2(TRAP)).read_only())
            .unwrap();
        graph.add_child(top, "file", Role::IMAGE, below).unwrap();
        let failed =
            bdrv_snapshot_load_tmp(release, &mut graph, top, Some(b"1"), None).unwrap_err();
        assert_eq!(failed.ret, -e::ENOTSUP);
        let what = if release <= r("2.3") {
            "feature 'temporarily loading internal snapshots'"
        } else {
            "temporarily loading internal snapshots"
        };
        let text = format!("Block format 'raw' used by device 'd0' does not support {what}");
        assert_eq!(failed.error.unwrap().to_string(), text);
    }
}

#[test]
fn an_image_with_a_data_file_is_not_refused() {
    for release in Release::all() {
        let (mut graph, bs) = read_only(MemoryTable {
            data_file: true,
            ..table(TRAP)
        });
        let loaded = bdrv_snapshot_load_tmp(release, &mut graph, bs, None, Some(b"foo"));
        assert!(loaded.is_ok(), "{release}");
    }
}

#[test]
fn an_argument_that_begins_with_snapshot_is_options_from_2_0_on() {
    let parse = |release: &str, text: &str| parse_snapshot_argument(r(release), text.as_bytes());
    let options = |id: Option<&str>, name: Option<&str>| SnapshotArgument::Options {
        id: id.map(Into::into),
        name: name.map(Into::into),
    };
    let word = |text: &str| SnapshotArgument::IdOrName(text.into());
    assert_eq!(
        parse("2.0", "snapshot.id=2").unwrap(),
        options(Some("2"), None)
    );
    let both = parse("4.2", "snapshot.name=a,,b,snapshot.id=1,snapshot.id=3").unwrap();
    assert_eq!(both, options(Some("3"), Some("a,b")));
    assert_eq!(
        parse("4.2", "snapshot.name=").unwrap(),
        options(None, Some(""))
    );
    assert_eq!(
        parse("1.7", "snapshot.id=2").unwrap(),
        word("snapshot.id=2")
    );
    assert_eq!(parse("4.2", "2").unwrap(), word("2"));
    assert_eq!(parse("4.2", "snapshot").unwrap(), word("snapshot"));
    assert_eq!(errno(parse("4.2", "snapshot.x=1")), e::EINVAL);
    assert_eq!(
        parse("4.2", "snapshot.id").unwrap(),
        options(Some("on"), None)
    );
    assert_eq!(errno(parse("4.2", "snapshot.id=1,bogus=2")), e::EINVAL);
    assert_eq!(
        parse("4.2", "snapshot.id=1,").unwrap(),
        options(Some("1"), None)
    );
    let off = parse("4.2", "snapshot.id=1,nosnapshot.name").unwrap();
    assert_eq!(off, options(Some("1"), Some("off")));
}
