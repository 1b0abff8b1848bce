//! Our server with the clients that people use, and our client with their servers.

#![allow(clippy::unwrap_used, reason = "tests say what went wrong by the panic")]

mod support;

use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use stillpoint_nbd::client::{Client, Options as ClientOptions, ServerTls};
use stillpoint_nbd::codec::{Extents, Mode};
use stillpoint_nbd::server::{Options, Server, Tls};
use stillpoint_nbd::{
    Address, BASE_ALLOCATION, Export, ExportInfo, Failure, FileExport, MemoryExport, Named, Uri,
    ZeroMode, tls,
};
use support::{Served, Theirs, certificates, daemon, disk, has, ok, tool, write_sparse};

const MIB: usize = 1 << 20;

#[test]
fn nbdinfo_sees_what_the_server_offers() {
    if !has("nbdinfo_sees_what_the_server_offers", &["nbdinfo"]) {
        return;
    }
    let (served, _) = Served::memory(disk(1, 4 * MIB));
    let text = ok(tool("nbdinfo").arg(served.uri()));
    for line in [
        "protocol: newstyle-fixed without TLS, using structured packets",
        "export-size: 4194304",
        "base:allocation",
        "can_cache: true",
        "can_df: true",
        "can_fast_zero: true",
        "can_flush: true",
        "can_fua: true",
        "can_multi_conn: true",
        "can_trim: true",
        "can_zero: true",
        "is_read_only: false",
        "block_size_maximum: 33554432",
    ] {
        assert!(text.contains(line), "{line} not in {text}");
    }
    let list = ok(tool("nbdinfo").arg("--list").arg(served.uri()));
    assert!(list.contains("export=\"disk\""), "{list}");
}

#[test]
fn nbdcopy_copies_there_and_back() {
    if !has("nbdcopy_copies_there_and_back", &["nbdcopy"]) {
        return;
    }
    let bytes = disk(2, 20 * MIB + 512);
    let (served, path) = Served::file(&bytes);
    let out = served.path("out.raw");
    ok(tool("nbdcopy").arg(served.uri()).arg(&out));
    assert!(fs::read(&out).unwrap() == bytes, "what came differs");
    let other = disk(3, bytes.len());
    write_sparse(&out, &other);
    ok(tool("nbdcopy").arg("--flush").arg(&out).arg(served.uri()));
    assert!(fs::read(&path).unwrap() == other, "what went differs");
    served.ends_empty();
}

/// Every option and command by hand, with good and bad arguments.
const NBDSH: &str = r#"
import errno, os, nbd
def fails(code, call):
    try:
        call()
    except nbd.Error as e:
        assert code is None or e.errnum == code, (e, code)
        return
    raise AssertionError("it does not fail")
uri = os.environ["SOCKET"]
h.set_opt_mode(True)
h.connect_unix(uri)
assert h.get_protocol() == "newstyle-fixed"
assert h.get_structured_replies_negotiated()
names = []
assert h.opt_list(lambda n, d: names.append(n)) == 1 and names == ["disk"]
h.set_export_name("nothing")
fails(errno.ENOENT, h.opt_info)
fails(errno.ENOENT, h.opt_go)
h.set_export_name("disk")
seen = []
h.opt_list_meta_context(lambda n: seen.append(n))
assert seen == ["base:allocation"], seen
seen.clear()
h.add_meta_context("base:")
h.add_meta_context("qemu:")
h.opt_list_meta_context(lambda n: seen.append(n))
assert seen == ["base:allocation"], seen
h.clear_meta_contexts()
h.set_full_info(True)
h.opt_info()
assert h.get_size() == 4 << 20
h.add_meta_context("base:allocation")
h.opt_go()
assert h.can_meta_context("base:allocation")
h.pwrite(b"x" * 70000, 1 << 20, nbd.CMD_FLAG_FUA)
assert bytes(h.pread(70002, (1 << 20) - 1)) == b"\0" + b"x" * 70000 + b"\0"
h.zero(65536, 1 << 20, nbd.CMD_FLAG_NO_HOLE | nbd.CMD_FLAG_FAST_ZERO)
assert bytes(h.pread(70000, 1 << 20)) == b"\0" * 65536 + b"x" * 4464
h.trim(4096, (1 << 20) + 65536)
h.cache(4096, 0)
h.flush()
extents = []
h.block_status(4 << 20, 0, lambda c, o, e, err: extents.extend(e))
assert extents[:2] == [(1 << 20) + 69632, 3], extents
assert sum(extents[::2]) == 4 << 20
extents = []
h.block_status(4 << 20, 0, lambda c, o, e, err: extents.extend(e), nbd.CMD_FLAG_REQ_ONE)
assert len(extents) == 2, extents
h.set_strict_mode(0)
fails(errno.EINVAL, lambda: h.pread(4096, 4 << 20))
fails(errno.ENOSPC, lambda: h.pwrite(b"x" * 4096, (4 << 20) - 1))
fails(errno.ENOSPC, lambda: h.zero(4096, (4 << 20) - 1))
fails(errno.EINVAL, lambda: h.trim(4096, (4 << 20) - 1))
fails(errno.EINVAL, lambda: h.pread(512, 0, nbd.CMD_FLAG_FAST_ZERO))
fails(errno.EINVAL, lambda: h.flush(1 << 9))
assert len(h.pread(1 << 20, 0, nbd.CMD_FLAG_DF)) == 1 << 20
assert len(h.pread(4 << 20, 0, nbd.CMD_FLAG_DF)) == 4 << 20
assert len(h.pread(0, 0)) == 0
h.pwrite(b"y" * (3 << 20), 1 << 20, nbd.CMD_FLAG_FUA)
assert bytes(h.pread((3 << 20) + 1, (1 << 20) - 1)) == b"\0" + b"y" * (3 << 20)
h.zero(3 << 20, 1 << 20)
h.pwrite(b"x" * 368, (1 << 20) + 69632)
cookies = [h.aio_pread(nbd.Buffer(4096), n * 4096) for n in range(50)]
while h.aio_in_flight() > 0:
    h.poll(-1)
    for c in list(cookies):
        if h.aio_command_completed(c):
            cookies.remove(c)
