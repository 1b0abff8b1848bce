//! `still volume`: clones of a golden image, sizes, the end of a volume, and what scripts are told.

mod support;

use support::{Dice, Home, hash_of, make_image};

/// A store with a golden image.
fn golden() -> Home {
    let home = Home::new();
    make_image(&home.path("golden.raw"), 3 << 20, &mut Dice::new(5));
    let import = ["import", "golden.raw", "--device", "golden", "--name", "v1"];
    home.ok(&import);
    home
}

fn state(home: &Home, name: &str) -> Option<(bool, u64)> {
    let list = home.json(&["device", "list"]);
    let devices = list["devices"].as_array().expect("a list").clone();
    let found = devices.into_iter().find(|d| d["name"] == name)?;
    Some((found["volume"] == true, found["size_bytes"].as_u64()?))
}

#[test]
fn clones_cost_no_pack_and_hold_what_the_golden_image_does() {
    let home = golden();
    let (bytes, hash) = (home.pack_bytes(), hash_of(&home.path("golden.raw")));
    let from = ["volume", "create", "vm1", "--from", "golden@v1"];
    let told = home.json(&from);
    assert_eq!(told["action"], "created");
    assert_eq!(told["size_bytes"], 3 << 20);
    assert_eq!(
        home.ok(&["volume", "create", "vm2", "--from", "vm1"])
            .text()
            .trim_end(),
        "created vm2: 3.0 MiB from vm1"
    );
    assert_eq!(home.pack_bytes(), bytes, "clones store nothing");
    assert_eq!(state(&home, "vm2"), Some((true, 3 << 20)));
    assert_eq!(state(&home, "golden"), Some((false, 3 << 20)));
    assert!(home.export("vm2") == hash);
    home.ok(&["create", "monday"]);
    assert!(home.export("vm1@monday") == hash);
    // The golden image may go: its clones stay.
    home.ok(&["delete", "v1"]);
    home.ok(&["device", "remove", "golden"]);
    home.ok(&["delete", "monday"]);
    home.ok(&["gc", "--all"]);
    assert!(home.export("vm2") == hash);
    home.ok(&["verify"]);
}

#[test]
fn a_volume_is_resized_gone_back_with_and_removed() {
    let home = golden();
    home.ok(&["volume", "create", "data", "--size", "1T"]);
    home.ok(&["create", "empty", "--device", "data"]);
    assert_eq!(
        home.ok(&["volume", "resize", "data", "2M"])
            .text()
            .trim_end(),
        "resized data: 2.0 MiB"
    );
    assert_eq!(state(&home, "data"), Some((true, 2 << 20)));
    home.ok(&["goto", "empty", "--device", "data"]);
    assert_eq!(state(&home, "data"), Some((true, 1 << 40)));
    assert_eq!(
        home.ok(&["volume", "remove", "data"]).text().trim_end(),
        "removed all but snapshots of data"
    );
    assert_eq!(state(&home, "data"), Some((false, 1 << 40)));
    home.ok(&["delete", "empty"]);
    home.ok(&["device", "remove", "data"]);
    home.ok(&["volume", "create", "data", "--size", "64K"]);
    assert_eq!(
        home.ok(&["volume", "remove", "data"]).text().trim_end(),
        "removed data"
    );
    assert_eq!(state(&home, "data"), None);
}

#[test]
fn a_volume_is_handed_over_and_taken() {
    let home = golden();
    home.ok(&["volume", "create", "vm1", "--from", "golden"]);
    home.ok(&["volume", "move", "vm1"]);
    // Whoever uses it next has it.
    home.ok(&["create", "one", "--device", "vm1"]);
    // A store whose `local` was left behind, as by a sync to another host.
    std::fs::remove_dir_all(home.store().join("local")).expect("it was there");
    home.run(&["create", "two", "--device", "vm1"])
        .code(1)
        .says("still volume move vm1 --take");
    let refused = home.run(&["create", "two", "--device", "vm1", "--json"]);
    assert_eq!(refused.code(1).json()["error"]["kind"], "refused");
    home.ok(&["volume", "move", "vm1", "--take"]);
    home.ok(&["create", "two", "--device", "vm1"]);
    assert!(home.export("vm1@two") == hash_of(&home.path("golden.raw")));
}

#[test]
fn what_is_no_volume_and_what_is_one_are_told_apart() {
    let home = golden();
    home.ok(&["volume", "create", "vm1", "--from", "golden@v1"]);
    home.run(&["volume", "resize", "golden", "1M"])
        .code(2)
        .says("still volume create");
    home.run(&["volume", "create", "vm1", "--size", "1M"])
        .code(1)
        .says("already");
    home.run(&["volume", "create", "x", "--from", "nobody"])
        .code(3);
    home.run(&["device", "remove", "vm1"])
        .code(1)
        .says("still volume remove");
    home.run(&["import", "golden.raw", "--device", "vm1"])
        .code(1)
        .says("it is a volume");
}
