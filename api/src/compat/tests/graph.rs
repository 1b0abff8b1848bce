//! The graph, and `bdrv_can_snapshot`.

use super::{drives, errno, info, one, qcow2, r, raw};
use crate::compat::graph::{DEPTH_MAX, Graph, Node, NodeId, Role};
use crate::compat::release::Release;
use crate::compat::{bdrv_can_snapshot, bdrv_snapshot_create, bdrv_snapshot_delete};
use crate::compat::{bdrv_snapshot_goto, bdrv_snapshot_list, errno as e};

#[test]
fn only_an_inserted_writable_node_with_a_capable_driver_can() {
    for release in Release::all() {
        let can = |change: fn(&mut Node)| {
            let (mut graph, bs) = one(qcow2(&[]));
            change(graph.get_mut(bs).unwrap());
            bdrv_can_snapshot(release, &graph, bs)
        };
        assert!(can(|_| ()));
        assert!(!can(|n| n.driver = None) && !can(|n| n.inserted = false));
        assert!(!can(|n| n.read_only = true), "{release}");
        let inactive = can(|n| n.inactive = true);
        assert_eq!(
            inactive,
            release <= r("8.2"),
            "{release}: not writable, and not read-only"
        );
        let (graph, bs) = one(raw());
        assert!(!bdrv_can_snapshot(release, &graph, bs));
        assert!(!bdrv_can_snapshot(release, &graph, NodeId::from_index(7)));
    }
}

/// A raw node with children of these names and roles, the first of them capable.
fn over(children: &[(&str, Role)]) -> (Graph, NodeId) {
    let (mut graph, top) = one(raw());
    for (i, (name, role)) in children.iter().enumerate() {
        let driver = if i == 0 { qcow2(&[]) } else { raw() };
        let child = graph
            .add(Node::new(&format!("c{i}"), driver).implicit())
            .unwrap();
        graph.add_child(top, name, *role, child).unwrap();
    }
    (graph, top)
}

#[test]
fn the_child_fallen_back_to_is_file_through_5_1_and_the_only_one_with_data_from_5_2_on() {
    let quorum = Role {
        primary: false,
        ..Role::FILTERED
    };
    // Children; whether it can by the old rule, and by the new.
    let cases: [(&[(&str, Role)], bool, bool); 6] = [
        (&[("file", Role::IMAGE)], true, true),
        (&[("file", Role::IMAGE), ("backing", Role::COW)], true, true),
        (
            &[("file", Role::IMAGE), ("data-file", Role::DATA)],
            true,
            false,
        ),
        (&[("backing", Role::FILTERED)], false, true),
        (&[("backing", Role::COW)], false, false),
        (
            &[("children.0", quorum), ("children.1", quorum)],
            false,
            false,
        ),
    ];
    for release in Release::all() {
        for (children, old, new) in cases {
            let (graph, top) = over(children);
            let expected = if release <= r("5.1") { old } else { new };
            assert_eq!(
                bdrv_can_snapshot(release, &graph, top),
                expected,
                "{release} {children:?}"
            );
        }
    }
}

#[test]
fn what_bars_the_child_bars_its_parent() {
    for release in Release::all() {
        let (mut graph, top) = over(&[("file", Role::IMAGE)]);
        let child = graph.get(top).unwrap().children()[0].node;
        graph.get_mut(child).unwrap().read_only = true;
        assert!(!bdrv_can_snapshot(release, &graph, top), "{release}");
        graph.get_mut(child).unwrap().read_only = false;
        graph.get_mut(child).unwrap().inserted = false;
        assert!(!bdrv_can_snapshot(release, &graph, top) && !graph.is_inserted(top));
    }
}

#[test]
fn roots_are_those_of_backends_and_then_the_monitors_each_once() {
    let (mut graph, nodes) = drives(vec![raw(), raw()]);
    graph.add_backend("second-of-d0", Some(nodes[0]));
    graph.add_backend("tray", None);
    let owned = graph.add(Node::new("owned", raw())).unwrap();
    graph.add(Node::new("below", raw()).implicit()).unwrap();
    assert_eq!(graph.roots(), [nodes[0], nodes[1], owned]);
    assert_eq!(graph.device_name(nodes[0]), "d0");
    assert_eq!(
        (graph.device_name(owned), graph.device_or_node_name(owned)),
        ("", "owned")
    );
    assert_eq!(
        (graph.device("d1"), graph.device("tray")),
        (Some(nodes[1]), None)
    );
}

#[test]
fn a_node_that_went_leaves_an_empty_tray_and_no_edges_and_its_id_is_not_used_again() {
    let (mut graph, top) = one(raw());
    let child = graph.add(Node::new("child", raw())).unwrap();
    graph.add_child(top, "file", Role::IMAGE, child).unwrap();
    assert!(graph.has_parents(child) && graph.has_backend(top));
    graph.remove(child);
    assert!(graph.get(top).unwrap().children().is_empty() && graph.get(child).is_none());
    graph.remove(top);
    assert_eq!(graph.device("d0"), None);
    let new = graph.add(Node::new("child", raw())).unwrap();
    assert!(new != child && new != top && graph.remove(child).is_none());
}