h.shutdown()
a = nbd.NBD()
a.set_opt_mode(True)
a.connect_unix(uri)
a.opt_abort()
p = nbd.NBD()
p.set_request_structured_replies(False)
p.set_export_name("disk")
p.connect_unix(uri)
assert not p.get_structured_replies_negotiated()
assert bytes(p.pread(4464, (1 << 20) + 65536)) == b"\0" * 4096 + b"x" * 368
p.shutdown()
q = nbd.NBD()
q.set_handshake_flags(0)
q.set_export_name("disk")
q.connect_unix(uri)
assert q.get_size() == 4 << 20 and len(q.pread(512, 0)) == 512
q.shutdown()
"#;

#[test]
fn nbdsh_gets_the_right_answer_to_everything() {
    if !has("nbdsh_gets_the_right_answer_to_everything", &["nbdsh"]) {
        return;
    }
    let (served, _) = Served::memory(vec![0; 4 * MIB]);
    let mut command = tool("nbdsh");
    command.env("SOCKET", served.socket()).args(["-c", NBDSH]);
    ok(&mut command);
    served.ends_empty();
}

#[test]
fn a_read_only_export_takes_no_writes_from_qemu_or_libnbd() {
    let name = "a_read_only_export_takes_no_writes_from_qemu_or_libnbd";
    if !has(name, &["nbdsh", "qemu-io"]) {
        return;
    }
    let bytes = disk(4, MIB);
    let exports = Named::one("disk", MemoryExport::read_only(bytes));
    let served = Served::new(exports, Options::default());
    let script = "h.set_strict_mode(0)\n\
        for call in (lambda: h.pwrite(b'x' * 512, 0), lambda: h.zero(512, 0), lambda: h.trim(512, 0)):\n\
        \x20   try: call()\n\
        \x20   except nbd.Error as e: assert e.errnum in (errno.EPERM, errno.EINVAL), e\n\
        \x20   else: raise AssertionError('it was written')\n";
    let script = format!("import errno\n{script}");
    ok(tool("nbdsh").args(["-u", &served.uri(), "-c", &script]));
    let write = tool("qemu-io")
        .args(["-f", "raw", "-c", "write 0 512", &served.uri()])
        .output()
        .unwrap();
    assert!(!write.status.success(), "{}", support::story(&write));
}

