//! A goto was cut off, and the image is gone for good: the snapshot that it was to go to brings the device back.

use super::bench::{CLUSTER, Machine, alone, painted, small};
use std::path::Path;
use stillpoint_api::store::disk::sim::CrashMode;
use stillpoint_api::store::format::entry::GotoResult;
use stillpoint_api::store::progress::Progress;
use stillpoint_api::{Create, ErrorKind, Output};

const IMAGE: &str = "/images/d";

fn with_a_snapshot() -> Machine {
    let machine = Machine::new(1, small());
    machine.write(IMAGE, &painted(1, 9 * CLUSTER)).unwrap();
    let system = machine.open().unwrap();
    system
        .device_add("d", Path::new(IMAGE), "raw", false)
        .unwrap();
    let one = Create {
        name: Some("one".into()),
        ..Create::default()
    };
    system.create(&one, &Progress::default()).unwrap();
    machine.write(IMAGE, &painted(2, 9 * CLUSTER)).unwrap();
    machine
}

/// What comes up when the machine crashes at the first call after which the goto is on record.
fn cut_off() -> Machine {
    let machine = with_a_snapshot();
    let marked = (1..).map(|call| {
        let machine = machine.copy();
        let system = machine.open().unwrap();
        machine.disk.crash_at(machine.disk.calls() + call);
        let gone = system.goto("one", &[], &Progress::default());
        assert!(gone.is_err(), "it came to its end before it was cut off");
        machine.restart(CrashMode::AllUnsynced, machine.index.copy())
    });
    let is_marked = |m: &Machine| m.open().unwrap().device("d").unwrap().in_goto;
    marked.into_iter().find(is_marked).unwrap()
}

#[test]
fn a_goto_whose_image_is_gone_for_good_is_finished_on_an_export_of_its_target() {
    alone(|| {
        let machine = cut_off();
        machine.disk.remove_at_rest(IMAGE);
        let (system, progress) = (machine.open().unwrap(), Progress::default());
        for to in [GotoResult::Done, GotoResult::Undone] {
            let e = system.goto_resume(to, &progress).unwrap_err();
            assert_eq!(e.kind(), ErrorKind::NotFound);
            assert!(e.what_next().unwrap().contains("`still export"));
        }
        let image = Output::File(Path::new(IMAGE));
        system.export("d@one", image, &progress).unwrap();
        system.goto_resume(GotoResult::Done, &progress).unwrap();
        assert!(!system.device("d").unwrap().in_goto);
        assert_eq!(machine.read(IMAGE).unwrap(), painted(1, 9 * CLUSTER));
    });
}
