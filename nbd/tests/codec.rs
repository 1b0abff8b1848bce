//! The codec: what is written is read again, the bytes are those of the protocol, and no input does harm.

#![allow(clippy::unwrap_used, reason = "tests say what went wrong by the panic")]

use proptest::prelude::*;
use stillpoint_nbd::codec::{
    BlockSizes, Chunk, ClientHello, ClientOption, Decoded, ExportNameReply, Extent, Info,
    InfoRequest, MetaRequest, Mode, OptionError, OptionHeader, OptionReply, OptionReplyHeader,
    ReplyHeader, Request, ServerHello, StatusPayload, chunk_payload_max,
};

/// Encodes, then decodes from every prefix: only the whole is enough, and what comes behind does not matter.
#[track_caller]
fn whole<T: PartialEq + std::fmt::Debug>(
    value: &T,
    bytes: &[u8],
    decode: impl Fn(&[u8]) -> Decoded<T>,
) {
    for n in 0..bytes.len() {
        assert_eq!(decode(&bytes[..n]), Ok(None), "{n} bytes are enough");
    }
    let (read, took) = decode(bytes).unwrap().unwrap();
    assert_eq!((&read, took), (value, bytes.len()));
    let longer = [bytes, b"more"].concat();
    assert_eq!(decode(&longer).unwrap().unwrap().1, bytes.len());
}

fn written(encode: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
    let mut out = Vec::new();
    encode(&mut out);
    out
}

fn modes() -> impl Strategy<Value = Mode> {
    prop_oneof![
        Just(Mode::Simple),
        Just(Mode::Structured),
        Just(Mode::Extended)
    ]
}

fn name() -> impl Strategy<Value = String> {
    "[^\\x00]{0,40}"
}

fn options() -> impl Strategy<Value = ClientOption> {
    let info = || {
        let parts = (name(), prop::collection::vec(any::<u16>(), 0..5));
        parts.prop_map(|(name, wanted)| InfoRequest { name, wanted })
    };
    let meta = || {
        let parts = (name(), prop::collection::vec(name(), 0..5));
        parts.prop_map(|(name, queries)| MetaRequest { name, queries })
    };
    prop_oneof![
        name().prop_map(ClientOption::ExportName),
        Just(ClientOption::Abort),
        Just(ClientOption::List),
        Just(ClientOption::StartTls),
        info().prop_map(ClientOption::Info),
        info().prop_map(ClientOption::Go),
        Just(ClientOption::StructuredReply),
        meta().prop_map(ClientOption::ListMeta),
        meta().prop_map(ClientOption::SetMeta),
        Just(ClientOption::ExtendedHeaders),
        (12u32..).prop_map(ClientOption::Unknown),
    ]
}

fn option_replies() -> impl Strategy<Value = OptionReply> {
    let sizes = any::<(u32, u32, u32)>().prop_map(|(minimum, preferred, maximum)| {
        OptionReply::Info(Info::BlockSize(BlockSizes {
            minimum,
            preferred,
            maximum,
        }))
    });
    prop_oneof![
        Just(OptionReply::Ack),
        (name(), name()).prop_map(|(a, b)| OptionReply::Server(a, b)),
        any::<(u64, u16)>().prop_map(|(a, b)| OptionReply::Info(Info::Export(a, b))),
        name().prop_map(|text| OptionReply::Info(Info::Name(text))),
        name().prop_map(|text| OptionReply::Info(Info::Description(text))),
        (4u16..).prop_map(|kind| OptionReply::Info(Info::Unknown(kind))),
        sizes,
        (any::<u32>(), name()).prop_map(|(id, text)| OptionReply::MetaContext(id, text)),
        name().prop_map(|text| OptionReply::Error(OptionError::TooBig, text)),
        (5u32..1 << 31).prop_map(OptionReply::Unknown),
    ]
}

fn extents(most: u64) -> impl Strategy<Value = Vec<Extent>> {
    let extent = (1..=most, 0..=most).prop_map(|(length, flags)| Extent { length, flags });
    prop::collection::vec(extent, 1..20)
}

fn check_chunk(mode: Mode, chunk: &Chunk<'_>, (cookie, offset, flags): (u64, u64, u16)) {
    let bytes = written(|out| chunk.encode(mode, flags, cookie, offset, out));
    let header = if mode == Mode::Extended { 32 } else { 20 };
    let (read, took) = ReplyHeader::decode(mode, &bytes).unwrap().unwrap();
    assert_eq!(took, header);
    let ReplyHeader::Chunk { kind, length, .. } = read else {
        panic!("no chunk");
    };
    let told = if mode == Mode::Extended { offset } else { 0 };
    let expected = ReplyHeader::Chunk {
        cookie,
        flags,
        kind,
        offset: told,
        length: (bytes.len() - header) as u64,
    };
    assert_eq!(read, expected);
    assert!(
        length <= chunk_payload_max(kind, 1000),
        "{kind} may not be so long"
    );
    assert_eq!(&Chunk::decode(kind, &bytes[header..]).unwrap(), chunk);
    for n in header..bytes.len() {
        let _ = Chunk::decode(kind, &bytes[header..n]);
    }
}

