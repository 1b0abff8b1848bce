//! Both directions of the NBD codec: what decodes is written and read again as the same, and a handshake of any options
//! ends or goes on.
#![no_main]

use libfuzzer_sys::fuzz_target;
use stillpoint_nbd::codec::{
    Chunk, ClientHello, ClientOption, Mode, OptionHeader, OptionReply, OptionReplyHeader,
    ReplyHeader, Request, ServerHello, StatusPayload, chunk_payload_max,
};
use stillpoint_nbd::server::{Negotiation, Step};
use stillpoint_nbd::{MemoryExport, Named, Peer};

const MODES: [Mode; 3] = [Mode::Simple, Mode::Structured, Mode::Extended];

fn options(data: &[u8]) {
    let Some((number, data)) = data.split_first() else {
        return;
    };
    if let Ok(option) = ClientOption::decode(u32::from(*number), data) {
        let mut out = Vec::new();
        option.encode(&mut out);
        let (header, took) = OptionHeader::decode(&out).expect("ours").expect("whole");
        let again = ClientOption::decode(header.option, &out[took..]).expect("ours");
        assert_eq!(again, option);
    }
    for kind in [u32::from(*number), u32::from(*number) | 1 << 31] {
        let Ok(reply) = OptionReply::decode(kind, data) else {
            continue;
        };
        let mut out = Vec::new();
        reply.encode(1, &mut out);
        let (header, took) = OptionReplyHeader::decode(&out)
            .expect("ours")
            .expect("whole");
        let again = OptionReply::decode(header.kind, &out[took..]).expect("ours");
        // Errors that nobody knows count as unsupported, and their text need not be text.
        assert_eq!(again, reply);
    }
}

fn transmission(data: &[u8]) {
    for mode in MODES {
        if let Ok(Some((request, took))) = Request::decode(mode, data) {
            let mut out = Vec::new();
            request.encode(mode, &mut out).expect("it was decoded");
            assert_eq!(out, data[..took]);
        }
        let Ok(Some((header, took))) = ReplyHeader::decode(mode, data) else {
            continue;
        };
        let mut out = Vec::new();
        header.encode(mode, &mut out);
        assert_eq!(out, data[..took]);
    }
    let Some(([high, low], payload)) = data.split_first_chunk() else {
        return;
    };
    let kind = u16::from_be_bytes([*high, *low]);
    if let Ok(chunk) = Chunk::decode(kind, payload) {
        let mut out = Vec::new();
        chunk.encode(Mode::Extended, 1, 2, 3, &mut out);
        let (header, took) = ReplyHeader::decode(Mode::Extended, &out)
            .expect("ours")
            .expect("whole");
        if let ReplyHeader::Chunk { kind, length, .. } = header {
            assert!(payload.len() > 4096 || length <= chunk_payload_max(kind, 1 << 20));
            let _ = Chunk::decode(kind, &out[took..]);
        }
    }
    if let Ok(list) = StatusPayload::decode(payload) {
        let mut out = Vec::new();
        list.encode(&mut out);
        assert_eq!(out, payload);
    }
}

/// A length byte and a number byte before each option.
fn handshake(mut data: &[u8]) {
    let exports = Named::one("a", MemoryExport::new(vec![0; 4096]));
    let mut negotiation = Negotiation::new(&exports, Peer::default(), Some(false), 1 << 25);
    let mut out = Vec::new();
    if negotiation.hello(ClientHello { flags: 3 }).is_err() {
        return;
    }
    while let Some(([len, number], rest)) = data.split_first_chunk() {
        let (option, rest) = rest.split_at(rest.len().min(usize::from(*len)));
        data = rest;
        match negotiation.option(u32::from(*number), option, &mut out) {
            Step::Next => {}
            Step::StartTls => negotiation.encrypted(None),
            Step::Go(chosen) => {
                assert!(chosen.mode != Mode::Simple || chosen.contexts.is_empty());
                return;
            }
            Step::Close => return,
        }
    }
}

fuzz_target!(|data: &[u8]| {
    let _ = (
        ServerHello::decode(data),
        OptionHeader::decode(data),
        OptionReplyHeader::decode(data),
    );
    options(data);
    transmission(data);
    handshake(data);
});
