//! Serves a raw image: `serve_file [--read-only] [--tls DIR] (unix:PATH | HOST:PORT) FILE`, until standard input ends.

use std::io::{self, Read};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use stillpoint_nbd::server::{Options, Server, Tls};
use stillpoint_nbd::{FileExport, Named, tls};

fn main() -> io::Result<()> {
    let mut arguments: Vec<String> = std::env::args().skip(1).collect();
    let read_only = arguments.first().is_some_and(|a| a == "--read-only");
    arguments.drain(..usize::from(read_only));
    let mut options = Options::default();
    if arguments.first().is_some_and(|a| a == "--tls") && arguments.len() > 2 {
        options.tls = Tls::Required(tls::server(Path::new(&arguments[1]), true)?);
        arguments.drain(..2);
    }
    let [address, file] = &arguments[..] else {
        let usage = "usage: serve_file [--read-only] [--tls DIR] (unix:PATH | HOST:PORT) FILE";
        return Err(io::Error::new(io::ErrorKind::InvalidInput, usage));
    };
    let file = Path::new(file);
    let export = if read_only {
        FileExport::read_only(file)?
    } else {
        FileExport::writable(file)?
    };
    let name = file.file_name().unwrap_or_default().to_string_lossy();
    let server = Server::new(Arc::new(Named::one(name, export)), options);
    match address.strip_prefix("unix:") {
        Some(path) => server.listen_unix(Path::new(path))?,
        None => eprintln!("listening on {}", server.listen_tcp(address)?),
    }
    io::stdin().read_to_end(&mut Vec::new())?;
    server.shutdown(Duration::from_secs(10));
    Ok(())
}
