//! The server's side of the protocol, rule by rule: the handshake without a socket, then requests of every kind.

#![allow(clippy::unwrap_used, reason = "tests say what went wrong by the panic")]

mod support;

use std::collections::HashMap;
use stillpoint_nbd::codec::{
    Chunk, ClientHello, ClientOption, Extents, InfoRequest, MetaRequest, Mode, OptionError,
    OptionHeader, OptionReply, OptionReplyHeader, ReplyHeader, Request, StatusPayload, chunk_flag,
    command, flags, opt, transmission,
};
use stillpoint_nbd::server::{Limits, Negotiation, Options, Step};
use stillpoint_nbd::{Errno, Export, ExportInfo, Failure, MemoryExport, Named, Peer, ZeroMode};
use support::{Dice, Raw, Served};

const SIZE: u64 = 1 << 20;

/// A disk with three contexts, the last two of many extents.
struct Patched(MemoryExport);

impl Export for Patched {
    fn info(&self) -> ExportInfo {
        self.0.info()
    }

    fn read(&self, buf: &mut [u8], offset: u64) -> Result<(), Failure> {
        self.0.read(buf, offset)
    }

    fn write(&self, data: &[u8], offset: u64, fua: bool) -> Result<(), Failure> {
        self.0.write(data, offset, fua)
    }

    fn write_zeroes(&self, offset: u64, len: u64, mode: ZeroMode) -> Result<(), Failure> {
        self.0.write_zeroes(offset, len, mode)
    }

    fn trim(&self, offset: u64, len: u64, fua: bool) -> Result<(), Failure> {
        self.0.trim(offset, len, fua)
    }

    fn contexts(&self) -> Vec<String> {
        ["base:allocation", "x:a", "x:b"]
            .map(str::to_owned)
            .to_vec()
    }

    fn block_status(
        &self,
        context: &str,
        offset: u64,
        len: u64,
        extents: &mut Extents,
    ) -> Result<(), Failure> {
        if context == "base:allocation" {
            return self.0.block_status(context, offset, len, extents);
        }
        // Every second byte.
        let mut at = offset;
        while extents.push(1, at & 1) {
            at += 1;
        }
        Ok(())
    }
}

fn exports() -> Named {
    let disk = Patched(MemoryExport::new(vec![7; SIZE as usize]));
    Named::one("disk", disk).and(
        "other",
        std::sync::Arc::new(MemoryExport::new(vec![0; 512])),
    )
}

/// A handshake that has got past the first words, with or without TLS to be had or demanded.
struct Talk<'a>(Negotiation<'a>);

impl<'a> Talk<'a> {
    fn new(exports: &'a Named, tls: Option<bool>) -> Self {
        let mut negotiation = Negotiation::new(exports, Peer::default(), tls, 32 << 20);
        negotiation.hello(ClientHello { flags: 3 }).unwrap();
        Self(negotiation)
    }

    /// What comes next, and the answers.
    fn say(&mut self, option: &ClientOption) -> (Step, Vec<OptionReply>) {
        let mut bytes = Vec::new();
        option.encode(&mut bytes);
        let (header, took) = OptionHeader::decode(&bytes).unwrap().unwrap();
        let mut out = Vec::new();
        let step = self.0.option(header.option, &bytes[took..], &mut out);
        let mut answers = Vec::new();
        let mut rest = &out[..];
        // The answer to EXPORT_NAME has no header.
        while option.number() != opt::EXPORT_NAME && !rest.is_empty() {
            let (header, took) = OptionReplyHeader::decode(rest).unwrap().unwrap();
            assert_eq!(header.option, option.number());
            let data = &rest[took..][..header.length as usize];
            answers.push(OptionReply::decode(header.kind, data).unwrap());
            rest = &rest[took + data.len()..];
        }
        (step, answers)
    }

    #[track_caller]
    fn agrees(&mut self, option: &ClientOption) -> Vec<OptionReply> {
        let (step, mut answers) = self.say(option);
        assert!(matches!(step, Step::Next | Step::Go(_)), "{option:?}");
        assert_eq!(answers.pop(), Some(OptionReply::Ack), "{option:?}");
        answers
    }

    #[track_caller]
    fn refuses(&mut self, option: &ClientOption, why: OptionError) {
        let (step, answers) = self.say(option);
        assert!(matches!(step, Step::Next), "{option:?}");
        let [OptionReply::Error(error, _)] = &answers[..] else {
            panic!("{option:?}: {answers:?}");
        };
        assert_eq!(*error, why, "{option:?}");
    }

