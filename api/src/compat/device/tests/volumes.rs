//! Volumes as disks: what guests wrote since is in them, and a guest that is at work has them.

use super::{Host, SIZE};
use crate::compat::errno as e;
use crate::system::System;
use crate::{OpenOptions, VolumeSource};
use stillpoint_store::progress::Progress;

/// What a guest wrote to a volume, by whoever has it open.
fn write_volume(system: &System, name: &str, at: u64, bytes: &[u8]) {
    let volumes = system.volumes().unwrap();
    let volume = volumes.volume(&system.device(name).unwrap().uid).unwrap();
    volume.write_at(at, bytes).unwrap();
    volume.flush().unwrap();
}

#[test]
fn a_volume_is_read_with_what_was_written_to_it_since() {
    let mut host = Host::new(0);
    let system = host.system.clone();
    let empty = VolumeSource::Empty(SIZE as u64);
    system
        .volume_create("v", empty, &Progress::default())
        .unwrap();
    host.nodes
        .push(host.graph.add_device(&system, "v").unwrap());
    assert!(host.read(0) == vec![0; SIZE]);
    write_volume(&system, "v", 4096, &[7; 4096]);
    let mut seven = vec![0; SIZE];
    seven[4096..8192].fill(7);
    assert!(host.read(0) == seven);
    assert_eq!(host.create("4.2", 0, b"s"), "1");
    write_volume(&system, "v", 0, &[8; 8192]);
    assert!(host.read(0)[..8192] == [8; 8192]);
    let mut across = [0xee; 32];
    let driver = host.graph.driver(host.nodes[0]).unwrap();
    driver.read_at(SIZE as u64 - 16, &mut across).unwrap();
    assert_eq!(across, [0; 32], "zeros behind its end");
    host.goto("4.2", 0, b"s").unwrap();
    assert!(host.read(0) == seven);
}

#[test]
fn a_volume_that_grew_is_of_another_size_than_its_snapshot() {
    for (release, goes) in [("5.0", false), ("5.1", true)] {
        let mut host = Host::new(0);
        let (system, progress) = (host.system.clone(), Progress::default());
        let empty = VolumeSource::Empty(SIZE as u64);
        system.volume_create("v", empty, &progress).unwrap();
        host.nodes
            .push(host.graph.add_device(&system, "v").unwrap());
        host.create(release, 0, b"s");
        let grown = 2 * SIZE as u64;
        system.volume_resize("v", grown, &progress).unwrap();
        let size = |host: &mut Host| host.graph.driver(host.nodes[0]).unwrap().size().unwrap();
        assert_eq!(size(&mut host), grown);
        let gone = host.goto(release, 0, b"s").map_err(|e| e.ret);
        assert_eq!(gone, if goes { Ok(()) } else { Err(-e::ENOTSUP) });
        assert_eq!(size(&mut host), if goes { SIZE as u64 } else { grown });
    }
}

#[test]
fn a_volume_that_somebody_has_open_is_busy_and_not_read_as_it_was() {
    let mut host = Host::new(0);
    let system = host.system.clone();
    let empty = VolumeSource::Empty(SIZE as u64);
    let made = system
        .volume_create("v", empty, &Progress::default())
        .unwrap();
    let bs = host.graph.add_device(&system, "v").unwrap();
    let other = System::open(&host.folder.path().join("store"), OpenOptions::default()).unwrap();
    let volumes = other.volumes().unwrap();
    let _guest = volumes.volume(&made.uid).unwrap();
    let read = host.graph.driver(bs).unwrap().read_at(0, &mut [0; 16]);
    assert_eq!(read.unwrap_err().errno, e::EBUSY);
}
