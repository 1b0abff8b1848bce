//! SIGKILL, at any moment, of the real program on one store that lives through all rounds: what was acknowledged is
//! there bit for bit, what was not is absent or whole, never half there.
//!
//! 200 rounds of all verbs, and 200 of groups of five; 1000 with `STILL_ROUNDS=full`; any number with `STILL_ROUNDS=<n>`.

mod support;

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use std::process::{Child, Stdio};
use std::thread::sleep;
use std::time::Duration;
use support::{Dice, Home, Ran, finish, hash_of, make_image, scribble};

const DEVICES: [&str; 3] = ["a", "b", "c"];
const FIVE: [&str; 5] = ["a", "b", "c", "d", "e"];
const SNAPSHOTS_MAX: usize = 24;

type Hash = blake3::Hash;

/// What the store must hold.
struct Model {
    home: Home,
    devices: &'static [&'static str],
    /// Only snapshots of all devices, and gotos of all.
    only_groups: bool,
    dice: Dice,
    /// (device, name) of every snapshot, and what it holds.
    snapshots: BTreeMap<(String, String), Hash>,
    names: u64,
    /// How often each thing was really met, to see that the test tests.
    met: BTreeMap<&'static str, u64>,
}

/// A verb that is run and perhaps killed.
struct Deed {
    verb: &'static str,
    arguments: Vec<String>,
    /// Snapshots that are there afterwards, all or none.
    adds: Vec<((String, String), Hash)>,
    /// Snapshots that are gone afterwards, all or none.
    removes: Vec<(String, String)>,
    /// Devices whose images hold what the model says of this snapshot afterwards, all or none.
    goes: Option<(String, Vec<&'static str>)>,
}

impl Deed {
    fn new(verb: &'static str, arguments: &[&str]) -> Self {
        let arguments = std::iter::once(verb).chain(arguments.iter().copied());
        Self {
            verb,
            arguments: arguments.map(Into::into).collect(),
            adds: vec![],
            removes: vec![],
            goes: None,
        }
    }
}

#[test]
fn a_killed_program_loses_nothing_that_it_acknowledged() {
    let model = Model::new(Dice::announced("kill"), &DEVICES, false);
    let met = ["killed", "acknowledged", "goto cut off"];
    live(model, "kill", &["rounds"], &met);
}

#[test]
fn a_group_of_five_is_made_or_not_and_one_cut_off_on_its_way_back_can_go_on_or_return() {
    let model = Model::new(Dice::announced("kill five"), &FIVE, true);
    let met = [
        "killed",
        "create killed",
        "create all made",
        "create none made",
        "goto cut off",
        "goto not begun",
        "goto --finish",
        "goto --undo",
    ];
    // Only a create or goto that did not end by itself is a round.
    live(model, "kill five", &["create killed", "goto killed"], &met);
}

/// Rounds of a model until so many were what counts. They must have met what is named.
fn live(mut model: Model, test: &str, counts: &[&str], must_meet: &[&str]) {
    let rounds = match std::env::var("STILL_ROUNDS").as_deref() {
        Ok("full") => 1000,
        Ok(rounds) => rounds.parse().expect("STILL_ROUNDS is full or a number"),
        Err(_) => 200,
    };
    let met = |model: &Model, what: &&str| model.met.get(*what).copied().unwrap_or_default();
    while counts.iter().map(|what| met(&model, what)).sum::<u64>() < rounds {
        model.round();
        if met(&model, &"rounds").is_multiple_of(20) {
            model.home.ok(&["verify"]);
        }
    }
    model.check_all();
    model.check_space();
    eprintln!("{test}: {rounds} rounds met {:?}", model.met);
    for what in must_meet {
        let met = rounds < 200 || model.met.contains_key(what);
        assert!(met, "never {what}: nothing tested");
    }
}

impl Model {
    fn new(mut dice: Dice, devices: &'static [&'static str], only_groups: bool) -> Self {
        let home = Home::new();
        for device in devices {
            let image = home.path(&format!("{device}.raw"));
            make_image(&image, (4 + dice.below(5)) << 20, &mut dice);
            home.ok(&["device", "add", device, &format!("{device}.raw")]);
        }
        let mut model = Self {
            home,
            devices,
            only_groups,
            dice,
            snapshots: BTreeMap::new(),
            names: 0,
            met: BTreeMap::new(),
        };
        let first = model.create(devices);
        model.do_whole(&first);
        model
    }