#[test]
fn qemu_converts_compares_maps_and_writes() {
    let name = "qemu_converts_compares_maps_and_writes";
    if !has(name, &["qemu-img", "qemu-io"]) {
        return;
    }
    let bytes = disk(5, 16 * MIB);
    let (served, path) = Served::file(&bytes);
    let uri = served.uri();
    let out = served.path("out.raw");
    ok(tool("qemu-img")
        .args(["convert", "-f", "raw", "-O", "raw", &uri])
        .arg(&out));
    assert!(fs::read(&out).unwrap() == bytes, "what came differs");
    ok(tool("qemu-img")
        .args(["compare", "-f", "raw", "-F", "raw", &uri])
        .arg(&out));
    let map = |of: &str| ok(tool("qemu-img").args(["map", "--output=json", "-f", "raw", of]));
    let ours = without_offsets(&map(&uri));
    assert_eq!(ours, without_offsets(&map(path.to_str().unwrap())));
    ok(tool("qemu-img")
        .args(["convert", "-n", "-f", "raw", "-O", "raw"])
        .arg(&out)
        .arg(&uri));
    let commands = [
        "write -P 7 1M 64k",
        "write -f -P 8 2M 4k",
        "write -z 3M 128k",
        "discard 4M 1M",
        "flush",
        "read -P 7 1M 64k",
        "read -P 0 3M 128k",
        "aio_write -P 9 5M 1M",
        "aio_flush",
        "read -P 9 5M 1M",
    ];
    let mut io = tool("qemu-io");
    io.args(["-f", "raw"]);
    commands.iter().for_each(|c| {
        io.args(["-c", c]);
    });
    let text = ok(io.arg(&uri));
    assert!(!text.contains("failed"), "{text}");
    let mut expected = bytes;
    expected[MIB..][..64 << 10].fill(7);
    expected[2 * MIB..][..4096].fill(8);
    expected[3 * MIB..][..128 << 10].fill(0);
    expected[4 * MIB..][..MIB].fill(0);
    expected[5 * MIB..][..MIB].fill(9);
    assert!(
        fs::read(&path).unwrap() == expected,
        "what was written differs"
    );
    ok(tool("qemu-img").args(["bench", "-c", "500", "-d", "16", "-f", "raw", &uri]));
    ok(tool("qemu-img").args(["bench", "-w", "-c", "500", "-d", "16", "-f", "raw", &uri]));
    served.ends_empty();
}

/// A map of an image as (start, zero, data) texts: where in which file the data lie differs.
fn without_offsets(map: &str) -> Vec<String> {
    let lines = map.lines().map(|line| {
        let keep = |part: &&str| {
            ["\"start\"", "\"length\"", "\"zero\"", "\"data\""]
                .iter()
                .any(|k| part.contains(k))
        };
        line.split(", ").filter(keep).collect::<Vec<_>>().join(", ")
    });
    lines.collect()
}

#[test]
fn fio_finds_what_it_wrote() {
    if !has("fio_finds_what_it_wrote", &["fio"]) {
        return;
    }
    let engines = ok(tool("fio").arg("--enghelp"));
    if !engines.contains("nbd") {
        eprintln!("SKIP SKIP SKIP fio_finds_what_it_wrote: fio has no nbd engine");
        return;
    }
    let (served, _) = Served::file(&vec![0; 16 * MIB]);
    let uri = format!("--uri={}", served.uri());
    let mut fio = tool("fio");
    fio.current_dir(served.path(""));
    fio.args([
        "--name=x",
        "--ioengine=nbd",
        "--rw=randwrite",
        "--bsrange=4k-64k",
        "--size=16m",
    ]);
    fio.args([
        "--iodepth=16",
        "--verify=crc32c",
        "--verify_fatal=1",
        "--verify_state_save=0",
        &uri,
    ]);
    ok(&mut fio);
}

