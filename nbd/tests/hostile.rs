//! Peers that lie, stall, flood or vanish: they hurt nobody but themselves.

#![allow(clippy::unwrap_used, reason = "tests say what went wrong by the panic")]

mod support;

use std::io::{Read, Write};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::thread;
use std::time::Duration;
use stillpoint_nbd::client::{Client, Error, Options as ClientOptions, Pending};
use stillpoint_nbd::codec::{Chunk, Info, Mode, OptionReply};
use stillpoint_nbd::server::{Limits, Options};
use stillpoint_nbd::{Errno, Export, ExportInfo, Failure, MemoryExport, Named};
use support::{Dice, Served, disk};

const UNSUPPORTED: u32 = 0x8000_0001;
const INVALID: u32 = 0x8000_0003;
const UNKNOWN: u32 = 0x8000_0006;
const TOO_BIG: u32 = 0x8000_0009;

/// A server still does its work.
#[track_caller]
fn is_well(served: &Served) {
    let disk = served
        .client(ClientOptions::default())
        .go("disk", &[])
        .unwrap();
    assert_eq!(disk.read(0, 512).unwrap().len(), 512);
    drop(disk);
    served.ends_empty();
}

fn limited(limits: Limits) -> Served {
    let exports = Named::one("disk", MemoryExport::new(disk(1, 1 << 20)));
    Served::new(
        exports,
        Options {
            limits,
            ..Options::default()
        },
    )
}

#[test]
fn a_handshake_may_end_anywhere() {
    let (served, _) = Served::memory(disk(1, 1 << 20));
    let mut whole = 3u32.to_be_bytes().to_vec();
    for (number, data) in [(8u32, &b""[..]), (7, b"\0\0\0\x04disk\0\x01\0\x03")] {
        whole.extend_from_slice(b"IHAVEOPT");
        whole.extend_from_slice(&number.to_be_bytes());
        whole.extend_from_slice(&(data.len() as u32).to_be_bytes());
        whole.extend_from_slice(data);
    }
    for n in 0..=whole.len() {
        let mut peer = served.raw();
        peer.send(&whole[..n]);
    }
    is_well(&served);
}

#[test]
fn wrong_magics_and_flags_end_the_connection() {
    let (served, _) = Served::memory(disk(1, 1 << 20));
    let mut peer = served.raw();
    peer.send(&0x8000_0003u32.to_be_bytes());
    assert!(peer.is_closed(), "flags that nobody knows");
    let mut peer = served.raw().hello();
    peer.send(b"IHAVEOPX\0\0\0\x03\0\0\0\0");
    assert!(peer.is_closed(), "a wrong option");
    let mut peer = served.raw().hello();
    peer.go();
    peer.send(&[0; 28]);
    assert!(peer.is_closed(), "a wrong request");
    is_well(&served);
}

#[test]
fn lengths_that_lie_get_an_error_or_the_door() {
    let (served, _) = Served::memory(disk(1, 1 << 20));
    let mut peer = served.raw().hello();
    peer.option(3, u32::MAX, b"");
    assert!(peer.is_closed(), "4 GiB of option");
    let mut peer = served.raw().hello();
    peer.option(6, 1 << 20, &vec![0; 1 << 20]);
    assert_eq!(peer.answer().0, TOO_BIG);
    peer.option(7, 10, b"\xff\xff\xff\xffdisk\0\0");
    assert_eq!(peer.answer().0, INVALID, "a name longer than the option");
    peer.option(7, 10, b"\0\0\0\x04disk\xff\xff");
    assert_eq!(peer.answer().0, INVALID, "more infos than the option has");
    peer.option(8, 0, b"");
    assert_eq!(peer.answer().0, 1);
    peer.option(10, 12, b"\0\0\0\x04disk\xff\xff\xff\xff");
    assert_eq!(peer.answer().0, INVALID, "more queries than the option has");
    peer.option(3, 1, b"x");
    assert_eq!(peer.answer().0, INVALID, "a list with data");
    peer.option(7, 8, b"\0\0\0\x02\xff\xfe\0\0");
    assert_eq!(peer.answer().0, INVALID, "a name that is no text");
    peer.option(7, 11, b"\0\0\0\x05nodsk\0\0");
    assert_eq!(peer.answer().0, UNKNOWN);
    drop(peer);
    is_well(&served);
}

