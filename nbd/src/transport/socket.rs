//! Unix and TCP sockets as one.

use rustix::net::sockopt;
use std::io::{self, IoSlice, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

/// A peer that says nothing is asked whether it is still there after this long,
const ASK_AFTER: Duration = Duration::from_mins(1);
/// again and again after this long,
const ASK_EVERY: Duration = Duration::from_secs(15);
/// and is given up when it has not answered so often. The system's own two hours keep a disk in use by nobody.
const ASK_TIMES: u32 = 4;

/// A connected socket.
#[derive(Debug)]
pub(crate) enum Socket {
    Unix(UnixStream),
    Tcp(TcpStream),
}

impl Socket {
    /// A TCP socket set up for requests and answers: nothing waits to be sent, vanished peers are noticed.
    pub(crate) fn tcp(stream: TcpStream) -> io::Result<Self> {
        stream.set_nodelay(true)?;
        sockopt::set_socket_keepalive(&stream, true)?;
        sockopt::set_tcp_keepidle(&stream, ASK_AFTER)?;
        sockopt::set_tcp_keepintvl(&stream, ASK_EVERY)?;
        sockopt::set_tcp_keepcnt(&stream, ASK_TIMES)?;
        Ok(Self::Tcp(stream))
    }

    pub(crate) fn try_clone(&self) -> io::Result<Self> {
        Ok(match self {
            Self::Unix(stream) => Self::Unix(stream.try_clone()?),
            Self::Tcp(stream) => Self::Tcp(stream.try_clone()?),
        })
    }

    /// For people and logs.
    pub(crate) fn peer(&self) -> String {
        match self {
            Self::Unix(_) => "unix".to_owned(),
            Self::Tcp(stream) => match stream.peer_addr() {
                Ok(address) => address.to_string(),
                Err(_) => "tcp".to_owned(),
            },
        }
    }

    pub(crate) fn read(&self, buf: &mut [u8]) -> io::Result<usize> {
        loop {
            let read = match self {
                Self::Unix(stream) => (&*stream).read(buf),
                Self::Tcp(stream) => (&*stream).read(buf),
            };
            match read {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                other => return other,
            }
        }
    }

    pub(crate) fn write(&self, buf: &[u8]) -> io::Result<usize> {
        match self {
            Self::Unix(stream) => (&*stream).write(buf),
            Self::Tcp(stream) => (&*stream).write(buf),
        }
    }

    pub(crate) fn write_all(&self, buf: &[u8]) -> io::Result<()> {
        match self {
            Self::Unix(stream) => (&*stream).write_all(buf),
            Self::Tcp(stream) => (&*stream).write_all(buf),
        }
    }

    /// Sends all parts, in as few calls as possible.
    pub(crate) fn write_all_parts(&self, parts: &[&[u8]]) -> io::Result<()> {
        let [first, second] = parts else {
            return parts.iter().try_for_each(|part| self.write_all(part));
        };
        let slices = [IoSlice::new(first), IoSlice::new(second)];
        let sent = match self {
            Self::Unix(stream) => (&*stream).write_vectored(&slices),
            Self::Tcp(stream) => (&*stream).write_vectored(&slices),
        };
        let sent = match sent {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => 0,
            other => other?,
        };
        let of_first = sent.min(first.len());
        self.write_all(&first[of_first..])?;
        self.write_all(&second[sent - of_first..])
    }

    /// Reads wait until then, or without end.
    pub(crate) fn wait_until(&self, deadline: Option<Instant>) -> io::Result<()> {
        let left = deadline.map(|at| at.saturating_duration_since(Instant::now()));
        if left.is_some_and(|left| left.is_zero()) {
            return Err(io::ErrorKind::TimedOut.into());
        }
        match self {
            Self::Unix(stream) => stream.set_read_timeout(left),
            Self::Tcp(stream) => stream.set_read_timeout(left),
        }
    }

    /// Longest that a peer may take nothing of what is sent to it.
    pub(crate) fn set_stall(&self, limit: Option<Duration>) -> io::Result<()> {
        match self {
            Self::Unix(stream) => stream.set_write_timeout(limit),
            Self::Tcp(stream) => stream.set_write_timeout(limit),
        }
    }

    /// Ends one or both directions, also for threads that wait in the other clones. A socket that is closed already is as good.
    pub(crate) fn end(&self, how: Shutdown) {
        let _ = match self {
            Self::Unix(stream) => stream.shutdown(how),
            Self::Tcp(stream) => stream.shutdown(how),
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;

    #[test]
    fn a_tcp_peer_that_vanishes_is_asked_for_soon() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let stream = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let Socket::Tcp(stream) = Socket::tcp(stream).unwrap() else {
            unreachable!()
        };
        assert!(sockopt::socket_keepalive(&stream).unwrap());
        assert_eq!(sockopt::tcp_keepidle(&stream).unwrap(), ASK_AFTER);
        assert_eq!(sockopt::tcp_keepintvl(&stream).unwrap(), ASK_EVERY);
        assert_eq!(sockopt::tcp_keepcnt(&stream).unwrap(), ASK_TIMES);
        assert!(stream.nodelay().unwrap());
    }
}
