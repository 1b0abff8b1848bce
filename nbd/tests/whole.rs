//! Our client and our server together: every kind of message, encryption, and a disk against plain bytes.

#![allow(clippy::unwrap_used, reason = "tests say what went wrong by the panic")]

mod support;

use std::path::Path;
use std::sync::Arc;
use std::thread;
use stillpoint_nbd::client::{Client, Connection, Error, Options as ClientOptions, ServerTls};
use stillpoint_nbd::codec::{Extents, Mode, OptionError, transmission};
use stillpoint_nbd::server::{Limits, Options, Server, Tls};
use stillpoint_nbd::{
    BASE_ALLOCATION, Errno, Export, ExportInfo, Exports, Failure, FileExport, Listed, MemoryExport,
    Named, OpenError, Peer, ZeroMode, tls,
};
use support::{Dice, Served, certificates, disk};

const MODES: [Mode; 3] = [Mode::Simple, Mode::Structured, Mode::Extended];

fn asking(ask: Mode) -> ClientOptions {
    ClientOptions {
        ask,
        require: ask,
        ..ClientOptions::default()
    }
}

/// Random operations on a disk and on plain bytes, several reads in flight at once.
fn compare_with_bytes(disk: &Connection, bytes: &mut [u8], dice: &mut Dice) {
    for _ in 0..400 {
        let len = match dice.below(20) {
            0 => 1 + dice.below(2 << 20),
            _ => 1 + dice.below(20_000),
        };
        let at = dice.below(bytes.len() as u64 - len + 1);
        let range = at as usize..(at + len) as usize;
        let fua = dice.below(10) == 0;
        match dice.below(6) {
            0 | 1 => {
                let data = support::disk(dice.next(), len as usize);
                disk.write(at, &data, fua).unwrap();
                bytes[range].copy_from_slice(&data);
            }
            2 => {
                let no_hole = dice.below(2) == 0;
                let mode = ZeroMode {
                    fua,
                    no_hole,
                    fast: false,
                };
                disk.zero(at, len, mode).unwrap();
                bytes[range].fill(0);
            }
            3 => {
                disk.trim(at, len, fua).unwrap();
                bytes[range].fill(0);
            }
            _ => {
                let starts: Vec<u64> = (0..8)
                    .map(|_| dice.below(bytes.len() as u64 - len + 1))
                    .collect();
                let all: Vec<_> = starts
                    .iter()
                    .map(|s| disk.start_read(*s, len as usize).unwrap())
                    .collect();
                for (start, read) in starts.into_iter().zip(all) {
                    let expected = &bytes[start as usize..][..len as usize];
                    assert!(
                        read.wait().unwrap() == expected,
                        "{len} bytes at {start} differ"
                    );
                }
            }
        }
    }
    disk.flush().unwrap();
    assert!(
        disk.read(0, bytes.len()).unwrap() == bytes,
        "the disk differs in the end"
    );
}

#[test]
fn a_disk_is_as_good_as_plain_bytes_with_every_kind_of_message() {
    for (seed, mode) in (1..).zip(MODES) {
        let mut bytes = disk(seed, 4 << 20);
        for memory in [true, false] {
            let served = if memory {
                Served::memory(bytes.clone()).0
            } else {
                Served::file(&bytes).0
            };
            let disk = served.client(asking(mode)).go("disk", &[]).unwrap();
            assert_eq!(disk.mode(), mode);
            compare_with_bytes(&disk, &mut bytes.clone(), &mut Dice(seed));
        }
        bytes.clear();
    }
}

#[test]
fn maps_tell_data_from_holes() {
    let mut bytes = vec![0; 1 << 20];
    bytes[64 << 10..128 << 10].fill(1);
    for mode in [Mode::Structured, Mode::Extended] {
        for served in [Served::memory(bytes.clone()).0, Served::file(&bytes).0] {
            let disk = served
                .client(asking(mode))
                .go("disk", &[BASE_ALLOCATION, "no:such"])
                .unwrap();
            assert_eq!(disk.contexts(), [BASE_ALLOCATION]);
            let map = disk.map(0, 0, 1 << 20).unwrap();
            let map: Vec<_> = map.iter().map(|e| (e.length >> 10, e.flags)).collect();
            assert_eq!(map, [(64, 3), (64, 0), (896, 3)]);
            let one = disk.status(0, 1 << 20, true).unwrap();
            assert_eq!(one[0].1.len(), 1);
        }
    }
}

/// A disk of 8 TiB that only knows what is in it.
struct Huge;

impl Export for Huge {
    fn info(&self) -> ExportInfo {
        let mut info = ExportInfo::writable(8 << 40);
        info.block.minimum = 512;
        ExportInfo {
            description: "a huge disk".to_owned(),
            ..info
        }
    }

