//! Where a server listens: `unix:PATH` and `tcp:HOST:PORT`.

use std::fmt;
use std::io;
use std::net::TcpListener;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::str::FromStr;
use stillpoint_store::{Error, ErrorKind, Result};

/// Longest path in the address of a unix socket.
const ADDRESS_MAX: usize = 107;

/// An address to listen on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Address {
    /// A unix socket.
    Unix(PathBuf),
    /// Host and port, as `ToSocketAddrs` takes them.
    Tcp(String),
}

impl FromStr for Address {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let full = |rest: &str| !rest.is_empty();
        match text.split_once(':') {
            Some(("unix", path)) if full(path) => Ok(Self::Unix(path.into())),
            Some(("tcp", rest)) if rest.contains(':') => Ok(Self::Tcp(rest.to_owned())),
            _ => Err(Error::invalid(
                "reading an address",
                format!("{text:?} is neither unix:PATH nor tcp:HOST:PORT"),
            )),
        }
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
            Self::Tcp(rest) => write!(f, "tcp:{rest}"),
        }
    }
}

/// A bound socket.
#[derive(Debug)]
pub enum Listener {
    /// A unix socket.
    Unix(UnixListener),
    /// A TCP socket.
    Tcp(TcpListener),
}

/// Removes a socket's file when it is dropped, if it is still the one that was bound.
#[derive(Debug)]
pub struct Unlink {
    path: PathBuf,
    inode: (u64, u64),
}

impl Drop for Unlink {
    fn drop(&mut self) {
        if inode(&self.path).is_ok_and(|now| now == self.inode) {
            // One that stays is taken for a leftover by the next server.
            std::fs::remove_file(&self.path).unwrap_or_default();
        }
    }
}

fn inode(path: &Path) -> io::Result<(u64, u64)> {
    std::fs::symlink_metadata(path).map(|m| (m.dev(), m.ino()))
}

impl Address {
    /// Binds it. A socket's file that nobody listens on was left by a server that died, and goes; the new one is removed when
    /// the second value is dropped.
    pub fn bind(&self) -> Result<(Listener, Option<Unlink>)> {
        match self {
            Self::Tcp(address) => {
                let listener = TcpListener::bind(address).map_err(|e| self.failed(e))?;
                Ok((Listener::Tcp(listener), None))
            }
            Self::Unix(path) => {
                let (listener, unlink) = self.bind_unix(path)?;
                Ok((Listener::Unix(listener), Some(unlink)))
            }
        }
    }

    fn bind_unix(&self, path: &Path) -> Result<(UnixListener, Unlink)> {
        if is_leftover(path) {
            std::fs::remove_file(path).map_err(|e| self.failed(e))?;
        }
        let short = Short::of(path).map_err(|e| self.failed(e))?;
        let listener = UnixListener::bind(&short.path).map_err(|e| self.failed(e))?;
        let unlink = Unlink {
            inode: inode(path).map_err(|e| self.failed(e))?,
            path: path.to_owned(),
        };
        Ok((listener, unlink))
    }

    fn failed(&self, error: io::Error) -> Error {
        if error.kind() == io::ErrorKind::AddrInUse {
            return Error::new(ErrorKind::Busy, "listening on")
                .at(self)
                .detail("it is in use")
                .hint("stop the other server, or choose another address");
        }
        Error::io("listening on", error).at(self)
    }
}

fn is_leftover(path: &Path) -> bool {
    let socket = std::fs::symlink_metadata(path).is_ok_and(|m| m.file_type().is_socket());
    let refused = |e: io::Error| e.kind() == io::ErrorKind::ConnectionRefused;
    socket && connect(path).err().is_some_and(refused)
}

/// Connects to a unix socket, however long its path is.
pub fn connect(path: &Path) -> io::Result<UnixStream> {
    UnixStream::connect(&Short::of(path)?.path)
}

/// Where the server of a store listens for other commands on that store.
pub fn control_of(store: &Path) -> Address {
    Address::Unix(store.join("local").join("control.sock"))
}

/// A name of a socket that fits into an address, which has room for 107 bytes: through an open folder where need be.
struct Short {
    path: PathBuf,
    /// Open for as long as the name is used.
    _folder: Option<std::fs::File>,
}

impl Short {
    fn of(path: &Path) -> io::Result<Self> {
        let (Some(folder), Some(name)) = (path.parent(), path.file_name()) else {
            return Ok(Self::plain(path));
        };
        if path.as_os_str().len() <= ADDRESS_MAX {
            return Ok(Self::plain(path));
        }
        let folder = std::fs::File::open(folder)?;
        let through = format!("/proc/self/fd/{}", folder.as_raw_fd());
        Ok(Self {
            path: Path::new(&through).join(name),
            _folder: Some(folder),
        })
    }

    fn plain(path: &Path) -> Self {
        Self {
            path: path.to_owned(),
            _folder: None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read_and_printed_alike() {
        for text in [
            "unix:/run/x.sock",
            "unix:a:b",
            "tcp:[::1]:10809",
            "tcp:localhost:0",
        ] {
            assert_eq!(text.parse::<Address>().unwrap().to_string(), text);
        }
        for bad in [
            "",
            "unix:",
            "tcp:",
            "tcp:localhost",
            "/run/x.sock",
            "vsock:1:2",
        ] {
            assert!(bad.parse::<Address>().is_err(), "{bad}");
        }
    }

    #[test]
    fn a_socket_that_a_dead_server_left_is_taken_over_and_a_live_one_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("socket");
        drop(UnixListener::bind(&path).unwrap());
        let address = Address::Unix(path.clone());
        let (live, unlink) = address.bind().unwrap();
        assert_eq!(address.bind().unwrap_err().kind(), ErrorKind::Busy);
        drop((live, unlink));
        assert!(!path.exists());
    }

    #[test]
    fn a_path_may_be_longer_than_an_address() {
        let folder = tempfile::tempdir().unwrap();
        let deep = folder.path().join("x".repeat(150));
        std::fs::create_dir(&deep).unwrap();
        let path = deep.join("socket");
        let (listener, unlink) = Address::Unix(path.clone()).bind().unwrap();
        connect(&path).unwrap();
        drop((listener, unlink));
        assert!(!path.exists());
    }

    #[test]
    fn what_is_no_socket_stays() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        std::fs::write(&path, "precious").unwrap();
        assert!(Address::Unix(path.clone()).bind().is_err());
        assert_eq!(std::fs::read(&path).unwrap(), b"precious");
    }
}