    fn round(&mut self) {
        self.meet("rounds");
        for device in self.devices {
            if self.dice.one_in(2) {
                let image = self.image(device);
                scribble(&image, &mut self.dice);
            }
        }
        let deed = self.choose();
        let before = self.images();
        let ran = self.run_and_kill(&deed);
        let acknowledged = ran.status.success() || !ran.out.is_empty();
        let killed = ran.status.code().is_none();
        assert!(acknowledged || killed, "it failed: {}", ran.story());
        self.meet(if killed { "killed" } else { "acknowledged" });
        match deed.verb {
            "create" if killed => self.meet("create killed"),
            "goto" if killed => self.meet("goto killed"),
            _ => {}
        }
        self.settle(&deed, acknowledged);
        if let Some((name, devices)) = &deed.goes {
            self.settle_goto(name, devices, &before, acknowledged);
        } else {
            assert_eq!(before, self.images(), "{} wrote to an image", deed.verb);
        }
        let known: Vec<_> = self.snapshots.keys().cloned().collect();
        let one = self.dice.pick(&known).clone();
        self.check_one(&one);
    }

    fn meet(&mut self, what: &'static str) {
        *self.met.entry(what).or_default() += 1;
    }

    fn image(&self, device: &str) -> PathBuf {
        self.home.path(&format!("{device}.raw"))
    }