    fn contexts_after_going_to(&mut self, name: &str) -> Vec<String> {
        let (Step::Go(chosen), _) = self.say(&ClientOption::Go(info(name))) else {
            panic!("it does not go");
        };
        chosen.contexts
    }
}

fn info(name: &str) -> InfoRequest {
    InfoRequest {
        name: name.to_owned(),
        wanted: Vec::new(),
    }
}

fn set(name: &str, queries: &[&str]) -> ClientOption {
    ClientOption::SetMeta(MetaRequest {
        name: name.to_owned(),
        queries: queries.iter().map(|&q| q.to_owned()).collect(),
    })
}

fn list(queries: &[&str]) -> ClientOption {
    let ClientOption::SetMeta(request) = set("disk", queries) else {
        unreachable!()
    };
    ClientOption::ListMeta(request)
}

#[test]
fn a_choice_of_contexts_replaces_the_one_before_and_is_of_one_export() {
    let exports = exports();
    let mut talk = Talk::new(&exports, None);
    talk.refuses(&set("disk", &["x:a"]), OptionError::Invalid);
    talk.agrees(&ClientOption::StructuredReply);
    assert_eq!(talk.agrees(&list(&[])).len(), 3);
    assert_eq!(talk.agrees(&list(&["x:"])).len(), 2);
    assert_eq!(talk.agrees(&list(&["x:a", "x:"])).len(), 2);
    assert_eq!(talk.agrees(&list(&["x"])).len(), 0);
    assert_eq!(
        talk.agrees(&set("disk", &["x:"])).len(),
        0,
        "to choose takes exact names"
    );
    let chosen = talk.agrees(&set("disk", &["x:b", "x:a", "x:a", "no:such"]));
    let ids = chosen.iter().map(|reply| match reply {
        OptionReply::MetaContext(id, _) => *id,
        other => panic!("{other:?}"),
    });
    assert_eq!(ids.collect::<Vec<_>>(), [0, 1]);
    assert_eq!(talk.contexts_after_going_to("disk"), ["x:a", "x:b"]);
    assert!(talk.contexts_after_going_to("other").is_empty());
    talk.agrees(&set("disk", &["base:allocation"]));
    assert_eq!(talk.contexts_after_going_to("disk"), ["base:allocation"]);
    talk.refuses(&set("nothing", &["x:a"]), OptionError::Unknown);
    assert!(
        talk.contexts_after_going_to("disk").is_empty(),
        "one that fails counts too"
    );
}

#[test]
fn extended_headers_are_the_last_word_on_replies() {
    let exports = exports();
    let mut talk = Talk::new(&exports, None);
    let flags = |talk: &mut Talk<'_>| {
        let (Step::Go(chosen), _) = talk.say(&ClientOption::Go(info("disk"))) else {
            panic!("it does not go");
        };
        (
            chosen.mode,
            chosen.info.has(transmission::SEND_DF),
            chosen.info.has(transmission::BLOCK_STATUS_PAYLOAD),
        )
    };
    assert_eq!(flags(&mut talk), (Mode::Simple, false, false));
    talk.agrees(&ClientOption::StructuredReply);
    assert_eq!(flags(&mut talk), (Mode::Structured, true, false));
    talk.agrees(&ClientOption::ExtendedHeaders);
    assert_eq!(flags(&mut talk), (Mode::Extended, true, true));
    let required = OptionError::ExtendedHeadersRequired;
    talk.refuses(&ClientOption::StructuredReply, required);
    assert_eq!(flags(&mut talk), (Mode::Extended, true, true));
    talk.refuses(&ClientOption::Unknown(4), OptionError::Unsupported);
}

#[test]
fn where_tls_is_demanded_nothing_goes_before_it_and_nothing_said_before_it_counts() {
    let exports = exports();
    let mut talk = Talk::new(&exports, Some(true));
    for option in [
        ClientOption::List,
        ClientOption::Info(info("disk")),
        ClientOption::Go(info("disk")),
        ClientOption::StructuredReply,
        ClientOption::ExtendedHeaders,
        set("disk", &["x:a"]),
        ClientOption::Unknown(99),
    ] {
        talk.refuses(&option, OptionError::TlsRequired);
    }
    let leave = [
        ClientOption::ExportName("disk".to_owned()),
        ClientOption::Abort,
    ];
    for option in leave {
        assert!(matches!(talk.say(&option).0, Step::Close), "{option:?}");
    }
    assert!(matches!(
        talk.say(&ClientOption::StartTls).0,
        Step::StartTls
    ));

    let mut talk = Talk::new(&exports, Some(false));
    talk.agrees(&ClientOption::ExtendedHeaders);
    talk.agrees(&set("disk", &["x:a"]));
    assert!(matches!(
        talk.say(&ClientOption::StartTls).0,
        Step::StartTls
    ));
    talk.0.encrypted(None);
    talk.refuses(&ClientOption::StartTls, OptionError::Invalid);
    // Replies are simple again, and no context is chosen.
    talk.refuses(&list(&[]), OptionError::Invalid);
    talk.agrees(&ClientOption::StructuredReply);
    assert!(talk.contexts_after_going_to("disk").is_empty());
}

