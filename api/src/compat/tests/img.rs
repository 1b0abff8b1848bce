//! `qemu-img snapshot`.

use super::{listed, one, pairs, qcow2, r, raw, releases, table};
use crate::compat::graph::{Graph, NodeId};
use crate::compat::memory::MemoryTable;
use crate::compat::qcow2::Qcow2;
use crate::compat::release::Release;
use crate::compat::{ImgAction, ImgOutput, bdrv_snapshot_list, img_snapshot};
use stillpoint_store::world::Moment;

const NOW: Moment = Moment {
    sec: 1_795_207_046,
    nsec: 123_456_789,
};

fn run(release: Release, graph: &mut Graph, bs: NodeId, action: ImgAction<'_>) -> ImgOutput {
    img_snapshot(release, graph, bs, action, NOW, &|_| 0)
}

/// The one line on stderr of an action that fails.
#[track_caller]
fn stderr(release: Release, graph: &mut Graph, bs: NodeId, action: ImgAction<'_>) -> String {
    let out = run(release, graph, bs, action);
    assert!(
        out.exit == 1 && out.stdout.is_empty() && out.failure.is_some(),
        "{release}"
    );
    String::from_utf8(out.stderr).unwrap()
}

#[test]
fn a_snapshot_that_it_makes_has_the_date_no_clock_and_a_count_of_zero() {
    for release in Release::all() {
        let (mut graph, bs) = one(qcow2(&[]));
        let out = run(release, &mut graph, bs, ImgAction::Create(&[b'x'; 300]));
        assert!(out.exit == 0 && out.stdout.is_empty() && out.stderr.is_empty());
        let made = bdrv_snapshot_list(release, &mut graph, bs).unwrap()[0];
        assert_eq!(
            (made.date_sec, made.date_nsec),
            (1_795_207_046, 123_456_000)
        );
        assert_eq!((made.vm_clock_nsec, made.vm_state_size), (0, 0));
        assert_eq!(made.name.as_bytes().len(), 255);
        let icount = if release >= r("5.2") { 0 } else { u64::MAX };
        assert_eq!(made.icount, icount, "{release}");
    }
}

#[test]
fn delete_takes_ids_through_3_1_and_apply_always() {
    for release in Release::all() {
        let (mut graph, bs) = one(qcow2(&[("4", "a"), ("5", "b")]));
        assert_eq!(run(release, &mut graph, bs, ImgAction::Apply(b"4")).exit, 0);
        let out = run(release, &mut graph, bs, ImgAction::Delete(b"4"));
        assert_eq!(out.exit == 0, release <= r("3.1"), "{release}");
        assert_eq!(
            run(release, &mut graph, bs, ImgAction::Delete(b"b")).exit,
            0
        );
        let left = if release <= r("3.1") {
            vec![]
        } else {
            pairs(&[("4", "a")])
        };
        assert_eq!(listed(release, &mut graph, bs), left);
    }
}

#[test]
fn failures_are_worded_as_the_release_worded_them() {
    for release in Release::all() {
        let (mut graph, bs) = one(raw());
        let shown = stderr(release, &mut graph, bs, ImgAction::Create(b"N"));
        let number = "-95 (Operation not supported)";
        let why = if release <= r("8.1") {
            number
        } else {
            "Operation not supported"
        };
        assert_eq!(
            shown,
            format!("qemu-img: Could not create snapshot 'N': {why}\n")
        );
        let shown = stderr(release, &mut graph, bs, ImgAction::Apply(b"N"));
        let errp = "Block driver does not support snapshots";
        let why = if release <= r("2.10") { number } else { errp };
        assert_eq!(
            shown,
            format!("qemu-img: Could not apply snapshot 'N': {why}\n"),
            "{release}"
        );
        let (mut graph, bs) = one(qcow2(&[]));
        let shown = stderr(release, &mut graph, bs, ImgAction::Delete(b"N"));
        let why = match release {
            _ if release <= r("1.6") => "-2 (No such file or directory)",
            _ if release <= r("2.5") => "(Can't find the snapshot)",
            _ if release <= r("3.1") => "Can't find the snapshot",
            _ => "snapshot not found",
        };
        assert_eq!(
            shown,
            format!("qemu-img: Could not delete snapshot 'N': {why}\n"),
            "{release}"
        );
    }
}

#[test]
fn what_the_driver_says_on_stderr_comes_first() {
    for release in releases("1.0", "5.0") {
        let mut other = table(&[]);
        other.insert(super::info("1", "small"), &[1; 2]);
        let (mut graph, bs) = one(Box::new(Qcow2::new(other)));
        let shown = stderr(release, &mut graph, bs, ImgAction::Apply(b"small"));
        let lines: Vec<&str> = shown.lines().collect();
        assert!(
            lines.len() == 2 && lines.iter().all(|l| l.starts_with("qemu-img: ")),
            "{shown}"
        );
        assert!(lines[1].starts_with("qemu-img: Could not apply snapshot 'small': "));
    }
}

#[test]
fn a_list_that_cannot_be_is_empty_and_without_an_action_only_10_1_and_later_list() {
    for release in Release::all() {
        let (mut graph, bs) = one(raw());
        let out = run(release, &mut graph, bs, ImgAction::List);
        assert!(
            out.exit == 0 && out.stdout.is_empty() && out.stderr.is_empty(),
            "{release}"
        );
        let table = MemoryTable {
            data_file: true,
            ..table(&[("1", "a")])
        };
        let (mut graph, bs) = one(Box::new(Qcow2::new(table)));
        let out = run(release, &mut graph, bs, ImgAction::List);
        assert_eq!(out.stdout.is_empty(), release >= r("4.0"));
        let (mut graph, bs) = one(qcow2(&[("1", "a")]));
        let all = run(release, &mut graph, bs, ImgAction::List).stdout;
        assert!(all.starts_with(b"Snapshot list:\nID"));
        let none = run(release, &mut graph, bs, ImgAction::None).stdout;
        assert_eq!(
            none,
            if release >= r("10.1") { all } else { vec![] },
            "{release}"
        );
    }
}
