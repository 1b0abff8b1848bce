//! URIs that name an export: `nbd://host:port/name`, `nbds://...`, `nbd+unix:///name?socket=PATH`, `nbds+unix:///...`.

use std::fmt::{self, Write};
use std::path::PathBuf;

/// Port of NBD, by IANA.
const PORT: u16 = 10809;

/// Where a server listens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Address {
    /// Host name or address, and port.
    Tcp(String, u16),
    /// A unix socket.
    Unix(PathBuf),
}

/// A server, whether to speak TLS to it, and an export of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Uri {
    /// Where it is.
    pub address: Address,
    /// Whether TLS is wanted.
    pub tls: bool,
    /// Name of the export; empty is the default one.
    pub export: String,
}

impl Uri {
    /// Reads one; `None` when it is none of those above.
    pub fn parse(text: &str) -> Option<Self> {
        let (scheme, rest) = text.split_once("://")?;
        let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
        let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
        let (tls, unix) = match scheme {
            "nbd" => (false, false),
            "nbds" => (true, false),
            "nbd+unix" => (false, true),
            "nbds+unix" => (true, true),
            _ => return None,
        };
        let address = if unix {
            let mut pairs = query.split('&').filter_map(|pair| pair.split_once('='));
            let (_, socket) = pairs.find(|(key, _)| *key == "socket")?;
            Address::Unix(PathBuf::from(unescape(socket)?))
        } else {
            host_and_port(authority)?
        };
        let export = unescape(path)?;
        Some(Self {
            address,
            tls,
            export,
        })
    }
}

fn host_and_port(authority: &str) -> Option<Address> {
    let (host, port) = match authority.rsplit_once(':') {
        // The colons of an IPv6 address stand in brackets.
        Some((host, port)) if !port.contains(']') => (host, port.parse().ok()?),
        _ => (authority, PORT),
    };
    let host = host.trim_start_matches('[').trim_end_matches(']');
    let host = if host.is_empty() { "localhost" } else { host };
    Some(Address::Tcp(host.to_owned(), port))
}

fn unescape(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        if byte != b'%' {
            bytes.push(byte);
            continue;
        }
        let digit = |b: u8| char::from(b).to_digit(16);
        let (high, low) = (digit(rest.next()?)?, digit(rest.next()?)?);
        bytes.push((high * 16 + low) as u8);
    }
    String::from_utf8(bytes).ok()
}

fn escape(text: &str, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~/@:,".contains(&byte) {
            f.write_char(char::from(byte))?;
        } else {
            write!(f, "%{byte:02X}")?;
        }
    }
    Ok(())
}

impl fmt::Display for Uri {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.tls { "nbds" } else { "nbd" })?;
        match &self.address {
            Address::Tcp(host, port) if host.contains(':') => write!(f, "://[{host}]:{port}/")?,
            Address::Tcp(host, port) => write!(f, "://{host}:{port}/")?,
            Address::Unix(_) => f.write_str("+unix:///")?,
        }
        escape(&self.export, f)?;
        if let Address::Unix(path) = &self.address {
            f.write_str("?socket=")?;
            escape(&path.to_string_lossy(), f)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn uris_are_read_and_printed_alike() {
        for text in [
            "nbd://localhost:10809/",
            "nbds://[::1]:10810/a%20b",
            "nbd+unix:///disk@monday?socket=/run/x.sock",
        ] {
            let uri = Uri::parse(text).expect("it is one");
            assert_eq!(uri.to_string(), text);
        }
        let short = Uri::parse("nbd://example").expect("it is one");
        assert_eq!(short.address, Address::Tcp("example".to_owned(), PORT));
        for bad in [
            "",
            "nbd",
            "http://x/",
            "nbd+unix:///x",
            "nbd://h:x/",
            "nbd://h/%4",
            "nbd://h/%ff",
        ] {
            assert_eq!(Uri::parse(bad), None, "{bad}");
        }
    }
}
