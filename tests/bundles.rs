//! `still send`, `receive` and `summary`: snapshots in one file, between stores that cannot talk.

mod support;

use serde_json::Value;
use std::fs;
use std::process::Stdio;
use support::{Dice, Home, Ran, finish, make_image, scribble};

/// A store with devices `a` and `b`, two groups of both, the second with VM state, and a path for bundles.
fn source(dice: &mut Dice) -> Home {
    let home = Home::new();
    for device in ["a", "b"] {
        let image = format!("{device}.raw");
        make_image(&home.path(&image), 3 << 20, dice);
        home.ok(&["device", "add", device, &image]);
    }
    home.ok(&["create", "one"]);
    for device in ["a", "b"] {
        scribble(&home.path(&format!("{device}.raw")), dice);
    }
    fs::write(home.path("ram"), dice.bytes(300_000)).expect("a small file");
    let vm = [
        "--vm-state",
        "ram",
        "--vm-clock",
        "61000000000",
        "--icount",
        "77",
    ];
    home.ok(&[&["create", "two"][..], &vm].concat());
    home
}

/// Sends to a file, which every other home can read.
#[track_caller]
fn send(home: &Home, file: &str, arguments: &[&str]) -> (String, Value) {
    let path = home.path(file).display().to_string();
    let sent = home.json(&[&["send"], arguments, &["--output", &path]].concat());
    (path, sent)
}

/// What tells one snapshot from another, without what belongs to the device here.
fn record(home: &Home, target: &str) -> Value {
    let mut shown = home.json(&["show", target]);
    let fields = shown.as_object_mut().expect("an object");
    fields.remove("device");
    shown
}

const ALL: [&str; 4] = ["a@one", "b@one", "a@two", "b@two"];

#[track_caller]
fn equal(from: &Home, to: &Home, targets: &[&str]) {
    for target in targets {
        assert_eq!(record(from, target), record(to, target), "{target}");
        assert_eq!(from.export(target), to.export(target), "{target}");
    }
    to.ok(&["verify"]);
}

#[test]
fn a_bundle_carries_records_disks_and_vm_state() {
    let from = source(&mut Dice::announced("bundles"));
    let (bundle, sent) = send(&from, "all", &ALL);
    let to = Home::new();
    let received = to.json(&["receive", &bundle]);
    assert_eq!(sent["clusters"], received["clusters"]);
    assert_eq!(received["snapshots"].as_array().map(Vec::len), Some(4));
    equal(&from, &to, &ALL);
    let state = |home: &Home| home.ok(&["export", "--vm-state", "a@two", "-"]).out;
    assert_eq!(state(&from), state(&to));
    assert_eq!(state(&to), fs::read(from.path("ram")).expect("it is there"));
    let again = to.json(&["receive", &bundle]);
    assert_eq!(
        (&again["already"], &again["clusters"]),
        (&4.into(), &0.into())
    );
}

/// One program's output as another's input.
fn piped(from: &Home, send: &[&str], to: &Home, receive: &[&str]) -> (Ran, Ran) {
    let mut sender = from.command(send);
    sender.stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut sender = sender.spawn().expect("the program starts");
    let pipe = sender.stdout.take().expect("it is piped");
    let mut receiver = to.command(receive);
    receiver
        .stdin(pipe)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let receiver = receiver.spawn().expect("the program starts");
    let received = finish(receiver, "receive".into());
    (finish(sender, "send".into()), received)
}

#[test]
fn through_a_pipe_only_what_changed_moves() {
    let mut dice = Dice::new(5);
    let from = source(&mut dice);
    let to = Home::new();
    let (sent, received) = piped(&from, &["send", "a@one"], &to, &["receive"]);
    sent.code(0).says("sent a@one: ");
    received.code(0);
    let (bundle, later) = send(&from, "later", &["a@two", "--since", "a@one"]);
    let size = fs::metadata(&bundle).expect("it was written").len();
    assert_eq!(later["bundle_bytes"], size);
    let stored = later["cluster_bytes"].as_u64().expect("a number");
    assert!(
        size < stored + stored / 10 + 8000,
        "{size} bytes for {stored}"
    );
    to.ok(&["receive", &bundle]);
    equal(&from, &to, &["a@one", "a@two"]);
    // The other device's first state was never sent.
    let refused = Home::new();
    refused
        .run(&["receive", &bundle])
        .code(1)
        .says("it builds on a@one")
        .says("without --since");
    assert!(refused.snapshots().is_empty());
}