#[test]
fn both_reference_clients_speak_tls_to_us() {
    let name = "both_reference_clients_speak_tls_to_us";
    if !has(name, &["nbdinfo", "nbdcopy", "qemu-img"]) {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    certificates(folder.path());
    let bytes = disk(6, 8 * MIB);
    let image = folder.path().join("disk.raw");
    fs::write(&image, &bytes).unwrap();
    let options = Options {
        tls: Tls::Required(tls::server(folder.path(), true).unwrap()),
        ..Options::default()
    };
    let export = FileExport::read_only(&image).unwrap();
    let server = Server::new(Arc::new(Named::one("disk", export)), options);
    let port = server.listen_tcp("127.0.0.1:0").unwrap().port();
    let dir = folder.path().display();
    let uri = format!("nbds://localhost:{port}/disk?tls-certificates={dir}");
    let text = ok(tool("nbdinfo").arg(&uri));
    assert!(text.contains("with TLS"), "{text}");
    let out = folder.path().join("out.raw");
    ok(tool("nbdcopy").arg(&uri).arg(&out));
    assert!(
        fs::read(&out).unwrap() == bytes,
        "nbdcopy got something else"
    );
    let credentials = format!("tls-creds-x509,id=c,endpoint=client,dir={dir}");
    let source = format!("driver=nbd,host=localhost,port={port},tls-creds=c,export=disk");
    ok(tool("qemu-img")
        .args(["convert", "--object", &credentials, "--image-opts", &source])
        .args(["-O", "raw"])
        .arg(&out));
    assert!(
        fs::read(&out).unwrap() == bytes,
        "qemu-img got something else"
    );
    let plain = format!("nbd://localhost:{port}/disk");
    assert!(
        !tool("nbdinfo")
            .arg(&plain)
            .output()
            .unwrap()
            .status
            .success()
    );
}

/// A disk of 8 TiB of nothing that remembers the longest range it was asked about.
struct Wide(AtomicU64);

impl Export for Wide {
    fn info(&self) -> ExportInfo {
        ExportInfo::read_only(8 << 40)
    }

    fn read(&self, buf: &mut [u8], _offset: u64) -> Result<(), Failure> {
        buf.fill(0);
        Ok(())
    }

    fn block_status(
        &self,
        _context: &str,
        _offset: u64,
        len: u64,
        extents: &mut Extents,
    ) -> Result<(), Failure> {
        self.0.fetch_max(len, Ordering::Relaxed);
        extents.push(len, 3);
        Ok(())
    }
}

#[test]
fn qemu_uses_extended_headers_with_us() {
    if !has("qemu_uses_extended_headers_with_us", &["qemu-img"]) {
        return;
    }
    // They came with QEMU 8.2.
    let version = ok(tool("qemu-img").arg("--version"));
    let number = version.split_whitespace().nth(2).unwrap_or_default();
    let mut parts = number
        .split('.')
        .map(|part| part.parse::<u32>().unwrap_or(0));
    if (parts.next(), parts.next()) < (Some(8), Some(2)) {
        eprintln!("SKIP SKIP SKIP qemu_uses_extended_headers_with_us: {version}");
        return;
    }
    let wide = Arc::new(Wide(AtomicU64::new(0)));
    let exports = Named::default().and("disk", wide.clone());
    let served = Served::new(exports, Options::default());
    let map = ok(tool("qemu-img").args(["map", "--output=json", "-f", "raw", &served.uri()]));
    assert!(map.contains("8796093022208"), "{map}");
    let longest = wide.0.load(Ordering::Relaxed);
    assert!(
        longest > u64::from(u32::MAX),
        "it asked for {longest} bytes at most"
    );
}

/// What our client must be able to do with any server.
fn exercise(client: Client, export: &str, bytes: &[u8], mode: Mode) {
    assert_eq!(client.mode(), mode);
    let disk = client.go(export, &[BASE_ALLOCATION]).unwrap();
    assert_eq!(disk.info().size, bytes.len() as u64);
    let starts: Vec<u64> = (0..bytes.len() as u64).step_by(256 << 10).collect();
    let len = |at: u64| (bytes.len() - at as usize).min(256 << 10);
    let pending: Vec<_> = starts
        .iter()
        .map(|at| disk.start_read(*at, len(*at)).unwrap())
        .collect();
    for (at, pending) in starts.iter().zip(pending) {
        assert!(
            pending.wait().unwrap() == bytes[*at as usize..][..len(*at)],
            "{at} differs"
        );
    }
    if !disk.contexts().is_empty() {
        let map = disk.map(0, 0, bytes.len() as u64).unwrap();
        assert_eq!(
            map.iter().map(|e| e.length).sum::<u64>(),
            bytes.len() as u64
        );
        let mut at = 0;
        for extent in map {
            let part = &bytes[at..][..extent.length as usize];
            assert!(
                extent.flags & 2 == 0 || part.iter().all(|b| *b == 0),
                "no zeroes at {at}"
            );
            at += part.len();
        }
    }
    disk.write(4096, &[5; 10_000], false).unwrap();
    assert_eq!(disk.read(4095, 10_002).unwrap()[1..10_001], [5; 10_000]);
    if disk
        .info()
        .has(stillpoint_nbd::codec::transmission::SEND_WRITE_ZEROES)
    {
        disk.zero(4096, 4096, ZeroMode::default()).unwrap();
        assert_eq!(disk.read(4096, 4096).unwrap(), [0; 4096]);
    }
    disk.trim(8192, 4096, false).unwrap();
    disk.flush().unwrap();
    assert!(disk.read(bytes.len() as u64, 512).is_err());
    assert_eq!(
        disk.read(0, 16).unwrap(),
        bytes[..16],
        "an error ends the connection"
    );
}

#[test]
fn our_client_gets_on_with_qemu_nbd() {
    if !has("our_client_gets_on_with_qemu_nbd", &["qemu-nbd"]) {
        return;
    }
    let bytes = disk(7, 8 * MIB);
    for ask in [Mode::Simple, Mode::Structured, Mode::Extended] {
        let folder = tempfile::tempdir().unwrap();
        let image = folder.path().join("disk.raw");
        write_sparse(&image, &bytes);
        let socket = folder.path().join("socket");
        let mut command = daemon("qemu-nbd");
        command.args([
            "-t",
            "-e",
            "4",
            "-f",
            "raw",
            "--discard=unmap",
            "-x",
            "disk",
            "-k",
        ]);
        command.arg(&socket).arg(&image);
        let theirs = Theirs::start(&mut command, Address::Unix(socket));
        let options = ClientOptions {
            ask,
            ..ClientOptions::default()
        };
        let mut client = theirs.client(&options);
        assert_eq!(client.list().unwrap()[0].name, "disk");
        // Extended headers came with QEMU 8.2.
        let mode = client.mode();
        assert!(mode == ask || (ask == Mode::Extended && mode == Mode::Structured));
        exercise(client, "disk", &bytes, mode);
    }
}

#[test]
fn our_client_speaks_tls_to_qemu_nbd() {
    if !has("our_client_speaks_tls_to_qemu_nbd", &["qemu-nbd"]) {
        return;
    }
    let bytes = disk(10, 8 * MIB);
    let folder = tempfile::tempdir().unwrap();
    certificates(folder.path());
    let image = folder.path().join("disk.raw");
    write_sparse(&image, &bytes);
    let (port, dir) = (free_port(), folder.path().display());
    let credentials = format!("tls-creds-x509,id=t,endpoint=server,dir={dir},verify-peer=yes");
    let mut command = daemon("qemu-nbd");
    command
        .args(["--object", &credentials, "--tls-creds", "t"])
        .args(["-t", "-f", "raw", "--discard=unmap", "-x", "disk"])
        .args(["-b", "127.0.0.1", "-p", &port.to_string()])
        .arg(&image);
    let theirs = Theirs::start(&mut command, Address::Tcp("127.0.0.1".to_owned(), port));
    let tls = |name: &str| ServerTls {
        config: tls::client(folder.path()).unwrap(),
        name: name.to_owned(),
    };
    let options = |name| ClientOptions {
        tls: Some(tls(name)),
        ..ClientOptions::default()
    };
    let client = theirs.client(&options("localhost"));
    let mode = client.mode();
    exercise(client, "disk", &bytes, mode);
    let uri = Uri::parse(&format!("nbds://127.0.0.1:{port}/disk")).unwrap();
    let other = Client::connect(&uri, options("example.org"));
    assert!(other.is_err(), "its certificate is of another name");
}

#[test]
fn our_client_gets_on_with_nbdkit() {
    if !has("our_client_gets_on_with_nbdkit", &["nbdkit"]) {
        return;
    }
    let bytes = disk(8, 8 * MIB);
    let folder = tempfile::tempdir().unwrap();
    let image = folder.path().join("disk.raw");
    write_sparse(&image, &bytes);
    let socket = folder.path().join("socket");
    let mut command = daemon("nbdkit");
    command
        .arg("-f")
        .arg("-U")
        .arg(&socket)
        .arg("file")
        .arg(&image);
    let theirs = Theirs::start(&mut command, Address::Unix(socket));
    let client = theirs.client(&ClientOptions::default());
    exercise(client, "", &bytes, Mode::Structured);
}

#[test]
fn our_client_gets_on_with_nbd_server() {
    if !has("our_client_gets_on_with_nbd_server", &["nbd-server"]) {
        return;
    }
    let bytes = disk(9, 8 * MIB);
    let folder = tempfile::tempdir().unwrap();
    let image = folder.path().join("disk.raw");
    write_sparse(&image, &bytes);
    // Its unix sockets reset every connection (3.24).
    let port = free_port();
    let config = format!(
        "[generic]\nlistenaddr = 127.0.0.1\nport = {port}\n\
         [disk]\nexportname = {}\nflush = true\nfua = true\ntrim = true\n",
        image.display()
    );
    let file = folder.path().join("config");
    fs::write(&file, config).unwrap();
    let mut command = daemon("nbd-server");
    let pid = folder.path().join("pid");
    command.arg("-C").arg(&file).arg("-p").arg(&pid);
    let theirs = Theirs::detached(&mut command, port, pid);
    let client = theirs.client(&ClientOptions::default());
    let mode = client.mode();
    exercise(client, "disk", &bytes, mode);
}

/// A port that nobody listens on now.
fn free_port() -> u16 {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap().port()
}
