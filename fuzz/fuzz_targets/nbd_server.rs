//! A client that says anything to a server, after a good handshake of each kind: the connection comes to its end, nothing
//! panics, and the next client is served.
#![no_main]

use libfuzzer_sys::fuzz_target;
use std::io::{Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::sync::{Arc, LazyLock};
use std::thread;
use std::time::Duration;
use stillpoint_nbd::codec::{ClientHello, ClientOption, InfoRequest, MetaRequest, Mode, Request};
use stillpoint_nbd::server::{Limits, Options, Server};
use stillpoint_nbd::{BASE_ALLOCATION, MemoryExport, Named};

/// One for all inputs, so that what one of them leaves behind is met by the next.
static SERVER: LazyLock<Server> = LazyLock::new(|| {
    let limits = Limits {
        payload: 1 << 20,
        workers: 2,
        ..Limits::default()
    };
    let exports = Named::one("a", MemoryExport::new(vec![1; 1 << 16]));
    let options = Options {
        limits,
        ..Options::default()
    };
    Server::new(Arc::new(exports), options)
});

/// What stands before the client's nonsense. The first byte of the input chooses how far the handshake goes.
fn beginning(how: u8) -> Vec<u8> {
    let mut out = Vec::new();
    ClientHello { flags: 3 }.encode(&mut out);
    let mode = match how % 4 {
        0 => return out,
        1 => None,
        2 => Some(ClientOption::StructuredReply),
        _ => Some(ClientOption::ExtendedHeaders),
    };
    if let Some(mode) = mode {
        mode.encode(&mut out);
        let meta = MetaRequest {
            name: "a".to_owned(),
            queries: vec![BASE_ALLOCATION.to_owned()],
        };
        ClientOption::SetMeta(meta).encode(&mut out);
    }
    let info = InfoRequest {
        name: "a".to_owned(),
        wanted: Vec::new(),
    };
    ClientOption::Go(info).encode(&mut out);
    out
}

/// Requests with a good magic from the input, so that not all of them end at the first bytes; the rest as it is.
fn requests(how: u8, mut data: &[u8], out: &mut Vec<u8>) {
    let mode = if how % 4 == 3 {
        Mode::Extended
    } else {
        Mode::Simple
    };
    for cookie in 0..u64::from(how / 4) {
        let Some(([flags, command, offset, length, more], rest)) = data.split_first_chunk() else {
            break;
        };
        let request = Request {
            flags: u16::from(*flags),
            command: u16::from(*command),
            cookie,
            offset: u64::from(*offset) << 9,
            length: u64::from(*length) << (more % 32) | u64::from(*more),
        };
        if request.encode(mode, out).is_err() {
            break;
        }
        data = rest;
    }
    out.extend_from_slice(data);
}

fuzz_target!(|data: &[u8]| {
    let Some((how, data)) = data.split_first() else {
        return;
    };
    let mut bytes = beginning(*how);
    requests(*how, data, &mut bytes);
    let (mut ours, theirs) = UnixStream::pair().expect("two sockets");
    SERVER.serve_unix(theirs).expect("there is room");
    // It has to end by itself once nothing more comes.
    ours.set_read_timeout(Some(Duration::from_secs(20)))
        .expect("a timeout");
    let mut sender = ours.try_clone().expect("a copy");
    thread::scope(|scope| {
        scope.spawn(move || {
            // It may be turned away in the middle.
            let _ = sender.write_all(&bytes);
            let _ = sender.shutdown(Shutdown::Write);
        });
        let ended = ours.read_to_end(&mut Vec::new());
        let hangs = |e: std::io::Error| e.kind() == std::io::ErrorKind::WouldBlock;
        assert!(!ended.is_err_and(hangs), "the server waits for nothing");
    });
});
