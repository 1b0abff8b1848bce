//! Chains of overlays that are not as those who have them left them: after a crash, a lost answer, or what somebody else put.

use crate::bench::{Machine, alone, seed, small};
use crate::volumes::{BLOCK, Expect, TWO, guest, read_all, run, uid};
use std::path::Path;
use stillpoint_api::store::disk::sim::CrashMode;
use stillpoint_api::store::format::entry::{Content, HeadOrigin, Op, SessionKind, VolumeRecord};
use stillpoint_api::store::object::Purse;
use stillpoint_api::store::ops::gc;
use stillpoint_api::store::ops::ingest::Writer;
use stillpoint_api::store::progress::Progress;
use stillpoint_api::{ErrorKind, System, VolumeSource};

fn two() -> Machine {
    let machine = Machine::new(seed(), small());
    let trace = run(&machine, &Expect::default(), &TWO);
    assert!(trace.failed.is_none());
    machine
}

/// Changes the record of a volume as another host would.
fn put(system: &System, name: &str, change: impl Fn(&mut VolumeRecord)) {
    let device = uid(system, name).unwrap();
    let mut writer = Writer::new(system.store(), SessionKind::Writer, Purse::Free).unwrap();
    let put = writer.finish(&mut |catalog| {
        let state = catalog.device(&device).unwrap();
        let mut record = state.volume.unwrap();
        let expect = Some(record.point());
        change(&mut record);
        Ok(vec![Op::PutVolume {
            uid: device,
            expect,
            volume: Some(record),
            head: state.head,
            base: state.base,
            origin: HeadOrigin::Existing,
        }])
    });
    put.unwrap();
}

#[test]
fn after_a_crash_too_an_overlay_says_that_there_is_a_later_one() {
    alone(|| {
        let machine = two();
        let system = machine.open().unwrap();
        let volumes = system.volumes().unwrap();
        let a = uid(&system, "a").unwrap();
        guest(&volumes, &system, "a", 4).unwrap();
        // Switched, and neither flushed nor stored.
        drop(volumes.seal(&[a]).unwrap());
        let machine = machine.restart(CrashMode::AllUnsynced, machine.index.copy());
        let system = machine.open().unwrap();
        let volumes = system.volumes().unwrap();
        guest(&volumes, &system, "a", 5).unwrap();
        volumes.volume(&a).unwrap().flush().unwrap();
        let folder = format!("/store/local/volumes/{a}/");
        let mut overlays = machine.paths(&folder);
        overlays.retain(|path| !path.ends_with("lock"));
        overlays.sort();
        assert!(overlays.len() > 1, "{overlays:?}");
        let machine = machine.restart(CrashMode::NothingUnsynced, machine.index.copy());
        machine
            .disk
            .remove_at_rest(Path::new(overlays.last().unwrap()));
        let system = machine.open().unwrap();
        let refused = system.volumes().unwrap().volume(&a).map(drop).unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::Refused, "{refused:?}");
    });
}

#[test]
fn an_entry_whose_answer_was_lost_is_caught_up_with() {
    alone(|| {
        let machine = two();
        let system = machine.open().unwrap();
        let volumes = system.volumes().unwrap();
        let (a, progress) = (uid(&system, "a").unwrap(), Progress::default());
        let volume = volumes.volume(&a).unwrap();
        let sealed = volumes.seal(&[a]).unwrap();
        let mut writer = Writer::new(system.store(), SessionKind::Writer, Purse::Free).unwrap();
        let taken = writer.ingest_known(&sealed.inputs(), &|_| true, &progress);
        let contents: Vec<Content> = taken.unwrap().iter().map(|t| t.content).collect();
        let put = writer.finish(&mut |catalog| Ok(sealed.ops(catalog, &contents, &[None])));
        put.unwrap();
        // Nobody says that it is there.
        drop((sealed, writer));
        guest(&volumes, &system, "a", 6).unwrap();
        let now = read_all(&volumes, &system, "a").unwrap();
        volumes.absorb(&[a], &progress).unwrap();
        assert_eq!(volume.overlay_cost(), 0, "all is in the store");
        let all = gc::Options {
            all: true,
            dry_run: false,
        };
        system.store().gc(all, &progress).unwrap();
        assert_eq!(read_all(&volumes, &system, "a").unwrap(), now);
        drop((volume, volumes));
        let volumes = system.volumes().unwrap();
        assert_eq!(read_all(&volumes, &system, "a").unwrap(), now);
    });
}

#[test]
fn a_volume_that_another_host_took_is_written_no_more() {
    alone(|| {
        let machine = two();
        let system = machine.open().unwrap();
        let volumes = system.volumes().unwrap();
        let a = uid(&system, "a").unwrap();
        let volume = volumes.volume(&a).unwrap();
        put(&system, "a", |record| record.generation += 1);
        let ended = volumes.absorb(&[a], &Progress::default()).unwrap_err();
        assert_eq!(ended.kind(), ErrorKind::Poisoned);
        // It would be gone with the next opening.
        let ended = volume.write_at(0, b"x").unwrap_err();
        assert_eq!(ended.kind(), ErrorKind::Poisoned);
    });
}

#[test]
fn a_record_that_counts_past_all_bounds_is_refused() {
    for at in [u64::MAX, u64::MAX - 1] {
        let machine = two();
        let system = machine.open().unwrap();
        put(&system, "a", |record| record.absorbed = at);
        put(&system, "b", |record| record.generation = at);
        let volumes = system.volumes().unwrap();
        for name in ["a", "b"] {
            let device = uid(&system, name).unwrap();
            let refused = volumes.volume(&device).map(drop).unwrap_err();
            assert_eq!(refused.kind(), ErrorKind::Corrupt, "{refused:?}");
        }
    }
}

#[test]
fn a_guest_that_never_flushes_is_not_remembered_without_end() {
    let machine = Machine::new(seed(), small());
    let system = machine.open().unwrap();
    let (size, runs) = (200_000 * BLOCK, 70_000);
    let source = VolumeSource::Empty(size);
    let made = system.volume_create("a", source, &Progress::default());
    let a = made.unwrap().uid;
    let volumes = system.volumes().unwrap();
    let volume = volumes.volume(&a).unwrap();
    volume.write_at(0, b"first").unwrap();
    for n in 0..runs {
        volume.discard((1 + 2 * n) * BLOCK, BLOCK).unwrap();
    }
    assert_eq!(volume.overlay_bytes(), BLOCK);
    assert_eq!(
        volume.overlay_cost(),
        (runs + 1) * BLOCK,
        "each takes memory"
    );
    // What it did first is durable by now.
    let after = machine.restart(CrashMode::NothingUnsynced, machine.index.copy());
    let system = after.open().unwrap();
    let mut found = [0; 5];
    let volumes = system.volumes().unwrap();
    let volume = volumes.volume(&a).unwrap();
    volume.read_at(0, &mut found).unwrap();
    assert_eq!(&found, b"first");
}
