//! An export is cut off at every call, and repeated: the file is whole under its name or not there, the second export takes up
//! what the first has left, and what is found under that name never shows in what comes out.

use super::bench::{CLUSTER, Machine, alone, points, small};
use std::path::Path;
use stillpoint_api::store::disk::sim::{CrashMode, Fault};
use stillpoint_api::store::disk::{Disk, OpenMode};
use stillpoint_api::store::progress::Progress;
use stillpoint_api::{Begin, Create, Error, ErrorKind, Output, System};

const IMAGE: &str = "/images/d";
const OUT: &str = "/images/out";
const PART: &str = "/images/out.still-part";
const CLUSTERS: usize = 40;

/// Data, zeros that were written, and holes, at an odd length.
fn disk() -> Vec<u8> {
    let mut bytes = Vec::new();
    for n in 0..CLUSTERS {
        let value = if n % 7 > 3 { 0 } else { n as u8 + 1 };
        bytes.extend((0..CLUSTER).map(|i| if value == 0 { 0 } else { value ^ (i as u8) }));
    }
    bytes.truncate(CLUSTERS * CLUSTER - 700);
    bytes
}

fn with_a_snapshot() -> Machine {
    let machine = Machine::new(3, small());
    machine.write(IMAGE, &disk()).unwrap();
    let system = machine.open().unwrap();
    let image = Path::new(IMAGE);
    system.device_add("d", image, "raw", false).unwrap();
    let one = Create {
        name: Some("one".into()),
        ..Create::default()
    };
    system.create(&one, &Progress::default()).unwrap();
    machine
}

fn export(system: &System, progress: &Progress) -> stillpoint_api::Result<u64> {
    let out = Output::File(Path::new(OUT));
    system.export("d@one", out, progress).map(|done| done.kept)
}

/// Where the file has data.
fn map(machine: &Machine, path: &str) -> Vec<(u64, u64)> {
    let file = machine.disk.open(Path::new(path), OpenMode::Read).unwrap();
    let (mut at, mut data) = (0, Vec::new());
    while at < file.len().unwrap() {
        let extent = file.extent(at).unwrap();
        if extent.data {
            data.push((extent.start, extent.end));
        }
        at = extent.end;
    }
    data
}

fn assert_whole(machine: &Machine) {
    assert_eq!(machine.read(OUT).unwrap(), disk());
    assert_eq!(map(machine, OUT), map(machine, IMAGE));
}

/// Bytes kept by an export over `left`, which then is whole and alone.
fn over(left: &[u8]) -> u64 {
    let machine = with_a_snapshot();
    machine.write(PART, left).unwrap();
    let kept = export(&machine.open().unwrap(), &Progress::default()).unwrap();
    assert_whole(&machine);
    assert_eq!(machine.paths(PART), [""; 0]);
    kept
}

#[test]
fn what_an_export_left_is_kept_where_it_is_right_and_mended_where_it_is_not() {
    alone(|| {
        let data = CLUSTERS as u64 * 4 / 7 * CLUSTER as u64;
        assert!(over(&disk()) > data);
        assert_eq!(over(&vec![0xEE; CLUSTERS * CLUSTER * 2]), 0);
        assert_eq!(over(&vec![0xEE; 3 * CLUSTER + 1]), 0);
        let mut one_wrong = disk();
        one_wrong[2 * CLUSTER] ^= 1;
        assert_eq!(over(&one_wrong), over(&disk()) - CLUSTER as u64);
    });
}

#[test]
fn an_export_cut_off_at_any_call_is_taken_up_by_the_next() {
    alone(|| {
        let machine = with_a_snapshot();
        let counted = machine.copy();
        let system = counted.open().unwrap();
        let begin = counted.disk.calls();
        export(&system, &Progress::default()).unwrap();
        let calls = counted.disk.calls() - begin;
        assert!(calls > 10, "{calls}");
        let mut kept_some = 0;
        let each = |call| CrashMode::ALL.map(|mode| (call, mode));
        for (call, mode) in points(calls, 40).into_iter().flat_map(each) {
            let machine = machine.copy();
            let system = machine.open().unwrap();
            machine.disk.crash_at(machine.disk.calls() + call);
            let acknowledged = export(&system, &Progress::default()).is_ok();
            let machine = machine.restart(mode, machine.index.copy());
            match machine.read(OUT) {
                Ok(_) => assert_whole(&machine),
                Err(e) => {
                    assert!(!acknowledged, "call {call}, {mode:?}");
                    assert_eq!(e.kind(), ErrorKind::NotFound);
                    let system = machine.open().unwrap();
                    kept_some += u64::from(export(&system, &Progress::default()).unwrap() > 0);
                    assert_whole(&machine);
                    assert_eq!(machine.paths(PART), [""; 0]);
                }
            }
        }
        assert!(kept_some > 0, "nothing was ever taken up");
    });
}

