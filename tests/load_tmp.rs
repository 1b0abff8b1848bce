//! What `-l ARGUMENT` of `qemu-nbd` and `qemu-img convert` takes for which snapshot: the same here, byte for byte.

mod support;

use std::fs;
use std::path::Path;
use stillpoint_api::compat::memory::MemoryTable;
use stillpoint_api::compat::qcow2::Qcow2;
use stillpoint_api::compat::{
    Graph, Node, QemuSnapshotInfo, Release, SnapshotArgument, bdrv_snapshot_load_tmp,
    bdrv_snapshot_load_tmp_by_id_or_name, parse_snapshot_argument,
};
use support::{Home, has, real_release, tool};

/// With ids 1, 2, ...: names that are ids of others, that are equal, that have a comma.
const NAMES: [&str; 7] = ["2", "foo", "a,b", "foo", "", "snapshot", "off"];
const BYTES: usize = 16 << 10;

const ARGUMENTS: [&str; 28] = [
    "1",
    "2",
    "foo",
    "a,b",
    "nix",
    "",
    "snapshot",
    "snapshot.",
    "snapshot.id=2",
    "snapshot.name=2",
    "snapshot.name=foo",
    "snapshot.name=a,,b",
    "snapshot.name=a,b",
    "snapshot.name=",
    "snapshot.id=1,snapshot.name=2",
    "snapshot.id=1,snapshot.name=foo",
    "snapshot.id=4,snapshot.name=foo",
    "snapshot.id=1,snapshot.id=3",
    "snapshot.id=2,",
    "snapshot.id=2,,",
    "snapshot.id=2,,snapshot.name=2",
    "snapshot.id=1,nosnapshot.name",
    "snapshot.id=7,nosnapshot.name",
    "snapshot.id=1,,,snapshot.id=2",
    "snapshot.id",
    "snapshot.x=1",
    "snapshot.id=1,bogus=2",
    "id=1",
];

/// The byte of which the disk was that is shown; `None`: refused.
fn ours(release: Release, graph: &mut Graph, argument: &str) -> Option<u8> {
    let bs = graph.named("disk").expect("it was added");
    match parse_snapshot_argument(release, argument.as_bytes()).ok()? {
        SnapshotArgument::Options { id, name } => {
            bdrv_snapshot_load_tmp(release, graph, bs, id.as_deref(), name.as_deref())
        }
        SnapshotArgument::IdOrName(text) => {
            bdrv_snapshot_load_tmp_by_id_or_name(release, graph, bs, &text)
        }
    }
    .ok()?;
    let mut byte = [0];
    let driver = graph.get_mut(bs).and_then(|n| n.driver.as_mut());
    let read = driver.map(|d| d.read_at(4096, &mut byte));
    read.expect("it has a driver").expect("it is in memory");
    Some(byte[0])
}

fn theirs(folder: &Path, argument: &str) -> Option<u8> {
    let mut convert = tool("qemu-img");
    convert.current_dir(folder);
    convert.args(["convert", "-f", "qcow2", "-O", "raw", "-l", argument]);
    let ran = convert.args(["disk.qcow2", "shown.raw"]).output();
    let done = ran.expect("the program runs").status.success();
    done.then(|| fs::read(folder.join("shown.raw")).expect("it was written")[4096])
}

fn ok(folder: &Path, program: &str, arguments: &[&str]) {
    let output = tool(program).current_dir(folder).args(arguments).output();
    let output = output.expect("the program runs");
    assert!(output.status.success(), "{arguments:?}: {output:?}");
}

#[test]
fn an_argument_of_l_means_the_snapshot_that_it_means_to_the_real_programs() {
    if !has("load_tmp", &["qemu-img", "qemu-io"]) {
        return;
    }
    let (home, release) = (Home::empty(), real_release());
    let folder = home.path("");
    let size = BYTES.to_string();
    ok(
        &folder,
        "qemu-img",
        &["create", "-q", "-f", "qcow2", "disk.qcow2", &size],
    );
    let mut table = MemoryTable::new(&[0; BYTES]);
    for (byte, name) in (1u8..).zip(NAMES) {
        let write = format!("write -q -P {byte} 0 {BYTES}");
        ok(&folder, "qemu-io", &["-c", &write, "disk.qcow2"]);
        ok(&folder, "qemu-img", &["snapshot", "-c", name, "disk.qcow2"]);
        let id = byte.to_string();
        let sn = QemuSnapshotInfo {
            id_str: id.as_str().into(),
            ..QemuSnapshotInfo::named(name.as_bytes())
        };
        table.insert(sn, &[byte; BYTES]);
    }
    let mut graph = Graph::new();
    let node = Node::new("disk", Box::new(Qcow2::new(table))).read_only();
    graph.add(node).expect("the only one");
    let all = || ARGUMENTS.iter();
    let theirs: Vec<_> = all().map(|a| (*a, theirs(&folder, a))).collect();
    let ours: Vec<_> = all().map(|a| (*a, ours(release, &mut graph, a))).collect();
    assert_eq!(ours, theirs, "ours, theirs");
    let shown = theirs.iter().filter(|(_, byte)| byte.is_some()).count();
    assert!(shown > 8 && shown < theirs.len() - 4, "{theirs:?}");
}
