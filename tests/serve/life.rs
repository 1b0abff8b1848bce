//! Starting, stopping, and who may come.

use crate::server::{Server, run_tool};
use crate::support::{Dice, Home, has, make_image, run, tool};
use std::fs;
use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::net::{UnixDatagram, UnixListener, UnixStream};
use std::process::{Command, Stdio};
use std::time::Duration;
use stillpoint_nbd::client::{Client, Options};

/// Far more than anything here needs.
const LONG: Duration = Duration::from_mins(1);

fn home_with_a_snapshot() -> Home {
    let home = Home::new();
    make_image(&home.path("web1.raw"), 1 << 20, &mut Dice::new(4));
    home.ok(&["device", "add", "web1", "web1.raw"]);
    home.ok(&["create", "monday"]);
    home
}

#[test]
fn a_signal_ends_it_in_good_order() {
    let home = home_with_a_snapshot();
    let server = Server::start(&home, &["--log", "json"]);
    let client = server.client("web1@monday");
    client.read(0, 512).expect("it is read");
    assert!(server.refuses("nothing"));
    let (socket, log) = (server.socket.clone(), home.path("serve.log"));
    server.stop().code(0);
    assert!(!socket.exists(), "the socket's file is gone");
    let lines = fs::read_to_string(log).expect("a log");
    for line in lines.lines() {
        let line: serde_json::Value = serde_json::from_str(line).expect("a JSON object a line");
        assert!(
            line["level"].is_string() && line["message"].is_string(),
            "{line}"
        );
    }
    assert!(lines.contains(r#""export":"web1@monday""#), "{lines}");
    let of_nothing = lines.lines().filter(|l| l.contains(r#""nothing""#));
    let of_nothing: Vec<&str> = of_nothing.collect();
    assert!(
        of_nothing.len() == 1 && of_nothing[0].contains("not opened"),
        "{lines}"
    );
    // Nothing is claimed any more.
    let stats = home.json(&["gc", "--dry-run"]);
    assert_eq!(stats["pinned_bytes"], 0, "{stats}");
}

#[test]
fn without_an_address_it_is_usage_and_a_taken_one_is_busy() {
    let home = home_with_a_snapshot();
    home.run(&["serve"]).code(2).says("--nbd");
    let server = Server::start(&home, &[]);
    let nbd = format!("unix:{}", server.socket.display());
    home.run(&["serve", "--nbd", &nbd]).code(5).says("in use");
    server.stop().code(0);
    fs::write(home.path("nbd.sock"), "precious").expect("it is written");
    home.run(&["serve", "--nbd", &nbd]).code(5);
    assert_eq!(
        fs::read(home.path("nbd.sock")).expect("still there"),
        b"precious"
    );
}

#[test]
fn a_server_that_was_killed_leaves_nothing_in_the_way_of_the_next() {
    let home = home_with_a_snapshot();
    drop(Server::start(&home, &[]));
    assert!(
        home.path("nbd.sock").exists(),
        "a killed server cleans nothing up"
    );
    let server = Server::start(&home, &[]);
    server.client("web1@monday");
    server.stop().code(0);
}

#[test]
fn sockets_that_systemd_hands_over_are_served_and_stay() {
    let home = home_with_a_snapshot();
    let socket = home.path("nbd.sock");
    let listener = UnixListener::bind(&socket).expect("a socket");
    for _ in 0..2 {
        // As systemd does it: descriptor 3, and the number of the process that is meant.
        let script =
            "exec 3<&0 0</dev/null; LISTEN_PID=$$ LISTEN_FDS=1 exec \"$0\" --store store serve";
        let mut command = Command::new("sh");
        command
            .current_dir(home.path("."))
            .args(["-c", script, env!("CARGO_BIN_EXE_still")])
            .stdin(Stdio::from(OwnedFd::from(
                listener.try_clone().expect("a copy"),
            )));
        let server = Server::run(&home, command);
        server.client("web1@monday");
        server.stop().code(0);
        assert!(socket.exists(), "it is not ours to remove");
    }
}

#[test]
fn one_client_too_many_is_turned_away_and_hurts_nobody() {
    let home = home_with_a_snapshot();
    let server = Server::start(&home, &["--connections", "2"]);
    let clients = [server.client("web1@monday"), server.client("web1@monday")];
    if has("one_client_too_many", &["nbdinfo"]) {
        let ran = run(tool("nbdinfo").arg(server.uri("web1@monday")));
        assert!(!ran.status.success(), "{}", ran.story());
    }
    for client in &clients {
        client.read(0, 512).expect("it is read");
    }
    server.stop().code(0);
}

const UNIT: &str = include_str!("../../serve/systemd/still-serve.service");
const SOCKET_UNIT: &str = include_str!("../../serve/systemd/still-serve.socket");

/// Where the unit expects the program.
const INSTALLED: &str = "/usr/local/bin/still";

#[test]
fn the_unit_starts_it_and_systemd_hears_when_it_is_ready_and_when_it_stops() {
    let home = home_with_a_snapshot();
    let notify = UnixDatagram::bind(home.path("notify")).expect("a socket");
    notify.set_read_timeout(Some(LONG)).expect("a timeout");
    let line = UNIT.lines().find_map(|l| l.strip_prefix("ExecStart="));
    let words = line.and_then(|l| l.strip_prefix(INSTALLED));
    let words = words.expect("it starts the program");
    let script = format!(
        "exec 3<&0 0</dev/null; LISTEN_PID=$$ LISTEN_FDS=1 exec \"$0\" --store store {words}"
    );
    let listener = UnixListener::bind(home.path("nbd.sock")).expect("a socket");
    let mut command = Command::new("sh");
    command
        .current_dir(home.path("."))
        .env("NOTIFY_SOCKET", home.path("notify"))
        .args(["-c", &script, env!("CARGO_BIN_EXE_still")])
        .stdin(Stdio::from(OwnedFd::from(listener)));
    let server = Server::run(&home, command);
    let hear = || {
        let mut bytes = [0; 100];
        let n = notify.recv(&mut bytes).expect("a message");
        String::from_utf8_lossy(&bytes[..n]).into_owned()
    };
    assert_eq!(hear().trim(), "READY=1");
    server.client("web1@monday");
    server.stop().code(0);
    assert_eq!(hear().trim(), "STOPPING=1");
}

#[test]
fn systemd_finds_nothing_wrong_with_the_units() {
    if !has("systemd_finds_nothing_wrong", &["systemd-analyze"]) {
        return;
    }
    let folder = tempfile::tempdir().expect("a folder");
    let (unit, socket) = ("still-serve.service", "still-serve.socket");
    let here = UNIT.replace(INSTALLED, env!("CARGO_BIN_EXE_still"));
    fs::write(folder.path().join(unit), here).expect("it is written");
    fs::write(folder.path().join(socket), SOCKET_UNIT).expect("it is written");
    let ran = run(tool("systemd-analyze")
        .current_dir(folder.path())
        .args(["verify", unit, socket]));
    let ran = ran.code(0);
    // What it does not understand it only warns of.
    assert!(!ran.err.contains("still-serve"), "{}", ran.story());
}

/// Past the old handshake, without chunked replies.
fn raw(server: &Server, export: &str) -> UnixStream {
    let mut peer = UnixStream::connect(&server.socket).expect("it listens");
    peer.set_read_timeout(Some(LONG)).expect("a timeout");
    peer.read_exact(&mut [0; 18]).expect("a first word");
    let mut hello = 3u32.to_be_bytes().to_vec();
    hello.extend_from_slice(b"IHAVEOPT\0\0\0\x01");
    hello.extend_from_slice(&(export.len() as u32).to_be_bytes());
    hello.extend_from_slice(export.as_bytes());
    peer.write_all(&hello).expect("it listens");
    peer.read_exact(&mut [0; 10]).expect("it is there");
    peer
}

fn request(command: u16, length: u32) -> Vec<u8> {
    let mut bytes = 0x2560_9513u32.to_be_bytes().to_vec();
    bytes.extend_from_slice(&[0, 0]);
    bytes.extend_from_slice(&command.to_be_bytes());
    bytes.extend_from_slice(&[0; 16]);
    bytes.extend_from_slice(&length.to_be_bytes());
    bytes
}

#[test]
fn a_flood_of_clients_that_stall_takes_little_memory_and_stops_nobody() {
    let home = Home::new();
    home.ok(&["volume", "create", "vm", "--size", "32M"]);
    let server = Server::start(&home, &["--cache", "8M"]);
    let guest = server.client("vm");
    let noise = Dice::new(6).bytes(1 << 20);
    guest.write(0, &noise, true).expect("a write");
    let before = server.peak_rss();
    // Writes that never end, and the longest reads without anybody who takes the answer.
    let most = 32 << 20;
    let part = vec![0xee; 31 << 20];
    let mut held: Vec<UnixStream> = Vec::new();
    for _ in 0..12 {
        let mut writer = raw(&server, "vm");
        writer.write_all(&request(1, most)).expect("it is taken");
        writer.write_all(&part).expect("it is taken");
        let mut reader = raw(&server, "vm");
        let reads = request(0, most).repeat(3);
        reader.write_all(&reads).expect("it is taken");
        held.extend([writer, reader]);
    }
    for _ in 0..50 {
        guest.write(31 << 20, &noise, false).expect("a write");
        assert_eq!(guest.read(31 << 20, 1 << 20).expect("it is read"), noise);
    }
    guest.flush().expect("a flush");
    let took = server.peak_rss() - before;
    eprintln!(
        "12 writers and 12 readers who stalled took {} KiB",
        took >> 10
    );
    // Long reads may have 128 MiB of all connections together, a connection a few. Held in full they were 768.
    assert!(took < 256 << 20, "{took} bytes");
    drop(held);
    server.stop().code(0);
}

#[test]
fn clients_leave_the_store_its_open_files() {
    let home = home_with_a_snapshot();
    // Room for a hundred of the clients that are to come.
    let mut command = Command::new("sh");
    let script =
        "ulimit -Sn 256; ulimit -Hn 912; exec \"$0\" --store store serve --nbd unix:nbd.sock";
    command
        .current_dir(home.path("."))
        .args(["-c", script, env!("CARGO_BIN_EXE_still")]);
    let server = Server::run(&home, command);
    let log = server.log();
    assert!(log.contains("connections=100"), "{log}");
    let clients: Vec<_> = (0..99).map(|_| raw(&server, "web1@monday")).collect();
    let last = server.client("web1@monday");
    assert_eq!(last.read(0, 1 << 20).expect("it is read").len(), 1 << 20);
    let mut refused = UnixStream::connect(&server.socket).expect("it listens");
    assert_eq!(refused.read(&mut [0]).unwrap_or(0), 0, "one too many");
    home.ok(&["create", "tuesday"]);
    assert_eq!(
        server_reads(&server, clients, "web1@tuesday"),
        1 << 20,
        "who comes next is served"
    );
    server.stop().code(0);
}

/// Lets one of the clients go, and reads for somebody else.
fn server_reads(server: &Server, mut clients: Vec<UnixStream>, export: &str) -> usize {
    clients.pop();
    for _ in 0..1000 {
        std::thread::sleep(Duration::from_millis(10));
        let client = Client::connect_unix(&server.socket, Options::default());
        let disk = client.and_then(|client| client.go(export, &[]));
        if let Ok(disk) = disk {
            return disk.read(0, 1 << 20).expect("it is read").len();
        }
    }
    0
}

#[test]
fn with_certificates_only_who_has_one_is_served() {
    if !has("with_certificates", &["nbdinfo", "openssl", "sh"]) {
        return;
    }
    let home = home_with_a_snapshot();
    let folder = home.path("pki");
    fs::create_dir(&folder).expect("a folder");
    let script = "
        openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj /CN=ca \
            -keyout ca-key.pem -out ca-cert.pem
        for r in server client; do
          openssl req -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -subj /CN=$r \
            -keyout $r-key.pem -out $r.csr
          printf 'subjectAltName=DNS:localhost,IP:127.0.0.1\\nextendedKeyUsage=%sAuth\\n' $r |
            openssl x509 -req -in $r.csr -CA ca-cert.pem -CAkey ca-key.pem -CAcreateserial -days 2 \
              -extfile /dev/stdin -out $r-cert.pem
        done";
    run(tool("sh").current_dir(&folder).args(["-ec", script])).code(0);
    let pki = folder.display().to_string();
    let more = [
        "--nbd",
        "tcp:127.0.0.1:0",
        "--tls-certificates",
        &pki,
        "--tls-verify-peer",
    ];
    let server = Server::start(&home, &more);
    let log = server.log();
    let port = log
        .split("tcp:127.0.0.1:")
        .nth(1)
        .and_then(|rest| rest.split(|c: char| !c.is_ascii_digit()).next())
        .expect("the log has the port");
    let uri = format!("nbds://localhost:{port}/web1%40monday?tls-certificates={pki}");
    run_tool("nbdinfo", &["--size", &uri]);
    let plain = format!("nbd://localhost:{port}/web1%40monday");
    let ran = run(tool("nbdinfo").args(["--size", &plain]));
    assert!(!ran.status.success(), "{}", ran.story());
    server.stop().code(0);
}

/// A number of what a server with its numbers in `metrics.sock` tells.
fn number(home: &Home, name: &str) -> f64 {
    use std::io::{Read, Write};
    let path = home.path("metrics.sock");
    let mut stream = std::os::unix::net::UnixStream::connect(path).expect("it listens");
    let request = b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n";
    stream.write_all(request).expect("it is taken");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("an answer");
    let line = answer
        .lines()
        .find_map(|l| l.strip_prefix(name)?.strip_prefix(' '));
    let number = line.and_then(|number| number.parse::<f64>().ok());
    number.unwrap_or_else(|| panic!("{name}: {answer}"))
}

#[test]
fn who_reads_a_clone_in_order_is_read_ahead_for() {
    let home = home_with_a_snapshot();
    home.ok(&["volume", "create", "vm", "--from", "web1@monday"]);
    let metrics = format!("unix:{}", home.path("metrics.sock").display());
    let server = Server::start(&home, &["--metrics", &metrics]);
    let client = server.client("vm");
    for at in [12, 3, 7].map(|n| n << 16) {
        client.read(at, 4096).expect("it is read");
    }
    let ahead = || number(&home, "stillpoint_read_ahead_bytes_total");
    assert!(ahead() < 1.0, "here and there");
    for n in 0..8 {
        client.read(n << 16, 1 << 16).expect("it is read");
    }
    assert!(ahead() > 0.0);
    drop(client);
    server.stop().code(0);
}

#[test]
fn numbers_for_prometheus_are_there() {
    let home = home_with_a_snapshot();
    let path = home.path("metrics.sock");
    let metrics = format!("unix:{}", path.display());
    let server = Server::start(&home, &["--metrics", &metrics]);
    let client = server.client("web1@monday");
    client.read(0, 1 << 20).expect("it is read");
    let number = |name: &str| number(&home, name);
    assert!(number("stillpoint_read_bytes_total") >= f64::from(1 << 20));
    assert!(number("stillpoint_nbd_connections") >= 1.0);
    assert_eq!(number("stillpoint_snapshots") as u64, 1);
    assert_eq!(number("stillpoint_read_errors_total") as u64, 0);
    drop(client);
    server.stop().code(0);
    assert!(!path.exists());
}

#[test]
fn a_socket_that_systemd_calls_qmp_is_a_control_socket() {
    let home = home_with_a_snapshot();
    let listen = |name: &str| {
        let listener = UnixListener::bind(home.path(name)).expect("a socket");
        Stdio::from(OwnedFd::from(listener))
    };
    let script = "exec 3<&0 4<&1 0</dev/null 1>&2; \
                  LISTEN_PID=$$ LISTEN_FDS=2 LISTEN_FDNAMES=nbd:qmp exec \"$0\" --store store serve";
    let mut command = Command::new("sh");
    command
        .current_dir(home.path("."))
        .args(["-c", script, env!("CARGO_BIN_EXE_still")])
        .stdin(listen("nbd.sock"));
    let server = Server::with_output(&home, command, listen("qmp.sock"));
    server.client("web1@monday");
    let qmp = std::os::unix::net::UnixStream::connect(home.path("qmp.sock"));
    let mut greeting = [0; 8];
    let mut qmp = qmp.expect("it listens");
    qmp.read_exact(&mut greeting).expect("a greeting");
    assert_eq!(&greeting, b"{\"QMP\":{");
}