proptest! {
    #[test]
    fn hellos_are_read_as_written(flags: u16, wide: u32, size: u64, no_zeroes: bool) {
        let hello = ServerHello { flags };
        whole(&hello, &written(|out| hello.encode(out)), ServerHello::decode);
        let hello = ClientHello { flags: wide };
        whole(&hello, &written(|out| hello.encode(out)), ClientHello::decode);
        let reply = ExportNameReply { size, flags };
        let bytes = written(|out| reply.encode(no_zeroes, out));
        whole(&reply, &bytes, |b| ExportNameReply::decode(no_zeroes, b));
    }

    #[test]
    fn options_are_read_as_written(option in options()) {
        let bytes = written(|out| option.encode(out));
        let (header, took) = OptionHeader::decode(&bytes).unwrap().unwrap();
        whole(&header, &bytes[..took], OptionHeader::decode);
        prop_assert_eq!(header.length as usize, bytes.len() - took);
        prop_assert_eq!(ClientOption::decode(header.option, &bytes[took..]), Ok(option));
    }

    #[test]
    fn answers_to_options_are_read_as_written(reply in option_replies(), option: u32) {
        let bytes = written(|out| reply.encode(option, out));
        let (header, took) = OptionReplyHeader::decode(&bytes).unwrap().unwrap();
        whole(&header, &bytes[..took], OptionReplyHeader::decode);
        prop_assert_eq!((header.option, header.length as usize), (option, bytes.len() - took));
        prop_assert_eq!(OptionReply::decode(header.kind, &bytes[took..]), Ok(reply));
    }

    #[test]
    fn requests_are_read_as_written(
        mode in modes(), flags: u16, command: u16, cookie: u64, offset: u64, length: u64,
    ) {
        let request = Request { flags, command, cookie, offset, length };
        let mut bytes = Vec::new();
        let encoded = request.encode(mode, &mut bytes);
        if mode != Mode::Extended && length > u64::from(u32::MAX) {
            prop_assert!(encoded.is_err() && bytes.is_empty());
            let short = Request { length: length >> 32, ..request };
            short.encode(mode, &mut bytes).unwrap();
            whole(&short, &bytes, |b| Request::decode(mode, b));
        } else {
            whole(&request, &bytes, |b| Request::decode(mode, b));
        }
    }

    #[test]
    fn replies_are_read_as_written(
        cookie: u64, error: u32, offset: u64, flags: u16, text in name(),
        data in prop::collection::vec(any::<u8>(), 0..100), extended: bool,
        short in extents(u64::from(u32::MAX)), long in extents(u64::MAX),
    ) {
        let mode = if extended { Mode::Extended } else { Mode::Structured };
        let simple = ReplyHeader::Simple { cookie, error };
        let bytes = written(|out| simple.encode(Mode::Simple, out));
        whole(&simple, &bytes, |b| ReplyHeader::decode(Mode::Simple, b));
        whole(&simple, &bytes, |b| ReplyHeader::decode(Mode::Structured, b));
        prop_assert!(ReplyHeader::decode(Mode::Extended, &bytes).is_err());
        let status = if extended { long } else { short };
        let number = error.max(1);
        for chunk in [
            Chunk::None,
            Chunk::Data(offset, &data),
            Chunk::Hole(offset, error),
            Chunk::Status(error, status),
            Chunk::Error(number, text.clone(), None),
            Chunk::Error(number, text, Some(offset)),
        ] {
            check_chunk(mode, &chunk, (cookie, offset, flags));
        }
    }

    #[test]
    fn lists_of_contexts_are_read_as_written(length: u64, contexts: Vec<u32>) {
        let payload = StatusPayload { length, contexts };
        let bytes = written(|out| payload.encode(out));
        prop_assert_eq!(StatusPayload::decode(&bytes), Ok(payload));
    }

    #[test]
    fn no_bytes_do_harm(bytes: Vec<u8>, number: u32, kind: u16) {
        let _ = ServerHello::decode(&bytes);
        let _ = ClientHello::decode(&bytes);
        let _ = OptionHeader::decode(&bytes);
        let _ = OptionReplyHeader::decode(&bytes);
        let _ = StatusPayload::decode(&bytes);
        for number in (0..16).chain([number, number | 1 << 31]) {
            let _ = ClientOption::decode(number, &bytes);
            let _ = OptionReply::decode(number, &bytes);
        }
        for kind in [0, 1, 2, 5, 6, 0x8001, 0x8002, kind, kind | 1 << 15] {
            let _ = Chunk::decode(kind, &bytes);
        }
        for mode in [Mode::Simple, Mode::Structured, Mode::Extended] {
            let _ = Request::decode(mode, &bytes);
            let _ = ReplyHeader::decode(mode, &bytes);
        }
    }
}