    fn read(&self, buf: &mut [u8], offset: u64) -> Result<(), Failure> {
        // The beginning of a long read must not count when its end fails.
        if offset + buf.len() as u64 > 4 << 40 {
            return Err(Failure::new(Errno::Io, "a bad sector"));
        }
        buf.fill(1);
        Ok(())
    }

    fn write_zeroes(&self, offset: u64, len: u64, mode: ZeroMode) -> Result<(), Failure> {
        assert_eq!((offset, len), (512, 6 << 40), "it comes in one piece");
        if mode.no_hole {
            Err(Errno::NotSup.into())
        } else {
            Ok(())
        }
    }

    fn contexts(&self) -> Vec<String> {
        let names = [
            BASE_ALLOCATION,
            "qemu:dirty-bitmap:a",
            "qemu:dirty-bitmap:b",
        ];
        names.map(str::to_owned).to_vec()
    }

    fn block_status(
        &self,
        context: &str,
        at: u64,
        _: u64,
        extents: &mut Extents,
    ) -> Result<(), Failure> {
        match context {
            BASE_ALLOCATION => Ok(()),
            "qemu:dirty-bitmap:a" => {
                extents.push((5u64 << 40).saturating_sub(at), 0);
                extents.push(8 << 40, 1);
                Ok(())
            }
            _ => Err(Failure::new(Errno::Io, "the bitmap is gone")),
        }
    }
}

#[test]
fn sixty_four_bits_go_through_with_extended_headers() {
    let served = Served::new(Named::one("disk", Huge), Options::default());
    let mut client = served.client(asking(Mode::Extended));
    assert_eq!(client.contexts("disk", &["qemu:"]).unwrap().len(), 2);
    let info = client.info("disk").unwrap();
    assert_eq!(
        (info.size, info.description.as_str()),
        (8 << 40, "a huge disk")
    );
    assert!(info.has(transmission::BLOCK_STATUS_PAYLOAD));
    let disk = client
        .go("disk", &[BASE_ALLOCATION, "qemu:dirty-bitmap:a"])
        .unwrap();
    disk.zero(512, 6 << 40, ZeroMode::default()).unwrap();
    let place = disk
        .contexts()
        .iter()
        .position(|c| c.ends_with('a'))
        .unwrap();
    let map = disk.map(place, 0, 8 << 40).unwrap();
    assert_eq!(
        map.iter()
            .map(|e| (e.length >> 40, e.flags))
            .collect::<Vec<_>>(),
        [(5, 0), (3, 1)]
    );
    let short = served
        .client(asking(Mode::Structured))
        .go("disk", &["qemu:dirty-bitmap:a"])
        .unwrap();
    assert_eq!(
        short.map(0, 0, 8 << 40).unwrap(),
        map,
        "in pieces of 32 bits"
    );
}

#[track_caller]
fn fails<T>(result: Result<T, Error>, errno: Errno) {
    match result {
        Err(Error::Failed(failure)) => assert_eq!(failure.errno, errno),
        Err(other) => panic!("{other}"),
        Ok(_) => panic!("it works"),
    }
}

#[test]
fn failures_reach_the_client_and_leave_the_connection_as_it_was() {
    let served = Served::new(Named::one("disk", Huge), Options::default());
    for mode in MODES {
        let disk = served
            .client(asking(mode))
            .go("disk", &["qemu:dirty-bitmap:b"])
            .unwrap();
        fails(disk.read((4 << 40) - (1 << 20), 2 << 20), Errno::Io);
        fails(disk.read(8 << 40, 512), Errno::Inval);
        fails(disk.read(1, 512), Errno::Inval);
        fails(disk.write((8 << 40) - 512, &[0; 1024], false), Errno::NoSpc);
        if mode != Mode::Simple {
            fails(disk.status(0, 512, false), Errno::Io);
        }
        assert_eq!(disk.read(0, 2 << 20).unwrap(), vec![1; 2 << 20]);
    }
    let disk = served
        .client(asking(Mode::Structured))
        .go("disk", &[])
        .unwrap();
    let Err(Error::Failed(failure)) = disk.read(5 << 40, 512) else {
        panic!("it works");
    };
    assert_eq!(failure.message, "a bad sector");
}

/// Exports that depend on who asks.
struct Picky;

impl Exports for Picky {
    fn list(&self, peer: &Peer) -> Vec<Listed> {
        let name = if peer.certificate.is_some() {
            "known"
        } else {
            "stranger"
        };
        let description = peer.address.clone();
        vec![Listed {
            name: name.to_owned(),
            description,
        }]
    }

