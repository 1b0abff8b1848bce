//! The control socket, talked to as a client of QEMU would.

use crate::server::{Server, run_tool};
use crate::support::{Dice, Home, has, hash_of, make_image, scribble};
use serde_json::{Value, json};
use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::time::Duration;

struct Client {
    stream: BufReader<UnixStream>,
    events: Vec<Value>,
}

impl Client {
    fn connect(home: &Home) -> Self {
        Self::connect_to(&home.path("qmp.sock"))
    }

    fn connect_to(socket: &std::path::Path) -> Self {
        let stream = UnixStream::connect(socket).expect("it listens");
        let long = Some(Duration::from_mins(1));
        stream.set_read_timeout(long).expect("a timeout");
        Self {
            stream: BufReader::new(stream),
            events: Vec::new(),
        }
    }

    /// Past the negotiation.
    fn negotiated(home: &Home) -> Self {
        let mut client = Self::connect(home);
        client.next();
        client.ok("qmp_capabilities", json!({}));
        client
    }

    fn next(&mut self) -> Value {
        let mut line = String::new();
        self.stream.read_line(&mut line).expect("an answer");
        assert!(line.ends_with("\r\n"), "{line:?}");
        serde_json::from_str(&line).expect("JSON")
    }

    fn send(&mut self, text: &str) {
        self.stream
            .get_mut()
            .write_all(text.as_bytes())
            .expect("it is taken");
    }

    /// The answer; events that come before it are kept.
    fn answer(&mut self) -> Value {
        loop {
            let message = self.next();
            if message.get("event").is_none() {
                return message;
            }
            self.events.push(message);
        }
    }

    #[expect(clippy::needless_pass_by_value, reason = "callers build it in place")]
    fn execute(&mut self, command: &str, arguments: Value) -> Value {
        // Without a line break, as some clients send it.
        let message = json!({ "execute": command, "arguments": arguments, "id": command });
        self.send(&message.to_string());
        let answer = self.answer();
        assert_eq!(answer["id"], command, "{answer}");
        answer
    }

    #[track_caller]
    fn ok(&mut self, command: &str, arguments: Value) -> Value {
        let answer = self.execute(command, arguments);
        assert!(answer.get("return").is_some(), "{command}: {answer}");
        answer["return"].clone()
    }

    /// Class and text.
    #[track_caller]
    fn fails(&mut self, command: &str, arguments: Value) -> (String, String) {
        let answer = self.execute(command, arguments);
        let text = |field: &str| {
            answer["error"][field]
                .as_str()
                .expect("an error")
                .to_owned()
        };
        (text("class"), text("desc"))
    }

    /// States of a job up to its end.
    fn states(&mut self, id: &str) -> Vec<String> {
        let mut states = Vec::new();
        loop {
            let event = if self.events.is_empty() {
                self.next()
            } else {
                self.events.remove(0)
            };
            if event["event"] == "JOB_STATUS_CHANGE" && event["data"]["id"] == id {
                let status = event["data"]["status"].as_str().expect("text").to_owned();
                states.push(status.clone());
                if status == "concluded" {
                    return states;
                }
            }
        }
    }
}

fn served(version: &str) -> (Home, Server) {
    let home = Home::new();
    for name in ["web1", "web2"] {
        make_image(&home.path(name), 1 << 20, &mut Dice::new(9));
        home.ok(&["device", "add", name, name]);
    }
    let qmp = format!("unix:{}", home.path("qmp.sock").display());
    let server = Server::start(&home, &["--qmp", &qmp, "--qemu-version", version]);
    (home, server)
}

#[test]
fn a_client_is_greeted_negotiates_and_asks_what_there_is() {
    let (home, server) = served("10.0");
    let mut client = Client::connect(&home);
    let greeting = client.next();
    assert_eq!(greeting["QMP"]["version"]["qemu"]["major"], 10);
    assert_eq!(greeting["QMP"]["capabilities"], json!([]));
    let (class, _) = client.fails("query-version", json!({}));
    assert_eq!(class, "CommandNotFound");
    client.ok("qmp_capabilities", json!({}));
    assert_eq!(
        client.fails("qmp_capabilities", json!({})).0,
        "CommandNotFound"
    );
    assert_eq!(client.ok("query-version", json!({}))["qemu"]["minor"], 0);
    let commands = client.ok("query-commands", json!({}));
    let has = |name: &str| {
        commands
            .as_array()
            .expect("a list")
            .contains(&json!({ "name": name }))
    };
    assert!(has("snapshot-save") && has("x-stillpoint-gc") && has("qmp_capabilities"));
    let (class, desc) = client.fails("human-monitor-command", json!({}));
    assert_eq!(class, "CommandNotFound");
    assert_eq!(desc, "The command human-monitor-command has not been found");
    let (_, desc) = client.fails("query-version", json!({ "x": 1 }));
    assert_eq!(desc, "Parameter 'x' is unexpected");
    let (_, desc) = client.fails("job-dismiss", json!({}));
    assert_eq!(desc, "Parameter 'id' is missing");
    // Two at once, cut into pieces, and garbage between.
    client.send("{\"execute\":\"query-jobs\"}{\"exec");
    client.send("ute\":\"query-jobs\",\"id\":2}nonsense\n[1]");
    assert_eq!(client.answer(), json!({ "return": [] }));
    assert_eq!(client.answer(), json!({ "return": [], "id": 2 }));
    for _ in 0..2 {
        assert_eq!(client.answer()["error"]["class"], "GenericError");
    }
    server.stop().code(0);
}

