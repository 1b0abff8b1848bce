//! NBD servers that clients of the control socket start, and the exports that they choose for them.

use super::StoreExports;
use super::read_only::ReadOnly;
use crate::listen::{Address, Listener, Unlink};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use stillpoint_nbd::codec::transmission;
use stillpoint_nbd::server::{Limits, Options, Server};
use stillpoint_nbd::{Export, Exports, Listed, OpenError, Peer};
use stillpoint_store::{Error, ErrorKind, Result};

/// Longest that clients get to take their answers when the server is told to stop.
const PATIENCE: Duration = Duration::from_secs(5);

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Maps and options, whole after each statement.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// An export that somebody chose.
#[derive(Debug, Clone)]
pub struct ChosenExport {
    /// Its id among all.
    pub id: String,
    /// Its name for NBD clients.
    pub name: String,
    /// What it shows: a name as [`StoreExports`] has them.
    pub target: String,
    /// Text for people.
    pub description: String,
    /// Whether clients may write. What cannot be written is not written in any case.
    pub writable: bool,
}

/// A server at most, and its exports.
pub struct NbdServers {
    chosen: Arc<Chosen>,
    running: Mutex<Option<Running>>,
}

struct Running {
    server: Server,
    _unlink: Option<Unlink>,
}

struct Chosen {
    store: Arc<StoreExports>,
    /// By their names.
    all: Mutex<BTreeMap<String, ChosenExport>>,
}

impl NbdServers {
    /// None yet.
    pub fn new(store: Arc<StoreExports>) -> Self {
        let chosen = Chosen {
            store,
            all: Mutex::default(),
        };
        Self {
            chosen: Arc::new(chosen),
            running: Mutex::default(),
        }
    }

    /// Starts the server. `AlreadyExists` where it runs.
    pub fn start(&self, address: &Address, connections: Option<usize>) -> Result<()> {
        let mut running = lock(&self.running);
        if running.is_some() {
            return Err(Error::new(
                ErrorKind::AlreadyExists,
                "NBD server already running",
            ));
        }
        let mut limits = Limits::default();
        limits.connections = connections.unwrap_or(limits.connections);
        let options = Options {
            limits,
            ..Options::default()
        };
        let server = Server::new(self.chosen.clone(), options);
        let (listener, unlink) = address.bind()?;
        match listener {
            Listener::Unix(unix) => server.listen_on_unix(unix),
            Listener::Tcp(tcp) => server.listen_on_tcp(tcp),
        }
        .map_err(|e| Error::io("listening on", e).at(address))?;
        *running = Some(Running {
            server,
            _unlink: unlink,
        });
        Ok(())
    }

    /// Whether it runs.
    pub fn is_running(&self) -> bool {
        lock(&self.running).is_some()
    }

    /// Stops it, if it runs, and forgets all exports; answers with those.
    pub fn stop(&self) -> Vec<ChosenExport> {
        let running = lock(&self.running).take();
        if let Some(running) = running {
            running.server.shutdown(PATIENCE);
        }
        std::mem::take(&mut *lock(&self.chosen.all))
            .into_values()
            .collect()
    }

    /// Whether nobody can write what is called so.
    pub fn is_read_only(&self, target: &str) -> std::result::Result<bool, OpenError> {
        let info = self.chosen.store.ask(target, &Peer::default())?.info();
        Ok(info.has(transmission::READ_ONLY))
    }

    /// Adds an export. An error is the text of what is wrong.
    pub fn add(&self, export: ChosenExport) -> std::result::Result<(), String> {
        let mut all = lock(&self.chosen.all);
        if all.values().any(|other| other.id == export.id) {
            return Err(format!("Block export id '{}' is already in use", export.id));
        }
        if all.contains_key(&export.name) {
            let name = export.name;
            return Err(format!("NBD server already has export named '{name}'"));
        }
        all.insert(export.name.clone(), export);
        Ok(())
    }

    /// Takes one away: nobody opens it any more. Who has it open keeps it.
    pub fn remove(&self, is: impl Fn(&ChosenExport) -> bool) -> Option<ChosenExport> {
        let mut all = lock(&self.chosen.all);
        let name = all.values().find(|e| is(e))?.name.clone();
        all.remove(&name)
    }

    /// All of them, in the order of their names.
    pub fn list(&self) -> Vec<ChosenExport> {
        lock(&self.chosen.all).values().cloned().collect()
    }
}

impl Chosen {
    fn find(&self, name: &str) -> std::result::Result<ChosenExport, OpenError> {
        let found = lock(&self.all).get(name).cloned();
        found.ok_or_else(|| OpenError::unknown(name))
    }
}

impl Exports for Chosen {
    fn list(&self, _peer: &Peer) -> Vec<Listed> {
        let all = lock(&self.all);
        let listed = all.values().map(|e| Listed {
            name: e.name.clone(),
            description: e.description.clone(),
        });
        listed.collect()
    }

    fn open(&self, name: &str, peer: &Peer) -> std::result::Result<Arc<dyn Export>, OpenError> {
        let chosen = self.find(name)?;
        let export = self.store.open(&chosen.target, peer)?;
        Ok(chosen.shown(export))
    }

    fn ask(&self, name: &str, peer: &Peer) -> std::result::Result<Arc<dyn Export>, OpenError> {
        let chosen = self.find(name)?;
        let export = self.store.ask(&chosen.target, peer)?;
        Ok(chosen.shown(export))
    }
}

impl ChosenExport {
    fn shown(&self, export: Arc<dyn Export>) -> Arc<dyn Export> {
        if self.writable {
            export
        } else {
            Arc::new(ReadOnly(export))
        }
    }
}
