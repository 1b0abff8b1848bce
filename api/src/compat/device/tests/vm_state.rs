//! VM state of devices: of any length, from any place, and after its snapshot went.

use super::*;

#[test]
fn vm_state_is_kept_with_its_snapshot_and_read_back_from_any_place() {
    for release in ["1.0", "1.6", "1.7", "4.2", "11.1"] {
        let mut host = Host::new(1);
        let bs = host.nodes[0];
        let state: Vec<u8> = (0..300_000u32)
            .map(|n| (n.wrapping_mul(n) >> 7) as u8)
            .collect();
        let driver = host.graph.driver(bs).unwrap();
        for (n, part) in state.chunks(100_000).enumerate() {
            driver.save_vmstate(n as u64 * 100_000, part).unwrap();
        }
        let mut sn = QemuSnapshotInfo {
            vm_state_size: 300_000,
            ..QemuSnapshotInfo::named(b"s")
        };
        bdrv_snapshot_create(r(release), &mut host.graph, bs, &mut sn).unwrap();
        let driver = host.graph.driver(bs).unwrap();
        let kept = r(release) <= r("1.6");
        assert_eq!(driver.vmstate_len().unwrap() > 0, kept, "{release}");
        driver.save_vmstate(0, b"something else").unwrap();
        host.goto(release, 0, b"s").unwrap();
        let listed = bdrv_snapshot_list(r(release), &mut host.graph, bs).unwrap();
        assert_eq!(listed[0].vm_state_size, 300_000);
        let driver = host.graph.driver(bs).unwrap();
        assert_eq!(driver.vmstate_len().unwrap(), 300_000);
        let mut read = vec![0xee; 10];
        driver.load_vmstate(299_995, &mut read).unwrap();
        assert_eq!(read, [&state[299_995..], &[0; 5]].concat());
        // What was gone to outlives its snapshot.
        bdrv_snapshot_delete(r("4.2"), &mut host.graph, bs, None, Some(b"s")).unwrap();
        let mut all = vec![0; 300_000];
        host.graph
            .driver(bs)
            .unwrap()
            .load_vmstate(0, &mut all)
            .unwrap();
        assert!(all == state, "{release}");
    }
}

#[test]
fn a_state_size_that_nothing_was_written_for_reads_as_zeros() {
    let mut host = Host::new(1);
    let bs = host.nodes[0];
    let mut sn = QemuSnapshotInfo {
        vm_state_size: 1 << 30,
        ..QemuSnapshotInfo::named(b"s")
    };
    bdrv_snapshot_create(r("4.2"), &mut host.graph, bs, &mut sn).unwrap();
    host.goto("4.2", 0, b"s").unwrap();
    let mut read = [0xee; 4];
    host.graph
        .driver(bs)
        .unwrap()
        .load_vmstate((1 << 30) - 2, &mut read)
        .unwrap();
    assert_eq!(read, [0; 4]);
}

#[test]
fn vm_state_with_gaps_costs_what_is_in_it_and_no_state_is_longer_than_a_file() {
    let mut host = Host::new(1);
    let bs = host.nodes[0];
    let far = 1 << 42;
    let driver = host.graph.driver(bs).unwrap();
    driver.save_vmstate(far, b"far").unwrap();
    let mut sn = QemuSnapshotInfo {
        vm_state_size: far + 3,
        ..QemuSnapshotInfo::named(b"s")
    };
    bdrv_snapshot_create(r("4.2"), &mut host.graph, bs, &mut sn).unwrap();
    host.goto("4.2", 0, b"s").unwrap();
    let driver = host.graph.driver(bs).unwrap();
    // What the goto brought is copied for this, but for its gap.
    driver.save_vmstate(far - 1, b"n").unwrap();
    let mut back = [0xee; 8];
    driver.load_vmstate(far - 3, &mut back).unwrap();
    assert_eq!(&back, b"\0\0nfar\0\0");
    for at in [i64::MAX as u64, u64::MAX] {
        driver.load_vmstate(at, &mut back).unwrap();
        assert_eq!(back, [0; 8]);
        back.fill(0xee);
        driver.read_at(at, &mut back).unwrap();
        assert_eq!(back, [0; 8]);
    }
    sn.vm_state_size = u64::MAX;
    let made = bdrv_snapshot_create(r("4.2"), &mut host.graph, bs, &mut sn);
    assert_eq!(made.unwrap_err().ret, -e::EFBIG);
}

#[test]
fn vm_state_that_a_goto_brought_stays_when_another_process_deletes_its_snapshot() {
    let mut host = Host::new(1);
    save(&mut host, b"a", 7);
    host.goto("4.2", 0, b"a").unwrap();
    delete_elsewhere(&host, "a");
    assert!(vm_state(&mut host) == vec![7; 50_000]);
}