#[test]
fn unknown_options_are_answered_and_thousands_of_them_end_it() {
    let served = limited(Limits {
        options: 2000,
        ..Limits::default()
    });
    let mut peer = served.raw().hello();
    for n in 0..2000u32 {
        assert!(peer.option(1000 + n, 3, b"abc"));
        assert_eq!(peer.answer().0, UNSUPPORTED);
    }
    assert!(peer.is_closed());
    is_well(&served);
}

#[test]
fn slow_handshakes_are_cut_off_and_idle_connections_are_not() {
    let handshake = Duration::from_millis(200);
    let served = limited(Limits {
        handshake,
        ..Limits::default()
    });
    let idle = served
        .client(ClientOptions::default())
        .go("disk", &[])
        .unwrap();
    let mut silent = served.raw();
    let mut dripping = served.raw();
    for byte in [0u8, 0, 0, 3, b'I', b'H', b'A', b'V', b'E'] {
        thread::sleep(Duration::from_millis(40));
        dripping.send(&[byte]);
    }
    assert!(silent.is_closed() && dripping.is_closed());
    assert_eq!(idle.read(0, 512).unwrap().len(), 512);
}

#[test]
fn one_connection_too_many_is_closed_and_room_comes_back() {
    let served = limited(Limits {
        connections: 3,
        ..Limits::default()
    });
    let options = ClientOptions::default;
    let go = || served.client(options()).go("disk", &[]).unwrap();
    let held: Vec<_> = (0..3).map(|_| go()).collect();
    assert!(served.raw().is_closed());
    for disk in &held {
        assert_eq!(disk.read(0, 512).unwrap().len(), 512);
    }
    drop(held);
    served.ends_empty();
    is_well(&served);
}

#[test]
fn who_dawdles_in_the_handshake_keeps_nobody_out() {
    let served = limited(Limits {
        connections: 3,
        ..Limits::default()
    });
    let worker = served
        .client(ClientOptions::default())
        .go("disk", &[])
        .unwrap();
    let mut held: Vec<_> = (0..2).map(|_| served.raw().hello()).collect();
    // No more than may be on their way out at once, however slowly they go.
    for _ in 0..8 {
        held.push(served.raw().hello());
        let other = served.client(ClientOptions::default());
        let disk = other.go("disk", &[]).unwrap();
        assert_eq!(disk.read(0, 512).unwrap().len(), 512);
    }
    assert!(held[0].is_closed(), "the oldest went");
    assert_eq!(worker.read(0, 512).unwrap().len(), 512, "who works stays");
    assert!(served.server.connections() <= 3 + 16);
    drop((held, worker));
    is_well(&served);
}

#[test]
fn a_write_that_breaks_off_changes_nothing() {
    let (served, memory) = Served::memory(disk(1, 1 << 20));
    let before = memory.contents();
    for sent in [0, 1, 4095, 65535] {
        let mut peer = served.raw().hello();
        peer.go();
        peer.request(1, 0, 1, 0, 65536);
        peer.send(&vec![0xaa; sent]);
    }
    served.ends_empty();
    assert!(memory.contents() == before, "half a write was done");
    is_well(&served);
}

