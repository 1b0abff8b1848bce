//! `still serve`.

mod log;
mod sockets;

use crate::context::Context;
use crate::output::{Answer, Report, units};
use crate::report::Served;
use crate::{signals, size};
use clap::{Args, ValueEnum};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};
use stillpoint_api::System;
use stillpoint_api::compat::Release;
use stillpoint_nbd::server::{Limits, Options, Server, Tls};
use stillpoint_serve::listen::{Address, Listener, Unlink, control_of};
use stillpoint_serve::metrics::{self, Page};
use stillpoint_serve::nbd::StoreExports;
use stillpoint_serve::qmp::{self, Monitor};
use stillpoint_serve::{Accepting, CACHE_BYTES, Keeper, Shelf};
use stillpoint_store::{Error, ErrorKind, Result};
use tracing::{error, info, warn};

/// Longest that clients get to take the answers to what they asked before the server was told to stop.
const PATIENCE: Duration = Duration::from_secs(10);

/// Arguments of `serve`.
#[derive(Debug, Args)]
#[command(after_help = "\
Every snapshot is a read-only NBD export, DEVICE@SNAPSHOT or DEVICE@id:N, new ones at once, and every volume a writable one under
its device's name. The metadata context qemu:dirty-bitmap:SNAPSHOT of an export says where it differs from that snapshot.
Other commands on the same store work on volumes through the server. SIGTERM and Ctrl-C stop it when what was asked is
answered and what was written is durable. Sockets that systemd hands over are served too.

Examples:
  still serve --nbd unix:/run/still.sock
  still serve --nbd tcp:0.0.0.0:10809 --tls-certificates /etc/pki/still --tls-verify-peer
  still serve --nbd unix:/run/still.sock --cache 1G --log json
  still serve --nbd unix:/run/still.sock --qmp unix:/run/still.qmp --qemu-version 10.0

Then:  nbdinfo --list 'nbd+unix:///?socket=/run/still.sock'")]
pub struct Arguments {
    /// Where to serve NBD; may be given several times
    #[arg(long, value_name = "unix:PATH|tcp:HOST:PORT", value_parser = address)]
    nbd: Vec<Address>,
    /// Control socket that speaks QMP
    #[arg(long, value_name = "unix:PATH", value_parser = address)]
    qmp: Option<Address>,
    /// QEMU release that the control socket behaves as
    #[arg(long, value_name = "X.Y", default_value_t, value_parser = release)]
    qemu_version: Release,
    /// Where to answer GET /metrics, for Prometheus
    #[arg(long, value_name = "unix:PATH|tcp:HOST:PORT", value_parser = address)]
    metrics: Option<Address>,
    /// Bytes of memory for what was read and decoded, of all exports together
    #[arg(long, value_name = "BYTES", value_parser = size::parse, default_value_t = CACHE_BYTES as u64)]
    cache: u64,
    /// Most NBD connections at once; each may take up to 24 MiB of memory where its client floods the server
    #[arg(long, value_name = "N", default_value_t = 256)]
    connections: usize,
    /// Folder with server-cert.pem, server-key.pem and ca-cert.pem: only TLS is served
    #[arg(long, value_name = "DIR")]
    tls_certificates: Option<PathBuf>,
    /// Let in only clients with a certificate that ca-cert.pem vouches for
    #[arg(long, requires = "tls_certificates")]
    tls_verify_peer: bool,
    /// Serve clients that do not ask for TLS too
    #[arg(long, requires = "tls_certificates")]
    tls_optional: bool,
    /// Bytes written to a volume that are kept in files beside the store; more are stored while guests write on
    #[arg(long, value_name = "BYTES", value_parser = size::parse, default_value = "1G")]
    overlay_limit: u64,
    /// How log lines on standard error look
    #[arg(long, value_name = "FORMAT", default_value = "text")]
    log: LogFormat,
}

/// How log lines look.
#[derive(Debug, Clone, Copy, ValueEnum)]
pub enum LogFormat {
    /// Words and fields.
    Text,
    /// A JSON object a line.
    Json,
}

fn release(text: &str) -> std::result::Result<Release, String> {
    text.parse().map_err(|e: Error| e.to_string())
}

fn address(text: &str) -> std::result::Result<Address, String> {
    text.parse().map_err(|e: Error| e.to_string())
}

