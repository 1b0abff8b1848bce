//! Volumes over NBD: what guests write is there, snapshots of it are whole, and commands work on it while it is served.

use crate::server::{Server, run_tool};
use crate::support::{Dice, Home, has, is_root, skip, tool};
use nix::sys::signal::Signal;
use std::fs::{self, File};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use stillpoint_nbd::ZeroMode;
use stillpoint_nbd::client::{Client, Connection, Options};

const MIB: usize = 1 << 20;

pub fn home_with(volumes: &[&str], size: &str) -> Home {
    let home = Home::new();
    for name in volumes {
        home.ok(&["volume", "create", name, "--size", size]);
    }
    home
}

/// One random change, to the volume and to what it should be.
pub fn change(client: &Connection, model: &mut [u8], dice: &mut Dice) {
    let size = model.len() as u64;
    let most = [512, 4096, 70_000, 300_000][dice.below(4) as usize];
    let len = 1 + dice.below(most);
    let at = dice.below(size - len + 1);
    let (at, len) = if dice.one_in(2) {
        (at & !4095, len)
    } else {
        (at, len)
    };
    let range = at as usize..(at + len) as usize;
    match dice.below(8) {
        0 => {
            let mode = ZeroMode {
                no_hole: dice.one_in(2),
                ..ZeroMode::default()
            };
            client.zero(at, len, mode).expect("zeroes");
            model[range].fill(0);
        }
        1 => {
            client.trim(at, len, false).expect("a trim");
            // Whole blocks become holes; the rest stays.
            let (from, to) = (range.start.next_multiple_of(4096), range.end & !4095);
            if from < to {
                model[from..to].fill(0);
            }
        }
        2 => client.flush().expect("a flush"),
        _ => {
            let bytes = dice.bytes(len as usize);
            client.write(at, &bytes, dice.one_in(10)).expect("a write");
            model[range].copy_from_slice(&bytes);
        }
    }
}

pub fn check(client: &Connection, model: &[u8]) {
    for (n, piece) in model.chunks(MIB).enumerate() {
        let read = client
            .read((n * MIB) as u64, piece.len())
            .expect("it is read");
        assert!(read == piece, "mebibyte {n}");
    }
}

#[test]
fn a_volume_holds_what_was_written_through_snapshots_restarts_and_gotos() {
    let home = home_with(&["vm"], "8M");
    let mut dice = Dice::announced("a_volume_holds_what_was_written");
    let mut model = vec![0; 8 * MIB];
    let mut snapshots: Vec<(String, Vec<u8>)> = Vec::new();
    for round in 0..4 {
        let server = Server::start(&home, &["--cache", "2M"]);
        let client = server.client("vm");
        check(&client, &model);
        for _ in 0..60 {
            change(&client, &mut model, &mut dice);
        }
        let name = format!("s{round}");
        // Another command, while the volume is open and written to.
        home.ok(&["create", &name]);
        snapshots.push((name, model.clone()));
        for _ in 0..20 {
            change(&client, &mut model, &mut dice);
        }
        check(&client, &model);
        for (name, bytes) in &snapshots {
            check(&server.client(&format!("vm@{name}")), bytes);
        }
        // Nobody pulls the disk from under a guest.
        home.run(&["goto", "s0"]).code(5).says("open for writing");
        home.run(&["volume", "remove", "vm"]).code(5);
        home.run(&["volume", "resize", "vm", "4M"]).code(5);
        check_clone(&home, &server, round, &model, &mut dice);
        if round == 3 {
            // With power or not: what was flushed is there, and only that is in this model.
            client.flush().expect("a flush");
            server.signal(Signal::SIGKILL);
            drop((client, server));
            check_mounted(&home, &snapshots);
            continue;
        }
        drop(client);
        if round == 1 {
            model.resize(9 * MIB + 512, 0);
            home.ok(&["volume", "resize", "vm", &model.len().to_string()]);
        }
        if round == 2 {
            let (name, bytes) = &snapshots[dice.below(3) as usize];
            until_free(|| home.run(&["goto", name, "--device", "vm"]));
            model.clone_from(bytes);
            check(&server.client("vm"), &model);
        }
        // What was not flushed is not lost by a stop in good order.
        server.stop().code(0);
    }
    let exported = home.export("vm");
    assert_eq!(exported, blake3::hash(&model), "without a server");
    let _server = Server::start(&home, &[]);
    assert_eq!(home.export("vm"), blake3::hash(&model), "through it");
}

