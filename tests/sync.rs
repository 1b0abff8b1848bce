//! `still sync`: stores bring each other what one of them lacks, over pipes that break and programs that are killed.

mod support;

use serde_json::Value;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::{Command, Stdio};
use std::thread::sleep;
use std::time::Duration;
use support::{Dice, Home, Ran, finish, make_image, run, scribble};

/// A store with devices `a` and `b` and two groups of both.
fn source(dice: &mut Dice, bytes: u64) -> Home {
    let home = Home::new();
    for device in ["a", "b"] {
        let image = format!("{device}.raw");
        make_image(&home.path(&image), bytes, dice);
        home.ok(&["device", "add", device, &image]);
    }
    home.ok(&["create", "one"]);
    for device in ["a", "b"] {
        scribble(&home.path(&format!("{device}.raw")), dice);
    }
    home.ok(&["create", "two"]);
    home
}

fn folder(home: &Home) -> String {
    home.store().display().to_string()
}

/// Runs a sync whose `ssh` is a shell script: `$2` is the command that is to run over there.
fn command(arguments: &[&str], script: &str, home: &Home) -> Command {
    let path = home.path("fake-ssh");
    fs::write(&path, format!("#!/bin/sh\n{script}\n")).expect("a small file");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).expect("it is ours");
    let mut command = home.command(arguments);
    command
        .env("STILL_SSH", path)
        .env("STILL_REMOTE", env!("CARGO_BIN_EXE_still"));
    command
}

fn over(arguments: &[&str], script: &str, home: &Home) -> Ran {
    run(&mut command(arguments, script, home))
}

/// Everything that `list` says but the devices' images.
fn listed(home: &Home) -> Value {
    home.json(&["list"])
}

#[track_caller]
fn equal(from: &Home, to: &Home) {
    assert_eq!(listed(from), listed(to));
    for (device, name) in from.snapshots() {
        let target = format!("{device}@{name}");
        assert_eq!(from.export(&target), to.export(&target), "{target}");
    }
    to.ok(&["verify"]);
}

const PLAIN: &str = "exec sh -c \"$2\"";

#[test]
fn over_a_path_and_both_ways_over_ssh_the_same_comes_out() {
    let from = source(&mut Dice::announced("sync"), 3 << 20);
    let (path, near) = (Home::new(), Home::new());
    from.ok(&["sync", "store", &folder(&path)]);
    equal(&from, &path);
    let there = format!("ssh:host:{}", folder(&near));
    over(&["sync", "store", &there], PLAIN, &from)
        .code(0)
        .says("");
    equal(&from, &near);
    let back = Home::new();
    let there = format!("ssh:host:{}", folder(&from));
    over(&["sync", &there, "store", "a"], PLAIN, &back).code(0);
    assert_eq!(back.snapshots().len(), 2);
    let dry = over(
        &["--json", "sync", &there, "store", "--dry-run"],
        PLAIN,
        &back,
    )
    .code(0)
    .json();
    assert_eq!(dry["snapshots"].as_array().map(Vec::len), Some(2));
    assert_eq!(back.snapshots().len(), 2, "it was a dry run");
    over(&["sync", &there, "store", "b@two", "b@one"], PLAIN, &back).code(0);
    assert_eq!(back.snapshots().len(), 4);
    back.ok(&["verify"]);
}

#[test]
fn two_per_cent_changed_cost_hardly_more_than_their_clusters() {
    let mut dice = Dice::new(11);
    let from = Home::new();
    let (size, cluster) = (48u64 << 20, 8192);
    make_image(&from.path("a.raw"), size, &mut dice);
    from.ok(&["device", "add", "a", "a.raw"]);
    from.ok(&["create", "one"]);
    let to = Home::new();
    from.ok(&["sync", "store", &folder(&to)]);
    let mut image = fs::read(from.path("a.raw")).expect("the image");
    for _ in 0..size / cluster / 50 {
        let at = (dice.below(size / cluster) * cluster) as usize;
        let half = support::block(dice.next(), cluster as usize);
        image[at..at + cluster as usize].copy_from_slice(&half);
        image[at..at + 4096].copy_from_slice(&dice.bytes(4096));
    }
    fs::write(from.path("a.raw"), &image).expect("the image");
    let made = from.json(&["create", "two"]);
    let stored = made["snapshots"][0]["stored_bytes"]
        .as_u64()
        .expect("a number");
    let synced = from.json(&["sync", "store", &folder(&to)]);
    let sent = synced["sent_bytes"].as_u64().expect("a number");
    assert!(stored > 400_000, "{stored}: nothing to measure");
    assert!(
        sent as f64 <= 1.1 * stored as f64,
        "{sent} bytes for {stored}"
    );
    assert_eq!(synced["hops"], 4, "whatever the number of clusters");
    equal(&from, &to);
}

#[test]
fn cut_off_after_any_number_of_bytes_nothing_is_half_there_and_again_it_finishes() {
    let mut dice = Dice::announced("sync cut");
    let from = source(&mut dice, 2 << 20);
    let (pushed, pulled) = (Home::new(), Home::new());
    let all = from.pack_bytes();
    for round in 0..16 {
        let bytes = match round {
            0..4 => dice.below(400),
            _ => dice.below(all),
        };
        // What comes from the receiver is little.
        let few = bytes.min(300);
        let into = |bytes| format!("{} | sh -c \"$2\"", pass(bytes));
        // The line is down then: nobody else holds its end open.
        let out = |bytes| format!("sh -c \"$2\" | {{ {}; kill $$; }}", pass(bytes));
        let push = if round % 2 == 0 {
            into(bytes)
        } else {
            out(few)
        };
        let there = format!("ssh:host:{}", folder(&pushed));
        let ran = over(&["sync", "store", &there], &push, &from);
        check_half(&ran, &pushed);
        let pull = if round % 2 == 0 {
            out(bytes)
        } else {
            into(few)
        };
        let there = format!("ssh:host:{}", folder(&from));
        let ran = over(&["sync", &there, "store"], &pull, &pulled);
        check_half(&ran, &pulled);
    }
    for to in [&pushed, &pulled] {
        from.ok(&["sync", "store", &folder(to)]);
        equal(&from, to);
    }
}

