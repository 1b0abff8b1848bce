//! The menu as NBD exports.

mod chosen;
mod contexts;
mod read_only;
mod snapshot;
mod volume;

pub use chosen::{ChosenExport, NbdServers};

use crate::menu::{self, Item, Missing, Shows};
use crate::shelf::Shelf;
use contexts::Contexts;
use snapshot::SnapshotExport;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use stillpoint_nbd::codec::OptionError;
use stillpoint_nbd::{Errno, Export, Exports, Failure, Listed, OpenError, Peer};
use stillpoint_store::{Error, ErrorKind};
use tracing::{info, warn};
use volume::VolumeExport;

/// Every snapshot of a store under `DEVICE@SNAPSHOT`, every volume, which can be written, under its device's name, and so every
/// other device whose present contents are in the store; all as they are at the moment of the question.
pub struct StoreExports {
    shelf: Arc<Shelf>,
    clients: Arc<AtomicUsize>,
}

/// Counts a client that has an export open, and says in the log when it goes.
struct Client {
    clients: Arc<AtomicUsize>,
    name: String,
    peer: String,
}

impl Client {
    fn new(clients: &Arc<AtomicUsize>, name: &str, peer: &Peer) -> Self {
        clients.fetch_add(1, Ordering::Relaxed);
        info!(export = name, peer = peer.address, tls = peer.tls, "opened");
        Self {
            clients: clients.clone(),
            name: name.to_owned(),
            peer: peer.address.clone(),
        }
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        self.clients.fetch_sub(1, Ordering::Relaxed);
        info!(export = self.name, peer = self.peer, "closed");
    }
}

impl StoreExports {
    /// Over the disks of a shelf.
    pub fn new(shelf: Arc<Shelf>) -> Self {
        Self {
            shelf,
            clients: Arc::default(),
        }
    }

    /// Connections that have an export open.
    pub fn clients(&self) -> usize {
        self.clients.load(Ordering::Relaxed)
    }

    fn find(&self, name: &str) -> Result<(Item, Contexts), OpenError> {
        let catalog = self.shelf.system().store().refresh();
        let catalog = catalog.map_err(|e| refused(name, &e))?;
        let item = menu::find(&catalog, name).map_err(|missing| missed(name, missing))?;
        let contexts = Contexts::of(&catalog, &item);
        Ok((item, contexts))
    }

    /// For a peer it is opened, without one only asked about.
    fn export(&self, name: &str, peer: Option<&Peer>) -> Result<Arc<dyn Export>, OpenError> {
        let (item, contexts) = self.find(name)?;
        let shelf = self.shelf.clone();
        let client = peer.map(|peer| Client::new(&self.clients, name, peer));
        let opened = match (item.shows, client) {
            (Shows::Content(content), None) => {
                return Ok(Arc::new(SnapshotExport::new(
                    shelf, item, content, contexts,
                )));
            }
            (Shows::Content(content), Some(client)) => {
                let export = SnapshotExport::new(shelf, item, content, contexts);
                export
                    .opened(client)
                    .map(|e| Arc::new(e) as Arc<dyn Export>)
            }
            (Shows::Volume(size), None) => {
                return Ok(Arc::new(volume::Question::new(size, contexts)));
            }
            (Shows::Volume(_), Some(client)) => {
                VolumeExport::open(shelf, item, contexts, client).map(|e| Arc::new(e) as _)
            }
        };
        opened.map_err(|e| refused(name, &e))
    }
}

impl Exports for StoreExports {
    fn list(&self, _peer: &Peer) -> Vec<Listed> {
        match self.shelf.system().store().refresh() {
            Ok(catalog) => menu::all(&catalog).iter().map(listed).collect(),
            Err(error) => {
                warn!(error = %error, "the exports cannot be listed");
                Vec::new()
            }
        }
    }

    fn open(&self, name: &str, peer: &Peer) -> Result<Arc<dyn Export>, OpenError> {
        self.export(name, Some(peer)).inspect_err(|e| {
            info!(
                export = name,
                peer = peer.address,
                why = e.message,
                "not opened"
            );
        })
    }

    fn ask(&self, name: &str, _peer: &Peer) -> Result<Arc<dyn Export>, OpenError> {
        self.export(name, None)
    }
}

fn listed(item: &Item) -> Listed {
    Listed {
        name: item.name(),
        description: description(item),
    }
}

fn description(item: &Item) -> String {
    match (&item.snapshot, item.date) {
        (Some(_), Some(date)) => {
            let (days, rest) = (date.sec / 86_400, date.sec % 86_400);
            let (year, month, day) = stillpoint_api::civil(days.cast_signed());
            let (h, m, s) = (rest / 3600, rest / 60 % 60, rest % 60);
            format!("snapshot of {year:04}-{month:02}-{day:02} {h:02}:{m:02}:{s:02} UTC")
        }
        _ if matches!(item.shows, Shows::Volume(_)) => "volume".to_owned(),
        _ => "present contents".to_owned(),
    }
}

fn missed(name: &str, missing: Missing) -> OpenError {
    match missing {
        Missing::Unknown => OpenError::unknown(name),
        Missing::Ambiguous => OpenError {
            kind: OptionError::Invalid,
            message: format!(
                "several snapshots are called {name:?}: choose by id, as in DEVICE@id:N"
            ),
        },
    }
}

fn refused(name: &str, error: &Error) -> OpenError {
    warn!(export = name, error = %chain(error), "cannot be opened");
    OpenError {
        kind: OptionError::Platform,
        message: format!("{name:?} cannot be opened: {error}"),
    }
}

/// An error of the store as the protocol has it.
fn failure(error: &Error) -> Failure {
    let errno = match error.kind() {
        ErrorKind::NoSpace => Errno::NoSpc,
        ErrorKind::ReadOnly => Errno::Perm,
        ErrorKind::InvalidInput => Errno::Inval,
        ErrorKind::Cancelled => Errno::Shutdown,
        _ => Errno::Io,
    };
    Failure::new(errno, error.to_string())
}

/// A request that failed, noted in the log.
fn failed(item: &Item, doing: &str, offset: u64, error: &Error) -> Failure {
    warn!(export = item.name(), offset, error = %chain(error), "{doing} failed");
    failure(error)
}

/// An error with its causes, for the log.
pub(crate) fn chain(error: &Error) -> String {
    let mut text = error.to_string();
    let mut cause = std::error::Error::source(error);
    while let Some(e) = cause {
        text.push_str(": ");
        text.push_str(&e.to_string());
        cause = e.source();
    }
    text
}
