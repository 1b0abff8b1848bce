//! The sockets of a server: bound here, or handed over by systemd.

use listenfd::ListenFd;
use std::net::TcpListener;
use std::os::unix::net::UnixListener;
use stillpoint_nbd::server::Server;
use stillpoint_serve::listen::{Address, Listener, Unlink};
use stillpoint_serve::qmp;
use stillpoint_store::{Error, Result};

/// Bound sockets, with their names for people.
pub struct Bound {
    sockets: Vec<(String, Listener, Kind)>,
    unlink: Vec<Unlink>,
}

/// What a socket is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Nbd,
    Qmp,
}

/// Binds the addresses, and takes what systemd hands over.
pub fn bind(nbd: &[Address], qmp: Option<&Address>) -> Result<Bound> {
    let mut bound = Bound {
        sockets: handed_over()?,
        unlink: Vec::new(),
    };
    let nbd = nbd.iter().map(|address| (address, Kind::Nbd));
    let qmp = qmp.map(|address| (address, Kind::Qmp));
    for (address, kind) in nbd.chain(qmp) {
        let (listener, unlink) = address.bind()?;
        bound.unlink.extend(unlink);
        let name = name(&listener, address);
        bound.sockets.push((name, listener, kind));
    }
    if bound.sockets.is_empty() {
        return Err(
            Error::invalid("serving", "there is no address to listen on")
                .hint("give one, as in --nbd unix:/run/still.sock or --nbd tcp:127.0.0.1:10809"),
        );
    }
    Ok(bound)
}

/// What systemd hands over; a socket that its unit calls `qmp` (`FileDescriptorName=`) is a control socket.
fn handed_over() -> Result<Vec<(String, Listener, Kind)>> {
    let names = std::env::var("LISTEN_FDNAMES").unwrap_or_default();
    let kind = |n: usize| match names.split(':').nth(n) {
        Some("qmp") => Kind::Qmp,
        _ => Kind::Nbd,
    };
    let mut from = ListenFd::from_env();
    let failed = |e| Error::io("taking the sockets that systemd hands over", e);
    let mut sockets = Vec::new();
    for n in 0..from.len() {
        // One that is of another kind stays where it is and is asked for again.
        if let Ok(Some(unix)) = from.take_unix_listener(n) {
            sockets.push((unix_name(&unix), Listener::Unix(unix), kind(n)));
        } else if let Some(tcp) = from.take_tcp_listener(n).map_err(failed)? {
            sockets.push((tcp_name(&tcp), Listener::Tcp(tcp), kind(n)));
        }
    }
    Ok(sockets)
}

/// What was bound; a port may have been left to the system.
pub fn name(listener: &Listener, address: &Address) -> String {
    match listener {
        Listener::Tcp(tcp) => tcp_name(tcp),
        Listener::Unix(_) => address.to_string(),
    }
}

fn tcp_name(listener: &TcpListener) -> String {
    match listener.local_addr() {
        Ok(address) => format!("tcp:{address}"),
        Err(_) => "tcp".to_owned(),
    }
}

fn unix_name(listener: &UnixListener) -> String {
    let address = listener.local_addr().ok();
    let path = address.as_ref().and_then(|a| a.as_pathname());
    path.map_or_else(|| "unix".to_owned(), |p| format!("unix:{}", p.display()))
}

impl Bound {
    /// What is listened on.
    pub fn names(&self) -> Vec<String> {
        self.sockets.iter().map(|(name, ..)| name.clone()).collect()
    }

    /// Lets clients in. The files of the sockets go when the answer is dropped.
    pub fn serve(self, server: &Server, control: &qmp::Server) -> Result<Vec<Unlink>> {
        for (name, socket, kind) in self.sockets {
            match (socket, kind) {
                (Listener::Unix(unix), Kind::Nbd) => server.listen_on_unix(unix),
                (Listener::Tcp(tcp), Kind::Nbd) => server.listen_on_tcp(tcp),
                (Listener::Unix(unix), Kind::Qmp) => control.listen(unix),
                // It obeys whoever can connect.
                (Listener::Tcp(_), Kind::Qmp) => {
                    return Err(Error::invalid(
                        "listening on",
                        "a control socket must be unix:PATH",
                    )
                    .at(name));
                }
            }
            .map_err(|e| Error::io("listening on", e).at(name))?;
        }
        Ok(self.unlink)
    }
}
