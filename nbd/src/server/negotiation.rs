//! The handshake's state: options in, answers out, no I/O.

use crate::codec::{
    BlockSizes, ClientHello, ClientOption, ExportNameReply, Info, InfoRequest, Malformed,
    MetaRequest, Mode, OptionError, OptionReply, handshake, info, opt, transmission,
};
use crate::export::{Export, ExportInfo, Exports, OpenError, Peer};
use std::sync::Arc;

/// What a client and this server agreed on.
pub struct Chosen {
    /// The disk.
    pub export: Arc<dyn Export>,
    /// What the client was told about it.
    pub info: ExportInfo,
    /// How messages look.
    pub mode: Mode,
    /// Metadata contexts; their ids are their places in the list.
    pub contexts: Vec<String>,
}

/// What comes after an option.
pub enum Step {
    /// The next option.
    Next,
    /// The TLS handshake, after the answer is sent and if nothing came behind the option. [`Negotiation::encrypted`] next.
    StartTls,
    /// The transmission phase.
    Go(Box<Chosen>),
    /// Nothing: close, after the answer is sent.
    Close,
}

/// State of a handshake.
pub struct Negotiation<'a> {
    exports: &'a dyn Exports,
    peer: Peer,
    tls: Encryption,
    payload: u32,
    hello: u16,
    mode: Mode,
    /// Export and contexts of the last `SET_META_CONTEXT`.
    meta: Option<(String, Vec<String>)>,
}

/// Where encryption stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Encryption {
    Off,
    Allowed,
    Required,
    On,
}

impl<'a> Negotiation<'a> {
    /// `tls`: `None` when it is off, else whether it is required. `payload`: longest data of a read or write in bytes.
    pub fn new(exports: &'a dyn Exports, peer: Peer, tls: Option<bool>, payload: u32) -> Self {
        let tls = match tls {
            None => Encryption::Off,
            Some(false) => Encryption::Allowed,
            Some(true) => Encryption::Required,
        };
        Self {
            exports,
            peer,
            tls,
            payload,
            hello: 0,
            mode: Mode::Simple,
            meta: None,
        }
    }

    /// The client's first word. Flags that are not known end the connection.
    pub fn hello(&mut self, hello: ClientHello) -> Result<(), Malformed> {
        let known = handshake::FIXED_NEWSTYLE | handshake::NO_ZEROES;
        match u16::try_from(hello.flags) {
            Ok(flags) if flags & !known == 0 => {
                self.hello = flags;
                Ok(())
            }
            _ => Err(Malformed("the client has flags that are not known")),
        }
    }

    /// TLS is on: nothing that was said before it counts. The certificate is the client's, in DER.
    pub fn encrypted(&mut self, certificate: Option<Vec<u8>>) {
        self.tls = Encryption::On;
        self.peer.tls = true;
        self.peer.certificate = certificate;
        self.mode = Mode::Simple;
        self.meta = None;
    }

    /// Nothing is answered before TLS.
    pub fn wants_tls(&self) -> bool {
        self.tls == Encryption::Required
    }

    /// An option with too much data, which were skipped.
    pub fn too_big(&self, option: u32, out: &mut Vec<u8>) -> Step {
        if option == opt::EXPORT_NAME {
            return Step::Close;
        }
        fail(option, OptionError::TooBig, "too much data", out)
    }

    /// Answers an option by appending to `out`.
    pub fn option(&mut self, number: u32, data: &[u8], out: &mut Vec<u8>) -> Step {
        let fixed = self.hello & handshake::FIXED_NEWSTYLE != 0;
        if !fixed && number != opt::EXPORT_NAME {
            return Step::Close;
        }
        if self.tls == Encryption::Required && ![opt::STARTTLS, opt::ABORT].contains(&number) {
            if number == opt::EXPORT_NAME {
                return Step::Close;
            }
            return fail(number, OptionError::TlsRequired, "TLS is required", out);
        }
        let option = match ClientOption::decode(number, data) {
            Ok(option) => option,
            Err(_) if number == opt::EXPORT_NAME => return Step::Close,
            Err(bad) => return fail(number, OptionError::Invalid, bad.0, out),
        };
        match option {
            ClientOption::ExportName(name) => self.export_name(&name, out),
            ClientOption::Abort => {
                OptionReply::Ack.encode(number, out);
                Step::Close
            }
            ClientOption::List => self.list(out),
            ClientOption::StartTls => self.start_tls(out),
            ClientOption::Info(request) | ClientOption::Go(request) => {
                self.info(number, &request, out)
            }
            ClientOption::StructuredReply => self.structured(out),
            ClientOption::ExtendedHeaders => {
                self.mode = Mode::Extended;
                ack(number, out)
            }
            ClientOption::ListMeta(request) => self.list_meta(number, &request, out),
            ClientOption::SetMeta(request) => self.set_meta(number, &request, out),
            ClientOption::Unknown(_) => {
                fail(number, OptionError::Unsupported, "unknown option", out)
            }
        }
    }

    fn start_tls(&self, out: &mut Vec<u8>) -> Step {
        match self.tls {
            Encryption::Off => fail(opt::STARTTLS, OptionError::Policy, "TLS is off", out),
            Encryption::On => fail(opt::STARTTLS, OptionError::Invalid, "TLS is on", out),
            Encryption::Allowed | Encryption::Required => {
                OptionReply::Ack.encode(opt::STARTTLS, out);
                Step::StartTls
            }
        }
    }

    fn structured(&mut self, out: &mut Vec<u8>) -> Step {
        if self.mode == Mode::Extended {
            let error = OptionError::ExtendedHeadersRequired;
            let why = "extended headers are on";
            return fail(opt::STRUCTURED_REPLY, error, why, out);
        }
        self.mode = Mode::Structured;
        ack(opt::STRUCTURED_REPLY, out)
    }

