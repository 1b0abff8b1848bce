//! A goto that was cut off, from C.

mod support;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use stillpoint_api::store::format::entry::{GotoDevice, GotoRecord, Op, SessionKind};
use stillpoint_api::store::geometry::Geometry;
use stillpoint_api::store::object::Purse;
use stillpoint_api::store::progress::Progress;
use stillpoint_api::{Create, OpenOptions, System};
use support::{Installed, has, ok, source};

/// A store in the folder whose device was written as far as its first byte when a goto from 2s to 1s was cut off.
fn cut_off(folder: &Path) -> PathBuf {
    let (store, image) = (folder.join("store"), folder.join("disk.raw"));
    System::init(&store, Geometry::DEFAULT).unwrap();
    let system = System::open(&store, OpenOptions::default()).unwrap();
    let progress = Progress::default();
    for byte in [1, 2] {
        fs::write(&image, vec![byte; 300_000]).unwrap();
        if byte == 1 {
            system.device_add("disk", &image, "raw", false).unwrap();
        }
        system.create(&Create::default(), &progress).unwrap();
    }
    let snapshots = system.list_raw("disk").unwrap();
    let record = GotoRecord {
        uid: snapshots[0].uid,
        devices: vec![GotoDevice {
            device: system.device("disk").unwrap().uid,
            undo: snapshots[1].content,
            undo_base: Some(snapshots[1].uid),
            target: snapshots[0].content,
            snapshot: snapshots[0].uid,
        }],
    };
    let begin = Op::GotoBegin { record };
    system
        .store()
        .commit(SessionKind::Writer, Purse::Reserve, &mut |_| {
            Ok(vec![begin.clone()])
        })
        .unwrap();
    let mut partly = vec![2; 300_000];
    partly[0] = 1;
    fs::write(&image, partly).unwrap();
    store
}

#[test]
fn a_goto_that_was_cut_off_is_busy_until_it_is_finished_or_undone() {
    if !has("cutoff", &["cc", "pkg-config"]) {
        return;
    }
    let installed = Installed::new();
    let program = installed.shared(&[source("cutoff.c")], &[], "cutoff");
    for end in ["finish", "undo"] {
        let folder = installed.empty(end);
        let store = cut_off(&folder);
        let mut run = Command::new(&program);
        assert_eq!(ok(run.arg(store).arg(end)), "done\n");
        let image = fs::read(folder.join("disk.raw")).unwrap();
        assert_eq!(image, vec![1; 300_000]);
    }
}
