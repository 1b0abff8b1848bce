//! Connecting and the handshake.

use super::{Connection, Error, Options};
use crate::codec::{
    BlockSizes, ClientHello, ClientOption, ExportNameReply, Info, InfoRequest, MetaRequest, Mode,
    OptionError, OptionReply, OptionReplyHeader, ServerHello, handshake, info,
};
use crate::export::{ExportInfo, Listed};
use crate::transport::{self, Input, Socket, WriteHalf};
use crate::uri::{Address, Uri};
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use std::net::{TcpStream, ToSocketAddrs};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;
use std::{fmt, io};

/// Longest data of an answer: two of the longest strings and a little.
const ANSWER_MAX: u32 = 16 << 10;
/// Most bytes of answers to one option. A list of exports may be long.
const ANSWERS_MAX: u64 = 64 << 20;

/// How to check whom the client talks to.
#[derive(Clone)]
pub struct ServerTls {
    /// Authorities, and the client's own certificate.
    pub config: Arc<ClientConfig>,
    /// Host name that must stand in the server's certificate.
    pub name: String,
}

impl fmt::Debug for ServerTls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ServerTls")
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}

/// A client that has not chosen an export yet.
pub struct Client {
    socket: Socket,
    input: Input,
    output: WriteHalf,
    options: Options,
    mode: Mode,
    fixed: bool,
    no_zeroes: bool,
}

impl Client {
    /// Connects to a unix socket.
    pub fn connect_unix(path: &Path, options: Options) -> Result<Self, Error> {
        Self::start(Socket::Unix(UnixStream::connect(path)?), options)
    }

    /// Connects over TCP; addresses are tried in turn.
    pub fn connect_tcp(address: impl ToSocketAddrs, options: Options) -> Result<Self, Error> {
        let mut failed = io::Error::new(io::ErrorKind::NotFound, "no address");
        for address in address.to_socket_addrs()? {
            match TcpStream::connect_timeout(&address, options.handshake) {
                Ok(stream) => return Self::start(Socket::tcp(stream)?, options),
                Err(error) => failed = error,
            }
        }
        Err(failed.into())
    }

    /// Connects to where a URI points. Whether TLS is spoken is for the URI to say, with whom for the options.
    pub fn connect(uri: &Uri, mut options: Options) -> Result<Self, Error> {
        if !uri.tls {
            options.tls = None;
        } else if options.tls.is_none() {
            return Err(Error::Unsupported("TLS without certificates".to_owned()));
        }
        match &uri.address {
            Address::Unix(path) => Self::connect_unix(path, options),
            Address::Tcp(host, port) => Self::connect_tcp((host.as_str(), *port), options),
        }
    }

    fn start(socket: Socket, options: Options) -> Result<Self, Error> {
        let deadline = Some(Instant::now() + options.handshake);
        let (read, output) = transport::plain(&socket)?;
        let mut input = Input::new(read);
        input.set_deadline(deadline)?;
        let hello = input.next(ServerHello::decode)?;
        let fixed = hello.flags & handshake::FIXED_NEWSTYLE != 0;
        let no_zeroes = hello.flags & handshake::NO_ZEROES != 0;
        let mut client = Self {
            socket,
            input,
            output,
            options,
            mode: Mode::Simple,
            fixed,
            no_zeroes,
        };
        let known = handshake::FIXED_NEWSTYLE | handshake::NO_ZEROES;
        let mut out = Vec::new();
        let flags = u32::from(hello.flags & known);
        ClientHello { flags }.encode(&mut out);
        client.output.send(&out)?;
        client.encrypt(deadline)?;
        client.ask_for_mode()?;
        Ok(client)
    }

    /// How messages will look.
    pub fn mode(&self) -> Mode {
        self.mode
    }

    fn encrypt(&mut self, deadline: Option<Instant>) -> Result<(), Error> {
        let Some(tls) = self.options.tls.clone() else {
            return Ok(());
        };
        if !self.fixed {
            return Err(Error::Unsupported("TLS".to_owned()));
        }
        self.ask(&ClientOption::StartTls, |_| Ok(()))?;
        if !self.input.buffered().is_empty() {
            return Err(Error::Protocol("bytes before TLS".to_owned()));
        }
        let name = ServerName::try_from(tls.name.clone());
        let name = name.map_err(|_| Error::Unsupported(format!("TLS for {:?}", tls.name)))?;
        let session = rustls::ClientConnection::new(tls.config, name);
        let session = session.map_err(|error| Error::Protocol(error.to_string()))?;
        let (read, output) = transport::encrypted(&self.socket, session.into(), deadline)?;
        self.input = Input::new(read);
        self.input.set_deadline(deadline)?;
        self.output = output;
        Ok(())
    }

    fn ask_for_mode(&mut self) -> Result<(), Error> {
        let wanted = [
            (Mode::Extended, ClientOption::ExtendedHeaders),
            (Mode::Structured, ClientOption::StructuredReply),
        ];
        for (mode, option) in wanted {
            if !self.fixed || self.mode >= mode || mode > self.options.ask {
                continue;
            }
            match self.ask(&option, |_| Ok(())) {
                Ok(()) => self.mode = mode,
                // A server that wants TLS answers so to everything.
                Err(Error::Refused(OptionError::TlsRequired, why)) => {
                    return Err(Error::Refused(OptionError::TlsRequired, why));
                }
                Err(Error::Refused(..)) => {}
                Err(error) => return Err(error),
            }
        }
        if self.mode < self.options.require {
            return Err(Error::Unsupported(format!(
                "{:?} replies",
                self.options.require
            )));
        }
        Ok(())
    }