#[test]
fn a_summary_moves_what_is_missing_between_stores_without_a_common_snapshot() {
    let mut dice = Dice::new(6);
    let from = source(&mut dice);
    let to = Home::new();
    fs::copy(from.path("a.raw"), to.path("x.raw")).expect("a copy");
    to.ok(&["import", "x.raw", "--device", "x", "--name", "same"]);
    to.ok(&["summary", "--output", "to.sum"]);
    let summary = to.path("to.sum").display().to_string();
    let (bundle, sent) = send(&from, "for", &["a@two", "--for", &summary]);
    let state = from.cluster_bytes();
    assert_eq!(
        sent["clusters"],
        300_000u64.div_ceil(state),
        "only the VM state is new there"
    );
    to.ok(&["receive", &bundle]);
    equal(&from, &to, &["a@two"]);
}

#[test]
fn what_a_summary_hid_is_named_and_sent_after() {
    let from = source(&mut Dice::new(7));
    let to = Home::new();
    fs::copy(from.path("a.raw"), to.path("x.raw")).expect("a copy");
    to.ok(&["import", "x.raw", "--device", "x", "--name", "same"]);
    to.ok(&["summary", "--output", "to.sum"]);
    // By the time that the bundle comes, all of it has gone.
    to.ok(&["delete", "same"]);
    to.ok(&["device", "remove", "x"]);
    to.ok(&["gc", "--all"]);
    let summary = to.path("to.sum").display().to_string();
    let (bundle, _) = send(&from, "for", &["a@two", "--for", &summary]);
    to.run(&["receive", &bundle])
        .code(1)
        .says("neither here nor in the bundle")
        .says("--need FILE");
    assert!(to.snapshots().is_empty());
    to.run(&["receive", &bundle, "--need", "need"])
        .code(1)
        .says("with --for need");
    let need = to.path("need").display().to_string();
    let (second, _) = send(&from, "second", &["a@two", "--for", &need]);
    to.ok(&["receive", &second]);
    equal(&from, &to, &["a@two"]);
}

#[test]
fn a_bundle_that_is_cut_or_damaged_leaves_nothing_and_again_it_finishes() {
    let mut dice = Dice::announced("bundles cut");
    let from = source(&mut dice);
    let (path, _) = send(&from, "all", &ALL);
    let good = fs::read(&path).expect("it was written");
    let to = Home::new();
    for round in 0..24 {
        let at = dice.below(good.len() as u64) as usize;
        let mut bad = good.clone();
        if round % 2 == 0 {
            bad.truncate(at);
        } else {
            bad[at] ^= 1 << dice.below(8);
        }
        fs::write(to.path("bad"), &bad).expect("a file");
        let ran = to.run(&["receive", "bad"]);
        // Of the preamble a flipped byte may be the version or the cluster size.
        let code = ran.status.code();
        assert!(
            code == Some(4) || (at < 64 && code == Some(1)),
            "{at}: {}",
            ran.story()
        );
        assert!(to.snapshots().is_empty(), "byte {at}");
    }
    to.ok(&["receive", &path]);
    equal(&from, &to, &ALL);
}

#[test]
fn names_that_are_taken_and_stores_that_do_not_fit_are_refused_with_what_to_do() {
    let from = source(&mut Dice::new(8));
    let (bundle, _) = send(&from, "one", &["a@one"]);
    let to = Home::new();
    fs::copy(from.path("b.raw"), to.path("a.raw")).expect("a copy");
    to.ok(&["device", "add", "a", "a.raw"]);
    to.run(&["receive", &bundle])
        .code(1)
        .says("there is another device \"a\"")
        .says("--as a=NAME");
    to.ok(&["receive", &bundle, "--as", "a=a-old"]);
    assert_eq!(from.export("a@one"), to.export("a-old@one"));
    let other = Home::empty();
    other.ok(&["init", "--cluster-size", "64K"]);
    other
        .run(&["receive", &bundle])
        .code(1)
        .says("init --cluster-size 8192");
    other.ok(&["summary", "-o", "sum"]);
    let summary = other.path("sum").display().to_string();
    let refused = from.run(&["send", "a@one", "--for", &summary, "-o", "never"]);
    refused.code(1).says("init --cluster-size 8192");
    assert!(!from.path("never").exists());
    for (arguments, code, says) in [
        (&["send", "a", "-o", "x"][..], 2, "names no snapshot"),
        (&["send", "a@none", "-o", "x"], 3, "no such snapshot"),
        (
            &["send", "a@one", "--since", "b", "-o", "x"],
            2,
            "names no snapshot",
        ),
        (&["send", "a@one", "-o", "one"], 1, "exists"),
        (&["receive", "a.raw"], 4, "magic number is wrong"),
        (&["receive", "nowhere"], 1, "opening the bundle"),
    ] {
        from.run(arguments).code(code).says(says);
    }
    assert!(!from.path("x").exists(), "an error leaves no file");
}