#[test]
fn requests_past_all_bounds_get_an_error_each() {
    let (served, _) = Served::memory(disk(1, 1 << 20));
    let mut peer = served.raw().hello();
    let (size, _) = peer.go();
    let cases: [(u16, u16, u64, u32, Errno); 9] = [
        (0, 0, size, 1, Errno::Inval),
        (0, 0, u64::MAX, u32::MAX, Errno::Inval),
        (0, 0, 0, u32::MAX, Errno::Inval),
        (4, 0, size - 1, 2, Errno::Inval),
        (6, 0, size - 1, 2, Errno::NoSpc),
        (7, 0, 0, 512, Errno::Inval),
        (8, 0, 0, 512, Errno::Inval),
        (99, 0, 0, 512, Errno::Inval),
        (0, 0xffff, 0, 512, Errno::Inval),
    ];
    for (cookie, (command, flags, at, len, errno)) in (1..).zip(cases) {
        peer.request(command, flags, cookie, at, len);
        assert_eq!(peer.reply(), (errno as u32, cookie), "command {command}");
    }
    peer.request(1, 0, 50, size - 1, 512);
    peer.send(&[1; 512]);
    assert_eq!(
        peer.reply(),
        (Errno::NoSpc as u32, 50),
        "its data are skipped"
    );
    peer.request(1, 0, 51, 0, (32 << 20) + 512);
    peer.send(&vec![1; (32 << 20) + 512]);
    assert_eq!(peer.reply().1, 51, "so are those of one that is too long");
    peer.request(0, 0, 52, 0, 512);
    assert_eq!(peer.reply(), (0, 52));
    peer.take(512);
    peer.request(1, 0, 53, 0, u32::MAX);
    assert!(peer.is_closed(), "a write of 4 GiB");
    is_well(&served);
}

#[test]
fn a_peer_that_takes_no_answers_stops_only_itself() {
    let stall = Duration::from_millis(300);
    let served = limited(Limits {
        stall,
        ..Limits::default()
    });
    let mut greedy = served.raw().hello();
    greedy.go();
    greedy
        .0
        .set_write_timeout(Some(Duration::from_millis(50)))
        .unwrap();
    let mut cookie = 0;
    while greedy.request(0, 0, cookie, 0, 1 << 20) && cookie < 100_000 {
        cookie += 1;
    }
    assert!(cookie < 100_000, "it reads without bound");
    let other = served
        .client(ClientOptions::default())
        .go("disk", &[])
        .unwrap();
    assert_eq!(other.read(0, 512).unwrap().len(), 512);
    drop(other);
    served.ends_empty();
}

/// Reads wait for the gate; how many wait at once is counted.
struct Gated {
    open: Mutex<bool>,
    opened: Condvar,
    waiting: AtomicUsize,
    most: AtomicUsize,
}

impl Gated {
    fn new() -> Arc<Self> {
        Arc::new(Self {
            open: Mutex::new(false),
            opened: Condvar::new(),
            waiting: AtomicUsize::new(0),
            most: AtomicUsize::new(0),
        })
    }

    fn open(&self) {
        *self.open.lock().unwrap() = true;
        self.opened.notify_all();
    }
}

impl Export for Gated {
    fn info(&self) -> ExportInfo {
        ExportInfo::read_only(1 << 20)
    }

    fn read_now(&self, buf: &mut [u8], offset: u64) -> Result<bool, Failure> {
        buf.fill(7);
        Ok(offset == 0)
    }

    fn read(&self, buf: &mut [u8], offset: u64) -> Result<(), Failure> {
        assert!(offset != 4096, "the disk is on fire");
        let waiting = self.waiting.fetch_add(1, Ordering::SeqCst) + 1;
        self.most.fetch_max(waiting, Ordering::SeqCst);
        let open = self
            .opened
            .wait_while(self.open.lock().unwrap(), |open| !*open);
        drop(open);
        self.waiting.fetch_sub(1, Ordering::SeqCst);
        buf.fill(7);
        Ok(())
    }
}

fn until(condition: impl Fn() -> bool) {
    for _ in 0..12_000 {
        if condition() {
            return;
        }
        thread::sleep(Duration::from_millis(5));
    }
    panic!("it does not come about");
}

#[test]
fn quick_reads_overtake_slow_ones_and_slow_ones_go_side_by_side() {
    let gated = Gated::new();
    let limits = Limits {
        workers: 4,
        ..Limits::default()
    };
    let exports = Named::default().and("disk", gated.clone());
    let served = Served::new(
        exports,
        Options {
            limits,
            ..Options::default()
        },
    );
    let mut peer = served.raw().hello();
    peer.go();
    // All in one go, so that none of them looks alone.
    let mut all = Vec::new();
    for (cookie, at) in [(1u64, 512u64), (2, 1024), (3, 2048), (4, 0)] {
        all.extend_from_slice(&0x2560_9513_0000_0000u64.to_be_bytes());
        all.extend_from_slice(&cookie.to_be_bytes());
        all.extend_from_slice(&at.to_be_bytes());
        all.extend_from_slice(&512u32.to_be_bytes());
    }
    peer.send(&all);
    assert_eq!(peer.reply(), (0, 4), "the quick one is first");
    peer.take(512);
    until(|| gated.waiting.load(Ordering::SeqCst) == 3);
    gated.open();
    let mut cookies: Vec<u64> = (0..3)
        .map(|_| {
            let (error, cookie) = peer.reply();
            assert_eq!((error, peer.take(512)), (0, vec![7; 512]));
            cookie
        })
        .collect();
    cookies.sort_unstable();
    assert_eq!(cookies, [1, 2, 3]);
}