    /// The exports there are, as far as the server tells.
    pub fn list(&mut self) -> Result<Vec<Listed>, Error> {
        let mut all = Vec::new();
        self.ask(&ClientOption::List, |reply| {
            if let OptionReply::Server(name, description) = reply {
                all.push(Listed { name, description });
            }
            Ok(())
        })?;
        Ok(all)
    }

    /// Names of the metadata contexts of an export that match any of the queries; all for no query.
    pub fn contexts(&mut self, export: &str, queries: &[&str]) -> Result<Vec<String>, Error> {
        let mut all = Vec::new();
        let request = meta(export, queries);
        self.ask(&ClientOption::ListMeta(request), |reply| {
            if let OptionReply::MetaContext(_, name) = reply {
                all.push(name);
            }
            Ok(())
        })?;
        Ok(all)
    }

    /// Size and abilities of an export.
    pub fn info(&mut self, export: &str) -> Result<ExportInfo, Error> {
        self.info_or_go(export, ClientOption::Info)
    }

    /// Opens an export, with those of the metadata contexts that it has. Without structured replies there are none.
    pub fn go(mut self, export: &str, contexts: &[&str]) -> Result<Connection, Error> {
        let mut chosen = Vec::new();
        if !contexts.is_empty() && self.mode >= Mode::Structured {
            let request = meta(export, contexts);
            let set = self.ask(&ClientOption::SetMeta(request), |reply| {
                if let OptionReply::MetaContext(id, name) = reply {
                    chosen.push((id, name));
                }
                Ok(())
            });
            match set {
                Err(Error::Refused(OptionError::Unsupported, _)) => chosen.clear(),
                other => other?,
            }
        }
        let info = match self.info_or_go(export, ClientOption::Go) {
            Err(Error::Refused(OptionError::Unsupported, _)) => self.export_name(export)?,
            other => other?,
        };
        self.input.set_deadline(None)?;
        let (requests, mode) = (self.options.requests, self.mode);
        Connection::start(
            self.socket,
            self.input,
            self.output,
            mode,
            info,
            chosen,
            requests,
        )
    }

    /// Leaves in good order.
    pub fn abort(mut self) -> Result<(), Error> {
        self.ask(&ClientOption::Abort, |_| Ok(()))
    }

    fn info_or_go(
        &mut self,
        export: &str,
        option: fn(InfoRequest) -> ClientOption,
    ) -> Result<ExportInfo, Error> {
        if !self.fixed {
            return Err(Error::Refused(OptionError::Unsupported, String::new()));
        }
        let request = InfoRequest {
            name: export.to_owned(),
            wanted: vec![info::BLOCK_SIZE, info::DESCRIPTION],
        };
        let mut found = None;
        let mut block = unknown_sizes();
        let mut description = String::new();
        self.ask(&option(request), |reply| {
            match reply {
                OptionReply::Info(Info::Export(size, flags)) => found = Some((size, flags)),
                OptionReply::Info(Info::BlockSize(sizes)) => block = checked(sizes)?,
                OptionReply::Info(Info::Description(text)) => description = text,
                _ => {}
            }
            Ok(())
        })?;
        let missing = || Error::Protocol("no size of the export".to_owned());
        let (size, flags) = found.ok_or_else(missing)?;
        Ok(ExportInfo {
            size,
            flags,
            block,
            description,
        })
    }

    /// The old way in, for servers without `GO`.
    fn export_name(&mut self, export: &str) -> Result<ExportInfo, Error> {
        let mut out = Vec::new();
        ClientOption::ExportName(export.to_owned()).encode(&mut out);
        self.output.send(&out)?;
        let no_zeroes = self.no_zeroes;
        let reply = self
            .input
            .next(|bytes| ExportNameReply::decode(no_zeroes, bytes))?;
        Ok(ExportInfo {
            size: reply.size,
            flags: reply.flags,
            block: unknown_sizes(),
            description: String::new(),
        })
    }

    /// Sends an option and hands each answer before the last to `each`.
    fn ask(
        &mut self,
        option: &ClientOption,
        mut each: impl FnMut(OptionReply) -> Result<(), Error>,
    ) -> Result<(), Error> {
        let mut out = Vec::new();
        option.encode(&mut out);
        self.output.send(&out)?;
        let mut left = ANSWERS_MAX;
        loop {
            let header = self.input.next(OptionReplyHeader::decode)?;
            if header.option != option.number() || header.length > ANSWER_MAX {
                return Err(Error::Protocol("an answer to something else".to_owned()));
            }
            let bytes = OptionReplyHeader::BYTES as u64 + u64::from(header.length);
            let too_many = || Error::Protocol("too many answers".to_owned());
            left = left.checked_sub(bytes).ok_or_else(too_many)?;
            let data = self.input.payload(header.length as usize)?;
            match OptionReply::decode(header.kind, &data)? {
                OptionReply::Ack => return Ok(()),
                OptionReply::Error(error, message) => return Err(Error::Refused(error, message)),
                other => each(other)?,
            }
        }
    }
}

fn meta(export: &str, queries: &[&str]) -> MetaRequest {
    MetaRequest {
        name: export.to_owned(),
        queries: queries.iter().map(|&query| query.to_owned()).collect(),
    }
}

/// What to assume of a server that says nothing, by the protocol.
fn unknown_sizes() -> BlockSizes {
    BlockSizes {
        minimum: 1,
        preferred: 4096,
        maximum: 32 << 20,
    }
}

fn checked(sizes: BlockSizes) -> Result<BlockSizes, Error> {
    let powers = sizes.minimum.is_power_of_two() && sizes.preferred.is_power_of_two();
    if !powers || sizes.minimum > 1 << 16 || sizes.maximum < sizes.minimum {
        return Err(Error::Protocol("impossible block sizes".to_owned()));
    }
    Ok(sizes)
}