#[test]
fn a_leftover_that_has_another_name_too_is_not_written_to() {
    alone(|| {
        let machine = with_a_snapshot();
        let theirs = vec![9; 5 * CLUSTER];
        machine.write("/images/theirs", &theirs).unwrap();
        let names = (Path::new("/images/theirs"), Path::new(PART));
        assert!(machine.disk.link(names.0, names.1).unwrap());
        export(&machine.open().unwrap(), &Progress::default()).unwrap();
        assert_whole(&machine);
        assert_eq!(machine.read("/images/theirs").unwrap(), theirs);
    });
}

#[test]
fn an_export_that_is_stopped_leaves_its_part_and_one_that_fails_leaves_none() {
    alone(|| {
        let machine = with_a_snapshot();
        let system = machine.open().unwrap();
        let progress = Progress::default();
        progress.stop();
        let e = export(&system, &progress).unwrap_err();
        assert_eq!(e.kind(), ErrorKind::Cancelled);
        assert!(e.what_next().unwrap().contains(PART), "{e}");
        assert_eq!(machine.paths("/images/out"), [PART]);
        machine.disk.set_space(2 * CLUSTER as u64);
        let e = export(&system, &Progress::default()).unwrap_err();
        assert_eq!(e.kind(), ErrorKind::NoSpace);
        assert_eq!(machine.paths("/images/out"), [""; 0]);
    });
}

#[test]
fn one_that_is_stopped_leaves_no_part_when_what_was_written_may_not_be_there() {
    alone(|| {
        let machine = with_a_snapshot();
        let mut lost = 0;
        for n in 1..12 {
            let machine = machine.copy();
            let system = machine.open().unwrap();
            let progress = Progress::default();
            progress.stop();
            machine.disk.fail_call(machine.disk.calls() + n, Fault::Eio);
            let e = export(&system, &progress).unwrap_err();
            let left = machine.paths("/images/out");
            if e.to_string().contains("syncing") {
                assert_eq!(left, [""; 0], "{e}");
                lost += 1;
            } else if e.kind() == ErrorKind::Cancelled {
                assert_eq!(left, [PART], "{e}");
            }
        }
        assert!(lost > 0, "no sync failed");
    });
}

#[test]
fn what_says_nothing_about_the_file_does_not_cost_it() {
    alone(|| {
        let machine = with_a_snapshot();
        machine.write(PART, &disk()).unwrap();
        let system = machine.open().unwrap();
        let refuse = |kind: ErrorKind, begin: Begin| {
            let refused = system.write_new(Path::new(OUT), begin, &mut |file, path| {
                let other = path != Path::new(PART);
                assert_eq!((other, file.is_empty()?), (begin == Begin::Anew, other));
                Err(Error::new(kind, "a test"))
            });
            assert_eq!(refused.unwrap_err().kind(), kind);
            machine.paths("/images/out")
        };
        assert_eq!(refuse(ErrorKind::Io, Begin::Anew), [PART]);
        assert_eq!(refuse(ErrorKind::Unsupported, Begin::WhereItWas), [PART]);
        assert_eq!(refuse(ErrorKind::Io, Begin::WhereItWas), [""; 0]);
        // Of one that began and found nothing, nothing stays.
        assert_eq!(refuse(ErrorKind::Unsupported, Begin::Anew), [""; 0]);
        let dead = "/images/out.still-tmp-0123";
        machine.write(dead, &disk()).unwrap();
        assert_eq!(refuse(ErrorKind::Io, Begin::Anew), [""; 0]);
    });
}