#[test]
fn the_document_has_every_command_and_no_other() {
    let guide = include_str!("../../docs/QMP.md");
    let rows = guide.lines().filter(|line| line.starts_with("| `"));
    let in_rows = rows.flat_map(|row| {
        let cell = row.split('|').nth(1).expect("a row has cells");
        cell.split(", ").map(|name| name.trim().trim_matches('`'))
    });
    // Events are in capitals.
    let mut documented: Vec<&str> = in_rows
        .filter(|n| n.starts_with(char::is_lowercase))
        .collect();
    documented.sort_unstable();
    let newest = "11.1".parse().expect("a release");
    let mut there: Vec<&str> = stillpoint_serve::qmp::command_names(newest).collect();
    there.sort_unstable();
    assert_eq!(documented, there);
}

#[test]
fn a_release_has_its_commands_and_its_errors() {
    for (version, jobs, class, desc) in [
        ("2.7", false, "DeviceNotFound", "Device 'x' not found"),
        (
            "4.2",
            false,
            "GenericError",
            "Cannot find device=x nor node_name=x",
        ),
        (
            "6.0",
            true,
            "GenericError",
            "Cannot find device='x' nor node-name='x'",
        ),
    ] {
        let (home, server) = served(version);
        let mut client = Client::negotiated(&home);
        let arguments = json!({ "device": "x", "name": "n" });
        let failed = client.fails("blockdev-snapshot-internal-sync", arguments);
        assert_eq!(failed, (class.to_owned(), desc.to_owned()), "{version}");
        let answer = client.execute("query-jobs", json!({}));
        assert_eq!(
            answer.get("return").is_some(),
            jobs || version == "4.2",
            "{version}"
        );
        let answer = client.execute("snapshot-delete", json!({}));
        let found = answer["error"]["class"] != "CommandNotFound";
        assert_eq!(found, jobs, "{version}: {answer}");
        server.stop().code(0);
    }
}

#[test]
fn internal_snapshots_are_made_listed_and_deleted() {
    let (home, server) = served("4.2");
    let mut client = Client::negotiated(&home);
    let create = "blockdev-snapshot-internal-sync";
    client.ok(create, json!({ "device": "web1", "name": "monday" }));
    let (_, desc) = client.fails(create, json!({ "device": "web1", "name": "monday" }));
    assert_eq!(
        desc,
        "Snapshot with name 'monday' already exists on device 'web1'"
    );
    let (_, desc) = client.fails(create, json!({ "device": "web1", "name": "" }));
    assert_eq!(desc, "Name is empty");
    let blocks = client.ok("query-block", json!({}));
    let image = &blocks[0]["inserted"]["image"];
    assert_eq!(blocks[0]["device"], "web1");
    assert_eq!(image["virtual-size"], 1 << 20);
    assert_eq!(image["snapshots"][0]["name"], "monday");
    assert_eq!(image["snapshots"][0]["id"], "1");
    let nodes = client.ok("query-named-block-nodes", json!({}));
    assert_eq!(nodes[1]["node-name"], "web2");
    let delete = "blockdev-snapshot-delete-internal-sync";
    let (_, desc) = client.fails(delete, json!({ "device": "web1" }));
    assert_eq!(desc, "Name or id must be provided");
    let (_, desc) = client.fails(delete, json!({ "device": "web1", "name": "x" }));
    let wanted = "Snapshot with id 'null' and name 'x' does not exist on device 'web1'";
    assert_eq!(desc, wanted);
    let gone = client.ok(
        delete,
        json!({ "device": "web1", "name": "monday", "id": "1" }),
    );
    assert_eq!(
        (&gone["id"], &gone["vm-state-size"]),
        (&json!("1"), &json!(0))
    );
    assert!(home.snapshots().is_empty());
    server.stop().code(0);
}

