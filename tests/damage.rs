//! Damage to a real store: it is found, named, contained, and what is whole is saved. The index may go at any time.

mod support;

use serde_json::json;
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use support::{Dice, Home, files_below, hash_of, make_image, run, scribble, skip, tool};

type Hash = blake3::Hash;

/// A store with three snapshots of one device.
fn filled() -> (Home, BTreeMap<String, Hash>) {
    let (home, mut dice) = (Home::new(), Dice::new(21));
    let (image, mut known) = (home.path("a.raw"), BTreeMap::new());
    make_image(&image, 3 << 20, &mut dice);
    home.ok(&["device", "add", "a", "a.raw"]);
    for name in ["one", "two", "three"] {
        home.ok(&["create", name]);
        known.insert(name.to_owned(), hash_of(&image));
        (0..4).for_each(|_| scribble(&image, &mut dice));
    }
    (home, known)
}

fn check_all(home: &Home, known: &BTreeMap<String, Hash>) {
    for (name, hash) in known {
        assert_eq!(home.export(&format!("a@{name}")), *hash, "{name}");
    }
}

fn flip(path: &Path, at: u64) {
    let file = File::options().read(true).write(true).open(path);
    let file = file.expect("it is there");
    let mut byte = [0];
    file.read_exact_at(&mut byte, at)
        .expect("it is long enough");
    file.write_all_at(&[byte[0] ^ 0x10], at)
        .expect("it can be written");
}

/// The pack of clusters of the first snapshot.
fn first_pack(home: &Home) -> PathBuf {
    let packs = home.files("packs");
    let len = |p: &PathBuf| fs::metadata(p).expect("it is there").len();
    packs.into_iter().max_by_key(len).expect("there are packs")
}

/// What `verify` says of damage that costs the snapshot `one` something.
fn check_verify(home: &Home, pack: &Path) -> serde_json::Value {
    let verified = home.run(&["--json", "verify"]).code(4).json();
    let damage = verified["damage"].as_array().expect("an array");
    let key = pack.strip_prefix(home.store()).expect("it is in the store");
    let key = key.to_str().expect("a plain path");
    let place = damage.iter().find(|d| {
        let place = d["place"].as_str().expect("text");
        place.ends_with(key)
    });
    let place = place.unwrap_or_else(|| panic!("{key} is not named in {verified}"));
    assert!(place["offset"].is_u64(), "{place}");
    let touched: Vec<_> = damage
        .iter()
        .filter_map(|d| d["touches"].as_array())
        .flatten()
        .filter(|t| t["target"] == "a@one")
        .collect();
    assert!(!touched.is_empty(), "a@one is not named in {verified}");
    assert!(touched.iter().all(|t| t["length"].as_u64() > Some(0)));
    let text = home.run(&["verify"]).code(4);
    assert!(
        text.text().contains("touches a@one: bytes "),
        "{}",
        text.story()
    );
    place.clone()
}

#[test]
fn a_damaged_pack_is_named_and_nothing_wrong_comes_out() {
    let (home, _) = filled();
    let pack = first_pack(&home);
    // Verified before: what it remembers must not hide what comes later.
    home.ok(&["verify"]);
    flip(&pack, 5000);
    home.run(&["export", "a@one", "x.raw"])
        .code(4)
        .says("still verify")
        .says("still rescue");
    let left: Vec<_> = fs::read_dir(home.path("."))
        .expect("our folder")
        .flatten()
        .collect();
    let is_left = |name: &str| name.starts_with("x.raw");
    assert!(
        !left
            .iter()
            .any(|e| is_left(&e.file_name().to_string_lossy()))
    );
    let place = check_verify(&home, &pack);
    assert!(place["offset"].as_u64() <= Some(5000), "{place}");
    let piped = home.run(&["export", "a@one", "-"]).code(4);
    assert!(
        piped.out.len() < 3 << 20,
        "a stream is cut before the damage"
    );
}