/// A clone holds what the volume does, and what is written to it is its own.
fn check_clone(home: &Home, server: &Server, round: usize, model: &[u8], dice: &mut Dice) {
    let name = format!("clone{round}");
    home.ok(&["volume", "create", &name, "--from", "vm"]);
    let client = server.client(&name);
    check(&client, model);
    let mut own = model.to_vec();
    for _ in 0..20 {
        change(&client, &mut own, dice);
    }
    check(&client, &own);
    check(&server.client("vm"), model);
}

/// Every snapshot is a file with its bytes, by FUSE.
fn check_mounted(home: &Home, snapshots: &[(String, Vec<u8>)]) {
    if let Err(e) = File::options().read(true).write(true).open("/dev/fuse") {
        skip("check_mounted", &format!("/dev/fuse: {e}"));
        return;
    }
    if !is_root() && !has("check_mounted", &["fusermount3"]) {
        return;
    }
    let folder = home.path("mnt");
    fs::create_dir(&folder).expect("a folder");
    let mut child = home.command(&["mount", "mnt"]).spawn().expect("it starts");
    while !folder.join("vm").exists() {
        let ended = child.try_wait().expect("it is our child");
        assert!(ended.is_none(), "it does not mount: {ended:?}");
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    let found: Vec<bool> = snapshots
        .iter()
        .map(|(name, bytes)| {
            let file = fs::read(folder.join(format!("vm/{name}.raw")));
            file.is_ok_and(|found| found == *bytes)
        })
        .collect();
    let pid = nix::unistd::Pid::from_raw(child.id().cast_signed());
    nix::sys::signal::kill(pid, Signal::SIGTERM).expect("it runs");
    assert!(child.wait().expect("it is our child").success());
    assert_eq!(found, vec![true; snapshots.len()]);
}

/// The server notices in its own time that a client has gone.
pub fn until_free(run: impl Fn() -> crate::support::Ran) {
    for _ in 0..1000 {
        let ran = run();
        if ran.status.code() != Some(5) {
            ran.code(0);
            return;
        }
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
    panic!("{}", run().story());
}

#[test]
fn volumes_are_made_grown_and_removed_while_they_are_served() {
    let home = home_with(&["golden"], "4M");
    let server = Server::start(&home, &[]);
    let golden = server.client("golden");
    golden.write(12_345, b"hello", false).expect("a write");
    home.ok(&["volume", "create", "vm", "--from", "golden"]);
    let clone = server.client("vm");
    assert_eq!(clone.read(12_345, 5).expect("it is read"), b"hello");
    clone.write(12_345, b"world", false).expect("a write");
    assert_eq!(golden.read(12_345, 5).expect("it is read"), b"hello");
    home.ok(&["volume", "resize", "vm", "6M"]);
    assert_eq!(server.client("vm").info().size, 6 << 20);
    drop(clone);
    until_free(|| home.run(&["volume", "resize", "vm", "1M"]));
    let small = server.client("vm");
    assert_eq!(small.info().size, 1 << 20);
    assert_eq!(small.read(12_345, 5).expect("it is read"), b"world");
    drop(small);
    until_free(|| home.run(&["volume", "remove", "vm"]));
    assert!(server.refuses("vm"));
    // As other formats too, and as it is now.
    golden.write(4096, b"newer", false).expect("a write");
    home.ok(&["export", "golden", "golden.qcow2", "--format", "qcow2"]);
    home.ok(&[
        "import",
        "golden.qcow2",
        "--device",
        "again",
        "--name",
        "v1",
    ]);
    let again = server.client("again@v1").read(4096, 5);
    assert_eq!(again.expect("it is read"), b"newer");
    // One server has all volumes of a store.
    let nbd = format!("unix:{}", home.path("other.sock").display());
    home.run(&["serve", "--nbd", &nbd])
        .code(5)
        .says("another server");
    server.stop().code(0);
}

#[test]
fn a_machine_is_saved_with_its_memory_while_its_disks_are_served() {
    let home = home_with(&["root", "data"], "2M");
    let server = Server::start(&home, &[]);
    let (root, data) = (server.client("root"), server.client("data"));
    root.write(0, b"root", false).expect("a write");
    data.write(0, b"data", false).expect("a write");
    let state = Dice::new(5).bytes(300_001);
    fs::write(home.path("ram"), &state).expect("a new file");
    let clock = ["--vm-clock", "61000000000", "--icount", "7"];
    let first = [
        "create",
        "first",
        "--vm-state",
        "ram",
        "--vm-device",
        "data",
    ];
    let made = home.json(&[&first[..], &clock].concat());
    let saved = |made: &serde_json::Value, n: usize| made["snapshots"][n]["vm_state"].clone();
    let on_data = made["snapshots"][0]["device"] != "data";
    assert!(saved(&made, usize::from(!on_data)).is_null(), "{made}");
    assert_eq!(saved(&made, usize::from(on_data))["size_bytes"], 300_001);
    let back = home.ok(&["export", "--vm-state", "data@first", "-"]);
    assert!(back.out == state);
    let shown = home.json(&["show", "data@first"]);
    assert!(shown.to_string().contains("61000000000"), "{shown}");
    // From a pipe, which the server cannot read itself.
    let mut command = home.command(&["create", "second", "--vm-state", "-"]);
    let ram = File::open(home.path("ram")).expect("it is there");
    let made = crate::support::run(command.stdin(ram)).code(0);
    assert!(made.text().contains("VM state on "), "{}", made.text());
    let all = home.json(&["list"]);
    assert_eq!(
        all.to_string().matches("\"vm_state_bytes\":300001").count(),
        2,
        "{all}"
    );
    // What cannot be read makes no snapshot.
    let ran = home.run(&["create", "third", "--vm-state", "none"]);
    ran.code(1).says("VM state: ");
    home.run(&["find", "third"]).code(3);
    server.stop().code(0);
}

#[test]
fn other_peoples_tools_write_it_and_find_it_whole() {
    let test = "other_peoples_tools";
    if !has(test, &["qemu-io", "qemu-img", "nbdcopy", "fio"]) {
        return;
    }
    let home = home_with(&["vm"], "32M");
    let server = Server::start(&home, &[]);
    let uri = server.uri("vm");
    let commands = [
        "write -P 7 4096 1M",
        "write -z 100k 5000",
        "discard 200k 64k",
        "write -f -P 9 31M 64k",
        "flush",
        "read -P 9 31M 64k",
    ];
    let mut arguments = vec!["-f", "raw"];
    arguments.extend(commands.iter().flat_map(|c| ["-c", c]));
    arguments.push(&uri);
    let ran = run_tool("qemu-io", &arguments);
    assert!(!ran.text().contains("failed"), "{}", ran.story());
    let copy = home.path("copy.raw").display().to_string();
    run_tool("nbdcopy", &[&uri, &copy]);
    run_tool(
        "qemu-img",
        &["compare", "-f", "raw", "-F", "raw", &uri, &copy],
    );
    // And back, over several connections.
    home.ok(&["volume", "create", "back", "--size", "32M"]);
    let back = server.uri("back");
    run_tool("nbdcopy", &[&copy, &back]);
    run_tool(
        "qemu-img",
        &["compare", "-f", "raw", "-F", "raw", &back, &copy],
    );
    let target = format!("--uri={uri}");
    let fio = [
        "--name=x",
        "--ioengine=nbd",
        &target,
        "--rw=randwrite",
        "--bs=4k",
        "--size=16M",
        "--iodepth=16",
        "--verify=crc32c",
        "--verify_fatal=1",
        "--verify_state_save=0",
        "--fsync=64",
    ];
    // It leaves a file where it runs.
    crate::support::run(tool("fio").current_dir(home.path(".")).args(fio)).code(0);
    server.stop().code(0);
}

#[test]
fn a_bitmap_of_a_volume_is_what_was_written_since() {
    if !has("a_bitmap_of_a_volume", &["nbdinfo"]) {
        return;
    }
    let home = home_with(&["vm"], "16M");
    let server = Server::start(&home, &[]);
    let client = server.client("vm");
    let mut dice = Dice::new(1);
    for at in [0, 4 << 20, 10 << 20] {
        let bytes = dice.bytes(MIB);
        client.write(at, &bytes, false).expect("a write");
    }
    home.ok(&["create", "monday"]);
    let bytes = dice.bytes(64 << 10);
    client.write(5 << 20, &bytes, false).expect("a write");
    let map = |context: &str| {
        let option = format!("--map={context}");
        let answer = run_tool("nbdinfo", &["--json", &option, &server.uri("vm")]).json();
        let all = answer.as_array().expect("a list").clone();
        let number = |e: &serde_json::Value, field| e[field].as_u64().expect("a number");
        let with = |kind: u64| {
            let some = all.iter().filter(move |e| number(e, "type") == kind);
            some.map(|e| (number(e, "offset"), number(e, "length")))
                .collect::<Vec<_>>()
        };
        (with(0), with(1), with(2))
    };
    assert_eq!(map("qemu:dirty-bitmap:monday").1, [(5 << 20, 64 << 10)]);
    let (data, _, _) = map("base:allocation");
    assert_eq!(
        data.iter().map(|e| e.1).sum::<u64>(),
        (3 << 20) + (64 << 10)
    );
    let (none, overlay, store) = map("qemu:allocation-depth");
    assert_eq!(overlay, [(5 << 20, 64 << 10)]);
    assert_eq!(store.iter().map(|e| e.1).sum::<u64>(), 3 << 20);
    assert_eq!(
        none.iter().map(|e| e.1).sum::<u64>(),
        (13 << 20) - (64 << 10)
    );
    server.stop().code(0);
}

/// fio at work on a volume, until it is dropped.
struct Load(std::process::Child);

impl Load {
    fn start(home: &Home, uri: &str) -> Self {
        let uri = format!("--uri={uri}");
        let mut fio = tool("fio");
        fio.current_dir(home.path(".")).args([
            "--name=busy",
            "--ioengine=nbd",
            &uri,
            "--rw=randwrite",
            "--bs=4k",
            "--iodepth=8",
            "--fsync=16",
            "--size=4M",
            "--time_based",
            "--runtime=60",
        ]);
        let quiet = fio
            .stdout(std::process::Stdio::null())
            .stderr(std::process::Stdio::null());
        Self(quiet.spawn().expect("fio starts"))
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        // It may have ended with its server.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn a_server_that_is_killed_keeps_every_flushed_write() {
    let test = "a_server_that_is_killed_keeps_every_flushed_write";
    // What fio writes is not looked at: it keeps the server at work, with flushes of its own.
    let with_fio = has(test, &["fio"]);
    let volumes = ["a", "b", "busy"];
    let home = home_with(if with_fio { &volumes } else { &volumes[..2] }, "4M");
    let mut dice = Dice::announced("a_server_that_is_killed");
    // The last number that was flushed in each place, and the last that was sent there.
    let places = 256u64;
    let flushed: Vec<AtomicU64> = (0..2 * places).map(|_| AtomicU64::new(0)).collect();
    let sent: Vec<AtomicU64> = (0..2 * places).map(|_| AtomicU64::new(0)).collect();
    let next = AtomicU64::new(1);
    let rounds = match std::env::var("STILL_ROUNDS").as_deref() {
        Err(_) => 3,
        Ok("full") => 100,
        Ok(rounds) => rounds.parse().expect("STILL_ROUNDS is full or a number"),
    };
    for round in 0..rounds {
        let server = Server::start(&home, &["--cache", "1M"]);
        let load = with_fio.then(|| Load::start(&home, &server.uri("busy")));
        verify(&server, &flushed, &sent, places);
        let stop = AtomicBool::new(false);
        std::thread::scope(|scope| {
            for (n, volume) in ["a", "b"].iter().enumerate() {
                let (flushed, sent, next, stop, server) = (&flushed, &sent, &next, &stop, &server);
                let mut dice = Dice::new(dice.next());
                let base = n as u64 * places;
                scope.spawn(move || {
                    let client = server.client(volume);
                    while !stop.load(Ordering::SeqCst)
                        && write_some(&client, base, places, flushed, sent, next, &mut dice)
                    {
                    }
                });
            }
            if round % 2 == 1 {
                // A snapshot may be under way, and may fail with its server.
                let name = format!("s{round}");
                home.run(&["create", &name]);
            }
            // fio takes its time to begin.
            let least = if with_fio { 250 } else { 20 };
            std::thread::sleep(std::time::Duration::from_millis(least + dice.below(150)));
            // Killed in the middle of it.
            server.signal(Signal::SIGKILL);
            stop.store(true, Ordering::SeqCst);
        });
        drop(load);
    }
    let server = Server::start(&home, &[]);
    verify(&server, &flushed, &sent, places);
    assert!(flushed.iter().any(|n| n.load(Ordering::SeqCst) > 0));
    if with_fio {
        let busy = server.client("busy").read(0, 4 * MIB);
        let busy = busy.expect("it is read");
        assert!(busy.iter().any(|b| *b != 0), "fio has flushed something");
    }
    server.stop().code(0);
    home.ok(&["verify"]);
}

#[test]
fn a_restart_loses_nothing_that_was_answered_while_clients_write() {
    let home = home_with(&["a", "b"], "4M");
    // systemd holds the socket; here the clients come again by themselves.
    let mut last = [0u64; 2];
    for _ in 0..4 {
        let server = Server::start(&home, &["--cache", "1M"]);
        let (socket, answered) = (&server.socket, &[const { AtomicU64::new(0) }; 2]);
        last = std::thread::scope(|scope| {
            let writers = [("a", 0), ("b", 1)].map(|(volume, n)| {
                let (before, answered) = (last[n], &answered[n]);
                scope.spawn(move || write_until_it_ends(socket, volume, before, answered))
            });
            while answered.iter().any(|n| n.load(Ordering::SeqCst) < 100) {
                std::thread::yield_now();
            }
            // Twice, as `timeout` does it, and once more below.
            server.signal(Signal::SIGTERM);
            server.signal(Signal::SIGTERM);
            writers.map(|writer| writer.join().expect("it checks"))
        });
        server.stop().code(0);
    }
    assert!(last.iter().all(|n| *n > 100), "{last:?}");
}

/// Finds what was answered before, then writes numbers, without a flush, until the server ends; the last one that was answered.
fn write_until_it_ends(
    socket: &std::path::Path,
    volume: &str,
    before: u64,
    answered: &AtomicU64,
) -> u64 {
    let client = Client::connect_unix(socket, Options::default()).expect("it listens");
    let client = client.go(volume, &[]).expect("it is there");
    // Number n was written to place n of 1024, over the one 1024 before it.
    let at = |number: u64| number % 1024 * 4096;
    for number in (before.saturating_sub(1000).max(1))..=before {
        let bytes = client.read(at(number), 4096).expect("it is read");
        assert_eq!(
            bytes,
            number.to_le_bytes().repeat(512),
            "{volume}: {number} of {before}"
        );
    }
    let mut number = before;
    // One more may have been done without an answer.
    while client
        .write(
            at(number + 1),
            &(number + 1).to_le_bytes().repeat(512),
            false,
        )
        .is_ok()
    {
        number += 1;
        answered.fetch_add(1, Ordering::SeqCst);
    }
    number
}

/// A few writes of numbers, then a flush. `false` when the server is gone.
fn write_some(
    client: &Connection,
    base: u64,
    places: u64,
    flushed: &[AtomicU64],
    sent: &[AtomicU64],
    next: &AtomicU64,
    dice: &mut Dice,
) -> bool {
    let mut written = Vec::new();
    for _ in 0..=dice.below(16) {
        let place = dice.below(places);
        let number = next.fetch_add(1, Ordering::SeqCst);
        sent[(base + place) as usize].store(number, Ordering::SeqCst);
        let bytes = number.to_le_bytes().repeat(512);
        if client.write(place * 16_384, &bytes, false).is_err() {
            return false;
        }
        written.push((place, number));
    }
    if client.flush().is_err() {
        return false;
    }
    for (place, number) in written {
        flushed[(base + place) as usize].store(number, Ordering::SeqCst);
    }
    true
}

/// Each place holds what was flushed there last, or something that was sent later, whole blocks of it.
fn verify(server: &Server, flushed: &[AtomicU64], sent: &[AtomicU64], places: u64) {
    for (n, volume) in ["a", "b"].iter().enumerate() {
        let client = server.client(volume);
        for place in 0..places {
            let bytes = client.read(place * 16_384, 4096).expect("it is read");
            let number = u64::from_le_bytes(bytes[..8].try_into().expect("eight bytes"));
            let at = (n as u64 * places + place) as usize;
            let least = flushed[at].load(Ordering::SeqCst);
            let most = sent[at].load(Ordering::SeqCst);
            assert!(
                (least..=most).contains(&number),
                "{volume} {place}: {least} {number} {most}"
            );
            assert!(
                bytes == number.to_le_bytes().repeat(512),
                "{volume} {place} is torn"
            );
            // What is there now was not lost, whatever it was.
            flushed[at].store(number, Ordering::SeqCst);
            sent[at].store(number, Ordering::SeqCst);
        }
        client.flush().expect("a flush");
    }
}

#[test]
fn no_snapshot_of_a_group_shows_a_later_write_without_an_earlier_one() {
    let home = home_with(&["a", "b"], "1M");
    let server = Server::start(&home, &[]);
    let stop = AtomicBool::new(false);
    let made = std::thread::scope(|scope| {
        scope.spawn(|| {
            let clients = [server.client("a"), server.client("b")];
            let mut number = 1u64;
            while !stop.load(Ordering::SeqCst) {
                let client = &clients[(number % 2) as usize];
                client
                    .write(0, &number.to_le_bytes(), false)
                    .expect("a write");
                number += 1;
            }
        });
        let names: Vec<String> = (0..10).map(|n| format!("s{n}")).collect();
        for name in &names {
            home.ok(&["create", name]);
        }
        stop.store(true, Ordering::SeqCst);
        names
    });
    let mut last = 0;
    for name in made {
        let number = |volume: &str| {
            let client = server.client(&format!("{volume}@{name}"));
            let bytes = client.read(0, 8).expect("it is read");
            u64::from_le_bytes(bytes.try_into().expect("eight bytes"))
        };
        let (a, b) = (number("a"), number("b"));
        assert!(a.abs_diff(b) <= 1, "{name}: {a} and {b}");
        last = last.max(a.max(b));
    }
    assert!(last > 2, "nothing was written");
    server.stop().code(0);
}

#[test]
fn much_that_was_written_goes_into_the_store_while_guests_write_on() {
    let home = home_with(&["vm"], "16M");
    let server = Server::start(&home, &["--overlay-limit", "1M"]);
    let client = server.client("vm");
    let mut dice = Dice::new(12);
    let mut model = vec![0; 16 * MIB];
    for n in 0..4 {
        let bytes = dice.bytes(MIB);
        client
            .write(n * MIB as u64, &bytes, false)
            .expect("a write");
        model[n as usize * MIB..][..MIB].copy_from_slice(&bytes);
    }
    let stored = (0..6000).any(|_| {
        change(&client, &mut model, &mut dice);
        std::thread::sleep(std::time::Duration::from_millis(10));
        home.pack_bytes() > 3 << 20
    });
    assert!(stored, "{}", server.log());
    check(&client, &model);
    assert!(home.snapshots().is_empty());
    drop(client);
    server.stop().code(0);
    let _server = Server::start(&home, &[]);
    assert_eq!(home.export("vm"), blake3::hash(&model));
}