/// QEMU's own daemon with a disk of the same name. Killed when dropped.
struct Qsd(std::process::Child);

impl Qsd {
    fn start(home: &Home) -> Self {
        let image = home.path("web1.qcow2").display().to_string();
        run_tool("qemu-img", &["create", "-q", "-f", "qcow2", &image, "1M"]);
        let socket = home.path("qsd.sock").display().to_string();
        let child = std::process::Command::new("qemu-storage-daemon")
            .args([
                "--chardev",
                &format!("socket,id=c,path={socket},server=on,wait=off"),
            ])
            .args(["--monitor", "chardev=c", "--blockdev"])
            .arg(format!(
                "driver=qcow2,node-name=web1,file.driver=file,file.filename={image}"
            ))
            .spawn();
        let daemon = Self(child.expect("it starts"));
        for _ in 0..6000 {
            if UnixStream::connect(&socket).is_ok() {
                return daemon;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        panic!("it does not listen");
    }
}

impl Drop for Qsd {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn qemus_storage_daemon_says_the_same_to_the_same_messages() {
    let test = "qemus_storage_daemon_says_the_same";
    if !has(test, &["qemu-storage-daemon", "qemu-img"]) {
        return;
    }
    let said = run_tool("qemu-storage-daemon", &["--version"]);
    let version = said.text().split_whitespace().nth(2).expect("a version");
    let release: Vec<&str> = version.split('.').take(2).collect();
    let (home, server) = served(&release.join("."));
    let daemon = Qsd::start(&home);
    let mut ours = Client::connect(&home);
    let mut theirs = Client::connect_to(&home.path("qsd.sock"));
    ours.next();
    theirs.next();
    let create = "blockdev-snapshot-internal-sync";
    let delete = "blockdev-snapshot-delete-internal-sync";
    let export = json!({ "type": "nbd", "id": "e", "node-name": "x" });
    let mut messages = vec![
        json!({ "execute": "query-jobs" }),
        json!({ "execute": "qmp_capabilities", "id": [1, { "a": null }] }),
        json!({ "execute": "qmp_capabilities" }),
        json!([]),
        json!({}),
        json!({ "execute": 5, "id": 7 }),
        json!({ "execute": "query-jobs", "arguments": [] }),
        json!({ "execute": "query-jobs", "more": 1 }),
        json!({ "execute": "query-jobs", "id": null }),
    ];
    for (command, arguments) in [
        ("x-no-such-command", json!({})),
        ("job-dismiss", json!({})),
        ("job-dismiss", json!({ "id": 5 })),
        ("job-dismiss", json!({ "id": "x" })),
        ("job-dismiss", json!({ "id": "x", "y": 1 })),
        ("nbd-server-stop", json!({})),
        ("nbd-server-start", json!({})),
        ("block-export-add", export),
        ("query-block-exports", json!({})),
        ("block-export-del", json!({ "id": "x" })),
        (create, json!({ "device": "web1", "name": "monday" })),
        (create, json!({ "device": "web1", "name": "monday" })),
        (create, json!({ "device": "x", "name": "monday" })),
        (create, json!({ "device": "web1", "name": "" })),
        (delete, json!({ "device": "x", "name": "monday" })),
        (delete, json!({ "device": "web1" })),
        (delete, json!({ "device": "web1", "name": "x" })),
        (delete, json!({ "device": "web1", "id": "x" })),
        (
            delete,
            json!({ "device": "web1", "id": "2", "name": "monday" }),
        ),
        ("transaction", json!({})),
    ] {
        messages.push(json!({ "execute": command, "arguments": arguments, "id": command }));
    }
    for message in messages {
        let mut answers = [&mut ours, &mut theirs].map(|client| {
            client.send(&format!("{message}\n"));
            client.answer()
        });
        // A name of our own that QEMU's clients do not look at.
        let error = answers[0].get_mut("error");
        if let Some(error) = error.and_then(Value::as_object_mut) {
            error.remove("x-stillpoint");
        }
        assert_eq!(answers[0], answers[1], "{message}");
    }
    drop(daemon);
    server.stop().code(0);
}

#[test]
fn a_transaction_makes_all_or_none() {
    let (home, server) = served("4.2");
    let mut client = Client::negotiated(&home);
    let action = |device: &str, name: &str| {
        json!({
            "type": "blockdev-snapshot-internal-sync",
            "data": { "device": device, "name": name },
        })
    };
    let both = json!({ "actions": [action("web1", "a"), action("web2", "a")] });
    client.ok("transaction", both.clone());
    let list = home.json(&["list"]);
    let groups = list["snapshots"].as_array().expect("a list").iter();
    let groups: Vec<&Value> = groups.map(|s| &s["group"]).collect();
    assert!(
        groups.len() == 2 && groups[0] == groups[1] && groups[0].is_string(),
        "{list}"
    );
    client.fails("transaction", both);
    let bad = json!({ "actions": [action("web1", "b"), action("web2", "b@c")] });
    client.fails("transaction", bad);
    let twice = json!({ "actions": [action("web1", "b"), action("web1", "b")] });
    client.fails("transaction", twice);
    let other = json!({ "actions": [action("web1", "b"), { "type": "abort", "data": {} }] });
    client.fails("transaction", other);
    assert_eq!(home.snapshots().len(), 2, "none of them stays");
    server.stop().code(0);
}

#[test]
fn jobs_save_load_and_delete_with_their_events() {
    let (home, server) = served("10.0");
    let mut client = Client::negotiated(&home);
    let before = hash_of(&home.path("web1"));
    let devices = json!(["web1", "web2"]);
    let arguments = |id: &str, tag: &str| json!({ "job-id": id, "tag": tag, "vmstate": "web1", "devices": devices });
    let good = ["created", "running", "waiting", "pending", "concluded"];
    client.ok("snapshot-save", arguments("j1", "monday"));
    assert_eq!(client.states("j1"), good);
    scribble(&home.path("web1"), &mut Dice::new(1));
    client.ok("snapshot-load", arguments("j2", "monday"));
    assert_eq!(client.states("j2"), good);
    assert_eq!(hash_of(&home.path("web1")), before);
    client.ok("snapshot-load", arguments("j3", "tuesday"));
    assert_eq!(
        client.states("j3"),
        ["created", "running", "aborting", "concluded"]
    );
    let (_, desc) = client.fails("snapshot-save", arguments("j3", "x"));
    assert_eq!(desc, "Job ID 'j3' already in use");
    let jobs = client.ok("query-jobs", json!({}));
    let failed = jobs
        .as_array()
        .expect("a list")
        .iter()
        .find(|j| j["id"] == "j3");
    let wanted = "Snapshot 'tuesday' does not exist in one or more devices";
    assert_eq!(failed.expect("it is kept")["error"], wanted);
    for id in ["j1", "j2", "j3"] {
        client.ok("job-dismiss", json!({ "id": id }));
    }
    assert_eq!(
        client.fails("job-dismiss", json!({ "id": "j1" })).1,
        "Job not found"
    );
    let delete = json!({ "job-id": "j1", "tag": "monday", "devices": ["web1", "web2"] });
    client.events.clear();
    client.ok("snapshot-delete", delete);
    assert_eq!(client.states("j1"), good);
    assert!(home.snapshots().is_empty());
    server.stop().code(0);
}

#[test]
fn a_client_starts_an_nbd_server_with_the_exports_it_chooses() {
    let (home, server) = served("10.0");
    home.ok(&["create", "monday"]);
    let mut client = Client::negotiated(&home);
    let export = json!({ "type": "nbd", "id": "e", "node-name": "web1@monday", "name": "disk" });
    assert_eq!(
        client.fails("block-export-add", export.clone()).1,
        "NBD server not running"
    );
    let path = home.path("second.sock");
    let addr = json!({ "addr": { "type": "unix", "data": { "path": path } } });
    client.ok("nbd-server-start", addr.clone());
    client.fails("nbd-server-start", addr);
    client.ok("block-export-add", export.clone());
    client.fails("block-export-add", export);
    client.fails("nbd-server-add", json!({ "device": "nothing" }));
    let exports = client.ok("query-block-exports", json!({}));
    assert_eq!(exports[0]["node-name"], "web1@monday");
    let nbd = stillpoint_nbd::client::Client::connect_unix(
        &path,
        stillpoint_nbd::client::Options::default(),
    );
    let mut nbd = nbd.expect("it listens");
    let listed = nbd.list().expect("it lists");
    assert_eq!(
        listed.iter().map(|l| &*l.name).collect::<Vec<_>>(),
        ["disk"]
    );
    let disk = nbd.go("disk", &[]).expect("it is there").read(0, 1 << 20);
    let hash = blake3::hash(&disk.expect("it is read"));
    assert_eq!(hash, hash_of(&home.path("web1")));
    client.ok("block-export-del", json!({ "id": "e" }));
    assert_eq!(
        client.events.pop().expect("an event")["event"],
        "BLOCK_EXPORT_DELETED"
    );
    client.ok("nbd-server-stop", json!({}));
    assert!(!path.exists());
    server.stop().code(0);
}

#[test]
fn a_volume_is_written_only_through_exports_that_are_to_be_writable() {
    let (home, server) = served("10.0");
    home.ok(&["volume", "create", "vm", "--size", "1M"]);
    home.ok(&["create", "monday", "--device", "vm"]);
    let mut client = Client::negotiated(&home);
    let path = home.path("second.sock");
    let addr = json!({ "type": "unix", "path": path });
    client.ok("nbd-server-start", json!({ "addr": addr }));
    let export = |id: &str, node: &str, writable: bool| {
        let names = json!({ "type": "nbd", "id": id, "name": id, "node-name": node });
        let mut export = names.as_object().expect("an object").clone();
        export.insert("writable".to_owned(), writable.into());
        Value::Object(export)
    };
    client.ok("block-export-add", export("rw", "vm", true));
    client.ok("block-export-add", export("ro", "vm", false));
    let default = json!({ "device": "vm", "name": "default" });
    client.ok("nbd-server-add", default);
    let old = json!({ "device": "vm@monday", "name": "old", "writable": true });
    client.ok("nbd-server-add", old);
    let refused = client.fails("block-export-add", export("x", "vm@monday", true));
    assert_eq!(refused.1, "Cannot export read-only node as writable");
    let go = |name: &str| {
        let options = stillpoint_nbd::client::Options::default();
        let client = stillpoint_nbd::client::Client::connect_unix(&path, options);
        client
            .expect("it listens")
            .go(name, &[])
            .expect("it is there")
    };
    let writer = go("rw");
    writer.write(0, b"guest", false).expect("it may");
    for name in ["ro", "default", "old"] {
        let reader = go(name);
        assert!(
            reader
                .info()
                .has(stillpoint_nbd::codec::transmission::READ_ONLY),
            "{name}"
        );
        let wrote = reader.write(0, b"intruder", false);
        assert!(wrote.is_err(), "{name} was written");
        let wanted = if name == "old" { [0; 5] } else { *b"guest" };
        assert_eq!(reader.read(0, 5).expect("it is read"), wanted, "{name}");
    }
    drop(writer);
    server.stop().code(0);
}

#[test]
fn a_hostile_client_gets_errors_and_hurts_nobody() {
    let (home, server) = served("4.2");
    let mut good = Client::negotiated(&home);
    for text in ["[".repeat(100), format!("\"{}", "x".repeat(300 << 10))] {
        let mut bad = Client::connect(&home);
        bad.next();
        // It may be cut off before it has said everything.
        let _ = bad.stream.get_mut().write_all(text.as_bytes());
        let mut line = String::new();
        let _ = bad.stream.read_line(&mut line);
        assert!(line.is_empty() || line.contains("limit exceeded"), "{line}");
    }
    for text in [
        "{\"execute\":{}}",
        "\u{0}\u{1}",
        "{}{}{}",
        "{\"execute\":\"x\",\"id\":[[[]]]}",
    ] {
        good.send(&format!("{text}\n"));
    }
    for _ in 0..6 {
        let answer = good.answer();
        assert!(answer.get("error").is_some(), "{answer}");
    }
    good.ok("query-version", json!({}));
    server.stop().code(0);
}

#[test]
fn what_qemu_has_no_command_for_is_there_too() {
    let (home, server) = served("4.2");
    let mut client = Client::negotiated(&home);
    let made = client.ok("x-stillpoint-create", json!({ "name": "monday" }));
    assert_eq!(made["snapshots"].as_array().expect("a list").len(), 2);
    let before = hash_of(&home.path("web1"));
    scribble(&home.path("web1"), &mut Dice::new(2));
    client.ok(
        "x-stillpoint-goto",
        json!({ "snapshot": "monday", "devices": ["web1"] }),
    );
    assert_eq!(hash_of(&home.path("web1")), before);
    let list = client.ok("x-stillpoint-list", json!({ "device": "web1" }));
    assert_eq!(list["snapshots"][0]["name"], "monday");
    client.ok("x-stillpoint-delete", json!({ "snapshot": "monday" }));
    let answer = client.execute("x-stillpoint-goto", json!({ "snapshot": "monday" }));
    assert_eq!(
        answer["error"]["x-stillpoint"]["kind"], "not_found",
        "{answer}"
    );
    client.ok("x-stillpoint-gc", json!({ "all": true }));
    assert_eq!(client.ok("x-stillpoint-stats", json!({}))["snapshots"], 0);
    server.stop().code(0);
    let event = client.next();
    assert_eq!(event["event"], "SHUTDOWN");
}
