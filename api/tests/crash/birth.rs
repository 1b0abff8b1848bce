//! A machine that crashes while a store is being made: a store that was acknowledged works, and where none was there is
//! one that works or room for one.

use crate::bench::{Machine, alone, make_store, points, seed, small, store_there};
use crate::check::check;
use crate::steps::{Expect, Step, run};
use std::path::Path;
use stillpoint_api::ErrorKind;
use stillpoint_api::store::disk::Disk;
use stillpoint_api::store::disk::sim::{CrashMode, SimDisk};

fn empty() -> SimDisk {
    let disk = SimDisk::new(seed());
    disk.create_folders(Path::new("/images")).unwrap();
    disk.sync_folder(Path::new("/")).unwrap();
    disk
}

#[test]
fn a_store_that_is_being_made() {
    alone(|| {
        let (whole, started) = (empty(), empty().calls());
        make_store(&whole, seed()).unwrap();
        let calls = whole.calls() - started;
        let mut made_anew = 0;
        for k in points(calls, u64::MAX) {
            let disk = empty();
            disk.crash_at(started + k);
            let acknowledged = make_store(&disk, seed()).is_ok();
            for mode in CrashMode::ALL {
                let place = format!("call {k} of {calls}, {mode:?}, seed {}", seed());
                let disk = disk.restart(mode);
                let store = store_there(&disk).unwrap_or_else(|e| {
                    assert!(!acknowledged, "{place}: {e:?}");
                    assert_eq!(e.kind(), ErrorKind::NotFound, "{place}: {e:?}");
                    made_anew += 1;
                    make_store(&disk, 77).unwrap_or_else(|e| panic!("{place}, again: {e:?}"))
                });
                let machine = Machine::on(disk, store, small());
                let steps = [
                    Step::Image("a", 1, 30 * 4096 + 100),
                    Step::Add("a"),
                    Step::Create("one", &[]),
                ];
                let trace = run(&machine, &Expect::default(), &steps);
                assert!(trace.failed.is_empty(), "{place}: {:?}", trace.failed);
                let machine = machine.restart(CrashMode::NothingUnsynced, machine.index.copy());
                check(machine, &[trace.sure], k).unwrap_or_else(|e| panic!("{place}: {e}"));
            }
        }
        assert!(made_anew > 0, "no crash came before there was a store");
    });
}