/// Past the handshake, in that mode, with all contexts where there can be any.
fn going(served: &Served, mode: Mode) -> Raw {
    let mut peer = served.raw().hello();
    let mut options = Vec::new();
    match mode {
        Mode::Simple => {}
        Mode::Structured => options.push(ClientOption::StructuredReply),
        Mode::Extended => options.push(ClientOption::ExtendedHeaders),
    }
    if mode != Mode::Simple {
        options.push(set("disk", &["base:allocation", "x:a", "x:b"]));
    }
    options.push(ClientOption::Go(info("disk")));
    for option in options {
        let mut bytes = Vec::new();
        option.encode(&mut bytes);
        peer.send(&bytes);
        while peer.answer().0 != 1 {}
    }
    peer
}

/// What became of a request.
#[derive(Debug, Default)]
struct Answer {
    done: bool,
    error: Option<u32>,
    data: u64,
    status: Vec<(u32, usize, u64)>,
}

/// Takes one message in.
fn receive(
    peer: &mut Raw,
    mode: Mode,
    sent: &HashMap<u64, Request>,
    got: &mut HashMap<u64, Answer>,
) {
    let len = [16, 20, 32];
    let magic = peer.take(4);
    let simple = magic == 0x6744_6698u32.to_be_bytes();
    let rest = if simple { len[0] } else { len[mode as usize] } - 4;
    let header = [magic, peer.take(rest)].concat();
    let (header, _) = ReplyHeader::decode(mode, &header).unwrap().unwrap();
    let (ReplyHeader::Simple { cookie, .. } | ReplyHeader::Chunk { cookie, .. }) = header;
    let request = &sent[&cookie];
    let answer = got.entry(cookie).or_default();
    assert!(
        !answer.done,
        "more comes after the end: {request:?} {answer:?}"
    );
    match header {
        ReplyHeader::Simple { error, .. } => {
            let by_chunks = [command::READ, command::BLOCK_STATUS].contains(&request.command);
            assert!(
                mode == Mode::Simple || !by_chunks,
                "a simple reply to {request:?}"
            );
            answer.done = true;
            answer.error = (error != 0).then_some(error);
            if error == 0 && request.command == command::READ {
                answer.data = peer.take(request.length as usize).len() as u64;
            }
        }
        ReplyHeader::Chunk {
            flags,
            kind,
            length,
            offset,
            ..
        } => {
            assert!(mode != Mode::Extended || offset == request.offset);
            let payload = peer.take(length as usize);
            answer.done = flags & chunk_flag::DONE != 0;
            match Chunk::decode(kind, &payload).unwrap() {
                Chunk::None => {}
                Chunk::Data(at, data) => {
                    assert!(!data.is_empty(), "a chunk of no data to {request:?}");
                    assert_eq!(at, request.offset + answer.data, "{request:?}");
                    answer.data += data.len() as u64;
                }
                Chunk::Status(id, extents) => {
                    let total = extents.iter().map(|e| e.length).sum();
                    answer.status.push((id, extents.len(), total));
                }
                Chunk::Error(error, ..) => answer.error = Some(error),
                other => panic!("{other:?} to {request:?}"),
            }
        }
    }
}

fn random(mode: Mode, cookie: u64, dice: &mut Dice) -> (Request, Vec<u8>) {
    let near = [0, 1, 511, 4096, SIZE - 4096, SIZE - 1, SIZE, u64::MAX - 9];
    let long = [
        0,
        1,
        512,
        4096,
        70_000,
        SIZE - 1,
        SIZE,
        SIZE + 1,
        u64::from(u32::MAX),
    ];
    let mut request = Request {
        flags: 0,
        command: dice.below(10) as u16,
        cookie,
        offset: near[dice.below(8) as usize],
        length: long[dice.below(9) as usize],
    };
    if dice.below(3) == 0 {
        request.flags = 1 << dice.below(7);
    }
    if request.command == command::DISC {
        request.command = command::FLUSH;
    }
    let with_payload = request.command == command::WRITE
        || (mode == Mode::Extended && request.has(flags::PAYLOAD_LEN));
    if !with_payload {
        return (request, Vec::new());
    }
    // More than twice the largest payload is no request but an attack.
    request.length = request.length.min(2 * SIZE);
    let mut payload = vec![dice.next() as u8; request.length as usize];
    if request.command == command::BLOCK_STATUS {
        let contexts = (0..dice.below(4)).map(|_| dice.below(4) as u32).collect();
        payload.clear();
        StatusPayload {
            length: long[dice.below(9) as usize],
            contexts,
        }
        .encode(&mut payload);
        request.length = payload.len() as u64;
    }
    (request, payload)
}