#[test]
fn a_graph_that_was_emptied_gives_out_no_id_again() {
    let (mut graph, nodes) = drives(vec![qcow2(&[]), raw()]);
    graph.clear();
    assert!(graph.roots().is_empty() && graph.backends().is_empty());
    assert!(graph.device("d0").is_none() && graph.named("d0").is_none());
    let new = graph.add_drive("d0", qcow2(&[])).unwrap();
    assert!(!nodes.contains(&new));
    for old in nodes {
        assert!(graph.get(old).is_none() && !bdrv_can_snapshot(r("4.2"), &graph, old));
    }
}

#[test]
fn a_graph_has_no_two_nodes_of_a_name_and_no_rings() {
    let (mut graph, a) = one(raw());
    assert!(graph.add(Node::new("d0", raw())).is_err());
    let b = graph.add(Node::new("b", raw())).unwrap();
    graph.add_child(a, "file", Role::IMAGE, b).unwrap();
    assert!(graph.add_child(b, "file", Role::IMAGE, a).is_err());
    assert!(graph.add_child(a, "file", Role::IMAGE, a).is_err());
    assert!(
        graph
            .add_child(a, "file", Role::IMAGE, NodeId::from_index(9))
            .is_err()
    );
    assert!(
        graph
            .add_child(NodeId::from_index(9), "file", Role::IMAGE, a)
            .is_err()
    );
}

/// Raw nodes one below the other, and below them one with snapshots.
fn chain(nodes: usize) -> (Graph, Vec<NodeId>) {
    let mut graph = Graph::new();
    let mut all = Vec::new();
    for n in 1..=nodes {
        let driver = if n == nodes { qcow2(&[]) } else { raw() };
        all.push(graph.add(Node::new("", driver)).unwrap());
    }
    for pair in all.windows(2) {
        graph
            .add_child(pair[0], "file", Role::IMAGE, pair[1])
            .unwrap();
    }
    (graph, all)
}

#[test]
fn a_chain_is_as_deep_as_every_function_has_stack_for_and_no_deeper() {
    let (mut graph, nodes) = chain(DEPTH_MAX);
    let (top, bottom) = (nodes[0], nodes[DEPTH_MAX - 1]);
    for end in ["above", "below"] {
        let more = graph.add(Node::new(end, raw())).unwrap();
        let (parent, child) = if end == "above" {
            (more, top)
        } else {
            (bottom, more)
        };
        let added = graph
            .add_child(parent, "file", Role::IMAGE, child)
            .unwrap_err();
        assert_eq!(added.kind(), stillpoint_store::ErrorKind::LimitExceeded);
    }
    // A shorter way beside the longest one is none the deeper.
    graph.add_child(top, "backing", Role::COW, bottom).unwrap();
    for release in [r("1.7"), r("4.2")] {
        assert!(bdrv_can_snapshot(release, &graph, top));
        bdrv_snapshot_create(release, &mut graph, top, &mut info("", "a")).unwrap();
        assert_eq!(
            bdrv_snapshot_list(release, &mut graph, top).unwrap().len(),
            1
        );
        bdrv_snapshot_goto(release, &mut graph, top, b"a").unwrap();
        let nix = bdrv_snapshot_goto(release, &mut graph, top, b"nix");
        assert_eq!(errno(nix), e::ENOENT);
        bdrv_snapshot_delete(release, &mut graph, top, Some(b"1"), None).unwrap();
    }
}

#[test]
fn a_node_that_went_makes_room_in_its_chain() {
    let (mut graph, nodes) = chain(DEPTH_MAX);
    graph.remove(nodes[1]);
    assert!(!graph.has_parents(nodes[2]));
    let more = graph.add(Node::new("more", raw())).unwrap();
    graph
        .add_child(more, "file", Role::IMAGE, nodes[2])
        .unwrap();
    assert!(graph.add_child(nodes[0], "file", Role::IMAGE, more).is_ok());
    assert_eq!(
        graph.is_inserted(nodes[0]),
        bdrv_can_snapshot(r("4.2"), &graph, nodes[0])
    );
}

/// Walking down every way of such a graph would take longer than anybody waits.
#[test]
fn nodes_that_many_ways_lead_to_are_met_once() {
    let (mut graph, nodes) = chain(64);
    for pair in nodes.windows(2) {
        graph
            .add_child(pair[0], "backing", Role::COW, pair[1])
            .unwrap();
        let again = graph
            .add_child(pair[0], "backing", Role::COW, pair[1])
            .unwrap_err();
        assert_eq!(again.kind(), stillpoint_store::ErrorKind::AlreadyExists);
    }
    assert!(graph.is_inserted(nodes[0]) && bdrv_can_snapshot(r("4.2"), &graph, nodes[0]));
    assert!(
        graph
            .add_child(nodes[63], "file", Role::IMAGE, nodes[0])
            .is_err()
    );
}
