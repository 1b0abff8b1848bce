//! Images that move, vanish or are given up: the device and its snapshots outlive them.

mod support;

use std::fs;
use support::{Dice, Home, hash_of, make_image};

fn with_two_devices() -> Home {
    let home = Home::new();
    for (name, seed) in [("a", 7), ("b", 8)] {
        let image = format!("{name}.raw");
        make_image(&home.path(&image), 1 << 20, &mut Dice::new(seed));
        home.ok(&["device", "add", name, &image]);
    }
    home.ok(&["create", "one"]);
    home
}

#[test]
fn a_vanished_image_is_named_with_its_device_and_two_ways_out() {
    let home = with_two_devices();
    let hash = hash_of(&home.path("b.raw"));
    fs::rename(home.path("b.raw"), home.path("moved.raw")).expect("it was there");
    for arguments in [&["create", "two"][..], &["goto", "one"]] {
        home.run(arguments)
            .code(1)
            .says("device \"b\"")
            .says("No such file")
            .says("still device attach b IMAGE")
            .says("still device detach b");
    }
    home.ok(&["device", "attach", "b", "moved.raw"]);
    home.ok(&["create", "two"]);
    assert_eq!(home.export("b@two"), hash);
    fs::remove_file(home.path("moved.raw")).expect("it was there");
    home.ok(&["device", "detach", "b"]);
    // The others are not held up, and the snapshots are all there.
    home.ok(&["create", "three"]);
    assert_eq!(home.export("b@one"), hash);
    home.run(&["export", "b", "x.raw"])
        .code(2)
        .says("only snapshots");
    home.run(&["device", "detach", "b"])
        .code(2)
        .says("no image");
    // On from there without an image, or with a new one.
    home.ok(&["goto", "one", "--device", "b"]);
    assert_eq!(home.export("b"), hash);
    fs::write(home.path("new.raw"), b"anything").expect("a small file");
    home.ok(&["device", "attach", "b", "new.raw"]);
    home.ok(&["goto", "one"]);
    assert_eq!(hash_of(&home.path("new.raw")), hash);
    home.ok(&["verify"]);
}

#[test]
fn a_change_map_of_the_old_image_says_nothing_of_the_new_one() {
    let home = with_two_devices();
    make_image(&home.path("c.raw"), 1 << 20, &mut Dice::new(9));
    home.ok(&["device", "attach", "a", "c.raw"]);
    let map = r#"[{"start":0,"length":4096,"data":false,"zero":false},
        {"start":4096,"length":1044480,"data":true,"zero":false}]"#;
    fs::write(home.path("map.json"), map).expect("a small file");
    home.ok(&["create", "two", "--device", "a", "--changed", "map.json"])
        .says("everything is read");
    assert_eq!(home.export("a@two"), hash_of(&home.path("c.raw")));
}

#[test]
fn one_image_is_one_device_by_whatever_name() {
    let home = with_two_devices();
    fs::hard_link(home.path("a.raw"), home.path("hard.raw")).expect("a hard link");
    for arguments in [
        &["device", "add", "c", "hard.raw"][..],
        &["device", "attach", "b", "hard.raw"],
        &["device", "attach", "b", "a.raw"],
    ] {
        home.run(arguments)
            .code(1)
            .says("its image is that of device \"a\"");
    }
    home.ok(&["device", "attach", "a", "hard.raw"]);
    home.run(&["device", "attach", "nobody", "a.raw"]).code(3);
    home.run(&["device", "attach", "b", "nowhere.raw"]).code(1);
}