    fn open(&self, name: &str, peer: &Peer) -> Result<Arc<dyn Export>, OpenError> {
        if name == "secret" && !peer.tls {
            return Err(OpenError::refused("only over TLS"));
        }
        if name != "secret" {
            return Err(OpenError::unknown(name));
        }
        Ok(Arc::new(MemoryExport::new(disk(1, 4 << 20))))
    }
}

fn tls_server(tls: Tls) -> (Server, u16) {
    let server = Server::new(
        Arc::new(Picky),
        Options {
            tls,
            ..Options::default()
        },
    );
    let port = server.listen_tcp("127.0.0.1:0").unwrap().port();
    (server, port)
}

fn with_tls(folder: &Path) -> ClientOptions {
    let tls = ServerTls {
        config: tls::client(folder).unwrap(),
        name: "localhost".to_owned(),
    };
    ClientOptions {
        tls: Some(tls),
        ..ClientOptions::default()
    }
}

#[test]
fn tls_is_off_allowed_or_required() {
    let folder = tempfile::tempdir().unwrap();
    certificates(folder.path());
    let config = || tls::server(folder.path(), false).unwrap();
    let (_off, port) = tls_server(Tls::Off);
    let refused = Client::connect_tcp(("127.0.0.1", port), with_tls(folder.path()));
    assert!(matches!(
        refused,
        Err(Error::Refused(OptionError::Policy, _))
    ));
    let (_allowed, port) = tls_server(Tls::Allowed(config()));
    for options in [with_tls(folder.path()), ClientOptions::default()] {
        let encrypted = options.tls.is_some();
        let client = Client::connect_tcp(("127.0.0.1", port), options).unwrap();
        assert_eq!(client.go("secret", &[]).is_ok(), encrypted);
    }
    let (_required, port) = tls_server(Tls::Required(config()));
    let refused = Client::connect_tcp(("127.0.0.1", port), ClientOptions::default());
    assert!(matches!(
        refused,
        Err(Error::Refused(OptionError::TlsRequired, _))
    ));
    let mut client = Client::connect_tcp(("127.0.0.1", port), with_tls(folder.path())).unwrap();
    assert_eq!(
        client.list().unwrap()[0].name,
        "stranger",
        "nobody asked for its certificate"
    );
}

#[test]
fn with_mutual_authentication_strangers_stay_out() {
    let (ours, theirs) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    certificates(ours.path());
    certificates(theirs.path());
    let (_server, port) = tls_server(Tls::Required(tls::server(ours.path(), true).unwrap()));
    let mut known = Client::connect_tcp(("127.0.0.1", port), with_tls(ours.path())).unwrap();
    assert_eq!(known.list().unwrap()[0].name, "known");
    let bytes = disk(1, 4 << 20);
    let connection = known.go("secret", &[]).unwrap();
    compare_with_bytes(&connection, &mut bytes.clone(), &mut Dice(3));
    // A client that trusts the server but shows the wrong certificate, one that shows none, one that trusts others.
    std::fs::copy(
        ours.path().join("ca-cert.pem"),
        theirs.path().join("ca-cert.pem"),
    )
    .unwrap();
    let attempt = || Client::connect_tcp(("127.0.0.1", port), with_tls(theirs.path()));
    assert!(attempt().is_err());
    std::fs::remove_file(theirs.path().join("client-cert.pem")).unwrap();
    assert!(attempt().is_err());
    certificates(theirs.path());
    assert!(attempt().is_err());
}

#[test]
fn many_threads_share_a_connection_over_tls_in_both_directions_at_once() {
    let folder = tempfile::tempdir().unwrap();
    certificates(folder.path());
    let (_server, port) = tls_server(Tls::Required(tls::server(folder.path(), true).unwrap()));
    let client = Client::connect_tcp(("127.0.0.1", port), with_tls(folder.path())).unwrap();
    let connection = client.go("secret", &[]).unwrap();
    thread::scope(|scope| {
        for n in 0..4u64 {
            let connection = &connection;
            scope.spawn(move || {
                for round in 0..20u8 {
                    let data = vec![round; 300_000];
                    connection.write(n << 20, &data, false).unwrap();
                    assert!(connection.read(n << 20, data.len()).unwrap() == data);
                }
            });
        }
    });
}

#[test]
fn bytes_before_encryption_do_not_count_after_it() {
    let folder = tempfile::tempdir().unwrap();
    certificates(folder.path());
    let tls = Tls::Allowed(tls::server(folder.path(), false).unwrap());
    let served = Served::new(
        Picky,
        Options {
            tls,
            ..Options::default()
        },
    );
    let mut peer = served.raw().hello();
    // Both options in one go: the second would be the attacker's.
    peer.send(b"IHAVEOPT\0\0\0\x05\0\0\0\0IHAVEOPT\0\0\0\x03\0\0\0\0");
    assert!(peer.is_closed());
}