fn hex(bytes: &[u8]) -> String {
    let digit = |n: u8| char::from_digit(u32::from(n), 16).unwrap();
    let digits = bytes
        .iter()
        .flat_map(|byte| [digit(byte >> 4), digit(byte & 15)]);
    digits.collect()
}

#[test]
fn the_bytes_are_those_of_the_protocol() {
    let go = ClientOption::Go(InfoRequest {
        name: "ab".to_owned(),
        wanted: vec![3],
    });
    let meta = ClientOption::SetMeta(MetaRequest {
        name: String::new(),
        queries: vec!["base:allocation".to_owned()],
    });
    let request = |mode, command, flags, length| {
        let request = Request {
            flags,
            command,
            cookie: 0x0102_0304_0506_0708,
            offset: 0x1000,
            length,
        };
        written(|out| request.encode(mode, out).unwrap())
    };
    let info = OptionReply::Info(Info::Export(1 << 20, 0x1ded));
    let sizes = OptionReply::Info(Info::BlockSize(BlockSizes {
        minimum: 1,
        preferred: 4096,
        maximum: 32 << 20,
    }));
    let refused = OptionReply::Error(OptionError::Unsupported, "no".to_owned());
    let extents = vec![Extent {
        length: 65536,
        flags: 3,
    }];
    let status = Chunk::Status(7, extents);
    let golden = [
        (
            written(|o| ServerHello { flags: 3 }.encode(o)),
            "4e42444d4147494349484156454f50540003",
        ),
        (written(|o| ClientHello { flags: 3 }.encode(o)), "00000003"),
        (
            written(|o| ClientOption::List.encode(o)),
            "49484156454f50540000000300000000",
        ),
        (
            written(|o| go.encode(o)),
            "49484156454f5054000000070000000a00000002616200010003",
        ),
        (
            written(|o| meta.encode(o)),
            "49484156454f50540000000a0000001b00000000000000010000000f626173653a616c6c6f636174696f6e",
        ),
        (
            written(|o| OptionReply::Ack.encode(8, o)),
            "0003e889045565a9000000080000000100000000",
        ),
        (
            written(|o| info.encode(7, o)),
            "0003e889045565a900000007000000030000000c000000000000001000001ded",
        ),
        (
            written(|o| sizes.encode(7, o)),
            "0003e889045565a900000007000000030000000e0003000000010000100002000000",
        ),
        (
            written(|o| refused.encode(99, o)),
            "0003e889045565a90000006380000001000000026e6f",
        ),
        (
            request(Mode::Simple, 0, 0, 512),
            "25609513000000000102030405060708000000000000100000000200",
        ),
        (
            request(Mode::Extended, 1, 0x21, 512),
            "21e41c7100210001010203040506070800000000000010000000000000000200",
        ),
        (
            written(|o| {
                ReplyHeader::Simple {
                    cookie: 1,
                    error: 5,
                }
                .encode(Mode::Simple, o);
            }),
            "67446698000000050000000000000001",
        ),
        (
            written(|o| Chunk::Data(4096, b"xy").encode(Mode::Structured, 1, 1, 4096, o)),
            "668e33ef0001000100000000000000010000000a00000000000010007879",
        ),
        (
            written(|o| Chunk::Hole(4096, 512).encode(Mode::Structured, 0, 1, 4096, o)),
            "668e33ef0000000200000000000000010000000c000000000000100000000200",
        ),
        (
            written(|o| status.encode(Mode::Structured, 1, 1, 0, o)),
            "668e33ef0001000500000000000000010000000c000000070001000000000003",
        ),
        (
            written(|o| status.encode(Mode::Extended, 1, 1, 4096, o)),
            "6e8a278c000100060000000000000001000000000000100000000000000000180000000700000001\
             00000000000100000000000000000003",
        ),
        (
            written(|o| {
                Chunk::Error(22, "no".to_owned(), None).encode(Mode::Structured, 1, 1, 0, o);
            }),
            "668e33ef000180010000000000000001000000080000001600026e6f",
        ),
        (
            written(|o| {
                Chunk::Error(5, "no".to_owned(), Some(9)).encode(Mode::Structured, 1, 1, 0, o);
            }),
            "668e33ef000180020000000000000001000000100000000500026e6f0000000000000009",
        ),
    ];
    for (n, (bytes, expected)) in golden.iter().enumerate() {
        assert_eq!(&hex(bytes), expected, "message {n}");
    }
}