#[test]
fn a_pack_that_is_gone_is_named() {
    let (home, _) = filled();
    let pack = first_pack(&home);
    fs::remove_file(&pack).expect("it was there");
    home.run(&["export", "a@one", "x.raw"]).code(4);
    assert!(!home.path("x.raw").exists());
    check_verify(&home, &pack);
    // Nothing is dropped while something is missing.
    let packs = home.files("packs");
    home.run(&["gc", "--all"])
        .code(4)
        .says("nothing was removed");
    assert_eq!(home.files("packs"), packs);
    home.ok(&["list"]);
}

/// Damage to the pack of an image that is still as it was: found, stored again by the next snapshot, and gone with the
/// next gc.
fn check_healing(damage: impl Fn(&Path)) {
    let (home, known) = filled();
    let image = home.path("a.raw");
    home.ok(&["goto", "one"]);
    let pack = first_pack(&home);
    damage(&pack);
    home.run(&["export", "a@one", "x.raw"]).code(4);
    let verified = home.run(&["verify"]).code(4);
    assert!(
        verified.text().contains("still create") && verified.text().contains("still gc"),
        "{}",
        verified.story()
    );
    let made = home.run(&["--json", "create", "again"]).code(0).json();
    assert!(
        made["snapshots"][0]["new_bytes"].as_u64() > Some(0),
        "what was lost is stored again: {made}"
    );
    assert_eq!(home.export("a@again"), hash_of(&image));
    assert_eq!(
        home.export("a@one"),
        known["one"],
        "older ones are healed too"
    );
    home.ok(&["gc"]);
    home.ok(&["verify"]);
    check_all(&home, &known);
}

#[test]
fn damaged_frames_are_healed_by_an_image_that_still_has_what_was_in_them() {
    check_healing(|pack| {
        let len = fs::metadata(pack).expect("it is there").len();
        (1..6).for_each(|n| flip(pack, len * n / 8));
    });
}

#[test]
fn a_damaged_table_is_healed_by_an_image_that_still_has_what_it_listed() {
    check_healing(|pack| {
        let len = fs::metadata(pack).expect("it is there").len();
        flip(pack, len - 64 - 2000);
    });
}

#[test]
fn a_pack_that_is_gone_is_healed_by_an_image_that_still_has_what_was_in_it() {
    check_healing(|pack| fs::remove_file(pack).expect("it was there"));
}

#[test]
fn damage_in_what_only_a_device_without_an_image_still_holds_is_found() {
    let (home, mut dice) = (Home::new(), Dice::new(5));
    make_image(&home.path("a.raw"), 1 << 20, &mut dice);
    home.ok(&["import", "a.raw", "--device", "golden", "--name", "v1"]);
    home.ok(&["delete", "v1", "--device", "golden"]);
    let pack = first_pack(&home);
    let len = fs::metadata(&pack).expect("it is there").len();
    flip(&pack, len / 2);
    let found = home.run(&["verify"]).code(4);
    assert!(
        found.text().contains("touches golden: bytes "),
        "{}",
        found.story()
    );
}

#[test]
fn what_nobody_has_any_more_is_not_thrown_away_with_the_damage() {
    let (home, known) = filled();
    let pack = first_pack(&home);
    let len = fs::metadata(&pack).expect("it is there").len();
    flip(&pack, len / 2);
    let before = check_verify(&home, &pack);
    let image = home.path("a.raw");
    fs::remove_file(&image).expect("it was there");
    make_image(&image, 1 << 20, &mut Dice::new(99));
    home.ok(&["create", "other"]);
    home.ok(&["gc", "--all"]);
    assert_eq!(
        check_verify(&home, &pack),
        before,
        "the pack is still there"
    );
    flip(&pack, len / 2);
    home.ok(&["verify"]);
    check_all(&home, &known);
}

