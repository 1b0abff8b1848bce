//! What the program says of sizes, groups and deleted snapshots is true, and the same everywhere.

mod support;

use serde_json::Value;
use std::fs;
use support::{Dice, Home, make_image};

fn image(home: &Home, name: &str, seed: u64) {
    fs::write(home.path(name), Dice::new(seed).bytes(1 << 20)).expect("a small file");
}

fn number(value: &Value) -> u64 {
    value
        .as_u64()
        .unwrap_or_else(|| panic!("{value} is no number"))
}

#[test]
fn stats_and_a_dry_run_of_delete_say_what_gc_then_frees() {
    let home = Home::new();
    image(&home, "a.raw", 1);
    home.ok(&["device", "add", "a", "a.raw"]);
    for (name, seed) in [("one", 1), ("two", 2), ("three", 3)] {
        image(&home, "a.raw", seed);
        home.ok(&["create", name]);
    }
    home.ok(&["delete", "one"]);
    let stats = home.json(&["stats", "a@two"]);
    let dry = home.json(&["delete", "two", "--dry-run"]);
    let alone = number(&stats["freed_if_deleted_bytes"]);
    assert_eq!(stats["targets"][0]["freed_if_deleted_bytes"], alone);
    assert_eq!(number(&dry["reclaimable_bytes"]), alone);
    assert!(number(&stats["dead_bytes"]) > 1 << 19, "{stats}");
    home.ok(&["gc", "--all"]);
    let before = home.pack_bytes();
    home.ok(&["delete", "two"]);
    home.ok(&["gc", "--all"]);
    assert_eq!(before - home.pack_bytes(), alone);
    home.ok(&["import", "a.raw", "--device", "i", "--name", "x"]);
    let head = home.json(&["stats", "i"]);
    assert_eq!(head["targets"][0]["freed_if_deleted_bytes"], Value::Null);
    assert_eq!(head["freed_if_deleted_bytes"], Value::Null);
}

#[test]
fn an_attached_device_has_a_size_as_long_as_anybody_knows_it() {
    let home = Home::new();
    image(&home, "a.raw", 1);
    home.ok(&["device", "add", "a", "a.raw"]);
    let size = |home: &Home| home.json(&["device", "list"])["devices"][0]["size_bytes"].clone();
    assert_eq!(size(&home), 1 << 20);
    home.ok(&["create", "one"]);
    fs::remove_file(home.path("a.raw")).expect("it was there");
    assert_eq!(size(&home), 1 << 20);
    assert_eq!(home.json(&["show", "a"])["device"]["size_bytes"], 1 << 20);
    home.ok(&["delete", "one"]);
    assert_eq!(size(&home), Value::Null);
}

#[test]
fn rescue_says_what_had_been_deleted_and_mixes_with_nothing() {
    let home = Home::new();
    make_image(&home.path("a.raw"), 1 << 20, &mut Dice::new(7));
    home.ok(&["device", "add", "a", "a.raw"]);
    for name in ["one", "two", "three"] {
        home.ok(&["create", name]);
    }
    home.ok(&["delete", "two"]);
    let saved = home.json(&["rescue", "saved"]);
    let images = saved["images"].as_array().expect("an array");
    let seen: Vec<(&str, bool)> = images
        .iter()
        .map(|i| {
            let name = i["snapshot"].as_str().expect("text");
            (name, i["unlisted"].as_bool().expect("yes or no"))
        })
        .collect();
    assert_eq!(seen, [("one", false), ("two", true), ("three", false)]);
    home.run(&["rescue", "saved"])
        .code(1)
        .says("the folder is not empty")
        .says("hint: ");
}

#[test]
fn snapshots_of_one_operation_show_one_group() {
    let home = Home::new();
    for (name, seed) in [("a", 1), ("b", 2)] {
        let file = format!("{name}.raw");
        image(&home, &file, seed);
        home.ok(&["device", "add", name, &file]);
    }
    home.ok(&["create", "one"]);
    home.ok(&["create", "two"]);
    let list = home.ok(&["list"]);
    let groups: Vec<&str> = list
        .text()
        .lines()
        .filter_map(|line| line.split_whitespace().last())
        .collect();
    assert_eq!(groups[0], "GROUP");
    assert_eq!((groups[1], groups[2]), (groups[3], groups[4]));
    assert_ne!(groups[1], groups[2]);
}

#[test]
fn a_head_that_keeps_what_was_deleted_is_named() {
    let home = Home::new();
    image(&home, "a.raw", 1);
    home.ok(&["device", "add", "a", "a.raw"]);
    home.ok(&["import", "a.raw", "--device", "i", "--name", "x"]);
    home.ok(&["create", "y"]);
    // goto of all that is attached is not refused for one that is not.
    assert_eq!(
        home.json(&["find", "y"])["missing_on"],
        serde_json::json!([])
    );
    let found = home.json(&["find", "x"]);
    assert_eq!(found["missing_on"], serde_json::json!(["a"]));
    let deleted = home.json(&["delete", "x"]);
    assert_eq!(deleted["kept_by_heads"], serde_json::json!(["i"]));
    assert_eq!(
        home.json(&["delete", "y"])["kept_by_heads"],
        serde_json::json!([])
    );
    home.ok(&["device", "remove", "i"]);
}

#[test]
fn hints_fit_what_is_in_the_way() {
    let home = Home::new();
    image(&home, "a.raw", 1);
    home.ok(&["import", "a.raw", "--device", "i", "--name", "x"]);
    fs::create_dir(home.path("folder")).expect("a new folder");
    for (file, code, words) in [
        ("folder", 2, "name a new file in it"),
        ("/dev/null", 2, "standard output"),
        ("nodir/x", 1, "make the folder first"),
    ] {
        let ran = home.run(&["export", "i@x", file]).code(code).says(words);
        assert!(!ran.err.contains("still-part"), "{}", ran.story());
    }
    home.run(&["import", "a.raw", "--device", "j", "--snapshots", "foo,all"])
        .code(3)
        .says("foo");
}

#[test]
fn arguments_that_are_no_text_are_usage_or_a_path() {
    use std::ffi::OsStr;
    use std::os::unix::ffi::OsStrExt;
    let home = Home::new();
    let odd = OsStr::from_bytes(b"a\xff.raw");
    fs::write(home.path("a.raw"), Dice::new(1).bytes(4096)).expect("a small file");
    fs::rename(home.path("a.raw"), home.path("").join(odd)).expect("any bytes will do");
    support::run(home.command(&["create"]).arg(odd)).code(2);
    support::run(home.command(&["device", "add", "a"]).arg(odd)).code(0);
    home.ok(&["create", "one"]);
    home.ok(&["verify"]);
}

#[test]
fn the_demo_runs_to_its_end() {
    let home = Home::empty();
    image(&home, "a.raw", 1);
    let tour = home.json(&["demo", "a.raw"]);
    let steps = tour["steps"].as_array().expect("an array");
    let last = steps.last().expect("it has steps");
    assert_eq!(last["command"], "still stats");
    assert_eq!(last["report"]["snapshots"], 2);
}