fn check(mode: Mode, request: &Request, payload: &[u8], answer: &Answer) {
    let case = format!("{mode:?} {request:?} {answer:?}");
    let known = [1, 5, 12, 22, 28, 75, 95, 108];
    assert!(answer.error.is_none_or(|e| known.contains(&e)), "{case}");
    let past = |len: u64| request.offset.checked_add(len).is_none_or(|e| e > SIZE);
    match request.command {
        command::READ if answer.error.is_none() => {
            assert_eq!(answer.data, request.length, "{case}");
        }
        command::WRITE | command::WRITE_ZEROES
            if past(request.length) && request.flags & !flags::FUA == 0 =>
        {
            assert_eq!(answer.error, Some(Errno::NoSpc as u32), "{case}");
        }
        command::TRIM | command::READ if past(request.length) => {
            assert_eq!(answer.error, Some(Errno::Inval as u32), "{case}");
        }
        command::BLOCK_STATUS if answer.error.is_none() => {
            let (length, mut ids) = if request.has(flags::PAYLOAD_LEN) {
                let asked = StatusPayload::decode(payload).unwrap();
                (asked.length, asked.contexts)
            } else {
                (request.length, vec![0, 1, 2])
            };
            ids.sort_unstable();
            let told: Vec<u32> = answer.status.iter().map(|s| s.0).collect();
            assert_eq!(told, ids, "each context once: {case}");
            let one = request.has(flags::REQ_ONE);
            for (_, extents, total) in &answer.status {
                assert!((1..=length).contains(total), "{case}");
                assert!(!one || *extents == 1, "{case}");
            }
        }
        8 | 9 => assert_eq!(answer.error, Some(Errno::Inval as u32), "{case}"),
        _ => {}
    }
}

#[test]
fn requests_of_every_kind_are_answered_once_and_as_the_protocol_says() {
    let limits = Limits {
        workers: 3,
        ..Limits::default()
    };
    let options = Options {
        limits,
        ..Options::default()
    };
    let served = Served::new(exports(), options);
    for (seed, mode) in (1..).zip([Mode::Simple, Mode::Structured, Mode::Extended]) {
        let (mut peer, mut dice) = (going(&served, mode), Dice(seed));
        for round in 0..60 {
            let (mut sent, mut payloads) = (HashMap::new(), HashMap::new());
            let mut bytes = Vec::new();
            for n in 0..8 {
                let (request, payload) = random(mode, round * 8 + n, &mut dice);
                request.encode(mode, &mut bytes).unwrap();
                bytes.extend_from_slice(&payload);
                sent.insert(request.cookie, request);
                payloads.insert(request.cookie, payload);
            }
            let mut got: HashMap<u64, Answer> = HashMap::new();
            std::thread::scope(|scope| {
                let mut sender = Raw(peer.0.try_clone().unwrap());
                scope.spawn(move || assert!(sender.send(&bytes), "it hung up"));
                while got.len() < sent.len() || got.values().any(|a| !a.done) {
                    receive(&mut peer, mode, &sent, &mut got);
                }
            });
            for (cookie, request) in &sent {
                check(mode, request, &payloads[cookie], &got[cookie]);
            }
        }
    }
}

#[test]
fn however_many_contexts_are_chosen_the_answer_is_not_longer() {
    let served = Served::new(exports(), Options::default());
    let mut peer = going(&served, Mode::Extended);
    let request = Request {
        flags: 0,
        command: command::BLOCK_STATUS,
        cookie: 1,
        offset: 0,
        length: SIZE,
    };
    let mut bytes = Vec::new();
    request.encode(Mode::Extended, &mut bytes).unwrap();
    peer.send(&bytes);
    let (sent, mut got) = (HashMap::from([(1, request)]), HashMap::new());
    while got.get(&1).is_none_or(|a: &Answer| !a.done) {
        receive(&mut peer, Mode::Extended, &sent, &mut got);
    }
    let extents: usize = got[&1].status.iter().map(|s| s.1).sum();
    assert!(
        (1 << 15..=1 << 16).contains(&extents),
        "{extents} extents of {:?}",
        got[&1].status
    );
}