    fn list(&self, out: &mut Vec<u8>) -> Step {
        for listed in self.exports.list(&self.peer) {
            OptionReply::Server(listed.name, listed.description).encode(opt::LIST, out);
        }
        ack(opt::LIST, out)
    }

    fn export_name(&mut self, name: &str, out: &mut Vec<u8>) -> Step {
        let Ok(chosen) = self.choose(name, true) else {
            return Step::Close;
        };
        let reply = ExportNameReply {
            size: chosen.info.size,
            flags: chosen.info.flags,
        };
        reply.encode(self.hello & handshake::NO_ZEROES != 0, out);
        Step::Go(Box::new(chosen))
    }

    /// `INFO` and `GO`.
    fn info(&mut self, number: u32, request: &InfoRequest, out: &mut Vec<u8>) -> Step {
        let chosen = match self.choose(&request.name, number == opt::GO) {
            Ok(chosen) => chosen,
            Err(error) => return fail(number, error.kind, &error.message, out),
        };
        let told = &chosen.info;
        let mut tell = |info| OptionReply::Info(info).encode(number, out);
        tell(Info::Export(told.size, told.flags));
        if request.wanted.contains(&info::NAME) {
            tell(Info::Name(request.name.clone()));
        }
        if request.wanted.contains(&info::DESCRIPTION) && !told.description.is_empty() {
            tell(Info::Description(told.description.clone()));
        }
        // Unasked too, as QEMU does: the protocol allows it, and clients do better with it.
        tell(Info::BlockSize(told.block));
        OptionReply::Ack.encode(number, out);
        if number == opt::GO {
            Step::Go(Box::new(chosen))
        } else {
            Step::Next
        }
    }

    fn list_meta(&self, number: u32, request: &MetaRequest, out: &mut Vec<u8>) -> Step {
        let there = match self.contexts_of(&request.name) {
            Ok(there) => there,
            Err((error, why)) => return fail(number, error, &why, out),
        };
        let asked = |name: &String| {
            let queries = &request.queries;
            queries.is_empty() || queries.iter().any(|query| matches(query, name))
        };
        for name in there.into_iter().filter(asked) {
            OptionReply::MetaContext(0, name).encode(number, out);
        }
        ack(number, out)
    }

    fn set_meta(&mut self, number: u32, request: &MetaRequest, out: &mut Vec<u8>) -> Step {
        // Whatever comes of it, earlier choices are gone.
        self.meta = None;
        let there = match self.contexts_of(&request.name) {
            Ok(there) => there,
            Err((error, why)) => return fail(number, error, &why, out),
        };
        let chosen = there.into_iter().filter(|c| request.queries.contains(c));
        let chosen: Vec<String> = chosen.collect();
        for (id, name) in (0..).zip(&chosen) {
            OptionReply::MetaContext(id, name.clone()).encode(number, out);
        }
        self.meta = Some((request.name.clone(), chosen));
        ack(number, out)
    }

    fn contexts_of(&self, name: &str) -> Result<Vec<String>, (OptionError, String)> {
        if self.mode == Mode::Simple {
            let why = "structured replies are off".to_owned();
            return Err((OptionError::Invalid, why));
        }
        let export = self.exports.ask(name, &self.peer);
        let export = export.map_err(|error| (error.kind, error.message))?;
        Ok(export.contexts())
    }

    /// Opens an export, or only asks about it, and works out what of it holds on this connection.
    fn choose(&self, name: &str, open: bool) -> Result<Chosen, OpenError> {
        let export = if open {
            self.exports.open(name, &self.peer)?
        } else {
            self.exports.ask(name, &self.peer)?
        };
        let mut info = export.info();
        let contexts = match &self.meta {
            Some((of, contexts)) if of == name => contexts.clone(),
            _ => Vec::new(),
        };
        let by_mode = transmission::SEND_DF | transmission::BLOCK_STATUS_PAYLOAD;
        info.flags &= !(by_mode | transmission::SEND_RESIZE);
        info.flags |= transmission::HAS_FLAGS;
        if self.mode >= Mode::Structured {
            info.flags |= transmission::SEND_DF;
        }
        if self.mode == Mode::Extended {
            info.flags |= transmission::BLOCK_STATUS_PAYLOAD;
        }
        info.block = sane(info.block, self.payload);
        Ok(Chosen {
            export,
            info,
            mode: self.mode,
            contexts,
        })
    }
}

/// Block sizes that the protocol allows, whatever the export says.
fn sane(block: BlockSizes, payload: u32) -> BlockSizes {
    let minimum = block.minimum.clamp(1, 1 << 16).next_power_of_two();
    let preferred = block.preferred.clamp(512, 1 << 25).next_power_of_two();
    let preferred = preferred.max(minimum);
    let maximum = block.maximum.min(payload).max(preferred);
    BlockSizes {
        minimum,
        preferred,
        maximum: maximum - maximum % minimum,
    }
}

/// Whether a query of `LIST_META_CONTEXT` asks for a context: its name, or a prefix of it that ends in a colon.
fn matches(query: &str, context: &str) -> bool {
    query == context || (query.ends_with(':') && context.starts_with(query))
}

fn ack(option: u32, out: &mut Vec<u8>) -> Step {
    OptionReply::Ack.encode(option, out);
    Step::Next
}

fn fail(option: u32, error: OptionError, why: &str, out: &mut Vec<u8>) -> Step {
    OptionReply::Error(error, why.to_owned()).encode(option, out);
    Step::Next
}
