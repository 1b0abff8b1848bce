//! Images out: our NBD server over a view of the store, and qemu-img, which writes what it reads there.

use super::layers::SECRET;
use super::program::{path_text, run};
use super::read::objects;
use super::relay::{answer, relay};
use serde_json::json;
use std::path::Path;
use std::sync::Arc;
use stillpoint_nbd::Named;
use stillpoint_nbd::server::{Options, Server};
use stillpoint_store::disk::real::RealDisk;
use stillpoint_store::format::entry::Content;
use stillpoint_store::store::Store;
use stillpoint_store::{Error, Result};

/// Bytes of decoded frames that are kept meanwhile.
const CACHE_BYTES: usize = 96 << 20;
/// Threads that read the view.
const READERS: usize = 4;

/// Writes a disk of the store to the file `to`, which is there and empty, in a format that qemu-img calls `format`; luks and
/// qcow2 encrypted with the passphrase in the file `secret`. The caller makes it durable.
pub fn write_foreign(
    store: &Store,
    disk: Content,
    format: &str,
    secret: Option<&Path>,
    to: &Path,
) -> Result<()> {
    let failed = |e| Error::io("serving the disk to qemu-img", e);
    let view = store.view(disk, CACHE_BYTES)?;
    let folder = tempfile::tempdir().map_err(failed)?;
    let socket = folder.path().join("s");
    let source = json!({
        "driver": "raw",
        "file": {
            "driver": "nbd",
            "server": { "type": "unix", "path": path_text(&socket)? },
        },
    });
    // A file without a protocol, whatever is in its name.
    let target = format!("file:{}", path_text(to)?);
    let mut arguments = vec!["convert".to_owned(), "-O".to_owned(), format.to_owned()];
    arguments.extend(objects(&RealDisk, secret)?);
    let option = match format {
        "luks" => Some(format!("key-secret={SECRET}")),
        "qcow2" => Some(format!("encrypt.format=luks,encrypt.key-secret={SECRET}")),
        // Else the disk grows to what cylinders and heads can say.
        "vpc" => Some("force_size=on".to_owned()),
        _ => None,
    };
    arguments.extend(option.into_iter().flat_map(|o| ["-o".to_owned(), o]));
    arguments.extend([format!("json:{source}"), target]);
    let (export, requests) = relay(disk.size);
    std::thread::scope(|scope| {
        for _ in 0..READERS {
            scope.spawn(|| answer(&view, &requests));
        }
        let server = Server::new(Arc::new(Named::one("", export)), Options::default());
        let listening = server.listen_unix(&socket).map_err(failed);
        // The relay ends with the server, and the readers with the relay.
        listening.and_then(|()| run("qemu-img", &arguments).map(|_| ()))
    })
}
