//! What a snapshot costs in bytes, counted in the store's folder, and what making and deleting it reads and writes.

mod support;

use std::fs::File;
use std::os::unix::fs::FileExt;
use support::{Dice, Home};

const CLUSTER: u64 = 8192;
const CLUSTERS: u64 = 32 << 10;

fn stored(home: &Home) -> u64 {
    let files = ["packs", "log", "checkpoint"].map(|folder| home.files(folder));
    let len = |path| std::fs::metadata(path).expect("it is there").len();
    files.into_iter().flatten().map(len).sum()
}

#[test]
fn one_percent_of_random_clusters_changed_costs_these_and_a_tenth_more() {
    let (home, mut dice) = (Home::new(), Dice::new(11));
    let file = File::create_new(home.path("a.raw")).expect("a new image");
    let mut write = |cluster: u64| {
        let noise = dice.bytes(CLUSTER as usize);
        let written = file.write_all_at(&noise, cluster * CLUSTER);
        written.expect("it can be written");
    };
    (0..CLUSTERS).for_each(&mut write);
    home.ok(&["device", "add", "a", "a.raw"]);
    home.ok(&["create", "one"]);
    let before = stored(&home);
    // Every hundredth on the average, and none twice: a stride that shares no factor with the number of clusters.
    let changed = CLUSTERS / 100;
    (0..changed).for_each(|n| write((n * 20_011) % CLUSTERS));
    home.ok(&["create", "two"]);
    let grown = stored(&home) - before;
    let least = changed * CLUSTER;
    assert!(
        grown >= least,
        "noise cannot be stored in less: {grown} of {least}"
    );
    assert!(
        grown * 10 <= least * 11,
        "{grown} bytes for {least} that changed"
    );
}

/// What one cluster in the middle that a map names costs on a disk of so many: bytes read, bytes the store grew by, and bytes
/// that it grew by when the snapshot was deleted.
fn one_of(clusters: u64) -> [u64; 3] {
    let (home, mut dice) = (Home::new(), Dice::new(clusters));
    let file = File::create_new(home.path("a.raw")).expect("a new image");
    let noise = dice.bytes((clusters * CLUSTER) as usize);
    file.write_all_at(&noise, 0).expect("it can be written");
    home.ok(&["device", "add", "a", "a.raw"]);
    home.ok(&["create", "one"]);
    let at = clusters / 2 * CLUSTER;
    let cluster = dice.bytes(CLUSTER as usize);
    file.write_all_at(&cluster, at).expect("it can be written");
    let map = serde_json::json!([
        {"start": 0, "length": at, "zero": false, "data": true},
        {"start": at, "length": CLUSTER, "zero": false, "data": false},
        {"start": at + CLUSTER, "length": clusters * CLUSTER - at - CLUSTER, "zero": false, "data": true},
    ]);
    std::fs::write(home.path("map.json"), map.to_string()).expect("a small file");
    let before = stored(&home);
    let made = home.json(&["create", "two", "--changed", "map.json", "--since", "one"]);
    let read = made["snapshots"][0]["read_bytes"].as_u64();
    let with_two = stored(&home);
    home.ok(&["delete", "one"]);
    let deleted = stored(&home) - with_two;
    [read.expect("a number"), with_two - before, deleted]
}

#[test]
fn a_changed_cluster_costs_no_more_on_a_larger_disk_but_for_the_audit_and_a_delete_nothing_more() {
    let (small, large) = (2_000, 16_000);
    let audit = |clusters: u64| (clusters / 100).max(16) * CLUSTER;
    let ([read, grown, deleted], more) = (one_of(small), one_of(large));
    for (read, clusters) in [(read, small), (more[0], large)] {
        let rest = read - CLUSTER;
        assert!(
            rest <= audit(clusters),
            "{rest} bytes read beside the change"
        );
    }
    // A level of the manifest.
    assert!(more[1] <= grown + CLUSTER / 4, "{} after {grown}", more[1]);
    // Numbers take a byte or two more where they are larger.
    assert!(more[2] <= deleted + 64, "{} after {deleted}", more[2]);
}