#[test]
fn shutdown_finishes_what_was_read_and_lets_nobody_in() {
    let gated = Gated::new();
    let served = Served::new(
        Named::default().and("disk", gated.clone()),
        Options::default(),
    );
    let disk = served
        .client(ClientOptions::default())
        .go("disk", &[])
        .unwrap();
    let pending: Vec<_> = (1..4)
        .map(|n| disk.start_read(n * 8192, 512).unwrap())
        .collect();
    until(|| gated.waiting.load(Ordering::SeqCst) >= 1);
    thread::scope(|scope| {
        let ended = scope.spawn(|| served.server.shutdown(support::LONG));
        until(|| std::os::unix::net::UnixStream::connect(served.socket()).is_err());
        gated.open();
        let answers = pending.into_iter().map(Pending::wait);
        let good = answers
            .filter(|a| a.as_ref().is_ok_and(|d| d[..] == [7; 512]))
            .count();
        assert!(good >= 1, "what was begun is answered");
        assert!(ended.join().unwrap(), "nobody had to be cut off");
    });
    assert!(disk.read(0, 512).is_err());
    assert!(Client::connect_unix(&served.socket(), ClientOptions::default()).is_err());
}

#[test]
fn shutdown_cuts_off_who_takes_no_answers() {
    let served = limited(Limits::default());
    let mut greedy = served.raw().hello();
    greedy.go();
    for cookie in 0..20 {
        greedy.request(0, 0, cookie, 0, 1 << 20);
    }
    // Whichever comes first.
    assert_eq!(greedy.reply().0, 0, "it is at work");
    assert!(!served.server.shutdown(Duration::from_millis(100)));
    assert_eq!(served.server.connections(), 0);
}

#[test]
fn a_disk_that_panics_fails_the_request_and_no_more() {
    let gated = Gated::new();
    gated.open();
    let served = Served::new(Named::default().and("disk", gated), Options::default());
    let disk = served
        .client(ClientOptions::default())
        .go("disk", &[])
        .unwrap();
    let Err(Error::Failed(failure)) = disk.read(4096, 512) else {
        panic!("it did not fail");
    };
    assert_eq!(failure.errno, Errno::Io);
    assert_eq!(disk.read(8192, 512).unwrap(), [7; 512]);
}

#[test]
fn random_bytes_after_every_stage_are_survived() {
    let (served, _) = Served::memory(disk(1, 1 << 20));
    let mut dice = Dice(42);
    for round in 0..300 {
        let mut peer = served.raw();
        if round % 3 > 0 {
            peer = peer.hello();
        }
        if round % 3 > 1 {
            peer.go();
            peer.request((round % 9) as u16, 0, 1, 0, 512);
        } else if round % 3 > 0 {
            let number = dice.below(12) as u32;
            peer.option(number, dice.below(64) as u32, b"");
        }
        let noise: Vec<u8> = (0..dice.below(200)).map(|_| dice.next() as u8).collect();
        peer.send(&noise);
    }
    is_well(&served);
}

