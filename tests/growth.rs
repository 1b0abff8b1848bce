//! What a snapshot costs in bytes, counted in the store's folder.

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