/// Serves until a signal comes.
pub fn run(arguments: &Arguments, context: &Context) -> Result<Answer> {
    log::start(arguments.log, context.quiet);
    // Also those that come before everything is there.
    let stop = signals::on_stop().map_err(|e| Error::io("waiting for signals", e))?;
    let since = Instant::now();
    let bound = sockets::bind(&arguments.nbd, arguments.qmp.as_ref())?;
    // The server and its clients' threads use it up to the end of the process; see stillpoint_serve.
    let system: &'static System = Box::leak(Box::new(context.open_logged()?));
    let cache = usize::try_from(arguments.cache).unwrap_or(usize::MAX);
    let shelf = Arc::new(Shelf::new(system, cache)?);
    let exports = Arc::new(StoreExports::new(shelf.clone()));
    let server = Arc::new(Server::new(exports.clone(), arguments.options()?));
    let metrics = arguments.metrics(&shelf, &exports, &server, since)?;
    let monitor = Monitor::new(shelf.clone(), exports, arguments.qemu_version);
    let control = qmp::Server::new(monitor);
    let listened = bound.names();
    // Before clients come: a second server on the store must not get as far as them.
    let _own = own_socket(&control, context)?;
    let _unlink = bound.serve(&server, &control)?;
    let keeper = Keeper::start(shelf.clone(), arguments.overlay_limit)
        .map_err(|e| Error::io("starting a thread", e))?;
    for name in &listened {
        info!(address = name, "listening");
    }
    info!("ready");
    // No systemd, no harm.
    let _ = sd_notify::notify(false, &[sd_notify::NotifyState::Ready]);
    let signal = stop.recv().unwrap_or_default();
    info!(signal, connections = server.connections(), "stopping");
    let _ = sd_notify::notify(false, &[sd_notify::NotifyState::Stopping]);
    drop(metrics);
    let clean = server.shutdown(PATIENCE);
    control.shutdown(PATIENCE);
    drop(keeper);
    // ORDER: nobody writes any more, then what was written becomes durable: guests that did not flush lose nothing by a restart.
    shelf.volumes().close();
    if !clean {
        error!("clients that did not take their answers were cut off");
    }
    info!("stopped");
    Ok(Answer::of(Served {
        listened,
        clean,
        seconds: since.elapsed().as_secs_f64(),
    }))
}

/// Listens where other commands on this store look for its server: what they ask of volumes goes through it. There is one
/// server a store.
fn own_socket(control: &qmp::Server, context: &Context) -> Result<Option<Unlink>> {
    let address = control_of(&context.store);
    match address.bind() {
        Ok((Listener::Unix(listener), unlink)) => {
            let listening = control.listen(listener);
            listening.map_err(|e| Error::io("listening on", e).at(&address))?;
            Ok(unlink)
        }
        Err(e) if e.kind() == ErrorKind::Busy => {
            Err(Error::new(ErrorKind::Busy, "serving the store")
                .at(context.store.display())
                .detail("another server serves it")
                .hint("one server has all volumes of a store: stop the other one first"))
        }
        // A store that cannot be written has no volumes to ask for.
        Err(e) => {
            info!(why = %e, "other commands cannot work through this server");
            Ok(None)
        }
        Ok(_) => Ok(None),
    }
}

impl Arguments {
    fn options(&self) -> Result<Options> {
        let connections = stillpoint_serve::connections_at_most(self.connections);
        if connections < self.connections {
            warn!(
                connections,
                "fewer connections than asked for: the limit on open files (ulimit -n) is too low"
            );
        }
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let limits = Limits {
            connections,
            // Little memory a connection: what decodes is bounded elsewhere, and most of what waits is answered from memory.
            workers: cores.clamp(2, 8),
            bytes: 8 << 20,
            ..Limits::default()
        };
        Ok(Options {
            tls: self.tls()?,
            limits,
        })
    }

    fn metrics(
        &self,
        shelf: &Arc<Shelf>,
        exports: &Arc<StoreExports>,
        server: &Arc<Server>,
        since: Instant,
    ) -> Result<Option<(Accepting, Option<Unlink>)>> {
        let Some(address) = &self.metrics else {
            return Ok(None);
        };
        let (shelf, exports, server) = (shelf.clone(), exports.clone(), Arc::downgrade(server));
        let fill = move |page: &mut Page| {
            let version = ("version", env!("CARGO_PKG_VERSION"));
            page.gauge_of("build_info", "The program.", version, 1.0);
            let seconds = since.elapsed().as_secs_f64();
            page.gauge("uptime_seconds", "Seconds since the start.", seconds);
            let connections = server.upgrade().map_or(0, |server| server.connections());
            page.gauge("nbd_connections", "NBD connections.", connections as f64);
            let clients = exports.clients() as f64;
            page.gauge(
                "nbd_clients",
                "NBD connections with an open export.",
                clients,
            );
            shelf.metrics(page);
        };
        let (listener, unlink) = address.bind()?;
        let bound = sockets::name(&listener, address);
        info!(address = bound, "answering GET /metrics");
        let serving = metrics::serve(listener, fill);
        let serving = serving.map_err(|e| Error::io("listening on", e).at(address))?;
        Ok(Some((serving, unlink)))
    }

    fn tls(&self) -> Result<Tls> {
        let Some(folder) = &self.tls_certificates else {
            return Ok(Tls::Off);
        };
        let config = stillpoint_nbd::tls::server(folder, self.tls_verify_peer)
            .map_err(|e| Error::io("reading certificates", e))?;
        Ok(if self.tls_optional {
            Tls::Allowed(config)
        } else {
            Tls::Required(config)
        })
    }
}

impl Report for Served {
    fn text(&self) -> String {
        let how = if self.clean {
            ""
        } else {
            "; some clients were cut off"
        };
        format!("served for {}{how}\n", units::seconds(self.seconds))
    }
}