    fn images(&self) -> BTreeMap<&'static str, Hash> {
        let hash = |d: &&'static str| (*d, hash_of(&self.image(d)));
        self.devices.iter().map(hash).collect()
    }

    fn choose(&mut self) -> Deed {
        if self.snapshots.len() > SNAPSHOTS_MAX {
            return self.delete();
        }
        // A name may stand for a snapshot on each device.
        if self.snapshots.len() <= self.devices.len() {
            return self.create(self.devices);
        }
        if self.only_groups {
            return if self.dice.one_in(2) {
                self.create(self.devices)
            } else {
                self.goto()
            };
        }
        match self.dice.below(20) {
            0..4 => {
                let device = *self.dice.pick(self.devices);
                self.create(&[device])
            }
            4..7 => self.create(self.devices),
            7..10 => self.goto(),
            10..12 => self.delete(),
            12..14 => Deed::new("gc", &[]),
            14 => Deed::new("gc", &["--all"]),
            15 | 16 => self.import(),
            17 => self.export(),
            18 => Deed::new("rebuild-index", &[]),
            _ => Deed::new("verify", &[]),
        }
    }

    fn new_name(&mut self) -> String {
        self.names += 1;
        format!("s{}", self.names)
    }

    fn create(&mut self, devices: &[&str]) -> Deed {
        let name = self.new_name();
        let mut deed = Deed::new("create", &[&name]);
        for device in devices {
            deed.arguments.extend(["--device".into(), (*device).into()]);
            let hash = hash_of(&self.image(device));
            deed.adds.push((((*device).into(), name.clone()), hash));
        }
        deed
    }

    fn import(&mut self) -> Deed {
        let (name, file) = (self.new_name(), self.home.path("import.raw"));
        let _none_the_first_time = fs::remove_file(&file);
        // An odd end, which no cluster has.
        let len = (1 << 20) + self.dice.below(3 << 20);
        make_image(&file, len, &mut self.dice);
        let device = format!("i{}", self.dice.below(4));
        let mut deed = Deed::new(
            "import",
            &["import.raw", "--device", &device, "--name", &name],
        );
        deed.adds.push(((device, name), hash_of(&file)));
        deed
    }

    fn delete(&mut self) -> Deed {
        let known: Vec<_> = self.snapshots.keys().cloned().collect();
        let (device, name) = self.dice.pick(&known).clone();
        if !self.only_groups && self.dice.one_in(2) {
            let mut deed = Deed::new("delete", &[&name, "--device", &device]);
            deed.removes = vec![(device, name)];
            return deed;
        }
        let mut deed = Deed::new("delete", &[&name]);
        deed.removes = known.into_iter().filter(|(_, n)| *n == name).collect();
        deed
    }

    fn goto(&mut self) -> Deed {
        let devices = self.devices;
        let attached = |(device, _): &&(String, String)| devices.contains(&device.as_str());
        let known: Vec<_> = self.snapshots.keys().filter(attached).cloned().collect();
        if known.is_empty() {
            return self.create(devices);
        }
        let (device, name) = self.dice.pick(&known).clone();
        let has = |d: &&&str| {
            self.snapshots
                .contains_key(&((**d).to_owned(), name.clone()))
        };
        let mut devices: Vec<&'static str> = devices.iter().filter(has).copied().collect();
        if !self.only_groups && self.dice.one_in(3) {
            devices.retain(|d| *d == device);
        }
        let mut deed = Deed::new("goto", &[&name]);
        for device in &devices {
            deed.arguments.extend(["--device".into(), (*device).into()]);
        }
        deed.goes = Some((name, devices));
        deed
    }

    fn export(&mut self) -> Deed {
        let known: Vec<_> = self.snapshots.keys().cloned().collect();
        let (device, name) = self.dice.pick(&known).clone();
        let _of_an_earlier_round = fs::remove_file(self.home.path("killed.raw"));
        Deed::new("export", &[&format!("{device}@{name}"), "killed.raw"])
    }

    fn spawn(&self, arguments: &[String]) -> Child {
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        let mut command = self.home.command(&arguments);
        command
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the program starts")
    }

    /// When any image was written last.
    fn written(&self) -> Vec<std::time::SystemTime> {
        let time = |d: &&str| fs::metadata(self.image(d)).and_then(|m| m.modified());
        self.devices
            .iter()
            .map(time)
            .map(|t| t.expect("images have times"))
            .collect()
    }

    /// At a random time, or soon after something new is seen: in the store, or of a goto in an image.
    fn run_and_kill(&mut self, deed: &Deed) -> Ran {
        let watched = ["packs", "log", "tmp", "local", "sessions", "checkpoint"];
        let folder = *self.dice.pick(&watched);
        let before = self.home.files(folder);
        let written = self.written();
        let mut child = self.spawn(&deed.arguments);
        if deed.verb == "goto" && !self.dice.one_in(4) {
            while self.written() == written && child.try_wait().expect("it is our child").is_none()
            {
                sleep(Duration::from_micros(20));
            }
            sleep(Duration::from_micros(self.dice.below(300)));
        } else if deed.verb == "create" && self.dice.one_in(2) {
            // About where the entry that makes the snapshots becomes one: the second that a create writes.
            let log = self.home.files("log").len() + 1 + self.dice.below(2) as usize;
            while self.home.files("log").len() < log
                && child.try_wait().expect("it is our child").is_none()
            {
                sleep(Duration::from_micros(20));
            }
            sleep(Duration::from_micros(self.dice.below(200)));
        } else if self.dice.one_in(2) {
            // Most verbs take some ten milliseconds.
            sleep(Duration::from_micros(self.dice.below(40_000)));
        } else {
            while self.home.files(folder) == before
                && child.try_wait().expect("it is our child").is_none()
            {
                sleep(Duration::from_micros(100));
            }
            sleep(Duration::from_micros(self.dice.below(3000)));
        }
        // It may be done already.
        child.kill().expect("it is our child");
        finish(child, format!("{:?}, killed", deed.arguments))
    }

    fn do_whole(&mut self, deed: &Deed) {
        let child = self.spawn(&deed.arguments);
        finish(child, format!("{:?}", deed.arguments)).code(0);
        self.settle(deed, true);
    }

    /// Compares the list with the model; what was not acknowledged may have happened, but only as a whole.
    fn settle(&mut self, deed: &Deed, acknowledged: bool) {
        let story = format!("{:?}, acknowledged: {acknowledged}", deed.arguments);
        let listed = self.home.snapshots();
        let added = deed.adds.iter().filter(|(s, _)| listed.contains(s)).count();
        let removed = deed.removes.iter().filter(|s| !listed.contains(s)).count();
        let all = deed.adds.len() + deed.removes.len();
        let happened = added + removed == all;
        assert!(happened || added + removed == 0, "by halves: {story}");
        assert!(
            happened || !acknowledged,
            "acknowledged and not there: {story}"
        );
        if deed.verb == "create" && !acknowledged {
            self.meet(if happened {
                "create all made"
            } else {
                "create none made"
            });
        }
        if all > 0 && happened {
            self.snapshots.extend(deed.adds.iter().cloned());
            self.snapshots
                .retain(|snapshot, _| !deed.removes.contains(snapshot));
            for (snapshot, _) in &deed.adds {
                self.check_one(snapshot);
            }
        }
        let mut listed = listed;
        listed.sort();
        let known: Vec<_> = self.snapshots.keys().cloned().collect();
        assert_eq!(listed, known, "after {story}");
    }

    fn settle_goto(
        &mut self,
        name: &str,
        devices: &[&'static str],
        before: &BTreeMap<&'static str, Hash>,
        acknowledged: bool,
    ) {
        let mut target = before.clone();
        for device in devices {
            target.insert(
                device,
                self.snapshots[&((*device).to_owned(), name.to_owned())],
            );
        }
        if self.marked().is_empty() {
            let now = self.images();
            assert!(
                now == target || (!acknowledged && now == *before),
                "goto {name} of {devices:?} is half done and nobody says so"
            );
            if !acknowledged && now == *before && now != target {
                self.meet("goto not begun");
            }
            return;
        }
        assert!(!acknowledged, "acknowledged and marked");
        self.meet("goto cut off");
        assert_eq!(self.marked(), devices, "all of the group are marked");
        self.check_refused(devices[0], name);
        let to = *self.dice.pick(&["--finish", "--undo"]);
        // The way out may be cut off as well, and then the other one taken.
        let to = if self.dice.one_in(2) {
            let cut = self.run_and_kill(&Deed::new("goto", &[to]));
            if cut.status.success() || self.marked().is_empty() {
                to
            } else {
                self.meet("resume cut off");
                *self.dice.pick(&["--finish", "--undo"])
            }
        } else {
            to
        };
        if !self.marked().is_empty() {
            self.home.ok(&["goto", to]);
        }
        assert!(self.marked().is_empty());
        self.meet(match to {
            "--finish" => "goto --finish",
            _ => "goto --undo",
        });
        let expected = if to == "--finish" { &target } else { before };
        assert_eq!(self.images(), *expected, "goto {to}");
        self.home
            .run(&["goto", to])
            .code(3)
            .says("none was cut off");
    }

    /// Devices that a goto was cut off on.
    fn marked(&self) -> Vec<String> {
        let list = self.home.json(&["device", "list"]);
        let devices = list["devices"].as_array().expect("an array");
        devices
            .iter()
            .filter(|d| d["goto_unfinished"] == true)
            .map(|d| d["name"].as_str().expect("text").to_owned())
            .collect()
    }

    /// Verbs that use the image or the device's state say what comes first; what only reads the store goes on.
    fn check_refused(&self, device: &str, name: &str) {
        let refused: [&[&str]; 6] = [
            &["create", "never", "--device", device],
            &["create", "never"],
            &["goto", name, "--device", device],
            &["delete", name, "--device", device],
            &["device", "remove", device],
            &["device", "detach", device],
        ];
        for arguments in refused {
            self.home
                .run(arguments)
                .code(1)
                .says("still goto --finish")
                .says("still goto --undo");
        }
        for action in ["-c", "-a", "-d"] {
            self.home
                .run(&["qemu-img", "snapshot", action, name, device])
                .code(1)
                .says("still goto --finish");
        }
    }

    fn check_one(&self, snapshot: &(String, String)) {
        let (device, name) = snapshot;
        let hash = self.home.export(&format!("{device}@{name}"));
        assert_eq!(hash, self.snapshots[snapshot], "{device}@{name}");
    }

    fn check_all(&self) {
        let report = self.home.json(&["verify"]);
        assert_eq!(report["damage"], serde_json::json!([]));
        assert_eq!(report["checked"].as_u64().map(|n| n > 0), Some(true));
        for snapshot in self.snapshots.keys() {
            self.check_one(snapshot);
        }
    }

    /// What killed programs left behind is found and freed: the store is not much larger than a new one that is given
    /// the same snapshots.
    fn check_space(&self) {
        self.home.ok(&["gc", "--all"]);
        let fresh = Home::new();
        // Heads of imported devices are roots too, also when the snapshot is gone.
        let list = self.home.json(&["device", "list"]);
        let heads = list["devices"].as_array().expect("an array").iter();
        let heads = heads
            .filter(|d| d["attachment"].is_null())
            .map(|d| d["name"].as_str().expect("text").to_owned());
        let snapshots = self.snapshots.keys().map(|(d, n)| format!("{d}@{n}"));
        for (nth, target) in snapshots.chain(heads).enumerate() {
            let file = fresh.path("image.raw");
            let path = file.to_str().expect("a plain path");
            self.home.ok(&["export", &target, path]);
            fresh.ok(&["import", path, "--device", &format!("d{nth}")]);
            fs::remove_file(file).expect("it was written");
        }
        fresh.ok(&["gc", "--all"]);
        let (ours, new) = (self.home.pack_bytes(), fresh.pack_bytes());
        assert!(
            ours * 10 <= new * 12 + (10 << 20) / 8,
            "{ours} bytes in packs, a new store has {new}"
        );
        for folder in ["tmp", "sessions"] {
            let left = self.home.files(folder);
            assert!(left.is_empty(), "left by killed programs: {left:?}");
        }
        self.check_all();
    }
}