#[test]
fn a_server_that_lies_gets_an_error_from_our_client() {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("socket");
    let listener = std::os::unix::net::UnixListener::bind(&socket).unwrap();
    let mut dice = Dice(7);
    let hello = b"NBDMAGICIHAVEOPT\0\x03".to_vec();
    for round in 0..100 {
        let mut bytes = hello.clone();
        // Extended headers, then GO with an export of 1 MiB, then nonsense that starts well.
        let mut reply = |option: u32, kind: u32, data: &[u8]| {
            bytes.extend_from_slice(&0x0003_e889_0455_65a9u64.to_be_bytes());
            bytes.extend_from_slice(&option.to_be_bytes());
            bytes.extend_from_slice(&kind.to_be_bytes());
            bytes.extend_from_slice(&(data.len() as u32).to_be_bytes());
            bytes.extend_from_slice(data);
        };
        reply(11, 1, b"");
        reply(7, 3, b"\0\0\0\0\0\0\0\x10\0\0\0\x01");
        reply(7, 1, b"");
        bytes.extend_from_slice(&0x6e8a_278cu32.to_be_bytes());
        bytes.extend_from_slice(&[0, (round % 2) as u8, 0, dice.below(8) as u8]);
        bytes.extend_from_slice(&1u64.to_be_bytes());
        bytes.extend_from_slice(&0u64.to_be_bytes());
        bytes.extend_from_slice(&(dice.next() >> dice.below(64)).to_be_bytes());
        bytes.extend((0..200).map(|_| dice.next() as u8));
        let cut = if round % 5 == 0 {
            dice.below(bytes.len() as u64) as usize
        } else {
            bytes.len()
        };
        thread::scope(|scope| {
            scope.spawn(|| {
                let (mut stream, _) = listener.accept().unwrap();
                let _ = stream.write_all(&bytes[..cut]);
                let _ = stream.shutdown(std::net::Shutdown::Write);
                let _ = stream.read_to_end(&mut Vec::new());
            });
            let client = Client::connect_unix(&socket, ClientOptions::default());
            let read = client
                .and_then(|c| c.go("", &[]))
                .and_then(|disk| disk.read(0, 4096));
            assert!(read.is_err(), "round {round}");
        });
    }
}

/// What our client makes of a read of 4096 bytes that is answered by these chunks of data: offset, length, last.
fn read_of_chunks(chunks: &[(u64, usize, bool)]) -> Result<Vec<u8>, Error> {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("socket");
    let listener = std::os::unix::net::UnixListener::bind(&socket).unwrap();
    let mut bytes = b"NBDMAGICIHAVEOPT\0\x03".to_vec();
    for (option, reply) in [
        (8, OptionReply::Ack),
        (7, OptionReply::Info(Info::Export(1 << 20, 1))),
        (7, OptionReply::Ack),
    ] {
        reply.encode(option, &mut bytes);
    }
    let mut answer = Vec::new();
    for (n, (at, len, last)) in (1..).zip(chunks) {
        let data = vec![n; *len];
        let chunk = Chunk::Data(*at, &data);
        chunk.encode(Mode::Structured, u16::from(*last), 1, 0, &mut answer);
    }
    thread::scope(|scope| {
        scope.spawn(|| {
            let (mut stream, _) = listener.accept().unwrap();
            let _ = stream.write_all(&bytes);
            // Flags, two options, and the request: an answer before that is one that nobody asked for.
            let _ = stream.read_exact(&mut [0; 4 + 16 + 16 + 10 + 28]);
            let _ = stream.write_all(&answer);
            let _ = stream.read_to_end(&mut Vec::new());
        });
        let options = ClientOptions {
            ask: Mode::Structured,
            ..ClientOptions::default()
        };
        let disk = Client::connect_unix(&socket, options)?.go("", &[])?;
        disk.read(0, 4096)
    })
}

#[test]
fn a_read_is_whole_or_an_error() {
    let good = read_of_chunks(&[(2048, 2048, false), (0, 1024, false), (1024, 1024, true)]);
    let good = good.unwrap();
    assert_eq!((good[0], good[1024], good[2048]), (2, 3, 1));
    for bad in [
        &[(0, 2048, false), (0, 2048, true)][..],
        &[(0, 3072, false), (2048, 1024, true)],
        &[(0, 4096, false), (0, 512, true)],
        &[(0, 4095, true)],
        &[(1, 4096, true)],
    ] {
        let read = read_of_chunks(bad);
        assert!(matches!(read, Err(Error::Protocol(_))), "{bad:?}: {read:?}");
    }
}
