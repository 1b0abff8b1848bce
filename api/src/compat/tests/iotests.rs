//! What qemu-iotests check of this layer, as tests of ours: 007, 015, the first parts of 029, 058, 217's happy path, 286's
//! separated columns (beside the layouts, in `dump`). On a disk in memory; over the store the same in `tests/`.

use super::{create, disk, info, listed, one, pairs, qcow2, r, releases};
use crate::compat::graph::{Graph, NodeId};
use crate::compat::memory::MemoryTable;
use crate::compat::qcow2::Qcow2;
use crate::compat::release::Release;
use crate::compat::{
    SnapshotArgument, bdrv_snapshot_create, bdrv_snapshot_delete, bdrv_snapshot_goto,
    bdrv_snapshot_load_tmp, bdrv_snapshot_load_tmp_by_id_or_name, parse_snapshot_argument,
};

/// A disk whose bytes a guest can write.
struct Guest {
    graph: Graph,
    bs: NodeId,
    release: Release,
}

impl Guest {
    fn new(release: Release) -> Self {
        let (graph, bs) = one(Box::new(Qcow2::new(MemoryTable::new(&[]))));
        Self { graph, bs, release }
    }

    /// The contents change as a whole, and with them the size.
    fn holds(&mut self, bytes: &[u8], snapshots: &[(&str, &[u8])]) {
        let mut table = MemoryTable::new(bytes);
        for ((name, bytes), id) in snapshots.iter().zip(1..) {
            table.insert(info(&format!("{id}"), name), bytes);
        }
        self.graph.get_mut(self.bs).unwrap().driver = Some(Box::new(Qcow2::new(table)));
    }

    fn goto(&mut self, name: &str) -> bool {
        bdrv_snapshot_goto(self.release, &mut self.graph, self.bs, name.as_bytes()).is_ok()
    }
}

#[test]
fn iotest_007_ten_snapshots_are_made_and_deleted_in_order() {
    for release in releases("1.0", "11.1") {
        let (mut graph, bs) = one(qcow2(&[]));
        for n in 1..=10 {
            assert_eq!(
                create(release, &mut graph, bs, &format!("test{n}")).unwrap(),
                n.to_string()
            );
        }
        for n in 1..=10u32 {
            let id = n.to_string();
            bdrv_snapshot_delete(release, &mut graph, bs, Some(id.as_bytes()), None).unwrap();
            assert_eq!(listed(release, &mut graph, bs).len() as u32, 10 - n);
        }
    }
}

#[test]
fn iotest_015_reverts_give_each_snapshots_bytes_and_deletes_leave_the_other() {
    for release in releases("1.0", "11.1") {
        let mut guest = Guest::new(release);
        guest.holds(&[3; 4], &[("snap1", &[1; 4]), ("snap2", &[2; 4])]);
        for (name, byte) in [("snap1", 1), ("snap2", 2), ("snap1", 1)] {
            assert!(guest.goto(name));
            assert_eq!(
                disk(&mut guest.graph, guest.bs),
                [byte; 4],
                "{release} {name}"
            );
        }
        let Guest { mut graph, bs, .. } = guest;
        bdrv_snapshot_delete(release, &mut graph, bs, Some(b"1"), None).unwrap();
        assert_eq!(listed(release, &mut graph, bs), pairs(&[("2", "snap2")]));
        assert_eq!(disk(&mut graph, bs), [1; 4], "what was gone to stays");
        bdrv_snapshot_goto(release, &mut graph, bs, b"snap2").unwrap();
        assert_eq!(disk(&mut graph, bs), [2; 4]);
    }
}

/// Sizes that differ, and a VM state beside the disk that neither of them touches.
#[test]
fn iotest_029_going_to_a_smaller_disk_needs_5_1_and_vm_state_does_not_spoil_the_disk() {
    for release in releases("1.0", "11.1") {
        let mut guest = Guest::new(release);
        guest.holds(&[9; 8], &[("foo", &[1; 4])]);
        assert_eq!(guest.goto("foo"), release >= r("5.1"), "{release}");
        guest.holds(&[5; 4], &[]);
        let Guest { mut graph, bs, .. } = guest;
        graph
            .driver(bs)
            .unwrap()
            .save_vmstate(2, &[0xaa; 6])
            .unwrap();
        let mut sn = info("", "foo");
        sn.vm_state_size = 8;
        bdrv_snapshot_create(release, &mut graph, bs, &mut sn).unwrap();
        graph
            .driver(bs)
            .unwrap()
            .save_vmstate(0, &[0xbb; 16])
            .unwrap();
        bdrv_snapshot_goto(release, &mut graph, bs, b"foo").unwrap();
        let mut state = [0; 10];
        graph
            .driver(bs)
            .unwrap()
            .load_vmstate(0, &mut state)
            .unwrap();
        assert_eq!(state, [0, 0, 0xaa, 0xaa, 0xaa, 0xaa, 0xaa, 0xaa, 0, 0]);
        assert_eq!(disk(&mut graph, bs), [5; 4], "{release}");
    }
}

#[test]
fn iotest_058_a_snapshot_is_read_by_name_by_id_and_by_options() {
    for release in releases("2.0", "11.1") {
        let (mut graph, bs) = one(qcow2(&[("1", "sn1")]));
        graph.get_mut(bs).unwrap().read_only = true;
        for argument in ["sn1", "1", "snapshot.name=sn1", "snapshot.id=1"] {
            match parse_snapshot_argument(release, argument.as_bytes()).unwrap() {
                SnapshotArgument::IdOrName(word) => {
                    bdrv_snapshot_load_tmp_by_id_or_name(release, &mut graph, bs, &word).unwrap();
                }
                SnapshotArgument::Options { id, name } => {
                    let (id, name) = (id.as_deref(), name.as_deref());
                    bdrv_snapshot_load_tmp(release, &mut graph, bs, id, name).unwrap();
                }
            }
            assert_eq!(disk(&mut graph, bs), [1; 4], "{release} {argument}");
        }
    }
}

#[test]
fn iotest_217_of_two_snapshots_the_one_deleted_is_gone_and_the_other_whole() {
    for release in releases("1.7", "11.1") {
        let mut guest = Guest::new(release);
        guest.holds(&[0; 4], &[("foo", &[1; 4]), ("bar", &[2; 4])]);
        let Guest { mut graph, bs, .. } = guest;
        bdrv_snapshot_delete(release, &mut graph, bs, None, Some(b"foo")).unwrap();
        assert_eq!(listed(release, &mut graph, bs), pairs(&[("2", "bar")]));
        bdrv_snapshot_goto(release, &mut graph, bs, b"bar").unwrap();
        assert_eq!(disk(&mut graph, bs), [2; 4], "{release}");
    }
}