/// Passes on what comes as it comes, some so many bytes of it: head would hold it back.
fn pass(bytes: u64) -> String {
    format!("dd bs=97 count={} 2>/dev/null", bytes.div_ceil(97))
}

/// All four snapshots or none; without them it must have failed.
#[track_caller]
fn check_half(ran: &Ran, to: &Home) {
    let there = to.snapshots().len();
    assert!(there == 0 || there == 4, "{there} of 4: {}", ran.story());
    assert!(there == 4 || !ran.status.success(), "{}", ran.story());
    assert!(!ran.err.contains("panicked"), "{}", ran.story());
}

#[test]
fn killed_at_any_moment_nothing_is_half_there_and_again_it_finishes() {
    let mut dice = Dice::announced("sync killed");
    let from = source(&mut dice, 4 << 20);
    let (pushed, pulled) = (Home::new(), Home::new());
    let mut killed = [0, 0];
    for round in 0..24 {
        // The one that is killed sends, or receives.
        let there = |home: &Home| format!("ssh:host:{}", folder(home));
        let (mut sync, to) = if round % 2 == 0 {
            let push = ["sync", "store", &there(&pushed)];
            (command(&push, PLAIN, &from), &pushed)
        } else {
            let pull = ["sync", &there(&from), "store"];
            (command(&pull, PLAIN, &pulled), &pulled)
        };
        sync.stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = sync.spawn().expect("the program starts");
        sleep(Duration::from_millis(dice.below(6 * (round + 2))));
        child.kill().expect("it is ours");
        let ran = finish(child, "sync, killed".into());
        killed[round as usize % 2] += usize::from(ran.status.code().is_none());
        let there = to.snapshots().len();
        assert!(there == 0 || there == 4, "{there} of 4");
    }
    assert!(killed[0] > 0 && killed[1] > 0, "{killed:?}: nothing tested");
    for to in [&pushed, &pulled] {
        from.ok(&["sync", "store", &folder(to)]);
        equal(&from, to);
        let left = to.json(&["gc", "--all"]);
        let pinned = &left["pinned_bytes"];
        assert_eq!(*pinned, 0, "the sessions of the killed have ended");
        equal(&from, to);
    }
}

#[test]
fn a_mirror_deletes_what_the_source_deleted() {
    let from = source(&mut Dice::new(12), 2 << 20);
    let to = Home::new();
    from.ok(&["sync", "store", &folder(&to)]);
    from.ok(&["delete", "one"]);
    from.ok(&["sync", "store", &folder(&to)]);
    assert_eq!(to.snapshots().len(), 4);
    let dry = from.json(&["sync", "store", &folder(&to), "--mirror", "--dry-run"]);
    assert_eq!(dry["deleted"].as_array().map(Vec::len), Some(2));
    assert_eq!(to.snapshots().len(), 4);
    from.ok(&["sync", "store", &folder(&to), "--mirror"]);
    equal(&from, &to);
}

#[test]
fn what_cannot_be_is_refused_with_what_to_do() {
    let from = source(&mut Dice::new(13), 1 << 20);
    let other = Home::empty();
    other.ok(&["init", "--cluster-size", "64K"]);
    let there = folder(&other);
    from.run(&["sync", "store", &there])
        .code(1)
        .says("init --cluster-size 8192");
    from.run(&["sync", "store", "store"])
        .code(1)
        .says("both are the same store");
    from.run(&["sync", "store", "nowhere"])
        .code(3)
        .says("nowhere");
    from.run(&["sync", "store", &there, "c"])
        .code(1)
        .says("--cluster-size");
    let to = Home::new();
    from.run(&["sync", "store", &folder(&to), "c"])
        .code(3)
        .says("device \"c\"");
    from.run(&["sync", "store", &folder(&to), "a@one", "--mirror"])
        .code(2)
        .says("as a whole");
    from.run(&["sync", "ssh:a:b", "ssh:c:d"])
        .code(2)
        .says("must be on this host");
    from.run(&["sync", "store", "ssh:-oProxyCommand=touch:x"])
        .code(2)
        .says("dash");
    let gone = over(&["sync", "store", "ssh:host:/nowhere/at/all"], PLAIN, &from);
    gone.code(1).says("ended early").says("/nowhere/at/all");
    let none = over(&["sync", "store", "ssh:host:x"], "exit 255", &from);
    none.code(1).says("ended early");
}

#[test]
fn a_store_of_the_present_version_needs_no_upgrade_and_a_later_one_is_refused() {
    let home = Home::new();
    assert_eq!(home.json(&["upgrade"])["steps"], Value::Array(vec![]));
    let golden = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/v1");
    let mut upgrade = Command::new(env!("CARGO_BIN_EXE_still"));
    upgrade.args(["--json", "--store", golden, "upgrade"]);
    let golden = run(&mut upgrade).code(0).json();
    assert_eq!((&golden["from"], &golden["to"]), (&1.into(), &1.into()));
    let file = home.store().join("store.json");
    let text = fs::read_to_string(&file).expect("a store has it");
    fs::write(&file, text.replace("\"version\": 1", "\"version\": 2")).expect("it is ours");
    let refused = home.run(&["upgrade"]).code(1);
    refused
        .says("format version 2, this program knows up to 1")
        .says("or a later one");
}