#[test]
fn a_damaged_log_stops_everything_but_rescue_which_saves_all() {
    let (home, known) = filled();
    let logs = home.files("log");
    for entry in [logs.len() / 2, logs.len() - 1] {
        let whole = fs::read(&logs[entry]).expect("it is there");
        flip(&logs[entry], whole.len() as u64 - 3);
        for verb in [&["list"][..], &["create", "no"], &["gc"], &["verify"]] {
            home.run(verb).code(4).says("still rescue").says("log");
        }
        let saved = home.path("saved");
        // Something was damaged, which is said; every disk is whole nevertheless.
        let report = home.run(&["--json", "rescue", "saved"]).code(4).json();
        assert_ne!(report["unreadable"], json!([]));
        let images = report["images"].as_array().expect("an array");
        assert_eq!(images.len(), known.len(), "{report}");
        for image in images {
            assert_eq!(image["missing_bytes"], 0, "{image}");
            let name = image["snapshot"].as_str().expect("text");
            let file = home.path(image["file"].as_str().expect("text"));
            assert_eq!(hash_of(&file), known[name], "{name}");
        }
        fs::remove_dir_all(saved).expect("it was made");
        fs::write(&logs[entry], whole).expect("it can be written");
    }
    check_all(&home, &known);
}

#[test]
fn rescue_of_a_store_without_log_and_checkpoints_saves_all() {
    let (home, known) = filled();
    for entry in home.files("log") {
        fs::remove_file(entry).expect("it was there");
    }
    let report = home.run(&["--json", "rescue", "saved"]).json();
    let images = report["images"].as_array().expect("an array");
    assert_eq!(images.len(), known.len(), "{report}");
    let mut saved: Vec<Hash> = files_below(&home.path("saved"))
        .iter()
        .map(|f| hash_of(f))
        .collect();
    let mut expected: Vec<Hash> = known.values().copied().collect();
    saved.sort_by_key(|h| *h.as_bytes());
    expected.sort_by_key(|h| *h.as_bytes());
    assert_eq!(saved, expected);
}

#[test]
fn rescue_of_a_whole_store_finds_nothing_wrong() {
    let (home, known) = filled();
    let report = home.json(&["rescue", "saved"]);
    assert_eq!(report["unreadable"], json!([]));
    assert_eq!(report["images"].as_array().map(Vec::len), Some(known.len()));
}

#[test]
fn a_store_of_a_newer_version_is_refused_by_name() {
    let (home, _) = filled();
    let path = home.store().join("store.json");
    let text = fs::read_to_string(&path).expect("it is text");
    let mut document: serde_json::Value = serde_json::from_str(&text).expect("it is JSON");
    document["version"] = json!(2);
    // What a newer version keeps there we cannot know: not even that the checksum is made the same way.
    fs::write(&path, document.to_string()).expect("it can be written");
    for verb in [&["list"][..], &["create", "x"], &["gc"]] {
        home.run(verb).code(1).says("version 2");
    }
    let error = home.run(&["--json", "list"]).code(1).json();
    assert_eq!(error["error"]["kind"], "unsupported");
}

#[test]
fn a_damaged_store_file_is_corruption_and_rescue_does_without() {
    let (home, known) = filled();
    let path = home.store().join("store.json");
    let whole = fs::read(&path).expect("it is there");
    let text = String::from_utf8_lossy(&whole).replace("_bytes\": ", "_bytes\": 1");
    for bytes in [text.as_bytes(), b"", &whole[..whole.len() / 2], b"\xff\xfe"] {
        fs::write(&path, bytes).expect("it can be written");
        home.run(&["list"]).code(4).says("store.json");
    }
    let report = home.run(&["--json", "rescue", "saved"]).code(4).json();
    for image in report["images"].as_array().expect("an array") {
        assert_eq!(image["missing_bytes"], 0, "{report}");
    }
    fs::write(&path, &whole).expect("it can be written");
    check_all(&home, &known);
    fs::remove_file(&path).expect("it was there");
    home.run(&["list"]).says("there is no store here");
}

