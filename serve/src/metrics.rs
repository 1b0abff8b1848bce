//! What a Prometheus asks for: `GET /metrics` in its text format, and nothing else. One request a connection, one connection at
//! a time, each with little time and few bytes.

use crate::accept::{Accepting, Stream};
use crate::listen::Listener;
use std::fmt::Write as _;
use std::io::{self, Read, Write};
use std::time::{Duration, Instant};

/// Longest head of a request, in bytes.
const HEAD_MAX: usize = 8 << 10;
/// Longest that a request, and taking its answer, may take.
const PATIENCE: Duration = Duration::from_secs(2);

/// Collects numbers as text.
#[derive(Debug, Default)]
pub struct Page {
    text: String,
    last: String,
}

impl Page {
    /// A number that only grows.
    pub fn counter(&mut self, name: &str, help: &str, value: u64) {
        self.put(name, "counter", help, "", value as f64);
    }

    /// A number that goes up and down.
    pub fn gauge(&mut self, name: &str, help: &str, value: f64) {
        self.put(name, "gauge", help, "", value);
    }

    /// The same of something that has a name; those of one `name` come one after the other.
    pub fn gauge_of(&mut self, name: &str, help: &str, (label, of): (&str, &str), value: f64) {
        let of = of
            .replace('\\', "\\\\")
            .replace('"', "\\\"")
            .replace('\n', "\\n");
        self.put(name, "gauge", help, &format!("{{{label}=\"{of}\"}}"), value);
    }

    fn put(&mut self, name: &str, kind: &str, help: &str, labels: &str, value: f64) {
        let name = format!("stillpoint_{name}");
        // Writing to a string cannot fail.
        if self.last != name {
            let _ = writeln!(self.text, "# HELP {name} {help}\n# TYPE {name} {kind}");
        }
        let _ = writeln!(self.text, "{name}{labels} {value}");
        self.last = name;
    }
}

/// Serves until the answer is dropped. `fill` is asked at every request.
pub fn serve(
    listener: Listener,
    fill: impl Fn(&mut Page) + Send + 'static,
) -> io::Result<Accepting> {
    Accepting::start("metrics", listener, move |stream| {
        // A client that misbehaves is not answered.
        let _ = match stream {
            Stream::Unix(unix) => unix
                .set_write_timeout(Some(PATIENCE))
                .and_then(|()| answer(&unix, &fill, |left| unix.set_read_timeout(Some(left)))),
            Stream::Tcp(tcp) => tcp
                .set_write_timeout(Some(PATIENCE))
                .and_then(|()| answer(&tcp, &fill, |left| tcp.set_read_timeout(Some(left)))),
        };
        Ok(())
    })
}

fn answer<S>(
    stream: S,
    fill: &dyn Fn(&mut Page),
    wait_at_most: impl Fn(Duration) -> io::Result<()>,
) -> io::Result<()>
where
    S: Read + Write,
{
    let mut stream = stream;
    let head = head(&mut stream, wait_at_most)?;
    let (status, body) = match request(&head) {
        Some(("GET", "/metrics")) => {
            let mut page = Page::default();
            fill(&mut page);
            ("200 OK", page.text)
        }
        Some(("GET", _)) => ("404 Not Found", "only /metrics is here\n".to_owned()),
        Some(_) => (
            "405 Method Not Allowed",
            "only GET is understood\n".to_owned(),
        ),
        None => ("400 Bad Request", "that is no request\n".to_owned()),
    };
    let length = body.len();
    let head = format!(
        "HTTP/1.1 {status}\r\nContent-Type: text/plain; version=0.0.4; charset=utf-8\r\n\
         Content-Length: {length}\r\nConnection: close\r\n\r\n"
    );
    stream.write_all(head.as_bytes())?;
    stream.write_all(body.as_bytes())?;
    stream.flush()
}

/// The head of a request, up to the empty line.
fn head(
    stream: &mut impl Read,
    wait_at_most: impl Fn(Duration) -> io::Result<()>,
) -> io::Result<Vec<u8>> {
    let deadline = Instant::now() + PATIENCE;
    let mut head = Vec::new();
    let mut bytes = [0; 1024];
    while !head.windows(4).any(|end| end == b"\r\n\r\n") {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() || head.len() > HEAD_MAX {
            return Err(io::ErrorKind::InvalidData.into());
        }
        wait_at_most(left)?;
        let n = stream.read(&mut bytes)?;
        if n == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        head.extend_from_slice(&bytes[..n]);
    }
    Ok(head)
}

/// Method and path of a request.
fn request(head: &[u8]) -> Option<(&str, &str)> {
    let line = head.split(|b| *b == b'\r').next()?;
    let mut words = std::str::from_utf8(line).ok()?.split(' ');
    let (method, target, version) = (words.next()?, words.next()?, words.next()?);
    if words.next().is_some() || !version.starts_with("HTTP/1.") {
        return None;
    }
    Some((method, target.split('?').next()?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::net::{UnixListener, UnixStream};

    fn ask(folder: &std::path::Path, bytes: &[u8]) -> String {
        let mut stream = UnixStream::connect(folder.join("m")).unwrap();
        // It may be turned away before it has said everything.
        let _ = stream.write_all(bytes);
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer);
        String::from_utf8(answer).unwrap()
    }

    #[test]
    fn only_metrics_are_answered_and_whoever_misbehaves_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let listener = UnixListener::bind(folder.path().join("m")).unwrap();
        let fill = |page: &mut Page| {
            page.counter("reads_total", "Reads.", 7);
            page.gauge_of("overlay_bytes", "Bytes.", ("device", "a\"b"), 1.0);
            page.gauge_of("overlay_bytes", "Bytes.", ("device", "c"), 2.0);
        };
        let serving = serve(Listener::Unix(listener), fill).unwrap();
        let answer = ask(folder.path(), b"GET /metrics?x HTTP/1.1\r\nHost: a\r\n\r\n");
        assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
        let body = answer.split("\r\n\r\n").nth(1).unwrap();
        assert_eq!(
            body,
            "# HELP stillpoint_reads_total Reads.\n# TYPE stillpoint_reads_total counter\n\
             stillpoint_reads_total 7\n\
             # HELP stillpoint_overlay_bytes Bytes.\n# TYPE stillpoint_overlay_bytes gauge\n\
             stillpoint_overlay_bytes{device=\"a\\\"b\"} 1\n\
             stillpoint_overlay_bytes{device=\"c\"} 2\n"
        );
        for (bytes, status) in [
            (&b"GET / HTTP/1.1\r\n\r\n"[..], "HTTP/1.1 404"),
            (b"POST /metrics HTTP/1.1\r\n\r\n", "HTTP/1.1 405"),
            (b"hello\r\n\r\n", "HTTP/1.1 400"),
            (&vec![b'x'; 20_000], ""),
        ] {
            let answer = ask(folder.path(), bytes);
            assert!(answer.starts_with(status), "{answer}");
        }
        // One that says nothing is let go, and the next is answered.
        let silent = UnixStream::connect(folder.path().join("m")).unwrap();
        assert!(ask(folder.path(), b"GET /metrics HTTP/1.0\r\n\r\n").contains("200 OK"));
        drop((silent, serving));
    }
}