#[test]
fn a_client_insists_on_what_it_requires() {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("socket");
    let listener = std::os::unix::net::UnixListener::bind(&socket).unwrap();
    thread::scope(|scope| {
        scope.spawn(|| {
            use std::io::{Read, Write};
            let (mut stream, _) = listener.accept().unwrap();
            stream.write_all(b"NBDMAGICIHAVEOPT\0\x03").unwrap();
            stream.read_exact(&mut [0; 20]).unwrap();
            let mut refusal = 0x0003_e889_0455_65a9u64.to_be_bytes().to_vec();
            refusal.extend_from_slice(&[0, 0, 0, 8, 0x80, 0, 0, 1, 0, 0, 0, 0]);
            stream.write_all(&refusal).unwrap();
        });
        let refused = Client::connect_unix(&socket, asking(Mode::Structured));
        assert!(matches!(refused, Err(Error::Unsupported(_))));
    });
}

#[test]
fn a_connection_holds_its_export_until_its_end() {
    let export = Arc::new(MemoryExport::new(vec![0; 4096]));
    let served = Served::new(
        Named::default().and("disk", export.clone()),
        Options::default(),
    );
    let mut client = served.client(ClientOptions::default());
    client.info("disk").unwrap();
    assert_eq!(Arc::strong_count(&export), 2, "a question does not hold it");
    let connection = client.go("disk", &[]).unwrap();
    assert_eq!(Arc::strong_count(&export), 3);
    drop(connection);
    served.ends_empty();
    assert_eq!(Arc::strong_count(&export), 2);
}

#[test]
fn memory_in_flight_is_bounded_and_everything_is_answered() {
    let limits = Limits {
        bytes: 1 << 20,
        requests: 4,
        ..Limits::default()
    };
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("disk.raw");
    let bytes = disk(1, 8 << 20);
    std::fs::write(&path, &bytes).unwrap();
    let export = FileExport::writable(&path).unwrap();
    let served = Served::new(
        Named::one("disk", export),
        Options {
            limits,
            ..Options::default()
        },
    );
    let disk = served
        .client(asking(Mode::Structured))
        .go("disk", &[])
        .unwrap();
    let reads: Vec<_> = (0..48)
        .map(|n| disk.start_read(n << 14, 2 << 20).unwrap())
        .collect();
    let writes: Vec<_> = (0..8)
        .map(|n| {
            disk.start_write(7 << 20, &bytes[n..n + (1 << 20)], true)
                .unwrap()
        })
        .collect();
    for (n, read) in reads.into_iter().enumerate() {
        assert!(
            read.wait().unwrap() == bytes[n << 14..][..2 << 20],
            "read {n} differs"
        );
    }
    writes.into_iter().for_each(|write| write.wait().unwrap());
}

/// Counts how often a disk was opened, and how often it was only asked about.
#[derive(Default)]
struct Counted {
    opened: std::sync::atomic::AtomicUsize,
    asked: std::sync::atomic::AtomicUsize,
}

struct Counting(Arc<Counted>);

impl Exports for Counting {
    fn list(&self, _peer: &Peer) -> Vec<Listed> {
        Vec::new()
    }

    fn open(&self, _name: &str, _peer: &Peer) -> Result<Arc<dyn Export>, OpenError> {
        self.0
            .opened
            .fetch_add(1, std::sync::atomic::Ordering::SeqCst);
        Ok(Arc::new(MemoryExport::new(vec![0; 4096])))
    }

    fn ask(&self, _name: &str, _peer: &Peer) -> Result<Arc<dyn Export>, OpenError> {
        self.0
            .asked
            .fetch_add(1, std::sync::atomic::Ordering::SeqCst);
        Ok(Arc::new(MemoryExport::new(vec![0; 4096])))
    }
}

#[test]
fn a_disk_is_opened_for_those_who_go_to_work_on_it_alone() {
    let counted = Arc::new(Counted::default());
    let served = Served::new(Counting(counted.clone()), Options::default());
    let counts = || {
        let of = |n: &std::sync::atomic::AtomicUsize| n.load(std::sync::atomic::Ordering::SeqCst);
        (of(&counted.opened), of(&counted.asked))
    };
    let mut client = served.client(asking(Mode::Structured));
    client.info("disk").unwrap();
    client.contexts("disk", &[]).unwrap();
    assert_eq!(counts(), (0, 2));
    client.abort().unwrap();
    let client = served.client(asking(Mode::Structured));
    let disk = client.go("disk", &[BASE_ALLOCATION]).unwrap();
    disk.read(0, 512).unwrap();
    assert_eq!(counts().0, 1);
}