#[test]
fn the_index_may_be_deleted_filled_with_garbage_or_be_another_stores() {
    let ((home, mut known), (other, _)) = (filled(), filled());
    let (local, image) = (home.store().join("local"), home.path("a.raw"));
    let mut dice = Dice::new(2);
    for (nth, harm) in ["deleted", "garbage", "cut", "another", "rolled back"]
        .into_iter()
        .enumerate()
    {
        let kept = home.path("kept");
        copy_folder(&local, &kept);
        let name = format!("more{nth}");
        scribble(&image, &mut dice);
        home.ok(&["create", &format!("before-{name}")]);
        known.insert(format!("before-{name}"), hash_of(&image));
        for file in files_below(&local)
            .iter()
            .filter(|f| !f.ends_with("index-0.lock"))
        {
            match harm {
                "garbage" => fs::write(file, dice.bytes(5000)),
                "cut" => fs::metadata(file).and_then(|m| {
                    let file = File::options().write(true).open(file)?;
                    file.set_len(m.len() / 2)
                }),
                _ => fs::remove_file(file),
            }
            .expect("it can be harmed");
        }
        match harm {
            "another" => copy_folder(&other.store().join("local"), &local),
            "rolled back" => copy_folder(&kept, &local),
            _ => {}
        }
        // Something that no other snapshot has, so that the index must be asked.
        let file = File::options()
            .write(true)
            .open(&image)
            .expect("it is there");
        file.write_all_at(&dice.bytes(100_000), 1 << 20)
            .expect("it can be written");
        let ran = home.ok(&["create", &name]);
        known.insert(name, hash_of(&image));
        assert!(!ran.err.contains("error"), "{harm}: {}", ran.story());
        let lines = ran.err.lines().count();
        assert!(lines <= 1, "{harm}: more than a line: {}", ran.story());
        if harm != "rolled back" {
            assert!(
                ran.err.contains("index"),
                "{harm} and nothing said: {}",
                ran.story()
            );
        }
        let quiet = home.ok(&["create", &format!("quiet{nth}")]);
        known.insert(format!("quiet{nth}"), hash_of(&image));
        assert_eq!(quiet.err, "", "{harm}: it is said once");
        let newest = format!("a@more{nth}");
        assert_eq!(home.export(&newest), known[&newest[2..]], "{harm}");
        fs::remove_dir_all(kept).expect("it was made");
    }
    home.ok(&["gc", "--all"]);
    home.ok(&["rebuild-index"]);
    home.ok(&["verify"]);
    check_all(&home, &known);
}

fn copy_folder(from: &Path, to: &Path) {
    for file in files_below(from) {
        let target = to.join(file.strip_prefix(from).expect("it is below"));
        fs::create_dir_all(target.parent().expect("it has one")).expect("a folder");
        fs::copy(file, target).expect("it can be copied");
    }
}

#[test]
fn a_store_that_cannot_be_written_can_be_read() {
    let test = "a_store_that_cannot_be_written_can_be_read";
    let (home, known) = filled();
    let still = env!("CARGO_BIN_EXE_still");
    let script = format!(
        "set -e; mount --bind store store; mount -o remount,ro,bind store\n\
         '{still}' --store store list; '{still}' --store store export a@one out.raw\n\
         '{still}' --store store verify; '{still}' --store store show a@one\n\
         '{still}' --store store stats; '{still}' --store store diff a@one a@two\n\
         set +e; for verb in 'create x' 'goto one' 'delete one' 'gc' 'import a.raw --device i'; do\n\
         '{still}' --store store $verb; echo \"exit $?\"; done"
    );
    let mut unshare = tool("unshare");
    let rootless = !support::is_root();
    unshare.args(rootless.then_some("--map-root-user"));
    unshare
        .args(["--mount", "bash", "-c", &script])
        .current_dir(home.path("."));
    let mut probe = tool("unshare");
    probe.args(rootless.then_some("--map-root-user"));
    if !run(probe.args(["--mount", "true"])).status.success() {
        return skip(test, "no mount namespaces here");
    }
    let ran = run(&mut unshare).code(0);
    let refused = ran.text().lines().filter(|line| *line == "exit 1").count();
    assert_eq!(refused, 5, "{}", ran.story());
    assert_eq!(
        ran.err.matches("cannot be written").count(),
        5,
        "{}",
        ran.story()
    );
    assert_eq!(hash_of(&home.path("out.raw")), known["one"]);
    assert_eq!(home.snapshots().len(), known.len());
}
