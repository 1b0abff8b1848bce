//! The handshake over a socket: state from [`Negotiation`], time and size from the limits.

use super::{Chosen, Negotiation, Shared, Step, Tls};
use crate::codec::{ClientHello, OptionHeader, ServerHello, handshake, opt};
use crate::export::Peer;
use crate::transport::{self, Input, Socket, WriteHalf};
use std::io;
use std::time::Instant;

/// Longest data that are skipped for an answer; QEMU takes no more either (10.0, `NBD_MAX_BUFFER_SIZE`).
const SKIP: u32 = 32 << 20;

/// A connection that is ready for requests.
pub(super) struct Ready {
    pub(super) input: Input,
    pub(super) output: WriteHalf,
    pub(super) chosen: Chosen,
}

/// Shakes hands. `None` when the client left in good order or was shown the door.
pub(super) fn shake(shared: &Shared, socket: &Socket) -> io::Result<Option<Ready>> {
    let limits = &shared.options.limits;
    let in_time = || Some(Instant::now() + limits.handshake);
    let mut deadline = in_time();
    socket.set_stall(Some(limits.handshake))?;
    let (read, mut output) = transport::plain(socket)?;
    let mut input = Input::new(read);
    input.set_deadline(deadline)?;
    let mut out = Vec::new();
    let flags = handshake::FIXED_NEWSTYLE | handshake::NO_ZEROES;
    ServerHello { flags }.encode(&mut out);
    output.send(&out)?;
    let mut negotiation = start(shared, socket);
    let hello = input.next(ClientHello::decode)?;
    negotiation.hello(hello).map_err(invalid)?;
    for _ in 0..limits.options {
        if shared.stopping() {
            return Ok(None);
        }
        let header = input.next(OptionHeader::decode)?;
        out.clear();
        match answer(
            &mut negotiation,
            header,
            &mut input,
            limits.option_bytes,
            &mut out,
        )? {
            Step::Next => {
                output.send(&out)?;
                // Whoever looks at thousands of exports takes longer than a stranger may.
                if !negotiation.wants_tls() {
                    deadline = in_time();
                    input.set_deadline(deadline)?;
                }
            }
            Step::Close => {
                output.send(&out)?;
                let _ = output.close();
                return Ok(None);
            }
            Step::StartTls => {
                // What came before encryption must not count as if it had come after.
                if !input.buffered().is_empty() {
                    return Err(invalid("bytes after STARTTLS"));
                }
                output.send(&out)?;
                (input, output) = encrypt(shared, socket, deadline)?;
                negotiation.encrypted(input.certificate());
            }
            Step::Go(chosen) => {
                output.send(&out)?;
                input.set_deadline(None)?;
                socket.set_stall(Some(limits.stall))?;
                let chosen = *chosen;
                return Ok(Some(Ready {
                    input,
                    output,
                    chosen,
                }));
            }
        }
    }
    Err(invalid("too many options"))
}

fn start<'a>(shared: &'a Shared, socket: &Socket) -> Negotiation<'a> {
    let peer = Peer {
        address: socket.peer(),
        ..Peer::default()
    };
    let tls = match &shared.options.tls {
        Tls::Off => None,
        Tls::Allowed(_) => Some(false),
        Tls::Required(_) => Some(true),
    };
    let payload = shared.options.limits.payload;
    Negotiation::new(shared.exports.as_ref(), peer, tls, payload)
}

fn answer(
    negotiation: &mut Negotiation<'_>,
    header: OptionHeader,
    input: &mut Input,
    longest: u32,
    out: &mut Vec<u8>,
) -> io::Result<Step> {
    if header.length > SKIP {
        return Err(invalid("an option with too much data"));
    }
    // A client may leave without waiting for what its option's data would have meant.
    if header.option == opt::ABORT || header.length > longest {
        input.skip(u64::from(header.length))?;
        if header.option != opt::ABORT {
            return Ok(negotiation.too_big(header.option, out));
        }
        return Ok(negotiation.option(header.option, &[], out));
    }
    let data = input.payload(header.length as usize)?;
    Ok(negotiation.option(header.option, &data, out))
}

fn encrypt(
    shared: &Shared,
    socket: &Socket,
    deadline: Option<Instant>,
) -> io::Result<(Input, WriteHalf)> {
    let config = shared.options.tls.config();
    let config = config.ok_or_else(|| invalid("TLS is off"))?;
    let session = rustls::ServerConnection::new(config.clone()).map_err(invalid)?;
    let (read, output) = transport::encrypted(socket, session.into(), deadline)?;
    let mut input = Input::new(read);
    input.set_deadline(deadline)?;
    Ok((input, output))
}

fn invalid(error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, error)
}
